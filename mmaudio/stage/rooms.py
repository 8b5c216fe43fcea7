"""Rooms that stand behind the floor, painted once a clip.

Every set is a function of (rng, canvas, horizon) that fills the canvas; what is below the horizon is covered later.
"""

import numpy as np

from .canvas import Canvas
from .layout import SIDES, band, mix, spread
from .look import clouds, colour, pink, repeat


def _wall(rng: np.random.Generator, canvas: Canvas) -> None:
    """Plain, papered with stripes or figures, or panelled."""
    xs, ys = canvas.grid()
    x, y = xs[None, :], ys[:, None]
    base = colour(rng, saturation=(0, 0.5), value=(0.3, 0.95))
    other = base * rng.uniform(0.65, 0.92)
    scale = rng.uniform(3, 9)
    kind = str(rng.choice(["plain", "stripes", "figures", "panels"], p=[0.4, 0.2, 0.2, 0.2]))
    pattern = {
        "plain": 0.25 * repeat(pink(rng, 256, 1.4), x, y),
        "stripes": np.clip(3 * np.sin(2 * np.pi * scale * x), -1, 1) + 0 * y,
        "figures": np.clip(4 * np.sin(2 * np.pi * scale * x) * np.sin(2 * np.pi * scale * y) - 1.5, -1, 1),
        "panels": 2.0 * (np.abs((scale * x) % 1 - 0.5) > 0.45) - 1 + 0 * y,
    }[kind]
    canvas.image[:] = mix(base, other, 0.5 + 0.5 * pattern[..., None])


