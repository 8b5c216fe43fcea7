"""A gloved hand that pushes things along the floor without a sound of its own."""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from .canvas import Canvas
from .look import colour
from .motion import smooth
from .objects import Body
from .scene import Look, Painter

RADIUS = 0.036  # of the fist, stage units
REACH = 0.3  # seconds from out of the picture to the object
AWAY = -0.2  # y of a hand that is not needed


@dataclass(frozen=True)
class Touch:
    """The hand lies at one side of a body from `start` to `end`, and moves with it."""

    start: float
    end: float
    body: Body
    half: float  # from the body's centre to where the hand lies, stage units
    side: int  # +1: right of the body


@dataclass(frozen=True)
class Hand:
    """Comes down from above for every touch, and leaves again. Touches are in order of time, 2 REACH apart."""

    touches: tuple[Touch, ...]
    depth: float = 2.0  # before everything else

    def at(self, time: float) -> tuple[float, float, int] | None:
        """(x, y, side) of the fist, or None while it is out of the picture."""
        index = bisect_right(self.touches, time + REACH, key=lambda touch: touch.start) - 1
        if index < 0 or time > self.touches[index].end + REACH:
            return None
        touch = self.touches[index]
        pose = touch.body.pose(min(max(time, touch.start), touch.end))
        x, y = pose.x + touch.side * (touch.half + RADIUS), touch.body.ground - max(touch.body.size, RADIUS)
        u = smooth(max(touch.start - time, time - touch.end, 0.0) / REACH)
        return x + 0.1 * touch.side * u, y + (AWAY - y) * u, touch.side

    def painter(self, look: Look) -> "HandPainter":
        return HandPainter(self, look)


class HandPainter(Painter):
    """A fist and the sleeve behind it."""

    def __init__(self, hand: Hand, look: Look):
        self.hand = hand
        self.glove = colour(look.rng, (0, 1), (0.1, 0.7), (0.3, 0.95))
        self.sleeve = colour(look.rng, value=(0.1, 0.9))

    def draw(self, canvas: Canvas, time: float) -> None:
        found = self.hand.at(time)
        if found is None:
            return
        x, y, side = found
        slope = np.float32(side * 0.35)
        canvas.capsule(x + 0.12 * slope, y - 0.12, x + 1.2 * slope, y - 1.2, 0.034, self.sleeve)
        canvas.capsule(x, y, x + 0.12 * slope, y - 0.12, 0.024, self.glove)
        canvas.capsule(x, y, x, y, RADIUS, self.glove)
