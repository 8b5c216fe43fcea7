"""The bench: what it counts and what it compares."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from mmaudio.model.network import MMAudio
from mmaudio.variants import VARIANTS


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """`bench(*words)` runs the script and gives its JSON."""
    path = Path(__file__).parents[1] / "scripts" / "bench_inference.py"
    module_spec = importlib.util.spec_from_file_location("bench_inference", path)
    script = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(script)

    def run(*words):
        monkeypatch.setattr(sys, "argv", [str(path), "--device", "cpu", *words, "--json", str(tmp_path / "out.json")])
        assert script.main() == 0
        return json.loads((tmp_path / "out.json").read_text())

    return run


def test_counting(bench, capsys):
    stages = bench("--variant", "tiny_16k", "--count")["stages"]
    with torch.device("meta"):
        network = MMAudio(VARIANTS["tiny_16k"].network)
    assert stages["solve"]["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert "GFLOP" in capsys.readouterr().out
    halved = bench("--variant", "tiny_16k", "--count", "--cfg_strength", "0")["stages"]
    assert halved["solve"]["flop"] == stages["solve"]["flop"] / 2


def test_the_comparison(bench):
    words = ("--variant", "tiny_16k", "--random_weights", "--check", "--num_steps", "1", "--repeat", "1")
    report = bench(*words)["check"]
    assert report["solve"]["latents, largest difference"] < 1e-3 * report["solve"]["latents, root mean square"]
    assert report["VAE"]["mel, mean difference"] == 0  # the same layers
