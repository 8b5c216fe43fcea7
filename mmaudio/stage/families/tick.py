"""A metronome, a pendulum clock or a clock whose hand jumps: it ticks, and now and then a hand stops and starts it."""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from ..canvas import Canvas
from ..look import colour, material_texture
from ..phrases import count_of
from ..rotation import Swing
from ..scene import END_MARGIN, Act, Event, Look, Setting, Words
from ..voices import add, burst, ring

REACH = 0.25  # seconds that the hand needs to come near or to leave
STEP = 2 * np.pi / 12  # of the jumping hand: a jump of one sixtieth would not be seen
JUMP_SECONDS = 0.04


@dataclass(frozen=True)
class Pitch:
    """How one kind of device sounds: the partials of its tick in Hz, of a size of 1, and their ringing in seconds."""

    hertz: tuple[float, ...]
    t60: float
    corner: float  # Hz, of the click
    tock: float  # the pitch of every other tick, relative


# Where each ticks: a metronome at the ends of its swing, a pendulum clock in the middle, the other clock at each jump.
DEVICES = {
    "metronome": Pitch((1750.0, 2800.0, 4400.0, 5900.0), 0.03, 5000.0, 0.84),
    "pendulum clock": Pitch((1250.0, 2050.0, 3300.0, 4700.0), 0.035, 4000.0, 0.75),
    "clock": Pitch((2300.0, 3300.0, 4700.0, 6100.0), 0.025, 6000.0, 1.0),
}


@dataclass(frozen=True)
class Run:
    """Set going at `start`, held at `end`. Between them it takes whole beats of the device's period."""

    start: float
    end: float


@dataclass(frozen=True)
class Ticker:
    """A device on the floor line `ground`, `size` stage units high. Its swing is between -1 and 1."""

    device: str  # one of DEVICES
    x: float
    ground: float
    size: float
    swing: Swing  # of the rod; the jumping hand has none
    ticks: tuple[float, ...]  # times
    runs: tuple[Run, ...]

    @property
    def depth(self) -> float:
        return self.ground

    @property
    def pivot(self) -> tuple[float, float]:
        """Where the rod or the hand of the clock turns."""
        up = {"metronome": 0.12, "pendulum clock": 0.68, "clock": 0.55}[self.device]
        return self.x, self.ground - up * self.size

    def tip(self, time: float) -> tuple[float, float]:
        """The end of the rod, or of the clock's hand."""
        x, y = self.pivot
        if self.device == "clock":
            made = bisect_right(self.ticks, time)
            since = time - self.ticks[made - 1] if made else 1.0
            angle = STEP * (made - 0.5 * max(1 - since / JUMP_SECONDS, 0.0) ** 2)
            return x + 0.36 * self.size * np.sin(angle), y - 0.36 * self.size * np.cos(angle)
        reach, widest = (0.85, 0.55) if self.device == "metronome" else (-0.55, 0.5)
        angle = widest * self.swing.at(time)
        return x + reach * self.size * np.sin(angle), y - reach * self.size * np.cos(angle)

    def grip(self, time: float) -> float:
        """How near the hand is that stops and starts it: 1 when it holds, 0 when it is away."""
        near = 0.0
        for before, after in zip((None, *self.runs), (*self.runs, None), strict=True):
            held = before.end if before else -1.0
            freed = after.start if after else np.inf
            away = max(held - time, time - freed, 0.0)
            near = max(near, 1 - away / REACH)
        return near

    def painter(self, look: Look) -> "TickerPainter":
        return TickerPainter(self, look)


