"""Ranks, accumulation and sharding change nothing but the time; a rank that dies is noticed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small import small_config, small_task

from mmaudio.training import loop
from mmaudio.training.distributed import ranks

HERE = Path(__file__).parent
TWO_RANKS = [  # folder, CLIP and sync dropped independently, settings
    ("ddp", False, {}),
    ("ddp_v2", True, {}),
    ("ddp_accumulation", False, {"accumulation": 2}),
    ("fsdp", False, {"strategy": "fsdp"}),
    ("fsdp_accumulation", False, {"strategy": "fsdp", "accumulation": 2}),
    ("ddp_halves", False, {"steps": 10}),
    ("ddp_halves", False, {}),
    ("fsdp_half", False, {"strategy": "fsdp", "steps": 10}),
]


def start(script: list[str], rank: int, world: int, port: int, **popen) -> subprocess.Popen:
    env = os.environ | {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE),
    }  # fmt: skip
    return subprocess.Popen([sys.executable, *script], env=env, text=True, **popen)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def alone(folder: Path, independent: bool = False, **settings) -> Path:
    config = small_config(**settings)
    with ranks("cpu", 60, config.strategy) as here:
        loop.train(small_task(independent), config, here, folder, print)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every run of TWO_RANKS, and some of one rank, in one folder."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "jobs.json").write_text(json.dumps(TWO_RANKS))
    port = free_port()
    script = [str(HERE / "rank_worker.py"), str(folder / "jobs.json")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    workers = [start(script, rank, 2, port, **pipes) for rank in range(2)]
    alone(folder / "one")
    alone(folder / "one_v2", independent=True)
    alone(folder / "one_accumulation", accumulation=4)
    alone(folder / "one_fsdp", strategy="fsdp", steps=3)
    for worker in workers:
        out, _ = worker.communicate(timeout=240)
        assert worker.returncode == 0, out
    return folder


TWO_GROUPS = """
import os, time
from mmaudio.training.distributed import ranks
for turn in range(2):
    if turn and os.environ["RANK"] == "0":
        time.sleep(3)  # the other one must wait, and not call at the first group's address
    with ranks("cpu", 60) as here:
        os.write(1, f"{turn} {here.total(1.0)[0]}\\n".encode())  # at once: both ranks write to one pipe
"""


def test_a_process_can_be_of_two_groups_one_after_the_other(tmp_path):
    """As two stages of scripts/train_tiny.py under one torchrun are."""
    (tmp_path / "script.py").write_text(TWO_GROUPS)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(tmp_path / "script.py")]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")[:4]) == ["0 2.0", "0 2.0", "1 2.0", "1 2.0"]


def losses(folder: Path, kind: str = "train", name: str = "loss") -> dict[int, float]:
    rows = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    return {row["step"]: row[name] for row in rows if row["kind"] == kind}


@pytest.mark.parametrize(
    ("other", "one"),
    [
        ("one_accumulation", "one"),
        ("ddp", "one"),
        ("ddp_accumulation", "one"),
        ("fsdp", "one"),
        ("fsdp_accumulation", "one"),
        ("ddp_v2", "one_v2"),
    ],
)
def test_the_same_losses_however_the_batch_is_shared(runs, other, one):
    expected = losses(runs / one)
    assert list(expected) == list(range(20))
    assert losses(runs / other) == pytest.approx(expected, rel=1e-5)
    assert losses(runs / other, "validation") == pytest.approx(losses(runs / one, "validation"), rel=1e-5)
    bins, expected_bins = (losses(runs / name, name="by_time")[3] for name in (other, one))
    assert [b is None for b in bins] == [b is None for b in expected_bins]
    assert [b or 0.0 for b in bins] == pytest.approx([b or 0.0 for b in expected_bins], rel=1e-4)


def test_the_two_versions_drop_differently(runs):
    assert losses(runs / "one") != losses(runs / "one_v2")


def test_sharding_works_with_a_single_rank(runs):
    expected = losses(runs / "one")
    assert losses(runs / "one_fsdp") == pytest.approx({step: expected[step] for step in range(3)}, rel=1e-5)


def test_two_ranks_go_on_bit_for_bit(runs):
    a, b = (load_file(runs / name / "weights" / "small.safetensors") for name in ("ddp", "ddp_halves"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert losses(runs / "ddp") == losses(runs / "ddp_halves")


@pytest.mark.parametrize(("half", "strategy"), [("fsdp_half", "ddp"), ("fsdp_half", "fsdp"), ("ddp_halves", "ddp")])
def test_a_run_goes_on_with_another_number_of_ranks(runs, tmp_path, half, strategy):
    import shutil

    shutil.copytree(runs / half, tmp_path / half)
    shutil.rmtree(tmp_path / half / "checkpoints" / "step_00000020", ignore_errors=True)
    alone(tmp_path / half, strategy=strategy)
    assert losses(tmp_path / half) == pytest.approx(losses(runs / "one"), rel=1e-5)


def test_a_rank_that_dies_stops_the_others_with_a_message(tmp_path):
    (tmp_path / "jobs.json").write_text(json.dumps([["run", False, {"steps": 100_000, "checkpoint_every": 20}]]))
    script = [str(HERE / "rank_worker.py"), str(tmp_path / "jobs.json")]
    port = free_port()
    first, second = (start(script, r, 2, port, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for r in range(2))
    try:
        wait_for(tmp_path / "run" / "checkpoints" / "step_00000020", first)
        second.kill()
        began = time.monotonic()
        _, errors = first.communicate(timeout=60)
    finally:
        first.kill(), second.kill()
    assert first.returncode != 0
    assert time.monotonic() - began < 60
    assert "rank 0 of 2 stops: another rank died" in errors
    assert "run the same command again" in errors


def test_a_signal_to_one_rank_stops_all_with_a_checkpoint(tmp_path):
    (tmp_path / "jobs.json").write_text(json.dumps([["run", False, {"steps": 100_000, "checkpoint_every": 0}]]))
    script = [str(HERE / "rank_worker.py"), str(tmp_path / "jobs.json")]
    port = free_port()
    workers = [start(script, r, 2, port, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for r in range(2)]
    try:
        wait_for(tmp_path / "run" / "stats.jsonl", workers[0])
        time.sleep(1)
        workers[1].send_signal(signal.SIGTERM)
        assert [worker.wait(timeout=60) for worker in workers] == [0, 0]
    finally:
        [worker.kill() for worker in workers]
    (kept,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert (kept / "files.json").exists()


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.1)
