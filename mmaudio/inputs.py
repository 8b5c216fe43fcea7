"""Files and tensors to what the encoders take: frames at their sizes and rates, and how much sound is wanted."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mmaudio.features.frames import clip_frame, hold_last, sync_frame
from mmaudio.media import MediaError, VideoFrames, probe, read_image, read_video
from mmaudio.media.container import scanned_duration
from mmaudio.media.probe import IMAGE_SUFFIXES, MediaInfo, check_aspect
from mmaudio.sequence import SequenceSpec
from mmaudio.variants import Variant

DEFAULT_DURATION = 8.0  # seconds; what the networks were trained with
MAX_WHOLE_CLIP = 12.0  # a longer video is made in windows unless a duration is asked for
MIN_DURATION = 0.5  # seconds; the networks are given one whole segment of sync features at least, the last frame held
MAX_DURATION = 30.0  # seconds at once; attention grows with the square, and quality falls away from the trained length
HEADER_SLACK = 0.5  # seconds by which headers and contents may differ unremarked

Progress = Callable[[str, int, int], None]  # (stage, done, total); raise from it to cancel


@dataclass
class Inputs:
    """What one clip gives to the encoders; None where that modality is missing."""

    clip: Tensor | None  # uint8 (T, 3, H, W); a picture is one frame
    sync: Tensor | None  # uint8 (T, 3, h, w)
    spec: SequenceSpec  # of one window if `windowed`
    duration: (
        float  # seconds of sound wanted: spec.duration, or less (see Variant.pad_to), or a fraction of a frame more
    )
    source: Path | Tensor | None = None
    is_picture: bool = False
    windowed: bool = False  # a long video: its frames are read window by window (mmaudio.long), and are not in here
    notes: list[str] = field(default_factory=list)


def read_inputs(
    variant: Variant,
    video: str | os.PathLike | VideoFrames | None = None,
    image: str | os.PathLike | Tensor | None = None,
    duration: float | None = None,
    progress: Progress | None = None,
    windows_beyond: float | None = None,
) -> Inputs:
    """Files to frames at the sizes and rates the encoders take.

    windows_beyond: seconds; a longer video file, of which no duration is asked, is left to be read in windows. Without
        it a video of more than 12 s is cut to 8 s.

    Raises:
        MediaError: a file cannot be used.
        ValueError: a duration out of range.
    """
    if video is not None and image is not None:
        raise ValueError("give a video or an image, not both")
    check_duration(duration)
    if video is not None and not isinstance(video, VideoFrames):
        info = probe(video)
        if info.kind == "audio":
            raise MediaError(f"{video}: has no video; give a video, or words alone with --prompt")
        if info.kind == "image":
            if Path(video).suffix.lower() not in IMAGE_SUFFIXES:
                raise MediaError(f"{video}: has one single frame; use it as a picture with --image")
            video, image = None, video
    if image is not None:
        is_file = not isinstance(image, Tensor)
        picture = read_image(image) if is_file else image
        check_aspect(*picture.shape[-2:], image if is_file else "image")
        source, duration = Path(image) if is_file else image, duration or DEFAULT_DURATION
        frame = clip_frame(variant.clip.frame_size)(picture)[None]
        return Inputs(frame, None, covering(variant, duration), duration, source, is_picture=True)
    if video is None:
        duration = duration or DEFAULT_DURATION
        return Inputs(None, None, covering(variant, duration), duration)

    notes, source, length = [], None, duration
    to_clip, to_sync = clip_frame(variant.clip.frame_size), sync_frame(variant.sync.frame_size)
    if isinstance(video, VideoFrames):
        if duration is not None:
            raise ValueError("duration cannot be chosen for frames that are already read: read fewer")
        frames = video
        if frames.duration > MAX_DURATION:
            raise ValueError(f"duration of the frames must be at most {MAX_DURATION:g} s, got {frames.duration:g}")
        frames_clip = torch.stack([to_clip(f) for f in frames.clip])
        frames_sync = torch.stack([to_sync(f) for f in frames.sync])
    else:
        check_aspect(info.height, info.width, video)
        source, length = Path(video), info.duration
        if duration is None and length is not None:
            if windows_beyond is not None and length > windows_beyond:
                return _long_video(variant, info)
            if length > MAX_WHOLE_CLIP:
                duration = DEFAULT_DURATION
                notes.append(
                    f"the video is {length:.1f} s long: took its first {duration:g} s (choose with --duration)"
                )
        frames = read_video(
            video,
            duration,
            rule=variant.frame_rule,
            clip_transform=to_clip,
            sync_transform=to_sync,
            progress=None if progress is None else lambda done, total: progress("decode", done, total),
        )
        frames_clip, frames_sync = frames.clip, frames.sync
        notes += frames.warnings
    # The last slot of a whole clip is often past its last frame: the sound still runs to the end of the picture.
    wanted = min(x for x in (duration, length, MAX_DURATION) if x is not None) if source else frames.duration
    wanted = max(wanted, frames.duration) if wanted - frames.duration < 1 else frames.duration
    if min(wanted, frames.duration + 1 / variant.spec.clip_fps) < MIN_DURATION:
        raise MediaError(
            f"{source or 'video'}: only {frames.duration:.2f} s of video, needs at least {MIN_DURATION:g} s; "
            "use a longer clip, or one frame of it with --image"
        )
    spec = covering(variant, frames.duration)
    frames_clip, frames_sync = hold_last(frames_clip, spec.clip_len), hold_last(frames_sync, spec.sync_frames)
    return Inputs(frames_clip, frames_sync, spec, wanted, source, notes=notes)


def check_duration(duration: float | None) -> None:
    """ValueError unless so many seconds can be made at once."""
    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise ValueError(f"duration must be a positive number of seconds, got {duration}")
    if duration is not None and not MIN_DURATION <= duration <= MAX_DURATION:
        raise ValueError(f"duration must be between {MIN_DURATION:g} and {MAX_DURATION:g} seconds, got {duration:g}")


def covering(variant: Variant, duration: float) -> SequenceSpec:
    """The sequence in which a variant makes `duration` seconds."""
    return variant.spec.with_duration(max(duration, variant.pad_to, variant.spec.min_duration))


def _long_video(variant: Variant, info: MediaInfo) -> Inputs:
    """A video whose frames are read later. Its packets are counted, as a header may promise more than there is."""
    length = info.duration
    notes = [f"the video is {length:.1f} s long: made in overlapping windows of {variant.spec.duration:g} s"]
    found = scanned_duration(info.path) or length
    if found < length - HEADER_SLACK:
        notes.append(f"{info.path}: ends after {found:.2f} s although its header says {length:.2f} s")
        length = found
    if length < MIN_DURATION:
        shortest = f"needs at least {MIN_DURATION:g} s"
        raise MediaError(f"{info.path}: only {length:.2f} s of video, {shortest}; use a longer clip")
    return Inputs(None, None, variant.spec, length, info.path, windowed=True, notes=notes)
