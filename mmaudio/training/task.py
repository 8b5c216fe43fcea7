"""What a task gives to the loop: networks, data, a loss, and how its result is called and kept."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from mmaudio.data.sampler import Source, TensorBatch, derived_seed
from mmaudio.training.tracking import Tracker


class Draw:
    """The random numbers of one step, for some rows of the global batch.

    They are drawn for the whole global batch and cut, so a sample's noise depends neither on the number of ranks nor
    on gradient accumulation, and a resumed run draws what an uninterrupted one would. Every call draws anew: a loss
    must make its calls in a fixed order.
    """

    def __init__(self, seed: int, step: int, total: int, rows: slice, device: torch.device | str):
        self.step, self.total, self.rows, self.device = step, total, rows, torch.device(device)
        self.generator = torch.Generator(device).manual_seed(derived_seed(seed, step))

    def normal(self, *shape: int) -> Tensor:
        """(rows, *shape) standard normal, float32."""
        return torch.randn(self.total, *shape, generator=self.generator, device=self.device)[self.rows]

    def uniform(self, *shape: int) -> Tensor:
        """(rows, *shape) in [0, 1), float32."""
        return torch.rand(self.total, *shape, generator=self.generator, device=self.device)[self.rows]


@dataclass
class Losses:
    """A loss and what is logged beside it: means over the rows."""

    total: Tensor  # to be minimised, with its graph
    parts: dict[str, Tensor] = field(default_factory=dict)  # name -> detached scalar
    by_time: Tensor | None = None  # (2, bins): sums and counts of the loss by flow time


@dataclass
class Nets:
    """The networks as a loss may use them: call them, leave their parameters alone (these may be sharded)."""

    network: nn.Module
    critic: nn.Module | None = None


LossFunction = Callable[[Nets, TensorBatch, Draw], Losses]


@dataclass
class Task:
    """One thing to train.

    With a critic the loop alternates: `critic_loss` (the network without gradients), then `loss` (the critic frozen).
    """

    name: str
    network: nn.Module  # averaged, validated and saved
    loss: LossFunction
    train: Source
    file_name: str  # of the weights in the official layout, e.g. "mmaudio_small_16k.safetensors"
    metadata: dict[str, str]  # goes into that file
    validation: Source | None = None
    critic: nn.Module | None = None
    critic_loss: LossFunction | None = None
    export: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict  # the network's state to the official file's
    blocks: Callable[[nn.Module], Iterable[nn.Module]] = lambda network: ()  # FSDP shards these one by one
    also_write: Callable[[Path, dict[str, Tensor]], None] | None = None  # more files beside the weights, from its state
    preview: Callable[[dict[str, Tensor], int, Path, Tracker], None] | None = None  # from the exported state
    can_accumulate: bool = True  # False where the loss compares the samples of a batch with each other
