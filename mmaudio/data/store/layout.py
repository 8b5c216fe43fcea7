"""Names, errors and the bundles that go in and out of a feature store."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmaudio.data.sampler import TensorBatch
from mmaudio.sequence import SequenceSpec

FORMAT = 1
META, ROWS, CAPTIONS = "store.json", "rows.tsv", "captions.json"
LATENTS, VIDEO = ("mean", "std"), ("clip", "sync")
FIELDS = (*LATENTS, *VIDEO, "text")
DTYPES = {str(dtype): dtype for dtype in (torch.float16, torch.bfloat16, torch.float32)}
REFERENCE_NAMES = {
    "mean": "mean", "std": "std", "clip": "clip_features", "sync": "sync_features", "text": "text_features"
}  # fmt: skip

Progress = Callable[[int, int], None]  # (done, in all)


class StoreError(Exception):
    """A feature store cannot be read, written or used. One line: path, got, expected, remedy."""


@dataclass(frozen=True)
class StoreMeta:
    """What store.json holds. A folder in the reference's layout tells none of the optional things."""

    count: int  # rows
    variant: str | None = None  # whose encoders and codec made it
    spec: SequenceSpec | None = None
    identity: dict[str, str] = dataclasses.field(default_factory=dict)  # "vae", "clip", "sync": content checksums, ...
    latent_mean: list[float] | None = None  # per channel, see LatentStatistics
    latent_std: list[float] | None = None


@dataclass
class StoreRow:
    id: str
    caption: str | None
    mean: Tensor  # (L, C)
    std: Tensor  # (L, C)
    clip: Tensor | None  # (T, clip_dim)
    sync: Tensor | None  # (S, sync_dim)


@dataclass
class FeatureBatch(TensorBatch):
    """Rows of one or several stores, in the precision they are stored in. What a row lacks is zero."""

    captions: list[str | None]
    mean: Tensor  # (B, L, C)
    std: Tensor  # (B, L, C)
    clip: Tensor  # (B, T, clip_dim)
    sync: Tensor  # (B, S, sync_dim)
    text: Tensor  # (B, 77, text_dim)
    video_exist: Tensor  # (B,) bool
    text_exist: Tensor  # (B,) bool

    @classmethod
    def empty(cls, size: int, shapes: dict[str, tuple[int, ...]], dtypes: dict[str, torch.dtype]) -> "FeatureBatch":
        """To be filled; a field of unknown shape has no length."""
        tensors = {
            name: torch.zeros(size, *shapes.get(name, (0, 0)), dtype=dtypes.get(name, torch.bfloat16))
            for name in FIELDS
        }
        exist = {name: torch.zeros(size, dtype=torch.bool) for name in ("video_exist", "text_exist")}
        return cls(ids=[""] * size, captions=[None] * size, **tensors, **exist)
