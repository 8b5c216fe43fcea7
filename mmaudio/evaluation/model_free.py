"""What is measured without any network: onsets against known times, and whether they meet the motion in the picture.

Both give small arrays per clip, so that they are kept in the cache as a network's features are.
"""

from pathlib import Path

import numpy as np

from mmaudio.evaluation.av_align import av_align
from mmaudio.evaluation.onsets import GREATEST_HITS_RATE, Hits, greatest_hits, librosa_onsets
from mmaudio.media import read_audio
from mmaudio.media.encode import resample

ONSETS, ALIGNMENT = "onsets-1", "av-align-1"  # raised with whatever changes the numbers
PUBLISHED_TOLERANCE = 0.3  # seconds, and the detector's threshold: the protocol has one number for both
TOLERANCES = (0.05, 0.1, 0.3)  # of the strict mode
ARRAYS = ("labels", "scores", "lags")


def strict_mode(tolerance: float) -> str:
    return f"strict_{round(1000 * tolerance)}"


def onset_hits(path: Path, times: tuple[float, ...], duration: float) -> dict[str, np.ndarray]:
    """`Hits` of a sound file's first `duration` seconds in both modes of the Greatest Hits protocol, as arrays.

    Raises:
        MediaError: the file cannot be read.
    """
    samples, rate = read_audio(path, duration)
    audio = resample(samples.numpy().mean(0, keepdims=True), rate, GREATEST_HITS_RATE)[0]
    truth = np.array([time for time in times if time < duration])
    found = librosa_onsets(audio, PUBLISHED_TOLERANCE)
    arrays = {}
    modes = {"reference": PUBLISHED_TOLERANCE, **{strict_mode(tolerance): tolerance for tolerance in TOLERANCES}}
    for mode, tolerance in modes.items():
        kind = mode.partition("_")[0]
        hits = greatest_hits(found, audio, GREATEST_HITS_RATE, truth, mode=kind, tolerance=tolerance)
        arrays |= {f"{mode}.{name}": np.asarray(getattr(hits, name), np.float64) for name in ARRAYS}
        arrays[f"{mode}.counts"] = np.array([hits.truths, hits.counted])
    return arrays


def hits_of(arrays: dict[str, np.ndarray], mode: str) -> Hits:
    """What `onset_hits` found in one mode: "reference", or a `strict_mode`."""
    truths, counted = map(int, arrays[f"{mode}.counts"])
    return Hits(*(arrays[f"{mode}.{name}"] for name in ARRAYS), truths, counted)


def alignment(video: Path, sound: Path, duration: float) -> dict[str, np.ndarray]:
    """{"score": (1,)}, AV-Align of the first `duration` seconds; (0,) where there is neither motion nor onset.

    Raises:
        MediaError: a file cannot be read.
    """
    samples, rate = read_audio(sound, duration)
    score = av_align(video, samples, rate)
    return {"score": np.array([score] if np.isfinite(score) else [], np.float64)}
