"""Video files to frames at the two rates of the method, in one decoding pass."""

import math
import os
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
import torch

from mmaudio.media.container import exact, fraction, open_input, stream_start, timed_frames, video_stream
from mmaudio.media.errors import MediaError, media_errors
from mmaudio.media.picking import RULES, FirstAtOrAfter, Nearest, Rule
from mmaudio.media.pixels import FrameConverter
from mmaudio.media.probe import MediaInfo, probe

CLIP_FPS = 8
SYNC_FPS = 25
MAX_GAP = 60  # seconds without a frame; more is a broken timestamp that would fill the memory with copies
MIN_SALVAGE = 1.0  # seconds that must be readable for a damaged file to be worth using
MAX_RESERVED = 2**30  # bytes set aside for frames before they are seen
HEADER_SLACK = 0.5  # seconds by which headers and contents may differ unremarked

Transform = Callable[[torch.Tensor], torch.Tensor]  # uint8 (3, H, W) -> uint8 (3, h, w)
Progress = Callable[[float, float | None], None]  # seconds decoded, seconds in all if known


@dataclass(frozen=True)
class VideoFrames:
    """The frames of a video at 8 and at 25 frames per second."""

    clip: torch.Tensor  # uint8 (T8, 3, H, W), T8 = int(8 * duration)
    sync: torch.Tensor  # uint8 (T25, 3, h, w), T25 = int(25 * duration)
    duration: float  # seconds covered: as asked if there are all frames, else as far as those at 8 and at 25 fps go
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
    beyond = f"{path}: has no frame at {start:g} s, it is shorter than that; start earlier"
    if info.duration and start > info.duration + HEADER_SLACK:
        raise MediaError(beyond)

    limit = math.inf if duration is None else duration
    total = duration if duration is not None else info.duration and max(info.duration - start, 0.0)
    # One slot more than fits: both rules may reach the end itself.
    clip = _Track(RULES[rule](CLIP_FPS, limit), clip_transform, CLIP_FPS * (total or 0) + 1)
    sync = _Track(RULES[rule](SYNC_FPS, limit), sync_transform, SYNC_FPS * (total or 0) + 1)
    damage: list[str] = []
    with media_errors(path, "decode it"):
        end, jumped = _fill((clip, sync), frames_from(info.path, exact(start), damage), total, progress)
    if not len(clip) or not len(sync):
        if damage:
            raise MediaError(f"{path}: is damaged, no picture can be decoded ({damage[0]}); download it again")
        raise MediaError(beyond)

    covered = min(limit, len(clip) / CLIP_FPS, len(sync) / SYNC_FPS)
    if rule == "nearest" and duration and all(len(t) >= int(t.picker.rate * exact(duration)) for t in (clip, sync)):
        covered = duration  # as at 8 fps the end of 4.8 s, 38.4 frames: slots are rounded
    if info.duration and end < min(limit, info.duration - start - HEADER_SLACK):
        damage.append(f"ends after {start + end:.2f} s although its header says {info.duration:.2f} s")
    if damage and covered < min(MIN_SALVAGE, limit):
        raise MediaError(f"{path}: is damaged, only {covered:.2f} s can be decoded ({damage[0]}); download it again")
    warnings = _warnings(info, duration, start, covered, end, damage, jumped)
    clip_count, sync_count = (int(rate * exact(covered)) for rate in (CLIP_FPS, SYNC_FPS))  # 25 * 9.28 is below 232
    return VideoFrames(
        clip=clip.first(clip_count),
        sync=sync.first(sync_count),
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

    def __init__(self, frame: av.VideoFrame, index: int, size: tuple[int, int], convert: FrameConverter):
        self.frame, self.index, self.size, self.convert = frame, index, size, convert

    @cached_property
    def rgb(self) -> torch.Tensor:
        return self.convert(self.frame, self.size)


class _Track:
    """The slots of one frame rate, filled as the source goes by, in one tensor so that no second copy is needed."""

    def __init__(self, picker: FirstAtOrAfter | Nearest, transform: Transform | None, expected: float):
        self.picker, self.transform, self.expected = picker, transform, expected
        self.frames: torch.Tensor | None = None  # (capacity, 3, h, w); slots not yet written cost no memory
        self.index: list[int] = []

    def __len__(self) -> int:
        return len(self.index)

    def take(self, picture: _Picture, count: int) -> None:
        if count:
            frame = self.transform(picture.rgb) if self.transform else picture.rgb
            end = len(self) + count
            if self.frames is None:  # headers may promise anything, so believe them up to a limit
                self.frames = _room(frame, max(end, min(self.expected, MAX_RESERVED // max(1, frame.nbytes))))
            elif end > len(self.frames):
                grown = _room(frame, max(end, 2 * len(self.frames)))
                grown[: len(self)] = self.frames[: len(self)]
                self.frames = grown
            self.frames[len(self) : end] = frame
            self.index += [picture.index] * count

    def first(self, count: int) -> torch.Tensor:  # (count, 3, h, w)
        excess = len(self.frames) - count
        return self.frames[:count] if excess <= SYNC_FPS else self.frames[:count].clone()


def _room(frame: torch.Tensor, count: float) -> torch.Tensor:
    return torch.empty((int(count), *frame.shape), dtype=frame.dtype)


def _fill(
    tracks: tuple[_Track, ...],
    frames: Generator[tuple[Fraction, Fraction, av.VideoFrame]],
    total: float | None,
    progress: Progress | None,
) -> tuple[float, bool]:
    """Offer frames until every track is done or they end: (seconds seen, whether a timestamp jump stopped it)."""
    convert = FrameConverter()
    before: _Picture | None = None
    index, end = 0, Fraction(0)
    jumped = False
    with closing(frames):
        for time, shown, frame in frames:
            jumped = time - end > MAX_GAP
            if jumped:
                break
            size = before.size if before else (frame.width, frame.height)
            picture = _Picture(frame, index if time >= 0 else -1, size, convert)
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


def frames_from(path: Path, start: Fraction, damage: list[str]) -> Generator[tuple[Fraction, Fraction, av.VideoFrame]]:
    """(time since `start`, time shown, frame), beginning with a frame at or before `start`.

    Seeks to the keyframe before `start`. Files without an index can land after it: those are read from the top.
    """
    if start > 0:
        with open_input(path) as container:
            stream = _threaded(video_stream(container))
            target = int((start + stream_start(stream)) / fraction(stream.time_base))
            landed = False
            with suppress(av.FFmpegError):  # not seekable: the position is still the top
                container.seek(target, stream=stream)
            for time, shown, frame in timed_frames(container, stream, damage):
                landed = landed or time <= start
                if not landed:
                    break
                yield time - start, shown, frame
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
        lines.append(f"{info.path}: is damaged in {len(damage)} place(s) ({damage[0]})")
    if jumped:
        lines.append(f"{info.path}: shows no picture for over {MAX_GAP} s after {start + end:.1f} s; stopped there")
    return tuple(lines)
