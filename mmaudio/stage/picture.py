"""The picture of a scene: a still set seen by a camera, the moving things before it, and what the lens makes of it."""

import numpy as np

from .backdrop import draw_backdrop
from .camera import Camera, crop
from .canvas import Canvas
from .extras import NEARNESS, obstacles, wanderers
from .lens import Film, Lens, compress
from .scene import Light, Look, Painter, Scene, generator


def render_video(scene: Scene, fps: float = 25, size: tuple[int, int] = (112, 112)) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 with T = round(duration * fps); frame k shows time k / fps."""
    height, width = size
    setting = scene.setting
    rng, second = generator(scene.seed, "look"), generator(scene.seed, "look", 1)
    light = random_light(rng, setting.place)
    camera = Camera.random(second, scene.duration, setting.hard)
    lens = Lens.random(second)
    behind, before = wanderers(second, setting.horizon), obstacles(second, scene.duration)
    standing, moving = _painters(scene, light, min(height, width))
    backdrop = draw_backdrop(rng, setting, light, standing, height, width)
    film = Film(lens, generator(scene.seed, "noise"), height, width)

    frames = np.empty((round(scene.duration * fps), height, width, 3), np.uint8)
    image = np.empty((height, width, 3), np.float32)
    view = still = None
    for k in range(len(frames)):
        time = k / fps
        seen = camera.view(time, height, width)
        if seen != view:
            view, still = seen, crop(backdrop, seen, height, width)
        _expose(Canvas(image, view), still, behind, moving, lens.exposures(time, fps))
        near = Canvas(image, camera.view(time, height, width, NEARNESS))
        for obstacle in before:
            obstacle.draw(near, time, 0.5 * width / min(height, width))
        frames[k] = film.develop(image, k, time)
    return compress(frames, fps, lens.crf) if lens.crf else frames


def random_light(rng: np.random.Generator, place: str) -> Light:
    """Light from above, from one side or the other; dim and blue at night."""
    direction = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-1.0, -0.5), rng.uniform(0.4, 0.9)])
    warmth = rng.uniform(-0.12, 0.12)
    tint = (1 + np.array([warmth, 0.0, -warmth]) + rng.uniform(-0.03, 0.03, 3)) * rng.uniform(0.85, 1.1)
    if place == "night":
        tint = tint * (0.72, 0.76, 0.9)
    return Light((direction / np.linalg.norm(direction)).astype(np.float32), tint.astype(np.float32))


def _painters(scene: Scene, light: Light, unit: int) -> tuple[list[Painter], list[Painter]]:
    """Of what stands still for the whole clip, and of the acts, far things first."""
    things = [thing for act in scene.acts for thing in act.things]
    painters = [
        thing.painter(Look(generator(scene.seed, "thing", index), light, unit, scene.setting.horizon))
        for index, thing in enumerate((*scene.bystanders, *things))
    ]
    standing, moving = painters[: len(scene.bystanders)], painters[len(scene.bystanders) :]
    return standing, [moving[i] for i in sorted(range(len(things)), key=lambda i: things[i].depth)]


def _expose(canvas: Canvas, still: np.ndarray, behind: tuple, moving: list[Painter], times: tuple[float, ...]) -> None:
    """Draw the moving things over `still`: the mean over some instants."""
    total = np.zeros_like(still) if len(times) > 1 else None
    for time in times:
        np.copyto(canvas.image, still)
        for wanderer in behind:
            wanderer.draw(canvas, time)
        for painter in moving:
            painter.shadow(canvas, time)
        for painter in moving:
            painter.draw(canvas, time)
        if total is not None:
            total += canvas.image
    if total is not None:
        np.divide(total, len(times), out=canvas.image)
