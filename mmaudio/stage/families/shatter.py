"""Glass or ceramic vessels are let go high above the floor and break into shards that fly, tinkle and settle."""

from dataclasses import dataclass, replace

import numpy as np

from ..canvas import Canvas
from ..look import colour, material_texture
from ..materials import FLOORS, TABLE
from ..motion import Segment, piece_at
from ..objects import ASPECTS, Body, BodyPainter
from ..phrases import article, count_of, manner, name_of, sized
from ..scene import Act, Event, Look, Setting, Words
from ..voices import HIGHEST, add, band_noise

BRITTLE = ("glass", "ceramic")
FULL_DROP = 0.62  # stage units: breaking after such a fall has loudness 1
MOST = 3  # breaks in a clip
SETTLING = 0.25  # seconds before the end of the clip without a new break
ARRIVAL = 0.45  # seconds to bring a vessel into the picture
BOUNCE = 0.3  # share of its speed that a shard keeps
SLOWEST = 0.25  # stage units per second: a shard that lands more slowly stays


@dataclass(frozen=True)
class Shard:
    """A piece that flies off. Its corners turn about its path."""

    corners: np.ndarray  # (P, 2), stage units
    path: tuple[Segment, ...]
    landings: tuple[tuple[float, float], ...]  # (time, speed)

    def at(self, time: float) -> tuple[float, float, float]:
        """(x, height, angle) at a time."""
        return piece_at(self.path, time).at(time)


@dataclass(frozen=True)
class Vessel:
    """A body held from above until `release`; it is whole until `broken`, then there are shards."""

    body: Body
    release: float
    broken: float  # infinity if it stays whole
    shards: tuple[Shard, ...] = ()

    @property
    def depth(self) -> float:
        return self.body.ground

    def painter(self, look: Look) -> "VesselPainter":
        return VesselPainter(self, look)


class VesselPainter:
    """The arm that brings it, the vessel, and what is left of it."""

    def __init__(self, vessel: Vessel, look: Look):
        self.vessel, self.whole = vessel, BodyPainter(vessel.body, look)
        self.sleeve = colour(look.rng, value=(0.1, 0.9))
        self.glove = colour(look.rng, (0, 1), (0.1, 0.7), (0.3, 0.95))
        texels = material_texture(vessel.body.material, look.rng).reshape(-1, 3)
        chosen = texels[look.rng.integers(len(texels), size=len(vessel.shards))]
        shades = look.rng.uniform(0.6, 1.15, (len(vessel.shards), 1))
        self.paints = (chosen * shades * look.light.tint).astype(np.float32)

    def shadow(self, canvas: Canvas, time: float) -> None:
        if time < self.vessel.broken:
            self.whole.shadow(canvas, time)

    def draw(self, canvas: Canvas, time: float) -> None:
        vessel, ground = self.vessel, self.vessel.body.ground
        if time < vessel.broken:
            self.whole.draw(canvas, time)
            self._arm(canvas, time)
            return
        self._arm(canvas, time)
        for shard, paint in zip(vessel.shards, self.paints, strict=True):
            x, height, angle = shard.at(time)
            c, s = np.cos(angle), np.sin(angle)
            canvas.polygon(shard.corners @ [[c, s], [-s, c]] + (x, ground - height - 0.012), paint, 0.9)

    def _arm(self, canvas: Canvas, time: float) -> None:
        body, release = self.vessel.body, self.vessel.release
        pose = body.pose(min(time, release))
        x, top = pose.x, pose.bottom - 2 * body.size
        opened = float(np.clip((time - release) / 0.5, 0, 1))
        y = top - 1.2 * opened * opened
        grip = 0.02 + 0.03 * min(6 * opened, 1.0)
        canvas.capsule(x, y - 0.09, x + 0.05, y - 1.2, 0.036, self.sleeve)
        for side in (-1, 1):
            canvas.capsule(x, y - 0.09, x + side * grip, y + 0.01, 0.017, self.glove)


@dataclass(frozen=True)
class Break:
    """What is heard of one vessel: the burst, then every shard that lands."""

    time: float
    loudness: float
    landings: tuple[tuple[float, float], ...]  # (time, speed)


