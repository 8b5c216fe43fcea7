"""Reading batches ahead in other processes."""

import os
import signal
import threading
import traceback
from collections.abc import Iterable, Iterator

import torch
from torch.utils.data import DataLoader

from mmaudio.data.sampler import Item, Source, TensorBatch

GRACE = 10  # seconds that a worker lives on after SIGTERM


def loader(
    source: Source, batches: Iterable[list[Item]], num_workers: int, pin_memory: bool = False
) -> Iterator[TensorBatch]:
    """The batches of `source` in the order asked for; with workers they are read ahead, and are the same.

    Closing the iterator, or dropping it, ends the workers.

    Raises:
        ChildProcessError: a worker was killed.
        Exception: whatever the source raises (StoreError, MediaError), as it was, when its batch is due.
    """
    data = DataLoader(
        _Fetching(source), batch_sampler=batches, num_workers=worker_count(num_workers), collate_fn=_unchanged,
        pin_memory=pin_memory, worker_init_fn=_outlive_signals,
        generator=torch.Generator(),  # torch draws a seed for the workers: not from the run's random numbers
    )  # fmt: skip
    reader = _start(data)
    try:
        while True:
            try:
                batch = next(reader)
            except StopIteration:
                return
            except (RuntimeError, EOFError, OSError) as error:  # by how far the worker got
                raise ChildProcessError(
                    "a process that reads data died; if it ran out of memory, lower num_workers or the batch size"
                ) from error
            if isinstance(batch, Exception):
                raise batch
            yield batch
    finally:
        del reader  # or the traceback of an error would keep the workers


def worker_count(wanted: int) -> int:
    """No more processes than cores: they would wait for each other, and torch would warn of it every time."""
    return min(wanted, os.cpu_count() or 1)


def _start(data: DataLoader) -> Iterator[TensorBatch | Exception]:
    """`iter(data)`, without the signal handler that torch installs along with the workers.

    It raises wherever the program happens to be when a worker dies, in the middle of a checkpoint, too; without it
    the death is noticed where the batch is waited for.
    """
    if threading.current_thread() is not threading.main_thread():  # torch installs none, either
        return iter(data)
    handler = signal.getsignal(signal.SIGCHLD)
    reader = iter(data)
    signal.signal(signal.SIGCHLD, handler)
    return reader


class _Fetching:
    """Hands errors on as values: torch would wrap them in a traceback of many lines, and lose some types."""

    def __init__(self, source: Source):
        self.source = source

    def __getitems__(self, items: list[Item]) -> TensorBatch | Exception:
        try:
            return self.source.__getitems__(items)
        except Exception as error:
            error.add_note("in a loader process:\n" + traceback.format_exc())
            return error


def _unchanged(batch: TensorBatch) -> TensorBatch:
    return batch


def _outlive_signals(worker: int) -> None:
    """Ctrl-C and SIGTERM often go to all processes of a run, but the run still wants a batch to save after."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
