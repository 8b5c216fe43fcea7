"""Gusts of wind: a tree or a flag bends, grass lies down and leaves fly; the howl rises and falls with them."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..canvas import Canvas
from ..curves import Curve, swelling
from ..look import colour
from ..scene import Act, Event, Look, Painter, Setting, Words
from ..voices import CREST, band_noise, follow, moving_noise

BLADES, LEAVES = 130, 28
STRIPS = 24  # of a flag
LEVEL = 0.5  # peak at full strength


@dataclass(frozen=True)
class Gusts:
    """The strength of the wind, and where it blows to: +1 right, -1 left."""

    strength: Curve
    side: int

    def lean(self, time: float, phase=0.0):
        """How far things bend (0..1), with a flutter of their own."""
        strength = self.strength.at(time)
        return self.side * strength * (0.85 + 0.15 * np.sin(2 * np.pi * 1.9 * time + phase))


@dataclass(frozen=True)
class Tree:
    gusts: Gusts
    x: float
    depth: float  # the ground
    height: float

    def painter(self, look: Look) -> "TreePainter":
        return TreePainter(self, look)


class TreePainter:
    """A slender trunk that bends, with a crown of leaves."""

    def __init__(self, tree: Tree, look: Look):
        self.tree, rng = tree, look.rng
        self.bark = colour(rng, (0.05, 0.1), (0.3, 0.6), (0.2, 0.4)) * look.light.tint
        green = colour(rng, (0.2, 0.36), (0.5, 0.8), (0.3, 0.6)) * look.light.tint
        self.crown = rng.uniform((-0.22, 0.58, 0.12, 0), (0.22, 1.05, 0.18, 6), (10, 4))  # x, up, radius, phase
        self.greens = green * rng.uniform(0.7, 1.25, (10, 1)).astype(np.float32)

    def shadow(self, canvas: Canvas, time: float) -> None:
        canvas.shadow(self.tree.x, self.tree.depth, 0.25 * self.tree.height, 0.4)

    def _bent(self, x: float, up: float, lean: float) -> tuple[float, float]:
        """Where a point of the tree is; x and up relative to its height."""
        tree = self.tree
        bow = 0.75 * lean * up * up
        return tree.x + tree.height * (x + bow), tree.depth - tree.height * (up - 0.5 * bow * bow)

    def draw(self, canvas: Canvas, time: float) -> None:
        tree = self.tree
        lean = float(tree.gusts.lean(time))
        points = [self._bent(0.0, up, lean) for up in (0.0, 0.3, 0.55, 0.8)]
        for (x0, y0), (x1, y1) in pairwise(points):
            canvas.capsule(x0, y0, x1, y1, 0.035 * tree.height, self.bark)
        leans = tree.gusts.lean(time, self.crown[:, 3])
        for (x, up, radius, _), green, own in zip(self.crown, self.greens, leans, strict=True):
            canvas.disc(*self._bent(x, up, own), radius * tree.height, green, softness=0.5)


@dataclass(frozen=True)
class Flag:
    gusts: Gusts
    x: float
    depth: float  # the ground
    height: float

    def painter(self, look: Look) -> "FlagPainter":
        return FlagPainter(self, look)


class FlagPainter:
    """A flag on a pole: it hangs in a calm and stands out, waving, in a gust."""

    def __init__(self, flag: Flag, look: Look):
        self.flag = flag
        self.paints = [colour(look.rng, saturation=(0.5, 1), value=(0.5, 1)) * look.light.tint for _ in range(2)]
        self.pole = np.full(3, 0.6, np.float32)

    def shadow(self, canvas: Canvas, time: float) -> None:
        canvas.shadow(self.flag.x, self.flag.depth, 0.04, 0.4)

    def draw(self, canvas: Canvas, time: float) -> None:
        flag = self.flag
        top = flag.depth - flag.height
        strength = float(flag.gusts.strength.at(time))
        canvas.capsule(flag.x, flag.depth, flag.x, top, 0.009, self.pole)
        along = np.linspace(0, 1, STRIPS)
        angle = 1.45 * (1 - strength)  # it hangs nearly straight down in a calm
        wave = 0.2 * strength * along * np.sin(2 * np.pi * (1.6 * along - (1 + 2 * strength) * time))
        length, wide = 0.55 * flag.height, 0.3 * flag.height
        x = flag.x + flag.gusts.side * length * along * np.cos(angle)
        y = top + length * (along * np.sin(angle) + wave)
        for paint, half in zip(self.paints, (slice(None, STRIPS // 2), slice(STRIPS // 2, None)), strict=True):
            canvas.streaks(x[half], y[half], x[half], y[half] + wide, length / STRIPS, paint)


@dataclass(frozen=True)
class Grass:
    """Blades of grass along the ground."""

    gusts: Gusts
    depth: float

    def painter(self, look: Look) -> "GrassPainter":
        return GrassPainter(self, look)


class GrassPainter(Painter):
    def __init__(self, grass: Grass, look: Look):
        self.grass = grass
        self.green = colour(look.rng, (0.17, 0.34), (0.5, 0.9), (0.35, 0.75)) * look.light.tint
        self.blades = look.rng.uniform((-0.4, -0.01, 0.07, 0), (1.4, 0.03, 0.13, 6), (BLADES, 4)).T

    def draw(self, canvas: Canvas, time: float) -> None:
        x, below, long, phase = self.blades
        lean = 1.2 * self.grass.gusts.lean(time, phase)
        root = self.grass.depth + below
        canvas.streaks(x, root, x + long * np.sin(lean), root - long * np.cos(lean), 0.012, self.green, 0.9)


@dataclass(frozen=True)
class Leaves:
    """Leaves that lie on the ground until a gust lifts them; they travel as far as the wind does."""

    gusts: Gusts
    depth: float

    def painter(self, look: Look) -> "LeavesPainter":
        return LeavesPainter(self, look)


class LeavesPainter(Painter):
    def __init__(self, leaves: Leaves, look: Look):
        self.leaves = leaves
        self.brown = colour(look.rng, (0.02, 0.12), (0.7, 1.0), (0.5, 0.9)) * look.light.tint
        self.flights = look.rng.uniform((0, 0.0, 0.15, 0, 0.6), (1.8, 0.12, 0.75, 6, 1.3), (LEAVES, 5)).T

    def draw(self, canvas: Canvas, time: float) -> None:
        gusts = self.leaves.gusts
        x, below, lift, phase, pace = self.flights
        way = gusts.side * pace * float(gusts.strength.total(time))
        swing = 0.75 + 0.25 * np.sin(2 * np.pi * 0.7 * pace * time + phase)
        y = self.leaves.depth + below - lift * swing * float(gusts.strength.at(time)) ** 1.5
        canvas.dots((x + way) % 1.8 - 0.4, y, 0.013, self.brown, 0.95)


@dataclass(frozen=True)
class Howl:
    """The sound of gusts: low noise whose centre climbs with the strength, and a whistle within it."""

    strength: Curve
    low: float  # Hz: centre in a calm
    high: float  # Hz: centre in the strongest gust
    whistle: float  # share
    name: str = "wind"

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        span = self.high / self.low
        centre = follow(lambda time: self.low * span ** self.strength.at(time), sample_rate, length)
        body = moving_noise(centre, 110.0, sample_rate, rng)
        whistle = moving_noise(1.5 * centre, 12.0, sample_rate, rng)
        rumble = band_noise(length, 50, 220, sample_rate, rng)
        loud = follow(lambda time: self.strength.at(time) ** 1.3, sample_rate, length)
        return LEVEL / CREST * loud * (0.8 * body + self.whistle * whistle + 0.35 * rumble)


def make(rng: np.random.Generator, setting: Setting) -> Act:
    gusts = Gusts(swelling(rng, setting.duration), int(rng.choice([-1, 1])))
    ground = float(rng.uniform(setting.horizon + 0.02, setting.horizon + 0.08))
    shapes = [Tree, Flag] if rng.random() < 0.4 else [Tree] if rng.random() < 0.6 else [Flag]
    standing = tuple(
        shape(gusts, 0.5 + aside * gusts.side * float(rng.uniform(0.26, 0.4)), ground, float(rng.uniform(0.4, 0.55)))
        for shape, aside in zip(shapes, (1, -1) if len(shapes) > 1 else (-1,), strict=True)
    )  # a flag stands where it flies into the picture; aside, as others play in the middle
    low, high, whistle = (float(v) for v in rng.uniform((130, 520, 0.2), (200, 800, 0.6)))
    spells = gusts.strength.spells(setting.duration)
    events = tuple(Event(start, "wind", None, LEVEL * peak, 0.5, 0.4, seconds) for start, seconds, peak in spells)
    source = Howl(gusts.strength, low, high, whistle)
    words = _words(events, ["tree" if shape is Tree else "flag" for shape in shapes])
    things = (*standing, Grass(gusts, ground + 0.02), Leaves(gusts, ground + 0.02))
    return Act("wind", things, (source,), events, words)


def _words(events: tuple[Event, ...], nouns: list[str]) -> Words:
    things = " and ".join(f"a {noun}" for noun in nouns)
    s = "" if len(nouns) > 1 else "s"
    course = "in several gusts" if len(events) > 1 else "in one long gust"
    return Words(
        tags=("wind", "wind howling", "gusts of wind", "howling wind"),
        clauses=(
            "the wind howls",
            f"{things} sway{s} in the wind",
            "gusts of wind sweep over the land",
            "the wind blows leaves through the air",
        ),
        details=(
            f"the wind howls {course}, and leaves fly through the air",
            f"{things} sway{s} in the wind, which howls {course}",
            "gusts of wind bend all that grows, and their howl rises and sinks",
        ),
    )
