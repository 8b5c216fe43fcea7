"""torch.compile where it works; where it does not, training says so and goes on."""

from collections.abc import Callable

import torch
from torch import nn

from mmaudio.data.sampler import GlobalBatches, Split
from mmaudio.training.config import TrainConfig
from mmaudio.training.distributed import Ranks
from mmaudio.training.numerics import autocast
from mmaudio.training.task import Draw, Nets, Task


def compile_blocks(task: Task, config: TrainConfig, ranks: Ranks, split: Split, log: Callable[[str], None]) -> None:
    """Compile the network block by block: equal blocks share one compilation, and FSDP can shard them afterwards.

    One forward and backward pass on the first batch shows whether it works; all ranks must agree on that. Nothing of it
    stays but the compiled code.
    """
    network = task.network.to(ranks.device).train()
    critic = None if task.critic is None else task.critic.to(ranks.device)
    parts: list[nn.Module] = list(task.blocks(network)) or [network]
    for part in parts:
        part.compile()
    rows = split.rows(0)
    items = GlobalBatches(task.train, split, config.seed).global_batch(0)[rows]
    batch = task.train.__getitems__(items).to(ranks.device)
    problem = None
    try:
        with autocast(config.precision, ranks.device):
            losses = task.loss(Nets(network, critic), batch, Draw(config.seed, 0, split.batch_size, rows, ranks.device))
        losses.total.backward()
    except torch._dynamo.exc.TorchDynamoException as error:
        problem = " ".join(str(error).split())[:200]
    if ranks.maximum(float(problem is not None))[0]:
        for part in parts:
            part._compiled_call_impl = None  # what Module.compile() sets; there is no public way back
        log(f"torch.compile does not work here, training goes on without it: {problem or 'it failed on another rank'}")
    for module in (network, critic):
        if module is not None:
            module.zero_grad()
