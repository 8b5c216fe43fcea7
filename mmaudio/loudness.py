"""Loudness normalisation (ITU-R BS.1770-4), as an option: the models' own level is left alone by default."""

import math

import torchaudio
from torch import Tensor

MIN_SECONDS = 0.4  # one measuring block
HEADROOM = 8.0  # torchaudio's filter clips at +-1 inside: loud sound is measured at an eighth of full scale
TRUE_PEAK = -1.0  # dBTP


def integrated_loudness(audio: Tensor, sample_rate: int) -> float:
    """LUFS of (C, N) audio; -inf for silence and for less than 0.4 s."""
    if audio.shape[-1] < MIN_SECONDS * sample_rate:
        return -math.inf
    scale = max(1.0, HEADROOM * audio.abs().max().item())  # quiet sound as it is: the gate at -70 LUFS is absolute
    lufs = torchaudio.functional.loudness(audio / scale, sample_rate).item() + 20 * math.log10(scale)
    return lufs if math.isfinite(lufs) else -math.inf


def true_peak(audio: Tensor, sample_rate: int) -> float:
    """Peak of the fourfold oversampled signal, dBTP."""
    peak = torchaudio.functional.resample(audio, sample_rate, 4 * sample_rate).abs().max().item()
    return 20 * math.log10(max(peak, 1e-9))


def check_target(lufs: float) -> None:
    """ValueError unless a loudness is one that can be asked for."""
    if not -70 <= lufs <= 0:
        raise ValueError(f"loudness target must be between -70 and 0 LUFS, got {lufs}")


def normalize_loudness(audio: Tensor, sample_rate: int, target: float) -> tuple[Tensor, str]:
    """Scale (C, N) audio to `target` LUFS, or less if the true peak would pass -1 dBTP; and one line that says so.

    Raises:
        ValueError: the target is not between -70 and 0 LUFS.
    """
    check_target(target)
    loudness = integrated_loudness(audio, sample_rate)
    if loudness == -math.inf:
        return audio, "loudness not changed: silence, or shorter than 0.4 s"
    gain = min(target - loudness, TRUE_PEAK - true_peak(audio, sample_rate))
    limited = " (limited by the true peak)" if gain < target - loudness - 0.05 else ""
    return audio * 10 ** (gain / 20), f"loudness {loudness:.1f} -> {loudness + gain:.1f} LUFS{limited}"
