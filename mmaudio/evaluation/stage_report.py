"""From sounds to the table: how well sounds made for Foley Stage clips fit what is known of these clips."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmaudio.evaluation.judge import KIND_COLUMNS, MATERIAL_COLUMNS, Judge, Verdict, label_mask
from mmaudio.evaluation.metrics import (
    INCEPTION_SPLITS,
    bootstrap_interval,
    frechet_distance,
    inception_score,
    kl_divergences,
    top_k_share,
)
from mmaudio.evaluation.onsets import Hits, detect_onsets, greatest_hits
from mmaudio.stage import StageClip

NEAR, FAR = 0.05, 0.1  # seconds: tolerances of onsets; accuracy, AP and lag are those of the wider one
COLUMNS = {
    "accuracy": "share of the sharp events whose onset is heard within 100 ms",
    "AP": "average precision of the onsets heard, by their loudness, within 100 ms",
    "F1 50ms": "onset F1 within 50 ms",
    "F1 100ms": "onset F1 within 100 ms",
    "|lag| ms": "median distance of onsets that were found within 100 ms",
    "kind": "share of the kinds of sound that the judge hears",
    "material": "share of the materials that the judge hears",
    "FD": "Frechet distance of the judge's embeddings to those of the true sound",
    "KL": "KL(true || made) of the judge's classes, clip by clip",
    "IS": "inception score of the judge's classes",
}
# Intervals end at 0 and here.
HIGHEST = dict.fromkeys(("accuracy", "AP", "F1 50ms", "F1 100ms", "kind", "material"), 1.0)


@dataclass(frozen=True)
class Known:
    """What is known of a clip and asked of its sound."""

    seed: int
    caption: str
    times: np.ndarray  # (n,) seconds; of sharp events, empty where a clip cannot be judged by its onsets
    labels: np.ndarray  # (len(LABELS),) bool

    @classmethod
    def of(cls, clip: StageClip) -> "Known":
        """Only clips whose every event is sharp and seen have times: a lasting sound is full of onsets of its own."""
        sharp = all(event.sharp for event in clip.events)
        times = np.array([event.time for event in clip.events if sharp])
        return cls(clip.seed, clip.caption, times, label_mask(clip.kinds, clip.materials))


@dataclass(frozen=True)
class Heard:
    """What is heard in one sound made for a clip."""

    near: Hits
    far: Hits
    verdict: Verdict


NO_HITS = Hits.sum([])


def hear(audio: np.ndarray, sample_rate: int, clip: Known, judge: Judge) -> Heard:
    """Listen to mono audio (N,) that was made for a clip."""
    near = far = NO_HITS
    if len(clip.times):
        found = detect_onsets(audio, sample_rate)
        near, far = (
            greatest_hits(found, audio, sample_rate, clip.times, mode="strict", tolerance=t) for t in (NEAR, FAR)
        )
    return Heard(near, far, judge.listen(audio, sample_rate))


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % bootstrap interval over clips; NaN where there is nothing to measure."""

    value: float
    low: float
    high: float


def figures(
    clips: Sequence[Known], heard: Sequence[Heard], truth: Sequence[Heard], resamples: int = 500
) -> dict[str, Figure]:
    """All `COLUMNS` of one row: the sounds heard for these clips, against the true sounds of the same clips."""
    count = len(clips)
    found = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* fewer than the .* dimensions")  # the table's caption says so
        for name, statistic in _statistics(clips, heard, truth).items():
            interval = bootstrap_interval(statistic, count, resamples=resamples)
            low, high = np.clip(interval, 0.0, HIGHEST.get(name, np.inf)).tolist()
            found[name] = Figure(float(statistic(np.arange(count))), low, high)
    return found


def _statistics(
    clips: Sequence[Known], heard: Sequence[Heard], truth: Sequence[Heard]
) -> dict[str, Callable[[np.ndarray], float]]:
    """Column to a function of clip indices."""
    logits, true_logits = (np.array([h.verdict.logits for h in side]) for side in (heard, truth))
    embeddings, true_embeddings = (np.array([h.verdict.embedding for h in side]) for side in (heard, truth))
    labels = np.array([clip.labels for clip in clips])
    kinds, materials = (top_k_share(logits[:, c], labels[:, c]) for c in (KIND_COLUMNS, MATERIAL_COLUMNS))
    divergences = kl_divergences(true_logits, logits)

    def far(rows: np.ndarray) -> Hits:
        return Hits.sum(heard[i].far for i in rows)

    def distance(rows: np.ndarray) -> float:
        return frechet_distance(embeddings[rows], true_embeddings[rows])

    def score(rows: np.ndarray) -> float:
        return inception_score(logits[rows])[0] if len(rows) >= INCEPTION_SPLITS else float("nan")

    statistics = {
        "accuracy": lambda rows: far(rows).accuracy if far(rows).truths else float("nan"),
        "AP": lambda rows: far(rows).average_precision,
        "F1 50ms": lambda rows: Hits.sum(heard[i].near for i in rows).f1,
        "F1 100ms": lambda rows: far(rows).f1,
        "|lag| ms": lambda rows: 1000 * far(rows).median_lag,
        "kind": lambda rows: mean_of_known(kinds[rows]),
        "material": lambda rows: mean_of_known(materials[rows]),
        "FD": distance,
        "KL": lambda rows: divergences[rows].mean(),
        "IS": score,
    }
    assert list(statistics) == list(COLUMNS)
    return statistics


def mean_of_known(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN of nothing."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def table(rows: Mapping[str, Mapping[str, Figure]]) -> str:
    """Text: one line of values a row, and its intervals below."""
    first = max([len(name) for name in rows], default=0) + 2
    lines = [" " * first + "".join(f"{column:>14s}" for column in COLUMNS)]
    for name, found in rows.items():
        digits = {column: 1 if column == "|lag| ms" else 3 for column in COLUMNS}
        values = (_number(found[c].value, digits[c]) for c in COLUMNS)
        spans = (
            "-" if np.isnan(found[c].low) else f"{found[c].low:.{digits[c]}f}..{found[c].high:.{digits[c]}f}"
            for c in COLUMNS
        )
        lines.append(f"{name:{first}s}" + "".join(f"{v:>14s}" for v in values))
        lines.append(" " * first + "".join(f"{s:>14s}" for s in spans))
    return "\n".join(lines)


def _number(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"
