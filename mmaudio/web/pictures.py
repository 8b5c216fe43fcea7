"""What a take looks like: frames of its video, and its waveform over its spectrogram, on one time axis."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mmaudio.evaluation.filmstrip import PALETTE, SHADES, spectrogram, strip
from mmaudio.features.frames import short_side_frame
from mmaudio.inputs import MAX_DURATION
from mmaudio.media import MediaError, probe, read_audio, read_video
from mmaudio.media.errors import atomic_path
from mmaudio.media.video import CLIP_FPS
from mmaudio.web.job import Job, NoSuchJob

WIDTH = 960  # pixels of the time axis
CELLS = 10  # frames beside each other, as `strip` has them
CELL = (144, 96)  # pixels, upright: the sides of a wide picture are cut off, or little would be seen of it
WAVE_HEIGHT = 97  # odd: silence is a line in the middle
INK = SHADES[-2]


def film(job: Job) -> Path:
    """A JPEG of ten frames. Raises NoSuchJob if it has no video, MediaError if that cannot be read."""
    if job.ask.video is None:
        raise NoSuchJob(f"{job.id}: was made without a video")
    kind = video_kind(job.takes[0].files) if job.takes else None
    video, path = job.file(0, kind), job.folder / "film.jpg"
    if not path.exists():
        frames, fps = _frames(video, probe(video).duration or job.length)
        with atomic_path(path) as temporary:
            _image(strip(frames, fps, WIDTH)).save(temporary, quality=80)
    return path


def sound(job: Job, take: int) -> Path:
    """A PNG of waveform and spectrogram. Raises NoSuchJob if there is no such take."""
    wav, path = job.file(take, "wav"), job.folder / f"{take + 1}.png"
    if not path.exists():
        wave, rate = read_audio(wav)
        picture = torch.cat([waveform(wave, WIDTH), spectrogram(wave, rate, wave.shape[1] / rate, WIDTH)], dim=1)
        with atomic_path(path) as temporary:
            _image(picture).quantize(PALETTE).save(temporary, optimize=True)
    return path


def video_kind(files: Mapping[str, str]) -> str | None:
    """Which of a take's files has pictures."""
    return next((kind for kind in ("mp4", "mkv") if kind in files), None)


def waveform(wave: Tensor, width: int) -> Tensor:
    """The extremes over time of the square root of sound (channels, N) in [-1, 1]: (3, WAVE_HEIGHT, width) float."""
    mono = wave.mean(0)
    mono = mono.sign() * mono.abs().sqrt()  # what is quiet is seen, too
    edges = torch.linspace(0, len(mono) - 1, width + 1).long().tolist()
    pieces = [mono[begin : end + 1] for begin, end in itertools.pairwise(edges)]
    low, high = (torch.stack(side) for side in zip(*map(torch.aminmax, pieces), strict=True))
    rows, half = torch.linspace(1, -1, WAVE_HEIGHT)[:, None], 1 / WAVE_HEIGHT
    inked = (rows <= high + half) & (rows >= low - half)  # (WAVE_HEIGHT, width)
    return torch.where(inked, INK[:, None, None], SHADES[0][:, None, None])


def cell_of(frame: Tensor) -> Tensor:
    """uint8 (3, H, W) -> uint8 (3, h, w): the middle of it, no wider than CELL allows."""
    height, width = CELL
    frame = short_side_frame(height)(frame)
    wide = min(frame.shape[2], frame.shape[1] * width // height)
    return frame[:, :, (frame.shape[2] - wide) // 2 :][:, :, :wide]


def _frames(video: Path, length: float) -> tuple[Tensor, float]:
    """Small frames (T, 3, h, w) and how many of them there are in a second."""
    how = {
        "rule": "nearest",
        "clip_transform": cell_of,
        "sync_transform": lambda frame: frame[:, :1, :1],  # not looked at
    }
    if length <= MAX_DURATION:
        return read_video(video, **how).clip, CLIP_FPS
    frames = []
    for cell in range(CELLS):
        try:
            frames.append(read_video(video, 1 / CLIP_FPS, cell * length / CELLS, **how).clip[0])
        except MediaError:  # nothing is shown there: what was shown before stays
            if not frames:
                raise
            frames.append(frames[-1])
    return torch.stack(frames), CELLS / length


def _image(picture: Tensor) -> Image.Image:
    return Image.fromarray(picture.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy())
