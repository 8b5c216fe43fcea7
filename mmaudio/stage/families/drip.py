"""Drops swell at a pipe and fall into water, each with a splash and the chirp of the bubble that it takes along."""

from dataclasses import dataclass, replace

import numpy as np

from ..canvas import Canvas
from ..look import colour
from ..phrases import count_of, manner
from ..scene import END_MARGIN, Act, Event, Look, Setting, Words
from ..voices import add, burst

FEINT = 0.3  # seconds in which a drop that does not fall is drawn back
CROWN, RIPPLE = 0.34, 1.1  # seconds that a splash is seen, and its rings
FLAT = 0.28  # how flat a circle on the water looks
MOST = 14  # drops of a pipe in 8 seconds


@dataclass(frozen=True)
class Bead:
    """A drop that lands at `time`; one of a feint would land then, but stays at the pipe."""

    time: float
    size: float  # 0..1
    swell: float  # seconds it hangs and grows
    feint: bool = False

    @property
    def radius(self) -> float:
        return 0.017 + 0.018 * self.size

    @property
    def loudness(self) -> float:
        return 0.3 + 0.6 * self.size


@dataclass(frozen=True)
class Leak:
    """A pipe, what drips from it, and the water below: in a bowl or a puddle."""

    x: float
    tip: float  # y of the end of the pipe
    water: float  # y of the water
    depth: float  # the ground
    wide: float  # half-width of the water
    side: int  # +1: the pipe comes from the right
    gravity: float
    beads: tuple[Bead, ...]

    def fall(self, bead: Bead) -> float:
        """Seconds from the pipe to the water."""
        return float(np.sqrt(2 * (self.water - self.tip - 2 * bead.radius) / self.gravity))

    def drop(self, bead: Bead, time: float) -> tuple[float, float] | None:
        """(y of its lowest point, radius) of a drop at a time, or None when it is not there."""
        until = bead.time - time
        hanging = until - self.fall(bead)
        if hanging > bead.swell or (until <= 0 and not bead.feint):
            return None
        if hanging > 0:
            radius = bead.radius * (1 - hanging / bead.swell) ** 0.5
        elif bead.feint:
            radius = bead.radius * max(1 + hanging / FEINT, 0.0)
        else:
            return self.tip + 2 * bead.radius + 0.5 * self.gravity * hanging * hanging, bead.radius
        return (self.tip + 2 * radius, radius) if radius > 0 else None

    def painter(self, look: Look) -> "LeakPainter":
        return LeakPainter(self, look)


class LeakPainter:
    def __init__(self, leak: Leak, look: Look):
        self.leak, rng = leak, look.rng
        self.pipe = np.full(3, rng.uniform(0.35, 0.7), np.float32) * look.light.tint
        self.bowl = colour(rng, saturation=(0.1, 0.7), value=(0.3, 0.9)) * look.light.tint
        self.water = colour(rng, (0.5, 0.62), (0.3, 0.7), (0.3, 0.55)) * look.light.tint
        self.bead = colour(rng, (0.52, 0.6), (0.3, 0.6), (0.75, 0.95))
        self.foam = np.array([0.92, 0.97, 1.0], np.float32)
        angle = np.arange(10) * 0.628 + rng.uniform(0, 0.6)
        self.out, self.up = np.cos(angle), rng.uniform(0.55, 1.0, 10)

    def shadow(self, canvas: Canvas, time: float) -> None:
        leak = self.leak
        canvas.shadow(leak.x, leak.depth, leak.wide, 0.35)

    def draw(self, canvas: Canvas, time: float) -> None:
        leak = self.leak
        x, wide = leak.x, leak.wide
        canvas.capsule(x, leak.tip - 0.02, x, leak.tip - 0.06, 0.028, self.pipe)
        canvas.capsule(x, leak.tip - 0.07, x + leak.side * 1.2, leak.tip - 0.07, 0.03, self.pipe)
        if leak.water < leak.depth:
            foot = 0.6 * wide
            rim = [(x - wide, leak.water), (x + wide, leak.water), (x + foot, leak.depth), (x - foot, leak.depth)]
            canvas.polygon(rim, 0.8 * self.bowl)
            canvas.ellipse(x, leak.water, 1.06 * wide, 1.15 * FLAT * wide, self.bowl)
        canvas.ellipse(x, leak.water, wide, FLAT * wide, self.water)
        landed = [(time - bead.time, bead) for bead in leak.beads if not bead.feint and time >= bead.time]
        for since, bead in landed:
            self._rings(canvas, since, bead)
        for bead in leak.beads:
            if found := leak.drop(bead, time):
                low, radius = found
                fast = max(0.0, low - leak.tip - 2 * radius)  # it stretches as it falls
                canvas.capsule(x, low - radius, x, low - radius * (1.4 + 2 * fast), radius, self.bead)
                canvas.disc(x - 0.3 * radius, low - 1.3 * radius, 0.3 * radius, self.foam)
        for since, bead in landed:
            self._crown(canvas, since, bead)

    def _rings(self, canvas: Canvas, since: float, bead: Bead) -> None:
        for late in (0.0, 0.12):
            u = since - late
            reach = 0.035 + 0.2 * u
            if 0 <= u < RIPPLE and reach < 0.97 * self.leak.wide:
                faint = (0.5 + 0.5 * bead.size) * (1 - u / RIPPLE)
                canvas.ring(self.leak.x, self.leak.water, reach, FLAT * reach, 0.01, self.foam, faint)

    def _crown(self, canvas: Canvas, since: float, bead: Bead) -> None:
        if since >= CROWN:
            return
        leak, force = self.leak, 0.6 + 0.4 * bead.size
        reach = 0.03 + 0.22 * force * since
        rise = 0.025 + force * self.up * since - 0.5 * 4.5 * since * since
        canvas.dots(leak.x + self.out * reach, leak.water - rise, 0.011, self.foam, np.clip(rise / 0.02, 0, 1))
        jet = 0.05 + 0.13 * force * np.sin(np.pi * since / CROWN)
        canvas.capsule(leak.x, leak.water, leak.x, leak.water - jet, 0.01, self.foam, 1 - since / CROWN)


