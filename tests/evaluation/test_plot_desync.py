"""The plot of DeSync against delay: sound is late by what is said, and the table and the picture say what was found."""

import numpy as np
import pytest
import torch
from scripts_loading import load_script

from mmaudio.evaluation.datasets import Clip


class Knowing:
    """Stands for Synchformer: reads from a sound, whose samples are their own numbers, by how much it is late."""

    def __init__(self, right: bool):
        self.right = right

    def video(self, path, duration):
        assert duration == pytest.approx(9.28)
        return {"features": np.arange(28)}

    def audio(self, samples, sample_rate, duration):
        assert samples.shape[1] >= duration * sample_rate
        return {"features": samples[0, 0].item() / sample_rate}

    def offsets(self, seen, heard):
        in_time = seen[0] * 0.32  # a segment begins every 0.32 s
        return np.array([heard - in_time, in_time - heard] if self.right else [0.4, 0.6])


def test_the_table_and_the_picture(tmp_path, capsys, monkeypatch):
    script = load_script("plot_desync")
    clips = [Clip(str(i), times=(1.0,) if i else None) for i in range(4)]
    monkeypatch.setattr(script, "read_dataset", lambda *_, **settings: clips[: settings["count"]])
    monkeypatch.setattr(script, "read_audio", lambda path, seconds: (torch.arange(148_480.0)[None], 16_000))
    monkeypatch.setattr(script, "backbone", lambda path, config: Knowing(path.name == "mine"))
    out = tmp_path / "new" / "desync.png"
    assert script.main(["--weights", "mine", "--count", "4", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("   ") == [
        "delay", "trained, 3 clips of seen impacts alone", "trained, all 4 clips", "untrained, all 4 clips"
    ]  # fmt: skip
    for delay, line in zip(script.DELAYS, lines[1:12], strict=True):
        assert line.startswith(f"{delay:.1f} s   {delay:.3f} ({delay:.3f} .. {delay:.3f})")
        assert line.rstrip().endswith("0.500 (0.500 .. 0.500)")
    assert "trained, all 4 clips: 1 s late against in time +1.000 s" in lines[13]
    assert out.read_bytes().startswith(b"\x89PNG")
    assert list(out.parent.iterdir()) == [out]


def test_what_cannot_be_plotted_is_one_line(tmp_path, capsys):
    script = load_script("plot_desync")
    for words, message in (
        (["--out", "a.pdf"], "must end in .png"),
        (["--out", "a.png", "--count", "1"], "at least 2"),
    ):
        with pytest.raises(SystemExit):
            script.main(["--weights", "mine", *words])
        assert message in capsys.readouterr().err
    missing = ["--weights", str(tmp_path / "none.safetensors"), "--out", str(tmp_path / "a.png")]
    assert script.main([*missing, "--count", "2", "--work", str(tmp_path)]) == 1
    assert "none.safetensors" in capsys.readouterr().err
