"""Training straight from media files: for the networks that come before features exist (VAE, vocoder, CLIP, sync)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mmaudio.data.manifest import ManifestRow, read_manifest
from mmaudio.data.sampler import Item, TensorBatch, weighted_order

ReadClip = Callable[[ManifestRow, np.random.Generator], dict[str, Tensor]]


class MediaClips:
    """A `Source` over manifests.

    Args:
        manifests: (file, weight) pairs; the weight is how often an epoch sees each clip, a fraction is a random part.
        read: opens one clip and cuts at random what the task needs from it; called in the loader's processes.
        batch: class of the batches; its tensor fields have the names of what `read` returns.
    """

    def __init__(self, manifests: list[tuple[str, float]], read: ReadClip, batch: type[TensorBatch]):
        self.read, self.batch = read, batch
        self.rows: list[ManifestRow] = []
        self.parts: list[tuple[int, int, float]] = []  # first row, rows, weight
        for path, weight in manifests:
            rows = read_manifest(path)
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
