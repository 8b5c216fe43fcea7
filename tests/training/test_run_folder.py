"""One training writes a run folder, and none goes on when nobody watches it any more."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mediatasks import task_config, write_sounds

from mmaudio.training import command
from mmaudio.training.distributed import ranks

HERE = Path(__file__).parent


@pytest.fixture
def holder(tmp_path):
    """Another process that writes `tmp_path / run`."""
    (tmp_path / "run").mkdir()
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    words = [sys.executable, "-c", code, str(tmp_path / "run" / command.LOCK)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_a_second_training_waits_and_then_says_so(tmp_path, monkeypatch, capsys, holder):
    monkeypatch.setattr(command, "PATIENCE", 0.3)
    config = task_config("vae", write_sounds(tmp_path), exp_id="run", output=str(tmp_path))
    assert command.run(config) == command.USAGE_ERROR
    said = capsys.readouterr().err
    assert "waiting for another training" in said
    assert said.splitlines()[-1].startswith("error: ")
    assert "another training writes it" in said.splitlines()[-1]
    assert [path.name for path in (tmp_path / "run").iterdir()] == [command.LOCK]


def test_a_second_training_begins_when_the_first_has_ended(tmp_path, holder):
    said = []
    with ranks("cpu", 60) as here:
        threading.Timer(0.5, holder.kill).start()
        with command.sole_writer(tmp_path / "run", here, 60, said.append):
            assert holder.wait(timeout=60) < 0
    assert len(said) == 1


def test_ranks_save_and_end_when_torchrun_is_killed(tmp_path):
    run = tmp_path / "run"
    (tmp_path / "jobs.json").write_text(json.dumps([("run", False, {"steps": 100_000, "checkpoint_every": 0})]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    process = subprocess.Popen(
        [*torchrun, str(HERE / "rank_worker.py"), str(tmp_path / "jobs.json"), "60"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end = time.monotonic() + 240
    while not (run / "stats.jsonl").exists() or not (run / "stats.jsonl").read_text():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.2)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)  # its ranks are of other process groups, and live on
    try:
        process.communicate(timeout=120)  # until the last of them has closed the pipe
    finally:
        for pid in map(int, workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    rows = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    done = 1 + max(row["step"] for row in rows if row["kind"] == "train")
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step_{done:08}"]
