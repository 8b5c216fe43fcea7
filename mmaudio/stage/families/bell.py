"""A bell swings and its clapper strikes it at the turning points, or a small hammer plays chimes."""

from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np

from ..canvas import Canvas
from ..look import colour, material_texture
from ..materials import TABLE
from ..motion import smooth
from ..objects import BodyPainter, Pose
from ..phrases import article, count_of, manner, sized
from ..rotation import Swing
from ..scene import END_MARGIN, Act, Event, Look, Painter, Setting, Words
from ..voices import HIGHEST, LN1000, add

AMONG = ("bronze", "metal", "glass")
# Partials of a bell tuned in the usual way, relative to the prime: hum, prime, minor third, fifth, nominal and above.
PARTIALS = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0])
LEVELS = np.array([0.6, 0.8, 0.7, 0.35, 1.0, 0.35, 0.4, 0.25])
CHIME_PARTIALS = np.array([1.0, 2.0, 3.01, 4.2])  # of a tube, whose low partials nobody hears
CHIME_LEVELS = np.array([1.0, 0.5, 0.3, 0.15])
WARBLE = 0.004  # between the two halves of a partial, which are never quite alike
LONGEST = 3.5  # seconds that a stroke is followed
SOUNDS = 0.45  # share of the widest swing from which the clapper touches the bell
WIDEST = 0.75  # radians
HAMMER = 0.13  # stage units that the hammer is drawn back


@dataclass(frozen=True)
class Bell:
    """A bell or a tube that hangs at (x, top). It is drawn like the objects of the same material.

    `size` is its half-height and `aspect` its half-width / half-height; `swing` its angle in radians.
    """

    material: str
    shape: str  # "bowl" upside down: a bell; "block": a tube
    size: float
    aspect: float
    x: float
    top: float
    swing: Swing
    strokes: tuple[tuple[float, float], ...] = ()  # (time, loudness)

    @property
    def depth(self) -> float:
        return self.ground

    @property
    def ground(self) -> float:
        """The y of its lowest point when it hangs still."""
        return self.top + 2.1 * self.size

    def place(self, along: float, across: float, time: float) -> tuple[float, float]:
        """A point of the bell, `along` sizes below where it hangs and `across` sizes beside its axis."""
        angle = self.swing.at(time) + self.sway(time)
        c, s = np.cos(angle), np.sin(angle)
        return self.x + self.size * (across * c - along * s), self.top + self.size * (along * c + across * s)

    def sway(self, time: float) -> float:
        """A tube swings a little after it was struck, in radians."""
        if self.shape != "block":
            return 0.0
        index = bisect_right(self.strokes, time, key=lambda stroke: stroke[0])
        if index == 0:
            return 0.0
        when, loudness = self.strokes[index - 1]
        since = time - when
        return float(0.35 * loudness * np.exp(-since / 0.5) * np.sin(2 * np.pi * since / 0.6))

    def pose(self, time: float) -> Pose:
        x, y = self.place(1.1, 0.0, time)
        turned = np.pi if self.shape == "bowl" else 0.0
        return Pose(x, y, y + self.size, turned + self.swing.at(time) + self.sway(time), 1 - self.shiver(time))

    def shiver(self, time: float) -> float:
        """By how much it is squeezed just after a stroke."""
        index = bisect_right(self.strokes, time, key=lambda stroke: stroke[0])
        if index == 0:
            return 0.0
        when, loudness = self.strokes[index - 1]
        return 0.12 * loudness * float(np.exp(-(time - when) / 0.05))

    def clapper(self, time: float) -> tuple[float, float]:
        """The clapper's ball, seen below the rim: it flies across and is at the rim at the turning points."""
        times, places = self.swing.times, self.swing.places
        index = bisect_right(times, time)
        reach = [0.78 * self.aspect * float(np.clip(place / (SOUNDS * WIDEST), -1, 1)) for place in places]
        across = reach[min(index, len(times) - 1)]
        if 0 < index < len(times):
            u = (time - times[index - 1]) / (times[index] - times[index - 1])
            across = reach[index - 1] + (reach[index] - reach[index - 1]) * u**4
        return self.place(2.3, -across, time)

    def painter(self, look: Look) -> "BellPainter":
        return BellPainter(self, look)


class BellPainter(Painter):
    """A bell on a beam with its clapper before it, or a tube on its string."""

    def __init__(self, bell: Bell, look: Look):
        self.bell = bell
        self.body = BodyPainter(bell, look)
        self.metal = material_texture(bell.material, look.rng).mean((0, 1)) * look.light.tint
        self.clapper = colour(look.rng, (0.0, 1.0), (0.7, 1.0), (0.15, 0.4))
        self.beam = colour(look.rng, (0.05, 0.1), (0.3, 0.6), (0.3, 0.6))

    def draw(self, canvas: Canvas, time: float) -> None:
        bell = self.bell
        half = 1.4 * bell.size if bell.shape == "bowl" else 0.1
        canvas.capsule(bell.x - half, bell.top, bell.x + half, bell.top, 0.022, self.beam)
        canvas.capsule(bell.x, bell.top, *bell.place(0.3, 0.0, time), 0.012, self.beam)
        self.body.draw(canvas, time)
        if bell.shape == "bowl":
            left, right = (bell.place(2.03, side * bell.aspect, time) for side in (-1, 1))
            canvas.capsule(*left, *right, 0.1 * bell.size, self.metal)
            canvas.disc(*bell.clapper(time), 0.3 * bell.size, self.clapper)


