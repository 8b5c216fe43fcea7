"""From features to scores: a value with its interval and what each clip contributes to it, or why there is none."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmaudio.evaluation.backbones.audioset import THRESHOLD
from mmaudio.evaluation.features import Features, Skip, Sound
from mmaudio.evaluation.judge import LABELS
from mmaudio.evaluation.metrics import (
    Estimate,
    bootstrap_interval,
    cosine_scores,
    desync,
    inception_estimate,
    kl_divergences,
    top_k_share,
)
from mmaudio.evaluation.model_free import hits_of
from mmaudio.evaluation.onsets import Hits

NO_TRUTH = ("there are no true sounds", "give --reference, or a set that has them")
NO_CAPTIONS = ("there are no captions", "give --captions, or a set that has them")
NO_VIDEOS = ("there are no videos", "put them beside the true sounds, in --reference")
NONE_USED = ("not one clip could be used", "see the failed clips")


class NotMeasured(Exception):
    """There is nothing to measure by; carries a `Skip`."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(reason)
        self.skip = Skip(reason, remedy)


@dataclass(frozen=True)
class Score:
    """A value with its interval, ready to be shown; NaN ends where there is no interval."""

    value: float
    low: float
    high: float
    clips: int  # generated clips that it is about
    estimate: Estimate | None = None  # None: it has no share for each clip
    values: dict[str, float] = field(default_factory=dict)  # of each generated clip, where it has one
    truth: float | None = None  # the same of the true sounds, where that says something
    notes: tuple[str, ...] = ()


def scored(estimate: Estimate, clips: int, **more) -> Score:
    return Score(estimate.value, *estimate.interval(), clips, estimate, **more)


def _mean(features: Features, values: dict[str, float], truth: dict[str, float] | None = None) -> Score:
    """Of one value for each sound."""
    if not values:
        raise NotMeasured(*NONE_USED)
    clip_of = {sound.id: sound.clip_id for sound in features.sounds}
    estimate = Estimate.mean([clip_of[owner] for owner in values], np.array(list(values.values())))
    about = None if not truth else float(np.mean(list(truth.values())))
    return scored(estimate, len(values), values=values, truth=about)


def _pairs(features: Features, name: str, array: str) -> tuple[list[Sound], np.ndarray, np.ndarray]:
    """Sounds whose clip has a true sound, with this array of either."""
    made, true = features.looked(name, "generated"), features.looked(name, "reference")
    sounds = [sound for sound in features.sounds if sound.clip and sound.id in made and sound.clip.id in true]
    if not sounds:
        raise NotMeasured(*NO_TRUTH)
    return (
        sounds,
        np.stack([made[sound.id][array] for sound in sounds]),
        np.stack([true[sound.clip.id][array] for sound in sounds]),
    )


# ---- sets


def set_distance(estimate_of: Callable, name: str, paired: bool) -> Callable[[Features], Score]:
    """Of embeddings; `paired` leaves out what has no counterpart, as the published evaluation does for some."""

    def score(features: Features) -> Score:
        made, true = features.looked(name, "generated"), features.looked(name, "reference", distinct=True)
        if not true:
            raise NotMeasured(*NO_TRUTH)
        clip_of = {sound.id: sound.clip_id for sound in features.sounds}
        if paired and any(clip_of[owner] in true for owner in made):
            known = features.looked(name, "reference")
            made = {owner: arrays for owner, arrays in made.items() if clip_of[owner] in known}
            used = {clip_of[owner] for owner in made}
            true = {clip: arrays for clip, arrays in true.items() if clip in used}
        rows, names = _pooled({owner: a["embedding"] for owner, a in made.items()})
        true_rows, true_names = _pooled({clip: a["embedding"] for clip, a in true.items()})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            estimate = estimate_of(rows, true_rows, [clip_of[name] for name in names], true_names)
        return scored(estimate, len(made), notes=tuple(dict.fromkeys(str(w.message) for w in caught)))

    return score


