"""Video files to frames at the two rates of the method, in one decoding pass."""

import math
import os
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
import torch

from mmaudio.media.container import exact, fraction, open_input, stream_start, timed_frames, video_stream
from mmaudio.media.errors import MediaError, media_errors
from mmaudio.media.picking import RULES, FirstAtOrAfter, Nearest, Rule
from mmaudio.media.pixels import frame_rgb
from mmaudio.media.probe import MediaInfo, probe

CLIP_FPS = 8
SYNC_FPS = 25
MAX_GAP = 60  # seconds without a frame; more is a broken timestamp that would fill the memory with copies
MIN_SALVAGE = 1.0  # seconds that must be readable for a damaged file to be worth using
HEADER_SLACK = 0.5  # seconds by which headers and contents may differ unremarked

Transform = Callable[[torch.Tensor], torch.Tensor]  # uint8 (3, H, W) -> uint8 (3, h, w)
Progress = Callable[[float, float | None], None]  # seconds decoded, seconds in all if known


@dataclass(frozen=True)
class VideoFrames:
    """The frames of a video at 8 and at 25 frames per second."""

    clip: torch.Tensor  # uint8 (T8, 3, H, W), T8 = int(8 * duration)
    sync: torch.Tensor  # uint8 (T25, 3, h, w), T25 = int(25 * duration)
    duration: float  # seconds covered: min(asked, frames found at 8 fps / 8, frames found at 25 fps / 25)
    source_fps: Fraction | None  # nominal
    source_duration: float | None  # seconds of the whole file, as its headers tell
    width: int  # of the source as displayed, after rotation
    height: int
    rotation: int  # degrees counter-clockwise that were applied: 0, 90, 180 or 270
    clip_index: tuple[int, ...]  # source frame shown at each slot, counted from the first frame at or after `start`
    sync_index: tuple[int, ...]  # (-1: the frame before that one, under rule "nearest")
    warnings: tuple[str, ...]  # one line each, for the user


