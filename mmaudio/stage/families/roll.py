"""A ball or wheel rolls over the floor, or something heavy is pushed and scrapes: sounds that follow the speed."""

from dataclasses import dataclass, replace

import numpy as np

from ..canvas import Canvas
from ..hand import REACH, Hand, Touch
from ..materials import TABLE
from ..motion import Piece, Push, Segment, Slide, still
from ..objects import Body, BodyPainter, random_body
from ..phrases import article, count_of, name_of, sized
from ..scene import END_MARGIN, Act, Event, Look, Setting, Words
from ..voices import HIGHEST, band_noise, contour

FULL_SPEED = 0.9  # stage units per second: as loud as it gets
SHORTEST = 0.3  # seconds of movement that can be heard
STEP = 0.005  # seconds between two looks at the speed
LUMPS = {"ball": 2, "wheel": 4}  # thumps per turn
PITCH = 0.006  # stage units between two slips of something that scrapes


@dataclass(frozen=True)
class Roller:
    """A body that is round, with marks that show how it turns."""

    body: Body
    wheel: bool

    @property
    def depth(self) -> float:
        return self.body.depth

    def painter(self, look: Look) -> "RollerPainter":
        return RollerPainter(self, look)


class RollerPainter:
    """A ball with two spots, or a wheel with holes around a hub."""

    def __init__(self, roller: Roller, look: Look):
        self.wheel, self.inner = roller.wheel, BodyPainter(roller.body, look)
        dark = float(self.inner.texture.mean()) > 0.4
        self.mark = np.full(3, 0.08 if dark or roller.wheel else 0.85, np.float32)

    def shadow(self, canvas: Canvas, time: float) -> None:
        self.inner.shadow(canvas, time)

    def draw(self, canvas: Canvas, time: float) -> None:
        self.inner.draw(canvas, time)
        body = self.inner.body
        pose, count = body.pose(time), LUMPS["wheel" if self.wheel else "ball"]
        for k in range(count):
            angle = pose.angle + 2 * np.pi * k / count
            away, radius = 0.58 * body.size, (0.24 if self.wheel or k == 0 else 0.14) * body.size
            canvas.disc(pose.x + away * np.sin(angle), pose.y - away * np.cos(angle), radius, self.mark, 0.85)
        if self.wheel:
            canvas.disc(pose.x, pose.y, 0.16 * body.size, self.mark, 0.85)


@dataclass(frozen=True)
class Rubbing:
    """The sound of one body on the floor: noise through its partials, as loud and as bright as it is fast."""

    name: str
    body: Body
    lumps: int  # thumps per turn; 0: it scrapes

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        phase = rng.uniform(0, 2 * np.pi)
        tuning = 1 + 0.03 * rng.standard_normal(16)
        way, speed = self._movement(length / sample_rate)
        times = np.arange(len(way)) * STEP
        way, speed = (contour(times, values, sample_rate, length) for values in (way, speed))
        share = np.minimum(speed / FULL_SPEED, 1.2)
        if self.lumps:
            rumble = band_noise(length, 50.0, 220.0, sample_rate, rng)
            dull, bright = (self._noise(length, sample_rate, tuning, 80.0, top, rng) for top in (700.0, 2200.0))
            thump = (0.5 + 0.5 * np.cos(self.lumps * way / self.body.size + phase)) ** 3
            beat = 0.25 + 0.75 * thump
            sound = (0.7 * rumble + (1 - 0.6 * share) * dull + share * bright) * beat
        else:
            top = max(2.5 * TABLE[self.body.material].contact_hz, 3000.0)
            dull, bright = (self._noise(length, sample_rate, tuning, 500.0, high, rng) for high in (0.4 * top, top))
            hiss = band_noise(length, 2200.0, 6500.0, sample_rate, rng)
            slip = 0.45 + 0.55 * np.exp(-4 * ((way / PITCH + phase) % 1.0))
            sound = ((1 - 0.6 * share) * dull + share * bright + (0.3 + 0.7 * share) * hiss) * slip
        return (0.24 if self.lumps else 0.17) * share**0.8 * sound

    def _movement(self, duration: float) -> tuple[np.ndarray, np.ndarray]:
        """Way made so far and speed at every STEP."""
        x = np.array([self.body.pose(k * STEP).x for k in range(int(duration / STEP) + 2)])
        return np.append(0.0, np.cumsum(np.abs(np.diff(x)))), np.abs(np.gradient(x, STEP))

    def _noise(self, length: int, sample_rate: int, tuning, low: float, high: float, rng) -> np.ndarray:
        """Steady noise (length,) with the body's partials in it, between two frequencies; RMS 1."""
        body, material = self.body, TABLE[self.body.material]
        hz = np.fft.rfftfreq(length, 1 / sample_rate)
        shape = np.full(len(hz), 0.04)
        base = material.base_hz * (0.1 / (body.size * np.sqrt(body.aspect))) ** 0.7
        for ratio, off in zip(material.ratios, tuning, strict=False):
            width = max(2.0 / material.t60 * ratio**material.damping_tilt, 12.0)  # Hz: sharper if it rings longer
            shape += ratio**-material.rolloff / np.hypot(1, (hz - base * ratio * off) / width)
        shape *= (hz < HIGHEST * sample_rate) / (1 + (low / np.maximum(hz, 1.0)) ** 4) / (1 + (hz / high) ** 2)
        noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * shape, length)
        return noise / (np.sqrt((noise**2).mean()) + 1e-9)


