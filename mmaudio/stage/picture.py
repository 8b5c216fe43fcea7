"""The picture of a scene: a static set seen by a slightly restless camera, with the moving things drawn on top.

Edges are anti-aliased analytically (coverage from signed distance), so motion of a fraction of a pixel shows.
"""

from dataclasses import dataclass

import numpy as np

from .look import FINISHES, Finish, clouds, colour, ground, material_texture, shrink, wall
from .materials import STICK_HEAD_RADIUS
from .scene import Body, Pose, Scene, body_pose, generator, stick_pose
from .shapes import distance, reach

MARGIN = 0.14  # of the picture's extent, kept around it for camera motion


def render_video(scene: Scene, fps: float = 25, size: tuple[int, int] = (112, 112)) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 with T = round(duration * fps); frame k shows time k / fps."""
    height, width = size
    rng = generator(scene.seed, "look")
    camera = _Camera.random(rng)
    light = _Light.random(rng)
    surfaces = [material_texture(body.material, rng) for body in scene.bodies + scene.bystanders]
    stick_colours = colour(rng, (0.06, 0.1), (0.2, 0.6), (0.65, 1.0)), colour(rng, value=(0.1, 0.9))
    distractors = _Distractors.random(rng, scene.horizon)
    lens = _Lens.random(rng)

    unit = min(height, width)
    things = [
        _Thing(body, texture, light, unit)
        for body, texture in zip(scene.bodies + scene.bystanders, surfaces, strict=True)
    ]
    movers = sorted(things[: len(scene.bodies)], key=lambda thing: thing.body.ground)
    backdrop = _backdrop(scene, rng, light, things[len(scene.bodies) :], height, width, unit)
    film = _Film(lens, generator(scene.seed, "noise"), height, width)

    frames = np.empty((round(scene.duration * fps), height, width, 3), np.uint8)
    for k in range(len(frames)):
        time = k / fps
        zoom, pan_x, pan_y = camera.at(time)
        view = _View(unit * zoom, width / 2 + (pan_x - 0.5 * zoom) * unit, height / 2 + (pan_y - 0.5 * zoom) * unit)
        image = _crop(backdrop, view, unit, height, width)
        distractors.draw(image, view, time)
        poses = [body_pose(thing.body, time) for thing in movers]
        for thing, pose in zip(movers, poses, strict=True):
            thing.draw_shadow(image, view, pose)
        for thing, pose in zip(movers, poses, strict=True):
            thing.draw(image, view, pose)
        if scene.stick:
            _draw_stick(image, view, stick_pose(scene.stick, time), stick_colours, scene.stick.side)
        frames[k] = film.develop(image, k, time)
    return frames


@dataclass(frozen=True)
class _View:
    """Stage to pixels: pixel = origin + scale * stage."""

    scale: float
    x: float
    y: float

    def patch(self, image: np.ndarray, x0: float, y0: float, x1: float, y1: float):
        """The pixels of a stage rectangle: (view into image, stage x (1, w), stage y (h, 1)), or None outside."""
        left, right = int(self.x + self.scale * x0) - 1, int(self.x + self.scale * x1) + 3
        top, bottom = int(self.y + self.scale * y0) - 1, int(self.y + self.scale * y1) + 3
        left, top = max(left, 0), max(top, 0)
        right, bottom = min(right, image.shape[1]), min(bottom, image.shape[0])
        if left >= right or top >= bottom:
            return None
        xs = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - self.x)) / np.float32(self.scale)
        ys = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - self.y)) / np.float32(self.scale)
        return image[top:bottom, left:right], xs[None, :], ys[:, None]


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


@dataclass(frozen=True)
class _Light:
    direction: np.ndarray  # (3,), unit length: x right, y down, z towards the camera
    tint: np.ndarray  # (3,)

    @classmethod
    def random(cls, rng: np.random.Generator) -> "_Light":
        direction = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-1.0, -0.5), rng.uniform(0.4, 0.9)])
        tint = np.array([1.0, 1.0, 1.0]) + rng.uniform(-0.08, 0.08, 3)
        unit = direction / np.linalg.norm(direction)
        return cls(unit.astype(np.float32), (tint * rng.uniform(0.85, 1.1)).astype(np.float32))


class _Thing:
    """An object with its surface; draws itself and its shadow into an image."""

    def __init__(self, body: Body, texture: np.ndarray, light: _Light, unit: int):
        self.body, self.light = body, light
        self.finish: Finish = FINISHES[body.material]
        self.extent = max(body.aspect, 1.0)
        self.reach = reach(body.shape, body.aspect)
        self.texture = shrink(texture, 2 * self.extent * body.size * unit) * light.tint
        half = light.direction + np.array([0, 0, 1], np.float32)
        self.half = half / np.linalg.norm(half)

    def draw_shadow(self, image: np.ndarray, view: _View, pose: Pose) -> None:
        """A soft ellipse on the floor: wide and faint while the object is high, dark where it touches."""
        body = self.body
        lifted = max(body.ground - pose.bottom, 0.0)
        wide = body.size * min(body.aspect, 1.6) * (0.95 + 0.8 * lifted)
        x = pose.x - 0.25 * self.light.direction[0] * lifted
        found = view.patch(image, x - 1.5 * wide, body.ground - 0.5 * wide, x + 1.5 * wide, body.ground + 0.5 * wide)
        if found is None:
            return
        patch, xs, ys = found
        square = ((xs - x) / wide) ** 2 + ((ys - body.ground) / (0.3 * wide)) ** 2
        darkness = 0.65 / (1 + 5 * lifted)
        patch *= 1 - darkness * np.clip(1.35 - square, 0, 1)[..., None]

    def draw(self, image: np.ndarray, view: _View, pose: Pose) -> None:
        body, finish = self.body, self.finish
        radius = body.size * self.reach * 1.05
        found = view.patch(image, pose.x - radius, pose.y - radius, pose.x + radius, pose.y + radius)
        if found is None:
            return
        patch, xs, ys = found
        wide = (xs - pose.x) * np.float32(pose.squash**0.5 / body.size)
        down = (ys - pose.y) / np.float32(body.size * pose.squash)
        c, s = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
        x, y = c * wide + s * down, c * down - s * wide
        cover = np.clip(0.5 - distance(body.shape, body.aspect, x, y) * np.float32(body.size * view.scale), 0, 1)
        nx, ny = self._slope(x, y, c, s, wide, down)
        flat = np.minimum(nx * nx + ny * ny, 1)
        nz = np.sqrt(1 - flat)
        lx, ly, lz = self.light.direction
        lit = finish.ambient + finish.diffuse * np.maximum(nx * lx + ny * ly + nz * lz, 0)
        if finish.mirror:  # a reflected horizon: bright sky above, dark band, lit floor below
            lit = lit + finish.mirror * (0.15 - 0.55 * np.exp(-(((ny - 0.15) / 0.22) ** 2)) - 0.45 * ny * (ny < 0.15))
        hx, hy, hz = self.half
        shine = finish.specular * np.maximum(nx * hx + ny * hy + nz * hz, 0) ** finish.sharpness
        texels = len(self.texture)
        scale = texels / (2 * self.extent)
        u = np.clip((x + self.extent) * scale, 0, texels - 1).astype(np.intp)
        v = np.clip((y + self.extent) * scale, 0, texels - 1).astype(np.intp)
        shown = self.texture[v, u] * lit[..., None] + shine[..., None]
        if finish.opacity < 1:
            rim = np.maximum(flat**1.5, 0.0)
            cover = cover * np.clip(finish.opacity + (0.9 - finish.opacity) * rim + shine, 0, 1)
        patch += cover[..., None] * (shown - patch)

    def _slope(self, x, y, c, s, wide, down):
        """x and y of the surface normal on screen: a sphere, a bevelled block, or an upright vessel."""
        if self.body.shape == "ball":
            return wide, down
        across = np.clip(x / self.body.aspect, -1, 1)
        if self.body.shape == "block":
            nx, ny = 0.8 * across**5, 0.8 * np.clip(y, -1, 1) ** 5
        else:
            nx, ny = 0.92 * across, 0.35 * np.clip(y, -1, 1) ** 3 + 0.05
        return c * nx - s * ny, s * nx + c * ny


def _draw_stick(image, view: _View, pose, colours, side: int) -> None:
    head_x, head_y, hand_x, hand_y = pose
    wood, sleeve = colours
    _capsule(image, view, head_x, head_y, hand_x, hand_y, 0.014, wood)
    _capsule(image, view, hand_x, hand_y, hand_x + side * 0.9, hand_y - 0.12, 0.04, sleeve)
    _capsule(image, view, head_x, head_y, head_x, head_y, STICK_HEAD_RADIUS, wood * 1.1)


def _capsule(image, view: _View, x0, y0, x1, y1, radius: float, paint: np.ndarray) -> None:
    """A thick line from (x0, y0) to (x1, y1) with round ends, lit from above."""
    found = view.patch(image, min(x0, x1) - radius, min(y0, y1) - radius, max(x0, x1) + radius, max(y0, y1) + radius)
    if found is None:
        return
    patch, xs, ys = found
    dx, dy = np.float32(x1 - x0), np.float32(y1 - y0)
    px, py = xs - np.float32(x0), ys - np.float32(y0)
    along = np.clip((px * dx + py * dy) / max(dx * dx + dy * dy, np.float32(1e-9)), 0, 1)
    off_x, off_y = px - along * dx, py - along * dy
    cover = np.clip(0.5 + (radius - np.hypot(off_x, off_y)) * np.float32(view.scale), 0, 1)
    shade = 0.85 - 0.3 * np.clip(off_y / radius, -1, 1)
    patch += cover[..., None] * (paint * shade[..., None] - patch)


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

    def draw(self, image: np.ndarray, view: _View, time: float) -> None:
        for (x0, y0, radius, speed, swing, hertz, phase, opacity), paint in self.blobs:
            x = (x0 + speed * time + 0.3) % 1.6 - 0.3
            y = y0 + swing * np.sin(2 * np.pi * hertz * time + phase)
            found = view.patch(image, x - radius, y - radius, x + radius, y + radius)
            if found is None:
                continue
            patch, xs, ys = found
            cover = np.clip(2.5 * (1 - np.hypot(xs - np.float32(x), ys - np.float32(y)) / radius), 0, 1) * opacity
            patch += cover[..., None].astype(np.float32) * (paint - patch)


def _backdrop(scene: Scene, rng, light: _Light, bystanders, height: int, width: int, unit: int) -> np.ndarray:
    """The still set on a canvas larger than the picture (H', W', 3)."""
    tall, broad = round(height * (1 + 2 * MARGIN)), round(width * (1 + 2 * MARGIN))
    ys = ((np.arange(tall) + 0.5 - tall / 2) / unit + 0.5).astype(np.float32)
    xs = ((np.arange(broad) + 0.5 - broad / 2) / unit + 0.5).astype(np.float32)
    share = np.clip((ys - scene.horizon) * unit + 0.5, 0, 1)[:, None, None]
    canvas = wall(rng, xs, ys) * (1 - share) + ground(rng, scene.floor, scene.horizon, xs, ys) * share
    fall_off = 1 + rng.uniform(-0.25, 0.25) * (xs[None, :] - 0.5) + rng.uniform(-0.2, 0.2) * (ys[:, None] - 0.5)
    shadows = 1 + rng.uniform(0, 0.15) * clouds(rng, xs, ys, 3, 2)
    canvas = (canvas * (fall_off * shadows)[..., None] * light.tint).astype(np.float32)
    view = _View(unit, broad / 2 - 0.5 * unit, tall / 2 - 0.5 * unit)
    for thing in sorted(bystanders, key=lambda thing: thing.body.ground):
        pose = body_pose(thing.body, 0.0)
        thing.draw_shadow(canvas, view, pose)
        thing.draw(canvas, view, pose)
    return canvas


def _crop(canvas: np.ndarray, view: _View, unit: int, height: int, width: int) -> np.ndarray:
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
