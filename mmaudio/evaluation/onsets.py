"""When things sound, without a learned model: onset detection and its agreement with known event times."""

from dataclasses import dataclass

import numpy as np

HOP_RATE = 200  # frames per second
TOP_HZ = 8000  # what all our sample rates hold


def detect_onsets(audio: np.ndarray, sample_rate: int, threshold: float = 0.35) -> np.ndarray:
    """Onset times in seconds of mono audio (N,): peaks of log-spectral flux, 20 ms windows every 5 ms.

    A peak is the largest value within 40 ms on either side and exceeds the local median by `threshold` (mean increase
    of log magnitude over 10 ms). Found onsets are more than 40 ms apart.
    """
    hop, width = sample_rate // HOP_RATE, sample_rate // 50
    padded = np.pad(np.asarray(audio, dtype=np.float64), width // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, width)[::hop] * np.hanning(width)  # (F, width)
    bins = TOP_HZ * width // sample_rate
    level = np.log(np.abs(np.fft.rfft(frames, axis=1))[:, :bins] + 1e-3 * width / 16)
    flux = np.pad(np.maximum(level[2:] - level[:-2], 0).mean(1), 1)
    found: list[int] = []
    for i in range(len(flux)):
        peak = flux[i] >= flux[max(0, i - 8) : i + 9].max()
        above = flux[i] > threshold + np.median(flux[max(0, i - 40) : i + 40])
        if peak and above and (not found or i - found[-1] > 8):
            found.append(i)
    return np.array(found) * hop / sample_rate


@dataclass(frozen=True)
class Matches:
    """Counts of one-to-one matches; add them up over clips before taking the score."""

    hits: int = 0
    missed: int = 0
    extra: int = 0

    def __add__(self, other: "Matches") -> "Matches":
        return Matches(self.hits + other.hits, self.missed + other.missed, self.extra + other.extra)

    @property
    def f1(self) -> float:
        total = 2 * self.hits + self.missed + self.extra
        return 2 * self.hits / total if total else 1.0


def match_onsets(found: np.ndarray, truth: np.ndarray, tolerance: float) -> Matches:
    """Largest one-to-one matching of times at most `tolerance` seconds apart; in one dimension, in order is optimal."""
    found, truth = np.sort(found), np.sort(truth)
    i = j = hits = 0
    while i < len(found) and j < len(truth):
        if abs(found[i] - truth[j]) <= tolerance:
            hits, i, j = hits + 1, i + 1, j + 1
        elif found[i] < truth[j]:
            i += 1
        else:
            j += 1
    return Matches(hits, len(truth) - hits, len(found) - hits)
