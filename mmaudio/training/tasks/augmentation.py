"""Pictures varied at random, so that a small set of clips goes further."""

import torch
from torch import Tensor

from mmaudio.training.task import Draw

SHIFT = 4  # pixels, at most; what leaves on one side comes in on the other
GAIN, OFFSET, TINT = 0.3, 25.0, 0.15  # contrast, brightness (of 255) and each channel vary by at most so much


def jittered(frames: Tensor, draw: Draw) -> Tensor:
    """uint8 (B, ..., 3, H, W) to the same: flip, shift, contrast, brightness and tint, one for all frames of a row."""
    shape = (-1, *[1] * (frames.ndim - 4), 1, 1, 1)
    flip, shift = (draw.uniform() < 0.5).tolist(), (draw.uniform(2) * (2 * SHIFT + 1)).long() - SHIFT
    gain, offset = (2 * draw.uniform(2, 1) - 1).unbind(1)  # (B, 1) each
    tint = 1 + TINT * (2 * draw.uniform(3) - 1)  # (B, 3)
    moved = [
        (row.flip(-1) if mirror else row).roll(by, dims=(-2, -1))
        for row, mirror, by in zip(frames, flip, shift.tolist(), strict=True)
    ]
    scale = (1 + GAIN * gain) * tint  # (B, 3): ((x - 128) gain + 128 + offset) tint
    bias = (128 + OFFSET * offset) * tint - 128 * scale
    scale, bias = (x.view(*shape[:-3], 3, 1, 1) for x in (scale, bias))
    return (torch.stack(moved) * scale + bias).clamp(0, 255).to(torch.uint8)
