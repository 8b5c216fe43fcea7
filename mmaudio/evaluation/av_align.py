"""Do sounds begin where something moves? AV-Align for any video, with no learned weights.

After Yariv et al., "Diverse and Aligned Audio-to-Video Generation via Text-to-Video Model Adaptation" (AAAI 2024,
arXiv 2309.16429): the intersection over union of the peaks of motion and the onsets of sound. There motion is the mean
length of the optical flow; here it is the mean change of brightness, which needs no flow network and peaks at the same
moments. Values of the two do not compare.
"""

import os

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmaudio.evaluation.onsets import detect_onsets, match_onsets
from mmaudio.media import read_video
from mmaudio.media.video import SYNC_FPS

SIDE = 96  # pixels of the longer side that motion is measured at
AROUND = 2  # frames on either side of a peak that have less motion
WINDOW = 0.06  # seconds between a peak and an onset that belong together: a frame of 25 fps and a half


def av_align(video_path: str | os.PathLike, audio: Tensor | np.ndarray, sample_rate: int) -> float:
    """AV-Align of a video and a sound that was made for it, (N,) or (channels, N), in [0, 1]: higher is better.

    The longer of the two is cut to the shorter. A video without motion peaks and a sound without onsets have nothing to
    be compared by: NaN.

    Raises:
        MediaError: the video cannot be read.
        ValueError: the sound is empty or not finite.
    """
    wave = np.asarray(audio, np.float32)
    wave = wave.mean(0) if wave.ndim == 2 else wave
    if not wave.size or not np.isfinite(wave).all():
        raise ValueError("the sound is empty or holds values that are not finite")
    video = read_video(
        video_path, len(wave) / sample_rate, rule="nearest", clip_transform=_one_pixel, sync_transform=_small_grey
    )
    onsets = detect_onsets(wave[: round(len(video.sync) / SYNC_FPS * sample_rate)], sample_rate)
    _, new = np.unique(video.sync_index, return_index=True)  # a slow video shows its frames several times
    return peak_agreement(motion_peaks(video.sync[new], new / SYNC_FPS), onsets)


def peak_agreement(motion: np.ndarray, onsets: np.ndarray, window: float = WINDOW) -> float:
    """Intersection over union of two sets of times: pairs at most `window` seconds apart are one. NaN of nothing."""
    found = match_onsets(onsets, motion, window)
    union = found.hits + found.missed + found.extra
    return found.hits / union if union else float("nan")


def motion_peaks(frames: Tensor, times: np.ndarray) -> np.ndarray:
    """Which of the times (T,) of uint8 frames (T, C, H, W) have the most motion.

    The motion at a frame is its mean absolute difference from the one before. A peak has more than the mean of the
    video, and no less than the two frames on either side.
    """
    energy = np.zeros(len(frames))
    for k in range(1, len(frames)):
        energy[k] = (frames[k].float() - frames[k - 1].float()).abs().mean()
    around = np.lib.stride_tricks.sliding_window_view(np.pad(energy, AROUND), 2 * AROUND + 1)  # (T, 2 AROUND + 1)
    return times[(energy >= around.max(1)) & (energy > energy.mean())]


def _small_grey(frame: Tensor) -> Tensor:
    """uint8 (3, H, W) to (1, h, w)."""
    grey, longer = frame.float().mean(0, keepdim=True), max(frame.shape[1:])
    size = [max(1, round(extent * min(1, SIDE / longer))) for extent in frame.shape[1:]]
    return F.interpolate(grey[None], size, mode="area")[0].round().to(torch.uint8)


def _one_pixel(frame: Tensor) -> Tensor:
    """Of the frames at 8 fps, which are not needed."""
    return frame[:, :1, :1]
