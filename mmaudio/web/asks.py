"""What strangers may ask for, and the limits of it."""

import math
import re
from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from mmaudio.console import error_line
from mmaudio.inputs import DEFAULT_DURATION, MAX_WHOLE_CLIP, check_duration, covering
from mmaudio.loudness import check_target
from mmaudio.media import MediaError, probe
from mmaudio.media.probe import check_aspect
from mmaudio.variants import Variant
from mmaudio.weights import WeightError

MAX_VIDEO = 600.0  # seconds
MAX_PIXELS = 36_000_000  # of a frame or a picture: 8K
MAX_TEXT = 1000  # characters of a prompt
MAX_STEPS = 200
MAX_TAKES = 8
MAX_STRENGTH = 30.0
MAX_SEED = 2**53 - 1  # the largest whole number that a browser hands over unchanged
SOLVERS = ("euler", "midpoint", "heun")  # dopri5 cannot be stopped, and its results depend on the batch


@dataclass(frozen=True)
class Ask:
    """A sound that somebody asks for; the arguments are those of `Pipeline.__call__`."""

    variant: str
    video: Path | None = None
    image: Path | None = None
    prompt: str = ""
    negative_prompt: str = ""
    duration: float | None = None  # seconds; None is the video's own length
    num_steps: int = 25
    cfg_strength: float = 4.5
    seed: int = 42
    num_samples: int = 1
    solver: str = "euler"
    mask_away_clip: bool = False
    lufs: float | None = None  # loudness of every take; None leaves it alone

    @property
    def source(self) -> Path | None:
        return self.video or self.image

    def moved(self, source: Path) -> "Ask":
        """The same with its file at another place."""
        return replace(self, **{"video" if self.video else "image": source})

    def settings(self) -> dict:
        """All but the files, as JSON can hold it."""
        return {name: value for name, value in asdict(self).items() if name not in ("video", "image")}

    def check(self, variant: Variant) -> float:
        """Seconds of sound that this makes with a variant. Decodes the first frames of a video.

        Raises:
            ValueError: an argument is out of range.
            MediaError: the file cannot be used.
        """
        if self.source is None and not self.prompt.strip():
            raise ValueError("nothing to do: give a video, a picture or a prompt")
        if self.video and self.image:
            raise ValueError("give a video or a picture, not both")
        for name, text in (("prompt", self.prompt), ("negative_prompt", self.negative_prompt)):
            if len(text) > MAX_TEXT:
                raise ValueError(f"{name} has {len(text)} characters, at most {MAX_TEXT} are taken")
        for name, value, lowest, highest in (
            ("num_steps", self.num_steps, 1, MAX_STEPS),
            ("num_samples", self.num_samples, 1, MAX_TAKES),
            ("seed", self.seed, 0, MAX_SEED),
            ("cfg_strength", self.cfg_strength, 0, MAX_STRENGTH),
        ):
            if not lowest <= value <= highest:  # NaN is not
                raise ValueError(f"{name} must be between {lowest} and {highest:g}, got {value}")
        if self.solver not in SOLVERS:
            raise ValueError(f"unknown solver {self.solver!r}: expected one of {', '.join(SOLVERS)}")
        if self.lufs is not None:
            check_target(self.lufs)
        check_duration(self.duration)
        if self.source is None:
            return self.duration or DEFAULT_DURATION
        return self._check_file()

    def _check_file(self) -> float:
        info = probe(self.source)
        if info.kind == "audio":
            raise MediaError("the file has sound but no pictures: give a video, a picture or a prompt alone")
        if info.kind != ("video" if self.video else "image"):
            raise MediaError(f"the file is a {'video' if self.image else 'picture'}: send it as {info.kind}")
        if info.width * info.height > MAX_PIXELS:
            raise MediaError(f"{info.width} x {info.height} pixels are too many: at most {MAX_PIXELS:,}, scale it down")
        check_aspect(info.height, info.width, "the file")
        if info.kind == "image":
            return self.duration or DEFAULT_DURATION
        if info.duration is None:
            raise MediaError("the file does not tell how long the video is: convert it to MP4 first")
        if self.duration is None and info.duration > MAX_VIDEO:
            raise MediaError(f"the video is {info.duration:.1f} s long: at most {MAX_VIDEO:g} s, or choose a duration")
        return min(info.duration, self.duration or math.inf)

    def kind(self, variant: Variant, length: float) -> Hashable | None:
        """Asks of the same kind can be made together; None is one that is made alone."""
        if self.video and self.duration is None and length > MAX_WHOLE_CLIP:
            return None  # in windows
        settings = (self.num_steps, self.cfg_strength, self.num_samples, self.solver, self.mask_away_clip)
        return (self.variant, covering(variant, length), settings)


def told(error: Exception, place: Path | None) -> str:
    """One line for strangers: what an error says, without where files are kept (`place`: the file or its folder)."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory: ask for a shorter duration or for fewer takes"
    if isinstance(error, WeightError):
        return "the variant cannot be loaded: the server's log says why"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return without_path(error_line(error).removeprefix("error: "), place)


def without_path(line: str, place: Path | None) -> str:
    return line if place is None else re.sub(re.escape(str(place)) + r"(/[\w./-]*\w)?", "the file", line)
