"""Surfaces: textures of materials, floors and backgrounds, as float32 colours in 0..1."""

import colorsys
from dataclasses import dataclass

import numpy as np

TEXTURE = 96  # texels across an object's texture


@dataclass(frozen=True)
class Finish:
    """How a material meets light."""

    ambient: float
    diffuse: float
    specular: float
    sharpness: float  # exponent of the highlight
    opacity: float = 1.0  # in the middle of the object; rims are opaque
    mirror: float = 0.0  # share of a reflected horizon


FINISHES = {
    "wood": Finish(0.50, 0.60, 0.06, 8),
    "metal": Finish(0.35, 0.35, 0.90, 28, mirror=0.75),
    "glass": Finish(0.65, 0.30, 1.00, 45, opacity=0.38),
    "rubber": Finish(0.55, 0.50, 0.03, 4),
    "ceramic": Finish(0.66, 0.40, 0.85, 60),
    "plastic": Finish(0.52, 0.55, 0.40, 16),
    "cardboard": Finish(0.60, 0.50, 0.0, 4),
    "bamboo": Finish(0.55, 0.55, 0.20, 12),
    "leather": Finish(0.45, 0.50, 0.15, 8),
    "bronze": Finish(0.35, 0.45, 0.70, 20, mirror=0.45),
    "stone": Finish(0.50, 0.55, 0.04, 4),
}


def value_noise(rng: np.random.Generator, xs: np.ndarray, ys: np.ndarray, cells: int) -> np.ndarray:
    """Smooth noise (len(ys), len(xs)) in about -1..1 at stage coordinates: one field at any resolution."""
    lattice = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    return _interpolation(ys, cells) @ lattice @ _interpolation(xs, cells).T


def _interpolation(at: np.ndarray, cells: int) -> np.ndarray:
    """Matrix (len(at), cells + 1) of smooth interpolation weights on a lattice over -0.5..1.5."""
    place = np.clip((np.asarray(at) + 0.5) / 2 * cells, 0, cells - 1e-4)
    index = place.astype(int)
    part = place - index
    part = part * part * (3 - 2 * part)
    weights = np.zeros((len(place), cells + 1), np.float32)
    rows = np.arange(len(place))
    weights[rows, index] = 1 - part
    weights[rows, index + 1] = part
    return weights


def clouds(rng: np.random.Generator, xs: np.ndarray, ys: np.ndarray, first: int = 3, octaves: int = 4) -> np.ndarray:
    """Low-frequency noise (len(ys), len(xs)), like defocused surroundings."""
    return sum(value_noise(rng, xs, ys, first * 2**k) * 0.6**k for k in range(octaves))


def colour(rng: np.random.Generator, hue=(0.0, 1.0), saturation=(0.0, 1.0), value=(0.0, 1.0)) -> np.ndarray:
    """A random RGB colour (3,) within HSV ranges."""
    hsv = rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value)
    return np.array(colorsys.hsv_to_rgb(*hsv), np.float32)


