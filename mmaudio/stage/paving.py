"""A stretch of ground of a certain stuff, laid over the floor: what feet walk on must look like what is heard."""

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas
from .look import clouds, colour, material_texture, value_noise
from .scene import Look

LEFT, RIGHT, BOTTOM = -0.3, 1.3, 1.3  # stage units: as much as any camera sees


@dataclass(frozen=True)
class Paving:
    """Ground of a material or surface from x `left` to `right`, from y `top` to the lower edge of the picture."""

    stuff: str  # of materials.TABLE or SURFACES
    top: float
    left: float = LEFT
    right: float = RIGHT

    @property
    def depth(self) -> float:
        return self.top

    def painter(self, look: Look) -> "PavingPainter":
        return PavingPainter(self, look)


class PavingPainter:
    """The ground as one still picture, seen from wherever the camera is."""

    def __init__(self, paving: Paving, look: Look):
        self.paving, self.scale = paving, look.unit
        xs = np.arange(paving.left, paving.right, 1 / look.unit, dtype=np.float32)
        ys = np.arange(paving.top, BOTTOM, 1 / look.unit, dtype=np.float32)
        self.texture = (_texture(paving.stuff, look.rng, xs, ys) * look.light.tint).astype(np.float32)

    def shadow(self, canvas: Canvas, time: float) -> None:
        """Drawn with the shadows, so that those of the others lie on it."""
        paving = self.paving
        found = canvas.patch(paving.left, paving.top, paving.right, BOTTOM)
        if found is None:
            return
        pixels, xs, ys = found
        x = np.clip((xs[0] - paving.left) * self.scale, 0, self.texture.shape[1] - 1.001)
        y = np.clip((ys[:, 0] - paving.top) * self.scale, 0, self.texture.shape[0] - 1.001)
        column, row = x.astype(np.intp), y.astype(np.intp)
        right, down = (x - column)[None, :, None], (y - row)[:, None, None]
        rows = self.texture[row]
        rows = rows + down * (self.texture[row + 1] - rows)
        shown = rows[:, column]
        shown = shown + right * (rows[:, column + 1] - shown)
        inside = np.minimum(np.minimum(xs - paving.left, paving.right - xs), ys - paving.top)
        pixels += np.clip(0.5 + inside * np.float32(canvas.view.scale), 0, 1)[..., None] * (shown - pixels)

    def draw(self, canvas: Canvas, time: float) -> None:
        pass


def _texture(stuff: str, rng: np.random.Generator, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Colours (len(ys), len(xs), 3) of the ground at stage coordinates."""
    x, y = xs[None, :], ys[:, None]
    soft = clouds(rng, xs, ys, 10, 2)
    if stuff == "wood":  # boards along the picture, with dark seams
        base = colour(rng, (0.055, 0.10), (0.45, 0.7), (0.5, 0.75))
        board = np.floor(y / 0.055)
        seam = (y / 0.055 - board < 0.1) | (np.abs((x + 0.37 * board) % 0.6) < 0.012)
        grain = value_noise(rng, xs * 0.2, ys, 150)
        shade = 0.12 * np.sin(board * 7.3) + 0.12 * grain - 0.5 * seam
    elif stuff == "metal":  # bluish grey, with raised lozenges
        base = colour(rng, (0.55, 0.62), (0.03, 0.15), (0.5, 0.68))
        lozenges = np.sin(2 * np.pi * (x + y) / 0.11) * np.sin(2 * np.pi * (x - y) / 0.11)
        shade = 0.3 * np.clip(3 * np.abs(lozenges) - 1.6, -0.4, 1) + 0.05 * soft
    elif stuff == "ceramic":  # bright tiles in two tones between dark joints
        base = colour(rng, (0.08, 0.6), (0.02, 0.2), (0.82, 0.95))
        column, row = np.floor(x / 0.12), np.floor((y + 0.03) / 0.075)
        joint = (x / 0.12 - column < 0.08) | ((y + 0.03) / 0.075 - row < 0.1)
        shade = -0.22 * ((column + row) % 2) - 0.45 * joint
    elif stuff == "gravel":  # pebbles of all greys
        base = colour(rng, (0.05, 0.12), (0.05, 0.2), (0.45, 0.6))
        shade = 0.55 * value_noise(rng, xs, ys, 110) + 0.25 * value_noise(rng, xs, ys, 190) + 0.05 * soft
    elif stuff == "snow":
        base = colour(rng, (0.56, 0.62), (0.02, 0.06), (0.93, 1.0))
        shade = 0.05 * soft
    elif stuff == "grass":  # upright blades
        base = colour(rng, (0.24, 0.34), (0.55, 0.85), (0.35, 0.6))
        shade = 0.4 * value_noise(rng, xs, ys * 0.25, 200) + 0.2 * value_noise(rng, xs, ys, 90) + 0.1 * soft
    else:
        tile = material_texture(stuff, rng)
        column, row = ((4 * at % 1 * len(tile)).astype(np.intp) for at in (xs - LEFT, ys))
        return tile[row][:, column]
    return base * (1 + shade)[..., None]
