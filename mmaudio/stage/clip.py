"""`render_clip`: one seed in, one clip with picture, sound, caption and exact contact times out."""

import math
from dataclasses import dataclass

import numpy as np

from .captions import caption
from .picture import render_video
from .scene import Event, Scene, generator, make_scene, recast
from .sound import render_audio

SPLITS = {"train": (0, 1_000_000), "val": (1_000_000, 1_010_000), "test": (2_000_000, 2_010_000)}
MIN_DURATION = 1.0  # seconds


@dataclass(frozen=True)
class StageClip:
    """A rendered clip. `video` (T, H, W, 3) uint8, frame k shows time k / fps; `audio` (N,) float32 in [-1, 1]."""

    seed: int
    video: np.ndarray
    fps: float
    audio: np.ndarray
    sample_rate: int
    events: tuple[Event, ...]  # audible contacts, sorted by time
    caption: str
    family: str
    materials: tuple[str, ...]
    scene: Scene


def split_seeds(split: str, count: int, start: int = 0) -> range:
    """`count` seeds of a split, from its `start`-th on. Splits never share a seed."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    first, last = SPLITS[split]
    if count < 0 or start < 0 or first + start + count > last:
        raise ValueError(f"split {split!r} holds {last - first} clips: got start={start}, count={count}")
    return range(first + start, first + start + count)


def render_clip(
    seed: int,
    *,
    duration: float = 8.0,
    fps: float = 25,
    size: int | tuple[int, int] = 112,
    sample_rate: int = 16000,
    video: bool = True,
    audio: bool = True,
    material: str | None = None,
) -> StageClip:
    """Render a clip: a pure function of its arguments and STAGE_VERSION.

    Scene, events and caption depend on seed and duration alone. `size` is pixels, one number for a square or (height,
    width). With `video=False` or `audio=False` that array is empty: (0, H, W, 3) or (0,). `material` makes all sounding
    objects of it, also one that no scene has of its own accord (`materials.HELD_OUT`).
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
    scene = make_scene(seed, float(duration))
    if material is not None:
        scene = recast(scene, material)
    frames = render_video(scene, fps, (height, width)) if video else np.zeros((0, height, width, 3), np.uint8)
    waveform = render_audio(scene, sample_rate) if audio else np.zeros(0, np.float32)
    words = caption(scene, generator(seed, "caption"))
    return StageClip(
        seed, frames, fps, waveform, sample_rate, scene.events, words, scene.family, scene.materials, scene
    )