class TickerPainter:
    """The device, and the hand while it is near."""

    def __init__(self, ticker: Ticker, look: Look):
        self.ticker = ticker
        self.wood = material_texture("wood", look.rng).mean((0, 1)) * look.light.tint
        self.face = colour(look.rng, (0.08, 0.16), (0.0, 0.2), (0.85, 1.0))
        self.rod = colour(look.rng, (0.0, 1.0), (0.7, 1.0), (0.1, 0.6))
        self.bob = colour(look.rng, (0.1, 0.15), (0.6, 0.9), (0.8, 1.0))
        self.skin = colour(look.rng, (0.05, 0.09), (0.3, 0.6), (0.4, 0.95))
        self.side = float(look.rng.choice([-1, 1]))

    def shadow(self, canvas: Canvas, time: float) -> None:
        canvas.shadow(self.ticker.x, self.ticker.ground, 0.35 * self.ticker.size, 0.55)

    def draw(self, canvas: Canvas, time: float) -> None:
        ticker = self.ticker
        x, top = ticker.x, ticker.ground - ticker.size
        half = ticker.size * {"metronome": 0.3, "pendulum clock": 0.36, "clock": 0.5}[ticker.device]
        tip_x, tip_y = ticker.tip(time)
        if ticker.device == "metronome":
            upper = 0.12 * ticker.size
            corners = [(x - half, ticker.ground), (x + half, ticker.ground), (x + upper, top), (x - upper, top)]
            canvas.polygon(corners, self.wood)
            canvas.polygon([(x + 0.7 * (a - x), 0.7 * b + 0.3 * ticker.pivot[1]) for a, b in corners], self.face)
            self._rod(canvas, tip_x, tip_y, 0.6)
        elif ticker.device == "pendulum clock":
            canvas.polygon(
                [(x - half, ticker.ground), (x + half, ticker.ground), (x + half, top), (x - half, top)], self.wood
            )
            canvas.disc(x, top + 0.2 * ticker.size, 0.17 * ticker.size, self.face)
            self._rod(canvas, tip_x, tip_y, 1.0)
        else:
            x, y = ticker.pivot
            canvas.disc(x, y, half * 0.98, self.wood)
            canvas.disc(x, y, half * 0.84, self.face)
            for mark in range(12):
                c, s = 0.72 * half * np.cos(mark * STEP), 0.72 * half * np.sin(mark * STEP)
                canvas.capsule(x + c, y + s, x + 1.08 * c, y + 1.08 * s, 0.006, self.rod * 0.5)
            self._rod(canvas, tip_x, tip_y, None)
        self._hand(canvas, tip_x, tip_y, ticker.grip(time))

    def _rod(self, canvas: Canvas, tip_x: float, tip_y: float, bob: float | None) -> None:
        """The rod with its bob at a share of its length."""
        x, y = self.ticker.pivot
        canvas.capsule(x, y, tip_x, tip_y, 0.012 + 0.01 * self.ticker.size, self.rod)
        if bob is not None:
            canvas.disc(x + bob * (tip_x - x), y + bob * (tip_y - y), 0.09 * self.ticker.size, self.bob)

    def _hand(self, canvas: Canvas, tip_x: float, tip_y: float, grip: float) -> None:
        if grip <= 0:
            return
        away = (1 - grip) ** 2
        x, y = tip_x + self.side * (0.03 + 0.5 * away), tip_y + 0.02 - 0.25 * away
        canvas.capsule(x, y, x + self.side * 0.1, y - 0.03, 0.028, self.skin)
        canvas.capsule(x + self.side * 0.1, y - 0.03, x + self.side * 0.9, y - 0.2, 0.045, self.skin)


@dataclass(frozen=True)
class Ticking:
    """The sound of a device: two faint clicks close together, of another pitch every other time."""

    name: str
    pitch: Pitch
    size: float  # of the device, relative: smaller is higher
    ticks: tuple[tuple[float, float], ...]  # (time, loudness)
    first: int  # 0: begins with the tick, 1: with the tock

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        spread = np.exp(0.1 * rng.standard_normal(len(self.pitch.hertz))) / self.size
        hertz = np.array(self.pitch.hertz) * spread
        gain = np.array([1.0, 0.7, 0.5, 0.3])
        tone = [ring(hertz * pitch, self.pitch.t60, gain, sample_rate) for pitch in (1.0, self.pitch.tock)]
        dry = np.zeros(length)
        for index, (time, loudness) in enumerate(self.ticks):
            sound = 0.75 * tone[(index + self.first) % 2]
            click = burst(0.0015, self.pitch.corner, sample_rate, rng)[: len(sound)]
            sound[: len(click)] += 0.35 * click
            add(dry, time, loudness * sound, sample_rate)
            add(dry, time + 0.022, 0.6 * loudness * sound, sample_rate)  # the wheel falls into place
        return dry


