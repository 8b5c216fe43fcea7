"""What a listener would write about a scene, at three levels of detail and in many ways."""

import re
from dataclasses import dataclass

import numpy as np

from .scene import Act, Scene

# For words that all families use: each may stand for the others, with the same article before it.
SYNONYMS = {
    "softly": ("softly", "gently", "quietly"),
    "loudly": ("loudly", "noisily"),
    "at varying strength": ("at varying strength", "now softly, now loudly", "with changing strength"),
    "again and again": ("again and again", "over and over", "repeatedly"),
    "many times": ("many times", "a great number of times"),
    "someone": ("someone", "somebody", "a person"),
    "small": ("small", "little"),
    "large": ("large", "big"),
}
_SYNONYM = re.compile(rf"\b({'|'.join(SYNONYMS)})\b")

PLAIN = 0.5  # share of captions that go without an opening
TAG_OPENINGS = ("sound of {}", "sounds of {}", "the sound of {}", "recording of {}", "audio of {}", "sound effect: {}")
HEARD_OPENINGS = (
    "we hear how {}", "you can hear how {}", "we can hear that {}", "in this recording, {}", "a recording in which {}",
    "sound recording: {}",
)  # fmt: skip
SEEN_OPENINGS = (
    "a video in which {}", "in this video, {}", "a scene in which {}", "a short clip: {}", "the video shows how {}",
    "on camera, {}", "we see and hear how {}",
)  # fmt: skip
TOGETHER = (
    "{} while {}", "{}, and {}", "{}, while {}", "{} as {}", "{}, and {} at the same time", "{}; meanwhile {}",
    "{}, and meanwhile {}",
)  # fmt: skip
HIDDEN = (
    "{} while out of sight {}", "{}, and somewhere else {}", "{}, and off screen {}", "{}; behind the camera {}",
    "{} while somewhere out of view {}",
)  # fmt: skip
FARTHER = ("{}, and in the distance {}", "{} while farther away {}", "{}, and in the background {}")  # nothing is seen
SILENCE = (
    ("silence", "no sound", "complete silence", "a silent recording"),
    ("nothing makes a sound", "it is quiet", "there is only silence", "all is quiet"),
    ("there is nothing to be heard in all this time", "from beginning to end nothing makes a sound"),
)
# What can only be said by somebody who looks.
SIGHT = re.compile(
    r"\b(see|sees|seen|watch\w*|visibl[ey]|view|show[ns]?|video|picture|camera|screen|flash\w*|bright\w*|colou?r\w*|"
    r"glow\w*|lightning|lights? up|swing\w*|ribbons?|bends?)\b"
)


@dataclass(frozen=True)
class Captions:
    """One caption per level of detail."""

    tag: str
    sentence: str
    detail: str


def captions(scene: Scene, rng: np.random.Generator, heard_only: bool = False) -> Captions:
    """Captions that name every kind that sounds and every material, and nothing that does not.

    With `heard_only` they are about a recording: nothing in them speaks of seeing.
    """
    if not scene.acts:
        return Captions(*(str(rng.choice(level)) for level in SILENCE))
    seen = [_drawn(act, rng, heard_only) for act in scene.acts]
    hidden = [_drawn(act, rng, heard_only=True) for act in scene.unseen]
    order = rng.permutation(len(seen))
    tag = ", ".join([seen[i].tag for i in order] + [act.tag for act in hidden])
    tag = _opened(tag, TAG_OPENINGS, rng)
    sentence = _joined([seen[i].sentence for i in order], [act.sentence for act in hidden], rng, heard_only)
    detail = _joined([seen[i].detail for i in order], [act.detail for act in hidden], rng, heard_only)
    return Captions(tag, sentence, detail)


def one_of(words: Captions, rng: np.random.Generator) -> str:
    """One of the three levels."""
    return str(rng.choice(list(vars(words).values())))


def _drawn(act: Act, rng: np.random.Generator, heard_only: bool) -> Captions:
    """One of an act's alternatives per level, reworded."""
    levels = list(vars(act.words).values())
    if heard_only:
        tags, clauses, details = ([text for text in level if not SIGHT.search(text)] for level in levels)
        levels = [tags, clauses, details or clauses]
    return Captions(*(_reworded(str(rng.choice(level)), rng) for level in levels))


def _reworded(text: str, rng: np.random.Generator) -> str:
    return _SYNONYM.sub(lambda found: str(rng.choice(SYNONYMS[found[0]])), text)


def _joined(seen: list[str], hidden: list[str], rng: np.random.Generator, heard_only: bool) -> str:
    text = seen[0]
    for clause in seen[1:]:
        text = str(rng.choice(TOGETHER)).format(text, clause)
    text = _opened(text, HEARD_OPENINGS if heard_only else HEARD_OPENINGS + SEEN_OPENINGS, rng)
    for clause in hidden:  # last, so that no opening says that it is seen
        text = str(rng.choice(FARTHER if heard_only else HIDDEN)).format(text, clause)
    return text


def _opened(text: str, openings: tuple[str, ...], rng: np.random.Generator) -> str:
    return text if rng.random() < PLAIN else str(rng.choice(openings)).format(text)
