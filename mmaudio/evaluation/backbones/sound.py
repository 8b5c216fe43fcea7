"""Sound as the networks want it: mixed down, resampled and cut; and the spectrogram that two of them share."""

from functools import lru_cache

import torch
from torch import Tensor

from mmaudio.data.preparation import resampling_problem
from mmaudio.media.container import exact


def resample(samples: Tensor, rate: int, new_rate: int) -> Tensor:
    """(..., N) at `rate` to (..., ceil(N new_rate / rate)), with the filter that the published figures use.

    Raises:
        ValueError: the two rates have no small ratio, so that the filters would fill the memory.
    """
    from torchaudio.functional import resample as resample_by_default  # slow to import

    if problem := resampling_problem(rate, new_rate):
        raise ValueError(problem)
    return resample_by_default(samples, rate, new_rate)


def mono(samples: Tensor, rate: int, new_rate: int, duration: float, centred: bool = False) -> Tensor:
    """(C, N) to the mean of the channels at `new_rate`, (M,): its first floor(new_rate * duration) samples at most.

    `centred` takes away the mean of the whole file, before the cut: preparation A of the published figures.
    """
    wave = samples.mean(0)
    if centred:
        wave = wave - wave.mean()
    return resample(wave, rate, new_rate)[: int(new_rate * exact(duration))]


@lru_cache(maxsize=8)
def _slaney_filters(rate: int, n_fft: int, lowest: float, highest: float, bands: int) -> Tensor:
    from torchaudio.functional import melscale_fbanks  # slow to import

    with torch.inference_mode(False):
        return melscale_fbanks(n_fft // 2 + 1, lowest, highest, bands, rate, "slaney", "slaney")


def decibel_mel(waveform: Tensor, rate: int, n_fft: int, hop: int, lowest: float, highest: float) -> Tensor:
    """Waveform (B, N) to 64 mel bands in decibels of power (B, 1, N // hop + 1, 64), no lower than -100."""
    window = torch.hann_window(n_fft, device=waveform.device)
    spectrum = torch.stft(waveform, n_fft, hop, n_fft, window, return_complex=True)  # centred, reflected at the ends
    power = spectrum.abs().square().transpose(1, 2)  # (B, F, n_fft / 2 + 1)
    mel = power @ _slaney_filters(rate, n_fft, lowest, highest, 64).to(waveform.device)
    return 10 * mel.clamp(min=1e-10).log10().unsqueeze(1)
