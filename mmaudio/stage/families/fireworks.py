"""Rockets rise in silence and burst into sparks; the bang is heard later, as far away as they are."""

from dataclasses import dataclass, replace

import numpy as np

from ..canvas import Canvas
from ..look import colour
from ..phrases import count_of
from ..scene import END_MARGIN, Act, Event, Look, Painter, Setting, Words
from ..voices import add, burst, ring

SPEED_OF_SOUND = 343.0  # metres per second
NEAR, FAR = 35.0, 250.0  # metres
RISE = 0.9  # seconds that a rocket is seen before it bursts
BURN = 1.5  # seconds that its sparks are seen
MIN_BANG_GAP = 0.3  # seconds
SPARKS = 46
CRACKLE = (0.45, 0.8, 1.5)  # seconds after the burst: sparks begin to crackle, are densest, have burnt
POPS = 500  # of one rocket: so many that none of them passes for a bang


@dataclass(frozen=True)
class Rocket:
    """Seen to burst at `flash`, `distance` metres away; heard at `heard`."""

    flash: float
    distance: float
    x: float
    y: float
    crackling: bool = False  # its sparks crackle
    dud: bool = False  # only rises

    @property
    def heard(self) -> float:
        """When its bang arrives."""
        return self.flash + self.distance / SPEED_OF_SOUND

    @property
    def loudness(self) -> float:
        return (NEAR / self.distance) ** 0.8

    @property
    def radius(self) -> float:
        """Of the ball of sparks, in stage units: the farther, the smaller."""
        return 0.3 * (NEAR / self.distance) ** 0.55


@dataclass(frozen=True)
class Show:
    """All rockets of a firework, far behind everything else."""

    rockets: tuple[Rocket, ...]
    horizon: float
    depth: float = -1.0

    def painter(self, look: Look) -> "ShowPainter":
        return ShowPainter(self, look)