def material_texture(material: str, rng: np.random.Generator) -> np.ndarray:
    """Surface colours (TEXTURE, TEXTURE, 3) of one object of a material."""
    at = (np.arange(TEXTURE, dtype=np.float32) + 0.5) / TEXTURE
    noise = clouds(rng, at * 2 - 0.5, at * 2 - 0.5, 6, 3)
    x, y = np.meshgrid(at, at)
    if material == "wood":
        base = colour(rng, (0.055, 0.10), (0.5, 0.75), (0.5, 0.8))
        rings = np.sin(2 * np.pi * ((x * rng.uniform(-0.2, 0.2) + y) * rng.uniform(3, 5) + 0.25 * noise))
        return (base * (1 + 0.22 * rings + 0.08 * noise)[..., None]).astype(np.float32)
    if material == "metal":
        tint = [(0.0, 0.0, 0.75), (0.58, 0.08, 0.72), (0.12, 0.45, 0.8), (0.06, 0.5, 0.75)]
        chosen = colorsys.hsv_to_rgb(*tint[int(rng.choice(4, p=[0.5, 0.3, 0.12, 0.08]))])
        return np.array(chosen, np.float32) * (1 + 0.05 * noise[:, :1, None]) * np.ones((1, TEXTURE, 1), np.float32)
    if material == "glass":
        return colour(rng, (0.48, 0.60), (0.25, 0.5), (0.85, 1.0)) * np.ones((TEXTURE, TEXTURE, 1), np.float32)
    if material == "rubber":
        base = colour(rng, (0, 1), (0.0, 0.35), (0.10, 0.22))
        seam = np.abs(x - y) < 0.05 if rng.random() < 0.5 else np.zeros_like(x)
        return (base * (1 + 0.2 * noise)[..., None] + 0.16 * seam[..., None]).astype(np.float32)
    if material == "ceramic":
        base = colour(rng, (0.08, 0.15), (0.0, 0.10), (0.9, 1.0))
        glaze = colour(rng, (0.55, 0.68), (0.6, 0.9), (0.35, 0.7))
        band = (np.abs(y - rng.uniform(0.3, 0.6)) < 0.06) if rng.random() < 0.5 else np.zeros_like(y, bool)
        return np.where(band[..., None], glaze, base * (1 + 0.02 * noise)[..., None]).astype(np.float32)
    if material == "cardboard":  # brown, with flutes and a strip of tape
        base = colour(rng, (0.07, 0.09), (0.35, 0.5), (0.6, 0.75))
        flutes = np.sin(2 * np.pi * 12 * x) * 0.06
        tape = (np.abs(y - 0.5) < 0.07)[..., None]
        return np.where(tape, base * 1.25, base * (1 + flutes + 0.03 * noise)[..., None]).astype(np.float32)
    if material == "bamboo":  # greenish yellow, with dark nodes across
        base = colour(rng, (0.14, 0.20), (0.45, 0.7), (0.6, 0.85))
        node = np.abs((y * 3 + rng.uniform(0, 1)) % 1 - 0.5) < 0.06
        grain = 0.06 * np.sin(2 * np.pi * 20 * x)
        return (base * (1 + grain - 0.45 * node)[..., None]).astype(np.float32)
    if material == "leather":  # dark red-brown, creased, with light stitches
        base = colour(rng, (0.0, 0.05), (0.6, 0.85), (0.3, 0.5))
        stitch = (np.abs(x - 0.5) < 0.03) & (np.sin(2 * np.pi * 10 * y) > 0)
        return (base * (1 + 0.25 * noise)[..., None] + 0.5 * stitch[..., None]).astype(np.float32)
    if material == "bronze":  # dull gold with green patina
        base, patina = (
            colour(rng, (0.09, 0.12), (0.6, 0.8), (0.5, 0.7)),
            colour(rng, (0.42, 0.48), (0.3, 0.5), (0.4, 0.6)),
        )
        spots = np.clip(noise * 1.5 - 0.3, 0, 1)[..., None]
        return (base * (1 - spots) + patina * spots).astype(np.float32)
    if material == "stone":
        speckles = value_noise(rng, at * 2 - 0.5, at * 2 - 0.5, 48) > 0.25
        base = colour(rng, (0.05, 0.65), (0.0, 0.12), (0.35, 0.6))
        return (base * (1 + 0.15 * noise - 0.45 * speckles)[..., None]).astype(np.float32)
    base = colour(rng, (0, 1), (0.8, 1.0), (0.75, 1.0))  # plastic
    return (base * np.ones((TEXTURE, TEXTURE, 1))).astype(np.float32)


def shrink(texture: np.ndarray, pixels: float) -> np.ndarray:
    """The texture at about the resolution it is seen at, so that moving it does not flicker."""
    factor = 1
    while TEXTURE % (factor * 2) == 0 and TEXTURE / (factor * 2) >= max(pixels, 6):
        factor *= 2
    texels = TEXTURE // factor
    return np.ascontiguousarray(texture.reshape(texels, factor, texels, factor, 3).mean((1, 3)))


