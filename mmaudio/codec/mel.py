"""Log-mel spectrograms as the two codecs define them."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class MelConfig:
    sample_rate: int
    n_fft: int  # also the window length
    hop_length: int
    num_mels: int
    log10: bool  # decimal logarithm (16 kHz) or natural (44.1 kHz)


MEL_16K = MelConfig(sample_rate=16_000, n_fft=1024, hop_length=256, num_mels=80, log10=True)
MEL_44K = MelConfig(sample_rate=44_100, n_fft=2048, hop_length=512, num_mels=128, log10=False)

FLOOR = 1e-5  # smallest mel magnitude before the logarithm


def hz_to_mel(hz: Tensor) -> Tensor:
    """Slaney's scale: linear below 1 kHz, logarithmic above."""
    return torch.where(hz < 1000, hz * 3 / 200, 15 + 27 * torch.log(hz.clamp(min=1) / 1000) / math.log(6.4))


def mel_to_hz(mel: Tensor) -> Tensor:
    return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * math.log(6.4) / 27))


def mel_basis(config: MelConfig) -> Tensor:
    """Triangular filters of unit area on Slaney's scale, (M, n_fft / 2 + 1).

    In double precision: torchaudio's float32 filters are off by more than the reference's tolerance.
    """
    top = torch.tensor(config.sample_rate / 2, dtype=torch.float64)
    mels = torch.linspace(0, hz_to_mel(top).item(), config.num_mels + 2, dtype=torch.float64)
    edges = mel_to_hz(mels)  # (M + 2,)
    bins = torch.linspace(0, config.sample_rate / 2, config.n_fft // 2 + 1, dtype=torch.float64)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = torch.minimum(rise, fall).clamp(min=0)
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).float()


class MelSpectrogram(nn.Module):
    """Waveform (B, N) in [-1, 1] to log-mel (B, M, F) with F = N // hop_length; always in float32.

    Magnitude spectrogram (not power), Slaney mel scale and normalisation from 0 Hz to half the sample rate, reflection
    padding by (n_fft - hop_length) / 2 instead of centred frames. Louder input than [-1, 1] is clamped.
    """

    def __init__(self, config: MelConfig):
        super().__init__()
        self.config = config
        self.register_buffer("mel_basis", mel_basis(config), persistent=False)  # (M, n_fft / 2 + 1)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)

    def magnitude(self, waveform: Tensor) -> Tensor:
        """Mel magnitudes before the logarithm, (B, M, F)."""
        c = self.config
        x = F.pad(waveform.float().clamp(-1, 1), ((c.n_fft - c.hop_length) // 2,) * 2, mode="reflect")
        spectrum = torch.stft(
            x, c.n_fft, c.hop_length, window=self.window.float(), center=False, onesided=True, return_complex=True
        )
        return self.mel_basis.float() @ (torch.view_as_real(spectrum).square().sum(-1) + 1e-9).sqrt()

    def forward(self, waveform: Tensor) -> Tensor:
        magnitude = self.magnitude(waveform).clamp(min=FLOOR)
        return magnitude.log10() if self.config.log10 else magnitude.log()

    def to_magnitude(self, mel: Tensor) -> Tensor:
        """The inverse of the logarithm: log-mel to mel magnitudes."""
        return 10**mel if self.config.log10 else mel.exp()
