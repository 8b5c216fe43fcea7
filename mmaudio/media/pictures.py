"""Pictures in memory, shown at a constant rate, as the frames of a video."""

import math
from fractions import Fraction

from torch import Tensor

from mmaudio.media.picking import RULES, FirstAtOrAfter, Nearest, Rule
from mmaudio.media.probe import check_aspect
from mmaudio.media.video import CLIP_FPS, SYNC_FPS, VideoFrames


def picture_frames(
    pictures: Tensor, fps: float | Fraction, duration: float | None = None, *, rule: Rule = "first"
) -> VideoFrames:
    """Pick pictures for 8 and 25 fps as `read_video` picks the frames of a file.

    Args:
        pictures: uint8 (N, 3, H, W); picture i is shown from i / fps on, the last one until N / fps.
        duration: seconds wanted at most; None is all.

    Raises:
        MediaError: the pictures are too narrow.
        ValueError: an argument is out of range.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"frame rate must be a positive number, got {fps}")
    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise ValueError(f"duration must be a positive number of seconds, got {duration}")
    count, (height, width) = len(pictures), pictures.shape[-2:]
    check_aspect(height, width, "pictures")
    fps = Fraction(fps).limit_denominator(1001)
    whole = float(count / fps)
    covered = whole if duration is None else min(duration, whole)
    clip, sync = (_slots(RULES[rule](rate, covered), count, fps, int(rate * covered)) for rate in (CLIP_FPS, SYNC_FPS))
    return VideoFrames(
        clip=pictures[list(clip)],
        sync=pictures[list(sync)],
        duration=covered,
        source_fps=fps,
        source_duration=whole,
        width=width,
        height=height,
        rotation=0,
        clip_index=clip,
        sync_index=sync,
        warnings=(),
    )


def _slots(picker: FirstAtOrAfter | Nearest, count: int, fps: Fraction, wanted: int) -> tuple[int, ...]:
    """The picture at each of the `wanted` slots; the last one is held for slots after it."""
    index: list[int] = []
    for i in range(count):
        before, here = picker.offer(i / fps)
        index += [max(i - 1, 0)] * before + [i] * here
        if picker.done:
            break
    return tuple((index + [count - 1] * (wanted - len(index)))[:wanted])
