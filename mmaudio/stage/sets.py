"""What stands behind the floor: rooms, landscapes and nights, painted once a clip.

Every set is a function of (rng, canvas, horizon) that fills the canvas; what is below the horizon is covered later.
"""

import numpy as np

from .canvas import Canvas
from .look import clouds, colour, pink, repeat, value_noise

SIDES = (-0.8, 1.8)  # x that a set reaches: seen in very wide pictures


def _spread(rng: np.random.Generator, apart: float) -> np.ndarray:
    """Places along the whole set, about `apart` from each other."""
    places = np.arange(SIDES[0], SIDES[1], apart)
    return places + rng.uniform(-0.3, 0.3, len(places)) * apart


def _mix(one: np.ndarray, two: np.ndarray, share) -> np.ndarray:
    return one + (two - one) * np.clip(share, 0, 1)


# Rooms


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
    canvas.image[:] = _mix(base, other, 0.5 + 0.5 * pattern[..., None])


def _skirting(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    canvas.box(*_row(horizon - rng.uniform(0.015, 0.04), horizon + 0.02), colour(rng, (0, 1), (0, 0.3), (0.2, 0.95)))


def _row(y0: float, y1: float) -> tuple[float, float, float, float]:
    return SIDES[0], y0, SIDES[1], y1


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
    for x in _spread(rng, float(rng.uniform(0.3, 0.5))):
        _FURNITURE[int(rng.integers(len(_FURNITURE)))](rng, canvas, float(x), horizon)


def _library(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    wood = colour(rng, (0.03, 0.1), (0.2, 0.7), (0.2, 0.7))
    canvas.image[:] = 0.4 * wood
    high = rng.uniform(0.125, 0.16)
    for base in np.arange(horizon - 0.03, -0.3, -high):
        for x in np.arange(*SIDES, 0.42):
            _books(rng, canvas, x, x + 0.4 * rng.uniform(0.5, 1), base)
        canvas.box(*_row(base, base + 0.015), wood)
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
        canvas.box(*_row(y0, y1), front)
        for x in np.arange(*SIDES, 0.24):
            canvas.box(x, y0, x + 0.006, y1, 0.6 * front)
            canvas.box(x + 0.1, y0 + 0.03, x + 0.16, y0 + 0.036, 0.3 * front)
    canvas.box(*_row(top - 0.025, top), colour(rng, saturation=(0, 0.4), value=(0.1, 0.9)))
    for x in _spread(rng, 0.22):
        wide, high = rng.uniform(0.02, 0.05), rng.uniform(0.04, 0.12)
        canvas.box(x - wide, top - 0.025 - high, x + wide, top - 0.025, colour(rng, value=(0.2, 0.9)))


def _studio(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    """Nothing but colours far out of focus: blotches and discs of light."""
    xs, ys = canvas.grid()
    one, two = (colour(rng, saturation=(0, 0.6), value=(0.15, 0.85)) for _ in range(2))
    noise = np.stack([clouds(rng, xs, ys, 3, 4) for _ in range(3)], axis=-1)
    grey = noise.mean(-1, keepdims=True)
    noise = grey + rng.uniform(0.1, 0.6) * (noise - grey)
    canvas.image[:] = np.clip(_mix(one, two, 0.5 + (ys[:, None, None] - 0.4)) + 0.3 * noise, 0.03, 1)
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
    for x in _spread(rng, 0.14):
        y, long = rng.uniform(0.05, horizon - 0.2), rng.uniform(0.06, 0.16)
        handle, head = colour(rng, (0, 0.15), (0.3, 1), (0.2, 0.9)), colour(rng, saturation=(0, 0.1), value=(0.2, 0.7))
        canvas.capsule(x, y, x, y + long, 0.01, handle)
        canvas.capsule(x - rng.uniform(0.01, 0.04), y, x + rng.uniform(0.01, 0.04), y, 0.012, head)
    y = rng.uniform(-0.05, 0.1)
    canvas.capsule(SIDES[0], y, SIDES[1], y, 0.02, colour(rng, saturation=(0, 0.6), value=(0.2, 0.8)))


# Landscapes


def _sky(rng: np.random.Generator, canvas: Canvas) -> np.ndarray:
    """Fill with a sky; returns the colour of the haze at its lower edge."""
    xs, ys = canvas.grid()
    high = colour(rng, (0.54, 0.64), (0.15, 0.7), (0.5, 0.95))
    low = colour(rng, (0.05, 0.62), (0.05, 0.3), (0.75, 0.98))
    sky = _mix(high, low, ys[:, None, None] * 1.6 + 0 * xs[None, :, None])
    cover = np.clip(clouds(rng, xs, 2 * ys, int(rng.integers(3, 6)), 5) + rng.uniform(-0.6, 0.4), 0, 1) * 0.8
    canvas.image[:] = _mix(sky, np.full(3, rng.uniform(0.75, 1.0), np.float32), cover[..., None])
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
        _ridge(rng, canvas, base, 0.06, _mix(haze, green, 0.25 + 0.75 * share), int(rng.integers(4, 10)))
    for x in _spread(rng, 0.3):
        _tree(rng, canvas, float(x), horizon + 0.005, float(rng.uniform(0.08, 0.22)), green * 0.8)


def _park(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    haze = _sky(rng, canvas)
    green = colour(rng, (0.1, 0.4), (0.3, 0.75), (0.25, 0.6))
    _ridge(rng, canvas, horizon - rng.uniform(0.05, 0.2), 0.03, _mix(haze, green, 0.6), 24)
    for x in _spread(rng, float(rng.uniform(0.15, 0.3))):
        _tree(rng, canvas, float(x), horizon + 0.01, float(rng.uniform(0.25, 0.5)), green * rng.uniform(0.7, 1.1))
    if rng.random() < 0.5:
        wood = colour(rng, (0, 0.15), (0, 0.5), (0.3, 0.95))
        for x in np.arange(*SIDES, 0.05):
            canvas.box(x, horizon - 0.1, x + 0.015, horizon + 0.01, wood)
        canvas.box(*_row(horizon - 0.08, horizon - 0.065), wood)


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
    canvas.image += (cover * (_mix(haze, water, depth[..., None] * 6 + 0.4) - canvas.image)).astype(np.float32)
    for x in rng.uniform(*SIDES, 6):
        high = rng.uniform(0.05, 0.12)
        canvas.polygon([(x, line + 0.02), (x + 0.5 * high, line + 0.02), (x, line - high)], np.ones(3, np.float32))
    x = rng.uniform(-0.5, 1.2)
    rock = colour(rng, (0.05, 0.12), (0.1, 0.4), (0.3, 0.6))
    canvas.polygon([(x, line - 0.15), (x + 0.25, line - 0.11), (x + 0.35, horizon), (x - 0.1, horizon)], rock)


# Nights


def _night_sky(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    """Dark, with stars, perhaps a moon, and a glow at the horizon."""
    xs, ys = canvas.grid()
    high, low = colour(rng, (0.58, 0.72), (0.4, 0.9), (0.05, 0.13)), colour(rng, (0.5, 0.8), (0.2, 0.7), (0.1, 0.26))
    canvas.image[:] = _mix(high, low, (ys / max(horizon, 0.1))[:, None, None] ** 2 + 0 * xs[None, :, None])
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
    for x in _spread(rng, 0.6):
        y = horizon - rng.uniform(0.2, 0.35)
        canvas.box(x - 0.006, y, x + 0.006, horizon + 0.02, dark)
        canvas.glow(x, y, 0.1, warm, 0.6)
        canvas.disc(x, y, 0.014, warm)


def _night_country(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    _night_sky(rng, canvas, horizon)
    for k in range(int(rng.integers(1, 4))):
        _ridge(rng, canvas, horizon - 0.12 + 0.04 * k, 0.05, colour(rng, (0.4, 0.7), (0.2, 0.6), (0.03, 0.09)))
    for x in _spread(rng, 0.25):
        _tree(rng, canvas, float(x), horizon + 0.01, float(rng.uniform(0.1, 0.25)), np.float32([0.03, 0.05, 0.05]))
    for x in rng.uniform(*SIDES, 8):
        canvas.glow(x, horizon - rng.uniform(0.01, 0.08), 0.012, np.float32([1.0, 0.75, 0.4]), 0.8)


def _harbour(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    """The lights of a town far out of focus, and their reflections."""
    _night_sky(rng, canvas, horizon)
    shore = horizon - 0.15
    canvas.box(*_row(shore, horizon + 0.02), np.float32([0.03, 0.05, 0.09]))
    for x in _spread(rng, 0.06):
        paint, radius = colour(rng, (0.0, 0.6), (0.3, 0.9), (0.7, 1.0)), rng.uniform(0.012, 0.03)
        canvas.disc(x, shore - rng.uniform(0, 0.1), radius, paint, 0.7, softness=0.2)
        canvas.box(x - 0.4 * radius, shore + 0.01, x + 0.4 * radius, shore + rng.uniform(0.05, 0.14), paint, 0.3)


SETS = {
    "room": (_living_room, _living_room, _living_room, _library, _kitchen, _studio),
    "outdoors": (_hills, _park, _town),
    "night": (_night_street, _night_country),
}
HARD_SETS = {"room": (_workshop,), "outdoors": (_coast,), "night": (_harbour,)}  # of the split test_hard alone
