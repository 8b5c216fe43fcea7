"""A stick strikes standing objects at irregular times, and now and then stops short of them."""

from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np

from ..canvas import Canvas
from ..look import colour
from ..materials import STICK_HEAD_RADIUS, TABLE
from ..motion import smooth, still
from ..objects import Body, random_body
from ..phrases import article, count_of, manner, name_of, sized
from ..scene import END_MARGIN, Act, Event, Look, Painter, Setting, Words
from ..voices import Contacts

FEINT_HEIGHT = 0.13  # stage units above the object
HOVER = 0.28  # radians above the object between two strikes
MOST = 18  # strikes in 8 seconds


@dataclass(frozen=True)
class Strike:
    """One blow of the stick. The centre of its head is at (x, y) at `time`: touching, or well above in a feint."""

    time: float
    loudness: float
    target: int
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
    depth: float = 2.0  # before everything else

    def pose(self, time: float) -> tuple[float, float, float, float]:
        """Head and hand at a time: (head_x, head_y, hand_x, hand_y)."""
        strikes = self.strikes
        index = bisect_right(strikes, time, key=lambda strike: strike.time)
        before = strikes[index - 1] if index > 0 else None
        after = strikes[index] if index < len(strikes) else None
        gap = after.time - before.time if before and after else 2.0
        raised, x, y = HOVER, 0.0, 0.0
        if before:  # rebound to the hover angle, slowly at first so that a frame right after the contact still shows it
            x, y = before.x, before.y
            u = min((time - before.time) / min(0.2, 0.35 * gap), 1.0)
            raised = HOVER * u * u * (3 - 2 * u)
        if after:
            down = min(0.10, 0.3 * gap)
            up = min(0.22, 0.3 * gap)
            back = HOVER + 0.25 + 0.55 * after.loudness
            until = after.time - time
            if until <= down:  # accelerate into the object
                raised = back * (1 - (1 - until / down) ** 2)
            elif until <= down + up:
                u = 1 - (until - down) / up
                raised = raised + (back - raised) * u * u * (3 - 2 * u)
            if before:  # the hand travels to the next target while the stick is up
                u = smooth(float(np.clip((time - before.time - 0.3 * gap) / (0.4 * gap), 0, 1)))
                x, y = before.x + (after.x - before.x) * u, before.y + (after.y - before.y) * u
            else:
                x, y = after.x, after.y
        hand_x = x + self.side * self.length * np.cos(self.tilt)
        hand_y = y - self.length * np.sin(self.tilt)
        angle = self.tilt - raised
        head_x = hand_x - self.side * self.length * np.cos(angle)
        return head_x, hand_y + self.length * np.sin(angle), hand_x, hand_y

    def painter(self, look: Look) -> "StickPainter":
        return StickPainter(self, look)


class StickPainter(Painter):
    """A wooden stick and the arm that holds it."""

    def __init__(self, stick: Stick, look: Look):
        self.stick = stick
        self.wood = colour(look.rng, (0.06, 0.1), (0.2, 0.6), (0.65, 1.0))
        self.sleeve = colour(look.rng, value=(0.1, 0.9))

    def draw(self, canvas: Canvas, time: float) -> None:
        head_x, head_y, hand_x, hand_y = self.stick.pose(time)
        canvas.capsule(head_x, head_y, hand_x, hand_y, 0.014, self.wood)
        canvas.capsule(hand_x, hand_y, hand_x + self.stick.side * 0.9, hand_y - 0.12, 0.04, self.sleeve)
        canvas.capsule(head_x, head_y, head_x, head_y, STICK_HEAD_RADIUS, self.wood * 1.1)


