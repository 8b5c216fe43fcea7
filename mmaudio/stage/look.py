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


def pink(rng: np.random.Generator, size: int = 128, slope: float = 1.0) -> np.ndarray:
    """Noise (size, size) that repeats, of standard deviation 1: amplitude ~ frequency ** -slope; photographs: 1."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(spectrum / frequency**slope, (size, size))
    return (field / field.std()).astype(np.float32)


def repeat(texture: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A texture that repeats, one unit wide and high, at u and v (which broadcast)."""
    size = len(texture)
    column, row = np.floor(u * size).astype(np.intp) % size, np.floor(v * size).astype(np.intp) % size
    return texture[row, column]


def soften(image: np.ndarray, radius: float) -> np.ndarray:
    """A picture (H, W, 3) out of focus: three running means of about `radius` pixels each way."""
    reach = round(radius)
    for axis in (0, 1) * 3 if reach > 0 else ():
        pad = [(0, 0)] * 3
        pad[axis] = (reach + 1, reach)
        total = np.cumsum(np.pad(image, pad, mode="edge"), axis=axis, dtype=np.float64)
        length, width = image.shape[axis], 2 * reach + 1
        ends = np.take(total, np.arange(width, width + length), axis)
        image = ((ends - np.take(total, np.arange(length), axis)) / width).astype(np.float32)
    return image


def colour(rng: np.random.Generator, hue=(0.0, 1.0), saturation=(0.0, 1.0), value=(0.0, 1.0)) -> np.ndarray:
    """A random RGB colour (3,) within HSV ranges."""
    hsv = rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value)
    return np.array(colorsys.hsv_to_rgb(*hsv), np.float32)


def material_texture(material: str, rng: np.random.Generator) -> np.ndarray:
    """Surface colours (TEXTURE, TEXTURE, 3) of one object of a material."""
    at = (np.arange(TEXTURE, dtype=np.float32) + 0.5) / TEXTURE
    noise = clouds(rng, at * 2 - 0.5, at * 2 - 0.5, 6, 3)
    x, y = np.meshgrid(at, at)
    colours = _SURFACES[material](rng, x, y, noise)
    return np.broadcast_to(colours, (TEXTURE, TEXTURE, 3)).astype(np.float32)


def _wood(rng, x, y, noise):  # warm brown with dark grain along it
    base = colour(rng, (0.065, 0.095), (0.6, 0.75), (0.5, 0.75))
    rings = np.sin(2 * np.pi * ((x * rng.uniform(-0.2, 0.2) + y) * rng.uniform(3, 5) + 0.3 * noise))
    return base * (1 + 0.3 * rings + 0.08 * noise)[..., None]


def _metal(rng, x, y, noise):  # grey and brushed
    base = colour(rng, (0.55, 0.62), (0.0, 0.1), (0.68, 0.8))
    return base * (1 + 0.05 * noise[:, :1] + 0 * x)[..., None]


def _glass(rng, x, y, noise):
    return colour(rng, (0.46, 0.58), (0.25, 0.5), (0.85, 1.0))


def _rubber(rng, x, y, noise):  # black and dull, with a coloured stripe
    base = colour(rng, (0, 1), (0.0, 0.3), (0.09, 0.18))
    stripe = np.abs(x - y + rng.uniform(-0.2, 0.2)) < 0.07
    bright = colour(rng, (0.0, 0.16), (0.8, 1.0), (0.6, 0.9))
    return np.where(stripe[..., None], bright, base * (1 + 0.2 * noise)[..., None])


def _ceramic(rng, x, y, noise):  # white, with a blue glazed pattern
    base = colour(rng, (0.08, 0.15), (0.0, 0.08), (0.92, 1.0))
    glaze = colour(rng, (0.58, 0.66), (0.7, 0.95), (0.4, 0.75))
    across = rng.uniform(0.3, 0.6) + 0.04 * np.sin(2 * np.pi * rng.integers(3, 7) * x)
    return np.where((np.abs(y - across) < 0.07)[..., None], glaze, base * (1 + 0.02 * noise)[..., None])


def _plastic(rng, x, y, noise):  # one bright colour, none of those that wood and bronze have
    return colour(rng, (0.14, 1.02), (0.85, 1.0), (0.8, 1.0))


def _cardboard(rng, x, y, noise):  # pale brown, with a shining strip of tape and a dark seam
    base = colour(rng, (0.075, 0.09), (0.35, 0.45), (0.66, 0.78))
    flutes = 0.04 * np.sin(2 * np.pi * 16 * y)
    tape, seam = np.abs(x - 0.5), np.abs(y - rng.uniform(0.28, 0.34)) < 0.015
    shown = base * (1 + flutes + 0.03 * noise - 0.45 * seam)[..., None]
    return np.where((tape < 0.09)[..., None], base * 0.45 + np.float32([0.5, 0.48, 0.42]), shown)


def _bamboo(rng, x, y, noise):  # greenish yellow canes side by side, with dark nodes across
    base = colour(rng, (0.15, 0.2), (0.5, 0.7), (0.7, 0.88))
    cane = (x * 5) % 1
    node = np.abs((y * 2.2 + 0.37 * np.floor(x * 5) + rng.uniform(0, 1)) % 1 - 0.5) < 0.06
    return base * (1.1 - 1.6 * (cane - 0.5) ** 2 - 0.45 * node + 0.04 * noise)[..., None]


def _leather(rng, x, y, noise):  # dark red-brown, creased, with two light seams
    base = colour(rng, (0.98, 1.03), (0.65, 0.85), (0.3, 0.45))
    stitch = (np.abs(np.abs(x - 0.5) - 0.17) < 0.03) & (np.sin(2 * np.pi * 9 * y) > 0)
    return base * (1 + 0.3 * noise)[..., None] + 0.5 * stitch[..., None]


def _bronze(rng, x, y, noise):  # gold, with large spots of green patina
    base = colour(rng, (0.11, 0.135), (0.7, 0.85), (0.7, 0.85))
    patina = colour(rng, (0.44, 0.49), (0.5, 0.7), (0.5, 0.65))
    spots = np.clip(2.5 * noise + 0.1, 0, 1)[..., None]
    return base * (1 - spots) + patina * spots


def _stone(rng, x, y, noise):  # grey with dark and light speckles
    fine = pink(rng, TEXTURE, 0.4)
    base = colour(rng, (0.05, 0.65), (0.0, 0.1), (0.4, 0.58))
    return base * (1 + 0.15 * noise - 0.5 * (fine > 0.9) + 0.5 * (fine < -1.1))[..., None]


_SURFACES = {
    "wood": _wood, "metal": _metal, "glass": _glass, "rubber": _rubber, "ceramic": _ceramic, "plastic": _plastic,
    "cardboard": _cardboard, "bamboo": _bamboo, "leather": _leather, "bronze": _bronze, "stone": _stone,
}  # fmt: skip


def shrink(texture: np.ndarray, pixels: float) -> np.ndarray:
    """The texture at about the resolution it is seen at, so that moving it does not flicker."""
    factor = 1
    while TEXTURE % (factor * 2) == 0 and TEXTURE / (factor * 2) >= max(pixels, 6):
        factor *= 2
    texels = TEXTURE // factor
    return np.ascontiguousarray(texture.reshape(texels, factor, texels, factor, 3).mean((1, 3)))
