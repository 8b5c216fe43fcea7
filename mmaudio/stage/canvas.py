"""A picture to draw on in stage units. Edges are anti-aliased by coverage, so motion of a fraction of a pixel shows."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class View:
    """Stage to pixels: pixel = origin + scale * stage."""

    scale: float
    x: float
    y: float


class Canvas:
    """A float32 picture (H, W, 3), 0..1, seen through a view; every call draws over what is there."""

    def __init__(self, image: np.ndarray, view: View):
        self.image, self.view = image, view

    @property
    def pixel(self) -> float:
        """Size of a pixel in stage units."""
        return 1 / self.view.scale

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Stage x of every column (W,) and y of every row (H,)."""
        height, width = self.image.shape[:2]
        xs = (np.arange(width, dtype=np.float32) + np.float32(0.5 - self.view.x)) / np.float32(self.view.scale)
        ys = (np.arange(height, dtype=np.float32) + np.float32(0.5 - self.view.y)) / np.float32(self.view.scale)
        return xs, ys

    def patch(self, x0: float, y0: float, x1: float, y1: float):
        """The pixels of a stage rectangle: (part of the image, stage x (1, w), stage y (h, 1)), or None outside."""
        view, image = self.view, self.image
        left, right = int(view.x + view.scale * x0) - 1, int(view.x + view.scale * x1) + 3
        top, bottom = int(view.y + view.scale * y0) - 1, int(view.y + view.scale * y1) + 3
        left, top = max(left, 0), max(top, 0)
        right, bottom = min(right, image.shape[1]), min(bottom, image.shape[0])
        if left >= right or top >= bottom:
            return None
        xs = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - view.x)) / np.float32(view.scale)
        ys = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - view.y)) / np.float32(view.scale)
        return image[top:bottom, left:right], xs[None, :], ys[:, None]

    def capsule(self, x0, y0, x1, y1, radius: float, paint: np.ndarray, opacity: float = 1.0) -> None:
        """A thick line with round ends, lit from above; a disc where both ends are one."""
        found = self.patch(min(x0, x1) - radius, min(y0, y1) - radius, max(x0, x1) + radius, max(y0, y1) + radius)
        if found is None:
            return
        pixels, xs, ys = found
        dx, dy = np.float32(x1 - x0), np.float32(y1 - y0)
        px, py = xs - np.float32(x0), ys - np.float32(y0)
        along = np.clip((px * dx + py * dy) / max(dx * dx + dy * dy, np.float32(1e-9)), 0, 1)
        off_x, off_y = px - along * dx, py - along * dy
        cover = np.clip(0.5 + (radius - np.hypot(off_x, off_y)) * np.float32(self.view.scale), 0, 1) * opacity
        shade = 0.85 - 0.3 * np.clip(off_y / radius, -1, 1)
        pixels += cover[..., None] * (paint * shade[..., None] - pixels)

    def disc(self, x, y, radius: float, paint: np.ndarray, opacity: float = 1.0, softness: float = 0.0) -> None:
        """A flat disc; `softness` (0..1) is the share of the radius over which it fades."""
        found = self.patch(x - radius, y - radius, x + radius, y + radius)
        if found is None:
            return
        pixels, xs, ys = found
        edge = max(softness * radius, self.pixel)
        away = np.hypot(xs - np.float32(x), ys - np.float32(y))
        cover = np.clip(0.5 + (radius - 0.5 * softness * radius - away) / edge, 0, 1) * opacity
        pixels += cover[..., None] * (paint - pixels)

    def glow(self, x, y, radius: float, paint: np.ndarray, strength: float = 1.0) -> None:
        """Light added around a point, falling to a tenth at `radius`."""
        found = self.patch(x - 2 * radius, y - 2 * radius, x + 2 * radius, y + 2 * radius)
        if found is None:
            return
        pixels, xs, ys = found
        square = (xs - np.float32(x)) ** 2 + (ys - np.float32(y)) ** 2
        pixels += (strength * np.exp(-2.3 * square / radius**2))[..., None] * paint

    def polygon(self, points, paint: np.ndarray, opacity: float = 1.0) -> None:
        """A flat convex polygon (P, 2), its corners in either order of going round."""
        points = np.asarray(points, np.float32)
        (x0, y0), (x1, y1) = points.min(0), points.max(0)
        found = self.patch(float(x0), float(y0), float(x1), float(y1))
        if found is None:
            return
        pixels, xs, ys = found
        following = np.roll(points, -1, axis=0)
        area = np.sum(points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1])
        inside = np.full((ys.shape[0], xs.shape[1]), np.inf, np.float32)
        for (ax, ay), (bx, by) in zip(points, following, strict=True):
            length = max(float(np.hypot(bx - ax, by - ay)), 1e-6)
            side = ((bx - ax) * (ys - ay) - (by - ay) * (xs - ax)) / np.float32(length if area > 0 else -length)
            inside = np.minimum(inside, side)
        cover = np.clip(0.5 + inside * np.float32(self.view.scale), 0, 1) * opacity
        pixels += cover[..., None] * (paint - pixels)

    def ring(self, x, y, wide: float, high: float, thick: float, paint: np.ndarray, opacity: float = 1.0) -> None:
        """The soft outline of an ellipse of half-axes `wide` and `high`, like a wave on water."""
        found = self.patch(x - wide - thick, y - high - thick, x + wide + thick, y + high + thick)
        if found is None:
            return
        pixels, xs, ys = found
        away = np.hypot((xs - np.float32(x)) / wide, (ys - np.float32(y)) / high) - 1
        cover = np.exp(-((away * np.float32(wide / max(thick, 0.7 * self.pixel))) ** 2)) * opacity
        pixels += cover[..., None] * (paint - pixels)

    def ellipse(self, x, y, wide: float, high: float, paint: np.ndarray, opacity: float = 1.0) -> None:
        """A flat ellipse of half-axes `wide` and `high`."""
        found = self.patch(x - wide, y - high, x + wide, y + high)
        if found is None:
            return
        pixels, xs, ys = found
        away = 1 - np.hypot((xs - np.float32(x)) / wide, (ys - np.float32(y)) / high)
        cover = np.clip(0.5 + away * np.float32(min(wide, high) * self.view.scale), 0, 1) * opacity
        pixels += cover[..., None] * (paint - pixels)

    def box(self, x0: float, y0: float, x1: float, y1: float, paint: np.ndarray, opacity: float = 1.0) -> None:
        """A flat upright rectangle."""
        found = self.patch(x0, y0, x1, y1)
        if found is None:
            return
        pixels, xs, ys = found
        scale = np.float32(self.view.scale)
        across = np.clip(np.minimum(xs - np.float32(x0), np.float32(x1) - xs) * scale + 0.5, 0, 1)
        down = np.clip(np.minimum(ys - np.float32(y0), np.float32(y1) - ys) * scale + 0.5, 0, 1)
        pixels += (across * down * np.float32(opacity))[..., None] * (paint - pixels)

    def streaks(self, x0, y0, x1, y1, width: float, paint: np.ndarray, opacity=1.0) -> None:
        """Many short thin lines at once: four arrays of ends (S,); `opacity` a number or (S,). Thinner than a pixel
        means fainter."""
        view, (height, across) = self.view, self.image.shape[:2]
        ends = np.array([x0, x1, y0, y1], float) * view.scale + np.array([view.x, view.x, view.y, view.y])[:, None]
        thick = width * view.scale
        low, high = np.minimum(ends[::2], ends[1::2]), np.maximum(ends[::2], ends[1::2])
        seen = ((low < np.array([[across], [height]]) + thick) & (high > -thick)).all(0)
        px0, px1, py0, py1 = ends[:, seen]
        opacity = np.broadcast_to(opacity, seen.shape)[seen]
        reach = np.hypot(px1 - px0, py1 - py0)
        lanes = _spread(thick) / np.maximum(reach, 1e-6)[:, None]  # thick ones are several lines side by side
        count = max(int(np.ceil(reach.max(initial=0.0))) + 1, 1)
        along = (np.arange(count) + 0.5) / count
        dx, dy = px1 - px0, py1 - py0
        px = (px0 - 0.5)[:, None, None] + dx[:, None, None] * along - (dy[:, None] * lanes)[..., None]
        py = (py0 - 0.5)[:, None, None] + dy[:, None, None] * along + (dx[:, None] * lanes)[..., None]
        weight = reach / count * (thick / lanes.shape[1]) * opacity  # the area that a point stands for
        self._splat(px.ravel(), py.ravel(), np.repeat(weight, lanes.shape[1] * count), paint)

    def dots(self, x, y, radius: float, paint: np.ndarray, opacity=1.0) -> None:
        """Many small round specks at once: arrays of centres (S,); `opacity` a number or (S,). Smaller than a pixel
        means fainter."""
        view = self.view
        size = 2 * radius * view.scale
        offsets = _spread(size)
        px = (view.x + view.scale * np.asarray(x) - 0.5)[:, None, None] + offsets
        py = (view.y + view.scale * np.asarray(y) - 0.5)[:, None, None] + offsets[:, None]
        px, py = np.broadcast_arrays(px, py)  # (S, n, n): large ones are squares of points
        weight = np.full(len(px), (size / len(offsets)) ** 2) * opacity  # the area that a point stands for
        self._splat(px.ravel(), py.ravel(), np.repeat(weight, len(offsets) ** 2), paint)

    def _splat(self, x, y, weight, paint: np.ndarray) -> None:
        """Cover the pixels around points, given in pixels, bilinearly with `paint`."""
        image = self.image
        height, width = image.shape[:2]
        inside = (x >= 0) & (y >= 0) & (x < width - 1) & (y < height - 1)
        x, y, weight = x[inside], y[inside], weight[inside]
        column, row = x.astype(np.intp), y.astype(np.intp)
        right, down = x - column, y - row
        at = row * width + column
        upper, lower = (1 - down) * weight, down * weight
        places = np.concatenate([at, at + 1, at + width, at + width + 1])
        shares = np.concatenate([(1 - right) * upper, right * upper, (1 - right) * lower, right * lower])
        cover = np.minimum(np.bincount(places, shares, height * width).astype(np.float32), 1)
        places = np.flatnonzero(cover)
        row, column = np.divmod(places, width)
        below = image[row, column]
        image[row, column] = below + cover[places, None] * (paint - below)

    def shadow(self, x: float, ground: float, wide: float, darkness: float, lean: float = 0.0) -> None:
        """A soft ellipse of half-width `wide` on the floor, drawn out to one side by `lean` (signed)."""
        x, half = x + 0.5 * lean, wide + 0.5 * abs(lean)
        found = self.patch(x - 1.5 * half, ground - 0.5 * wide, x + 1.5 * half, ground + 0.5 * wide)
        if found is None:
            return
        pixels, xs, ys = found
        square = ((xs - np.float32(x)) / half) ** 2 + ((ys - np.float32(ground)) / (0.3 * wide)) ** 2
        pixels *= 1 - darkness * np.clip(1.35 - square, 0, 1)[..., None].astype(np.float32)

    def expose(self, gain: float, tint: np.ndarray | None = None) -> None:
        """Make everything drawn so far brighter or darker."""
        self.image *= np.float32(gain) if tint is None else (gain * tint).astype(np.float32)


def _spread(size: float) -> np.ndarray:
    """Offsets (n,) of the fewest points, at most a pixel apart, that cover `size` pixels; one where it is a pixel."""
    count = max(int(np.ceil(size)), 1)
    return (np.arange(count) - (count - 1) / 2) * (max(size, 1.0) / count)