def wall(rng: np.random.Generator, xs: np.ndarray, ys: np.ndarray, place: str = "room") -> np.ndarray:
    """The background behind the floor (len(ys), len(xs), 3): a wall, or a sky."""
    if place != "room":
        return _sky(rng, xs, ys)
    one, two = (colour(rng, saturation=(0, 0.6), value=(0.15, 0.95)) for _ in range(2))
    x, y = xs[None, :], ys[:, None]
    kind = rng.choice(["gradient", "clouds", "photo", "stripes", "checker"], p=[0.2, 0.25, 0.25, 0.15, 0.15])
    if kind == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        mix = 0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
    elif kind == "clouds":
        mix = 0.5 + 0.6 * clouds(rng, xs, ys, int(rng.integers(3, 12)))
    elif kind == "photo":  # independent noise in every channel: blotches of colour as in a defocused room
        noise = np.stack([clouds(rng, xs, ys, 4, 5) for _ in range(3)], axis=-1)
        grey = noise.mean(-1, keepdims=True)
        noise = grey + rng.uniform(0.1, 0.6) * (noise - grey)
        return np.clip((one + two) / 2 + 0.35 * noise, 0.03, 1).astype(np.float32)
    else:
        scale = rng.uniform(3, 10)
        mix = np.sin(2 * np.pi * scale * x + rng.uniform(0, 6)) * np.ones_like(y)
        if kind == "checker":
            mix = mix * np.sin(2 * np.pi * scale * y)
        mix = 0.5 + 0.5 * np.clip(4 * mix, -1, 1)
        two = one + rng.uniform(0.1, 0.5) * (two - one)
    mix = np.clip(mix, 0, 1)[..., None]
    return (one * (1 - mix) + two * mix).astype(np.float32)


def _sky(rng: np.random.Generator, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    high, low = colour(rng, (0.54, 0.64), (0.2, 0.7), (0.5, 0.95)), colour(rng, (0.05, 0.62), (0.05, 0.3), (0.7, 0.98))
    mix = np.clip(ys[:, None] * 1.4 + 0.0 * xs[None, :], 0, 1)
    cover = np.clip(clouds(rng, xs, ys, int(rng.integers(3, 7))) + rng.uniform(-0.6, 0.4), 0, 1) * 0.7
    sky = high * (1 - mix[..., None]) + low * mix[..., None]
    return (sky + cover[..., None] * (rng.uniform(0.7, 1.0) - sky)).astype(np.float32)


def ground(rng: np.random.Generator, floor: str, horizon: float, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """The floor in simple perspective (len(ys), len(xs), 3); rows above the horizon repeat the first one."""
    depth = np.maximum(ys - horizon, 0.004)[:, None]
    across = (xs[None, :] - 0.5) / (depth + 0.35)  # position on the floor plane
    along = 0.35 / (depth + 0.12)
    fine = clouds(rng, xs, ys * 1.5, 24, 2)
    if floor == "lawn":
        base = colour(rng, (0.22, 0.36), (0.4, 0.8), (0.25, 0.6))
        shade = 0.25 * clouds(rng, xs, ys, 64, 1) + 0.1 * fine
    elif floor == "wood":
        base = colour(rng, (0.06, 0.1), (0.35, 0.65), (0.4, 0.75))
        plank = np.floor(across * rng.uniform(4, 7))
        shade = 0.1 * np.sin(plank * 12.9) + 0.06 * np.sin(40 * across + 3 * fine) + 0.04 * fine
    elif floor in ("stone", "concrete"):
        base = colour(rng, (0, 1), (0, 0.12), (0.35, 0.7))
        shade = 0.14 * fine + 0.10 * clouds(rng, xs, ys, 12, 2)
    elif floor == "tile":
        base = colour(rng, (0, 1), (0.05, 0.35), (0.5, 0.9))
        scale = rng.uniform(3, 5)
        check = np.sign(np.sin(np.pi * scale * across) * np.sin(np.pi * scale * 2 * along))
        shade = rng.uniform(0.08, 0.2) * check + 0.02 * fine
    else:
        base = colour(rng, (0, 1), (0.3, 0.7), (0.25, 0.6))
        shade = 0.18 * clouds(rng, xs, ys, 48, 1) + 0.05 * fine
    return (base * (1 + shade)[..., None]).astype(np.float32)
