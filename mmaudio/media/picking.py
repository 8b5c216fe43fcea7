"""Which source frame stands at each slot of a constant frame rate: two rules, pure arithmetic.

Both are fed the source frames' times in order and answer how many slots are decided by that frame: `before` of them
show the frame that came before it, `here` of them show the frame itself. `done` says that no later frame matters.
"""

import math
from fractions import Fraction
from typing import Literal

Rule = Literal["first", "nearest"]


class FirstAtOrAfter:
    """Slot n shows the first source frame at or after n/rate: the rule of the method's demo.

    Frames after `duration` (seconds, inclusive) are ignored.
    [quirk] n/rate is a double accumulated by += 1/rate, so at 25 fps rounding makes some slots slip past a frame
    that lies exactly on them. Features of the released models were made that way, so it stays.
    """

    def __init__(self, rate: int, duration: float = math.inf):
        self.rate, self.duration = rate, duration
        self.slots = 0
        self.next = 0.0
        self.done = False

    def offer(self, time: Fraction) -> tuple[int, int]:
        before, now = self.slots, float(time)
        while now >= self.next and now <= self.duration:
            self.slots += 1
            self.next += 1.0 / self.rate
        self.done = now > self.duration or self.slots / self.rate >= self.duration
        return 0, self.slots - before

    def finish(self, end: Fraction) -> int:
        return 0


class Nearest:
    """Slot n shows the last source frame before (n + 1/2)/rate: FFmpeg's fps filter, the rule of training.

    The last frame is held until `end`, where it stops being shown, rounded the same way.
    """

    def __init__(self, rate: int, duration: float = math.inf):
        self.rate = rate
        self.limit = math.ceil(duration * rate) if math.isfinite(duration) else math.inf
        self.slots = 0
        self.done = False

    def offer(self, time: Fraction) -> tuple[int, int]:
        return self.finish(time), 0

    def finish(self, end: Fraction) -> int:
        before = self.slots
        self.slots = min(max(before, int(end * self.rate + Fraction(1, 2))), self.limit)
        self.done = self.slots >= self.limit
        return self.slots - before


RULES = {"first": FirstAtOrAfter, "nearest": Nearest}
