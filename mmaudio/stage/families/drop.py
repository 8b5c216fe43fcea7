"""Objects fall, bounce and come to rest; then they are picked up and dropped again."""

from dataclasses import replace

import numpy as np

from ..materials import FLOORS, TABLE
from ..motion import Segment
from ..objects import Body, random_body
from ..phrases import article, count_of, manner, name_of, sized
from ..scene import END_MARGIN, MIN_GAP, Act, Event, Setting, Words
from ..voices import Contacts

FULL_DROP = 0.62  # stage units: falling this far is an impact of loudness 1
MIN_LOUDNESS = 0.1
MOST = 18  # contacts in 8 seconds


def make(rng: np.random.Generator, setting: Setting) -> Act:
    count = int(rng.choice([1, 2], p=[0.65, 0.35])) if setting.width > 0.6 else 1
    near = float(rng.uniform(max(setting.horizon + 0.12, 0.72), 0.93))
    bodies, paths, impacts, events = [], [], [], []
    for i in range(count):
        ground = near if i == 0 else float(rng.uniform(max(setting.horizon + 0.08, 0.7), 0.93))
        shapes = ("ball", "ball", "ball", "block", "block", "bowl", "pot")
        body = random_body(rng, setting, "drop", ground, shapes, unlike=tuple(bodies))
        home = (0.5,) if count == 1 else (0.3, 0.7)
        home = setting.across(home[i] + float(rng.uniform(-0.1, 0.1) * (3 if count == 1 else 1)))
        bodies.append(body)
        if i > 0 or rng.random() < 0.35:  # lies on the floor until it is picked up
            paths.append([Segment(0.0, 0.0, home, home, 0.0, 0.0)])
        else:
            height = _drop_height(rng, body)
            paths.append([Segment(0.0, 0.0, home, home, height, height)])
        impacts.append([])

    release = float(rng.uniform(0.1, 0.9))
    enough = rng.uniform(0.2, 0.8) * MOST * setting.duration / 8
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
            to = _inside(setting, x + float(rng.uniform(-0.25, 0.25)), 0.18)
            tilt = angle + _tilt(rng, body, x, to)
            path.append(Segment(release - lift, lift * 0.8, x, to, 0.0, height, angle0=angle, angle1=tilt))
            x, angle = to, tilt
        if release > setting.duration - 0.4 or len(events) >= enough:
            break
        end = _bounce(rng, setting, body, release, x, height, angle, path, impacts[current], events)
        rested[current] = end
        release = end + 0.1 + patience * float(rng.uniform(0, 1))
        current = int(rng.integers(count))
    made = [
        replace(body, path=tuple(path), impacts=tuple(hits))
        for body, path, hits in zip(bodies, paths, impacts, strict=True)
    ]
    sources = tuple(
        Contacts(f"{body.material} {body.shape}", body.material, body.size, body.aspect, body.impacts, setting.floor)
        for body in made
        if body.impacts
    )
    audible = tuple(event for event in events if event.time < setting.duration - END_MARGIN)
    return Act("drop", tuple(made), sources, audible, _words(rng, setting, made, audible))


def _inside(setting: Setting, x: float, margin: float) -> float:
    return float(np.clip(x, setting.left + margin * setting.width, setting.right - margin * setting.width))


def _drop_height(rng: np.random.Generator, body: Body) -> float:
    return float(rng.uniform(0.25, min(FULL_DROP, body.ground - 2 * body.size - 0.05)))


def _tilt(rng: np.random.Generator, body: Body, x0: float, x1: float) -> float:
    """The angle a lifted object ends at: balls turn as if rolled, others hang a little askew."""
    return (x1 - x0) / body.size if body.shape == "ball" else float(rng.uniform(-0.6, 0.6))


def _bounce(rng, setting, body, release, x, height, angle, path, impacts, events) -> float:
    """Append the fall, the bounces and the rest to `path`; returns the time at which the object lies still."""
    gravity, kept = setting.gravity, TABLE[body.material].restitution * FLOORS[setting.floor].restitution
    full_speed = float(np.sqrt(2 * gravity * FULL_DROP))
    drift = float(rng.uniform(-0.16, 0.16)) * setting.width  # stage units per second
    time, speed = release, 0.0
    while True:
        fall = float(speed + np.sqrt(speed * speed + 2 * gravity * height)) / gravity
        to = _inside(setting, x + drift * fall, 0.12)
        impact = gravity * fall - speed
        speed_next = impact * kept * float(rng.uniform(0.93, 1.05))
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
            to = _inside(setting, x + (drift * 0.25 if body.shape == "ball" else 0.0), 0.12)
            path.append(Segment(time, 0.4, x, to, 0.0, 0.0, 0.0, 0.0, angle, angle + (to - x) / body.size))
            return time + 0.3


def _words(rng: np.random.Generator, setting: Setting, bodies: list[Body], events: tuple[Event, ...]) -> Words:
    sounding = [body for body in bodies if body.impacts and body.impacts[0][0] < setting.duration - END_MARGIN]
    nouns = [name_of(rng, body.material, body.shape) for body in sounding]
    plain = " and ".join(nouns)
    things = " and ".join(article(noun) for noun in nouns)
    large = " and ".join(article(f"{sized(body)} {noun}") for body, noun in zip(sounding, nouns, strict=True))
    many, floor = len(sounding) > 1, FLOORS[setting.floor].phrase
    verb, s = ("are", "") if many else ("is", "s")
    noise = " and ".join(dict.fromkeys(TABLE[body.material].sound_word for body in sounding))
    times, how = count_of(len(events)), manner(events)
    return Words(
        tags=(
            f"{plain} bouncing", f"{plain} falling", f"{plain} dropping and bouncing", f"{plain} bouncing, {noise}",
        ),
        clauses=(
            f"{things} {'bounce' if many else 'bounces'} on {floor}",
            f"{things} {verb} dropped on {floor}",
            f"{things} {'fall' if many else 'falls'} and bounce{s} on {floor}",
            f"{things} drop{s} onto {floor}",
        ),
        details=(
            f"{large} {verb} dropped on {floor} and bounce{s} {times}",
            f"{large} {verb} bouncing on {floor}, {noise} {times}",
            f"{large} {verb} dropped on {floor} and land{s} {how}, {noise}",
        ),
    )  # fmt: skip
