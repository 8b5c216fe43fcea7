"""What a listener would write about a scene, at three levels, and what nobody would."""

from dataclasses import dataclass

import numpy as np

from .scene import Scene

TOGETHER = ("{} while {}", "{} and {}", "{}, and {} at the same time")
UNSEEN = ("{} while out of sight {}", "{}, and somewhere else {}")
SILENCE = (
    ("silence", "no sound", "quiet room"),
    ("nothing makes a sound", "it is quiet", "there is only silence"),
    ("nothing in the picture makes a sound", "a scene in which everything stays quiet"),
)


@dataclass(frozen=True)
class Captions:
    """One caption per level of detail."""

    tag: str
    sentence: str
    detail: str


def captions(scene: Scene, rng: np.random.Generator) -> Captions:
    """Captions that name every kind that sounds and every material, and nothing that does not."""
    if not scene.acts:
        return Captions(*(str(rng.choice(level)) for level in SILENCE))
    seen = [[str(rng.choice(level)) for level in vars(act.words).values()] for act in scene.acts]
    unseen = [[str(rng.choice(level)) for level in vars(act.words).values()] for act in scene.unseen]
    tag = ", ".join(act[0] for act in seen + unseen)
    sentence, detail = (_joined([act[level] for act in seen], [act[level] for act in unseen], rng) for level in (1, 2))
    return Captions(tag, sentence, detail)


def _joined(seen: list[str], unseen: list[str], rng: np.random.Generator) -> str:
    text = seen[0]
    for clause in seen[1:]:
        text = str(rng.choice(TOGETHER)).format(text, clause)
    for clause in unseen:
        text = str(rng.choice(UNSEEN)).format(text, clause)
    return text


def one_of(words: Captions, rng: np.random.Generator) -> str:
    """One of the three levels."""
    return str(rng.choice(list(vars(words).values())))
