"""What every backbone of the evaluation looks like: one clip in, named arrays out."""

from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor


class Unavailable(Exception):
    """A backbone that cannot be used here; its metrics are reported as skipped, with this reason and remedy."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


class Backbone(Protocol):
    """A network with its preprocessing, in evaluation mode and float32.

    Each method takes one clip and returns arrays without a batch dimension, float32. A backbone has only the methods of
    its `modalities`. `duration` is the evaluated length in seconds: all preprocessing cuts, pads or refuses by it.

    Raises, when called:
        ValueError: the clip cannot be used (too short, say); one line, without the clip's name.
    """

    name: str
    modalities: tuple[str, ...]  # of "audio", "video", "text"
    licence: str
    identity: str  # of weights and preprocessing: features with another identity are another network's

    def audio(self, samples: Tensor, sample_rate: int, duration: float) -> dict[str, np.ndarray]:
        """float32 (channels, N) as `media.read_audio` returns it."""

    def video(self, path: Path, duration: float) -> dict[str, np.ndarray]:
        """A video file."""

    def text(self, caption: str) -> dict[str, np.ndarray]:
        """A caption."""
