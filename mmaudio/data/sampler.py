"""Which rows make up which batch: a pure function of seed and step, so neither ranks nor a resume change it."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler


def derived_seed(*parts: int) -> int:
    """A 63-bit seed from non-negative integers, e.g. (run seed, step): streams of different parts are independent."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


class Item(NamedTuple):
    """One place in a batch: the row of the source, and a seed for what is drawn at random about it (a crop)."""

    row: int
    key: int


class Source(Protocol):
    """What batches are taken from. `__getitems__` is how torch's DataLoader fetches a whole batch at once."""

    def __len__(self) -> int:
        """Rows; validation sees each once."""

    def order(self, epoch: int, seed: int) -> Tensor:
        """Rows of one training epoch in their order, (M,) int64; a pure function of its arguments."""

    def __getitems__(self, items: list[Item]) -> "TensorBatch": ...


def weighted_order(parts: list[tuple[int, int, float]], epoch: int, seed: int) -> Tensor:
    """`Source.order` of a mixture; its parts are (first row, rows, weight): how often an epoch sees each row.

    The fraction of a weight is a random share of the rows, another one in every epoch.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, epoch))
    rows = []
    for first, count, weight in parts:
        whole = torch.arange(first, first + count)
        rows += [whole] * int(weight)
        some = round((weight - int(weight)) * count)
        rows.append(whole[torch.randperm(count, generator=generator)[:some]])
    order = torch.cat(rows)
    return order[torch.randperm(len(order), generator=generator)]


@dataclass
class TensorBatch:
    """Base of the batches: dataclasses whose tensors all have the batch first. `ids` name the rows in messages."""

    ids: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def _map(self, function) -> "TensorBatch":
        tensors = {k: function(v) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return dataclasses.replace(self, **tensors)

    def to(self, device: torch.device) -> "TensorBatch":
        return self._map(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> "TensorBatch":  # called by torch's DataLoader
        return self._map(lambda x: x.pin_memory())

    def bad_rows(self) -> list[str]:
        """Ids of the rows that hold NaN or infinite values."""
        bad = torch.zeros(len(self), dtype=torch.bool)
        for x in vars(self).values():
            if isinstance(x, Tensor) and x.is_floating_point():
                bad |= ~x.isfinite().flatten(1).all(dim=1).cpu()
        return [name for name, is_bad in zip(self.ids, bad.tolist(), strict=True) if is_bad]


@dataclass(frozen=True)
class Split:
    """How a global batch is shared: contiguous parts for the ranks, each cut into micro-batches."""

    batch_size: int  # of all ranks together
    rank: int = 0
    world: int = 1
    accumulation: int = 1

    def __post_init__(self):
        if self.batch_size % (self.world * self.accumulation):
            raise ValueError(
                f"batch_size {self.batch_size} cannot be shared by {self.world} ranks x {self.accumulation} "
                "accumulation steps: make it a multiple"
            )

    @property
    def micro_size(self) -> int:
        return self.batch_size // (self.world * self.accumulation)

    def rows(self, micro: int) -> slice:
        """Places in the global batch of this rank's `micro`-th micro-batch."""
        first = (self.rank * self.accumulation + micro) * self.micro_size
        return slice(first, first + self.micro_size)


class GlobalBatches(Sampler[list[Item]]):
    """This rank's micro-batches from `start` on, without end; the last incomplete batch of an epoch is dropped.

    Raises:
        ValueError: an epoch has less than one batch.
    """

    def __init__(self, source: Source, split: Split, seed: int, start: int = 0):
        self.source, self.split, self.seed, self.start = source, split, seed, start
        self.per_epoch = len(source.order(0, seed)) // split.batch_size
        if self.per_epoch == 0:
            raise ValueError(
                f"an epoch has {len(source.order(0, seed))} clips, less than one batch of {split.batch_size}: "
                "make batch_size smaller or give the data more weight"
            )

    def global_batch(self, step: int) -> list[Item]:
        epoch, batch = divmod(step, self.per_epoch)
        size = self.split.batch_size
        rows = self._order(epoch)[batch * size : (batch + 1) * size].tolist()
        return [Item(row, derived_seed(self.seed, step, place)) for place, row in enumerate(rows)]

    @lru_cache(maxsize=1)  # noqa: B019 (one sampler lives as long as its run)
    def _order(self, epoch: int) -> Tensor:
        return self.source.order(epoch, self.seed)

    def __iter__(self) -> Iterator[list[Item]]:
        step = self.start
        while True:
            items = self.global_batch(step)
            for micro in range(self.split.accumulation):
                yield items[self.split.rows(micro)]
            step += 1
