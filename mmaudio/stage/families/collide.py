"""Balls or pucks on the floor run into each other and into cushions at the sides; a hand sets them going."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ..hand import REACH, Hand, Touch
from ..materials import TABLE
from ..motion import Push, Slide, still
from ..objects import Body, random_body
from ..phrases import article, count_of, manner, name_of, sized
from ..scene import END_MARGIN, MIN_GAP, Act, Event, Setting, Words
from ..voices import HIGHEST, Contacts, add

FULL_SPEED = 1.2  # stage units per second: two equal bodies that meet at this speed sound at loudness 1
MIN_LOUDNESS = 0.15  # below, two bodies touch without a sound and go on together
MOST = 20  # collisions in 8 seconds


@dataclass(frozen=True)
class Meeting:
    """A collision of two neighbours."""

    time: float
    first: int  # of the two, the left one
    impulse: float


@dataclass(frozen=True)
class Clashes:
    """All collisions of two bodies: a source. Both ring at their own pitch, after a bright click of the contact."""

    name: str
    one: Contacts
    two: Contacts

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        lags = rng.uniform(0.014, 0.02, len(self.one.hits))  # seconds: the second body chatters against the first
        clicks = rng.uniform(2600.0, 4200.0)  # Hz: stiff round bodies touch so briefly
        late = tuple((time + lag, 0.7 * loud) for (time, loud), lag in zip(self.two.hits, lags, strict=True))
        two = replace(self.two, hits=late)
        first, second = rng.spawn(2)  # so that one's noise, of any length, does not change the other
        dry = self.one.render(sample_rate, length, first) + two.render(sample_rate, length, second)
        seconds = np.arange(int(0.02 * sample_rate)) / sample_rate
        click = sum(np.sin(2 * np.pi * hz * seconds) for hz in (clicks, 1.47 * clicks) if hz < HIGHEST * sample_rate)
        click = np.exp(-seconds / 0.0025) * click * (1 - np.exp(-seconds / 0.0002))
        for (time, loud), (after, soft) in zip(self.one.hits, late, strict=True):
            add(dry, time, 0.35 * loud * click, sample_rate)
            add(dry, after, 0.35 * soft * click, sample_rate)
        return dry / 1.3


@dataclass
class Run:
    """The bodies in a row on the floor, from the left cushion to the right one."""

    x: np.ndarray  # (B,) stage units
    speed: np.ndarray  # (B,) signed
    light: np.ndarray  # (B,) 1 / mass; 0: cannot be moved
    apart: np.ndarray  # (B - 1,) distance of the centres of neighbours that touch
    braking: float  # by friction with the floor, stage units per second squared
    kept: float  # restitution
    heavy: float  # mass of an ordinary body

    def gaps(self) -> np.ndarray:
        """Free way between neighbours (B - 1,)."""
        return np.maximum(np.diff(self.x) - self.apart, 0.0)

    def next(self) -> tuple[float, int | None]:
        """Seconds until something happens, and the left one of the two that meet; None: one comes to rest."""
        moving = np.abs(self.speed[self.speed != 0])
        first, who = float(moving.min()) / self.braking, None
        closing, slowing = -np.diff(self.speed), -np.diff(np.sign(self.speed)) * self.braking
        for i, (gap, speed, brake) in enumerate(zip(self.gaps(), closing, slowing, strict=True)):
            square = speed * speed - 2 * brake * gap
            way = speed + np.sqrt(square) if square >= 0 else 0.0
            if way > 1e-9 and 2 * gap / way < first:
                first, who = float(2 * gap / way), i
        return first, who

    def advance(self, seconds: float) -> None:
        """Let friction act for a time in which nobody meets and nobody turns round."""
        sign = np.sign(self.speed)
        self.x = self.x + self.speed * seconds - sign * self.braking * seconds**2 / 2
        self.speed = self.speed - sign * self.braking * seconds
        self.speed[(np.sign(self.speed) != sign) | (np.abs(self.speed) < 1e-7)] = 0.0

    def collide(self, i: int) -> float:
        """Exchange the impulse of a collision of i and i + 1; returns it. Soft ones are not elastic."""
        closing, yields = self.speed[i] - self.speed[i + 1], self.light[i] + self.light[i + 1]
        kept = self.kept if self.loudness((1 + self.kept) * closing / yields) >= MIN_LOUDNESS else 0.0
        impulse = float((1 + kept) * closing / yields)
        self.speed[i] -= impulse * self.light[i]
        self.speed[i + 1] += impulse * self.light[i + 1]
        return impulse

    def between(self, meeting: "Meeting") -> bool:
        """Whether two bodies meet, not one and a cushion."""
        return bool(self.light[meeting.first] and self.light[meeting.first + 1])

    def loudness(self, impulse: float) -> float:
        """Loudness (0..1) of a collision, by its impulse."""
        return float(min((impulse / (self.heavy * FULL_SPEED)) ** 0.8, 1.0))


def make(rng: np.random.Generator, setting: Setting) -> Act:
    bodies = _row(rng, setting)
    run = _run(rng, bodies)
    paths = [[*body.path] for body in bodies]
    turns = [1 / body.size if body.shape == "ball" else 0.0 for body in bodies]
    meetings: list[Meeting] = []
    touches: list[tuple[float, float, int, int]] = []
    time = float(rng.uniform(0.15, 0.8))
    patience = float(rng.choice([0.6, 2.0]))  # seconds
    while time < setting.duration - 0.5 and len(meetings) < MOST * setting.duration / 8:
        found = None
        for _ in range(12):  # until no two collisions are too close to be told apart
            found = _rally(rng, run, paths, turns, time, needed=not any(map(run.between, meetings)))
            if found:
                break
        if not found:
            break
        run, paths, heard, touch, rest = found
        meetings += heard
        touches.append(touch)
        time = max(rest, touch[1] + 2 * REACH) + float(rng.uniform(0.1, patience))
    meetings = [meeting for meeting in meetings if meeting.time < setting.duration - END_MARGIN]
    hits = [(meeting, run.loudness(meeting.impulse)) for meeting in meetings]
    bodies = [replace(body, path=tuple(path)) for body, path in zip(bodies, paths, strict=True)]
    hand = Hand(tuple(Touch(a, b, bodies[i], _half(bodies[i]), side) for a, b, i, side in touches))
    among = sum(map(run.between, meetings))
    events = tuple(_event(bodies, meeting, loud) for meeting, loud in hits) if among else ()  # none: cast again
    words = _words(rng, bodies[1:-1], events, among, len(meetings) - among)
    return Act("collide", (*bodies, hand), _sources(bodies, hits), events, words)


def _row(rng: np.random.Generator, setting: Setting) -> list[Body]:
    """A cushion, two or three bodies, a cushion: all of one material."""
    ground = float(rng.uniform(max(setting.horizon + 0.12, 0.7), 0.92))
    count = int(rng.choice([2, 3], p=[0.6, 0.4]))
    first = random_body(rng, setting, "collide", ground, ("ball", "ball", "block"), 0.7)
    sizes = first.size * np.concatenate([[1.0], rng.choice([0.78, 1.0, 1.25], count - 1)])
    post = replace(first, shape="block", size=float(1.3 * first.size), aspect=0.4)
    places = np.sort(np.arange(count) + rng.uniform(-0.25, 0.25, count))
    places = setting.across(0.5) + setting.width * 0.7 * ((places + 0.5) / count - 0.5)
    row = [replace(first, size=float(s), path=still(float(x))) for s, x in zip(sizes, places, strict=True)]
    left, right = (replace(post, path=still(setting.across(share))) for share in (0.08, 0.92))
    return [left, *row, right]


def _run(rng: np.random.Generator, bodies: list[Body]) -> Run:
    kept = TABLE[bodies[0].material].restitution ** 0.5  # the floor takes nothing of it
    masses = np.array([body.size**2 * body.aspect for body in bodies])
    light = 1 / masses
    light[[0, -1]] = 0.0
    apart = np.array([_apart(one, two) for one, two in pairwise(bodies)])
    x = np.array([body.path[0].x0 for body in bodies])
    braking = float(rng.uniform(0.18, 0.5))
    return Run(x, np.zeros(len(bodies)), light, apart, braking, kept, float(masses[1:-1].mean()))


def _half(body: Body) -> float:
    return body.size * body.aspect


def _apart(one: Body, two: Body) -> float:
    """Distance between the centres of two neighbours that touch; two balls on a floor touch above it."""
    if one.shape == two.shape == "ball":
        return float(2 * np.sqrt(one.size * two.size))
    return _half(one) + _half(two)


def _rally(rng, run: Run, paths, turns, time: float, needed: bool):
    """Push one body and follow all of them to rest; None if that would be too fast to follow, or nothing is hit."""
    seconds, who = float(rng.uniform(0.18, 0.28)), int(rng.integers(1, len(run.x) - 1))
    way = int(rng.choice([-1, 1]))
    speed = float(rng.uniform(0.35, 1.35))
    ahead = run.gaps()[who if way > 0 else who - 1]
    if ahead < speed * seconds / 2 + 0.05:
        return None
    x, sped = run.x.copy(), np.zeros(len(run.x))
    x[who] += way * speed * seconds / 2
    sped[who] = way * speed
    new = [list(path) for path in paths]
    new[who].append(Push(time, float(run.x[who]), way * speed / seconds, turns[who], _angle(new[who], time)))
    moving = replace(run, x=x, speed=sped)
    now, changed, meetings = time + seconds, [who], []
    while True:
        for i in changed:
            angle = _angle(new[i], now)
            new[i].append(Slide(now, float(moving.x[i]), float(moving.speed[i]), run.braking, turns[i], angle))
        if not moving.speed.any():
            break
        step, pair = moving.next()
        moving.advance(step)
        now, changed = now + step, []
        if pair is not None:
            impulse = moving.collide(pair)
            changed = [i for i in (pair, pair + 1) if run.light[i]]
            if run.loudness(impulse) >= MIN_LOUDNESS:
                meetings.append(Meeting(now, pair, impulse))
    close = any(two.time - one.time < MIN_GAP for one, two in pairwise(meetings))
    if close or (needed and not any(run.between(meeting) for meeting in meetings)):
        return None
    return moving, new, meetings, (time, time + seconds, who, -way), now


def _angle(path, time: float) -> float:
    return path[-1].at(time)[2]


def _event(bodies: list[Body], meeting: Meeting, loudness: float) -> Event:
    one, two = bodies[meeting.first], bodies[meeting.first + 1]
    x = (one.pose(meeting.time).x + _half(one) + two.pose(meeting.time).x - _half(two)) / 2
    y = one.ground - min(one.size, two.size)
    return Event(meeting.time, "collision", one.material, loudness, float(x), float(y))


def _sources(bodies: list[Body], hits) -> tuple[Clashes, ...]:
    sources = []
    for i, (one, two) in enumerate(pairwise(bodies)):
        pair = tuple((meeting.time, loud) for meeting, loud in hits if meeting.first == i)
        if pair:
            voices = (
                Contacts(one.material, body.material, share * body.size, body.aspect, pair)
                for body, share in ((one, 1.0), (two, 0.72))
            )
            sources.append(Clashes(f"{one.material} {one.shape} and {two.shape}", *voices))
    return tuple(sources)


def _words(rng, bodies: list[Body], events: tuple[Event, ...], among: int, cushions: int) -> Words:
    noun = name_of(rng, bodies[0].material, bodies[0].shape)
    number = {2: "two", 3: "three"}[len(bodies)]
    size, noise = sized(bodies[0]), TABLE[bodies[0].material].sound_word
    times, how = count_of(among), manner(events)
    bounds = " and knock against the cushions" if cushions else ""
    plural = f"{noun}es" if noun.endswith("x") else f"{noun}s"
    return Words(
        tags=(
            f"{plural} colliding", f"collision of {plural}", f"{plural} bumping into each other",
            f"{plural} colliding, {noise}",
        ),
        clauses=(
            f"{number} {plural} collide",
            f"{number} {plural} bump into each other",
            f"{article(noun)} collides with another one",
            f"{plural} are colliding on the ground",
        ),
        details=(
            f"{number} {size} {plural} collide {times}{bounds}, {noise} {how}",
            f"a hand pushes {article(f'{size} {noun}')}, and {number} of them bump into each other {times}{bounds}",
            f"{number} {size} {plural} collide{bounds} {how}, {noise}",
        ),
    )  # fmt: skip
