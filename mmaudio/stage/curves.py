"""Curves over time that picture and sound both read: how hard it rains, how high flames stand, how much is poured."""

from dataclasses import dataclass

import numpy as np

CALM = 0.1  # of the strongest: nothing worth a caption happens below
GRID = 0.01  # seconds
SHORTEST = 0.2  # seconds: shorter spells are not named


@dataclass(frozen=True)
class Curve:
    """A smooth curve through points, level at each of them; constant before the first and after the last."""

    times: tuple[float, ...]  # seconds, ascending
    values: tuple[float, ...]

    def at(self, time) -> np.ndarray:
        """The value at a time, or an array of times, in seconds."""
        index, u = self._place(time)
        values = np.asarray(self.values)
        return values[index] + (values[index + 1] - values[index]) * u * u * (3 - 2 * u)

    def total(self, time) -> np.ndarray:
        """The area under the curve from its first point to a time, or an array of times, within the points."""
        index, u = self._place(time)
        values, steps = np.asarray(self.values), np.diff(self.times)
        before = np.concatenate([[0.0], np.cumsum(steps * (values[1:] + values[:-1]) / 2)])
        rise = values[index + 1] - values[index]
        return before[index] + steps[index] * (values[index] * u + rise * (u**3 - u**4 / 2))

    def _place(self, time) -> tuple[np.ndarray, np.ndarray]:
        place = np.interp(time, self.times, np.arange(len(self.times)))
        index = np.minimum(place.astype(int), len(self.times) - 2)
        return index, place - index

    def spells(self, duration: float) -> list[tuple[float, float, float]]:
        """(start, seconds, peak) of every stretch in which the curve is not calm."""
        times = np.arange(GRID, duration, GRID)
        values = self.at(times)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], values > CALM, [False]])))
        found = [(times[a], (b - a) * GRID, values[a:b].max()) for a, b in zip(edges[::2], edges[1::2], strict=True)]
        return [(float(start), float(seconds), float(peak)) for start, seconds, peak in found if seconds > SHORTEST]


def swelling(rng: np.random.Generator, duration: float) -> Curve:
    """A strength between 0 and 1 that comes and goes within `duration` seconds, now and then with a calm."""
    hurry = min(1.0, duration / 4)
    times, values, calm = [0.0], [0.0 if rng.random() < 0.3 else float(rng.uniform(0.2, 1))], False
    while times[-1] < duration:
        change, hold = rng.uniform((0.5, 0.1), (1.4, 0.9)) * hurry
        calm = not calm and bool(rng.random() < 0.35)
        value = float(rng.uniform(0.0, 0.03) if calm else rng.uniform(0.25, 1))
        times += [times[-1] + float(change), times[-1] + float(change + hold)]
        values += [value, value]
    peak = max(value for time, value in zip(times, values, strict=True) if time <= duration)
    scale = float(rng.uniform(0.6, 1)) / peak if peak > CALM else 1.0
    return Curve(tuple(times), tuple(min(scale * value, 1.0) for value in values))


def moments(rng: np.random.Generator, curve: Curve, duration: float, rate: float) -> np.ndarray:
    """Random ascending times (n,), on average `rate` a second where the curve is 1 and fewer where it is lower."""
    times = np.sort(rng.uniform(0, duration, rng.poisson(rate * duration)))
    return times[rng.random(len(times)) < curve.at(times)]
