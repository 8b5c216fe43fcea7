"""A pair of legs walks to and fro or steps on the spot, on a floor or on soft ground."""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from ..canvas import Canvas
from ..look import colour
from ..materials import SURFACES, TABLE
from ..motion import Segment, piece_at, still
from ..paving import LEFT, RIGHT, Paving
from ..phrases import count_of, manner
from ..scene import END_MARGIN, Act, Event, Look, Setting, Words
from ..voices import HIGHEST, Contacts, add, band_noise

GROUNDS = ("wood", "metal", "ceramic", *SURFACES)
FULL_LIFT = 0.14  # stage units: a foot that falls this far is heard at loudness 1
TOE = 0.034  # seconds from heel to toe: one onset to the ear
TILT = 0.4  # radians: toes up before the heel lands
SHOE = 0.024  # stage units, half its height


@dataclass(frozen=True)
class Step:
    """A foot comes down on its heel."""

    time: float
    loudness: float
    x: float


@dataclass(frozen=True)
class Walker:
    """Legs and the coat above them."""

    ground: float
    leg: float  # length, stage units
    feet: tuple[tuple[Segment, ...], tuple[Segment, ...]]  # paths of the far and the near foot
    turns: tuple[tuple[float, int], ...]  # (time, +1 to the right or -1): where it faces from then on

    @property
    def depth(self) -> float:
        return self.ground

    def foot(self, which: int, time: float) -> tuple[float, float, float]:
        """(x, height, toes up in radians) of a foot at a time."""
        return piece_at(self.feet[which], time).at(time)

    def facing(self, time: float) -> int:
        """+1: to the right."""
        return self.turns[max(bisect_right(self.turns, time, key=lambda turn: turn[0]) - 1, 0)][1]

    def painter(self, look: Look) -> "WalkerPainter":
        return WalkerPainter(self, look)


class WalkerPainter:
    """Shoes, trousers and a coat."""

    def __init__(self, walker: Walker, look: Look):
        self.walker = walker
        self.shoe = colour(look.rng, (0, 1), (0.3, 0.9), (0.1, 0.6))
        self.trousers = colour(look.rng, (0, 1), (0.1, 0.7), (0.25, 0.75))
        self.coat = colour(look.rng, (0, 1), (0.2, 0.9), (0.2, 0.8))

    def shadow(self, canvas: Canvas, time: float) -> None:
        for which in (0, 1):
            x, height, _ = self.walker.foot(which, time)
            x += 0.03 * self.walker.facing(time)
            canvas.shadow(x, self.walker.ground, 0.09, 0.6 / (1 + 12 * height))

    def draw(self, canvas: Canvas, time: float) -> None:
        walker, face = self.walker, self.walker.facing(time)
        feet = [walker.foot(which, time) for which in (0, 1)]
        hip_x = (feet[0][0] + feet[1][0]) / 2
        spread = max(abs(foot[0] - hip_x) for foot in feet)
        hip_y = walker.ground - 2 * SHOE - 0.98 * np.sqrt(walker.leg**2 - spread**2)
        for which, dim in ((0, 0.7), (1, 1.0)):
            self._leg(canvas, hip_x, hip_y, feet[which], face, dim)
        canvas.capsule(hip_x, hip_y - 0.03, hip_x + 0.02 * face, hip_y - 0.8, 0.085, self.coat)

    def _leg(self, canvas: Canvas, hip_x, hip_y, foot, face: int, dim: float) -> None:
        x, height, angle = foot
        heel_y = self.walker.ground - height - SHOE
        dx, dy = x - hip_x, heel_y - SHOE - hip_y
        away = np.hypot(dx, dy)
        bend = face * np.sqrt(max((self.walker.leg / 2) ** 2 - (away / 2) ** 2, 0.0))  # two equal halves
        knee_x, knee_y = hip_x + dx / 2 + bend * dy / away, hip_y + dy / 2 - bend * dx / away
        canvas.capsule(hip_x, hip_y, knee_x, knee_y, 0.042, self.trousers * dim)
        canvas.capsule(knee_x, knee_y, x, heel_y - SHOE, 0.034, self.trousers * dim)
        toe_x, toe_y = x + face * 0.1 * np.cos(angle), heel_y - 0.1 * np.sin(angle)
        canvas.capsule(x - 0.015 * face, heel_y, toe_x, toe_y, SHOE, self.shoe * dim)


