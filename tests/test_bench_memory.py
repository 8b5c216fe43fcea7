"""The count of memory: that it counts what is there, and no more."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scripts_loading import load_script

ROOT = Path(__file__).resolve().parents[1]


def test_what_is_held_is_what_tensors_hold():
    held = load_script("bench_memory").held
    x = torch.zeros(1000)

    def chain():
        y = x + 1  # 4000 bytes
        y = y * 2  # beside the first until it is replaced
        return y.view(10, 100)[2:] + 0  # 3200 more

    assert held(chain) == 8000
    assert held(lambda: [x + 1 for _ in range(3)]) == 12000
    assert held(lambda: x.view(10, 100).T) == 0
    assert held(lambda: x.add_(1)) == 0


def test_a_variant_has_its_weights(tmp_path):
    """In a process of its own: tables made without data would stay."""
    out = tmp_path / "memory.json"
    words = [ROOT / "scripts/bench_memory.py", "tiny_16k", "--dtype", "float32", "--json", out]
    said = subprocess.run([sys.executable, *map(str, words)], check=True, capture_output=True, text=True).stdout
    report = json.loads(out.read_text())["tiny_16k"]
    network = report["parts"]["flow network"]
    assert network["weights"] / 4 == pytest.approx(9.31e6, rel=0.02)
    assert network["in two passes"] < 0.7 * network["activations"]
    weights = sum(part["weights"] for part in report["parts"].values())
    assert report["low_memory"] < weights < report["all"]
    assert f"low_memory {report['low_memory'] / 2**20:.0f}" in said


def test_an_unknown_variant_is_refused(capsys, monkeypatch):
    script = load_script("bench_memory")
    monkeypatch.setattr(sys, "argv", ["bench_memory.py", "huge"])
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert "unknown variant 'huge': expected some of tiny_16k" in capsys.readouterr().err
