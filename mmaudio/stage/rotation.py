"""What turns and what swings: closed forms of time that picture and sound share."""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spin:
    """Turning at a speed that changes evenly between knots and stays as it is after the last; the first is at 0."""

    times: tuple[float, ...]  # seconds
    speeds: tuple[float, ...]  # turns per second

    def speed(self, time):
        """Turns per second at a time or an array of times."""
        return np.interp(time, self.times, self.speeds)

    def turns(self, time):
        """Turns made since time 0, of the shape of `time`."""
        knots, speeds = np.array(self.times), np.array(self.speeds)
        made = np.append(0.0, np.cumsum(np.diff(knots) * (speeds[1:] + speeds[:-1]) / 2))
        index = np.searchsorted(knots, time, side="right") - 1
        return made[index] + (time - knots[index]) * (speeds[index] + self.speed(time)) / 2


@dataclass(frozen=True)
class Swing:
    """Moving to and fro between turning points, each given by its time and place; still before and after."""

    times: tuple[float, ...]  # seconds, at least one
    places: tuple[float, ...]

    def at(self, time: float) -> float:
        index = bisect_right(self.times, time)
        if index in (0, len(self.times)):
            return self.places[min(index, len(self.times) - 1)]
        before, after = self.times[index - 1], self.times[index]
        share = (1 - np.cos(np.pi * (time - before) / (after - before))) / 2
        return self.places[index - 1] + (self.places[index] - self.places[index - 1]) * float(share)


def random_runs(
    rng: np.random.Generator, duration: float, slow: float, fast: float
) -> tuple[Spin, tuple[tuple[float, float], ...]]:
    """A machine that starts, holds or changes its speed (turns per second), stops and starts again.

    Returns:
        Its spin, and start and end in seconds of every time it runs; the last end may be past the duration.
    """
    time, speed, begin = 0.0, 0.0, None
    knots, runs = [(0.0, 0.0)], []
    if rng.random() < 0.25:  # runs from the beginning
        speed, begin = float(rng.uniform(slow, fast)), 0.0
        knots = [(0.0, speed)]
    while time < duration:
        if begin is None:
            time += float(rng.uniform(0.2, 1.2)) * min(duration / 4, 1.0)
            begin = time
            knots.append((time, 0.0))
            target, change = float(rng.uniform(slow, fast)), float(rng.uniform(0.4, 1.2))
        elif rng.random() < 0.65:
            target, change = float(rng.uniform(slow, fast)), float(rng.uniform(0.4, 1.8))
        else:
            target, change = 0.0, float(rng.uniform(0.6, 1.4))
        speed, time = target, time + change
        knots.append((time, speed))
        if speed == 0:
            runs.append((begin, time))
            begin = None
        time += float(rng.uniform(0.3, 1.6))
        knots.append((time, speed))
    if begin is not None and begin < duration:
        runs.append((begin, time))
    return Spin(*zip(*knots, strict=True)), tuple(runs)
