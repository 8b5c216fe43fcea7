"""When things sound, without a learned model: onset detection and its agreement with known event times."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

HOP_RATE = 200  # frames per second
TOP_HZ = 8000  # what all our sample rates hold


def detect_onsets(audio: np.ndarray, sample_rate: int, threshold: float = 0.35) -> np.ndarray:
    """Onset times in seconds of mono audio (N,): peaks of log-spectral flux, 20 ms windows every 5 ms.

    A peak is the largest value within 40 ms on either side and exceeds the local median by `threshold` (mean increase
    of log magnitude over 10 ms). Found onsets are more than 40 ms apart.

    Raises:
        ValueError: the audio is not mono, or holds NaN or infinity.
    """
    audio = _sound(audio)
    hop, width = sample_rate // HOP_RATE, sample_rate // 50
    padded = np.pad(audio, width // 2)
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


def _sound(audio: np.ndarray) -> np.ndarray:
    audio = np.asarray(audio, np.float64)
    if audio.ndim != 1:
        raise ValueError(f"onsets are looked for in mono audio (N,), got {audio.shape}; average the channels")
    if not np.isfinite(audio).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(audio))} of {len(audio)} samples are NaN or infinite")
    return audio


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


# ---- the Greatest Hits protocol: detected onsets have a confidence, so there is an average precision, too

GREATEST_HITS_RATE = 22050  # Hz
SUPPRESSION = 0.05  # seconds


@dataclass(frozen=True)
class Hits:
    """What was found of the true times, with confidences; add them up over clips before taking a score.

    `labels` (n,) are 1 for a true time and 0 for a superfluous onset, `scores` (n,) the onset's confidence, 0 for a
    true time that was missed. `lags` (hits,) are found minus true in seconds, positive is late. `counted` of all
    `truths` take part in F1 and average precision. Scores without anything to score are NaN.
    """

    labels: np.ndarray
    scores: np.ndarray
    lags: np.ndarray
    truths: int
    counted: int

    @classmethod
    def sum(cls, clips: Iterable["Hits"]) -> "Hits":
        clips = list(clips)
        arrays = (np.concatenate([getattr(c, name) for c in clips] or [[]]) for name in ("labels", "scores", "lags"))
        return cls(*arrays, sum(c.truths for c in clips), sum(c.counted for c in clips))

    @property
    def accuracy(self) -> float:
        """Share of the true times that were found; 0 without any."""
        return len(self.lags) / self.truths if self.truths else 0.0

    @property
    def f1(self) -> float:
        total = self.counted + np.count_nonzero(self.scores)
        return 2 * len(self.lags) / total if total else float("nan")

    @property
    def average_precision(self) -> float:
        """Precision at each confidence, weighted by the recall gained there."""
        if not len(self.labels) or not self.counted:
            return 0.0 if len(self.labels) or self.counted else float("nan")
        order = np.argsort(-self.scores, kind="stable")
        scores, found = self.scores[order], np.cumsum(self.labels[order])
        last = np.append(np.diff(scores) != 0, True)  # equal confidences are one step
        precision = found[last] / (np.flatnonzero(last) + 1)
        return float((np.diff(found[last], prepend=0) * precision).sum() / self.counted)

    @property
    def median_lag(self) -> float:
        """Median of |lag| in seconds; NaN without a hit."""
        return float(np.median(np.abs(self.lags))) if len(self.lags) else float("nan")


def greatest_hits(
    found: np.ndarray, audio: np.ndarray, sample_rate: int, truth: np.ndarray, *, mode: str, tolerance: float
) -> Hits:
    """Compare found onsets with true times (both in seconds) of one clip of mono audio (N,), which gives confidences.

    mode: "strict" keeps all onsets and takes a one-to-one matching with the most pairs at most `tolerance` seconds
        apart and, among those, the least sum of distances; every true time counts, and a missed one has no precision.
        "reference" is the published protocol to the letter, for figures that can be compared: onsets closer than 50 ms
        are thinned out, each true time takes the onset nearer than `tolerance` at whose sample the signed waveform is
        highest, looked up at an index that is off once onsets are used up, and true times after the last onset is used
        are not read. It wants audio at 22050 Hz, onsets of `librosa_onsets` with `delta=tolerance` (both 0.3) and true
        times below 8 s.
    """
    if mode not in ("strict", "reference"):
        raise ValueError(f"unknown mode {mode!r}: expected strict or reference")
    found, truth = np.sort(np.asarray(found, float)), np.sort(np.asarray(truth, float))
    if mode == "strict":
        return _strict_hits(found, confidences(found, np.abs(audio), sample_rate), truth, tolerance)
    level = (audio - np.min(audio)) / (np.max(audio) - np.min(audio) + 1e-6)  # signed: silence is in the middle
    return _reference_hits(found, level, sample_rate, truth, tolerance)


def confidences(found: np.ndarray, level: np.ndarray, sample_rate: int) -> np.ndarray:
    """Largest level within 50 ms of each onset, relative to the clip's largest; above 0."""
    around, top = int(SUPPRESSION * sample_rate), max(float(np.max(level, initial=0)), 1e-9)
    middles = np.rint(found * sample_rate).astype(int)
    values = [np.max(level[max(0, m - around) : m + around], initial=0) / top for m in middles]
    return np.maximum(np.array(values, float), 1e-9)


