"""Made-up clips that are unlike each other."""

import numpy as np

from mmaudio.evaluation.hygiene.fingerprint import FPS, GRID

RATE = 16_000


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Sound (N,) that swells and fades."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    points = np.arange(0, count + 2000, 2000)
    swell = np.interp(np.arange(count), points, rng.random(len(points)))
    return (0.3 * rng.standard_normal(count) * swell**2).astype(np.float32)


def pictures(seconds: float, seed: int = 0, fps: int = FPS, size: int = GRID) -> np.ndarray:
    """(T, size, size): a bright square goes about on a pattern."""
    rng = np.random.default_rng(seed)
    pattern = np.kron(rng.uniform(0, 150, (1, GRID, GRID)), np.ones((1, size // GRID, size // GRID)))
    frames = np.repeat(pattern, round(seconds * fps), axis=0)
    for i, frame in enumerate(frames):
        x, y = (int((12 + 11 * np.sin(8 * i / fps * speed + seed)) * size / GRID) for speed in (0.7, 0.43))
        frame[y : y + size // 4, x : x + size // 4] = 230
    return frames.astype(np.float32)
