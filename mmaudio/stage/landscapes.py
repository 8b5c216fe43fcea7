"""Landscapes and nights that lie behind the floor, painted once a clip.

Every set is a function of (rng, canvas, horizon) that fills the canvas; what is below the horizon is covered later.
"""

import numpy as np

from .canvas import Canvas
from .layout import SIDES, band, mix, spread
from .look import clouds, colour, pink, repeat, value_noise


def _sky(rng: np.random.Generator, canvas: Canvas) -> np.ndarray:
    """Fill with a sky; returns the colour of the haze at its lower edge."""
    xs, ys = canvas.grid()
    high = colour(rng, (0.54, 0.64), (0.15, 0.7), (0.5, 0.95))
    low = colour(rng, (0.05, 0.62), (0.05, 0.3), (0.75, 0.98))
    sky = mix(high, low, ys[:, None, None] * 1.6 + 0 * xs[None, :, None])
    cover = np.clip(clouds(rng, xs, 2 * ys, int(rng.integers(3, 6)), 5) + rng.uniform(-0.6, 0.4), 0, 1) * 0.8
    canvas.image[:] = mix(sky, np.full(3, rng.uniform(0.75, 1.0), np.float32), cover[..., None])
    return low


def _ridge(rng: np.random.Generator, canvas: Canvas, base: float, rise: float, paint: np.ndarray, cells=8) -> None:
    """A line of hills or treetops at about y = base, filled below."""
    xs, ys = canvas.grid()
    line = base + sum(rise * 0.5**k * value_noise(rng, xs, np.zeros(1), cells * 2**k)[0] for k in range(4))
    cover = np.clip((ys[:, None] - line[None, :]) * canvas.view.scale + 0.5, 0, 1)[..., None]
    rough = 1 + 0.1 * repeat(pink(rng, 128, 0.6), 2 * xs[None, :], 3 * ys[:, None])[..., None]
    canvas.image += (cover * (paint * rough - canvas.image)).astype(np.float32)


def _tree(rng: np.random.Generator, canvas: Canvas, x: float, base: float, high: float, green: np.ndarray) -> None:
    trunk = colour(rng, (0.04, 0.1), (0.2, 0.5), (0.12, 0.35))
    canvas.box(x - 0.04 * high, base - 0.6 * high, x + 0.04 * high, base, trunk)
    if rng.random() < 0.4:  # a conifer
        for k in range(4):
            y, half = base - high * (0.15 + 0.22 * k), high * (0.26 - 0.05 * k)
            canvas.polygon([(x - half, y), (x + half, y), (x, y - 0.36 * high)], green * (0.75 + 0.1 * k))
        return
    for dx, dy, shade in rng.uniform((-1, -1, 0.6), (1, 1, 1.35), (14, 3)):
        lit = shade * (1 - 0.25 * dy)
        canvas.disc(x + 0.22 * high * dx, base - high * (0.68 - 0.22 * dy), 0.13 * high, green * lit, 0.9, 0.4)


