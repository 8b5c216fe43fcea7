"""A storm: lightning brightens everything, and its thunder comes later, a crack and a long rumble."""

from dataclasses import dataclass

import numpy as np

from ..canvas import Canvas
from ..phrases import count_of
from ..scene import END_MARGIN, Act, Event, Look, Painter, Setting, Words
from ..voices import add, band_noise, burst
from .fireworks import SPEED_OF_SOUND

NEAR, FAR = 105.0, 1030.0  # metres: 0.3 to 3 seconds
STROKES = ((0.0, 1.0, 0.10), (0.13, 0.75, 0.12))  # of one flash: (seconds later, brightness, seconds to fall by 1/e)
SHEET = 0.35  # brightness of lightning behind the horizon, which is never heard
JOINTS = 11  # of a bolt


@dataclass(frozen=True)
class Lightning:
    """Seen at `flash`, `distance` metres away; heard from `heard` on."""

    flash: float
    distance: float
    bolt: tuple[tuple[float, float], ...]  # joints from the top down, in stage units; none: only the sky lights up
    branch: tuple[tuple[float, float], ...] = ()
    rumble: float = 0.0  # seconds

    @property
    def heard(self) -> float:
        """When its thunder arrives."""
        return self.flash + self.distance / SPEED_OF_SOUND

    @property
    def closeness(self) -> float:
        """0..1: how thick and bright the bolt is."""
        return float(np.log(FAR / self.distance) / np.log(FAR / NEAR))

    @property
    def loudness(self) -> float:
        return 0.3 + 0.6 * self.closeness

    def brightness(self, time: float) -> float:
        """0..1 at a time."""
        full = (0.6 + 0.4 * self.closeness) if self.bolt else SHEET
        since = time - self.flash
        return full * sum(
            level * float(np.exp(-(since - late) / fall)) for late, level, fall in STROKES if since >= late
        )


@dataclass(frozen=True)
class Sky:
    """Darkens the set and holds the bolts; behind everything else."""

    flashes: tuple[Lightning, ...]
    night: bool
    depth: float = -2.0

    def painter(self, look: Look) -> "SkyPainter":
        return SkyPainter(self)


@dataclass(frozen=True)
class Glare:
    """The light of the flashes on all that is drawn; before everything else."""

    flashes: tuple[Lightning, ...]
    depth: float = 9.0

    def painter(self, look: Look) -> "GlarePainter":
        return GlarePainter(self)


class SkyPainter:
    def __init__(self, sky: Sky):
        self.sky = sky
        self.paint = np.array([0.92, 0.94, 1.0], np.float32)

    def shadow(self, canvas: Canvas, time: float) -> None:
        if not self.sky.night:  # heavy clouds; before any shadow falls
            canvas.expose(0.55, np.array([0.92, 0.97, 1.08], np.float32))

    def draw(self, canvas: Canvas, time: float) -> None:
        for flash in self.sky.flashes:
            bright = flash.brightness(time)
            if bright > 0.04 and flash.bolt:
                width = 0.008 + 0.01 * flash.closeness
                top_x, top_y = flash.bolt[0]
                canvas.glow(top_x, top_y, 0.15 + 0.2 * flash.closeness, self.paint, 0.3 * bright)
                self._line(canvas, flash.bolt, width, bright)
                self._line(canvas, flash.branch, 0.6 * width, bright)

    def _line(self, canvas: Canvas, joints: tuple[tuple[float, float], ...], width: float, bright: float) -> None:
        x, y = np.array(joints).T
        opacity = min(1.6 * bright, 1.0)
        canvas.streaks(x[:-1], y[:-1], x[1:], y[1:], 3 * width, self.paint * 0.8, 0.15 * opacity)
        canvas.streaks(x[:-1], y[:-1], x[1:], y[1:], width, self.paint * 1.2, opacity)


class GlarePainter(Painter):
    def __init__(self, glare: Glare):
        self.glare = glare

    def draw(self, canvas: Canvas, time: float) -> None:
        bright = sum(flash.brightness(time) for flash in self.glare.flashes)
        if bright > 0.02:
            canvas.expose(1 + 1.5 * bright)
            canvas.image += np.float32(0.22 * bright) * np.array([0.9, 0.95, 1.1], np.float32)