class ShowPainter(Painter):
    """Trails, flashes, and sparks that slow down and sink."""

    def __init__(self, show: Show, look: Look):
        self.show = show
        count = len(show.rockets)
        self.colours = [colour(look.rng, saturation=(0.3, 0.9), value=(1.0, 1.0)) for _ in range(count)]
        self.ways = []  # of each rocket: x, y (2, SPARKS), seen from the side of a full ball
        for _ in range(count):
            way = look.rng.standard_normal((3, SPARKS))
            self.ways.append((way / np.linalg.norm(way, axis=0))[:2] * look.rng.uniform(0.8, 1.0, SPARKS))
        self.twinkle = look.rng.uniform(0, 1, (2, SPARKS))

    def draw(self, canvas: Canvas, time: float) -> None:
        for rocket, paint, way in zip(self.show.rockets, self.colours, self.ways, strict=True):
            age = time - rocket.flash
            if -RISE <= age < 0:
                self._trail(canvas, rocket, age)
            elif 0 <= age < BURN and not rocket.dud:
                self._burst(canvas, rocket, age, paint, way)

    def _trail(self, canvas: Canvas, rocket: Rocket, age: float) -> None:
        def place(since: float) -> tuple[float, float]:
            left = min(-since / RISE, 1.0) ** 2  # of the way up
            return rocket.x + 0.06 * left, rocket.y + (self.show.horizon - rocket.y) * left

        (x, y), (x0, y0) = place(age), place(age - 0.12)
        warm = np.array([1.0, 0.8, 0.5], np.float32)
        fade = min(-age / 0.15, 1.0) if rocket.dud else 1.0
        canvas.capsule(x0, y0, x, y, 0.005, warm * 0.8, 0.6 * fade)
        canvas.disc(x, y, 0.012, warm, fade)

    def _burst(self, canvas: Canvas, rocket: Rocket, age: float, paint: np.ndarray, way: np.ndarray) -> None:
        flash = float(np.exp(-age / 0.06))
        canvas.glow(rocket.x, rocket.y, 1.6 * rocket.radius, 0.5 + 0.5 * paint, 1.6 * flash)
        canvas.glow(rocket.x, rocket.y, 1.2 * rocket.radius, paint, 0.35 * (1 - age / BURN))
        head_x, head_y = self._sparks(rocket, age, way)
        tail_x, tail_y = self._sparks(rocket, max(age - 0.1, 0.0), way)
        fade = 1 - (age / BURN) ** 2
        width = 0.004 + 0.03 * rocket.radius
        canvas.streaks(tail_x, tail_y, head_x, head_y, width, paint, fade)
        canvas.dots(head_x, head_y, 0.6 * width, 0.5 + 0.5 * paint, fade)
        if rocket.crackling and age > CRACKLE[0]:
            lit = (self.twinkle[0] + 9 * age * (0.5 + self.twinkle[1])) % 1 < 0.3
            canvas.dots(head_x[lit], head_y[lit], 1.3 * width, np.ones(3, np.float32), fade)

    def _sparks(self, rocket: Rocket, age: float, way: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        out = rocket.radius * (1 - np.exp(-age / 0.28))
        return rocket.x + out * way[0], rocket.y + out * way[1] + 0.25 * rocket.radius * age * age


@dataclass(frozen=True)
class Bangs:
    """The sound of a firework: a bang for every burst, dull from far away, and the crackling of sparks."""

    name: str
    rockets: tuple[Rocket, ...]
    hertz: tuple[float, float]  # of the boom

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        dry = np.zeros(length)
        streams = rng.spawn(len(self.rockets))
        for rocket, stream in zip(self.rockets, streams, strict=True):
            add(dry, rocket.heard, rocket.loudness * self._bang(rocket, sample_rate, stream), sample_rate)
            if rocket.crackling:
                sound = rocket.loudness * self._crackle(sample_rate, stream)
                add(dry, rocket.heard + CRACKLE[0], sound, sample_rate)
        return dry

    def _crackle(self, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
        begin, densest, end = CRACKLE
        times = rng.triangular(begin, densest, end, POPS)
        swell = np.interp(times, CRACKLE, (0.0, 1.0, 0.0))  # no pop stands alone at either end
        places = ((times - begin) * sample_rate).astype(int)
        pops = np.bincount(places, swell * rng.uniform(0.02, 0.06, POPS), int((end - begin) * sample_rate) + 1)
        return np.convolve(pops, burst(0.002, 4500.0, sample_rate, rng))

    def _bang(self, rocket: Rocket, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
        crack_rng, rumble_rng = rng.spawn(2)
        corner = 4500 * (NEAR / rocket.distance) ** 0.4
        sound = 0.6 * ring(np.array(self.hertz), 0.45, np.array([1.0, 0.7]), sample_rate)
        for seconds, level, part, stream in ((0.02, 0.7, corner, crack_rng), (0.1, 0.5, 0.15 * corner, rumble_rng)):
            noise = level * burst(seconds, part, sample_rate, stream)
            if len(noise) > len(sound):
                sound, noise = noise, sound
            sound[: len(noise)] += noise
        return sound / np.abs(sound).max()


def make(rng: np.random.Generator, setting: Setting) -> Act:
    rockets: list[Rocket] = []
    pace = float(np.exp(rng.uniform(np.log(0.5), np.log(1.8))))
    flash = float(rng.uniform(-0.3, 1.0)) * min(setting.duration / 4, 1.0)
    while flash < setting.duration:
        distance = float(np.exp(rng.uniform(np.log(NEAR), np.log(FAR))))
        crackling, dud = bool(rng.random() < 0.3), bool(rng.random() < 0.15)
        rocket = Rocket(flash, distance, 0.0, 0.0, crackling, dud)
        margin = min(0.8 * rocket.radius / setting.width, 0.4)
        x = setting.across(float(rng.uniform(margin, 1 - margin)))
        y = float(rng.uniform(0.1, 0.45 * setting.horizon)) + 0.4 * rocket.radius
        rocket = replace(rocket, x=x, y=y)
        clear = all(abs(rocket.heard - other.heard) > MIN_BANG_GAP for other in rockets)
        if flash > 0 and clear:
            rockets.append(rocket)
        flash += max(pace * float(rng.uniform(0.5, 1.6)), MIN_BANG_GAP)
    audible = [r for r in rockets if not r.dud and r.heard < setting.duration - END_MARGIN]
    events = [Event(r.heard, "firework", None, r.loudness, r.x, r.y) for r in audible]
    for rocket in audible:
        begin, end = (min(rocket.heard + CRACKLE[k], setting.duration) for k in (0, 2))
        if rocket.crackling and begin < setting.duration - END_MARGIN:
            events.append(Event(begin, "firework", None, 0.1 * rocket.loudness, rocket.x, rocket.y, end - begin))
    low = float(rng.uniform(55, 80))
    bangs = Bangs("fireworks", tuple(r for r in rockets if not r.dud), (low, 1.7 * low))
    return Act("fireworks", (Show(tuple(rockets), setting.horizon),), (bangs,), tuple(events), _words(audible))


def _words(rockets: list[Rocket]) -> Words:
    near = sum(rocket.distance < 90 for rocket in rockets)
    where = "close by" if near > len(rockets) / 2 else "far away"
    sparks = "with crackling sparks" if any(rocket.crackling for rocket in rockets) else "with bright sparks"
    many = count_of(len(rockets))
    return Words(
        tags=("fireworks", "fireworks exploding", "fireworks, bangs in the night", "firework display"),
        clauses=(
            "fireworks explode in the night sky",
            "fireworks go off",
            "firework rockets burst in the sky",
            "a firework bangs in the dark sky",
        ),
        details=(
            f"fireworks explode {where} and bang {many}",
            f"fireworks burst {sparks} and bang {many}, each a moment after its flash",
            f"firework rockets rise {where} and burst {sparks}",
        ),
    )
