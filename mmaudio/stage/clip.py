"""`render_clip`: one seed in, one clip with picture, sound, caption and exact contact times out."""

import math
from dataclasses import dataclass

import numpy as np

from .director import contrast, make_scene, split_of
from .picture import render_video
from .scene import Event, Scene, generator
from .sound import mix, render_stems
from .words import Captions, captions, one_of

MIN_DURATION = 1.0  # seconds


@dataclass(frozen=True)
class StageClip:
    """A rendered clip. `video` (T, H, W, 3) uint8, frame k shows time k / fps; `audio` (N,) float32 in [-1, 1]."""

    seed: int
    video: np.ndarray
    fps: float
    audio: np.ndarray
    sample_rate: int
    stems: dict[str, np.ndarray]  # one (N,) per source, and the room's noise; they add up to `audio`
    events: tuple[Event, ...]  # all that sounds, by time
    captions: Captions
    caption: str  # one of them
    negative: str  # a caption of other sounds: none of its kinds and materials is heard here
    family: str
    kinds: tuple[str, ...]
    materials: tuple[str, ...]
    scene: Scene


def render_clip(
    seed: int,
    *,
    duration: float = 8.0,
    fps: float = 25,
    size: int | tuple[int, int] = 112,
    sample_rate: int = 16000,
    video: bool = True,
    audio: bool = True,
    family: str | None = None,
    material: str | None = None,
    hard: bool | None = None,
) -> StageClip:
    """Render a clip: a pure function of its arguments and STAGE_VERSION.

    Scene, events and captions depend on seed, duration, family, material and hard alone. `size` is pixels, one number
    for a square or (height, width). With `video=False` or `audio=False` that array is empty: (0, H, W, 3) or (0,).
    `family`, `material` and `hard` are those of `make_scene`. Captions of seeds of train_audio do not speak of seeing.

    Raises:
        ValueError: an argument is out of range, or no scene fits it.
    """
    if seed < 0:
        raise ValueError(f"seed must not be negative: got {seed}")
    if not (math.isfinite(duration) and MIN_DURATION <= duration <= 600):
        raise ValueError(f"duration must be {MIN_DURATION} to 600 seconds: got {duration}")
    if not (math.isfinite(fps) and 1 <= fps <= 240):
        raise ValueError(f"fps must be 1 to 240: got {fps}")
    if not (8000 <= sample_rate <= 192000):
        raise ValueError(f"sample_rate must be 8000 to 192000 Hz: got {sample_rate}")
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 16 or max(height, width) > 4096:
        raise ValueError(f"size must be 16 to 4096 pixels: got {size}")
    scene = make_scene(seed, float(duration), family, material, hard)
    frames = render_video(scene, fps, (height, width)) if video else np.zeros((0, height, width, 3), np.uint8)
    stems = render_stems(scene, sample_rate) if audio else {}
    waveform = mix(stems) if audio else np.zeros(0, np.float32)
    rng, heard_only = generator(seed, "caption"), split_of(seed) == "train_audio"
    words = captions(scene, rng, heard_only)
    caption = one_of(words, rng)
    rng = generator(seed, "negative")
    negative = captions(contrast(scene, rng), rng, heard_only).sentence
    return StageClip(
        seed, frames, fps, waveform, sample_rate, stems, scene.events, words, caption, negative, scene.family,
        scene.kinds, scene.materials, scene,
    )  # fmt: skip
