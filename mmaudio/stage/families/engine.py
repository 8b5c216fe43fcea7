"""An engine with a flywheel: it starts, speeds up, slows down and stops, and its pitch follows the wheel."""

from dataclasses import dataclass

import numpy as np

from ..canvas import Canvas
from ..look import colour
from ..phrases import article
from ..rotation import Spin, random_runs
from ..scene import END_MARGIN, Act, Event, Look, Setting, Words
from ..voices import HIGHEST, band_noise

SLOW, FAST = 11.0, 40.0  # turns of the crankshaft per second
# The wheel is geared down, so that even the fastest turns well below half a turn per frame at 25 frames per second.
# Its speed stays proportional to that of the crankshaft, which is what sounds.
GEAR = 10.0
HARMONICS = 22  # of the firing rate: below 3600 Hz at all speeds
PUFF_SECONDS = 0.9


@dataclass(frozen=True)
class Engine:
    """An engine standing on the floor. `size` is half its width in stage units."""

    x: float
    ground: float
    size: float
    spin: Spin  # of the crankshaft
    puffs: tuple[float, ...]  # times: one for every turn of the wheel
    belt: bool  # drives a small wheel by a belt; else a piston is seen
    loudness: float

    @property
    def depth(self) -> float:
        return self.ground

    def angle(self, time: float) -> float:
        """Radians that the flywheel has turned."""
        return float(2 * np.pi * self.spin.turns(time) / GEAR)

    def shake(self, time: float) -> tuple[float, float]:
        """How far the engine is off its place, in stage units."""
        angle, strength = 3 * self.angle(time), 0.06 * self.size * float(self.spin.speed(time)) / FAST
        return strength * np.sin(angle), strength * np.sin(1.7 * angle + 1)

    def painter(self, look: Look) -> "EnginePainter":
        return EnginePainter(self, look)


class EnginePainter:
    """A box with a flywheel before it, a piston or a belt beside it, and an exhaust pipe that puffs."""

    def __init__(self, engine: Engine, look: Look):
        self.engine = engine
        self.body = colour(look.rng, saturation=(0.3, 0.9), value=(0.3, 0.8)) * look.light.tint
        self.iron = np.full(3, look.rng.uniform(0.12, 0.25), np.float32)
        self.mark = colour(look.rng, (0.0, 0.17), (0.5, 1.0), (0.85, 1.0))
        self.smoke = np.full(3, look.rng.uniform(0.3, 0.75), np.float32)

    def shadow(self, canvas: Canvas, time: float) -> None:
        canvas.shadow(self.engine.x, self.engine.ground, 1.3 * self.engine.size, 0.6)

    def draw(self, canvas: Canvas, time: float) -> None:
        engine, size = self.engine, self.engine.size
        dx, dy = engine.shake(time)
        x, y = engine.x + dx, engine.ground + dy - 0.02
        pipe_x, pipe_y = x + 0.6 * size, y - 1.9 * size
        canvas.capsule(pipe_x, y - size, pipe_x, pipe_y, 0.09 * size, self.iron * 1.6)
        for puff in engine.puffs:
            age = (time - puff) / PUFF_SECONDS
            if 0 <= age < 1:
                rise, wide = 1.3 * size * age, size * (0.15 + 0.35 * age)
                canvas.disc(pipe_x + 0.3 * rise, pipe_y - rise, wide, self.smoke, 0.6 * (1 - age), 0.6)
        box = [(x - size, y), (x - size, y - 1.1 * size), (x + size, y - 1.1 * size), (x + size, y)]
        canvas.polygon(box, self.body)
        hub_x, hub_y, radius = x + 0.35 * size, y - 0.72 * size, 0.62 * size
        angle = engine.angle(time)
        if engine.belt:
            self._belt(canvas, x - 0.75 * size, y - 1.2 * size, hub_x, hub_y, radius, angle)
        self._wheel(canvas, hub_x, hub_y, radius, angle)
        if not engine.belt:
            self._piston(canvas, hub_x, hub_y, 0.6 * radius, angle)

    def _wheel(self, canvas: Canvas, x: float, y: float, radius: float, angle: float) -> None:
        """One light spot and one spoke tell the angle."""
        canvas.disc(x, y, radius, self.iron)
        canvas.disc(x, y, 0.8 * radius, self.iron * 2.2)
        c, s = radius * np.cos(angle), radius * np.sin(angle)
        canvas.capsule(x - 0.7 * c, y - 0.7 * s, x + 0.7 * c, y + 0.7 * s, 0.12 * radius, self.iron)
        canvas.disc(x + 0.62 * c, y + 0.62 * s, 0.3 * radius, self.mark)

    def _belt(self, canvas: Canvas, x: float, y: float, hub_x: float, hub_y: float, radius: float, angle: float):
        small = 0.6 * radius
        for side in (-1, 1):
            canvas.capsule(x, y + side * small, hub_x, hub_y + side * radius, 0.06 * radius, self.iron * 0.6)
        self._wheel(canvas, x, y, small, angle * radius / small)

    def _piston(self, canvas: Canvas, hub_x: float, hub_y: float, crank: float, angle: float) -> None:
        size = self.engine.size
        pin_x, pin_y = hub_x + crank * np.cos(angle), hub_y + crank * np.sin(angle)
        rod = 0.95 * size
        head = pin_x - np.sqrt(rod * rod - (pin_y - hub_y) ** 2)
        canvas.capsule(pin_x, pin_y, head, hub_y, 0.06 * size, self.iron * 3)
        half = 0.17 * size
        corners = [(head - half, hub_y - half), (head + half, hub_y - half), (head + half, hub_y + half)]
        canvas.polygon([*corners, (head - half, hub_y + half)], self.mark)