@dataclass(frozen=True)
class Shattering:
    """The sound of all breaks: many small bodies ring at once, then one by one."""

    name: str
    material: str
    breaks: tuple[Break, ...]

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        material = TABLE[self.material]
        low, high, ring = 1.25 * material.base_hz, 4.2 * material.base_hz, 0.22 * material.t60
        dry = np.zeros(length)
        for piece, stream in zip(self.breaks, rng.spawn(len(self.breaks)), strict=True):
            burst = np.zeros(int(0.8 * sample_rate))
            delays = np.append(np.zeros(12), stream.exponential(0.022, 60))
            for delay, level in zip(delays, stream.uniform(0.3, 1.0, len(delays)), strict=True):
                tinkle = _tinkle(low, high, stream.uniform(0.2, 1.0) * ring, sample_rate, stream)
                add(burst, delay, level * np.exp(-delay / 0.04) * tinkle, sample_rate)
            for time, speed in piece.landings:
                tinkle = _tinkle(low, high, ring, sample_rate, stream, 0.008)
                add(dry, time, 0.05 * min(speed, 1.5) * piece.loudness * tinkle, sample_rate)
            seconds = np.arange(int(1.5 * sample_rate)) / sample_rate
            crash = band_noise(len(seconds), 0.8 * low, 7000.0, sample_rate, stream)
            splinters = np.exp(-seconds / 0.035) + 0.1 * np.exp(-seconds / 0.22)  # the smallest rustle for a while
            crash *= splinters * (1 - np.exp(-seconds / 0.0004))
            sound = 0.35 * crash
            sound[: len(burst)] += burst / (np.abs(burst).max() + 1e-9)
            add(dry, piece.time, piece.loudness * sound / np.abs(sound).max(), sample_rate)
        return dry


def _tinkle(low: float, high: float, ring: float, sample_rate: int, rng: np.random.Generator, attack=0.0003):
    """One shard rings (N,): two partials, peak about 1; `ring` is the time in seconds in which it falls by 60 dB."""
    hertz = np.exp(rng.uniform(np.log(low), np.log(high))) * np.array([1.0, rng.uniform(1.3, 1.6)])
    seconds = np.arange(int((ring + 0.005) * sample_rate)) / sample_rate
    tones = np.sin(2 * np.pi * hertz[:, None] * seconds) * (hertz < HIGHEST * sample_rate)[:, None]
    return (0.65 * tones[0] + 0.35 * tones[1]) * np.exp(-6.9 * seconds / ring) * (1 - np.exp(-seconds / attack))


def make(rng: np.random.Generator, setting: Setting) -> Act:
    material = setting.pick(rng, "shatter", BRITTLE)
    near = max(setting.horizon + 0.1, 0.78)
    columns = setting.across(0.5) + setting.width * (rng.permutation(MOST) - 1) * 0.26
    time, vessels = 0.0, []
    held = rng.random() < 0.5  # the first one is in the picture from the start
    wanted = int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))
    for x in columns:
        shape = str(rng.choice(["bottle", "bowl", "pot"]))
        size = float(rng.uniform(0.08, 0.12)) * {"bowl": 0.75, "bottle": 1.2}.get(shape, 1.0)
        body = Body(material, shape, size, float(rng.uniform(*ASPECTS[shape])), float(rng.uniform(near, 0.94)), ())
        start = time if held else time + float(rng.uniform(0.1, 1.2))
        vessel = _carry(rng, setting, body, float(x) + float(rng.uniform(-0.05, 0.05)) * setting.width, start, held)
        held = False
        if vessels and rng.random() < 0.2:
            vessel = _spared(vessel)
        elif vessel.broken > setting.duration - SETTLING:
            break
        vessels.append(vessel)
        time = vessel.broken if vessel.shards else vessel.body.path[-1].start
        if sum(bool(v.shards) for v in vessels) == wanted:
            break
    broken = [vessel for vessel in vessels if vessel.shards]
    events = tuple(_event(setting, vessel) for vessel in broken)
    breaks = tuple(
        Break(event.time, event.loudness, tuple(hit for shard in vessel.shards for hit in shard.landings))
        for event, vessel in zip(events, broken, strict=True)
    )
    sources = (Shattering(f"{material} breaking", material, breaks),) if breaks else ()
    bodies = [vessel.body for vessel in broken]
    return Act("shatter", tuple(vessels), sources, events, _words(rng, setting, bodies, events))


def _carry(rng: np.random.Generator, setting: Setting, body: Body, x: float, start: float, held: bool) -> Vessel:
    """Bring a body in from above, hold it for a while, and let it go."""
    height = float(rng.uniform(0.32, min(FULL_DROP, body.ground - 2 * body.size - 0.06)))
    above = body.ground + 0.3
    path = [Segment(start, 0.0, x, x, height, height)]
    if not held:
        path = [Segment(0.0, 0.0, x, x, above, above), Segment(start, ARRIVAL, x, x, above, height)]
        start += ARRIVAL
    if rng.random() < 0.4:  # a feint
        lower = height - 0.1
        path += [Segment(start + 0.1, 0.3, x, x, height, lower), Segment(start + 0.45, 0.3, x, x, lower, height)]
        start += 0.8
    release = start + float(rng.uniform(0.1, min(1.2, 0.3 * setting.duration)))
    falling = float(np.sqrt(2 * height / setting.gravity))
    turn = float(rng.uniform(-0.7, 0.7))
    path.append(Segment(release, falling, x, x, height, 0.0, 0.0, setting.gravity, 0.0, turn))
    speed, time = setting.gravity * falling, release + falling
    shards = tuple(_shard(rng, setting, body, x, time, speed) for _ in range(int(rng.integers(8, 11))))
    return Vessel(replace(body, path=tuple(path)), release, time, shards)