def _strict_hits(found: np.ndarray, scores: np.ndarray, truth: np.ndarray, tolerance: float) -> Hits:
    pairs = closest_matching(found, truth, tolerance)
    labels = np.zeros(len(found))
    labels[[i for i, _ in pairs]] = 1
    lags = np.array([found[i] - truth[j] for i, j in pairs])
    return Hits(labels, scores, lags, len(truth), len(truth))


def closest_matching(found: np.ndarray, truth: np.ndarray, tolerance: float) -> list[tuple[int, int]]:
    """Index pairs (into sorted found, into sorted truth): the most pairs within tolerance, then the least distance."""
    # best[i][j]: (-pairs, distance) of the first i onsets and j times; in one dimension pairs need not cross
    best = [[(0, 0.0)] * (len(truth) + 1) for _ in range(len(found) + 1)]
    for i, onset in enumerate(found):
        for j, time in enumerate(truth):
            options = [best[i][j + 1], best[i + 1][j]]
            if (distance := abs(onset - time)) <= tolerance:
                options.append((best[i][j][0] - 1, best[i][j][1] + distance))
            best[i + 1][j + 1] = min(options)
    pairs, i, j = [], len(found), len(truth)
    while i and j:
        if best[i][j] == best[i - 1][j]:
            i -= 1
        elif best[i][j] == best[i][j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def _reference_hits(
    found: np.ndarray, level: np.ndarray, sample_rate: int, truth: np.ndarray, tolerance: float
) -> Hits:
    scores = confidences(found, level, sample_rate)
    kept = suppress(found, scores)
    found, scores = found[kept], scores[kept]
    heights = level[np.rint(found * sample_rate).astype(int)]
    use, rows, lags = list(range(len(found))), [], []
    for time in truth:
        near = [i for i, k in enumerate(use) if abs(found[k] - time) < tolerance]
        if near:
            chosen = use.pop(max(near, key=heights.__getitem__))  # i is an index into `use`, not `found`: as published
            rows.append((1, scores[chosen]))
            lags.append(found[chosen] - time)
        else:
            rows.append((1, 0.0))
        if not use:
            break
    counted = len(rows)
    rows += [(0, scores[k]) for k in use]
    labels, confidence = np.array(rows, float).reshape(-1, 2).T
    return Hits(labels, confidence, np.array(lags), len(truth), counted)


def suppress(found: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Indices of the onsets that stay, in order: by falling confidence each removes others nearer than 50 ms.

    As published: the onset after a removed one is not looked at. Of equal confidences the later onset comes first.
    """
    left, kept = list(range(len(found))), []
    for k in np.argsort(scores, kind="stable")[::-1]:
        if k not in left:
            continue
        kept.append(k)
        left.remove(k)
        for other in left:  # removing while iterating: as published
            if abs(found[other] - found[k]) < SUPPRESSION:
                left.remove(other)
    return np.array(sorted(kept), int)


def librosa_onsets(audio: np.ndarray, delta: float = 0.3) -> np.ndarray:
    """The detector of the published protocol: onset times in seconds of mono audio at 22050 Hz.

    Raises:
        ValueError: librosa is not installed; the audio is not mono, or holds NaN or infinity.
    """
    audio = _sound(audio)
    try:
        import librosa  # compiles its peak picking when first used: 20 s
    except ImportError as error:
        raise ValueError("the published onset detector needs librosa: pip install 'mmaudio[eval]'") from error
    samples = librosa.onset.onset_detect(y=audio, sr=GREATEST_HITS_RATE, units="samples", delta=delta)
    return samples / GREATEST_HITS_RATE
