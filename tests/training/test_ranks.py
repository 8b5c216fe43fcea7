"""Ranks, accumulation and sharding change nothing but the time; a rank that dies or hangs is noticed."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rank_worker import spoil
from safetensors.torch import load_file
from small import SmallSource, small_config, small_task

from mmaudio.data.sampler import GlobalBatches, Split
from mmaudio.training import loop
from mmaudio.training.distributed import ranks

HERE = Path(__file__).parent
BAD_STEP = 2
SECOND_HALF = GlobalBatches(SmallSource(32), Split(small_config().batch_size, 1, 2), small_config().seed)
BAD_ROW = SECOND_HALF.global_batch(BAD_STEP)[-1].row  # rank 1's
TWO_RANKS = [  # folder, CLIP and sync dropped independently, settings, faults
    ("ddp", False, {}),
    ("ddp_v2", True, {}),
    ("ddp_accumulation", False, {"accumulation": 2}),
    ("fsdp", False, {"strategy": "fsdp"}),
    ("fsdp_accumulation", False, {"strategy": "fsdp", "accumulation": 2}),
    ("ddp_halves", False, {"steps": 10}),
    ("ddp_halves", False, {}),
    ("fsdp_half", False, {"strategy": "fsdp", "steps": 10}),
    ("one_half_ddp", False, {}),
    ("one_half_fsdp", False, {"strategy": "fsdp"}),
    ("ddp_full_disk", False, {"steps": 4, "checkpoint_every": 2}, {"full_disk": True}),
    ("ddp_bad_row", False, {"steps": 4}, {"bad_row": BAD_ROW}),
    ("ddp_bad_loss", False, {"steps": 4}, {"bad_loss": BAD_STEP}),
    ("fsdp_bad_row", False, {"steps": 4, "strategy": "fsdp"}, {"bad_row": BAD_ROW}),
    ("fsdp_bad_loss", False, {"steps": 4, "strategy": "fsdp"}, {"bad_loss": BAD_STEP}),
]


def start(
    jobs: Path, rank: int, port: int, timeout: float = 60, at_step: str | None = None, **popen
) -> subprocess.Popen:
    """A rank of two, as torchrun starts them on two nodes of one process each."""
    env = os.environ | {
        "RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE),
    }  # fmt: skip
    if at_step is not None:
        env["SIGNAL_AT"] = at_step
    words = [sys.executable, str(HERE / "rank_worker.py"), str(jobs), str(timeout)]
    return subprocess.Popen(words, env=env, text=True, **popen)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def alone(folder: Path, independent: bool = False, faults: dict | None = None, **settings) -> list[str]:
    """What the run said."""
    config, task, said = small_config(**settings), small_task(independent), []
    with ranks("cpu", 60, config.strategy) as here:
        spoil(task, here, **(faults or {}))
        loop.train(task, config, here, folder, said.append)
    return said


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every run of TWO_RANKS, and some of one rank, in one folder."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "jobs.json").write_text(json.dumps(TWO_RANKS))
    alone(folder / "one_half_ddp", steps=10)
    shutil.copytree(folder / "one_half_ddp", folder / "one_half_fsdp")
    workers = two_ranks(folder / "jobs.json", folder)
    alone(folder / "one")
    alone(folder / "one_v2", independent=True)
    alone(folder / "one_accumulation", accumulation=4)
    alone(folder / "one_fsdp", strategy="fsdp", steps=3)
    alone(folder / "one_bad_row", faults={"bad_row": BAD_ROW}, steps=4)
    assert_done(workers, folder)
    return folder


def two_ranks(jobs: Path, logs: Path) -> list[subprocess.Popen]:
    """What rank R says goes to `logs`/rank_R.log."""
    port = free_port()
    with open(logs / "rank_0.log", "w") as first, open(logs / "rank_1.log", "w") as second:
        return [start(jobs, r, port, stdout=log, stderr=subprocess.STDOUT) for r, log in enumerate((first, second))]


def assert_done(workers: list[subprocess.Popen], logs: Path) -> None:
    try:
        for rank, worker in enumerate(workers):
            assert worker.wait(timeout=600) == 0, (logs / f"rank_{rank}.log").read_text()
    finally:
        [worker.kill() for worker in workers]


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
    steps = [row["step"] for row in rows if row["kind"] == kind]
    assert steps == sorted(set(steps)), "every step once, in order"
    return {row["step"]: row[name] for row in rows if row["kind"] == kind and name in row}


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
def test_a_run_of_two_ranks_goes_on_with_one(runs, tmp_path, half, strategy):
    shutil.copytree(runs / half, tmp_path / half)
    shutil.rmtree(tmp_path / half / "checkpoints" / "step_00000020", ignore_errors=True)
    said = alone(tmp_path / half, strategy=strategy)
    assert "step_00000010 at step 10" in said[0]
    assert losses(tmp_path / half) == pytest.approx(losses(runs / "one"), rel=1e-5)


@pytest.mark.parametrize("name", ["one_half_ddp", "one_half_fsdp"])
def test_a_run_of_one_rank_goes_on_with_two(runs, name):
    assert f"going on from {runs / name}/checkpoints/step_00000010 at step 10" in (runs / "rank_0.log").read_text()
    expected = losses(runs / "one")
    assert list(losses(runs / name)) == list(expected)
    assert losses(runs / name) == pytest.approx(expected, rel=1e-5)
    assert losses(runs / name, "validation") == pytest.approx(losses(runs / "one", "validation"), rel=1e-5)


def test_only_the_first_of_two_nodes_speaks(runs):
    """Both ranks are LOCAL_RANK 0."""
    assert "going on from" in (runs / "rank_0.log").read_text()
    assert "going on from" not in (runs / "rank_1.log").read_text()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("fault", "reason"), [("bad_row", f"not finite in the data: {BAD_ROW}"), ("bad_loss", "all data are finite")]
)
def test_what_is_not_finite_on_one_rank_is_skipped_by_both(runs, strategy, fault, reason):
    folder, said = runs / f"{strategy}_{fault}", (runs / "rank_0.log").read_text().splitlines()
    line = f"step {BAD_STEP}: loss or gradient not finite, skipped (1 in a row); {reason}"
    assert said.count(line) == 2, "once with each strategy"
    assert losses(folder, name="skipped") == {0: 0, 1: 0, 2: 1, 3: 1}
    expected = losses(runs / "one_bad_row")
    assert list(expected) == [0, 1, 3]
    assert losses(folder) == pytest.approx(expected, rel=1e-5)
    first, second = (load_file(folder / f"rank_{rank}.safetensors") for rank in range(2))
    one = load_file(runs / "one_bad_row" / "checkpoints" / "step_00000004" / "small.safetensors")
    for name, x in one.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], x, rtol=1e-3, atol=1e-5)


def test_a_full_disk_of_one_rank_is_the_error_of_both(runs):
    """After it the same two processes did the runs that follow: no rank waits in another's place."""
    folder = runs / "ddp_full_disk"
    first, second = ((folder / f"rank_{rank}.txt").read_text() for rank in range(2))
    assert "step_00000002: cannot be written (" in first
    assert "No space left on device" in first
    assert "step_00000002: cannot be written (another rank failed)" in second
    assert list((folder / "checkpoints").iterdir()) == []