@dataclass(frozen=True)
class Firing:
    """The sound of an engine: a rough pulse for each firing, all of it as fast as the crankshaft turns."""

    name: str
    spin: Spin
    firings: int  # per turn
    loudness: float
    body_hz: float  # the engine's and the exhaust's resonance
    sharpness: float  # how slowly the harmonics of a pulse fade, 0.8..0.93
    levels: tuple[float, ...]  # of successive firings, over and over: no two cylinders are alike

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        seconds = np.arange(length) / sample_rate
        fired = 0.5 + self.firings * self.spin.turns(seconds)  # it stands between two pulses
        speed = self.spin.speed(seconds)
        strength = (speed / FAST) ** 0.6 * np.minimum(speed / SLOW, 1)  # the first and last firings are faint
        cycle = np.linspace(0, 1, 1025)
        order = np.arange(1, HARMONICS + 1)[:, None]
        pulse = (self.sharpness**order * np.cos(2 * np.pi * order * cycle)).sum(0)
        pulses = np.interp(fired % 1.0, cycle, pulse / pulse.max())
        level = np.interp(fired % len(self.levels), np.arange(len(self.levels) + 1), (*self.levels, self.levels[0]))
        hiss = band_noise(length, 300.0, 1800.0, sample_rate, rng)
        dry = strength * level * (pulses + 0.12 * hiss * np.exp(-3 * (fired % 1.0)))
        dry = self._resonate(dry, sample_rate)
        return dry * (self.loudness * strength.max() / (np.abs(dry).max() + 1e-9))

    def _resonate(self, dry: np.ndarray, sample_rate: int) -> np.ndarray:
        size = len(dry) + sample_rate // 4
        hz = np.fft.rfftfreq(size, 1 / sample_rate)
        gain = (
            0.5 + 2 * np.exp(-(((hz - self.body_hz) / (0.5 * self.body_hz)) ** 2)) + np.exp(-(((hz - 900) / 350) ** 2))
        )
        return np.fft.irfft(np.fft.rfft(dry, size) * gain * (hz < HIGHEST * sample_rate), size)[: len(dry)]


def make(rng: np.random.Generator, setting: Setting) -> Act:
    spin, runs = random_runs(rng, setting.duration, SLOW, FAST)
    grid = np.arange(0, setting.duration, 0.005)
    wheel = np.floor(spin.turns(grid) / GEAR)
    puffs = tuple(float(time) for time in grid[1:][np.diff(wheel) > 0])
    size = float(rng.uniform(0.15, 0.2)) * min(1.0, 0.4 + 0.6 * setting.width)
    x = setting.across(float(rng.uniform(0.4, 0.6)))
    ground = float(rng.uniform(max(setting.horizon + 0.1, 0.7), 0.92))
    loudness = float(rng.uniform(0.3, 0.5))
    engine = Engine(x, ground, size, spin, puffs, bool(rng.random() < 0.4), loudness)
    firings = int(rng.integers(3, 5))
    levels = tuple(float(level) for level in rng.uniform(0.65, 1.0, 2 * firings))
    body_hz, sharpness = float(rng.uniform(90, 240)), float(rng.uniform(0.8, 0.93))
    source = Firing("engine", spin, firings, loudness, body_hz, sharpness, levels)
    events = tuple(
        Event(begin, "engine", None, loudness, x, ground - size, min(end, setting.duration) - begin)
        for begin, end in runs
        if begin < setting.duration - END_MARGIN
    )
    return Act("engine", (engine,), (source,), events, _words(rng, spin, runs, setting.duration))


def _words(rng: np.random.Generator, spin: Spin, runs: tuple[tuple[float, float], ...], duration: float) -> Words:
    noun = str(rng.choice(["engine", "motor"]))
    shown = spin.speed(np.arange(0, duration, 0.1))
    pace = "fast" if shown.max() > 0.75 * FAST else "slowly" if shown.max() < 0.45 * FAST else "at a middle speed"
    starts = sum(begin > 0 for begin, _ in runs)
    stops, starts_first = runs[0][1] < duration, runs[0][0] > 0
    story = ("starts and stops again" if starts_first else "slows and stops") if stops else "speeds up and slows down"
    often = "" if starts < 2 else " more than once"
    return Words(
        tags=(f"{noun} running", f"{noun} revving", f"running {noun}", f"{noun} chugging"),
        clauses=(
            f"{article(noun)} is running",
            f"the {noun} of a machine runs and puffs",
            f"{article(noun)} with a flywheel is chugging",
            f"the flywheel of {article(noun)} turns",
        ),
        details=(
            f"the {noun} of a machine with a flywheel {story}{often}",
            f"a rattling {noun} runs {pace} while its flywheel turns",
            f"a puffing {noun} {story}{often}, its pitch following the wheel",
        ),
    )
