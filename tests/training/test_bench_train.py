"""scripts/bench_train.py: its figures, and that the plain loop it compares with computes the same."""

import json
import tempfile
from types import SimpleNamespace

import pytest
import torch
from scripts_loading import load_script
from small import small_task

from mmaudio.data.sampler import Item
from mmaudio.training.task import Draw, Nets

ROWS = 8


@pytest.fixture
def script(monkeypatch, tmp_path):
    module = load_script("bench_train")
    monkeypatch.setattr(module, "ROWS", ROWS)
    monkeypatch.setattr(module, "WARM_UP", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return module


def test_the_report(script, tmp_path, capsys):
    words = ["--variant", "tiny_16k", "--batch_size", "2", "--steps", "2", "--num_workers", "0", "--device", "cpu"]
    assert script.main([*words, "--compare", "--json", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())

    seconds = report["seconds_per_step"]
    assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
    assert report["samples_per_second"] == pytest.approx(2 / seconds["median"])
    assert report["flops_per_sample"] == pytest.approx(11.9e9, rel=0.01)
    assert report["flops_per_second"] == pytest.approx(report["flops_per_sample"] * report["samples_per_second"])
    assert report["mfu"] is None, "the peak of a CPU is not known"
    assert 0 < report["data_wait"] < 1
    assert 0.1 < report["peak_memory_gib"] < 20
    values = 2 * 250 * 20 + 64 * 64 + 192 * 128 + 77 * 64
    assert report["bytes_per_sample"] == {"read": 2 * values, "reference": 4 * values}

    comparison = report["compare"]
    assert len(comparison["losses"]["real"]) == 2
    assert comparison["losses"]["real"] == pytest.approx(comparison["losses"]["plain"], rel=1e-5)
    medians = {name: times["median"] for name, times in comparison["seconds_per_step"].items()}
    assert comparison["ratio"] == pytest.approx(medians["plain"] / medians["real"])

    out = capsys.readouterr().out
    assert "unknown peak; 11.9 GFLOP per sample" in out
    assert "0.50 of the reference's float32 layout" in out
    assert not list(tmp_path.glob("bench_train_*")), "features are left behind"


@pytest.mark.parametrize("independent", [False, True])
def test_the_plain_loss_is_the_loss(script, independent):
    """With rows that lack video or text, and null conditions drawn for others."""
    task = small_task(independent)
    task.network.requires_grad_(True)
    with torch.no_grad():
        for parameter in (task.network.empty_clip_feat, task.network.empty_sync_feat):
            parameter.normal_()
    batch = task.train.__getitems__([Item(row, 0) for row in range(16)])
    task.loss.drop = 0.4

    def result(loss):
        task.network.zero_grad()
        value = loss(Draw(0, 3, 16, slice(0, 16), "cpu"))
        value.backward()
        return value.detach(), task.network.empty_clip_feat.grad, task.network.empty_sync_feat.grad

    expected = result(lambda draw: task.loss(Nets(task.network), batch, draw).total)
    got = result(lambda draw: script.plain_loss(task.network, task.network, task.loss, batch, draw))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_loops_that_compute_different_things_are_not_compared(script):
    def loop(value):
        return SimpleNamespace(here=SimpleNamespace(device=torch.device("cpu")), step=lambda: None, loss=lambda: value)

    script.compare(loop(1.0), loop(1.00001), steps=2, bf16=False)
    with pytest.raises(ValueError, match=r"different things: losses 1\.000000 and 1\.010000"):
        script.compare(loop(1.0), loop(1.01), steps=1, bf16=False)


def test_peaks(script, monkeypatch):
    for name, bf16, peak in (
        ("NVIDIA H200", True, 989e12),
        ("NVIDIA H100 80GB HBM3", False, 495e12),
        ("NVIDIA H100 PCIe", True, 756e12),
        ("NVIDIA A100-SXM4-80GB", True, 312e12),
        ("NVIDIA GeForce GTX 1080", True, None),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert script.peak_flops(torch.device("cuda"), bf16) == peak
    assert script.peak_flops(torch.device("cpu"), True) is None


@pytest.mark.parametrize("words", [["--steps", "0"], ["--batch_size", "-1"]])
def test_bad_arguments(script, capsys, words):
    with pytest.raises(SystemExit):
        script.main(words)
    assert "must be at least 1" in capsys.readouterr().err
