"""What a long video is made of: spans with prompts of their own, and scenes."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import av

from mmaudio.tables import TOO_MANY, number, read_rows

MIN_SCENE = 1.0  # seconds; a shorter scene belongs to the one before
COLUMNS = ("start", "end", "prompt", "negative_prompt")


@dataclass(frozen=True)
class Span:
    """Words for a part of a video."""

    start: float  # seconds
    end: float
    prompt: str
    negative_prompt: str | None = None  # None: that of the whole


@dataclass(frozen=True)
class Segment:
    """A part of a video with one prompt, inside one scene."""

    start: float  # seconds
    end: float
    prompt: str
    negative_prompt: str
    scene: tuple[float, float]  # seconds; windows of this segment see no picture from outside of it


def read_prompts(path: str | os.PathLike) -> list[Span]:
    """Spans from a CSV or YAML file with start, end (seconds), prompt and perhaps negative_prompt, in order of time.

    Raises:
        ValueError: a row that cannot be used, with its number; overlapping spans.
        OSError: the file cannot be read.
    """
    spans = []
    for line, row in read_rows(path, COLUMNS, ("start", "end", "prompt")):
        try:
            if None in row:
                raise ValueError(TOO_MANY)
            start, end = number(row.get("start", ""), "start"), number(row.get("end", ""), "end")
            if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end):
                raise ValueError(f"{start:g} to {end:g} s is no span of time")
        except ValueError as error:
            raise ValueError(f"{path}: row {line}: {error}") from None
        spans.append(Span(start, end, row.get("prompt", ""), row.get("negative_prompt") or None))
    if not spans:
        raise ValueError(f"{path}: holds no row; write start, end and prompt of every span")
    spans.sort(key=lambda span: span.start)
    for before, span in pairwise(spans):
        if span.start < before.end:
            raise ValueError(
                f"{path}: {before.start:g} to {before.end:g} s and {span.start:g} to {span.end:g} s overlap"
            )
    return spans


def scene_cuts(path: str | os.PathLike) -> list[float]:
    """Times in seconds at which a video's picture changes at once, found by PySceneDetect.

    Raises ValueError if PySceneDetect is not installed or cannot read the video.
    """
    try:
        from scenedetect import AdaptiveDetector, VideoOpenFailure, detect
    except ImportError as error:
        raise ValueError("--split_scenes needs PySceneDetect: pip install 'mmaudio[scenes]'") from error
    try:
        scenes = detect(str(path), AdaptiveDetector(), backend="pyav")
    except (VideoOpenFailure, av.FFmpegError, OSError) as error:
        raise ValueError(f"{path}: PySceneDetect cannot read it ({error}); leave --split_scenes out") from error
    return [start.seconds for start, _ in scenes[1:]]


def make_segments(
    duration: float, prompt: str = "", negative_prompt: str = "", spans: Sequence[Span] = (), cuts: Sequence[float] = ()
) -> list[Segment]:
    """The segments of a video of `duration` seconds, in order and without gaps.

    prompt, negative_prompt: where no span gives others.
    spans: in order, without overlap.
    cuts: where scenes change; one less than 1 s after another or before the end is ignored.

    Raises ValueError for a span that begins after the video has ended.
    """
    for span in spans:
        if span.start >= duration:
            raise ValueError(
                f"the prompt for {span.start:g} to {span.end:g} s begins after the video, which has {duration:.2f} s"
            )
    scenes = [0.0]
    for cut in sorted(cuts):
        if cut - scenes[-1] >= MIN_SCENE and duration - cut >= MIN_SCENE:
            scenes.append(cut)
    ends = [time for span in spans for time in (span.start, span.end) if time < duration]
    borders = [*sorted({0.0, *scenes, *ends}), duration]
    segments = []
    for start, end in pairwise(borders):
        span = next((s for s in spans if s.start <= start < s.end), None)
        begun = max(scene for scene in scenes if scene <= start)
        scene = (begun, min((other for other in scenes if other > start), default=duration))
        words = (prompt, negative_prompt) if span is None else (span.prompt, span.negative_prompt or negative_prompt)
        segments.append(Segment(start, end, *words, scene))
    return segments
