"""The two commands run, on a few clips: training the judge, and the table."""

import json
from collections import Counter
from functools import partial

import pytest
import torch
from scripts_loading import load_script

from mmaudio.evaluation.judge import Judge, load_judge
from mmaudio.stage import HELD_OUT, MATERIALS
from mmaudio.weights import WeightError, read_metadata


def test_the_judge_trains_resumes_and_reports(tmp_path, capsys, monkeypatch):
    train_judge, out = load_script("train_judge"), tmp_path / "judge.safetensors"
    arguments = ["--work", str(tmp_path), "--test_clips", "3", "--out", str(out)]
    train_judge.main([*arguments, "--clips", "4", "--steps", "1"])
    rendered = []
    render_clip = train_judge.render_clip
    monkeypatch.setattr(
        train_judge, "render_clip", lambda seed, **options: rendered.append(seed) or render_clip(seed, **options)
    )
    train_judge.main([*arguments, "--clips", "5", "--steps", "2"])
    assert rendered == [train_judge.clip_plan(5)[4][0]]  # only what was not there
    assert torch.load(tmp_path / "judge.pt", weights_only=True)["step"] == 2
    assert read_metadata(out)["steps"] == "2"
    load_judge(out)
    assert "material accuracy, one source" in capsys.readouterr().out


def test_the_plan_of_the_training_clips(tmp_path):
    train_judge = load_script("train_judge")
    plan = train_judge.clip_plan(330)
    assert plan[:100] == train_judge.clip_plan(100)
    assert len({seed for seed, _ in plan}) == 330
    assert Counter(material for _, material in plan) == {None: 220} | dict.fromkeys((*MATERIALS, *HELD_OUT), 10)
    assert sum(seed >= 4_000_000 for seed, _ in plan) == pytest.approx(220 / 4, abs=1)
    train_judge.rendered(tmp_path, plan[:1])
    with pytest.raises(SystemExit, match="holds other clips than are wanted"):
        train_judge.rendered(tmp_path, plan[1:2])


def test_the_table_is_printed_and_written(tmp_path, capsys, monkeypatch):
    evaluate_stage = load_script("evaluate_stage")
    arguments = ["--count", "2", "--duration", "2", "--rows", "truth", "--work", str(tmp_path)]
    monkeypatch.setattr(evaluate_stage, "load_judge", lambda: Judge().eval())
    monkeypatch.setattr(evaluate_stage, "evaluate", partial(evaluate_stage.evaluate, resamples=5))
    assert evaluate_stage.main([*arguments, "--json", str(tmp_path / "new" / "figures.json")]) == 0
    found = json.loads((tmp_path / "new" / "figures.json").read_text())
    assert (found["variant"], found["split"], found["clips"], found["duration"]) == ("tiny_16k", "test", 2, 2.0)
    assert found["rows"]["ground truth"]["KL"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["rows"]["ground truth"]["IS"]["value"] is None
    printed = capsys.readouterr().out
    assert "ground truth" in printed
    assert "FD is biased upwards: 2 clips are fewer" in printed


def test_what_cannot_be_evaluated_is_one_line(capsys, monkeypatch):
    evaluate_stage = load_script("evaluate_stage")

    def refuse():
        raise WeightError("old.safetensors: judges Stage version 1, this is version 2; run scripts/train_judge.py")

    monkeypatch.setattr(evaluate_stage, "load_judge", refuse)
    assert evaluate_stage.main(["--count", "2"]) == 1
    assert capsys.readouterr().err.startswith("error: old.safetensors: judges Stage version 1")
