"""The still set behind the things: a room, a landscape or a night, out of focus, and the floor before it."""

import numpy as np

from .camera import MARGIN
from .canvas import Canvas, View
from .look import clouds, colour, pink, repeat, soften
from .scene import Light, Painter, Setting
from .sets import HARD_SETS, SETS

NIGHT = 0.55  # brightness of the floor at night


def draw_backdrop(
    rng: np.random.Generator, setting: Setting, light: Light, standing: list[Painter], height: int, width: int
) -> np.ndarray:
    """The set with what stands in it (H', W', 3), larger than the picture by the camera's margin."""
    unit = min(height, width)
    tall, broad = round(height * (1 + 2 * MARGIN)), round(width * (1 + 2 * MARGIN))
    view = View(unit, broad / 2 - 0.5 * unit, tall / 2 - 0.5 * unit)
    canvas = Canvas(np.empty((tall, broad, 3), np.float32), view)
    xs, ys = canvas.grid()
    sets = (HARD_SETS if setting.hard else SETS)[setting.place]
    sets[int(rng.integers(len(sets)))](rng, canvas, setting.horizon)
    image = soften(canvas.image, float(rng.choice([0.0, 0.006, 0.014, 0.024])) * unit)
    image *= (1 + rng.uniform(0.01, 0.05) * repeat(pink(rng, 256, 1.3), xs[None, :], ys[:, None]))[..., None]
    image += _share_of_floor(rng, setting, xs, ys, unit) * (_floor(rng, setting, xs, ys) - image)
    fall_off = 1 + rng.uniform(-0.35, 0.35) * (xs[None, :] - 0.5) + rng.uniform(-0.2, 0.2) * (ys[:, None] - 0.5)
    shade = 1 + rng.uniform(0, 0.15) * clouds(rng, xs, ys, 3, 2)
    canvas.image = (image * np.clip(fall_off * shade, 0.4, 1.6)[..., None] * light.tint).astype(np.float32)
    for painter in standing:
        painter.shadow(canvas, 0.0)
        painter.draw(canvas, 0.0)
    return canvas.image


def _share_of_floor(rng: np.random.Generator, setting: Setting, xs, ys, unit: int) -> np.ndarray:
    """1 below the horizon, 0 above it (H', W', 1); grass has no straight edge."""
    rough = 0.008 * pink(rng, 256, 0.5)[0] if setting.floor == "lawn" else np.zeros(256)
    edge = setting.horizon + rough[np.floor(xs * 100).astype(int) % 256]
    return np.clip((ys[:, None] - edge[None, :]) * unit + 0.5, 0, 1)[..., None].astype(np.float32)


def _floor(rng: np.random.Generator, setting: Setting, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """The floor in perspective (H', W', 3); rows above the horizon repeat the first one."""
    depth = np.maximum(ys - setting.horizon, 0.004)[:, None]
    near = 1 / (depth + 0.25)
    across, along = (xs[None, :] - 0.5) * near + 7, 0.6 * near  # position on the plane of the floor
    shade = _FLOORS[setting.floor][1](rng, across, along)
    shade = shade * np.clip(depth / 0.08, 0.25, 1)  # what is far is too fine to be seen
    base = colour(rng, *_FLOORS[setting.floor][0])
    glare = rng.uniform(0, 0.25) * np.exp(-(((xs - rng.uniform(0, 1)) / 0.25) ** 2))[None, :] * np.exp(-depth / 0.2)
    dim = NIGHT if setting.place == "night" else 1.0
    border = 1 - 0.35 * np.exp(-depth / 0.02) if setting.place == "room" else 1.0  # no light in the corner
    return (dim * (base * ((1 + shade) * border)[..., None] + glare[..., None] * 0.5)).astype(np.float32)


def _planks(rng, u, v):
    wide = rng.uniform(3, 5)
    plank = np.floor(u * wide)
    seam = np.abs(u * wide - plank - 0.5) > 0.46
    grain = repeat(pink(rng, 128, 1.0), 4 * u, 0.4 * v + 0.37 * plank)
    return 0.12 * np.sin(plank * 12.9) + 0.07 * grain - 0.35 * seam


def _slabs(rng, u, v):
    wide = rng.uniform(1.2, 2.2)
    row = np.floor(2 * v * wide)
    at = u * wide + 0.5 * (row % 2)
    seam = (np.abs(at % 1 - 0.5) > 0.47) | (np.abs(2 * v * wide - row - 0.5) > 0.45)
    tone = np.sin(37.7 * np.floor(at) + 17.3 * row)
    return 0.1 * tone + 0.1 * repeat(pink(rng, 128, 0.8), u, v) - 0.3 * seam


def _tiles(rng, u, v):
    wide = rng.uniform(2.5, 4)
    check = np.sign(np.sin(np.pi * wide * u) * np.sin(np.pi * wide * v))
    return rng.uniform(0.08, 0.25) * check + 0.02 * repeat(pink(rng), u, v)


def _carpet(rng, u, v):
    weave = repeat(pink(rng, 128, 0.2), u, v)
    figure = np.sin(2 * np.pi * u * rng.uniform(1, 3)) * np.sin(2 * np.pi * v * rng.uniform(1, 3))
    return 0.12 * weave + (0.2 if rng.random() < 0.5 else 0.0) * np.sign(figure) * (np.abs(figure) > 0.3)


def _concrete(rng, u, v):
    return 0.1 * repeat(pink(rng, 128, 1.1), 0.5 * u, 0.5 * v) + 0.06 * repeat(pink(rng, 128, 0.2), u, v)


def _lawn(rng, u, v):
    return 0.22 * repeat(pink(rng, 128, 0.3), 1.5 * u, 0.8 * v) + 0.08 * repeat(pink(rng, 128, 1.2), 0.3 * u, 0.3 * v)


# Colours (hue, saturation, value) and pattern of every floor.
_FLOORS = {
    "wood": (((0.06, 0.1), (0.35, 0.65), (0.4, 0.75)), _planks),
    "stone": (((0.03, 0.65), (0, 0.14), (0.4, 0.7)), _slabs),
    "tile": (((0, 1), (0.05, 0.35), (0.5, 0.9)), _tiles),
    "carpet": (((0, 1), (0.3, 0.7), (0.25, 0.6)), _carpet),
    "concrete": (((0.05, 0.65), (0, 0.08), (0.4, 0.7)), _concrete),
    "lawn": (((0.22, 0.34), (0.4, 0.75), (0.3, 0.55)), _lawn),
}
