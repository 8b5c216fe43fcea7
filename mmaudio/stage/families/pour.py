"""A jug pours into a vessel: the water rises, and so does the pitch of the air that is left above it."""

from dataclasses import dataclass

import numpy as np

from ..canvas import Canvas
from ..curves import Curve, moments
from ..look import colour
from ..phrases import count_of
from ..scene import Act, Event, Look, Setting, Words
from ..voices import CREST, add, band_noise, follow, moving_noise

TIP, BACK = 0.45, 0.35  # seconds in which the jug is tipped, and turned back
STREAM = 0.022  # half-width of the fullest stream at the jug's lip
BUBBLES = 170  # a second in the fullest stream
LEVEL = 0.45  # peak in the fullest stream


@dataclass(frozen=True)
class Pouring:
    """A jug, its stream, and the vessel below."""

    flow: Curve  # 0..1, what lands on the water
    tip: Curve  # 0: the jug is upright, 1: it pours
    first: float  # level of the water at first, relative to the height of the vessel
    gain: float  # of the level, per second of full flow
    x: float
    depth: float  # the ground
    wide: float  # half-width of the vessel
    high: float
    lip: float  # y where the stream leaves the jug
    side: int  # +1: the jug is on the right
    gravity: float

    def level(self, time):
        """The level of the water (0..1) at a time or at an array of times."""
        return self.first + self.gain * self.flow.total(time)

    def painter(self, look: Look) -> "PouringPainter":
        return PouringPainter(self, look)


