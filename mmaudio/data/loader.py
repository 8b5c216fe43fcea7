"""Reading batches ahead in other processes."""

import signal
import traceback
from collections.abc import Iterable, Iterator

import torch
from torch.utils.data import DataLoader

from mmaudio.data.sampler import Item, Source, TensorBatch


def loader(
    source: Source, batches: Iterable[list[Item]], num_workers: int, pin_memory: bool = False
) -> Iterator[TensorBatch]:
    """The batches of `source` in the order asked for; with workers they are read ahead, and are the same.

    Whatever a worker raises (StoreError, MediaError) is raised here as it was, when its batch is due. Closing the
    iterator, or dropping it, ends the workers.
    """
    data = DataLoader(
        _Fetching(source), batch_sampler=batches, num_workers=num_workers, collate_fn=_unchanged,
        pin_memory=pin_memory, worker_init_fn=_outlive_signals,
        generator=torch.Generator(),  # torch draws a seed for the workers: not from the run's random numbers
    )  # fmt: skip
    for batch in data:
        if isinstance(batch, Exception):
            raise batch
        yield batch


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
    """Ctrl-C and SIGTERM often go to the whole process group, but the run still wants a batch to save after."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