@dataclass(frozen=True)
class Steps:
    """The sound of all steps on one ground."""

    name: str
    ground: str
    hits: tuple[tuple[float, float], ...]  # (time, loudness)

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        if self.ground not in SURFACES:
            return self._hard(sample_rate, length, rng)
        dry = np.zeros(length)
        make_step = {"gravel": _gravel, "snow": _snow, "grass": _grass}[self.ground]
        for time, loudness in self.hits:
            step = make_step(sample_rate, rng.spawn(1)[0])  # so that noise of any length shifts no other step
            add(dry, time, loudness * step / (np.abs(step).max() + 1e-9), sample_rate)
        return dry

    def _hard(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        """A plate that heel and toe hit, and the thump of the weight."""
        hertz, late = rng.uniform(70.0, 100.0), rng.uniform(0.9, 1.2) * TOE
        hits = [hit for time, loud in self.hits for hit in ((time, loud), (time + late, 0.4 * loud))]
        dry = 0.8 * Contacts(self.name, self.ground, 0.2, 1.6, tuple(hits)).render(sample_rate, length, rng)
        thump = _thump(hertz, sample_rate)
        for time, loudness in self.hits:
            add(dry, time, 0.5 * loudness * thump, sample_rate)
        return dry


def _thump(hertz: float, sample_rate: int) -> np.ndarray:
    """A weight put down (N,), peak about 1."""
    seconds = np.arange(int(0.18 * sample_rate)) / sample_rate
    return np.sin(2 * np.pi * hertz * seconds) * np.exp(-seconds / 0.035)


def _gravel(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Many grains that grind against each other, one by one."""
    count = 200
    delays = rng.exponential(0.04, count)
    delays[:8] = 0.0  # the heel hits the uppermost ones
    hertz = np.exp(rng.uniform(np.log(1300.0), np.log(6000.0), count))
    levels = rng.uniform(0.3, 1.0, count) * np.exp(-delays / 0.045)
    seconds = np.arange(int(0.012 * sample_rate)) / sample_rate
    grains = np.sin(2 * np.pi * hertz[:, None] * seconds) * np.exp(-seconds / 0.0018)
    grains *= (levels * (hertz < HIGHEST * sample_rate))[:, None]
    sound = np.zeros(int(0.4 * sample_rate))
    for delay, grain in zip(delays, grains, strict=True):
        add(sound, delay, grain, sample_rate)
    return sound


def _snow(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """It is pressed together in small jerks, and squeaks."""
    squeak, jerks = rng.uniform(520.0, 820.0), rng.uniform(0.1, 1.0, 40)
    length = int(0.3 * sample_rate)
    seconds = np.arange(length) / sample_rate
    hertz = squeak * (1 + 0.8 * seconds)
    phase = 2 * np.pi * np.cumsum(hertz) / sample_rate
    whine = sum(np.sin(k * phase) / k for k in (1, 2, 3))
    whine *= 0.5 * np.exp(-(((seconds - 0.05) / 0.05) ** 2)) * (1 - np.exp(-seconds / 0.002))
    grip = np.repeat(jerks, length // len(jerks) + 1)[:length]
    crunch = band_noise(length, 350.0, 1900.0, sample_rate, rng) * (0.6 + 0.7 * grip)
    swell = (1 - np.exp(-seconds / 0.0007)) * np.exp(-seconds / 0.05)
    return crunch * swell + whine


def _grass(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Blades brush against the shoe when it comes down, and when it rolls over them."""
    late, hertz = rng.uniform(0.06, 0.08), rng.uniform(60.0, 85.0)
    length = int(0.4 * sample_rate)
    seconds = np.arange(length) / sample_rate
    swish = (1 - np.exp(-seconds / 0.001)) * np.exp(-seconds / 0.05)
    swish += 0.3 * np.exp(-(((seconds - late) / 0.04) ** 2)) * (1 - np.exp(-seconds / 0.05))
    rustle = band_noise(length, 2400.0, 6800.0, sample_rate, rng) * swish / 3
    add(rustle, 0.0, 0.5 * _thump(hertz, sample_rate), sample_rate)
    return rustle


def make(rng: np.random.Generator, setting: Setting) -> Act:
    stuff = setting.pick(rng, "footsteps", GROUNDS)
    ground = float(rng.uniform(max(setting.horizon + 0.2, 0.8), 0.93))
    leg = float(rng.uniform(0.42, 0.52))
    on_the_spot = rng.random() < 0.25
    paths, turns, steps = _walk(rng, setting, on_the_spot)
    whole = setting.width > 0.9
    left, right = (LEFT, RIGHT) if whole else (setting.left, setting.right)
    walker = Walker(ground, leg, paths, turns)
    paving = Paving(stuff, float(rng.uniform(ground - 0.14, ground - 0.08)), left, right)
    source = Steps(f"steps on {stuff}", stuff, tuple((step.time, step.loudness) for step in steps))
    events = tuple(Event(step.time, "footstep", stuff, step.loudness, step.x, ground) for step in steps)
    return Act("footsteps", (paving, walker), (source,), events, _words(stuff, on_the_spot, events))


def _walk(rng: np.random.Generator, setting: Setting, on_the_spot: bool):
    """Both feet's paths, where the walker faces, and the steps."""
    ends = setting.across(0.2), setting.across(0.8)
    stride = float(rng.uniform(0.1, 0.17)) * min(1.0, 0.4 + setting.width)
    period, vigour = float(rng.uniform(0.42, 0.8)), float(rng.uniform(0.45, 0.95))
    pauses, hovers = float(rng.choice([0.0, 0.12])), float(rng.choice([0.0, 0.12]))
    way = int(rng.choice([-1, 1]))
    middle = float(rng.uniform(*ends))
    at = [middle - 0.35 * stride, middle + 0.35 * stride]
    paths = [[*still(x)] for x in at]
    turns, steps = [(0.0, way)], []
    time, swing = float(rng.uniform(0.1, 0.7)), int(rng.integers(2))
    while True:
        lift = FULL_LIFT * float(np.clip(vigour * rng.uniform(0.7, 1.25), 0.4, 1.0))
        falling = float(np.sqrt(2 * lift / setting.gravity))
        rising = max(period * float(rng.uniform(0.92, 1.08)) - falling - 0.03, 0.12)
        held = float(rng.uniform(0.4, 0.9)) if rng.random() < hovers else 0.0  # the foot stays in the air
        fall = time + rising + held
        land = fall + falling
        if land > setting.duration - END_MARGIN - 0.02:
            break
        x, other = at[swing], at[1 - swing]
        to = x if on_the_spot else other + way * stride
        if not ends[0] <= to <= ends[1]:
            way = -way
            turns.append((time, way))
            to = other + way * stride
        over = x + 0.75 * (to - x)
        paths[swing] += [
            Segment(time, rising, x, over, 0.0, lift, angle1=TILT),
            Segment(fall, falling, over, to, lift, 0.0, 0.0, setting.gravity, TILT, TILT),
            Segment(land, TOE, to, to, 0.0, 0.0, angle0=TILT),
        ]
        steps.append(Step(land, float((lift / FULL_LIFT) ** 0.8), to))
        at[swing], swing = to, 1 - swing
        time = land + 0.03 + (float(rng.uniform(0.7, 1.8)) if rng.random() < pauses else 0.0)
    return tuple(tuple(path) for path in paths), tuple(turns), tuple(steps)


def _words(stuff: str, on_the_spot: bool, events: tuple[Event, ...]) -> Words:
    if stuff in SURFACES:
        ground = "the grass" if stuff == "grass" else stuff
        tag = f"on {stuff}"
    else:
        ground = {"metal": "a metal walkway", "ceramic": "ceramic tiles"}.get(
            stuff, f"a {TABLE[stuff].adjective} floor"
        )
        tag = f"on {ground}"
    noise = {"gravel": "crunching", "snow": "crunching and squeaking", "grass": "rustling"}.get(stuff, "heel and toe")
    how, times = manner(events), count_of(len(events))
    act = "steps on the spot" if on_the_spot else "walks to and fro"
    return Words(
        tags=(f"footsteps {tag}", f"steps {tag}", f"someone walking {tag}", f"footsteps {tag}, {noise}"),
        clauses=(
            f"someone walks on {ground}",
            f"footsteps are heard on {ground}",
            f"a person is walking on {ground}",
            f"feet take steps on {ground}",
        ),
        details=(
            f"a person {act} on {ground} with footsteps that are heard {times}",
            f"a person {act} {how} on {ground} with steady footsteps, {noise}",
        ),
    )
