"""The bench of batches runs, and its batches make what single clips do."""

import json
import sys

from scripts_loading import load_script

import mmaudio


def test_every_size_makes_every_clip(monkeypatch, tmp_path, capsys):
    load_script("bench_inference")
    script = load_script("bench_batch")
    made = []
    generate = mmaudio.Pipeline.generate

    def spy(self, requests, **options):
        made.append([request.seed for request in requests])
        return generate(self, requests, **options)

    monkeypatch.setattr(mmaudio.Pipeline, "generate", spy)
    out = tmp_path / "out.json"
    words = "--sizes 1,2 --clips 3 --size 112 --duration 1 --num_steps 1 --repeat 1 --device cpu --json"
    monkeypatch.setattr(sys, "argv", ["bench_batch.py", *words.split(), str(out)])
    assert script.main() == 0
    assert made == 2 * [[0], [1], [2], [0, 1], [2]]
    rates = json.loads(out.read_text())["clips_per_minute"]
    assert rates.keys() == {"1", "2"}
    assert min(rates.values()) > 0
    assert "clips a minute" in capsys.readouterr().out
