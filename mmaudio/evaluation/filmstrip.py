"""A video and its sound in one picture, on one time axis: is what is seen heard at the same moment?"""

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmaudio.codec.mel import MelConfig, MelSpectrogram

BANDS = 128
FLOOR_DECIBEL = 70.0  # below the loudest point is black
# Dark to bright, from nothing to the loudest.
SHADES = torch.tensor([(4, 4, 18), (60, 16, 92), (178, 44, 84), (246, 132, 52), (252, 250, 208)], dtype=torch.float32)
TICK = (255, 255, 255)
PALETTE = 48  # colours of a spectrogram as a PNG


def filmstrip(frames: Tensor, fps: float, sound: Tensor, sample_rate: int, width: int = 1600) -> Tensor:
    """Frames above, the log-mel spectrogram of the sound below, seconds marked between them.

    Args:
        frames: (T, 3, H, W) uint8, the first at time 0.
        sound: (channels, N) in [-1, 1], from time 0.
        width: pixels for the whole length of the video.

    Returns:
        (3, H', width) uint8. A frame stands where its left edge is its time.
    """
    seconds = len(frames) / fps
    ruler = torch.zeros(3, 6, width)
    for second in range(int(seconds) + 1):
        column = round(second / seconds * width)
        ruler[:, :, column : column + 2] = torch.tensor(TICK).view(3, 1, 1)
    picture = torch.cat([strip(frames, fps, width), ruler, spectrogram(sound, sample_rate, seconds, width)], dim=1)
    return picture.clamp(0, 255).to(torch.uint8)


def strip(frames: Tensor, fps: float, width: int) -> Tensor:
    """Ten of the frames (T, 3, H, W) beside each other, (3, H', width) float; each stands where its time is."""
    seconds = len(frames) / fps
    height = round(width / 10 * frames.shape[2] / frames.shape[3])
    cells = []
    for left, right in zip(np.arange(10) * width // 10, np.arange(1, 11) * width // 10, strict=True):
        index = min(int(left / width * seconds * fps + 0.5), len(frames) - 1)
        cell = F.interpolate(frames[index][None].float(), (height, int(right - left)), mode="area")[0]
        cells.append(cell)
    return torch.cat(cells, dim=2)


def spectrogram(sound: Tensor, sample_rate: int, seconds: float, width: int) -> Tensor:
    """Sound (channels, N) to (3, 2 BANDS, width) float, low frequencies at the bottom; too short ends in silence."""
    length = round(seconds * sample_rate)
    mono = F.pad(sound.mean(0), (0, max(0, length - sound.shape[1])))[:length]
    mel = MelSpectrogram(MelConfig(sample_rate, 1024, 128, BANDS, log10=True))(mono[None])[0]  # (BANDS, F)
    level = (20 * (mel - mel.max()) / FLOOR_DECIBEL + 1).clamp(0, 1)
    level = F.interpolate(level.flip(0)[None, None], (2 * BANDS, width), mode="bilinear", align_corners=False)[0, 0]
    place = level * (len(SHADES) - 1)
    below = place.long().clamp(max=len(SHADES) - 2)
    share = (place - below)[..., None]
    return (SHADES[below] * (1 - share) + SHADES[below + 1] * share).permute(2, 0, 1)


def spectrogram_png(sound: Tensor, sample_rate: int, seconds: float, width: int, height: int) -> bytes:
    """The spectrogram as a small PNG file."""
    shades = spectrogram(sound, sample_rate, seconds, width).clamp(0, 255).to(torch.uint8)
    image = Image.fromarray(shades.permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.quantize(PALETTE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
