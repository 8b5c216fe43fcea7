"""A fire that flares up and sinks: a roar as strong as its flames, and crackles that throw sparks."""

from dataclasses import dataclass

import numpy as np

from ..canvas import Canvas
from ..curves import Curve, moments, swelling
from ..look import colour
from ..scene import END_MARGIN, Act, Event, Look, Setting, Words
from ..voices import CREST, add, band_noise, burst, follow

CRACKLES = 4.0  # a second in the highest flames
LIFE = 0.7  # seconds that a spark is seen
LEVEL = 0.5  # peak at full strength
EMBERS = np.array([1.0, 0.25, 0.04], np.float32)
YELLOW = np.array([1.0, 0.93, 0.55], np.float32)


@dataclass(frozen=True)
class Crackle:
    """A crack of the wood at `time`, and the spark that it throws."""

    time: float
    loudness: float  # relative to the fire's level
    x: float  # where it starts, -1..1 across the fire
    speed_x: float  # stage units per second
    speed_y: float  # upward


@dataclass(frozen=True)
class Blaze:
    """How strong a fire is: slowly by its curve, and with a flicker (amplitude, hertz, phase) on it."""

    strength: Curve
    flicker: tuple[tuple[float, float, float], ...]

    def at(self, time):
        """0..1.4 at a time or at an array of times."""
        wave = sum(a * np.sin(2 * np.pi * hertz * time + phase) for a, hertz, phase in self.flicker)
        return self.strength.at(time) * (1 + wave)


@dataclass(frozen=True)
class Fire:
    """Logs on the ground and the flames over them; in a room in a fireplace."""

    blaze: Blaze
    crackles: tuple[Crackle, ...]
    x: float
    depth: float  # the ground
    wide: float  # half-width
    high: float  # of the strongest flames
    walled: bool

    def painter(self, look: Look) -> "FirePainter":
        return FirePainter(self, look)


class FirePainter:
    def __init__(self, fire: Fire, look: Look):
        self.fire, rng = fire, look.rng
        self.wood = colour(rng, (0.04, 0.09), (0.3, 0.6), (0.12, 0.3))
        self.brick = colour(rng, (0.0, 0.1), (0.1, 0.6), (0.3, 0.7)) * look.light.tint
        self.tongues = rng.uniform((2.0, -9, 0), (8.0, 9, 6.3), (5, 3)).astype(np.float32)  # waves, rad/s, phase
        self.sway = rng.uniform((0.5, 0), (2.0, 6.3), (3, 2))  # hertz, phase
        self.sparks = np.array([(c.time, c.x, c.speed_x, c.speed_y, c.loudness) for c in fire.crackles]).reshape(-1, 5)

    def shadow(self, canvas: Canvas, time: float) -> None:
        """What stands around the fire, and its light on it."""
        fire = self.fire
        if fire.walled:
            for wide, high, paint in ((1.75, 1.35, self.brick), (1.3, 1.12, np.full(3, 0.03, np.float32))):
                left, right, top = fire.x - wide * fire.wide, fire.x + wide * fire.wide, fire.depth - high * fire.high
                canvas.polygon([(left, top), (right, top), (right, fire.depth), (left, fire.depth)], paint)
        strength = float(fire.blaze.at(time))
        canvas.glow(fire.x, fire.depth - 0.3 * fire.high, 1.6 * fire.high, EMBERS * (1, 2, 3), 0.35 * strength)

    def draw(self, canvas: Canvas, time: float) -> None:
        fire = self.fire
        for start, end in ((-0.9, 0.7), (0.95, -0.6)):
            ends = fire.x + start * fire.wide, fire.depth - 0.015, fire.x + end * fire.wide, fire.depth - 0.055
            canvas.capsule(*ends, 0.024, self.wood)
        self._flames(canvas, time)
        self._sparks(canvas, time)

    def _flames(self, canvas: Canvas, time: float) -> None:
        fire = self.fire
        strength = float(fire.blaze.at(time))
        found = canvas.patch(
            fire.x - 1.3 * fire.wide, fire.depth - 1.45 * fire.high * strength, fire.x + 1.3 * fire.wide, fire.depth
        )
        if found is None or strength < 0.01:
            return
        pixels, xs, ys = found
        up = (np.float32(fire.depth) - ys) / np.float32(fire.high)  # (h, 1)
        across = (xs - np.float32(fire.x)) / np.float32(fire.wide)  # (1, w)
        for hertz, phase in self.sway:
            across = across + 0.22 * up * np.sin(np.float32(2 * np.pi * hertz * time + phase) - 5 * up)
        tongues = np.float32(0.75)
        for waves, pace, phase in self.tongues:
            tongues = tongues + 0.13 * np.sin(waves * across + np.float32(pace * time) + phase)
        top = strength * tongues * np.clip(1 - across * across, 0, 1)
        heat = (top - up) / max(strength, 0.15)  # 0 at the tips
        cover = np.clip(7 * heat, 0, 0.95) * (up > 0)
        paint = EMBERS + np.clip(1.7 * heat, 0, 1)[..., None] * (YELLOW - EMBERS)
        pixels += cover[..., None] * (paint - pixels)

    def _sparks(self, canvas: Canvas, time: float) -> None:
        since = time - self.sparks[:, 0]
        seen = (since >= 0) & (since < LIFE)
        if not seen.any():
            return
        fire = self.fire
        _, x, speed_x, speed_y, loudness = self.sparks[seen].T
        since = since[seen]
        x = fire.x + x * fire.wide + speed_x * since
        y = fire.depth - 0.05 - speed_y * since * (1 - 0.45 * since / LIFE)
        canvas.dots(x, y, 0.014, YELLOW, np.minimum(1.5 * (1 - since / LIFE), 1) * (0.5 + 0.5 * loudness))
        for k in np.flatnonzero(since < 0.05):  # the crack itself: a flash
            canvas.glow(x[k], y[k], 0.06, YELLOW, 0.9 * loudness[k])


