"""Silent things that belong to no act: wanderers behind the stage, and blurred obstacles before it."""

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas
from .look import colour

NEARNESS = 1.6  # how much more than the stage an obstacle moves with the camera


@dataclass(frozen=True)
class Blob:
    """A blurred shape that drifts across the back and swings."""

    x: float
    y: float
    radius: float
    speed: float
    swing: float
    hertz: float
    phase: float
    opacity: float
    paint: np.ndarray

    def draw(self, canvas: Canvas, time: float) -> None:
        x = (self.x + self.speed * time + 0.3) % 1.6 - 0.3
        y = self.y + self.swing * np.sin(2 * np.pi * self.hertz * time + self.phase)
        canvas.disc(x, y, self.radius, self.paint, self.opacity, softness=0.5)


@dataclass(frozen=True)
class Pendulum:
    """A lamp or a tassel that hangs from above and swings on and on."""

    x: float
    length: float
    radius: float
    angle: float
    hertz: float
    phase: float
    paint: np.ndarray

    def draw(self, canvas: Canvas, time: float) -> None:
        angle = self.angle * np.sin(2 * np.pi * self.hertz * time + self.phase)
        x, y = self.x + self.length * np.sin(angle), self.length * np.cos(angle) - 0.15
        canvas.capsule(self.x, -0.15, x, y, 0.004, 0.4 * self.paint, 0.8)
        canvas.disc(x, y, self.radius, self.paint, 0.9, softness=0.3)


def wanderers(rng: np.random.Generator, horizon: float) -> tuple[Blob | Pendulum, ...]:
    """None, one or two, above the horizon."""
    made = []
    for _ in range(int(rng.choice([0, 1, 2], p=[0.65, 0.25, 0.1]))):
        paint = colour(rng, saturation=(0, 0.7), value=(0.1, 0.9))
        if rng.random() < 0.3:
            low, high = (0.1, 0.25, 0.02, 0.05, 0.3, 0), (0.9, max(horizon, 0.3), 0.04, 0.35, 0.8, 6.3)
            made.append(Pendulum(*rng.uniform(low, high), paint))
        else:
            low = (0, 0.05, 0.02, -0.12, 0, 0.1, 0, 0.4)
            high = (1, max(horizon - 0.1, 0.1), 0.07, 0.12, 0.06, 0.6, 6.3, 0.9)
            made.append(Blob(*rng.uniform(low, high), paint))
    return tuple(made)


@dataclass(frozen=True)
class Bar:
    """A blurred pole or edge, `inset` from a side of the picture."""

    left: bool
    inset: float
    half: float
    paint: np.ndarray

    def draw(self, canvas: Canvas, time: float, reach: float) -> None:
        """`reach` is half the width of the picture in stage units."""
        _upright(canvas, 0.5 + (self.inset - reach) * (1 if self.left else -1), self.half, self.paint)


@dataclass(frozen=True)
class Passer:
    """A thin blurred thing that passes close to the camera, through the middle at `moment`."""

    speed: float  # signed, stage units per second
    moment: float
    half: float
    paint: np.ndarray

    def draw(self, canvas: Canvas, time: float, reach: float) -> None:
        _upright(canvas, 0.5 + self.speed * (time - self.moment), self.half, self.paint)


def _upright(canvas: Canvas, x: float, half: float, paint: np.ndarray) -> None:
    """A bar from top to bottom with soft edges."""
    soft = 0.012
    found = canvas.patch(x - half - soft, -2.0, x + half + soft, 3.0)
    if found is None:
        return
    pixels, xs, _ = found
    cover = np.clip((half + soft - np.abs(xs - np.float32(x))) / np.float32(2 * soft), 0, 0.92)
    pixels += cover[..., None] * (paint - pixels)


@dataclass(frozen=True)
class Plant:
    """Blurred leaves that reach into an upper corner."""

    left: bool
    leaves: np.ndarray  # (L, 3): x and y from the corner, radius
    paint: np.ndarray
    sway: float

    def draw(self, canvas: Canvas, time: float, reach: float) -> None:
        swing = self.sway * np.sin(2.1 * time)
        for k, (x, y, radius) in enumerate(self.leaves):
            at = 0.5 - reach + x + swing if self.left else 0.5 + reach - x + swing
            canvas.disc(at, y, radius, self.paint * (0.8 + 0.1 * (k % 5)), 0.9, softness=0.5)


def obstacles(rng: np.random.Generator, duration: float) -> tuple[Bar | Passer | Plant, ...]:
    """At most one: it covers little of the picture, or passes in about a second."""
    kind = str(rng.choice(["none", "pole", "edge", "passer", "plant"], p=[0.68, 0.1, 0.06, 0.06, 0.1]))
    paint, left = colour(rng, saturation=(0, 0.5), value=(0.03, 0.5)), bool(rng.random() < 0.5)
    if kind == "pole":
        return (Bar(left, float(rng.uniform(0.02, 0.08)), float(rng.uniform(0.008, 0.02)), paint),)
    if kind == "edge":
        return (Bar(left, 0.0, float(rng.uniform(0.03, 0.06)), paint),)
    if kind == "passer":
        speed = float(rng.uniform(0.8, 1.2)) * (1 if left else -1)
        return (Passer(speed, float(rng.uniform(0, duration)), 0.012, paint),)
    if kind == "plant":
        leaves = rng.uniform((-0.05, -0.05, 0.02), (0.14, 0.2, 0.045), (9, 3))
        return (Plant(left, leaves, colour(rng, (0.22, 0.38), (0.3, 0.8), (0.1, 0.45)), float(rng.uniform(0, 0.01))),)
    return ()