def make(rng: np.random.Generator, setting: Setting) -> Act:
    ground = float(rng.uniform(max(setting.horizon + 0.12, 0.75), 0.95))
    bodies = _targets(rng, setting, ground)
    strikes = _strikes(rng, setting, bodies)
    hits = [[(s.time, s.loudness) for s in strikes if s.target == i and not s.feint] for i in range(len(bodies))]
    bodies = [replace(body, impacts=tuple(times)) for body, times in zip(bodies, hits, strict=True)]
    middle = (setting.left + setting.right) / 2
    side = (-1 if middle < 0.4 else 1) if setting.width < 0.9 else int(rng.choice([-1, 1]))
    stick = Stick(float(rng.uniform(0.32, 0.5)), float(rng.uniform(0.15, 0.6)), side, tuple(strikes))
    events = tuple(
        Event(s.time, "strike", bodies[s.target].material, s.loudness, s.x, s.y + STICK_HEAD_RADIUS)
        for s in strikes
        if not s.feint
    )
    sources = tuple(
        Contacts(f"{body.material} {body.shape}", body.material, body.size, body.aspect, body.impacts, stick=True)
        for body in bodies
        if body.impacts
    )
    return Act("strike", (*bodies, stick), sources, events, _words(rng, bodies, events))


def _targets(rng: np.random.Generator, setting: Setting, ground: float) -> list[Body]:
    count = int(rng.choice([1, 2], p=[0.6, 0.4])) if setting.width > 0.6 else 1
    bodies: list[Body] = []
    for i in range(count):
        x = float(rng.uniform(0.3, 0.7)) if count == 1 else (0.3, 0.68)[i] + float(rng.uniform(-0.06, 0.06))
        shapes = ("ball", "block", "block", "bowl", "pot", "bottle")
        body = random_body(rng, setting, "strike", ground, shapes, 1.25, tuple(bodies))
        bodies.append(replace(body, path=still(setting.across(x)), struck=True))
    return bodies


def _strikes(rng: np.random.Generator, setting: Setting, bodies: list[Body]) -> list[Strike]:
    strikes: list[Strike] = []
    time, current = float(rng.uniform(0.35, 1.2)), 0
    pace = float(rng.uniform(0.0, 1.0))  # slow and fast players
    rests = float(rng.choice([0.0, 0.3], p=[0.7, 0.3]))
    feints = float(rng.choice([0.0, 0.25], p=[0.6, 0.4]))
    while time < setting.duration - END_MARGIN and len(strikes) < MOST * max(setting.duration / 8, 0.25):
        body = bodies[current]
        loudness = float(rng.uniform(0.2, 1.0))
        off = 0.0 if body.shape in ("ball", "bottle") else float(rng.uniform(-0.5, 0.5)) * body.aspect * body.size
        strike = Strike(time, loudness, current, body.path[0].x0 + off, body.top - STICK_HEAD_RADIUS)
        gap = float(np.exp(rng.uniform(np.log(0.25), np.log(0.6 + 1.4 * pace))))
        if rng.random() < rests:
            gap = float(rng.uniform(1.2, 2.5))
        if rng.random() < feints and strikes:  # the first one sounds
            strike = replace(strike, y=strike.y - FEINT_HEIGHT, feint=True)
            gap = max(gap, 0.4)
        strikes.append(strike)
        if len(bodies) > 1 and rng.random() < 0.35:
            current = 1 - current
            gap = max(gap, 0.55)
        time += gap
    return strikes


def _words(rng: np.random.Generator, bodies: list[Body], events: tuple[Event, ...]) -> Words:
    sounding = [body for body in bodies if body.impacts]
    nouns = [name_of(rng, body.material, body.shape) for body in sounding]
    plain = " and ".join(nouns)
    things = " and ".join(article(noun) for noun in nouns)
    large = " and ".join(article(f"{sized(body)} {noun}") for body, noun in zip(sounding, nouns, strict=True))
    verb = "are" if len(sounding) > 1 else "is"
    noise = " and ".join(dict.fromkeys(TABLE[body.material].sound_word for body in sounding))
    times, how = count_of(len(events)), manner(events)
    return Words(
        tags=(f"hitting {plain}", f"{plain} struck by a stick", f"stick hitting {plain}", f"tapping {plain}, {noise}"),
        clauses=(
            f"a stick hits {things}",
            f"{things} {verb} struck with a stick",
            f"someone is hitting {things} with a stick",
            f"{things} {verb} tapped with a stick",
        ),
        details=(
            f"{large} {verb} hit {times} with a stick",
            f"a stick strikes {large} {times}, {how}",
            f"{large} {verb} struck again and again with a stick, {how}, {noise}",
        ),
    )