def read_video(
    path: str | os.PathLike,
    duration: float | None = None,
    start: float = 0.0,
    *,
    rule: Rule = "first",
    clip_transform: Transform | None = None,
    sync_transform: Transform | None = None,
    progress: Progress | None = None,
) -> VideoFrames:
    """Decode [start, start + duration) seconds of a video once and pick its frames for 8 and 25 fps.

    duration: seconds wanted; None is the whole rest. What the file cannot fill is cut off, with a warning if a
        duration was asked for. Time 0 is the first video frame, wherever the file's clock starts.
    rule: "first" takes the first frame at or after each slot (generation), "nearest" works as FFmpeg's fps filter
        (training and evaluation); see `picking`.
    clip_transform, sync_transform: applied to every picked upright frame while decoding, so that memory holds
        transformed frames only. Without one, frames keep the size of the source: 6 MB each at 1080p.
    progress: called with (seconds decoded, seconds in all or None) now and then.

    A video damaged in the middle is used as far as it goes, with a warning, if that is at least 1 s.
    Raises MediaError for files that cannot be read, sound files, and stills (pictures and videos of one frame, which
    `read_image` reads); ValueError for arguments that make no sense.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise ValueError(f"duration must be a positive number of seconds, got {duration}")
    if not (math.isfinite(start) and start >= 0):
        raise ValueError(f"start must be zero or a positive number of seconds, got {start}")

    info = probe(path)
    if info.kind == "image":
        raise MediaError(f"{path}: is a still picture, not a video; use it as an image")
    if info.kind == "audio":
        raise MediaError(f"{path}: has no video stream, only audio; give a video, or use text alone")

    limit = math.inf if duration is None else duration
    clip = _Track(RULES[rule](CLIP_FPS, limit), clip_transform)
    sync = _Track(RULES[rule](SYNC_FPS, limit), sync_transform)
    damage: list[str] = []
    total = duration if duration is not None else info.duration and max(info.duration - start, 0.0)
    with media_errors(path, "decode it"):
        end, jumped = _fill((clip, sync), _frames_from(info.path, exact(start), damage), total, progress)
    if not clip.frames or not sync.frames:
        if damage:
            raise MediaError(f"{path}: is damaged, no picture can be decoded ({damage[0]}); download it again")
        length = f"its length is {info.duration:.2f} s" if info.duration else "it is shorter"
        raise MediaError(f"{path}: has no frame at {start:g} s, {length}; start earlier")

    covered = min(limit, len(clip.frames) / CLIP_FPS, len(sync.frames) / SYNC_FPS)
    if damage and covered < min(MIN_SALVAGE, limit):
        raise MediaError(f"{path}: is damaged, only {covered:.2f} s can be decoded ({damage[0]}); download it again")
    warnings = _warnings(info, duration, start, covered, end, damage, jumped)
    clip_count, sync_count = int(CLIP_FPS * covered), int(SYNC_FPS * covered)
    return VideoFrames(
        clip=clip.stack(clip_count),
        sync=sync.stack(sync_count),
        duration=covered,
        source_fps=info.fps,
        source_duration=info.duration,
        width=info.width,
        height=info.height,
        rotation=info.rotation,
        clip_index=tuple(clip.index[:clip_count]),
        sync_index=tuple(sync.index[:sync_count]),
        warnings=warnings,
    )


class _Picture:
    """A decoded frame, converted to RGB at most once however many slots show it."""

    def __init__(self, frame: av.VideoFrame, index: int, size: tuple[int, int]):
        self.frame, self.index, self.size = frame, index, size

    @cached_property
    def rgb(self) -> torch.Tensor:
        return frame_rgb(self.frame, self.size)


class _Track:
    """The slots of one frame rate, filled as the source goes by."""

    def __init__(self, picker: FirstAtOrAfter | Nearest, transform: Transform | None):
        self.picker, self.transform = picker, transform
        self.frames: list[torch.Tensor] = []  # slots that show the same picture share its tensor
        self.index: list[int] = []

    def take(self, picture: _Picture, count: int) -> None:
        if count:
            frame = self.transform(picture.rgb) if self.transform else picture.rgb
            self.frames += [frame] * count
            self.index += [picture.index] * count

    def stack(self, count: int) -> torch.Tensor:  # (count, 3, h, w)
        """The first `count` frames in one tensor; gives up its own references on the way to save memory."""
        frames, self.frames = self.frames, []
        out = torch.empty((count, *frames[0].shape), dtype=frames[0].dtype)
        for n in range(count):
            out[n], frames[n] = frames[n], None
        return out


def _fill(
    tracks: tuple[_Track, ...],
    frames: Generator[tuple[Fraction, Fraction, av.VideoFrame]],
    total: float | None,
    progress: Progress | None,
) -> tuple[float, bool]:
    """Offer frames until every track is done or they end: (seconds seen, whether a timestamp jump stopped it)."""
    before: _Picture | None = None
    index, end = 0, Fraction(0)
    jumped = False
    with closing(frames):
        for time, shown, frame in frames:
            jumped = time - end > MAX_GAP
            if jumped:
                break
            size = before.size if before else (frame.width, frame.height)
            picture = _Picture(frame, index if time >= 0 else -1, size)
            if time >= 0:
                index += 1
                for track in tracks:
                    earlier, here = track.picker.offer(time)
                    track.take(before or picture, earlier)
                    track.take(picture, here)
                end = max(end, time + shown)
                if progress:
                    progress(float(time), total)
                if all(track.picker.done for track in tracks):
                    return float(end), False
            before = picture
    if before and before.index >= 0:
        for track in tracks:
            track.take(before, track.picker.finish(end))
    return float(end), jumped


def _frames_from(path: Path, start: Fraction, damage: list[str]) -> Generator[tuple[Fraction, Fraction, av.VideoFrame]]:
    """(time since `start`, time shown, frame), beginning with a frame at or before `start`.

    Seeks to the keyframe before `start`. Files without an index can land after it: those are read from the top.
    """
    if start > 0:
        with open_input(path) as container:
            stream = _threaded(video_stream(container))
            target = int((start + stream_start(stream)) / fraction(stream.time_base))
            try:
                container.seek(target, stream=stream)
                landed = False
                for time, shown, frame in timed_frames(container, stream, damage):
                    landed = landed or time <= start
                    if not landed:
                        break
                    yield time - start, shown, frame
            except av.FFmpegError:  # not seekable
                landed = False
            if landed:
                return
        damage.clear()
    with open_input(path) as container:
        for time, shown, frame in timed_frames(container, _threaded(video_stream(container)), damage):
            yield time - start, shown, frame


def _threaded(stream: av.VideoStream) -> av.VideoStream:
    stream.thread_type = "AUTO"
    return stream


def _warnings(
    info: MediaInfo,
    duration: float | None,
    start: float,
    covered: float,
    end: float,
    damage: list[str],
    jumped: bool,
) -> tuple[str, ...]:
    lines = []
    if duration is not None and covered < duration - 1.5 / SYNC_FPS:
        lines.append(f"{info.path}: has {covered:.2f} s of video from {start:g} s on, not the {duration:g} s asked")
    if damage:
        lines.append(f"{info.path}: is damaged, {len(damage)} part(s) of it were skipped ({damage[0]})")
    if jumped:
        lines.append(f"{info.path}: shows no picture for over {MAX_GAP} s after {start + end:.1f} s; stopped there")
    expected = info.duration - start if info.duration else 0.0
    if duration is None and not jumped and end < expected - HEADER_SLACK:
        lines.append(f"{info.path}: ends after {start + end:.2f} s although its header says {info.duration:.2f} s")
    return tuple(lines)
