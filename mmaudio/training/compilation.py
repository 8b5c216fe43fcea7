"""torch.compile, where it works; where it does not, training says so and goes on."""

from collections.abc import Callable

import torch
from torch import nn

from mmaudio.data.sampler import TensorBatch
from mmaudio.training.task import Draw, Nets, Task


def compile_blocks(
    task: Task, batch: TensorBatch, draw: Draw, autocast, log: Callable[[str], None]
) -> None:
    """Compile the network block by block: equal blocks share one compilation, and FSDP can shard them afterwards.

    One forward and backward pass on `batch` shows whether it works; nothing of it stays but the compiled code.
    """
    parts: list[nn.Module] = list(task.blocks(task.network)) or [task.network]
    for part in parts:
        part.compile()
    try:
        with autocast:
            losses = task.loss(Nets(task.network, task.critic), batch, draw)
        losses.total.backward()
    except torch._dynamo.exc.TorchDynamoException as error:
        for part in parts:
            part._compiled_call_impl = None  # what Module.compile() sets; there is no public way back
        reason = " ".join(str(error).split())[:200]
        log(f"torch.compile does not work here, going on without it: {reason}")
    finally:
        task.network.zero_grad()
        if task.critic is not None:
            task.critic.zero_grad()