@dataclass(frozen=True)
class Blow:
    """The hammer is at (x, y) at `time`, touching a tube, or short of it in a feint."""

    time: float
    tube: int
    loudness: float
    x: float
    y: float
    feint: bool = False


@dataclass(frozen=True)
class Hammer:
    """Plays the tubes from the right."""

    blows: tuple[Blow, ...]
    depth: float = 2.0  # before everything else

    def head(self, time: float) -> tuple[float, float]:
        """It is drawn back between blows, while it travels, and flies to the tube at the end."""
        index = bisect_right(self.blows, time, key=lambda blow: blow.time)
        before = self.blows[index - 1] if index else None
        after = self.blows[index] if index < len(self.blows) else None
        start, goal = before or after, after or before
        gap = after.time - before.time if before and after else 2.0
        back, travel = 1.0, 1.0
        if before:
            u = min((time - before.time) / min(0.2, 0.4 * gap), 1.0)
            back, travel = smooth(u), float(np.clip((time - before.time) / gap - 0.2, 0, 0.6)) / 0.6
        if after:
            back = min(back, 1 - max(1 - (after.time - time) / min(0.12, 0.3 * gap), 0.0) ** 2)
        travel = smooth(travel)
        return start.x + (goal.x - start.x) * travel + HAMMER * back, start.y + (goal.y - start.y) * travel

    def painter(self, look: Look) -> "HammerPainter":
        return HammerPainter(self, look)


class HammerPainter(Painter):
    """A head on a handle."""

    def __init__(self, hammer: Hammer, look: Look):
        self.hammer = hammer
        self.wood = colour(look.rng, (0.06, 0.1), (0.2, 0.6), (0.65, 1.0))

    def draw(self, canvas: Canvas, time: float) -> None:
        x, y = self.hammer.head(time)
        canvas.capsule(x + 0.04, y, x + 0.22, y + 0.3, 0.014, self.wood)
        canvas.capsule(x + 0.02, y, x + 0.07, y, 0.035, self.wood * 0.6)


@dataclass(frozen=True)
class Ringing:
    """The sound of a bell or a tube: a soft attack without a click, pure partials that warble and ring long."""

    name: str
    material: str
    prime: float  # Hz
    tube: bool
    strokes: tuple[tuple[float, float], ...]  # (time, loudness)

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        ratios, levels = (CHIME_PARTIALS, CHIME_LEVELS) if self.tube else (PARTIALS, LEVELS)
        spread = np.exp(0.2 * rng.standard_normal(len(ratios)))
        seconds = np.arange(int(sample_rate * LONGEST)) / sample_rate
        t60 = (2.2 + 1.1 * TABLE[self.material].t60) / np.maximum(ratios, 0.5) ** 0.6
        hertz = self.prime * ratios
        heard = hertz * (1 + WARBLE) < HIGHEST * sample_rate
        beat = np.cos(np.pi * WARBLE * hertz[:, None] * seconds)
        partials = np.exp(-LN1000 * seconds / t60[:, None]) * beat * np.sin(2 * np.pi * hertz[:, None] * seconds)
        partials *= np.minimum((seconds[-1] - seconds) / 0.3, 1)
        dry = np.zeros(length)
        for time, loudness in self.strokes:
            gain = levels * spread * heard / (1 + (ratios / (1.5 + 4 * loudness)) ** 2)
            stroke = gain @ partials
            add(dry, time, loudness * stroke / (np.abs(stroke).max() + 1e-9), sample_rate)
        return dry


def make(rng: np.random.Generator, setting: Setting) -> Act:
    material = setting.pick(rng, "bell", AMONG)
    return _swinging(rng, setting, material) if rng.random() < 0.55 else _chimes(rng, setting, material)


def _pitch(material: str, size: float) -> float:
    """Hertz of the prime: smaller is higher."""
    return TABLE[material].base_hz * 1.15 * (0.12 / size) ** 0.8


def _swinging(rng: np.random.Generator, setting: Setting, material: str) -> Act:
    size = float(rng.uniform(0.11, 0.16)) * (0.6 + 0.4 * setting.width)
    bell = Bell(
        material, "bowl", size, float(rng.uniform(0.85, 1.05)), setting.across(float(rng.uniform(0.42, 0.58))),
        float(rng.uniform(0.15, 0.3)), _turns(rng, setting.duration, float(rng.uniform(0.38, 0.75))),
    )  # fmt: skip
    strokes, events = [], []
    for time, angle in zip(bell.swing.times, bell.swing.places, strict=True):
        if abs(angle) > SOUNDS * WIDEST and 0 < time < setting.duration - END_MARGIN:
            loudness = (abs(angle) / WIDEST) ** 1.2
            strokes.append((time, loudness))
            events.append(Event(time, "bell", material, loudness, *bell.clapper(time)))
    source = Ringing(f"{material} bell", material, _pitch(material, size), False, tuple(strokes))
    bell = replace(bell, strokes=tuple(strokes))
    return Act("bell", (bell,), (source,), tuple(events), _bell_words(bell, tuple(events)))


