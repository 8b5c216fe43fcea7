"""A scene: which objects there are, how they move, and when they touch. Everything else is drawn from it.

Stage units: a unit square with x to the right and y down; a picture shows that square in its middle (the camera may
drift a little). Times are seconds. Motion is a closed form of time, so a contact is exact at any frame or sample rate.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np

from .materials import FLOORS, MATERIALS, SHAPES, STICK_HEAD_RADIUS, TABLE
from .shapes import support

STAGE_VERSION = 1
FAMILIES = ("drop", "strike")

MIN_GAP = 0.08  # seconds: an object whose next bounce would come sooner stays down
MIN_LOUDNESS = 0.1
FEINT_HEIGHT = 0.13  # stage units above the object
END_MARGIN = 0.03  # seconds: a contact nearer to the end of the clip could not be heard
ASPECTS = {"ball": (1, 1), "block": (0.8, 1.5), "bowl": (1.3, 2.0), "pot": (0.8, 1.2), "bottle": (0.4, 0.55)}
FULL_DROP = 0.62  # stage units: falling this far is an impact of loudness 1

_PURPOSES = {"scene": 0, "look": 1, "sound": 2, "caption": 3, "noise": 4}


def generator(seed: int, purpose: str) -> np.random.Generator:
    """The random stream of one purpose: drawing more in one never shifts another."""
    return np.random.default_rng([STAGE_VERSION, int(seed), _PURPOSES[purpose]])


@dataclass(frozen=True)
class Event:
    """An audible contact. Position is relative to the stage square (0..1, y down), before any camera motion."""

    time: float
    kind: str  # "bounce" or "strike"
    material: str
    loudness: float  # 0..1, proportional to the amplitude of the sound
    x: float
    y: float


@dataclass(frozen=True)
class Segment:
    """One piece of an object's path: `height` of its lowest point above its floor line, from `start` on."""

    start: float
    seconds: float
    x0: float
    x1: float
    height0: float
    height1: float
    speed: float = 0.0  # upward, stage units per second; used when gravity acts
    gravity: float = 0.0  # 0: move smoothly from (x0, height0) to (x1, height1), then stay
    angle0: float = 0.0
    angle1: float = 0.0

    def at(self, time: float) -> tuple[float, float, float]:
        """(x, height, angle) at a time."""
        tau = max(time - self.start, 0.0)
        u = min(tau / self.seconds, 1.0) if self.seconds > 0 else 1.0
        if self.gravity:
            height = max(self.height0 + self.speed * tau - 0.5 * self.gravity * tau * tau, 0.0)
        else:
            u = u * u * (3 - 2 * u)
            height = self.height0 + (self.height1 - self.height0) * u
        return self.x0 + (self.x1 - self.x0) * u, height, self.angle0 + (self.angle1 - self.angle0) * u


@dataclass(frozen=True)
class Body:
    """An object. `size` is its half-height and `ground` the y of the floor line it stands on, in stage units."""

    material: str
    shape: str
    size: float
    aspect: float  # half-width / half-height
    ground: float
    path: tuple[Segment, ...]
    impacts: tuple[tuple[float, float], ...] = ()  # (time, loudness) of everything that hits it or that it hits
    struck: bool = False


@dataclass(frozen=True)
class Strike:
    """One blow of the stick. The centre of its head is at (x, y) at `time`: touching, or well above in a feint."""

    time: float
    loudness: float
    target: int  # index into Scene.bodies
    x: float
    y: float
    feint: bool = False  # stops short of the object and makes no sound


@dataclass(frozen=True)
class Stick:
    """A stick turning about a hand. `side` is +1 when the hand is on the right, `tilt` the angle at contact."""

    length: float
    tilt: float
    side: int
    strikes: tuple[Strike, ...]


@dataclass(frozen=True)
class Pose:
    """Where an object is: centre and lowest point in stage units, angle in radians, vertical squash factor."""

    x: float
    y: float
    bottom: float
    angle: float
    squash: float


@dataclass(frozen=True)
class Scene:
    """All that happens in one clip of `duration` seconds."""

    seed: int
    duration: float
    family: str
    floor: str
    horizon: float  # y where the floor begins
    bodies: tuple[Body, ...]
    bystanders: tuple[Body, ...]  # stand still and make no sound
    stick: Stick | None
    events: tuple[Event, ...]

    @property
    def materials(self) -> tuple[str, ...]:
        """Materials that sound, in order of first sound."""
        return tuple(dict.fromkeys(event.material for event in self.events))