def _spared(vessel: Vessel) -> Vessel:
    """The same, but it is taken away again instead of being let go."""
    *held, fall = vessel.body.path
    above = vessel.body.ground + 0.3
    leave = Segment(vessel.release, 0.6, fall.x0, fall.x0, fall.height0, above)
    return Vessel(replace(vessel.body, path=(*held, leave)), np.inf, np.inf)


def _shard(rng: np.random.Generator, setting: Setting, body: Body, x: float, time: float, impact: float) -> Shard:
    """A piece with a share of the speed at which the vessel met the floor."""
    corners = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 6)))) + rng.uniform(0, 0.3)
    size = float(rng.uniform(0.024, 0.046))
    corners = size * np.stack([np.cos(corners), np.sin(corners)], axis=1)
    share = float(rng.uniform(-0.8, 0.8))
    x, height = x + share * body.size * body.aspect, float(rng.uniform(0.1, 1.0)) * body.size
    sideways = impact * (0.3 * share + float(rng.uniform(-0.15, 0.15)))
    speed = impact * float(rng.uniform(0.1, 0.6))
    angle, spin = 0.0, float(rng.uniform(-12, 12))  # radians per second
    path, landings = [], []
    while True:
        fall = float(speed + np.sqrt(speed * speed + 2 * setting.gravity * height)) / setting.gravity
        to = float(np.clip(x + sideways * fall, setting.left + 0.03, setting.right - 0.03))
        path.append(Segment(time, fall, x, to, height, 0.0, speed, setting.gravity, angle, angle + spin * fall))
        landing = setting.gravity * fall - speed
        time, x, angle, height = time + fall, to, angle + spin * fall, 0.0
        landings.append((time, landing))
        speed, sideways, spin = BOUNCE * landing, 0.5 * sideways, 0.5 * spin
        if speed < SLOWEST:
            break
    to = float(np.clip(x + 0.1 * sideways, setting.left + 0.03, setting.right - 0.03))
    path.append(Segment(time, 0.2, x, to, 0.0, 0.0, angle0=angle, angle1=angle))
    return Shard(corners, tuple(path), tuple(landings))


def _event(setting: Setting, vessel: Vessel) -> Event:
    body = vessel.body
    fall = body.path[-1].height0
    loudness = float(min((fall / FULL_DROP) ** 0.8, 1.0))
    return Event(vessel.broken, "shatter", body.material, loudness, body.path[-1].x1, body.ground)


def _words(rng: np.random.Generator, setting: Setting, bodies: list[Body], events: tuple[Event, ...]) -> Words:
    every = [name_of(rng, body.material, body.shape) for body in bodies]
    nouns = list(dict.fromkeys(every))
    number = {1: "", 2: "two ", 3: "three "}
    alike = [f"{number[every.count(noun)]}{noun}s" if every.count(noun) > 1 else article(noun) for noun in nouns]
    plain = " and ".join(f"{noun}s" if every.count(noun) > 1 else noun for noun in nouns)
    things = " and ".join(alike)
    many, floor = len(every) > 1, FLOORS[setting.floor].phrase
    s, verb = ("", "are") if many else ("es", "is")
    large = f"{sized(bodies[0])} {nouns[0]}" if bodies else ""
    times, how = count_of(len(events)), manner(events)
    first = f"{article(large)} breaks on {floor}" if len(bodies) == 1 else f"{things} break{'' if many else 's'}"
    return Words(
        tags=(f"{plain} breaking", f"{plain} shattering", f"breaking {plain}", f"{plain} smashing to pieces"),
        clauses=(
            f"{things} break{'' if many else 's'} on {floor}",
            f"{things} shatter{'' if many else 's'} on {floor}",
            f"{things} smash{s} to pieces on {floor}",
            f"{things} {verb} breaking into shards",
        ),
        details=(
            f"{first} and the shards tinkle",
            f"{things} shatter{'' if many else 's'} {how} into tinkling shards on {floor}",
            f"{things} {verb} heard breaking {times} on {floor}, with tinkling shards",
        ),
    )