@dataclass(frozen=True)
class Roar:
    """The sound of a fire: low noise that follows the flames, a faint hiss, and the crackles."""

    blaze: Blaze
    crackles: tuple[Crackle, ...]
    name: str = "fire"

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        clicks = rng.uniform((0.0006, 3000), (0.0025, 9000), (len(self.crackles), 2))
        dry = np.zeros(length)
        for crackle, (seconds, corner) in zip(self.crackles, clicks, strict=True):
            click = burst(seconds, corner, sample_rate, rng)
            add(dry, crackle.time, 1.2 * LEVEL * crackle.loudness * click, sample_rate)
        strength = follow(self.blaze.at, sample_rate, length, step=0.01)
        roar = band_noise(length, 45, 300, sample_rate, rng) + 0.06 * band_noise(length, 900, 5000, sample_rate, rng)
        return dry + LEVEL / CREST * strength * roar


def make(rng: np.random.Generator, setting: Setting) -> Act:
    strength = swelling(rng, setting.duration)
    flicker = tuple(
        (float(a), float(hertz), float(phase))
        for a, hertz, phase in rng.uniform((0.05, 0.8, 0), (0.13, 4.5, 6.3), (3, 3))
    )
    crackles = tuple(
        Crackle(float(time), *(float(v) for v in rng.uniform((0.25, -0.7, -0.3, 0.5), (1, 0.7, 0.3, 1.0))))
        for time in moments(rng, strength, setting.duration - END_MARGIN, CRACKLES)
    )
    wide = float(rng.uniform(0.11, 0.15)) * (1 if setting.width > 0.6 else 0.8)
    ground = float(rng.uniform(max(setting.horizon + 0.08, 0.7), 0.92))
    x = setting.across(float(rng.uniform(0.4, 0.6)))
    walled = setting.place == "room"
    blaze = Blaze(strength, flicker)
    fire = Fire(blaze, crackles, x, ground, wide, float(rng.uniform(0.34, 0.46)), walled)
    events = tuple(
        Event(start, "fire", None, LEVEL * peak, x, ground - 0.1, seconds)
        for start, seconds, peak in strength.spells(setting.duration)
    )
    return Act("fire", (fire,), (Roar(blaze, crackles),), events, _words(events, walled))


def _words(events: tuple[Event, ...], walled: bool) -> Words:
    where = "in a fireplace" if walled else "on the ground"
    noun = "fire in a fireplace" if walled else "campfire"
    course = "flares up again and again" if len(events) > 1 else "flares up and sinks"
    return Words(
        tags=("fire crackling", f"crackling {noun}", f"{noun} burning", "fire"),
        clauses=(
            f"a fire burns {where}",
            f"a {noun} crackles",
            f"a fire crackles {where}",
            f"flames of a fire roar {where}",
        ),
        details=(
            f"a fire {where} {course}, crackling and throwing sparks",
            f"a {noun} {course} with a low roar and sharp crackles",
            f"a fire roars {where}, and sparks fly whenever it crackles",
        ),
    )