def body_pose(body: Body, time: float) -> Pose:
    """The object's pose at a time in seconds. At a bounce `bottom` equals `body.ground`."""
    index = max(bisect_right(body.path, time, key=lambda segment: segment.start) - 1, 0)
    x, height, angle = body.path[index].at(time)
    squash = 1.0
    for when, loudness in body.impacts:
        since = time - when
        if 0 <= since < 0.4:
            give = loudness * np.exp(-since / 0.035)
            squash -= TABLE[body.material].squash * give
            if body.struck:  # a small recoil: it rocks away and back
                kick = loudness * np.exp(-since / 0.09) * np.sin(2 * np.pi * since / 0.16)
                x += 0.012 * kick
                squash -= 0.05 * give
    bottom = body.ground - height
    return Pose(x, bottom - body.size * squash * support(body.shape, body.aspect, angle), bottom, angle, squash)


def stick_pose(stick: Stick, time: float) -> tuple[float, float, float, float]:
    """Head and hand of the stick at a time: (head_x, head_y, hand_x, hand_y)."""
    strikes = stick.strikes
    index = bisect_right(strikes, time, key=lambda strike: strike.time)
    before = strikes[index - 1] if index > 0 else None
    after = strikes[index] if index < len(strikes) else None
    hover = 0.28
    gap = after.time - before.time if before and after else 2.0
    raised, x, y = hover, 0.0, 0.0
    if before:  # rebound to the hover angle, slowly at first so that a frame right after the contact still shows it
        x, y = before.x, before.y
        u = min((time - before.time) / min(0.2, 0.35 * gap), 1.0)
        raised = hover * u * u * (3 - 2 * u)
    if after:
        down = min(0.10, 0.3 * gap)
        up = min(0.22, 0.3 * gap)
        back = hover + 0.25 + 0.55 * after.loudness
        until = after.time - time
        if until <= down:  # accelerate into the object
            raised = back * (1 - (1 - until / down) ** 2)
        elif until <= down + up:
            u = 1 - (until - down) / up
            raised = raised + (back - raised) * u * u * (3 - 2 * u)
        if before:  # the hand travels to the next target while the stick is up
            u = float(np.clip((time - before.time - 0.3 * gap) / (0.4 * gap), 0, 1))
            u = u * u * (3 - 2 * u)
            x, y = before.x + (after.x - before.x) * u, before.y + (after.y - before.y) * u
        else:
            x, y = after.x, after.y
    side, length = stick.side, stick.length
    hand_x, hand_y = x + side * length * np.cos(stick.tilt), y - length * np.sin(stick.tilt)
    angle = stick.tilt - raised
    return hand_x - side * length * np.cos(angle), hand_y + length * np.sin(angle), hand_x, hand_y


def make_scene(seed: int, duration: float = 8.0) -> Scene:
    """The scene of a seed: 3 to 18 contacts per 8 seconds, at least MIN_GAP apart."""
    rng = generator(seed, "scene")
    least, most = max(1, round(3 * duration / 8)), max(4, round(18 * duration / 8))
    family = FAMILIES[int(rng.integers(len(FAMILIES)))]
    make = {"drop": _drop_scene, "strike": _strike_scene}[family]
    for _ in range(200):
        scene = make(rng, seed, duration, most)
        if least <= len(scene.events) <= most:
            return scene
    raise ValueError(f"no scene fits duration={duration}: it must be at least about a second")


def recast(scene: Scene, material: str) -> Scene:
    """The same movements with all sounding objects of one material. Raises ValueError if there is no such material."""
    if material not in TABLE:
        raise ValueError(f"unknown material {material!r}: expected one of {', '.join(TABLE)}")
    bodies = tuple(replace(body, material=material) for body in scene.bodies)
    return replace(scene, bodies=bodies, events=tuple(replace(event, material=material) for event in scene.events))


def _setting(rng: np.random.Generator) -> tuple[str, float]:
    return str(rng.choice(list(FLOORS))), float(rng.uniform(0.45, 0.68))


def _body(rng: np.random.Generator, ground: float, shapes: tuple[str, ...], scale: float = 1.0, unlike=()) -> Body:
    """A body not made of the materials of `unlike`, so that two sounding objects can be told apart by ear."""
    shape = str(rng.choice(shapes))
    low, high = ASPECTS[shape]
    size = float(rng.uniform(0.065, 0.125)) * scale
    size *= {"bowl": 0.75, "bottle": 1.35}.get(shape, 1.0)
    others = [material for material in MATERIALS if material not in {body.material for body in unlike}]
    return Body(str(rng.choice(others)), shape, size, float(rng.uniform(low, high)), ground, ())