@pytest.fixture
def lost(tmp_path):
    """The jobs of one run whose rank 1 gets a signal at step 13, and what rank 0 said at its end, `within` seconds."""

    def go(name: str, timeout: float, within: float) -> tuple[Path, str]:
        jobs, port = tmp_path / "jobs.json", free_port()
        jobs.write_text(json.dumps([["run", False, {}]]))
        first = start(jobs, 0, port, timeout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        second = start(jobs, 1, port, timeout, f"{name} 13", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 180
            while os.waitid(os.P_PID, second.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                assert time.monotonic() < end
                time.sleep(0.1)
            _, errors = first.communicate(timeout=within)
        finally:
            first.kill(), second.kill()
        assert first.returncode != 0
        return jobs, errors

    return go


def test_a_rank_that_dies_stops_the_others_and_the_same_command_goes_on(runs, lost):
    jobs, errors = lost("SIGKILL", timeout=600, within=60)
    assert "rank 0 of 2 stops: another rank died" in errors
    assert "run the same command again" in errors
    assert list(losses(jobs.parent / "run")) == list(range(13))
    assert_done(two_ranks(jobs, jobs.parent), jobs.parent)
    assert f"{jobs.parent}/run/checkpoints/step_00000010 at step 10" in (jobs.parent / "rank_0.log").read_text()
    assert losses(jobs.parent / "run") == losses(runs / "ddp")
    a, b = (load_file(path / "weights" / "small.safetensors") for path in (jobs.parent / "run", runs / "ddp"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_rank_that_hangs_stops_the_others_after_the_timeout(lost):
    _, errors = lost("SIGSTOP", timeout=30, within=120)  # so long do ranks wait for each other's start, too
    assert "rank 0 of 2 stops: another rank died or did not answer within 30 s" in errors
    assert "run the same command again" in errors


def test_a_signal_to_one_rank_stops_all_with_a_checkpoint(tmp_path):
    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps([["run", False, {"steps": 100_000, "checkpoint_every": 0}]]))
    workers = two_ranks(jobs, tmp_path)
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
