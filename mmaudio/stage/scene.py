"""What a scene is made of: a setting, the acts played in it, and what is known about them.

Stage units: a unit square with x to the right and y down; a picture shows that square in its middle (the camera may
move a little). Times are seconds. Motion is a closed form of time, so a contact is exact at any frame or sample rate.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .materials import HELD_OUT_PAIRS, MATERIALS

if TYPE_CHECKING:
    from .canvas import Canvas

STAGE_VERSION = 2
KINDS = (
    "bounce", "strike", "collision", "roll", "scrape", "footstep", "drip", "pour", "rain", "fire", "wind", "engine",
    "fan", "tick", "typing", "shatter", "firework", "thunder", "bell",
)  # fmt: skip
PLACES = ("room", "outdoors", "night")

MIN_GAP = 0.08  # seconds: contacts of one object are not closer
END_MARGIN = 0.03  # seconds: a contact nearer to the end of the clip could not be heard

_PURPOSES = {"scene": 0, "look": 1, "sound": 2, "caption": 3, "noise": 4, "thing": 5, "source": 6, "negative": 7}


def generator(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """The random stream of one purpose: drawing more in one never shifts another."""
    return np.random.default_rng([STAGE_VERSION, int(seed), _PURPOSES[purpose], index])


@dataclass(frozen=True)
class Event:
    """Something that sounds. Position is relative to the stage square (0..1, y down), before any camera motion."""

    time: float
    kind: str  # one of KINDS
    material: str | None
    loudness: float  # 0..1, proportional to the amplitude of the sound
    x: float
    y: float
    seconds: float = 0.0  # 0: a contact with a sharp onset; else how long it lasts
    seen: bool = True

    @property
    def sharp(self) -> bool:
        """A contact that is seen: onsets are judged on clips of nothing else, for what lasts has onsets of its own."""
        return self.seconds == 0 and self.seen


@dataclass(frozen=True)
class Look:
    """What a thing needs to know to be drawn."""

    rng: np.random.Generator  # its own
    light: "Light"
    unit: int  # pixels per stage unit before zooming
    horizon: float


@dataclass(frozen=True)
class Light:
    direction: np.ndarray  # (3,), unit length: x right, y down, z towards the camera
    tint: np.ndarray  # (3,)


class Painter(Protocol):
    """Draws one thing at any time, each time anew."""

    def shadow(self, canvas: "Canvas", time: float) -> None:
        """None, if a painter does not say otherwise."""

    def draw(self, canvas: "Canvas", time: float) -> None: ...


class Thing(Protocol):
    """Something to be seen. Things are drawn in order of `depth`, the y of where they stand."""

    depth: float

    def painter(self, look: Look) -> Painter: ...


class Source(Protocol):
    """Something to be heard: one stem."""

    name: str

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        """Dry sound (length,); a contact of loudness 1 has a peak of about 1. No tone above 0.45 sample_rate."""
        ...


@dataclass(frozen=True)
class Words:
    """Alternatives at three levels, in plain lower-case English; each names the kind, and the material if any."""

    tags: tuple[str, ...]  # "wooden ball bouncing"
    clauses: tuple[str, ...]  # "a wooden ball bounces on a stone floor": full clauses, to be joined by "while"
    details: tuple[str, ...]  # clauses with sizes, counts, loudness


@dataclass(frozen=True)
class Act:
    """What one family puts on the stage; picture, sound, events and words are of the same happenings."""

    family: str
    things: tuple[Thing, ...]
    sources: tuple[Source, ...]
    events: tuple[Event, ...]
    words: Words


@dataclass(frozen=True)
class Setting:
    """Where an act is played. It keeps its things within x from `left` to `right`."""

    duration: float
    place: str  # one of PLACES
    floor: str  # one of materials.FLOORS
    horizon: float  # y where the floor begins
    gravity: float  # stage units per second squared: a stage is 1.5 to 2.5 m high
    left: float = 0.0
    right: float = 1.0
    material: str | None = None  # everything that has a choice is made of it
    hard: bool = False  # of the split test_hard: only pairs of material and family that no other split has

    @property
    def width(self) -> float:
        return self.right - self.left

    def across(self, share: float) -> float:
        """The x at a share (0..1) of the act's part of the stage."""
        return self.left + self.width * share

    def pick(self, rng: np.random.Generator, family: str, among: tuple[str, ...] = MATERIALS) -> str:
        """A material for something of a family. One draw from `rng`, whatever comes out."""
        draw = float(rng.random())
        if self.material is not None:
            return self.material
        pool = [name for name in among if ((family, name) in HELD_OUT_PAIRS) == self.hard] or list(among)
        return pool[int(draw * len(pool))]


@dataclass(frozen=True)
class Scene:
    """All that happens in one clip."""

    seed: int
    setting: Setting
    acts: tuple[Act, ...]  # on the stage; none: silence
    unseen: tuple[Act, ...] = ()  # out of sight: heard, and named in the captions
    bystanders: tuple[Thing, ...] = field(default=())  # stand still and make no sound

    @property
    def duration(self) -> float:
        return self.setting.duration

    @property
    def family(self) -> str:
        """Of what is seen: "drop", "drop+rain", or "silence"."""
        return "+".join(act.family for act in self.acts) or "silence"

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything that sounds, by time."""
        every = [event for act in self.acts + self.unseen for event in act.events]
        return tuple(sorted(every, key=lambda event: (event.time, event.kind)))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds that sound, in the order of KINDS."""
        heard = {event.kind for event in self.events}
        return tuple(kind for kind in KINDS if kind in heard)

    @property
    def materials(self) -> tuple[str, ...]:
        """Materials that sound, in order of first sound."""
        return tuple(dict.fromkeys(event.material for event in self.events if event.material))
