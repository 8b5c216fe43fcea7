"""Hands type on a keyboard, in bursts with pauses: a key lights up and goes down at each stroke."""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from ..canvas import Canvas
from ..look import colour
from ..motion import smooth
from ..phrases import manner
from ..scene import END_MARGIN, Act, Event, Look, Setting, Words
from ..voices import add, burst, ring

COLUMNS, ROWS = 8, 3  # and a space bar below
SPACE = COLUMNS * ROWS
TRAVEL = 0.25  # of a key's height: how far it goes down
HOVER = 0.6  # of a key's height: a finger above the keys
MIN_STROKE_GAP = 0.15  # seconds between any two strokes
SAME_HAND_GAP = 0.22  # seconds between two strokes of one hand: it must be seen to go up
RELEASE = 0.05  # level of a key let go, relative to its stroke: too faint to pass for one


@dataclass(frozen=True)
class Stroke:
    """A key held down for a while."""

    time: float
    held: float  # seconds
    key: int  # row by row from the left; SPACE is the bar
    hand: int  # 0: left, 1: right
    loudness: float


@dataclass(frozen=True)
class Keyboard:
    """Seen from above at a slant, its upper edge at `top`; `wide` and `high` are the size of a key in stage units."""

    x: float  # of the middle
    top: float
    wide: float
    high: float
    strokes: tuple[Stroke, ...]

    @property
    def depth(self) -> float:
        return self.top + 4 * self.high

    def place(self, key: int) -> tuple[float, float]:
        """The middle of a key at rest."""
        if key == SPACE:
            return self.x, self.top + (ROWS + 0.5) * self.high
        row, column = divmod(key, COLUMNS)
        return self.x + (column + 0.5 - COLUMNS / 2) * self.wide, self.top + (row + 0.5) * self.high

    def pressed(self, time: float) -> set[int]:
        """The keys that are down."""
        return {stroke.key for stroke in self.strokes if stroke.time <= time < stroke.time + stroke.held}

    def finger(self, hand: int, time: float) -> tuple[float, float]:
        """The tip of the finger that types: on the key from the stroke until it is let go, else in the air."""
        strokes = [stroke for stroke in self.strokes if stroke.hand == hand]
        index = bisect_right(strokes, time, key=lambda stroke: stroke.time)
        rest = self.place(COLUMNS + (1 if hand == 0 else COLUMNS - 2))
        before = strokes[index - 1] if index > 0 else None
        after = strokes[index] if index < len(strokes) else None
        if before and time < before.time + before.held:
            x, y = self.place(before.key)
            return x, y + TRAVEL * self.high
        here = self.place(before.key) if before else rest
        there = self.place(after.key) if after else rest
        left = before.time + before.held if before else -1.0
        arrive = after.time if after else left + 1.5
        u = smooth(float(np.clip((time - left) / (arrive - left), 0, 1)))
        lifted = HOVER * min((time - left) / 0.05, 1.0) * min(max(arrive - time, 0.0) / 0.06 if after else 1.0, 1.0)
        return here[0] + (there[0] - here[0]) * u, here[1] + (there[1] - here[1]) * u - lifted * self.high

    def painter(self, look: Look) -> "KeyboardPainter":
        return KeyboardPainter(self, look)


class KeyboardPainter:
    """A case, keys, and two hands with the finger that types."""

    def __init__(self, keyboard: Keyboard, look: Look):
        self.keyboard = keyboard
        dark = look.rng.random() < 0.5
        self.case = colour(look.rng, saturation=(0, 0.3), value=(0.1, 0.2) if dark else (0.6, 0.8)) * look.light.tint
        self.key = colour(look.rng, saturation=(0, 0.25), value=(0.3, 0.45) if dark else (0.85, 1.0)) * look.light.tint
        self.lit = colour(look.rng, saturation=(0.8, 1.0), value=(0.9, 1.0))
        self.skin = colour(look.rng, (0.05, 0.09), (0.3, 0.6), (0.4, 0.95))
        self.sleeve = colour(look.rng, value=(0.1, 0.9))

    def shadow(self, canvas: Canvas, time: float) -> None:
        canvas.shadow(self.keyboard.x, self.keyboard.top + 4.2 * self.keyboard.high, 4 * self.keyboard.wide, 0.4)

    def draw(self, canvas: Canvas, time: float) -> None:
        board = self.keyboard
        middle = board.top + (ROWS + 1) / 2 * board.high
        self._box(canvas, board.x, middle, (COLUMNS / 2 + 0.3) * board.wide, (ROWS / 2 + 0.8) * board.high, self.case)
        self._keys(canvas)
        self._box(canvas, *board.place(SPACE), 2.5 * board.wide, 0.4 * board.high, self.key)
        for key in board.pressed(time):
            x, y = board.place(key)
            half, tall = (2.5 if key == SPACE else 0.42) * board.wide, 0.4 * board.high
            self._box(canvas, x, y, half, tall, self.case)
            y += TRAVEL * board.high
            canvas.glow(x, y, 1.6 * board.wide, self.lit, 0.6)
            self._box(canvas, x, y, half, tall, self.lit)
        for hand in (0, 1):
            self._hand(canvas, *board.finger(hand, time), 2 * hand - 1)

    def _keys(self, canvas: Canvas) -> None:
        """All keys but the bar at once, at rest."""
        board = self.keyboard
        left, right = board.x - COLUMNS / 2 * board.wide, board.x + COLUMNS / 2 * board.wide
        found = canvas.patch(left, board.top, right, board.top + ROWS * board.high)
        if found is None:
            return
        pixels, xs, ys = found
        across = self._row(xs, left, board.wide, COLUMNS, 0.42) * canvas.view.scale
        down = self._row(ys, board.top, board.high, ROWS, 0.4) * canvas.view.scale
        cover = np.clip(across + 0.5, 0, 1) * np.clip(down + 0.5, 0, 1)
        pixels += cover[..., None].astype(np.float32) * (self.key - pixels)

    def _row(self, at: np.ndarray, first: float, pitch: float, count: int, half: float) -> np.ndarray:
        """How far inside the nearest key of a row each place is, in stage units."""
        place = (at - first) / pitch
        return (half - np.abs(place - np.clip(np.floor(place), 0, count - 1) - 0.5)) * pitch

    def _box(self, canvas: Canvas, x: float, y: float, half: float, tall: float, paint: np.ndarray) -> None:
        canvas.polygon([(x - half, y - tall), (x + half, y - tall), (x + half, y + tall), (x - half, y + tall)], paint)

    def _hand(self, canvas: Canvas, x: float, y: float, side: int) -> None:
        high = self.keyboard.high
        palm_x, palm_y = x + side * 0.6 * high, y + 2.0 * high
        for finger in (-1, 1, 2):
            canvas.capsule(
                palm_x, palm_y, palm_x + finger * 0.5 * high, palm_y - 1.2 * high, 0.2 * high, self.skin * 0.9
            )
        canvas.capsule(x, y, palm_x, palm_y, 0.22 * high, self.skin)
        canvas.capsule(palm_x, palm_y, palm_x + side * 0.2 * high, palm_y + 0.6 * high, 0.6 * high, self.skin)
        canvas.capsule(
            palm_x + side * 0.4 * high,
            palm_y + high,
            palm_x + side * 2.5 * self.keyboard.wide,
            1.3,
            0.7 * high,
            self.sleeve,
        )


