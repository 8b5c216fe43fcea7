"""One rank of test_ranks.py: the runs named in a JSON file, one after the other, in one process group.

A run is [folder, CLIP and sync dropped independently, settings] and maybe its faults, see `spoil`; each rank then keeps
the weights that it ended with. SIGNAL_AT ("SIGKILL 13") is a signal that this rank sends to itself at that step.
"""

import errno
import json
import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from small import small_config, small_task

from mmaudio.training import loop
from mmaudio.training.checkpoint import CheckpointError
from mmaudio.training.distributed import Ranks, ranks
from mmaudio.training.task import Task


def main(jobs: Path, timeout: float) -> None:
    torch.set_num_threads(1)
    with ranks("cpu", timeout) as here:
        for folder, independent, settings, *faults in json.loads(jobs.read_text()):
            task = small_task(independent)
            if faults:
                spoil(task, here, **faults[0])
            if "SIGNAL_AT" in os.environ:
                name, step = os.environ["SIGNAL_AT"].split()
                at_step(task, int(step), lambda losses, name=name: os.kill(os.getpid(), getattr(signal, name)))
            try:
                loop.train(task, small_config(**settings), here, jobs.parent / folder, print if here.is_main else len)
            except CheckpointError as error:
                (jobs.parent / folder / f"rank_{here.rank}.txt").write_text(str(error))
            if faults:
                save_file(loop.full(task.network.state_dict()), jobs.parent / folder / f"rank_{here.rank}.safetensors")


def spoil(
    task: Task, here: Ranks, bad_row: int | None = None, bad_loss: int | None = None, full_disk: bool = False
) -> None:
    """A row that is not finite; a step whose loss is not finite on the last rank, while its gradient is; no room for
    the weights of a checkpoint, which the first rank writes."""
    if full_disk:
        task.export = no_room
    if bad_row is not None:
        task.train.tensors["mean"][bad_row, 0, 0] = torch.nan
    if bad_loss is not None and here.rank == here.world - 1:
        at_step(task, bad_loss, lambda losses: losses.total.data.fill_(torch.inf))


def no_room(state: dict) -> dict:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def at_step(task: Task, step: int, act) -> None:
    loss = task.loss

    def acting(nets, batch, draw):
        losses = loss(nets, batch, draw)
        if torch.is_grad_enabled() and draw.step == step:  # not in a validation, which counts its batches
            act(losses)
        return losses

    task.loss = acting


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
