"""A fan or a propeller: the tone of its passing blades and the rush of air follow its speed."""

from dataclasses import dataclass

import numpy as np

from ..canvas import Canvas
from ..look import colour
from ..rotation import Spin, random_runs
from ..scene import END_MARGIN, Act, Event, Look, Setting, Words
from ..voices import HIGHEST, band_noise

SLOW, FAST = 14.0, 42.0  # turns per second
# The blades that are seen are geared down, so that the fastest with the most of them pass less than once in two frames
# at 25 frames per second. Their speed stays proportional to the one that is heard.
GEAR = 20.0


@dataclass(frozen=True)
class Fan:
    """Blades turning about (x, y), on a stand. `size` is the radius in stage units."""

    x: float
    y: float
    ground: float
    size: float
    spin: Spin  # the true one
    blades: int
    guarded: bool

    @property
    def depth(self) -> float:
        return self.ground

    def angle(self, time: float) -> float:
        """Radians that the blades have turned, as seen."""
        return float(2 * np.pi * self.spin.turns(time) / GEAR)

    def painter(self, look: Look) -> "FanPainter":
        return FanPainter(self, look)


class FanPainter:
    """A stand, blades of which one has another colour, a guard, and ribbons that the air lifts."""

    def __init__(self, fan: Fan, look: Look):
        self.fan = fan
        self.frame = colour(look.rng, saturation=(0, 0.3), value=(0.1, 0.9)) * look.light.tint
        hue = look.rng.uniform()
        self.blade = colour(look.rng, (hue, hue), (0.2, 0.8), (0.35, 0.85))
        self.mark = colour(look.rng, (hue + 0.4, hue + 0.6), (0.6, 1.0), (0.8, 1.0))

    def shadow(self, canvas: Canvas, time: float) -> None:
        canvas.shadow(self.fan.x, self.fan.ground, 0.7 * self.fan.size, 0.5)

    def draw(self, canvas: Canvas, time: float) -> None:
        fan, size = self.fan, self.fan.size
        canvas.capsule(fan.x, fan.y, fan.x, fan.ground - 0.01, 0.025, self.frame)
        canvas.capsule(fan.x - 0.5 * size, fan.ground, fan.x + 0.5 * size, fan.ground, 0.02, self.frame)
        if fan.guarded:
            canvas.disc(fan.x, fan.y, 1.08 * size, self.frame, 0.25)
        first = fan.angle(time)
        for blade in range(fan.blades):
            angle = first + 2 * np.pi * blade / fan.blades
            canvas.polygon(self._blade(angle), self.mark if blade == 0 else self.blade)
        canvas.disc(fan.x, fan.y, 0.2 * size, self.frame * 0.8)
        if fan.guarded:
            self._guard(canvas)
        self._ribbons(canvas, time)

    def _blade(self, angle: float) -> list[tuple[float, float]]:
        fan = self.fan
        wide = min(0.5, 1.6 / fan.blades)
        corners = ((0.12, -0.1), (0.12, 0.1), (0.96, 0.35 * wide), (0.9, -wide))
        c, s = fan.size * np.cos(angle), fan.size * np.sin(angle)
        return [(fan.x + c * out - s * side, fan.y + s * out + c * side) for out, side in corners]

    def _guard(self, canvas: Canvas) -> None:
        fan = self.fan
        around = np.linspace(0, 2 * np.pi, 33)
        x, y = fan.x + 1.08 * fan.size * np.cos(around), fan.y + 1.08 * fan.size * np.sin(around)
        canvas.streaks(x[:-1], y[:-1], x[1:], y[1:], 0.014, self.frame)
        canvas.streaks(np.full(8, fan.x), np.full(8, fan.y), x[:-1:4], y[:-1:4], 0.005, self.frame)

    def _ribbons(self, canvas: Canvas, time: float) -> None:
        """They hang down when the fan stands and fly to the side when it is fast."""
        fan = self.fan
        lift = 1.35 * float(fan.spin.speed(time)) / FAST
        for k, share in enumerate((-0.4, 0.0, 0.4)):
            angle = lift + 0.12 * lift * np.sin(2 * fan.angle(time) + 2 * k)
            x, y = fan.x + fan.size * share, fan.y + fan.size
            reach = 0.6 * fan.size
            canvas.capsule(x, y, x + reach * np.sin(angle), y + reach * np.cos(angle), 0.012, self.mark)


@dataclass(frozen=True)
class Air:
    """The sound of a fan: a hum at the rate of the passing blades, and air that is louder and brighter at speed."""

    name: str
    spin: Spin
    blades: int
    loudness: float
    hum: tuple[float, float, float, float]  # level of the blade tone and its overtones

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        seconds = np.arange(length) / sample_rate
        passed = 2 * np.pi * self.blades * self.spin.turns(seconds)
        speed = self.spin.speed(seconds) / FAST
        hertz = self.blades * self.spin.speed(seconds)
        dull, bright = (
            band_noise(length, low, high, sample_rate, rng) for low, high in ((150.0, 600.0), (500.0, 3000.0))
        )
        air = (0.22 * dull + 0.2 * speed * bright) * (1 + 0.3 * np.cos(passed))
        tone = sum(
            level * np.sin(k * passed) * (k * hertz < HIGHEST * sample_rate) for k, level in enumerate(self.hum, 1)
        )
        return self.loudness * speed**1.5 * (0.45 * tone + 0.7 * air)


def make(rng: np.random.Generator, setting: Setting) -> Act:
    spin, runs = random_runs(rng, setting.duration, SLOW, FAST)
    size = float(rng.uniform(0.17, 0.22)) * min(1.0, 0.4 + 0.6 * setting.width)
    x = setting.across(float(rng.uniform(0.4, 0.6)))
    ground = float(rng.uniform(max(setting.horizon + 0.1, 0.75), 0.93))
    y = ground - size * float(rng.uniform(1.5, 2.0))
    blades, guarded = int(rng.integers(3, 6)), bool(rng.random() < 0.65)
    loudness = float(rng.uniform(0.3, 0.5))
    hum = tuple(float(level) for level in rng.uniform(0.6, 1.0, 4) * (0.7, 0.6, 0.3, 0.15))
    fan = Fan(x, y, ground, size, spin, blades, guarded)
    events = tuple(
        Event(begin, "fan", None, loudness, x, y, min(end, setting.duration) - begin)
        for begin, end in runs
        if begin < setting.duration - END_MARGIN
    )
    words = _words("fan" if guarded else "propeller", spin, runs, setting.duration)
    return Act("fan", (fan,), (Air("fan", spin, blades, loudness, hum),), events, words)


def _words(noun: str, spin: Spin, runs: tuple[tuple[float, float], ...], duration: float) -> Words:
    top = spin.speed(np.arange(0, duration, 0.1)).max()
    pace = "fast" if top > 0.75 * FAST else "slow" if top < 0.5 * FAST else "steady"
    stops, starts_first = runs[0][1] < duration, runs[0][0] > 0
    story = ("starts and stops again" if starts_first else "slows and stops") if stops else "speeds up and slows down"
    return Words(
        tags=(f"{noun} humming", f"{noun} whirring", f"{noun} turning", f"electric {noun}"),
        clauses=(
            f"a {noun} whirrs",
            f"the blades of a {noun} turn",
            f"an electric {noun} is humming",
            f"a {noun} blows air about",
        ),
        details=(
            f"a {pace} {noun} {story} with a hum and a rush of air",
            f"the blades of a {noun} hum, and it {story}",
            f"a whirring {noun} {story}, its ribbons flying",
        ),
    )