def _skirting(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    canvas.box(*band(horizon - rng.uniform(0.015, 0.04), horizon + 0.02), colour(rng, (0, 1), (0, 0.3), (0.2, 0.95)))


def _window(rng, canvas, x, horizon):
    wide, top, low = rng.uniform(0.1, 0.18), rng.uniform(-0.05, 0.12), horizon - rng.uniform(0.08, 0.15)
    frame, sky = colour(rng, (0, 1), (0, 0.3), (0.3, 1.0)), colour(rng, (0.5, 0.65), (0, 0.4), (0.8, 1.2))
    canvas.box(x - wide - 0.02, top - 0.02, x + wide + 0.02, low + 0.02, frame)
    canvas.box(x - wide, top, x + wide, low, sky)
    canvas.box(x - wide, low - 0.3 * (low - top), x + wide, low, colour(rng, (0.2, 0.4), (0.2, 0.5), (0.3, 0.6)), 0.8)
    canvas.box(x - 0.006, top, x + 0.006, low, frame)
    canvas.box(x - wide, (top + low) / 2 - 0.006, x + wide, (top + low) / 2 + 0.006, frame)
    if rng.random() < 0.5:
        cloth = colour(rng, saturation=(0, 0.7), value=(0.2, 0.9))
        for side in (-1, 1):
            for fold in range(4):
                at = x + side * (wide + 0.05 - 0.02 * fold)
                canvas.box(at - 0.013, top - 0.05, at + 0.013, low + 0.08, cloth * (0.8 + 0.2 * (fold % 2)))


def _picture(rng, canvas, x, horizon):
    wide, high = rng.uniform(0.05, 0.12, 2)
    y = rng.uniform(0.08, max(horizon - 0.22, 0.1))
    canvas.box(x - wide, y - high, x + wide, y + high, colour(rng, (0, 0.15), (0.1, 0.7), (0.1, 0.8)))
    paints = [colour(rng, saturation=(0.1, 0.9), value=(0.2, 1)) for _ in range(4)]
    canvas.box(x - 0.85 * wide, y - 0.85 * high, x + 0.85 * wide, y + 0.85 * high, paints[0])
    canvas.box(x - 0.85 * wide, y + rng.uniform(-0.2, 0.4) * high, x + 0.85 * wide, y + 0.85 * high, paints[1])
    for paint in paints[2:]:
        canvas.disc(x + 0.5 * wide * rng.uniform(-1, 1), y, 0.3 * min(wide, high), paint)


def _cabinet(rng, canvas, x, horizon):
    wide, top = rng.uniform(0.08, 0.2), horizon - rng.uniform(0.12, 0.35)
    wood = colour(rng, (0.03, 0.12), (0.1, 0.7), (0.15, 0.85))
    canvas.box(x - wide, top, x + wide, horizon + 0.02, wood)
    canvas.box(x - wide - 0.01, top - 0.015, x + wide + 0.01, top, 1.25 * wood)
    doors = int(rng.integers(2, 4))
    for k in range(doors):
        left, right = x - wide + 2 * wide * k / doors + 0.008, x - wide + 2 * wide * (k + 1) / doors - 0.008
        canvas.box(left, top + 0.015, right, horizon, 0.85 * wood)
        canvas.disc(right - 0.015, (top + horizon) / 2, 0.006, 1.6 * wood)


def _books(rng, canvas, x0, x1, base):
    """A row of books that stand on `base`."""
    x = x0
    while x < x1:
        wide, high = rng.uniform(0.012, 0.035), rng.uniform(0.06, 0.11)
        if rng.random() < 0.9:
            canvas.box(x, base - high, min(x + wide, x1), base, colour(rng, saturation=(0.1, 0.8), value=(0.15, 0.85)))
        x += wide + 0.002


def _shelf(rng, canvas, x, horizon):
    wide, wood = rng.uniform(0.1, 0.18), colour(rng, (0.03, 0.12), (0.1, 0.7), (0.2, 0.8))
    top, low = rng.uniform(0.0, 0.1), horizon - rng.uniform(0.0, 0.2)
    canvas.box(x - wide - 0.012, top - 0.012, x + wide + 0.012, low, wood)
    canvas.box(x - wide, top, x + wide, low, 0.45 * wood)
    for base in np.arange(top + 0.12, low, 0.135):
        _books(rng, canvas, x - wide, x + wide * rng.uniform(0.2, 1), base)
        canvas.box(x - wide, base, x + wide, base + 0.012, wood)


def _lamp(rng, canvas, x, horizon):
    y, shade = horizon - rng.uniform(0.28, 0.45), colour(rng, (0.06, 0.15), (0.1, 0.5), (0.8, 1.0))
    canvas.box(x - 0.006, y, x + 0.006, horizon + 0.01, colour(rng, value=(0.05, 0.5), saturation=(0, 0.3)))
    canvas.glow(x, y, 0.16, shade, 0.35)
    canvas.polygon([(x - 0.03, y - 0.05), (x + 0.03, y - 0.05), (x + 0.06, y + 0.04), (x - 0.06, y + 0.04)], shade)


def _plant(rng, canvas, x, horizon):
    pot, green = colour(rng, (0, 0.12), (0.2, 0.8), (0.3, 0.8)), colour(rng, (0.22, 0.4), (0.3, 0.8), (0.15, 0.55))
    for angle in rng.uniform(-1.3, 1.3, 12):
        long = rng.uniform(0.1, 0.24)
        tip = x + long * np.sin(angle), horizon - 0.1 - long * np.cos(angle)
        canvas.capsule(x, horizon - 0.1, *tip, rng.uniform(0.008, 0.016), green * rng.uniform(0.7, 1.4))
    canvas.polygon(
        [(x - 0.06, horizon - 0.12), (x + 0.06, horizon - 0.12), (x + 0.04, horizon), (x - 0.04, horizon)], pot
    )


_FURNITURE = (_window, _picture, _cabinet, _shelf, _lamp, _plant)


def _living_room(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    _wall(rng, canvas)
    _skirting(rng, canvas, horizon)
    for x in spread(rng, float(rng.uniform(0.3, 0.5))):
        _FURNITURE[int(rng.integers(len(_FURNITURE)))](rng, canvas, float(x), horizon)


def _library(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    wood = colour(rng, (0.03, 0.1), (0.2, 0.7), (0.2, 0.7))
    canvas.image[:] = 0.4 * wood
    high = rng.uniform(0.125, 0.16)
    for base in np.arange(horizon - 0.03, -0.3, -high):
        for x in np.arange(*SIDES, 0.42):
            _books(rng, canvas, x, x + 0.4 * rng.uniform(0.5, 1), base)
        canvas.box(*band(base, base + 0.015), wood)
    for x in np.arange(*SIDES, 0.42):
        canvas.box(x - 0.02, -0.5, x, horizon, wood)


def _kitchen(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    xs, ys = canvas.grid()
    tile, scale = colour(rng, saturation=(0, 0.35), value=(0.6, 1.0)), rng.uniform(6, 12)
    grout = np.maximum(np.abs((xs * scale) % 1 - 0.5)[None, :], np.abs((ys * scale) % 1 - 0.5)[:, None]) > 0.45
    tone = np.sin(51.7 * np.floor(xs * scale)[None, :] + 23.1 * np.floor(ys * scale)[:, None])
    canvas.image[:] = tile * ((1 + 0.05 * tone) * (1 - 0.2 * grout))[..., None]
    front, top = colour(rng, saturation=(0, 0.6), value=(0.2, 0.95)), horizon - rng.uniform(0.1, 0.2)
    for y0, y1 in ((top, horizon + 0.02), (-0.4, rng.uniform(0.02, 0.12))):
        canvas.box(*band(y0, y1), front)
        for x in np.arange(*SIDES, 0.24):
            canvas.box(x, y0, x + 0.006, y1, 0.6 * front)
            canvas.box(x + 0.1, y0 + 0.03, x + 0.16, y0 + 0.036, 0.3 * front)
    canvas.box(*band(top - 0.025, top), colour(rng, saturation=(0, 0.4), value=(0.1, 0.9)))
    for x in spread(rng, 0.22):
        wide, high = rng.uniform(0.02, 0.05), rng.uniform(0.04, 0.12)
        canvas.box(x - wide, top - 0.025 - high, x + wide, top - 0.025, colour(rng, value=(0.2, 0.9)))


def _studio(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    """Nothing but colours far out of focus: blotches and discs of light."""
    xs, ys = canvas.grid()
    one, two = (colour(rng, saturation=(0, 0.6), value=(0.15, 0.85)) for _ in range(2))
    noise = np.stack([clouds(rng, xs, ys, 3, 4) for _ in range(3)], axis=-1)
    grey = noise.mean(-1, keepdims=True)
    noise = grey + rng.uniform(0.1, 0.6) * (noise - grey)
    canvas.image[:] = np.clip(mix(one, two, 0.5 + (ys[:, None, None] - 0.4)) + 0.3 * noise, 0.03, 1)
    _bokeh(rng, canvas, int(rng.choice([0, 40])), horizon, rng.uniform(0.02, 0.06), 0.35)


def _bokeh(rng: np.random.Generator, canvas: Canvas, count: int, horizon: float, radius: float, opacity: float) -> None:
    """Lights far behind the focus."""
    for _ in range(count):
        x, y = rng.uniform(*SIDES), rng.uniform(-0.1, horizon)
        paint = colour(rng, (0, 1), (0.1, 0.8), (0.7, 1.0))
        canvas.disc(x, y, radius * rng.uniform(0.6, 1.2), paint, opacity * rng.uniform(0.4, 1), softness=0.15)


def _workshop(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    """A brick wall with pipes and tools."""
    xs, ys = canvas.grid()
    brick, high = colour(rng, (0.0, 0.07), (0.2, 0.7), (0.3, 0.75)), rng.uniform(0.03, 0.05)
    row = np.floor(ys / high)[:, None]
    at = xs[None, :] / (2.4 * high) + 0.5 * (row % 2)
    joint = (np.abs(at % 1 - 0.5) > 0.46) | (np.abs(ys[:, None] / high - row - 0.5) > 0.4)
    tone = 0.16 * np.sin(37.7 * np.floor(at) + 17.3 * row)
    canvas.image[:] = np.where(joint[..., None], 0.75 - 0.3 * brick, brick * (1 + tone)[..., None])
    for x in spread(rng, 0.14):
        y, long = rng.uniform(0.05, horizon - 0.2), rng.uniform(0.06, 0.16)
        handle, head = colour(rng, (0, 0.15), (0.3, 1), (0.2, 0.9)), colour(rng, saturation=(0, 0.1), value=(0.2, 0.7))
        canvas.capsule(x, y, x, y + long, 0.01, handle)
        canvas.capsule(x - rng.uniform(0.01, 0.04), y, x + rng.uniform(0.01, 0.04), y, 0.012, head)
    y = rng.uniform(-0.05, 0.1)
    canvas.capsule(SIDES[0], y, SIDES[1], y, 0.02, colour(rng, saturation=(0, 0.6), value=(0.2, 0.8)))


ROOMS = (_living_room, _living_room, _living_room, _library, _kitchen, _studio)
HARD_ROOMS = (_workshop,)
