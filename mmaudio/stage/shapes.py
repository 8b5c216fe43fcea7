"""Outlines of the objects: signed distances for drawing, support heights for resting on a floor.

Local coordinates: centre at the origin, y down, half-height 1, half-width `aspect`.
"""

import numpy as np

CORNER = 0.18  # rounding of a block


def outline(shape: str, aspect: float) -> tuple[np.ndarray, float]:
    """Convex hull points (P, 2) and the radius of the disc that rolls on them: their sum covers the shape."""
    if shape == "ball":
        return np.zeros((1, 2)), 1.0
    if shape == "block":
        a, b = aspect - CORNER, 1 - CORNER
        return np.array([(-a, -b), (a, -b), (a, b), (-a, b)]), CORNER
    if shape == "bowl":
        angle = np.linspace(0, np.pi, 25)
        return np.stack([aspect * np.cos(angle), 2 * np.sin(angle) - 1], axis=1), 0.0
    if shape == "pot":
        bottom = 0.7 * aspect
        return np.array([(-aspect, -1), (aspect, -1), (bottom, 1), (-bottom, 1)]), 0.0
    if shape == "bottle":
        neck = 0.4 * aspect
        return np.array([(-neck, -1), (neck, -1), (aspect, -0.1), (aspect, 1), (-aspect, 1), (-aspect, -0.1)]), 0.0
    raise ValueError(f"unknown shape {shape!r}")


def support(shape: str, aspect: float, angle: float) -> float:
    """Distance from the centre down to the lowest point of the shape turned by `angle` (radians)."""
    points, radius = outline(shape, aspect)
    return float((points @ (np.sin(angle), np.cos(angle))).max() + radius)


def reach(shape: str, aspect: float) -> float:
    """Radius of a disc around the centre that holds the shape at any angle."""
    points, radius = outline(shape, aspect)
    return float(np.hypot(points[:, 0], points[:, 1]).max() + radius)


def distance(shape: str, aspect: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance (negative inside, exact enough near the outline) at local points x, y of one shape."""
    if shape == "ball":
        return np.sqrt(x * x + y * y) - 1
    if shape == "block":
        dx, dy = np.abs(x) - (aspect - CORNER), np.abs(y) - (1 - CORNER)
        return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - CORNER
    if shape == "bowl":
        curve = (np.hypot(x / aspect, (y + 1) / 2) - 1) * min(aspect, 2)
        return np.maximum(curve, -1 - y)
    if shape == "pot":
        side = np.abs(x) - aspect * (0.85 - 0.15 * y)
        return np.maximum(side, np.abs(y) - 1)
    if shape == "bottle":
        width = aspect * np.clip(1 + (y + 0.1) / 0.35 * 0.6, 0.4, 1)
        return np.maximum(np.abs(x) - width, np.abs(y) - 1)
    raise ValueError(f"unknown shape {shape!r}")