@dataclass(frozen=True)
class Thunder:
    """The sound of a storm: near thunder begins with a hard crack, and all of it rolls away unevenly."""

    name: str
    flashes: tuple[Lightning, ...]

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        dry = np.zeros(length)
        for flash, stream in zip(self.flashes, rng.spawn(len(self.flashes)), strict=True):
            add(dry, flash.heard, flash.loudness * self._clap(flash, sample_rate, stream), sample_rate)
        return dry

    def _clap(self, flash: Lightning, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
        bursts, peals, noise = rng.spawn(3)
        sound = self._rumble(flash, sample_rate, peals, noise)
        corner = 500 + 3000 * flash.closeness**1.5
        late = np.append(0.0, np.sort(bursts.uniform(0.03, 0.35, 9)))  # the bolt is long: its parts arrive one by one
        level = (0.35 + 0.65 * flash.closeness) * np.append(1.0, bursts.uniform(0.1, 0.3, 9))
        for begin, loud, stream in zip(late, level, bursts.spawn(10), strict=True):
            add(sound, begin, loud * burst(0.07, corner, sample_rate, stream), sample_rate)
        return sound / np.abs(sound).max()

    def _rumble(self, flash: Lightning, sample_rate: int, peals, noise) -> np.ndarray:
        length = int(sample_rate * flash.rumble)
        seconds = np.arange(length) / sample_rate
        knots = np.arange(0, flash.rumble + 0.3, 0.25)
        swell = np.interp(seconds, knots, peals.uniform(0.3, 1.0, len(knots)))
        fade = np.minimum(seconds / 0.02, 1) * np.exp(-2.5 * seconds / flash.rumble) * (1 - seconds / flash.rumble)
        deep = band_noise(length, 35.0, 130.0, sample_rate, noise)
        middle = band_noise(length, 90.0, 420.0, sample_rate, noise)
        return (0.35 * deep + (0.1 + 0.15 * flash.closeness) * middle) * swell * fade


def make(rng: np.random.Generator, setting: Setting) -> Act:
    flashes: list[Lightning] = []
    silent: list[Lightning] = []
    time = float(rng.uniform(0.1, 1.5)) * min(setting.duration / 4, 1.0)
    while time < setting.duration:
        left = setting.duration - time - 0.5  # some of the rumble is heard
        farthest = min(FAR, left * SPEED_OF_SOUND)
        distance = float(np.exp(rng.uniform(np.log(NEAR), np.log(max(farthest, NEAR)))))
        flash = _lightning(rng, setting, time, distance)
        if rng.random() < 0.2 or farthest < NEAR:
            silent.append(Lightning(time, FAR, ()))
        elif not flashes or flash.heard > flashes[-1].heard + 1.0:
            flashes.append(flash)
        time += float(rng.uniform(1.2, 4.0))
    events = tuple(
        Event(
            flash.heard, "thunder", None, flash.loudness, *flash.bolt[-1],
            min(flash.rumble, setting.duration - flash.heard),
        )
        for flash in flashes
        if flash.heard < setting.duration - END_MARGIN
    )  # fmt: skip
    every = (*flashes, *silent)
    things = (Sky(every, setting.place == "night"), Glare(every))
    return Act("thunder", things, (Thunder("thunder", tuple(flashes)),), events, _words(flashes))


def _lightning(rng: np.random.Generator, setting: Setting, time: float, distance: float) -> Lightning:
    """A near bolt comes from above the picture; a far one is short and hangs over the horizon."""
    closeness = float(np.log(FAR / distance) / np.log(FAR / NEAR))
    top = setting.horizon * (0.45 - 0.6 * closeness)
    x = float(rng.uniform(0.15, 0.85)) + np.cumsum(rng.uniform(-1, 1, JOINTS)) * (0.02 + 0.02 * closeness)
    x = x + rng.uniform(-1, 1, JOINTS) * (0.015 + 0.035 * closeness)  # jagged
    y = np.linspace(top, setting.horizon, JOINTS)
    x = np.clip(x, 0.03, 0.97)
    fork = int(rng.integers(3, 7))
    side = float(rng.choice([-1, 1]))
    step = (setting.horizon - top) / JOINTS
    reach = np.cumsum(np.append(0.0, rng.uniform(0.3, 1.6, 4))) * step
    branch = zip(x[fork] + side * reach, y[fork] + step * 0.8 * np.arange(5), strict=True)
    rumble = float(rng.uniform(1.8, 4.0))
    joints = zip(x, y, strict=True)
    return Lightning(
        time, distance, tuple((float(a), float(b)) for a, b in joints), tuple((float(a), float(b)) for a, b in branch),
        rumble,
    )  # fmt: skip


def _words(flashes: list[Lightning]) -> Words:
    near = bool(flashes) and max(flash.closeness for flash in flashes) > 0.5
    where = "close by" if near else "far away"
    many = count_of(len(flashes))
    claps = "a thunderclap" if len(flashes) == 1 else "thunderclaps"
    return Words(
        tags=("thunder", "thunder rumbling", "thunderstorm", "lightning and thunder"),
        clauses=(
            "thunder rumbles after a flash of lightning",
            "it thunders",
            "lightning flashes and thunder rumbles",
            "a thunderstorm rumbles in the sky",
        ),
        details=(
            f"lightning flashes {where} and it thunders {many}",
            f"the sky lights up, and a moment later thunder rumbles {where}",
            f"{claps} {'follows' if len(flashes) == 1 else 'follow'} the lightning of a storm {where}",
        ),
    )
