"""The only place where frames are resized, cropped and normalised for the encoders (paper, section 3.2)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def _resize(frame: Tensor, height: int, width: int) -> Tensor:
    if frame.shape[-2:] == (height, width):
        return frame
    # uint8 in, uint8 out: the rounding is part of what the encoders were trained on. Only CPUs resize bytes.
    return F.interpolate(frame.cpu()[None], (height, width), mode="bicubic", antialias=True)[0]


def clip_frame(size: int = 384) -> Callable[[Tensor], Tensor]:
    """uint8 (3, H, W) -> uint8 (3, size, size); the aspect ratio is not kept."""
    return lambda frame: _resize(frame, size, size)


def short_side_frame(size: int = 224) -> Callable[[Tensor], Tensor]:
    """uint8 (3, H, W) -> uint8 (3, h, w): the shorter side to `size`, the other in proportion, rounded down."""

    def transform(frame: Tensor) -> Tensor:
        height, width = frame.shape[-2:]
        target = int(size * max(height, width) / min(height, width))
        return _resize(frame, target, size) if height >= width else _resize(frame, size, target)

    return transform


def sync_frame(size: int = 224) -> Callable[[Tensor], Tensor]:
    """uint8 (3, H, W) -> uint8 (3, size, size): the shorter side to `size`, then the centre."""
    resize = short_side_frame(size)

    def transform(frame: Tensor) -> Tensor:
        frame = resize(frame)
        top, left = (round((length - size) / 2) for length in frame.shape[-2:])
        return frame[..., top : top + size, left : left + size]

    return transform


def hold_last(frames: Tensor, length: int) -> Tensor:
    """(T, 3, H, W) frames, the last one repeated until there are `length`."""
    return torch.cat([frames, frames[-1:].expand(max(0, length - len(frames)), -1, -1, -1)])


def clip_normalize(frames: Tensor) -> Tensor:
    """uint8 (..., 3, H, W) -> float32, CLIP's mean and standard deviation."""
    mean = torch.tensor(CLIP_MEAN, device=frames.device).view(3, 1, 1)
    std = torch.tensor(CLIP_STD, device=frames.device).view(3, 1, 1)
    return (frames.float() / 255 - mean) / std


def sync_normalize(frames: Tensor) -> Tensor:
    """uint8 (..., 3, H, W) -> float32 in [-1, 1]."""
    return (frames.float() / 255 - 0.5) / 0.5
