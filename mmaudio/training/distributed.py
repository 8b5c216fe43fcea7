"""Ranks: one process, or what torchrun started, on one node or many."""

import contextlib
import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

STRATEGIES = ("ddp", "fsdp")
# The process that watches this rank: read when the process is young, for it may be gone when training begins.
LAUNCHER = os.getppid() if dist.is_torchelastic_launched() else None
_groups = itertools.count()  # of this process; all ranks make as many


class RankError(Exception):
    """Another rank is gone or silent."""


@dataclass(frozen=True)
class Ranks:
    """This process among all. `rank` and `world` are global over all nodes."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def maximum(self, *values: float) -> list[float]:
        """The largest of each value over the ranks; through the CPU, so the GPU's queue is not waited for."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def total(self, *values: float) -> list[float]:
        return self._reduced(values, dist.ReduceOp.SUM)

    def _reduced(self, values, operation) -> list[float]:
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, operation)
        return tensor.tolist()

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor summed over the ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, names: list[str]) -> list[str]:
        """The names of all ranks."""
        if self.world == 1:
            return names
        found: list = [None] * self.world
        dist.all_gather_object(found, names)
        return [name for some in found for name in some]

    def wait(self) -> None:
        if self.world > 1:
            self.maximum(0.0)


@contextlib.contextmanager
def ranks(device: str | None, timeout: float, strategy: str = "ddp"):
    """The `Ranks` of this process, from torchrun's environment; a process started without torchrun is alone.

    A collective that waits longer than `timeout` seconds fails, and so does one whose partner died.

    Raises:
        ValueError: no such device.
        RankError: inside the block, in place of the backend's own errors.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}: expected cuda, cuda:1 or cpu") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device} cannot be used: PyTorch finds no GPU here; leave it out, or device=cpu")
    if chosen.type == "cuda":
        if chosen.index is None:
            chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(chosen)
    if world > 1 or strategy == "fsdp":
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        limit = timedelta(seconds=timeout)
        try:
            store = next(dist.rendezvous("env://", timeout=limit))[0] if "RANK" in os.environ else dist.HashStore()
            # torchrun keeps what it was told: a second group must not take the addresses of the first for its own.
            store = dist.PrefixStore(f"group_{next(_groups)}", store)
            dist.init_process_group(backend, timeout=limit, store=store, rank=rank, world_size=world)
        except dist.DistError as error:
            raise RankError(f"the ranks did not find each other within {timeout:g} s: {_first_line(error)}") from error
    try:
        yield Ranks(rank, world, chosen)
    except (dist.DistError, RuntimeError) as error:
        if world > 1 and _is_lost_rank(error):
            raise RankError(
                f"rank {rank} of {world} stops: another rank died or did not answer within {timeout:g} s "
                f"({_first_line(error)}); run the same command again to go on from the last checkpoint"
            ) from error
        raise
    finally:
        if dist.is_initialized():
            with contextlib.suppress(Exception):  # after a lost rank there is nobody left to say goodbye to
                dist.destroy_process_group()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _is_lost_rank(error: Exception) -> bool:
    text = str(error).lower()
    signs = ("gloo", "nccl", "connection", "timed out", "timeout", "tcpstore", "socket", "process group")
    return isinstance(error, dist.DistError) or any(sign in text for sign in signs)


def wrap(
    module: nn.Module, ranks: Ranks, strategy: str, blocks: Iterable[nn.Module] = (), bf16: bool = False
) -> nn.Module:
    """The module whose gradients are shared by all ranks; itself if there is only one.

    "ddp" keeps all parameters on every rank; "fsdp" (FSDP2) shards each of `blocks`, and what is left, over the ranks.

    Raises:
        ValueError: unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
    if strategy == "fsdp":
        # Inputs keep their dtype: the flow time must stay float32, also where the weights are gathered as bfloat16.
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        for block in blocks:
            fully_shard(block, mp_policy=policy)
        return fully_shard(module, mp_policy=policy)
    if ranks.world == 1:
        return module
    return DistributedDataParallel(
        module,
        device_ids=[ranks.device.index] if ranks.device.type == "cuda" else None,
        broadcast_buffers=False,  # buffers are constants here
        gradient_as_bucket_view=True,
    )


def share_gradients(wrapped: nn.Module, on: bool) -> None:
    """Whether the next backward pass sums gradients over the ranks: off for all but the last micro-batch."""
    if isinstance(wrapped, DistributedDataParallel):
        wrapped.require_backward_grad_sync = on
    elif isinstance(wrapped, FSDPModule):
        wrapped.set_requires_gradient_sync(on)
