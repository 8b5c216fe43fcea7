"""The picture of a scene: a static set seen by a slightly restless camera, with the moving things drawn on top."""

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, View
from .look import clouds, colour, ground, wall
from .scene import Light, Look, Scene, generator

MARGIN = 0.14  # of the picture's extent, kept around it for camera motion


def render_video(scene: Scene, fps: float = 25, size: tuple[int, int] = (112, 112)) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 with T = round(duration * fps); frame k shows time k / fps."""
    height, width = size
    unit = min(height, width)
    rng = generator(scene.seed, "look")
    camera, light = _Camera.random(rng), random_light(rng)
    distractors, lens = _Distractors.random(rng, scene.setting.horizon), _Lens.random(rng)
    things = [thing for act in scene.acts for thing in act.things]
    painters = [
        thing.painter(Look(generator(scene.seed, "thing", index), light, unit, scene.setting.horizon))
        for index, thing in enumerate((*scene.bystanders, *things))
    ]
    standing, moving = painters[: len(scene.bystanders)], painters[len(scene.bystanders) :]
    moving = [moving[i] for i in sorted(range(len(things)), key=lambda i: things[i].depth)]
    backdrop = _backdrop(scene, rng, light, standing, height, width, unit)
    film = _Film(lens, generator(scene.seed, "noise"), height, width)

    frames = np.empty((round(scene.duration * fps), height, width, 3), np.uint8)
    for k in range(len(frames)):
        time = k / fps
        zoom, pan_x, pan_y = camera.at(time)
        view = View(unit * zoom, width / 2 + (pan_x - 0.5 * zoom) * unit, height / 2 + (pan_y - 0.5 * zoom) * unit)
        canvas = Canvas(_crop(backdrop, view, unit, height, width), view)
        distractors.draw(canvas, time)
        for painter in moving:
            painter.shadow(canvas, time)
        for painter in moving:
            painter.draw(canvas, time)
        frames[k] = film.develop(canvas.image, k, time)
    return frames


@dataclass(frozen=True)
class _Camera:
    """Slow zoom and pan plus hand shake, all smooth functions of time."""

    zoom: tuple[float, float]
    pan: np.ndarray  # (2, 2): start and rate, in stage units
    shake: np.ndarray  # (4, 4): per component amplitude x, amplitude y, hertz, phase

    @classmethod
    def random(cls, rng: np.random.Generator) -> "_Camera":
        slow = rng.uniform(-1, 1, (2, 2)) * ((0.02, 0.02), (0.003, 0.003))
        steady = rng.random() < 0.35
        shake = rng.uniform(-1, 1, (4, 4)) * (0.004, 0.004, 0, np.pi)
        shake[:, 2] = rng.uniform(0.3, 3.5, 4)
        shake[:, :2] *= 0.0 if steady else rng.uniform(0.2, 1.2)
        return cls((rng.uniform(0.97, 1.1), rng.uniform(-0.008, 0.008)), slow * (not steady), shake)

    def at(self, time: float) -> tuple[float, float, float]:
        """(zoom, pan x, pan y) at a time; pans in stage units."""
        phase = np.sin(2 * np.pi * self.shake[:, 2] * time + self.shake[:, 3])
        pan = self.pan[0] + self.pan[1] * min(time, 12.0) + phase @ self.shake[:, :2]
        return self.zoom[0] + self.zoom[1] * min(time, 12.0), float(pan[0]), float(pan[1])


def random_light(rng: np.random.Generator) -> Light:
    direction = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-1.0, -0.5), rng.uniform(0.4, 0.9)])
    tint = np.array([1.0, 1.0, 1.0]) + rng.uniform(-0.08, 0.08, 3)
    unit = direction / np.linalg.norm(direction)
    return Light(unit.astype(np.float32), (tint * rng.uniform(0.85, 1.1)).astype(np.float32))


@dataclass(frozen=True)
class _Distractors:
    """Silent shapes that wander in the background: nothing they do makes a sound."""

    blobs: tuple[tuple[np.ndarray, np.ndarray], ...]  # (x, y, radius, speed, swing, hertz, phase, opacity), colour

    @classmethod
    def random(cls, rng: np.random.Generator, horizon: float) -> "_Distractors":
        count = int(rng.choice([0, 1, 2], p=[0.65, 0.25, 0.1]))
        blobs = []
        for _ in range(count):
            low = (0, 0.05, 0.02, -0.12, 0, 0.1, 0, 0.4)
            high = (1, max(horizon - 0.1, 0.1), 0.07, 0.12, 0.06, 0.6, 6.3, 0.9)
            blobs.append((rng.uniform(low, high), colour(rng, saturation=(0, 0.7), value=(0.1, 0.9))))
        return cls(tuple(blobs))

    def draw(self, canvas: Canvas, time: float) -> None:
        for (x0, y0, radius, speed, swing, hertz, phase, opacity), paint in self.blobs:
            x = (x0 + speed * time + 0.3) % 1.6 - 0.3
            y = y0 + swing * np.sin(2 * np.pi * hertz * time + phase)
            canvas.disc(x, y, radius, paint, opacity, softness=0.4)


def _backdrop(scene: Scene, rng, light: Light, standing, height: int, width: int, unit: int) -> np.ndarray:
    """The still set on a canvas larger than the picture (H', W', 3)."""
    setting = scene.setting
    tall, broad = round(height * (1 + 2 * MARGIN)), round(width * (1 + 2 * MARGIN))
    ys = ((np.arange(tall) + 0.5 - tall / 2) / unit + 0.5).astype(np.float32)
    xs = ((np.arange(broad) + 0.5 - broad / 2) / unit + 0.5).astype(np.float32)
    share = np.clip((ys - setting.horizon) * unit + 0.5, 0, 1)[:, None, None]
    behind = wall(rng, xs, ys, setting.place)
    image = behind * (1 - share) + ground(rng, setting.floor, setting.horizon, xs, ys) * share
    fall_off = 1 + rng.uniform(-0.25, 0.25) * (xs[None, :] - 0.5) + rng.uniform(-0.2, 0.2) * (ys[:, None] - 0.5)
    shadows = 1 + rng.uniform(0, 0.15) * clouds(rng, xs, ys, 3, 2)
    dark = 0.35 if setting.place == "night" else 1.0
    image = (image * (dark * fall_off * shadows)[..., None] * light.tint).astype(np.float32)
    canvas = Canvas(image, View(unit, broad / 2 - 0.5 * unit, tall / 2 - 0.5 * unit))
    for painter in standing:
        painter.shadow(canvas, 0.0)
        painter.draw(canvas, 0.0)
    return image


def _crop(canvas: np.ndarray, view: View, unit: int, height: int, width: int) -> np.ndarray:
    """What the camera sees of the canvas (H, W, 3), bilinear."""
    ratio = unit / view.scale
    y = (np.arange(height) + 0.5 - view.y) * ratio - 0.5 * unit + canvas.shape[0] / 2 - 0.5
    x = (np.arange(width) + 0.5 - view.x) * ratio - 0.5 * unit + canvas.shape[1] / 2 - 0.5
    y, x = np.clip(y, 0, canvas.shape[0] - 1.001), np.clip(x, 0, canvas.shape[1] - 1.001)
    row, column = y.astype(np.intp), x.astype(np.intp)
    down, right = (y - row).astype(np.float32)[:, None, None], (x - column).astype(np.float32)[None, :, None]
    rows = canvas[row]
    rows = rows + down * (canvas[row + 1] - rows)
    image = rows[:, column]
    return image + right * (rows[:, column + 1] - image)


@dataclass(frozen=True)
class _Lens:
    """What happens between the scene and the file: exposure, colour, blur, coarse pixels, quantisation, noise."""

    gain: np.ndarray  # (3,)
    lift: float
    gamma: float
    flicker: float
    blur: float  # weight of the neighbours, 0 for none
    coarse: bool
    levels: int  # 0 for no quantisation
    noise: float
    vignette: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> "_Lens":
        contrast = rng.uniform(0.75, 1.2)
        return cls(
            gain=(contrast * (1 + rng.uniform(-0.08, 0.08, 3))).astype(np.float32),
            lift=float(rng.uniform(-0.06, 0.08) + 0.45 * (1 - contrast)),
            gamma=float(rng.uniform(0.8, 1.25)),
            flicker=float(rng.uniform(0, 0.015)),
            blur=float(rng.choice([0.0, 0.12, 0.22], p=[0.5, 0.3, 0.2])),
            coarse=bool(rng.random() < 0.1),
            levels=int(rng.choice([0, 32, 48], p=[0.8, 0.1, 0.1])),
            noise=float(rng.uniform(0.0, 0.03) if rng.random() < 0.8 else 0.0),
            vignette=float(rng.uniform(0, 0.35) if rng.random() < 0.4 else 0.0),
        )


class _Film:
    """Applies a lens to frames; noise is cut at random places from a pool drawn once."""

    def __init__(self, lens: _Lens, rng: np.random.Generator, height: int, width: int):
        self.lens = lens
        self.gain = np.ones((1, 1, 3), np.float32) * lens.gain
        if lens.vignette:
            y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
            self.gain = self.gain * (1 - 0.5 * lens.vignette * (x * x + y * y)).astype(np.float32)[..., None]
        self.shifts = rng.integers(0, 32, (4096, 2))
        pool = rng.standard_normal((height + 32, width + 32, 3), np.float32)
        self.pool = pool * np.float32(lens.noise)
        table = np.clip(np.linspace(0, 1, 1024), 0, 1) ** lens.gamma
        if lens.levels:
            table = np.round(table * lens.levels) / lens.levels
        self.table = np.round(255 * table).astype(np.uint8)  # tone curve as a look-up: a power per pixel is slow

    def develop(self, image: np.ndarray, index: int, time: float) -> np.ndarray:
        """One frame (H, W, 3) uint8."""
        lens = self.lens
        height, width = image.shape[:2]
        if lens.coarse and height % 2 == 0 and width % 2 == 0:
            small = image.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
            image = small.repeat(2, axis=0).repeat(2, axis=1)
        if lens.blur:
            side = np.float32(lens.blur)
            inner = image[1:-1] * (1 - 2 * side) + side * (image[:-2] + image[2:])
            image[1:-1] = inner
            image[:, 1:-1] = image[:, 1:-1] * (1 - 2 * side) + side * (image[:, :-2] + image[:, 2:])
        image = image * self.gain
        image += np.float32(lens.lift + lens.flicker * np.sin(7.0 * time))
        if lens.noise:
            y, x = self.shifts[index % len(self.shifts)]
            image += self.pool[y : y + height, x : x + width]
        image *= 1023
        return self.table[np.clip(image, 0, 1023, out=image).astype(np.intp)]
