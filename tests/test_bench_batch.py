"""The bench of batches makes every clip in batches of every size."""

import json
import sys

import pytest
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


@pytest.mark.parametrize("words", ["--sizes a", "--sizes 1,0", "--repeat 0"])
def test_what_makes_no_sense_is_refused(words, monkeypatch, capsys):
    load_script("bench_inference")
    script = load_script("bench_batch")
    monkeypatch.setattr(sys, "argv", ["bench_batch.py", *words.split()])
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert "are whole numbers from 1 on" in capsys.readouterr().err
