"""The bench: what it counts and what it compares."""

import json
import sys

import pytest
import torch
from scripts_loading import load_script

from mmaudio.model.network import MMAudio
from mmaudio.variants import VARIANTS


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """`bench(*words)` runs the script and gives its JSON."""
    script = load_script("bench_inference")

    def run(*words, code=0):
        monkeypatch.setattr(
            sys, "argv", ["bench_inference.py", "--device", "cpu", *words, "--json", str(tmp_path / "out.json")]
        )
        assert script.main() == code
        return json.loads((tmp_path / "out.json").read_text())

    run.script = script
    return run


def test_counting(bench, capsys):
    stages = bench("--variant", "tiny_16k", "--count")["stages"]
    with torch.device("meta"):
        network = MMAudio(VARIANTS["tiny_16k"].network)
    assert stages["solve"]["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert "GFLOP" in capsys.readouterr().out
    halved = bench("--variant", "tiny_16k", "--count", "--cfg_strength", "0")["stages"]
    assert halved["solve"]["flop"] == stages["solve"]["flop"] / 2
    few = bench("--variant", "tiny_16k", "--count", "--num_steps", "4")["stages"]  # one pass each, by the sibling
    assert few["solve"]["flop"] == stages["solve"]["flop"] / 25 * 4 / 2


def test_the_comparison(bench):
    words = ("--variant", "tiny_16k", "--random_weights", "--check", "--num_steps", "1", "--repeat", "1")
    report = bench(*words)
    solve, vae = report["check"]["solve"], report["check"]["VAE"]
    assert solve["latents, largest difference"] < 1e-3 * solve["latents, root mean square"]
    assert solve["allowed"] == pytest.approx(1e-3 * solve["latents, root mean square"])
    assert vae["mel, mean difference"] < 1e-4


def test_too_far_apart_is_a_failure(bench, monkeypatch):
    monkeypatch.setattr(bench.script, "BOUNDS", {torch.float32: 1e-12})
    words = ("--variant", "tiny_16k", "--random_weights", "--check", "--num_steps", "1", "--repeat", "1")
    bench(*words, code=1)