def _turns(rng: np.random.Generator, duration: float, period: float) -> Swing:
    """Turning points in radians: pulled from rest, swinging wider, then less and less, and pulled again."""
    time, side = float(rng.uniform(0.1, 0.6)), float(rng.choice([-1, 1]))
    times, places = [time], [0.0]
    while time < duration:
        wide = float(rng.uniform(0.6, 1.0))
        growing, full = int(rng.integers(1, 3)), int(rng.integers(1, 7))
        shares = [wide * (k + 1) / (growing + 1) for k in range(growing)] + [wide] * full
        while shares[-1] > 0.2:  # left alone: silent once the clapper no longer reaches the rim
            shares.append(shares[-1] * 0.72)
        for share in shares:
            time, side = time + period, -side
            times.append(time)
            places.append(side * WIDEST * share * float(rng.uniform(0.95, 1.0)))
        time += period
        times += [time, time + float(rng.uniform(0.2, 1.2))]
        places += [0.0, 0.0]
        time = times[-1]
    return Swing(tuple(times), tuple(places))


def _chimes(rng: np.random.Generator, setting: Setting, material: str) -> Act:
    count = int(rng.integers(2, 5)) if setting.width > 0.6 else 2
    longest, top = float(rng.uniform(0.15, 0.2)), float(rng.uniform(0.15, 0.28))
    still = Swing((0.0,), (0.0,))
    tubes = []
    for i in range(count):
        size = longest * (1 - 0.13 * i)
        x = setting.across(0.5 + (i - (count - 1) / 2) * 0.2 - 0.04)
        tubes.append(Bell(material, "block", size, 0.036 / size, x, top, still))
    blows = _blows(rng, setting.duration, tubes)
    made, sources = [], []
    for i, tube in enumerate(tubes):
        strokes = tuple((blow.time, blow.loudness) for blow in blows if blow.tube == i and not blow.feint)
        made.append(replace(tube, strokes=strokes))
        if strokes:
            sources.append(Ringing(f"{material} chime", material, 1.5 * _pitch(material, tube.size), True, strokes))
    events = tuple(Event(b.time, "bell", material, b.loudness, b.x, b.y) for b in blows if not b.feint)
    return Act("bell", (*made, Hammer(blows)), tuple(sources), events, _chime_words(material, events))


def _blows(rng: np.random.Generator, duration: float, tubes: list[Bell]) -> tuple[Blow, ...]:
    time, blows = float(rng.uniform(0.25, 1.0)), []
    slow = float(rng.uniform(0.6, 1.6))
    while time < duration - END_MARGIN:
        tube = int(rng.integers(len(tubes)))
        feint = bool(rng.random() < 0.12) and bool(blows)  # the first one sounds
        side = tubes[tube].aspect * tubes[tube].size + (0.5 * HAMMER if feint else 0.0)
        x, y = tubes[tube].x + side, tubes[tube].top + 1.5 * tubes[tube].size
        blows.append(Blow(time, tube, float(rng.uniform(0.3, 1.0)), x, y, feint))
        time += float(rng.uniform(0.35, slow)) if rng.random() < 0.85 else float(rng.uniform(1.2, 2.5))
    return tuple(blows)


def _bell_words(bell: Bell, events: tuple[Event, ...]) -> Words:
    noun = f"{TABLE[bell.material].adjective} bell"
    return Words(
        tags=(f"{noun} ringing", f"{noun} tolling", f"swinging {noun}", f"{noun} sounding"),
        clauses=(
            f"{article(noun)} rings",
            f"{article(noun)} swings and tolls",
            f"{article(noun)} is ringing",
            f"the clapper of {article(noun)} makes it sound",
        ),
        details=(
            f"{article(sized(bell))} {noun} swings and rings {count_of(len(events))}",
            f"{article(sized(bell))} hanging {noun} tolls {manner(events)}",
            f"{article(noun)} swings to and fro and its clapper sounds {count_of(len(events))}",
        ),
    )


def _chime_words(material: str, events: tuple[Event, ...]) -> Words:
    noun = f"{TABLE[material].adjective} chimes"
    return Words(
        tags=(f"{noun} ringing", f"{noun} played with a hammer", f"tubular {noun}", f"{noun} sounding"),
        clauses=(
            f"{noun} ring",
            f"a small hammer plays {noun}",
            f"{noun} are played with a hammer",
            f"hanging {noun} are ringing",
        ),
        details=(
            f"a small hammer plays hanging {noun}, {count_of(len(events))}",
            f"hanging {noun} ring {manner(events)} under a small hammer",
            f"tubes of a set of {noun} ring {count_of(len(events))} and sway",
        ),
    )
