"""Training straight from media files: for the networks that come before features exist (VAE, vocoder, CLIP, sync)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmaudio.data.clip_cache import CachedClip, listed_clips
from mmaudio.data.manifest import ManifestError, ManifestRow
from mmaudio.data.preparation import ClipError, resample
from mmaudio.data.sampler import Item, TensorBatch, weighted_order
from mmaudio.media import read_audio

SOUND_SPAN = 60.0  # seconds of a long file that pieces are cut from, beginning at the row's start

Row = ManifestRow | CachedClip
ReadClip = Callable[[Row, np.random.Generator], dict[str, Tensor]]


class MediaClips:
    """A `Source` over manifests.

    Args:
        manifests: (file or clip cache, weight) pairs; the weight is how often an epoch sees each clip, a fraction is a
            random part.
        read: opens one clip and cuts at random what the task needs from it; called in the loader's processes.
        batch: class of the batches; its tensor fields have the names of what `read` returns.
    """

    def __init__(self, manifests: list[tuple[str, float]], read: ReadClip, batch: type[TensorBatch]):
        self.read, self.batch = read, batch
        self.rows: list[Row] = []
        self.parts: list[tuple[int, int, float]] = []  # first row, rows, weight
        for path, weight in manifests:
            rows = listed_clips(path)
            self.parts.append((len(self.rows), len(rows), weight))
            self.rows += rows

    def __len__(self) -> int:
        return len(self.rows)

    def order(self, epoch: int, seed: int) -> Tensor:
        return weighted_order(self.parts, epoch, seed)

    def __getitems__(self, items: list[Item]) -> TensorBatch:
        clips = [self.read(self.rows[item.row], np.random.default_rng(item.key)) for item in items]
        tensors = {name: torch.stack([clip[name] for clip in clips]) for name in clips[0]}
        return self.batch(ids=[self.rows[item.row].id for item in items], **tensors)


def read_sound(row: Row, duration: float) -> tuple[Tensor, int]:
    """Sound (C, N) from the row's start on, and its rate."""
    return row.sound() if isinstance(row, CachedClip) else read_audio(row.path, duration, row.start)


def check_events(*sources: MediaClips | None) -> None:
    """ManifestError if it is not known of every clip what happens in it."""
    for clips in filter(None, sources):
        for row in clips.rows:
            simulated_events(row)


def simulated_events(row: Row) -> list[dict]:
    """What is known to happen in a clip, for tasks with `task.events`; ManifestError if nothing is."""
    if not isinstance(row, CachedClip):
        raise ManifestError(f"{row.path}: task.events needs a clip cache of simulated clips, this is a file")
    return row.events


@dataclass
class SoundBatch(TensorBatch):
    wave: Tensor  # (B, N) float32 in [-1, 1]


@dataclass(frozen=True)
class ReadSound:
    """A `ReadClip` for `SoundBatch`: a random piece of a clip's sound, mono, at its own level.

    A sound shorter than the piece is followed by silence.
    """

    sample_rate: int
    samples: int  # of a piece, at `sample_rate`

    def __call__(self, row: Row, rng: np.random.Generator) -> dict[str, Tensor]:
        sound, rate = read_sound(row, SOUND_SPAN)
        needed = math.ceil(self.samples * rate / self.sample_rate)
        start = int(rng.integers(max(0, sound.shape[1] - needed) + 1))
        piece = sound[:, start : start + needed].mean(dim=0)  # (n,); cut first: resampling costs more than decoding
        try:
            wave = resample(piece, rate, self.sample_rate)[: self.samples].clamp(-1, 1)
        except ClipError as error:
            raise ClipError(f"{row.path}: {error}") from None
        return {"wave": F.pad(wave, (0, self.samples - len(wave)))}
