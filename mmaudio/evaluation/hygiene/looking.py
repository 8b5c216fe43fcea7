"""One clip, decoded once: its fingerprint, and what may be wrong with it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmaudio.evaluation.hygiene.fingerprint import Fingerprint, fingerprint, shrink
from mmaudio.media import MediaError, probe, read_audio, read_video
from mmaudio.media.probe import VIDEO_SUFFIXES

SILENT_DECIBEL = -75.0  # dBFS of the loudest 100 ms
# Shares of the samples near the peak, and how many of them there are for one a little below: cut off in the file, or
# before it was encoded, which smears what was flat.
FLAT, SMEARED = (0.001, 2.0), (0.01, 0.55)
FULL_SCALE = 0.95
BEYOND = 0.005  # share of the samples beyond full scale, where a codec takes much of what was cut off
STILL_LEVEL = 5.0  # of 255
CUT_OFF = 0.5  # seconds that a file may be shorter than its header says
BLOCK = 0.1  # seconds
QUIET = -200.0  # dBFS of nothing


@dataclass(frozen=True)
class Facts:
    """What is measured of a clip; None where there is no sound or no picture."""

    sound_seconds: float | None
    picture_seconds: float | None
    loudest: float | None  # dBFS, RMS of the loudest 100 ms
    clipped: float | None  # share of the samples that are cut off at the peak
    change: float | None  # the most that a spot of the picture changes, of 255
    damage: str | None  # what the decoder said
    wanting: bool  # called a video, but there is no picture


@dataclass(frozen=True)
class Look:
    facts: Facts
    fingerprint: Fingerprint


def look(path: Path, start: float, duration: float) -> Look:
    """Sound and picture of [start, start + duration) seconds of a file, fewer if it ends earlier.

    Raises:
        MediaError: it cannot be read, holds neither, or is a still picture.
    """
    info = probe(path)
    if info.kind == "image":
        raise MediaError(f"{path}: is a still picture, not a clip")
    damage, samples, rate, pictures = [], None, 0, None
    if info.kind == "video":
        frames = read_video(path, duration, start, rule="nearest", clip_transform=shrink, sync_transform=_nothing)
        damage += [line for line in frames.warnings if "is damaged" in line]
        pictures = frames.clip.numpy()
    if info.has_audio:
        sound, rate = read_audio(path, duration, start)
        samples = sound.mean(0).numpy()
        expected = min(duration, info.duration - start) if info.kind == "audio" and info.duration else 0.0
        if len(samples) / rate < expected - CUT_OFF:
            damage.append(f"{path}: is damaged, its sound ends {expected - len(samples) / rate:.2f} s too early")
    facts = Facts(
        sound_seconds=None if samples is None else len(samples) / rate,
        picture_seconds=None if pictures is None else frames.duration,
        loudest=None if samples is None else loudest(samples, rate),
        clipped=None if samples is None else clipped(samples),
        change=None if pictures is None else float(np.abs(pictures - pictures[:1]).max(initial=0)),
        damage=damage[0] if damage else None,
        wanting=info.kind == "audio" and path.suffix.lower() in VIDEO_SUFFIXES,
    )
    return Look(facts, fingerprint(samples, rate, pictures))


def _nothing(frame: torch.Tensor) -> torch.Tensor:
    """`read_video` makes frames for 25 fps, too: keep one pixel."""
    return frame[:, :1, :1]


def loudest(samples: np.ndarray, rate: int) -> float:
    """dBFS."""
    size = max(1, min(len(samples), round(BLOCK * rate)))
    blocks = samples[: len(samples) // size * size].reshape(-1, size).astype(np.float64)
    return float(10 * np.log10(max((blocks**2).mean(1).max(), 10 ** (QUIET / 10))))


def clipped(samples: np.ndarray) -> float:
    """Share of the samples near the largest one (or near full scale, which codecs overshoot) if they pile up there.

    Natural sound has fewer and fewer samples towards its peak. A loud and steady tone looks cut off, too.
    """
    size = np.abs(samples)
    peak = min(1.0, float(size.max(initial=0)))
    if peak == 0:
        return 0.0
    top, below = float((size >= 0.9 * peak).mean()), float(((size >= 0.7 * peak) & (size < 0.9 * peak)).mean())
    limits = [FLAT, SMEARED] if peak >= FULL_SCALE else [FLAT]
    if (size > 1).mean() > BEYOND:
        return top
    return top if any(top > share and top > ratio * below for share, ratio in limits) else 0.0


def problems(facts: Facts, min_duration: float) -> list[tuple[str, str]]:
    """(Kind, detail) of everything that is wrong with a clip."""
    found = []
    if facts.damage:
        found.append(("damaged", facts.damage))
    if facts.wanting:
        found.append(("no picture", "is called a video, but holds sound alone"))
    if facts.picture_seconds is not None and facts.sound_seconds is None:
        found.append(("no sound", "the video has no audio track"))
    lengths = {"sound": facts.sound_seconds, "picture": facts.picture_seconds}
    what, seconds = min(((k, v) for k, v in lengths.items() if v is not None), key=lambda item: item[1])
    short = seconds < min_duration
    if short:
        found.append(("short", f"{seconds:.2f} s of {what}, {min_duration:g} s are needed"))
    if facts.loudest is not None and facts.loudest < SILENT_DECIBEL:
        found.append(("silent", f"nothing is louder than {facts.loudest:.0f} dBFS"))
    elif facts.clipped:
        found.append(("clipped", f"{100 * facts.clipped:.1f} % of the samples are cut off at the peak"))
    if facts.change is not None and facts.change <= STILL_LEVEL and not short:  # little happens in so short a time
        found.append(("still", f"the picture never changes by more than {facts.change:.1f} of 255"))
    return found
