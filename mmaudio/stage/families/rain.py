"""Showers that swell and fade: streaks in the air, splashes on the ground, and a patter as dense and bright."""

from dataclasses import dataclass

import numpy as np

from ..canvas import Canvas
from ..curves import Curve, moments, swelling
from ..scene import Act, Event, Look, Painter, Setting, Words
from ..voices import CREST, add, band_noise, follow

STREAKS = 350  # in the air at full strength
NEAR = 70  # drops a second at full strength that are seen and heard one by one
LIFE = 0.22  # seconds that a splash is seen
FALLING = 0.1  # seconds that a near drop is seen before it lands
LEVEL = 0.5  # peak at full strength


@dataclass(frozen=True)
class Drop:
    """A drop that lands near: at (x, y) on the ground."""

    time: float
    x: float
    y: float
    size: float  # 0..1


@dataclass(frozen=True)
class Shower:
    """The rain in the air (`depth` before everything) or on the ground (behind everything that stands there)."""

    density: Curve
    drops: tuple[Drop, ...]
    slant: float  # x per y
    depth: float

    def painter(self, look: Look) -> "AirPainter | GroundPainter":
        return AirPainter(self, look) if self.depth > 1 else GroundPainter(self, look)


class AirPainter:
    """Streaks that fall again and again; each is there only while the rain is dense enough for it."""

    def __init__(self, shower: Shower, look: Look):
        self.shower, rng = shower, look.rng
        self.paint = np.array([0.82, 0.87, 0.95], np.float32) * rng.uniform(0.85, 1.05)
        self.rank = np.sqrt((np.arange(STREAKS) + 0.5) / STREAKS)  # the density from which it is there
        self.seconds = rng.uniform(0.28, 0.5, STREAKS)  # from the upper to the lower edge
        self.phase, self.x = rng.uniform(0, 1, (2, STREAKS))
        self.length = rng.uniform(0.07, 0.15, STREAKS)

    def shadow(self, canvas: Canvas, time: float) -> None:
        """The daylight dims with the rain."""
        canvas.expose(1 - 0.22 * float(self.shower.density.at(time)))

    def draw(self, canvas: Canvas, time: float) -> None:
        turn, part = np.divmod(time / self.seconds + self.phase, 1.0)
        begun = time - part * self.seconds
        there = self.shower.density.at(begun) > self.rank
        x = (self.x + 0.618034 * turn)[there] % 1.0 * 2.0 - 0.5
        y = part[there] * 1.5 - 0.3
        length, slant = self.length[there], self.shower.slant
        canvas.streaks(x + slant * y, y, x + slant * (y + length), y + length, 0.009, self.paint, 0.9)


class GroundPainter(Painter):
    """Near drops and their splashes."""

    def __init__(self, shower: Shower, look: Look):
        self.paint = np.array([0.9, 0.94, 1.0], np.float32)
        self.slant = shower.slant
        self.drops = np.array([(d.time, d.x, d.y, d.size) for d in shower.drops]).reshape(-1, 4)

    def draw(self, canvas: Canvas, time: float) -> None:
        since = time - self.drops[:, 0]
        coming = (since < 0) & (since > -FALLING)
        if coming.any():
            _, x, y, _ = self.drops[coming].T
            high = -since[coming] * 4.0
            canvas.streaks(
                x - self.slant * high, y - high, x - self.slant * (high + 0.12), y - high - 0.12, 0.014, self.paint, 0.9
            )
        fresh = (since >= 0) & (since < LIFE)
        if fresh.any():
            _, x, y, size = self.drops[fresh].T
            u = since[fresh] / LIFE
            reach = (0.02 + 0.03 * size) * (0.5 + 0.8 * u)
            lean = np.array([[-1.0], [-0.4], [0.4], [1.0]])  # four spurts from every drop
            top = reach * (1.3 - np.abs(lean)) * (1 - u)
            ends = x + 0.3 * lean * reach, y + 0 * lean, x + lean * reach, y - top
            faint = np.tile(0.9 * (1 - u), len(lean))
            canvas.streaks(*(end.ravel() for end in ends), 0.015, self.paint, faint)


@dataclass(frozen=True)
class Patter:
    """The sound of a shower: a bed of noise and the near drops; dense rain is louder and brighter."""

    density: Curve
    drops: tuple[Drop, ...]
    brightness: float  # 0..1
    name: str = "rain"

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        pips = rng.uniform(1800, 5200, len(self.drops))
        dense = follow(self.density.at, sample_rate, length)
        denser = follow(lambda time: self.density.at(time) ** 2, sample_rate, length)
        dull = dense * band_noise(length, 900, 3500, sample_rate, rng)
        bright = denser * band_noise(length, 3000, 12000, sample_rate, rng)
        wet = LEVEL / CREST * (0.75 * dull + (0.6 + 0.6 * self.brightness) * bright)
        seconds = np.arange(int(0.012 * sample_rate)) / sample_rate
        for drop, hertz in zip(self.drops, pips, strict=True):
            pip = np.sin(2 * np.pi * hertz * seconds) * np.exp(-seconds / (0.001 + 0.0015 * drop.size))
            add(wet, drop.time, LEVEL * (0.12 + 0.3 * drop.size) * pip, sample_rate)
        return wet


def make(rng: np.random.Generator, setting: Setting) -> Act:
    density = swelling(rng, setting.duration)
    drops = tuple(
        Drop(float(time), *(float(v) for v in rng.uniform((-0.4, setting.horizon + 0.03, 0), (1.4, 1.0, 1))))
        for time in moments(rng, density, setting.duration, NEAR)
    )
    slant = float(rng.uniform(-0.25, 0.25))
    things = (Shower(density, drops, slant, setting.horizon), Shower(density, drops, slant, 3.0))
    spells = density.spells(setting.duration)
    events = tuple(Event(start, "rain", None, LEVEL * peak, 0.5, 0.5, seconds) for start, seconds, peak in spells)
    return Act("rain", things, (Patter(density, drops, float(rng.uniform())),), events, _words(events, setting))


def _words(events: tuple[Event, ...], setting: Setting) -> Words:
    course = "comes and goes" if len(events) > 1 else "swells and fades"
    where = "at night" if setting.place == "night" else "outdoors"
    most = max((event.loudness for event in events), default=0) / LEVEL
    heavy = "heavy" if most > 0.87 else "moderate" if most > 0.73 else "light"
    return Words(
        tags=("rain", f"{heavy} rain", "rain shower", "raining"),
        clauses=(
            f"it rains {where}",
            "rain patters on the ground",
            "it is raining",
            f"{heavy} rain comes down",
        ),
        details=(
            f"{heavy} rain patters on the ground {where} and {course}",
            f"it is raining {where}, and the {heavy} shower {course}",
            f"a shower of {heavy} rain {course}, splashing on the ground",
        ),
    )
