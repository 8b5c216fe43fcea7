"""Where the parts of a still set go, and how its colours mix."""

import numpy as np

SIDES = (-0.8, 1.8)  # x that a set reaches: seen in very wide pictures


def spread(rng: np.random.Generator, apart: float) -> np.ndarray:
    """Places along the whole set, about `apart` from each other."""
    places = np.arange(SIDES[0], SIDES[1], apart)
    return places + rng.uniform(-0.3, 0.3, len(places)) * apart


def band(y0: float, y1: float) -> tuple[float, float, float, float]:
    """A box as long as the set."""
    return SIDES[0], y0, SIDES[1], y1


def mix(one: np.ndarray, two: np.ndarray, share) -> np.ndarray:
    """From `one` (share 0) to `two` (share 1)."""
    return one + (two - one) * np.clip(share, 0, 1)