def _hills(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    haze = _sky(rng, canvas)
    green = colour(rng, (0.18, 0.4), (0.2, 0.6), (0.2, 0.55))
    ridges = int(rng.integers(2, 5))
    for k in range(ridges):
        share = (k + 1) / ridges
        base = horizon - 0.04 - rng.uniform(0.08, 0.2) * (1 - share)
        _ridge(rng, canvas, base, 0.06, mix(haze, green, 0.25 + 0.75 * share), int(rng.integers(4, 10)))
    for x in spread(rng, 0.3):
        _tree(rng, canvas, float(x), horizon + 0.005, float(rng.uniform(0.08, 0.22)), green * 0.8)


def _park(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    haze = _sky(rng, canvas)
    green = colour(rng, (0.1, 0.4), (0.3, 0.75), (0.25, 0.6))
    _ridge(rng, canvas, horizon - rng.uniform(0.05, 0.2), 0.03, mix(haze, green, 0.6), 24)
    for x in spread(rng, float(rng.uniform(0.15, 0.3))):
        _tree(rng, canvas, float(x), horizon + 0.01, float(rng.uniform(0.25, 0.5)), green * rng.uniform(0.7, 1.1))
    if rng.random() < 0.5:
        wood = colour(rng, (0, 0.15), (0, 0.5), (0.3, 0.95))
        for x in np.arange(*SIDES, 0.05):
            canvas.box(x, horizon - 0.1, x + 0.015, horizon + 0.01, wood)
        canvas.box(*band(horizon - 0.08, horizon - 0.065), wood)


def _houses(rng: np.random.Generator, canvas: Canvas, horizon: float, paints, lit: float, glass: np.ndarray) -> None:
    """A row of houses; a share `lit` of the windows is of light, the others of `glass`."""
    x = SIDES[0]
    while x < SIDES[1]:
        wide, top = rng.uniform(0.14, 0.32), horizon - rng.uniform(0.15, 0.55)
        paint = paints(rng)
        canvas.box(x, top, x + wide, horizon + 0.02, paint)
        if rng.random() < 0.4:
            roof = [(x - 0.01, top), (x + wide + 0.01, top), (x + wide / 2, top - rng.uniform(0.05, 0.12))]
            canvas.polygon(roof, 0.6 * paint)
        apart, size = rng.uniform(0.05, 0.075), rng.uniform(0.012, 0.02)
        for wx in np.arange(x + apart / 2, x + wide - size, apart):
            for wy in np.arange(top + apart / 2, horizon - size, 1.2 * apart):
                light = colour(rng, (0.09, 0.15), (0.2, 0.6), (0.8, 1.0))
                canvas.box(wx - size, wy - size, wx + size, wy + size, light if rng.random() < lit else glass)
        x += wide + rng.choice([0.0, 0.06])


def _town(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    haze = _sky(rng, canvas)
    _ridge(rng, canvas, horizon - 0.2, 0.05, 0.8 * haze, 12)
    _houses(rng, canvas, horizon, lambda r: colour(r, (0, 0.15), (0, 0.5), (0.35, 0.9)), 0.05, 0.45 * haze)
    if rng.random() < 0.5:
        green = colour(rng, (0.2, 0.4), (0.3, 0.7), (0.2, 0.5))
        _tree(rng, canvas, float(rng.uniform(0, 1)), horizon + 0.01, 0.3, green)


def _coast(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    """The sea with glittering waves, cliffs and sails."""
    haze = _sky(rng, canvas)
    xs, ys = canvas.grid()
    line, sea = horizon - rng.uniform(0.12, 0.2), colour(rng, (0.48, 0.62), (0.3, 0.8), (0.3, 0.7))
    depth = np.maximum(ys - line, 0)[:, None]
    waves = repeat(pink(rng, 128, 0.4), xs[None, :] / (1 + 4 * depth), 0.4 / (depth + 0.05))
    water = sea * (1 + 0.2 * waves)[..., None]
    cover = np.clip((ys - line) * canvas.view.scale + 0.5, 0, 1)[:, None, None]
    canvas.image += (cover * (mix(haze, water, depth[..., None] * 6 + 0.4) - canvas.image)).astype(np.float32)
    for x in rng.uniform(*SIDES, 6):
        high = rng.uniform(0.05, 0.12)
        canvas.polygon([(x, line + 0.02), (x + 0.5 * high, line + 0.02), (x, line - high)], np.ones(3, np.float32))
    x = rng.uniform(-0.5, 1.2)
    rock = colour(rng, (0.05, 0.12), (0.1, 0.4), (0.3, 0.6))
    canvas.polygon([(x, line - 0.15), (x + 0.25, line - 0.11), (x + 0.35, horizon), (x - 0.1, horizon)], rock)


def _night_sky(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    """Dark, with stars, perhaps a moon, and a glow at the horizon."""
    xs, ys = canvas.grid()
    high, low = colour(rng, (0.58, 0.72), (0.4, 0.9), (0.05, 0.13)), colour(rng, (0.5, 0.8), (0.2, 0.7), (0.1, 0.26))
    canvas.image[:] = mix(high, low, (ys / max(horizon, 0.1))[:, None, None] ** 2 + 0 * xs[None, :, None])
    count = int(rng.integers(40, 160))
    for size in (0.0025, 0.004):
        canvas.dots(rng.uniform(*SIDES, count), rng.uniform(-0.3, horizon, count), size, np.float32([0.9, 0.9, 1]), 0.8)
    if rng.random() < 0.6:
        x, y, radius = rng.uniform(0.05, 0.95), rng.uniform(0.02, 0.25), rng.uniform(0.02, 0.05)
        pale = colour(rng, (0.1, 0.17), (0.05, 0.3), (0.85, 1.0))
        canvas.glow(x, y, 3 * radius, pale, 0.2)
        canvas.disc(x, y, radius, pale)
        for dx, dy in rng.uniform(-0.5, 0.5, (3, 2)) * radius:
            canvas.disc(x + dx, y + dy, 0.25 * radius, 0.8 * pale, 0.8, 0.4)


def _night_street(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    _night_sky(rng, canvas, horizon)
    dark = np.full(3, 0.03, np.float32)
    _houses(rng, canvas, horizon, lambda r: colour(r, (0, 1), (0, 0.5), (0.06, 0.2)), rng.uniform(0.15, 0.5), dark)
    warm = colour(rng, (0.07, 0.14), (0.3, 0.7), (0.9, 1.0))
    for x in spread(rng, 0.6):
        y = horizon - rng.uniform(0.2, 0.35)
        canvas.box(x - 0.006, y, x + 0.006, horizon + 0.02, dark)
        canvas.glow(x, y, 0.1, warm, 0.6)
        canvas.disc(x, y, 0.014, warm)


def _night_country(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    _night_sky(rng, canvas, horizon)
    for k in range(int(rng.integers(1, 4))):
        _ridge(rng, canvas, horizon - 0.12 + 0.04 * k, 0.05, colour(rng, (0.4, 0.7), (0.2, 0.6), (0.03, 0.09)))
    for x in spread(rng, 0.25):
        _tree(rng, canvas, float(x), horizon + 0.01, float(rng.uniform(0.1, 0.25)), np.float32([0.03, 0.05, 0.05]))
    for x in rng.uniform(*SIDES, 8):
        canvas.glow(x, horizon - rng.uniform(0.01, 0.08), 0.012, np.float32([1.0, 0.75, 0.4]), 0.8)


def _harbour(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    """The lights of a town far out of focus, and their reflections."""
    _night_sky(rng, canvas, horizon)
    shore = horizon - 0.15
    canvas.box(*band(shore, horizon + 0.02), np.float32([0.03, 0.05, 0.09]))
    for x in spread(rng, 0.06):
        paint, radius = colour(rng, (0.0, 0.6), (0.3, 0.9), (0.7, 1.0)), rng.uniform(0.012, 0.03)
        canvas.disc(x, shore - rng.uniform(0, 0.1), radius, paint, 0.7, softness=0.2)
        canvas.box(x - 0.4 * radius, shore + 0.01, x + 0.4 * radius, shore + rng.uniform(0.05, 0.14), paint, 0.3)


LANDSCAPES = (_hills, _park, _town)
HARD_LANDSCAPES = (_coast,)
NIGHTS = (_night_street, _night_country)
HARD_NIGHTS = (_harbour,)
