"""What a media file is: kind, length, size, rate; and which files a user meant."""

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Literal

from mmaudio.media.container import (
    codec_name,
    decode_frames,
    frame_rate,
    open_input,
    scanned_duration,
    stream_duration,
    video_stream,
)
from mmaudio.media.errors import MediaError, check_source, media_errors
from mmaudio.media.image import picture_size
from mmaudio.media.pixels import quarter_turns

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".wmv", ".flv", ".gif")
)
IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif"))
MAX_ASPECT = 50  # longer side / shorter side of a frame


@dataclass(frozen=True)
class MediaInfo:
    """What `probe` found. Sizes are as displayed, after rotation; pixels are taken as square."""

    path: Path
    kind: Literal["video", "image", "audio"]
    duration: float | None  # seconds; None for images and for sound whose length the file does not tell
    width: int | None
    height: int | None
    fps: Fraction | None  # nominal; a variable frame rate has no single one
    rotation: int  # degrees counter-clockwise still to be applied for display: 0, 90, 180 or 270
    has_audio: bool
    codec: str | None  # of the pictures, or of the sound in an audio file
    sample_rate: int | None  # of the first audio track
    format: str  # FFmpeg's or Pillow's name of the file format


def probe(path: str | os.PathLike) -> MediaInfo:
    """Describe a media file. A picture, and a video of one single frame, is an "image".

    Raises MediaError if the file is missing, empty, unreadable or holds neither pictures nor sound.
    """
    path = check_source(path)
    if picture := picture_size(path):  # Pillow reads headers only, so a decompression bomb is harmless here
        width, height, name = picture
        return MediaInfo(path, "image", None, width, height, None, 0, False, name.lower(), None, name)

    with open_input(path) as container, media_errors(path, "read it"):
        stream = video_stream(container)
        audio = next(iter(container.streams.audio), None)
        rate = audio.codec_context.sample_rate if audio and audio.codec_context else None
        if stream is None:
            if audio is None:
                raise MediaError(f"{path}: holds neither video nor audio; give a video, picture or audio file")
            duration, codec = stream_duration(container, audio), codec_name(audio)
            return MediaInfo(path, "audio", duration, None, None, None, 0, True, codec, rate, container.format.name)
        if stream.codec_context is None:
            raise MediaError(f"{path}: its video codec is unknown here; convert the file to H.264 first")
        frames = list(islice(decode_frames(container, stream, []), 2))
        if not frames:
            raise MediaError(f"{path}: no picture of its video can be decoded; it is damaged or cut off")
        turns = quarter_turns(frames[0])
        length = stream_duration(container, stream) or scanned_duration(path)
        width, height = frames[0].width, frames[0].height
        still = len(frames) == 1
        return MediaInfo(
            path=path,
            kind="image" if still else "video",
            duration=None if still else length,
            width=height if turns % 2 else width,
            height=width if turns % 2 else height,
            fps=None if still else frame_rate(stream),
            rotation=turns * 90,
            has_audio=audio is not None,
            codec=codec_name(stream),
            sample_rate=rate,
            format=container.format.name,
        )


def check_aspect(height: int, width: int, name) -> None:
    """MediaError if a frame is so narrow that resizing its shorter side would make a giant of it."""
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise MediaError(f"{name}: {width} x {height} pixels is too narrow, at most {MAX_ASPECT} to 1; crop it first")


def find_videos(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """Files, folders and globs expanded to files, in the order given, each once.

    A file is taken whatever its suffix. A folder gives the videos, GIFs and pictures directly inside it (not hidden
    ones), in natural order ("clip2" before "clip10"); so does a glob, in which ** crosses folders.
    Raises MediaError if a path does not exist or yields nothing.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if path.is_dir():
            files = _media_files(path.iterdir())
            if not files:
                raise MediaError(f"{path}: no video or picture in this folder; give files, or the folder above them")
        elif path.exists():
            files = [path]
        elif glob.has_magic(str(given)):
            files = _media_files(Path(p) for p in glob.glob(str(given), recursive=True))
            if not files:
                raise MediaError(f"{given}: no video or picture matches this pattern; check it and quote it")
        else:
            raise MediaError(f"{path}: there is no such file or folder; check the path")
        found |= dict.fromkeys(files)
    return list(found)


def _media_files(candidates: Iterable[Path]) -> list[Path]:
    known = VIDEO_SUFFIXES | IMAGE_SUFFIXES
    files = [p for p in candidates if p.suffix.lower() in known and not p.name.startswith(".") and p.is_file()]
    return sorted(files, key=_natural)


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    parts = re.split(r"(\d+)", str(path).lower())
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