class PouringPainter:
    def __init__(self, pouring: Pouring, look: Look):
        self.pouring, rng = pouring, look.rng
        self.jug = colour(rng, saturation=(0.1, 0.8), value=(0.35, 0.95)) * look.light.tint
        liquid = rng.choice(["water", "juice", "milk"], p=[0.6, 0.25, 0.15])
        ranges = {
            "water": ((0.5, 0.6), (0.3, 0.6), (0.6, 0.9)),
            "juice": ((0.0, 0.12), (0.7, 1.0), (0.7, 1.0)),
            "milk": ((0.1, 0.15), (0.0, 0.12), (0.85, 1.0)),
        }
        self.liquid = colour(rng, *ranges[liquid]) * look.light.tint
        self.rim = np.array([0.9, 0.95, 1.0], np.float32)
        self.froth = rng.uniform((-1, 3, 0), (1, 9, 6.3), (5, 3))

    def shadow(self, canvas: Canvas, time: float) -> None:
        canvas.shadow(self.pouring.x, self.pouring.depth, 1.1 * self.pouring.wide, 0.5)

    def draw(self, canvas: Canvas, time: float) -> None:
        pouring = self.pouring
        x, wide, top = pouring.x, pouring.wide, pouring.depth - pouring.high
        surface = pouring.depth - pouring.high * float(pouring.level(time))
        corners = [(x - wide, top), (x + wide, top), (x + wide, pouring.depth), (x - wide, pouring.depth)]
        canvas.polygon(corners, self.rim, 0.25)
        inner = 0.93 * wide
        filled = [(x - inner, surface), (x + inner, surface), (x + inner, pouring.depth), (x - inner, pouring.depth)]
        canvas.polygon(filled, self.liquid, 0.85)
        self._stream(canvas, time, surface)
        self._froth(canvas, time, surface)
        for one, other in ((corners[0], corners[3]), (corners[3], corners[2]), (corners[2], corners[1])):
            canvas.capsule(*one, *other, 0.007, self.rim, 0.8)
        self._jug(canvas, float(pouring.tip.at(time)))

    def _stream(self, canvas: Canvas, time: float, surface: float) -> None:
        """Every row shows what will land after the time it still has to fall; faster water is thinner."""
        pouring = self.pouring
        found = canvas.patch(pouring.x - 0.08, pouring.lip, pouring.x + 0.08, surface)
        if found is None:
            return
        pixels, xs, ys = found
        fallen = np.sqrt(2 * np.clip(ys - pouring.lip, 0, None) / pouring.gravity)
        total = np.sqrt(2 * (surface - pouring.lip) / pouring.gravity)
        flow = pouring.flow.at(time + total - fallen)
        centre = pouring.x + (0.05 * pouring.side) * (1 - fallen / total)
        half = STREAM * np.sqrt(flow) * (1 - 0.35 * fallen / total)
        there = (ys >= pouring.lip) & (ys <= surface) & (flow > 0.01)
        cover = np.clip(0.5 + (half - np.abs(xs - centre)) * canvas.view.scale, 0, 1) * there
        pixels += cover[..., None].astype(np.float32) * (1.08 * self.liquid - pixels)

    def _froth(self, canvas: Canvas, time: float, surface: float) -> None:
        flow = float(self.pouring.flow.at(time))
        if flow < 0.03:
            return
        for place, hertz, phase in self.froth:
            wobble = np.sin(2 * np.pi * hertz * time + phase)
            x = self.pouring.x + 0.55 * self.pouring.wide * place * (0.5 + 0.5 * flow)
            canvas.disc(x, surface + 0.012 * wobble, 0.012 + 0.02 * flow, self.rim, 0.6, softness=0.5)

    def _jug(self, canvas: Canvas, tip: float) -> None:
        """A jug that turns about its lip, held by an arm; upright it is a little higher and aside."""
        pouring, side = self.pouring, self.pouring.side
        x = pouring.x + side * (0.05 + 0.1 * (1 - tip))
        y = pouring.lip - 0.08 * (1 - tip)
        c, s = np.cos(0.1 + 1.35 * tip), np.sin(0.1 + 1.35 * tip)

        def turned(across: float, down: float) -> tuple[float, float]:
            return x + side * (across * c + down * s), y + down * c - across * s

        grip = turned(0.24, 0.1)
        canvas.capsule(*grip, grip[0] + side * 0.9, grip[1] + 0.1, 0.035, 0.5 * self.jug[::-1])
        canvas.polygon([turned(*at) for at in ((0, 0), (0.19, 0.0), (0.2, 0.2), (0.04, 0.2))], self.jug)
        canvas.capsule(*turned(0.19, 0.04), *turned(0.24, 0.1), 0.012, 0.8 * self.jug)
        canvas.capsule(*turned(0.24, 0.1), *turned(0.2, 0.17), 0.012, 0.8 * self.jug)


@dataclass(frozen=True)
class Gurgle:
    """The sound of pouring: bubbles, some splashing, and the resonance of the vessel's air column."""

    pouring: Pouring
    duration: float
    empty: float  # Hz: resonance of the empty vessel
    name: str = "pour"

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        flow = self.pouring.flow
        times = moments(rng, flow, self.duration, BUBBLES)
        bubbles = rng.uniform((np.log(900), 0.004, 0.08), (np.log(3200), 0.012, 0.35), (len(times), 3))
        loud = follow(lambda time: np.sqrt(flow.at(time)), sample_rate, length)
        hertz = follow(lambda time: self.empty / (1 - 0.78 * self.pouring.level(time)), sample_rate, length)
        air = moving_noise(hertz, 30.0, sample_rate, rng) + 0.3 * moving_noise(2.6 * hertz, 60.0, sample_rate, rng)
        dry = loud * (0.7 * air + 0.12 * band_noise(length, 600, 4000, sample_rate, rng)) / CREST
        seconds = np.arange(int(0.05 * sample_rate)) / sample_rate
        for time, (tune, decay, gain) in zip(times, bubbles, strict=True):
            chirp = np.sin(2 * np.pi * np.exp(tune) * seconds * (1 + 4 * seconds)) * np.exp(-seconds / decay)
            add(dry, time, gain * chirp, sample_rate)
        return LEVEL * dry