def _still(x: float) -> tuple[Segment, ...]:
    return (Segment(0.0, 0.0, x, x, 0.0, 0.0),)


def _bystanders(rng: np.random.Generator, horizon: float) -> tuple[Body, ...]:
    count = int(rng.choice([0, 1, 2], p=[0.6, 0.25, 0.15]))
    made = []
    for _ in range(count):
        body = _body(rng, float(rng.uniform(horizon + 0.03, horizon + 0.1)), tuple(SHAPES), scale=0.7)
        made.append(replace(body, path=_still(float(rng.uniform(0.08, 0.92)))))
    return tuple(made)


def _drop_scene(rng: np.random.Generator, seed: int, duration: float, most: int) -> Scene:
    floor, horizon = _setting(rng)
    gravity = float(rng.uniform(4.0, 6.5))  # a stage 1.5 to 2.5 m high
    count = int(rng.choice([1, 2], p=[0.65, 0.35]))
    near = float(rng.uniform(max(horizon + 0.12, 0.72), 0.93))
    bodies, paths, impacts, events = [], [], [], []
    for i in range(count):
        body = _body(
            rng,
            near if i == 0 else float(rng.uniform(max(horizon + 0.08, 0.7), 0.93)),
            ("ball", "ball", "ball", "block", "block", "bowl", "pot"),
            unlike=bodies,
        )
        home = float(rng.uniform(0.2, 0.8)) if count == 1 else (0.3, 0.7)[i] + float(rng.uniform(-0.1, 0.1))
        bodies.append(body)
        if i > 0 or rng.random() < 0.35:  # lies on the floor until it is picked up
            paths.append([Segment(0.0, 0.0, home, home, 0.0, 0.0)])
        else:
            height = _drop_height(rng, body)
            paths.append([Segment(0.0, 0.0, home, home, height, height)])
        impacts.append([])

    release = float(rng.uniform(0.1, 0.9))
    enough = rng.uniform(0.2, 0.8) * most
    patience = float(rng.choice([1.0, 3.0], p=[0.7, 0.3]))  # seconds: some clips have long silences
    rested = [0.0] * count
    current = 0
    while True:
        body, path = bodies[current], paths[current]
        last = path[-1]
        x, height, angle = last.x1, last.height1, last.angle1
        if height == 0:
            lift = float(rng.uniform(0.35, 0.6))
            release = max(release, rested[current] + 0.1 + lift)
            height = _drop_height(rng, body)
            to = float(np.clip(x + rng.uniform(-0.25, 0.25), 0.18, 0.82))
            tilt = angle + _tilt(rng, body, x, to)
            path.append(Segment(release - lift, lift * 0.8, x, to, 0.0, height, angle0=angle, angle1=tilt))
            x, angle = to, tilt
        if release > duration - 0.4 or len(events) >= enough:
            break
        end = _bounce(
            rng, body, FLOORS[floor].restitution, gravity, release, x, height, angle, path, impacts[current], events
        )
        rested[current] = end
        release = end + 0.1 + patience * float(rng.uniform(0, 1))
        current = int(rng.integers(count))
    audible = [event for event in sorted(events, key=lambda event: event.time) if event.time < duration - END_MARGIN]
    made = tuple(
        replace(body, path=tuple(path), impacts=tuple(hits))
        for body, path, hits in zip(bodies, paths, impacts, strict=True)
    )
    return Scene(seed, duration, "drop", floor, horizon, made, _bystanders(rng, horizon), None, tuple(audible))


def _drop_height(rng: np.random.Generator, body: Body) -> float:
    return float(rng.uniform(0.25, min(FULL_DROP, body.ground - 2 * body.size - 0.05)))


def _tilt(rng: np.random.Generator, body: Body, x0: float, x1: float) -> float:
    """The angle a lifted object ends at: balls turn as if rolled, others hang a little askew."""
    return (x1 - x0) / body.size if body.shape == "ball" else float(rng.uniform(-0.6, 0.6))