def _pooled(embeddings: dict[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Rows of all clips, (D,) or (k, D) each, and whose they are."""
    if not embeddings:
        raise NotMeasured(*NONE_USED)
    blocks = {name: np.atleast_2d(block) for name, block in embeddings.items()}
    return np.concatenate(list(blocks.values())), [name for name, block in blocks.items() for _ in block]


def inception(name: str) -> Callable[[Features], Score]:
    def score(features: Features) -> Score:
        made = features.looked(name, "generated")
        clip_of = {sound.id: sound.clip_id for sound in features.sounds}
        logits = np.array([arrays["logits"] for arrays in made.values()])
        return scored(inception_estimate(logits, [clip_of[owner] for owner in made]), len(made))

    return score


# ---- pairs


def divergence(name: str) -> Callable[[Features], Score]:
    def score(features: Features) -> Score:
        sounds, made, true = _pairs(features, name, "logits")
        values = kl_divergences(true, made)
        return _mean(features, dict(zip([s.id for s in sounds], values.tolist(), strict=True)))

    return score


def similarity(name: str, which: str, nothing: tuple[str, str]) -> Callable[[Features], Score]:
    """Of the sounds to videos or captions."""

    def score(features: Features) -> Score:
        made, asked = features.looked(name, "generated"), features.looked(name, which)
        owners = [owner for owner in made if owner in asked]
        if not owners:
            raise NotMeasured(*nothing)
        first, second = (np.stack([side[owner]["embedding"] for owner in owners]) for side in (asked, made))
        return _mean(features, dict(zip(owners, cosine_scores(first, second).tolist(), strict=True)))

    return score


def synchrony(features: Features) -> Score:
    found = features.looked("synchformer", "offsets")
    if not any(features.subjects["video"]):
        raise NotMeasured(*NO_VIDEOS)
    values = desync([arrays["offsets"] for arrays in found.values()])
    return _mean(features, dict(zip(found, values.tolist(), strict=True)))


def aesthetic(column: int) -> Callable[[Features], Score]:
    def score(features: Features) -> Score:
        made = features.looked("audiobox", "generated")
        return _mean(features, {owner: float(arrays["scores"][column]) for owner, arrays in made.items()})

    return score


def intruding(classes: Sequence[int]) -> Callable[[Features], Score]:
    def score(features: Features) -> Score:
        sounds, made, true = _pairs(features, "panns", "logits")
        heard, there = ((1 / (1 + np.exp(-x[:, list(classes)]))).max(1) >= THRESHOLD for x in (made, true))
        values = (heard & ~there).astype(float)
        return _mean(features, dict(zip([s.id for s in sounds], values.tolist(), strict=True)))

    return score


# ---- what the Stage knows


def labels(columns: slice) -> Callable[[Features], Score]:
    def score(features: Features) -> Score:
        made, true = features.looked("judge", "generated"), features.looked("judge", "reference")
        labels = {s.id: s.clip.labels for s in features.sounds if s.clip and s.clip.labels and s.id in made}
        of_clip = {s.clip.id: s.clip.labels for s in features.sounds if s.id in labels and s.clip.id in true}
        values = _right({owner: made[owner]["logits"] for owner in labels}, labels, columns)
        if not values:
            raise NotMeasured("the clips have no labels of the Stage", "use --dataset stage")
        return _mean(features, values, _right({c: true[c]["logits"] for c in of_clip}, of_clip, columns))

    return score


def _right(logits: dict[str, np.ndarray], labels: dict[str, tuple[str, ...]], columns: slice) -> dict[str, float]:
    """The share of each clip's labels in these columns that is heard; clips without one are left out."""
    if not logits:
        return {}
    known = np.array([[label in labels[owner] for label in LABELS] for owner in logits])
    shares = top_k_share(np.stack(list(logits.values()))[:, columns], known[:, columns])
    return {owner: float(share) for owner, share in zip(logits, shares, strict=True) if np.isfinite(share)}


# ---- times


def _hits(features: Features, which: str, mode: str) -> dict[str, Hits]:
    if not any(features.subjects["onsets"]):
        raise NotMeasured("no times of events are known", "use a set that has them: stage or greatest_hits")
    found = {owner: hits_of(arrays, mode) for owner, arrays in features.looked("onsets", which).items()}
    return {owner: hits for owner, hits in found.items() if hits.truths}  # times may all be after the end


def onset_mean(mode: str, value_of: Callable[[Hits], float]) -> Callable[[Features], Score]:
    """The mean over files, as published."""

    def score(features: Features) -> Score:
        sides = (_hits(features, which, mode) for which in ("onsets", "true_onsets"))
        return _mean(features, *({owner: value_of(hits) for owner, hits in side.items()} for side in sides))

    return score


def onset_total(mode: str, value_of: Callable[[Hits], float]) -> Callable[[Features], Score]:
    """Of all events together."""

    def score(features: Features) -> Score:
        found, true = (_hits(features, which, mode) for which in ("onsets", "true_onsets"))
        hits = list(found.values())
        if not hits:
            raise NotMeasured(*NONE_USED)

        def statistic(rows: np.ndarray) -> float:
            return value_of(Hits.sum(hits[i] for i in rows))

        value = statistic(np.arange(len(hits)))
        if not np.isfinite(value):
            raise NotMeasured("not one event was met by an onset", "look at the clips' spectrograms in the report")
        truth = value_of(Hits.sum(true.values())) if true else None
        each = {owner: value_of(one) for owner, one in found.items()}
        each = {owner: number for owner, number in each.items() if np.isfinite(number)}
        return Score(value, *bootstrap_interval(statistic, len(hits)), len(hits), None, each, truth)

    return score


def median_lag(hits: Hits) -> float:
    """Signed, in milliseconds; positive is late."""
    return 1000 * float(np.median(hits.lags)) if len(hits.lags) else float("nan")


def alignment(features: Features) -> Score:
    sides = (features.looked("alignment", which) for which in ("alignment", "true_alignment"))
    made, true = ({o: float(a["score"][0]) for o, a in side.items() if len(a["score"])} for side in sides)
    if not any(features.subjects["alignment"]):
        raise NotMeasured(*NO_VIDEOS)
    return _mean(features, made, true)