def make(rng: np.random.Generator, setting: Setting) -> Act:
    bowl = bool(rng.random() < 0.35)
    wide, high = rng.uniform((0.12, 0.14), (0.15, 0.18)) if bowl else rng.uniform((0.07, 0.22), (0.095, 0.3))
    ground = float(rng.uniform(max(setting.horizon + 0.1, 0.78), 0.94))
    lip = ground - high - float(rng.uniform(0.06, 0.14))
    alone = setting.left == 0 and setting.right == 1
    side = int(rng.choice([-1, 1])) if alone else -1 if setting.left == 0 else 1
    middle = setting.across(0.5 - side * float(rng.uniform(0.08, 0.18)))  # aside, so that the jug has its place
    fall = float(np.sqrt(2 * (ground - lip) / setting.gravity))
    pours, flow, tip = _pours(rng, setting.duration, fall)
    first, last = rng.uniform((0.02, 0.6), (0.15, 0.92))
    gain = float((last - first) / flow.total(flow.times[-1]))
    pouring = Pouring(
        flow, tip, float(first), gain, middle, ground, float(wide), float(high), lip, side, setting.gravity
    )
    empty = 380.0 * float(np.clip(0.25 / high, 0.8, 1.3))
    source = Gurgle(pouring, setting.duration, empty)
    events = tuple(
        Event(start, "pour", None, LEVEL * peak, middle, ground - high / 2, seconds) for start, seconds, peak in pours
    )
    words = _words(events, "bowl" if bowl else "tumbler")
    return Act("pour", (pouring,), (source,), events, words)


def _pours(rng: np.random.Generator, duration: float, fall: float) -> tuple[list, Curve, Curve]:
    """(start, seconds, peak) of what lands, the flow, and how far the jug is tipped: now and then in vain."""
    hurry = min(1.0, duration / 4)
    start = float(rng.uniform(0.1, 1.2)) * hurry
    pours, flow, tip = [], [(start - 1, 0.0)], [(start - 2, 0.0)]
    while start < duration - 0.5 * hurry and len(pours) < 1 + duration / 2.5:
        seconds = max(min(float(rng.uniform(1.0, 3.5)), duration - start), 0.5)
        inner = np.linspace(start, start + seconds, 2 + max(int(seconds / 0.6), 1))[1:-1]
        values = rng.uniform(0.35, 1.0, len(inner))
        flow += [(start, 0.0), *zip(inner.tolist(), values.tolist(), strict=True), (start + seconds, 0.0)]
        begin, end = start - fall, start + seconds - fall
        tip += [(begin - TIP, 0.0), (begin, 1.0), (end, 1.0), (end + BACK, 0.0)]
        pours.append((start, min(seconds, duration - start), float(values.max())))
        free = end + BACK
        if rng.random() < 0.3:
            tip += [(free + 0.1, 0.0), (free + 0.4, 0.6), (free + 0.6, 0.6), (free + 0.9, 0.0)]
            free += 0.9
        start = free + fall + TIP + float(rng.uniform(0.05, 1.0))
    return pours, Curve(*zip(*flow, strict=True)), Curve(*zip(*tip, strict=True))


def _words(events: tuple[Event, ...], vessel: str) -> Words:
    times = count_of(len(events))
    return Words(
        tags=("pouring", f"pouring into a {vessel}", "liquid poured from a jug", "jug pouring"),
        clauses=(
            f"a jug pours into a {vessel}",
            f"someone pours a drink into a {vessel}",
            f"a {vessel} is filled by pouring from a jug",
            f"a drink is poured into a {vessel}",
        ),
        details=(
            f"a jug pours {times} into a {vessel}, gurgling higher and higher",
            f"a drink is poured {times} from a jug, and the {vessel} fills with a rising gurgle",
            f"someone pours {times} into a {vessel}, which sounds higher as it fills",
        ),
    )