@dataclass(frozen=True)
class Plinks:
    """The sound of the drops: large ones make large bubbles, which sound low and long."""

    beads: tuple[Bead, ...]
    name: str = "drip"

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        spread = rng.uniform((-0.12, 3, 0.2), (0.12, 9, 0.4), (len(self.beads), 3))
        dry = np.zeros(length)
        seconds = np.arange(int(0.3 * sample_rate)) / sample_rate
        for bead, (tune, rise, click) in zip(self.beads, spread, strict=True):
            hertz = 2400 * 0.25**bead.size * np.exp(tune)
            decay = 0.016 + 0.03 * bead.size
            turns = hertz * (seconds + 0.5 * rise * np.minimum(seconds, 0.12) ** 2)  # the bubble rises and shrinks
            sound = np.sin(2 * np.pi * turns) * np.exp(-seconds / decay) * (1 - np.exp(-seconds / 0.0012))
            sound /= np.abs(sound).max()
            noise = burst(0.0012, 6000, sample_rate, rng)
            sound[: len(noise)] += click * noise
            add(dry, bead.time, bead.loudness / (1 + 0.5 * click) * sound, sample_rate)
        return dry


def make(rng: np.random.Generator, setting: Setting) -> Act:
    count = int(rng.choice([1, 2], p=[0.7, 0.3])) if setting.width > 0.6 else 1
    leaks = []
    for i in range(count):
        home = 0.5 + float(rng.uniform(-0.12, 0.12)) if count == 1 else (0.25, 0.75)[i]
        leaks.append(_leak(rng, setting, setting.across(home)))
    falling = [tuple(bead for bead in leak.beads if not bead.feint) for leak in leaks]
    events = tuple(
        Event(bead.time, "drip", None, bead.loudness, leak.x, leak.water)
        for leak, beads in zip(leaks, falling, strict=True)
        for bead in beads
    )
    sources = tuple(Plinks(beads) for beads in falling if beads)
    return Act("drip", tuple(leaks), sources, events, _words(leaks, events))


def _leak(rng: np.random.Generator, setting: Setting, x: float) -> Leak:
    side = -1 if x < 0.5 else 1
    ground = float(rng.uniform(max(setting.horizon + 0.1, 0.74), 0.92))
    puddle = setting.place != "room" or rng.random() < 0.25
    wide = float(rng.uniform(0.13, 0.19))
    water = ground if puddle else ground - float(rng.uniform(0.1, 0.15))
    tip = water - float(rng.uniform(0.36, 0.52))
    leak = Leak(x, tip, water, ground, wide, side, setting.gravity, ())
    pace, haste = float(rng.uniform(0.45, 1.4)), float(rng.choice([0.08, 0.5]))  # steady pipes and fitful ones
    feints = float(rng.choice([0.0, 0.25]))
    beads: list[Bead] = []
    time = float(rng.uniform(0.25, 1.0)) * min(1.0, setting.duration / 3)
    while time < setting.duration - END_MARGIN and len(beads) < MOST * max(setting.duration / 8, 0.25):
        swell = float(rng.uniform(0.5, 0.8)) * 0.6 * pace
        feint = bool(rng.random() < feints)
        beads.append(Bead(time, float(rng.uniform(0, 1)), swell, feint))
        time += max(pace * float(np.exp(rng.uniform(-haste, haste))), 0.3) + FEINT * feint
        if rng.random() < 0.08:
            time += float(rng.uniform(0.8, 2.0))
    return replace(leak, beads=tuple(beads))


def _words(leaks: list[Leak], events: tuple[Event, ...]) -> Words:
    pipes = "two pipes" if len(leaks) > 1 else "a pipe"
    places = sorted({"a bowl of water" if leak.water < leak.depth else "a puddle" for leak in leaks})
    into = " and ".join(places)
    times, how = count_of(len(events)), manner(events)
    return Words(
        tags=("water dripping", "dripping water", "dripping pipe", f"dripping into {into}"),
        clauses=(
            f"water drips from {pipes}",
            f"water drips into {into}",
            f"water is dripping from {pipes} into {into}",
            f"it drips into {into}",
        ),
        details=(
            f"water drips {times} from {pipes} into {into}",
            f"water is dripping {how} from {pipes}, splashing {times} into {into}",
            f"water drips into {into} {times}, with a short rising plop each",
        ),
    )
