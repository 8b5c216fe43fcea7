"""The loader: the same batches with and without workers, plain errors, no processes left."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
import torch
from storefiles import entry, make_rows, make_texts, one_line, write
from torch import Tensor

from mmaudio.data.loader import loader
from mmaudio.data.mixture import Mixture
from mmaudio.data.sampler import GlobalBatches, Item, Split, TensorBatch
from mmaudio.data.store import StoreError
from mmaudio.media import MediaError


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    write(folder / "video", make_rows(9))
    write(folder / "sound", make_rows(8, video=False, captions=["wood"], prefix="s"), make_texts(["wood"]))
    return Mixture([entry(folder / "video", 1.5), entry(folder / "sound")])


def tensors(batch):
    return {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}


def wait_until_gone(children, seconds=10):
    end = time.monotonic() + seconds
    while any(child.is_alive() for child in children) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(child.is_alive() for child in children)


def test_workers_change_nothing(mixture):
    order = GlobalBatches(mixture, Split(4, rank=1, world=2), seed=3, start=2)
    torch.manual_seed(0)
    alone, ahead = (
        list(itertools.islice(loader(mixture, order, num_workers), 12)) for num_workers in (0, 2)
    )  # fmt: skip
    drawn = torch.rand(3)
    for a, b in zip(alone, ahead, strict=True):
        assert a.ids == b.ids
        assert a.captions == b.captions
        assert tensors(a).keys() == tensors(b).keys()
        for name, value in tensors(a).items():
            assert value.equal(tensors(b)[name])
            assert value.dtype == tensors(b)[name].dtype
    torch.manual_seed(0)
    assert drawn.equal(torch.rand(3))  # the run's own random numbers are as they were


def test_a_list_of_batches_ends(mixture):
    batches = [[Item(0, 0), Item(1, 0)], [Item(16, 0)]]
    assert [batch.ids for batch in loader(mixture, batches, 2)] == [["clip_0", "clip_1"], ["s_7"]]


def test_spawned_workers_open_the_stores_themselves(mixture):
    """Where processes are not forked, the source travels by pickle."""
    import pickle

    sent = pickle.dumps(mixture)
    assert len(sent) < 5000
    assert pickle.loads(sent).__getitems__([Item(2, 0)]).mean.equal(mixture.__getitems__([Item(2, 0)]).mean)


@dataclass
class Numbers(TensorBatch):
    x: Tensor


class Source:
    """Counts, and raises at row 5."""

    def __init__(self, error=None, seconds=0.0):
        self.error, self.seconds = error, seconds

    def __getitems__(self, items):
        time.sleep(self.seconds)
        if self.error and any(item.row == 5 for item in items):
            raise self.error
        return Numbers(ids=[str(item.row) for item in items], x=torch.tensor([item.row for item in items]))


def endless():
    return ([Item(row, 0)] for row in itertools.count())


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("error", [StoreError("x: is damaged"), MediaError("y: is silent"), KeyError("z")])
def test_errors_arrive_as_they_were_in_their_place(error, num_workers):
    batches, got = loader(Source(error), endless(), num_workers), []
    with pytest.raises(type(error)) as caught:
        got.extend(batch.x.item() for batch in batches)
    assert one_line(caught) == str(error)
    assert "in a loader process" in caught.value.__notes__[0]  # for the traceback of what nobody expected
    assert [*range(5)] == got or got == []  # extend keeps what came before the error, or nothing
    assert wait_until_gone(multiprocessing.active_children())


def test_workers_end_with_their_iterator():
    batches = loader(Source(), endless(), 2)
    assert next(batches).x.item() == 0
    children = multiprocessing.active_children()
    assert len(children) == 2
    start = time.monotonic()
    batches.close()
    assert wait_until_gone(children)
    assert time.monotonic() - start < 5


def test_workers_outlive_a_signal_to_the_whole_group():
    batches = loader(Source(seconds=0.01), endless(), 1)
    next(batches)
    (child,) = multiprocessing.active_children()
    os.kill(child.pid, signal.SIGTERM)
    os.kill(child.pid, signal.SIGINT)
    assert [next(batches).x.item() for _ in range(20)] == list(range(1, 21))
    batches.close()
    assert wait_until_gone([child])


def test_a_killed_worker_is_told_where_its_batch_is_waited_for():
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a plain DataLoader of an earlier test may have left torch's
    batches, got = loader(Source(seconds=0.01), endless(), 1), []
    got.append(next(batches))
    (child,) = multiprocessing.active_children()
    os.kill(child.pid, signal.SIGKILL)
    time.sleep(0.3)  # the signal of its death arrives here, and raises nothing
    with pytest.raises(ChildProcessError) as caught:
        got.extend(batches)
    assert "a process that reads data died" in one_line(caught)
    assert len(got) < 10


def test_a_run_that_fails_with_workers_at_work_still_ends():
    """Python's exit sends them SIGTERM and waits: those that ignored it would never let it end."""
    code = f"""
import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_loader import *
import mmaudio.data.loader
mmaudio.data.loader.GRACE = 1
batches = loader(Source(seconds=0.01), endless(), 2)
next(batches)
raise SystemExit("a bug")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "a bug" in done.stderr