def _bounce(
    rng: np.random.Generator,
    body: Body,
    floor_restitution: float,
    gravity: float,
    release: float,
    x: float,
    height: float,
    angle: float,
    path: list[Segment],
    impacts: list[tuple[float, float]],
    events: list[Event],
) -> float:
    """Append the fall, the bounces and the rest to `path`; returns the time at which the object lies still."""
    full_speed = float(np.sqrt(2 * gravity * FULL_DROP))
    drift = float(rng.uniform(-0.16, 0.16))  # stage units per second
    time, speed = release, 0.0
    while True:
        fall = float(speed + np.sqrt(speed * speed + 2 * gravity * height)) / gravity
        to = float(np.clip(x + drift * fall, 0.12, 0.88))
        impact = gravity * fall - speed
        speed_next = impact * TABLE[body.material].restitution * floor_restitution * float(rng.uniform(0.93, 1.05))
        stays = 2 * speed_next / gravity < MIN_GAP or (speed_next / full_speed) ** 0.8 < MIN_LOUDNESS
        if body.shape == "ball":
            angle1 = angle + (to - x) / body.size
        else:
            angle1 = 0.0 if stays else angle * 0.3 + float(rng.uniform(-0.3, 0.3))
        path.append(Segment(time, fall, x, to, height, 0.0, speed, gravity, angle, angle1))
        time, x, angle, height, speed = time + fall, to, angle1, 0.0, speed_next
        loudness = float(min((impact / full_speed) ** 0.8, 1.0))
        impacts.append((time, loudness))
        events.append(Event(time, "bounce", body.material, loudness, x, body.ground))
        drift *= 0.9
        if stays:
            slide = drift * 0.25 if body.shape == "ball" else 0.0
            to = float(np.clip(x + slide, 0.12, 0.88))
            path.append(Segment(time, 0.4, x, to, 0.0, 0.0, 0.0, 0.0, angle, angle + (to - x) / body.size))
            return time + 0.3


def _strike_scene(rng: np.random.Generator, seed: int, duration: float, most: int) -> Scene:
    floor, horizon = _setting(rng)
    ground = float(rng.uniform(max(horizon + 0.12, 0.75), 0.95))
    side = int(rng.choice([-1, 1]))
    count = int(rng.choice([1, 2], p=[0.6, 0.4]))
    bodies = []
    for i in range(count):
        x = float(rng.uniform(0.3, 0.7)) if count == 1 else (0.3, 0.68)[i] + float(rng.uniform(-0.06, 0.06))
        body = _body(rng, ground, ("ball", "block", "block", "bowl", "pot", "bottle"), 1.25, bodies)
        bodies.append(replace(body, path=_still(x), struck=True))

    strikes, hits = [], [[] for _ in bodies]
    time, current = float(rng.uniform(0.35, 1.2)), 0
    pace = float(rng.uniform(0.0, 1.0))  # slow and fast players
    rests = float(rng.choice([0.0, 0.3], p=[0.7, 0.3]))
    feints = float(rng.choice([0.0, 0.25], p=[0.6, 0.4]))
    while time < duration - END_MARGIN and len(strikes) < most:
        body = bodies[current]
        loudness = float(rng.uniform(0.2, 1.0))
        off = 0.0 if body.shape in ("ball", "bottle") else float(rng.uniform(-0.5, 0.5)) * body.aspect * body.size
        top = body.ground - 2 * body.size
        strikes.append(Strike(time, loudness, current, body.path[0].x0 + off, top - STICK_HEAD_RADIUS))
        gap = float(np.exp(rng.uniform(np.log(0.25), np.log(0.6 + 1.4 * pace))))
        if rng.random() < rests:
            gap = float(rng.uniform(1.2, 2.5))
        if rng.random() < feints:
            strikes[-1] = replace(strikes[-1], y=strikes[-1].y - FEINT_HEIGHT, feint=True)
            gap = max(gap, 0.4)
        else:
            hits[current].append((time, loudness))
        if count > 1 and rng.random() < 0.35:
            current = 1 - current
            gap = max(gap, 0.55)
        time += gap
    stick = Stick(float(rng.uniform(0.32, 0.5)), float(rng.uniform(0.15, 0.6)), side, tuple(strikes))
    events = tuple(
        Event(hit.time, "strike", bodies[hit.target].material, hit.loudness, hit.x, hit.y + STICK_HEAD_RADIUS)
        for hit in strikes
        if not hit.feint
    )
    made = tuple(replace(body, impacts=tuple(times)) for body, times in zip(bodies, hits, strict=True))
    return Scene(seed, duration, "strike", floor, horizon, made, _bystanders(rng, horizon), stick, events)
