"""Mean and standard deviation of the latents, for normalising them; one pass, any number of rows, float64."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_BYTES = 64 << 20  # of what is read at once where everything is read


@dataclass(frozen=True)
class LatentStatistics:
    """Of each channel over rows and frames; the standard deviation is the unbiased one, float64."""

    count: int  # frames of all rows
    mean: Tensor  # (C,)
    std: Tensor  # (C,)

    @classmethod
    def of(cls, latents: Tensor) -> "LatentStatistics":
        """Of (N, L, C) latents, which may be memory-mapped: they are read in blocks."""
        parts = (block.double().flatten(0, 1) for _, block in blocks(latents))  # (n L, C)
        return cls.pooled(cls(len(part), part.mean(0), part.std(0)) for part in parts)

    @classmethod
    def pooled(cls, parts: Iterable["LatentStatistics"]) -> "LatentStatistics":
        """Of the union of disjoint sets: what one pass over all of them would give."""
        count, mean, squares = 0, torch.zeros(()), torch.zeros(())  # squares: summed deviations from the mean, squared
        for part in parts:
            total, shift = count + part.count, part.mean - mean
            squares = squares + part.std.square() * (part.count - 1) + shift.square() * (count * part.count / total)
            mean = mean + shift * (part.count / total)
            count = total
        return cls(count, mean, (squares / (count - 1)).sqrt())


def finite_rows(x: Tensor) -> Tensor:
    """(n,) bool: a sum is finite where all its terms are, and takes a quarter of the time of looking at each."""
    return x.flatten(1).sum(1, dtype=torch.float32).isfinite()


def blocks(tensor: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(number of its first row, some rows) through the whole of a memory-mapped tensor."""
    size = max(1, BLOCK_BYTES // tensor[0].nbytes)
    for first in range(0, len(tensor), size):
        yield first, tensor[first : first + size]
