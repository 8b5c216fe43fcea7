"""Paths of solid objects: closed forms of time, so that a contact is exact at any frame or sample rate."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


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
            u = smooth(u)
            height = self.height0 + (self.height1 - self.height0) * u
        return self.x0 + (self.x1 - self.x0) * u, height, self.angle0 + (self.angle1 - self.angle0) * u


@dataclass(frozen=True)
class Slide:
    """Moving along the floor from `start` on, slowed down evenly until it stands."""

    start: float
    x0: float
    speed: float  # signed, stage units per second
    braking: float  # stage units per second squared, not negative
    turn: float = 0.0  # radians per stage unit: 1 / radius for something that rolls, 0 for something that slides
    angle0: float = 0.0

    def at(self, time: float) -> tuple[float, float, float]:
        """(x, height, angle) at a time."""
        tau = max(time - self.start, 0.0)
        if self.braking > 0:
            tau = min(tau, abs(self.speed) / self.braking)
        way = self.speed * tau - (self.braking if self.speed > 0 else -self.braking) * tau * tau / 2
        return self.x0 + way, 0.0, self.angle0 + way * self.turn

    def speed_at(self, time: float) -> float:
        """Signed speed at a time."""
        tau = max(time - self.start, 0.0)
        return max(abs(self.speed) - self.braking * tau, 0.0) * (1 if self.speed > 0 else -1)


@dataclass(frozen=True)
class Push:
    """Moved along the floor from `start` on with an even acceleration, from standing still until the next piece."""

    start: float
    x0: float
    acceleration: float  # signed, stage units per second squared
    turn: float = 0.0  # as of a Slide
    angle0: float = 0.0

    def at(self, time: float) -> tuple[float, float, float]:
        """(x, height, angle) at a time."""
        way = self.acceleration * max(time - self.start, 0.0) ** 2 / 2
        return self.x0 + way, 0.0, self.angle0 + way * self.turn


Piece = Segment | Slide | Push


def smooth(u):
    """From 0 at 0 to 1 at 1, level at both ends; a number or an array of them."""
    return u * u * (3 - 2 * u)


def piece_at(path: Sequence[Piece], time: float) -> Piece:
    """The piece of a path that holds at a time; the first one also before it begins."""
    return path[max(bisect_right(path, time, key=lambda piece: piece.start) - 1, 0)]


def still(x: float) -> tuple[Segment, ...]:
    """The path of something that lies on the floor."""
    return (Segment(0.0, 0.0, x, x, 0.0, 0.0),)
