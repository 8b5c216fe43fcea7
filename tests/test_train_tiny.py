"""The training script of the bundled model runs, is stopped, goes on and packs; two steps of everything, few clips."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from scripts_loading import load_script

import mmaudio
from mmaudio.data.clip_cache import ClipCache
from mmaudio.evaluation.model_card import model_card, table
from mmaudio.training.loop import TrainingState


@pytest.fixture(scope="module")
def script():
    module = load_script("train_tiny")
    batches = dict.fromkeys(("vae", "heard", "clip", "sync", "pieces", "flow"), 2)
    batches |= dict.fromkeys(("vocoder", "guided", "few"), 1)
    module.BUDGETS["cpu"] = module.Budget(
        clips={"train": 2, "val": 1, "train_audio": 1, "struck": 2},
        plans={name: module.Plan(batch, 2, 1e-3) for name, batch in batches.items()},
        evaluated=2,
    )
    return module


def test_the_whole_command(script, tmp_path, monkeypatch, capsys):
    work, out = tmp_path / "work", tmp_path / "out"

    def run(stages: str) -> tuple[int, str]:
        code = script.main(
            ["--budget", "cpu", "--work", str(work), "--out", str(out), "--workers", "1", "--stages", stages]
        )
        return code, capsys.readouterr().err

    # data: killed in the last line of the last clip, the same clip is made again
    assert run("data")[0] == 0
    lines = work / "data" / "train" / "clips.jsonl"
    whole, pictures = lines.read_text(), ClipCache(work / "data" / "train").video.copy()
    lines.write_text(whole[:-20])
    assert run("data")[0] == 0
    assert lines.read_text() == whole
    assert (ClipCache(work / "data" / "train").video == pictures).all()

    struck, heard = (ClipCache(work / "data" / name).lines for name in ("struck", "train_audio"))
    assert len(struck) == 2
    assert all({e["kind"] for e in line["events"]} <= script.STRUCK and line["events"] for line in struck)
    assert not {line["id"] for line in struck} & {line["id"] for line in heard}

    # a network: stopped after its first step, it goes on there
    step = TrainingState.step

    def step_and_stop(self, *args):
        os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)

    monkeypatch.setattr(TrainingState, "step", step_and_stop)
    code, said = run("vae,vocoder")
    assert code == script.STOPPED
    assert "== vocoder" not in said
    monkeypatch.undo()
    assert [path.name for path in (work / "runs/vae/checkpoints").iterdir()] == ["step_00000001"]
    code, said = run("vae")
    assert code == 0
    assert "at step 1" in said
    assert "vae: is done" in run("vae")[1]

    code, said = run("vocoder,clip,sync,features,flow")
    assert code == 2
    assert "is not there; add the stage pieces" in said
    code, said = run("pieces,flow,ema,guided,few,pack")
    assert code == 0
    assert f"rank {script.FEW_RANK}: " in said
    assert "few: is done" in run("few")[1]
    assert json.loads((work / "vocoders.json").read_text())["best"] == "Griffin-Lim"
    chosen = json.loads((work / "ema.json").read_text())
    assert str(chosen["chosen"]) == min(chosen["losses"], key=chosen["losses"].get)
    assert "ema: is done" in run("ema")[1]
    monkeypatch.setitem(script.BUDGETS["cpu"].plans, "flow", script.Plan(2, 1, 1e-3))
    code, said = run("flow")
    assert code == 2, "a finished run of another plan is not taken for this one, nor waited for"
    assert f"is not of 1 steps; remove {work}/runs/flow" in said
    monkeypatch.undo()

    pipe = mmaudio.load("tiny_16k", device="cpu", weights_dir=out)
    for part in ("network", "codec", "clip_text", "clip_vision", "sync"):
        pipe.part(part)  # strictly, or it raises
    assert pipe.few_step.guidance == 4.5
    assert pipe.few_step.problem == ""
    pipe.part("few_step")
    files = sorted(out.glob("*.safetensors"))
    assert len(files) == 5
    assert all(x.dtype == torch.float16 for path in files for x in load_file(path).values() if x.is_floating_point())
    card = (out / "MODEL_CARD.md").read_text()
    assert "| flow | 2 | 2 | 0.001 |" in card
    assert "in steps x clips: 2 x 2 pieces, then 2 x 2." in card
    assert "| Griffin-Lim 64 | " in card
    assert f"Few steps are made by changes of rank {script.FEW_RANK} to its weights" in card

    # another round: the encoders stay, the network goes on from the packed one
    again = tmp_path / "again"
    shutil.copytree(work / "data", again / "data")
    stages = "data,vae,sync,features,pieces,flow,ema"
    words = ["--work", str(again), "--go-on", str(out), "--workers", "1", "--stages", stages]
    assert script.main(["--budget", "cpu", *words]) == 0
    assert "== vae" not in capsys.readouterr().err
    assert not (again / "runs" / "vae").exists()
    for name in ("vae", "clip", "sync"):
        file = f"tiny_16k_{name}.safetensors"
        assert (again / "weights" / file).read_bytes() == (out / file).read_bytes()
    card = model_card(again, [], "cpu", 0, **dataclasses.asdict(script.BUDGETS["cpu"]))
    assert "| vae |" not in card
    assert "in steps x clips: 2 x 2 pieces, then 2 x 2, then 2 x 2 pieces, then 2 x 2." in card
    config = (again / "runs" / "pieces" / "config.yaml").read_text()
    assert f"weights: {out}/tiny_16k_network.safetensors" in config


def test_figures_of_the_evaluation_are_a_table(script):
    rows = {"truth": {"kind": {"value": 0.5, "low": 0.25, "high": 1.0}, "|lag| ms": {"value": None, "low": None}}}
    assert table(rows)[0] == "| | kind | lag ms |"
    assert table(rows)[2] == "| truth | 0.500 (0.250 to 1.000) | - |"


def test_few_steps_are_evaluated_beside_plain_ones(script, tmp_path, monkeypatch):
    job = script.Job("cpu", script.BUDGETS["cpu"], tmp_path, tmp_path / "out", 1)
    job.weights.mkdir()
    network, adapter = job.weights / "tiny_16k_network.safetensors", job.weights / script.TINY.few_step.name
    save_file({"x": torch.zeros(1)}, network)
    asked = []

    def run(words):
        given = dict(zip(words[2::2], words[3::2], strict=True))
        asked.append((given["--variant"], given.get("--num_steps"), given["--split"]))
        row = {given["--variant"]: {"kind": {"value": len(asked) / 100, "low": None, "high": None}}}
        Path(given["--json"]).write_text(json.dumps({"rows": row}))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(script.subprocess, "run", run)
    script.evaluate(job)
    assert asked == [("tiny_16k", None, "test"), ("tiny_16k", None, "test_hard")]
    script.evaluate(job)
    assert len(asked) == 2, "it was done"

    adapter.write_bytes(b"")
    os.utime(adapter, (0, 0))  # as if it had been there before
    script.evaluate(job)
    few = [("tiny_16k", "4"), ("tiny_16k", "1"), (str(network), "4")]
    assert asked[2:] == [(*one, split) for split in ("test", "test_hard") for one in few]
    card = model_card(tmp_path, [], "cpu", 0, **dataclasses.asdict(script.BUDGETS["cpu"]))
    for line in (
        "| tiny_16k | 0.010 (- to -) |",
        "| tiny_16k, 1 step | 0.040 (",
        "| tiny_16k, 4 plain steps | 0.050 (",
    ):
        assert line in card


def test_what_cannot_be_done_is_one_line(script, tmp_path, capsys):
    words = ["--budget", "cpu", "--work", str(tmp_path), "--stages"]
    assert script.main([*words, "pack"]) == 2
    assert "tiny_16k_network.safetensors: is not there; run the stages before" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        script.main([*words, "vae"])
    assert "data/train: cannot read" in capsys.readouterr().err
    assert script.main([*words, "flow", "--go-on", str(tmp_path)]) == 2
    assert "tiny_16k_network.safetensors: is not there; --go-on needs a folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main([*words, "trian"])
    assert "unknown stage 'trian'" in capsys.readouterr().err
