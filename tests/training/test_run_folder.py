"""One training writes a run folder, and none goes on when nobody watches it any more."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from mediatasks import task_config, write_sounds

from mmaudio.training import command
from mmaudio.training.distributed import ranks

HERE = Path(__file__).parent


def test_a_second_training_waits_and_then_says_so(tmp_path, monkeypatch):
    folder, said = tmp_path / "run", []
    monkeypatch.setattr(command, "PATIENCE", 0.2)
    with ranks("cpu", 60) as here:
        second = command.sole_writer(folder, here, said.append)
        refused = pytest.raises(ValueError, match=r"run: another training writes it; .* exp_id")
        with command.sole_writer(folder, here, said.append), refused as error:
            second.__enter__()
        assert "\n" not in str(error.value)
        assert len(said) == 1
        assert "waiting" in said[0]
        with command.sole_writer(folder, here, said.append):  # free again
            assert len(said) == 1


def test_train_py_holds_the_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "PATIENCE", 0.0)
    (tmp_path / "run").mkdir()
    config = task_config("vae", write_sounds(tmp_path), exp_id="run", output=str(tmp_path))
    with FileLock(tmp_path / "run" / ".lock"):
        assert command.run(config) == command.USAGE_ERROR
    assert "another training writes it" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_ranks_save_and_end_when_torchrun_is_killed(tmp_path):
    run = tmp_path / "run"
    (tmp_path / "jobs.json").write_text(json.dumps([("run", False, {"steps": 100_000, "checkpoint_every": 0})]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    process = subprocess.Popen(
        [*torchrun, str(HERE / "rank_worker.py"), str(tmp_path / "jobs.json")],
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
    process.send_signal(signal.SIGKILL)  # its ranks are of other process groups, and live on
    process.communicate(timeout=120)  # until the last of them has closed the pipe
    steps = [json.loads(line)["step"] for line in (run / "stats.jsonl").read_text().splitlines()]
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step_{steps[-1] + 1:08}"]
