"""How the camera moves, and where the stage lies in its picture."""

from dataclasses import dataclass

import numpy as np

from .canvas import View
from .motion import smooth

MARGIN = 0.14  # of the picture's extent: no camera sees further than this beside the stage

MOTIONS = ("fixed", "hand", "slow", "hand and slow")  # a hard scene always has a hand, a slow move and a sway


@dataclass(frozen=True)
class Camera:
    """Smooth motion over a whole clip: one slow move from start to end, and a sum of swings. Stage units."""

    duration: float
    zoom: tuple[float, float]  # at the start and at the end
    pan: np.ndarray  # (2, 2): at the start and at the end
    swings: np.ndarray  # (S, 4): amplitude x, amplitude y, hertz, phase

    @classmethod
    def random(cls, rng: np.random.Generator, duration: float, hard: bool) -> "Camera":
        motion = str(rng.choice(MOTIONS, p=(0.3, 0.3, 0.15, 0.25)))
        zoom = rng.uniform(0.97, 1.06, 2)
        pan = rng.uniform(-1, 1, (2, 2)) * (0.02, 0.012)
        swings = rng.uniform(-1, 1, (4, 4)) * (0.004, 0.003, 0, np.pi)
        swings[:, 2] = rng.uniform(0.3, 3.5, 4)
        swings[:, :2] *= rng.uniform(0.3, 1.2)
        sway = np.array([[rng.uniform(0.03, 0.05), 0.008, rng.uniform(0.12, 0.3), rng.uniform(-np.pi, np.pi)]])
        if hard:
            swings[:, :2] *= 1.5
            return cls(duration, tuple(zoom), pan * (0.3, 1.0), np.concatenate([swings, sway]))
        if "slow" not in motion:
            zoom[1], pan[1] = zoom[0], pan[0]
        if "hand" not in motion:
            swings = swings[:0]
        return cls(duration, tuple(zoom), pan, swings)

    def at(self, time: float) -> tuple[float, float, float]:
        """(zoom, pan x, pan y) at a time."""
        u = smooth(min(max(time / self.duration, 0.0), 1.0))
        phase = np.sin(2 * np.pi * self.swings[:, 2] * time + self.swings[:, 3])
        pan = self.pan[0] + (self.pan[1] - self.pan[0]) * u + phase @ self.swings[:, :2]
        return self.zoom[0] + (self.zoom[1] - self.zoom[0]) * u, float(pan[0]), float(pan[1])

    def view(self, time: float, height: int, width: int, nearness: float = 1.0) -> View:
        """Where the stage is in a picture; what is nearer than the stage moves more."""
        unit = min(height, width)
        zoom, pan_x, pan_y = self.at(time)
        return View(
            unit * zoom,
            width / 2 + (nearness * pan_x - 0.5 * zoom) * unit,
            height / 2 + (nearness * pan_y - 0.5 * zoom) * unit,
        )


def crop(still: np.ndarray, view: View, height: int, width: int) -> np.ndarray:
    """What a view sees (H, W, 3) of a still picture that was drawn around the stage unzoomed, bilinear."""
    unit = min(height, width)
    ratio = unit / view.scale
    y = (np.arange(height) + 0.5 - view.y) * ratio - 0.5 * unit + still.shape[0] / 2 - 0.5
    x = (np.arange(width) + 0.5 - view.x) * ratio - 0.5 * unit + still.shape[1] / 2 - 0.5
    y, x = np.clip(y, 0, still.shape[0] - 1.001), np.clip(x, 0, still.shape[1] - 1.001)
    row, column = y.astype(np.intp), x.astype(np.intp)
    down, right = (y - row).astype(np.float32)[:, None, None], (x - column).astype(np.float32)[None, :, None]
    rows, below = still[row], still[row + 1]
    below -= rows
    below *= down
    rows += below
    image, beside = rows.take(column, axis=1), rows.take(column + 1, axis=1)
    beside -= image
    beside *= right
    image += beside
    return image