def make(rng: np.random.Generator, setting: Setting) -> Act:
    device = str(rng.choice(list(DEVICES)))
    slow, fast = {"metronome": (0.375, 1.0), "pendulum clock": (0.5, 1.0), "clock": (0.5, 1.2)}[device]
    period = float(np.exp(rng.uniform(np.log(slow), np.log(fast))))
    runs = _runs(rng, setting.duration, period)
    ticks, swing = _beats(device, period, runs)
    size = float(rng.uniform(0.9, 1.15))
    high = (
        size * {"metronome": 0.36, "pendulum clock": 0.48, "clock": 0.36}[device] * min(1.0, 0.5 + 0.5 * setting.width)
    )
    ground = float(rng.uniform(max(setting.horizon + 0.1, 0.72), 0.92))
    ticker = Ticker(device, setting.across(float(rng.uniform(0.4, 0.6))), ground, high, swing, ticks, runs)
    loudness = float(rng.uniform(0.35, 0.8))
    beats = tuple((time, loudness * float(rng.uniform(0.9, 1.0))) for time in ticks)
    events = tuple(
        Event(time, "tick", None, level, *ticker.tip(time))
        for time, level in beats
        if 0 < time < setting.duration - END_MARGIN
    )
    first = int(rng.integers(2))
    source = Ticking(device, DEVICES[device], size, tuple(beat for beat in beats if beat[0] > 0), first)
    return Act("tick", (ticker,), (source,), events, _words(device, period, runs, events, setting.duration))


def _runs(rng: np.random.Generator, duration: float, period: float) -> tuple[Run, ...]:
    """Of whole periods; the first may have begun before the clip, the last goes on past its end."""
    start = -period * float(rng.uniform(0.1, 0.9)) if rng.random() < 0.5 else float(rng.uniform(0.1, 0.6))
    patience = float(rng.choice([2 * duration, 4.0], p=[0.5, 0.5]))  # half of them are never stopped
    runs = []
    while start < duration:
        beats = max(round(patience * float(rng.uniform(0.4, 1.0)) / period), 2)
        runs.append(Run(start, start + beats * period))
        start = runs[-1].end + 2 * REACH + float(rng.uniform(0.2, 1.5))
    return tuple(runs)


def _beats(device: str, period: float, runs: tuple[Run, ...]) -> tuple[tuple[float, ...], Swing]:
    """Times of the ticks, and the rod's turning points, one for every period."""
    times, places, side = [], [], 1.0
    for run in runs:
        beats = round((run.end - run.start) / period)
        times += [run.start + k * period for k in range(beats + 1)]
        places += [side * (-1) ** k for k in range(beats + 1)]
        side = places[-1]
    starts = {run.start for run in runs}
    late = 0.5 * period if device == "pendulum clock" else 0.0  # it ticks in the middle of the swing
    return tuple(time - late for time in times if time not in starts), Swing(tuple(times), tuple(places))


def _words(device: str, period: float, runs: tuple[Run, ...], events: tuple[Event, ...], duration: float) -> Words:
    tempo = "fast" if period < 0.5 else "slow" if period > 0.8 else "steady"
    swinging = {"metronome": "rod", "pendulum clock": "pendulum", "clock": "hand"}[device]
    moves = "jumps from mark to mark" if device == "clock" else "swings to and fro"
    held = any(0 < run.end < duration for run in runs)
    end = "until a hand holds it" if held else "without a pause"
    return Words(
        tags=(f"{device} ticking", f"ticking {device}", f"{tempo} ticking of a {device}", f"{device}, tick tock"),
        clauses=(
            f"a {device} ticks",
            f"a {device} is ticking",
            f"the {swinging} of a ticking {device} {moves}",
            f"a {device} goes tick tock",
        ),
        details=(
            f"a {device} ticks at a {tempo} pace, {count_of(len(events))}",
            f"the {swinging} of a {device} {moves} and it ticks {count_of(len(events))}",
            f"a {device} ticks at a {tempo} pace {end}",
        ),
    )
