"""What a clip sounds and looks like in three kilobytes that survive encoding, trimming, volume and mirroring.

Two tracks of trits (-1, 0, 1) in time: *sound* says whether the difference of neighbouring bands rose or fell within a
quarter of a second, *motion* whether a cell of the picture became brighter or darker than the rest. 0 is what is too
small to be trusted after another encoding. Both say how things change, which two clips of the same room, the same hiss
or the same camera do not share. Tracks are compared at every offset in time (see `comparison`).

A million clips cannot be compared pair by pair, so there are short codes that an index can find (see `search`): one of
the mean picture, and one of the sound around each of its sharpest onsets, which stay what they are when a clip is cut.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

VERSION = 1  # of all that is kept of a clip

# ---- sound: seconds and hertz, so that no clip has to be resampled
WINDOW, HOP = 0.256, 0.064
LAG = 4  # hops between two frames that are compared: they share no sample
BANDS = 32  # differences of neighbouring ones
BAND_EDGES = np.geomspace(300.0, 3400.0, BANDS + 2)  # heard through any codec
RELIABLE_DECIBEL = 2.0
FLOOR_DECIBEL = 70.0  # below the loudest band is nothing
QUIETEST = 1e-5  # amplitude; below it there is only the noise of encoders

# ---- pictures
FPS = 8
GRID = 32  # pixels of the square that a picture is reduced to
CELLS = 8
MOTION_LAG = 2  # pictures between two that are compared
RELIABLE_LEVEL = 2.0  # of 255
FAINT = 0.3  # of the clip's usual change

# ---- codes
SOUND_BITS = 128
PICTURE_BITS = 256
ONSET_SPACING = 0.4  # seconds
SECONDS_PER_ONSET = 2.0
FEWEST_ONSETS = 4
ONSET_STEP = 0.008
AROUND = np.arange(9) * 0.096 - 0.128  # seconds from an onset to the middles of the windows that its code is made of


@dataclass(frozen=True)
class Fingerprint:
    """Arrays are empty, with 0 rows, where there is no sound or no picture."""

    sound: np.ndarray  # int8 (T, BANDS) trits, HOP apart
    motion: np.ndarray  # int8 (T, CELLS**2) trits, 1 / FPS apart
    picture: np.ndarray  # uint8 (GRID, GRID), or (0, 0): the mean picture
    sound_codes: np.ndarray  # uint8 (K, SOUND_BITS / 8)
    picture_codes: np.ndarray  # uint8 (0 or 1, PICTURE_BITS / 8)


def shrink(frame: Tensor) -> Tensor:
    """uint8 (3, H, W) -> float32 (GRID, GRID): brightness, the aspect ratio is not kept."""
    small = F.interpolate(frame[None].float(), (GRID, GRID), mode="area")[0]
    return small[0] * 0.299 + small[1] * 0.587 + small[2] * 0.114


def fingerprint(samples: np.ndarray | None, rate: int, pictures: np.ndarray | None) -> Fingerprint:
    """Of mono sound (N,) and pictures (T, GRID, GRID) at FPS; either may be missing."""
    sound, sound_codes = np.zeros((0, BANDS), np.int8), np.zeros((0, SOUND_BITS // 8), np.uint8)
    if samples is not None:
        sound, sound_codes = sound_track(samples, rate), onset_codes(samples, rate)
    motion, picture = np.zeros((0, CELLS * CELLS), np.int8), np.zeros((0, 0), np.uint8)
    picture_codes = np.zeros((0, PICTURE_BITS // 8), np.uint8)
    if pictures is not None and len(pictures):
        motion, mean = motion_track(pictures), pictures.mean(0)
        picture, picture_codes = np.rint(mean).astype(np.uint8), picture_code(mean)[None]
    return Fingerprint(sound, motion, picture, sound_codes, picture_codes)


# ---- sound


def band_levels(samples: np.ndarray, rate: int, middles: np.ndarray, edges: np.ndarray = BAND_EDGES) -> np.ndarray:
    """Decibel (len(middles), bands) of windows around these seconds; silence goes on before and after the sound."""
    size = round(WINDOW * rate)
    first = np.rint(middles * rate).astype(int) - size // 2
    before = max(0, -int(first.min(initial=0)))
    after = max(0, int(first.max(initial=0)) + size - len(samples))
    padded = np.pad(samples.astype(np.float32), (before, after))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[first + before]
    power = np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=1)) ** 2
    bins = np.clip(np.ceil(edges * size / rate).astype(int), 0, power.shape[1] - 1)
    total = np.concatenate([np.zeros((len(power), 1)), np.cumsum(power, axis=1, dtype=np.float64)], axis=1)
    levels = 10 * np.log10((total[:, bins[1:]] - total[:, bins[:-1]]) + (QUIETEST * size / 4) ** 2)
    return np.maximum(levels, levels.max(initial=-np.inf) - FLOOR_DECIBEL)


def sound_track(samples: np.ndarray, rate: int) -> np.ndarray:
    """int8 (T, BANDS)."""
    count = max(0, int((len(samples) / rate - WINDOW) / HOP) + 1)
    levels = band_levels(samples, rate, WINDOW / 2 + HOP * np.arange(count))
    return trits(changes(levels, LAG), RELIABLE_DECIBEL)


def changes(levels: np.ndarray, lag: int) -> np.ndarray:
    """How the differences of neighbouring bands change: (T, B) -> (T - lag, B - 1)."""
    slopes = levels[:, :-1] - levels[:, 1:]
    return slopes[lag:] - slopes[:-lag]


def trits(values: np.ndarray, threshold: float) -> np.ndarray:
    return ((values > threshold).astype(np.int8) - (values < -threshold)).astype(np.int8)


def onset_codes(samples: np.ndarray, rate: int) -> np.ndarray:
    """uint8 (K, SOUND_BITS / 8): signs of the changes around the K sharpest onsets."""
    times = onsets(samples, rate)
    if not len(times):
        return np.zeros((0, SOUND_BITS // 8), np.uint8)
    levels = band_levels(samples, rate, (times[:, None] + AROUND).ravel(), BAND_EDGES[::2])
    levels = levels.reshape(len(times), len(AROUND), -1)  # (K, 9, 16)
    slopes = levels[..., :-1] - levels[..., 1:]
    bits = np.concatenate([slopes[:, 1:] > slopes[:, :-1], levels[:, 1:, :1] > levels[:, :-1, :1]], axis=2)
    return np.packbits(bits.reshape(len(times), -1), axis=1)


def onsets(samples: np.ndarray, rate: int) -> np.ndarray:
    """Seconds (K,) at which the sound grows most within 32 ms, in decibel; none in silence."""
    step = max(1, round(ONSET_STEP * rate))
    count = len(samples) // step
    power = (samples[: count * step].astype(np.float64) ** 2).reshape(count, step).mean(1)
    if not count or power.max() < QUIETEST**2:
        return np.zeros(0)
    floor = max(QUIETEST**2, power.max() * 10 ** (-FLOOR_DECIBEL / 10))
    smooth = np.convolve(power, np.hanning(10)[1:-1] / np.hanning(10).sum(), "same")
    level = 10 * np.log10(smooth + floor)
    rise = np.zeros(count)
    rise[4:] = level[4:] - level[:-4]
    rise[rise <= 0] = 0
    wanted = max(FEWEST_ONSETS, round(len(samples) / rate / SECONDS_PER_ONSET))
    found, apart = [], round(ONSET_SPACING / ONSET_STEP)
    # Not where a code would reach beyond the sound: the same onset in an uncut copy would have another code.
    first, last = -(AROUND[0] - WINDOW / 2), AROUND[-1] + WINDOW / 2
    rise[: int(first / ONSET_STEP) + 1] = 0
    rise[max(0, count - int(last / ONSET_STEP)) :] = 0
    while len(found) < wanted and rise.max() > 0:
        peak = int(rise.argmax())
        found.append(peak)
        rise[max(0, peak - apart) : peak + apart + 1] = 0
    return np.array(found) * step / rate


# ---- pictures


def motion_track(pictures: np.ndarray) -> np.ndarray:
    """(T, GRID, GRID) -> int8 (T - MOTION_LAG, CELLS**2)."""
    cells = pictures.reshape(len(pictures), CELLS, GRID // CELLS, CELLS, GRID // CELLS).mean((2, 4), dtype=np.float32)
    change = cells[MOTION_LAG:] - cells[:-MOTION_LAG]
    change -= np.median(change, axis=(1, 2), keepdims=True)  # light that comes and goes
    moving = np.abs(change[np.abs(change) > RELIABLE_LEVEL])
    threshold = max(RELIABLE_LEVEL, FAINT * float(np.median(moving))) if len(moving) else RELIABLE_LEVEL
    return trits(change, threshold).reshape(len(change), -1)


def mirrored_motion(motion: np.ndarray) -> np.ndarray:
    return motion.reshape(-1, CELLS, CELLS)[:, :, ::-1].reshape(motion.shape)


def picture_code(mean: np.ndarray) -> np.ndarray:
    """(GRID, GRID) -> uint8 (PICTURE_BITS / 8,): which of two neighbours is brighter, to the right and downwards."""
    image = torch.from_numpy(np.ascontiguousarray(mean, dtype=np.float32))[None, None]
    beside, above = F.interpolate(image, (8, 17), mode="area")[0, 0], F.interpolate(image, (17, 8), mode="area")[0, 0]
    bits = torch.cat([(beside[:, 1:] > beside[:, :-1]).flatten(), (above[1:] > above[:-1]).flatten()])
    return np.packbits(bits.numpy())


def mirrored_codes(codes: np.ndarray) -> np.ndarray:
    """uint8 (N, PICTURE_BITS / 8) of pictures to those of the mirrored ones."""
    bits = np.unpackbits(codes, axis=1)
    half = PICTURE_BITS // 2
    beside = 1 - bits[:, :half].reshape(-1, 8, 16)[:, :, ::-1]
    above = bits[:, half:].reshape(-1, 16, 8)[:, :, ::-1]
    return np.packbits(np.concatenate([beside.reshape(-1, half), above.reshape(-1, half)], axis=1), axis=1)