@dataclass(frozen=True)
class Clicks:
    """The sound of the keys: a short click going down, a fainter one coming up; the space bar is lower."""

    name: str
    strokes: tuple[Stroke, ...]
    pitch: float  # of the whole keyboard, relative
    corner: float  # Hz, of the click

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        each = self.pitch * np.exp(0.12 * rng.standard_normal(SPACE + 1))
        each[SPACE] = 0.5 * self.pitch
        dry = np.zeros(length)
        for stroke in self.strokes:
            hertz = np.array([950.0, 1900.0, 3100.0]) * each[stroke.key]
            sound = 0.6 * ring(hertz, 0.022, np.array([1.0, 0.8, 0.5]), sample_rate)
            add(dry, stroke.time + stroke.held, RELEASE * stroke.loudness * sound, sample_rate)
            corner = self.corner * (0.4 if stroke.key == SPACE else 1.0)
            click = burst(0.004, corner, sample_rate, rng)
            sound[: len(click)] += 0.7 * click[: len(sound)]
            add(dry, stroke.time, stroke.loudness * sound, sample_rate)
        return dry


def make(rng: np.random.Generator, setting: Setting) -> Act:
    wide = float(rng.uniform(0.085, 0.1)) * setting.width
    x, top = setting.across(0.5), float(rng.uniform(0.5, 0.62))
    strokes = _strokes(rng, setting.duration)
    keyboard = Keyboard(x, top, wide, 0.085, strokes)
    events = tuple(Event(s.time, "typing", None, s.loudness, *keyboard.place(s.key)) for s in strokes)
    clicks = Clicks("keyboard", strokes, float(rng.uniform(0.85, 1.25)), float(rng.uniform(2500, 4500)))
    return Act("typing", (keyboard,), (clicks,), events, _words(strokes, events))


def _strokes(rng: np.random.Generator, duration: float) -> tuple[Stroke, ...]:
    """Bursts of 2 to 14 strokes, at most about 6 a second within one, and pauses between them."""
    pace = float(rng.uniform(MIN_STROKE_GAP, 0.35))
    force = float(rng.uniform(0.35, 0.75))
    time, left = float(rng.uniform(0.15, 0.8)), int(rng.integers(2, 15))
    free = [0.0, 0.0]  # when each hand can type again
    strokes: list[Stroke] = []
    while True:
        key = SPACE if rng.random() < 0.15 else int(rng.integers(SPACE))
        hand = int(rng.integers(2)) if key == SPACE else int(key % COLUMNS >= COLUMNS / 2)
        time = max(time, free[hand])
        if time >= duration - END_MARGIN:
            return tuple(strokes)
        held = float(rng.uniform(0.08, 0.12))
        strokes.append(Stroke(time, held, key, hand, min(force * float(rng.uniform(0.75, 1.3)), 1.0)))
        free[hand] = time + SAME_HAND_GAP
        time += max(pace * float(rng.uniform(0.8, 1.6)), MIN_STROKE_GAP)
        left -= 1
        if left == 0:
            time += float(rng.uniform(0.5, 2.2))
            left = int(rng.integers(2, 15))


def _words(strokes: tuple[Stroke, ...], events: tuple[Event, ...]) -> Words:
    gaps = np.diff([stroke.time for stroke in strokes])
    pauses = int((gaps > 0.6).sum())
    pace = "quickly" if len(gaps) and np.median(gaps) < 0.26 else "slowly"
    rests = "without a pause" if pauses == 0 else "with a pause" if pauses == 1 else "with pauses"
    return Words(
        tags=("typing on a keyboard", "computer keyboard typing", "keyboard clicks", "typing"),
        clauses=(
            "someone types on a keyboard",
            "someone is typing",
            "hands are typing on a computer keyboard",
            "the keys of a keyboard click",
        ),
        details=(
            f"someone types {pace} on a keyboard {rests}",
            f"two hands are typing {pace} and {manner(events)} on a keyboard",
            f"keys light up while someone types {pace} on a keyboard {rests}",
        ),
    )
