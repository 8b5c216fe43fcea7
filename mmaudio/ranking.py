"""The best of several takes, by what can be judged without a learned model: whether sounds begin where things move."""

import math
from collections.abc import Sequence
from pathlib import Path

from mmaudio.evaluation.av_align import av_align
from mmaudio.generation import Generation

SCORE = "onset agreement with the picture's motion"


def onset_agreement(take: Generation) -> float:
    """AV-Align of a take and its video (see `mmaudio.evaluation.av_align`), in [0, 1]; NaN where nothing moves."""
    if take.is_picture or not isinstance(take.source, str | Path):
        return math.nan
    return av_align(take.source, take.audio, take.sample_rate)


def pick(takes: Sequence[Generation], count: int) -> tuple[list[Generation], list[float], str]:
    """The `count` best takes, best first; their scores; and one line that says what was scored and how.

    Takes without a score come last, equal ones in the order given.
    """
    scores = [onset_agreement(take) for take in takes]
    order = sorted(range(len(takes)), key=lambda i: -scores[i] if math.isfinite(scores[i]) else math.inf)
    kept = order[:count]
    if not any(map(math.isfinite, scores)):
        reason = "nothing moves in it, or nothing sounds" if takes[0].source else "there is no video"
        line = f"kept the first {count} of {len(takes)} takes: {reason}, so {SCORE} cannot be judged"
    else:
        named = ", ".join(f"seed {takes[i].seed} ({scores[i]:.2f})" for i in order)
        line = f"kept the first {count} of these takes by {SCORE}: {named}"
    return [takes[i] for i in kept], [scores[i] for i in kept], line
