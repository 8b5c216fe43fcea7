"""Solid objects: where they are, and how they are drawn. A body is the same thing for physics, picture and sound."""

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas
from .look import FINISHES, Finish, material_texture, shrink
from .materials import MATERIALS, SHAPES, TABLE
from .motion import Piece, piece_at, still
from .scene import Look, Setting
from .shapes import distance, reach, support

ASPECTS = {"ball": (1, 1), "block": (0.8, 1.5), "bowl": (1.3, 2.0), "pot": (0.8, 1.2), "bottle": (0.4, 0.55)}


@dataclass(frozen=True)
class Pose:
    """Where an object is: centre and lowest point in stage units, angle in radians, vertical squash factor."""

    x: float
    y: float
    bottom: float
    angle: float
    squash: float


@dataclass(frozen=True)
class Body:
    """An object. `size` is its half-height and `ground` the y of the floor line it stands on, in stage units."""

    material: str
    shape: str
    size: float
    aspect: float  # half-width / half-height
    ground: float
    path: tuple[Piece, ...]
    impacts: tuple[tuple[float, float], ...] = ()  # (time, loudness) of everything that hits it or that it hits
    struck: bool = False  # rocks when it is hit

    @property
    def depth(self) -> float:
        return self.ground

    @property
    def top(self) -> float:
        """The y of its top when it stands upright."""
        return self.ground - 2 * self.size

    def pose(self, time: float) -> Pose:
        """The object's pose at a time in seconds. At a bounce `bottom` equals `ground`."""
        x, height, angle = piece_at(self.path, time).at(time)
        squash = 1.0
        for when, loudness in self.impacts:
            since = time - when
            if 0 <= since < 0.4:
                give = loudness * np.exp(-since / 0.035)
                squash -= TABLE[self.material].squash * give
                if self.struck:  # a small recoil: it rocks away and back
                    kick = loudness * np.exp(-since / 0.09) * np.sin(2 * np.pi * since / 0.16)
                    x += 0.012 * kick
                    squash -= 0.05 * give
        bottom = self.ground - height
        return Pose(x, bottom - self.size * squash * support(self.shape, self.aspect, angle), bottom, angle, squash)

    def painter(self, look: Look) -> "BodyPainter":
        return BodyPainter(self, look)


def random_body(
    rng: np.random.Generator,
    setting: Setting,
    family: str,
    ground: float,
    shapes: tuple[str, ...] = tuple(SHAPES),
    scale: float = 1.0,
    unlike: tuple[Body, ...] = (),
) -> Body:
    """A body without a path, of another material than `unlike`: two that sound can be told apart by ear."""
    shape = str(rng.choice(shapes))
    low, high = ASPECTS[shape]
    size = float(rng.uniform(0.07, 0.13)) * scale
    size *= {"bowl": 0.75, "bottle": 1.35}.get(shape, 1.0)
    aspect = float(rng.uniform(low, high))
    taken = {body.material for body in unlike}
    among = tuple(name for name in MATERIALS if name not in taken)
    return Body(setting.pick(rng, family, among), shape, size, aspect, ground, ())


def bystander(rng: np.random.Generator, setting: Setting) -> Body:
    """Something that stands in the back and does nothing."""
    body = random_body(rng, setting, "bystander", float(rng.uniform(setting.horizon + 0.03, setting.horizon + 0.1)))
    return Body(
        body.material, body.shape, 0.7 * body.size, body.aspect, body.ground, still(float(rng.uniform(0.08, 0.92)))
    )


class BodyPainter:
    """An object with its surface."""

    def __init__(self, body: Body, look: Look):
        self.body, light = body, look.light
        self.light = light
        self.finish: Finish = FINISHES[body.material]
        self.extent = max(body.aspect, 1.0)
        self.reach = reach(body.shape, body.aspect)
        texture = material_texture(body.material, look.rng)
        self.texture = shrink(texture, 2 * self.extent * body.size * look.unit) * light.tint
        half = light.direction + np.array([0, 0, 1], np.float32)
        self.half = half / np.linalg.norm(half)

    def shadow(self, canvas: Canvas, time: float) -> None:
        """One that the light casts to the other side, and one of contact: wide and faint while the object is high."""
        body, pose = self.body, self.body.pose(time)
        lifted = max(body.ground - pose.bottom, 0.0)
        away = -0.9 * float(self.light.direction[0])
        wide = body.size * min(body.aspect, 1.6) * (0.95 + 0.8 * lifted)
        x = pose.x + 0.3 * away * lifted
        canvas.shadow(x, body.ground - 0.01, 0.9 * wide, 0.3 / (1 + 5 * lifted), 1.6 * away * body.size)
        canvas.shadow(x, body.ground, wide, 0.6 / (1 + 6 * lifted))

    def draw(self, canvas: Canvas, time: float) -> None:
        body, finish, pose = self.body, self.finish, self.body.pose(time)
        radius = body.size * self.reach * 1.05
        found = canvas.patch(pose.x - radius, pose.y - radius, pose.x + radius, pose.y + radius)
        if found is None:
            return
        patch, xs, ys = found
        wide = (xs - pose.x) * np.float32(pose.squash**0.5 / body.size)
        down = (ys - pose.y) / np.float32(body.size * pose.squash)
        c, s = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
        x, y = c * wide + s * down, c * down - s * wide
        cover = np.clip(0.5 - distance(body.shape, body.aspect, x, y) * np.float32(body.size * canvas.view.scale), 0, 1)
        nx, ny = self._slope(x, y, c, s, wide, down)
        flat = np.minimum(nx * nx + ny * ny, 1)
        nz = np.sqrt(1 - flat)
        lx, ly, lz = self.light.direction
        lit = finish.ambient + finish.diffuse * np.maximum(nx * lx + ny * ly + nz * lz, 0)
        if finish.mirror:  # a reflected horizon: bright sky above, dark band, lit floor below
            at = ny if body.shape == "ball" else ny - 0.8 * nx * np.sign(lx)  # upright on a vessel
            lit = lit + finish.mirror * (0.15 - 0.55 * np.exp(-(((at - 0.15) / 0.22) ** 2)) - 0.45 * at * (at < 0.15))
        hx, hy, hz = self.half
        shine = finish.specular * np.exp(finish.sharpness * (nx * hx + ny * hy + nz * hz - 1))
        texels = len(self.texture)
        scale = texels / (2 * self.extent)
        u = np.clip((x + self.extent) * scale, 0, texels - 1).astype(np.intp)
        v = np.clip((y + self.extent) * scale, 0, texels - 1).astype(np.intp)
        shown = self.texture[v, u] * lit[..., None] + shine[..., None]
        if finish.opacity < 1:
            rim = flat * np.sqrt(flat)
            cover = cover * np.clip(finish.opacity + (0.9 - finish.opacity) * rim + shine, 0, 1)
        patch += cover[..., None] * (shown - patch)

    def _slope(self, x, y, c, s, wide, down):
        """x and y of the surface normal on screen: a sphere, a bevelled block, or an upright vessel."""
        if self.body.shape == "ball":
            return wide, down
        across, down = np.clip(x / np.float32(self.body.aspect), -1, 1), np.clip(y, -1, 1)
        if self.body.shape == "block":
            nx, ny = 0.8 * across * (across * across) ** 2, 0.8 * down * (down * down) ** 2
        else:
            nx, ny = 0.92 * across, 0.35 * down * down * down + 0.05
        return c * nx - s * ny, s * nx + c * ny