def make(rng: np.random.Generator, setting: Setting) -> Act:
    kind = str(rng.choice(["roll", "scrape"]))
    ground = float(rng.uniform(max(setting.horizon + 0.12, 0.72), 0.93))
    shapes = ("ball",) if kind == "roll" else ("block", "block", "pot")
    body = random_body(rng, setting, "roll", ground, shapes, 0.9)
    wheel = kind == "roll" and rng.random() < 0.4
    half = body.size * body.aspect
    room = (setting.across(0.08) + half, setting.across(0.92) - half)
    x = float(rng.uniform(*room))
    path: list[Piece] = [*still(x)]
    touches: list[Touch] = []
    spans: list[tuple[float, float]] = []  # (start, seconds) of the movements
    braking = float(rng.uniform(0.15, 0.6))  # by friction, stage units per second squared
    patience = float(rng.choice([0.4, 1.6]))  # seconds
    feints = float(rng.choice([0.0, 0.3]))
    time = float(rng.uniform(0.1, 0.9))
    while time < setting.duration - SHORTEST - END_MARGIN:
        to, feint = _target(rng, x, room), rng.random() < feints
        side = -1 if to > x else 1
        if feint:  # the hand only rests there
            held, end = float(rng.uniform(0.25, 0.5)), time
        elif kind == "roll":
            held, end = _roll(rng, path, time, x, to, braking, 1 / body.size)
        else:
            held = abs(to - x) / float(rng.uniform(0.22, 0.6))  # its mean speed
            end = time + held
            path.append(Segment(time, held, x, to, 0.0, 0.0))
        touches.append(Touch(time, time + held, body, half, side))
        if not feint:
            spans.append((time, min(end, setting.duration) - time))
            x = to
        time = max(end, time + held + 2 * REACH) + float(rng.uniform(0.05, patience))
    body = replace(body, path=tuple(path))
    hand = Hand(tuple(replace(touch, body=body) for touch in touches))
    lumps = 0 if kind == "scrape" else LUMPS["wheel" if wheel else "ball"]
    source = Rubbing(f"{body.material} {'wheel' if wheel else body.shape}", body, lumps)
    events = tuple(_event(kind, body, start, seconds) for start, seconds in spans)
    seen = body if kind == "scrape" else Roller(body, wheel)
    return Act("roll", (seen, hand), (source,), events, _words(rng, body, wheel, kind, events))


def _target(rng: np.random.Generator, x: float, room: tuple[float, float]) -> float:
    """Somewhere else, at least a third of the room away."""
    least = (room[1] - room[0]) / 3
    ways = [side * (end - x) for side, end in ((-1, room[0]), (1, room[1]))]
    side = int(rng.choice([-1, 1]))
    if ways[0 if side < 0 else 1] < least:
        side = -side
    return x + side * float(rng.uniform(least, ways[0 if side < 0 else 1]))


def _roll(rng, path: list[Piece], time: float, x: float, to: float, braking: float, turn: float):
    """Push it so that friction brings it to rest at `to`; returns (seconds of the push, when it rests)."""
    held = float(rng.uniform(0.3, 0.45))
    speed = braking * (np.sqrt(held**2 / 4 + 2 * abs(to - x) / braking) - held / 2)
    way = 1 if to > x else -1
    angle = path[-1].at(time)[2]
    push = Push(time, x, float(way * speed / held), turn, angle)
    after, _, angle = push.at(time + held)
    path += [push, Slide(time + held, float(after), float(way * speed), braking, turn, float(angle))]
    return held, float(time + held + speed / braking)


def _event(kind: str, body: Body, start: float, seconds: float) -> Event:
    """One movement; its loudness is that of its highest speed."""
    x = np.array([body.pose(start + k * STEP).x for k in range(int(seconds / STEP) + 1)])
    fastest = float(np.abs(np.diff(x)).max()) / STEP
    loudness = min((fastest / FULL_SPEED) ** 0.8, 1.0)
    return Event(start, kind, body.material, loudness, float(x[0]), body.ground, seconds)


def _words(rng: np.random.Generator, body: Body, wheel: bool, kind: str, events: tuple[Event, ...]) -> Words:
    noun = f"{TABLE[body.material].adjective} wheel" if wheel else name_of(rng, body.material, body.shape)
    thing, large, times = article(noun), article(f"{sized(body)} {noun}"), count_of(len(events))
    fastest = max((event.loudness for event in events), default=0.0)
    how = "fast" if fastest > 0.75 else "slowly" if fastest < 0.5 else "steadily"
    if kind == "roll":
        return Words(
            tags=(
                f"{noun} rolling",
                f"rolling {noun}",
                f"{noun} rolling on the floor",
                f"{noun} rolling along",
            ),
            clauses=(
                f"{thing} rolls over the floor",
                f"{thing} is rolling along the ground",
                f"someone rolls {thing} over the floor",
            ),
            details=(
                f"{large} is pushed and rolls {how} over the floor {times}",
                f"a hand starts {large} {times} and it rolls {how} until it stops",
            ),
        )
    return Words(
        tags=(f"{noun} scraping", f"scraping of {thing}", f"{noun} scraping over the floor", f"{noun} scraped along"),
        clauses=(
            f"{thing} scrapes over the floor",
            f"{thing} is scraped over the ground",
            f"someone scrapes {thing} along the floor",
        ),
        details=(
            f"a hand pushes {large}, which scrapes {how} over the floor {times}",
            f"{large} is scraped {how} over the ground {times}",
        ),
    )
