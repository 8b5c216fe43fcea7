"""The files the Stage writes, read back by a decoder that knows nothing of it."""

import av
import numpy as np
import pytest
from PIL import Image

from mmaudio.stage import make_scene, render_clip
from mmaudio.stage.__main__ import main

SMALL = ["--size", "32", "--duration", "2", "--sample-rate", "16000"]


def decode(path):
    with av.open(str(path)) as container:
        video = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        audio = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return np.stack(video), audio


def test_preview_writes_film_and_sheet(tmp_path, capsys):
    out = tmp_path / "clip.mp4"
    assert main(["preview", "--seed", "7", "--out", str(out), *SMALL]) == 0
    clip = render_clip(7, duration=2, size=32)
    video, audio = decode(out)
    assert video.shape == clip.video.shape
    assert np.abs(video.astype(float) - clip.video).mean() < 8
    length = len(clip.audio)
    lags = {lag: audio[400 + lag : length - 400 + lag] @ clip.audio[400 : length - 400] for lag in range(-400, 401, 4)}
    assert abs(max(lags, key=lags.get)) <= 8  # picture and sound keep their common clock
    assert Image.open(out.with_suffix(".png")).height == len(clip.events) * 36
    assert clip.caption in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "clip.png"]


def test_export_writes_a_folder(tmp_path):
    out = tmp_path / "set"
    assert main(["export", "--split", "val", "--count", "2", "--out", str(out), *SMALL]) == 0
    header, *rows = [line.split("\t") for line in (out / "captions.tsv").read_text().splitlines()]
    assert header == ["id", "path", "caption"]
    assert [row[0] for row in rows] == ["val_1000000", "val_1000001"]
    for (name, path, text), seed in zip(rows, (1_000_000, 1_000_001), strict=True):
        assert len(decode(out / path)[0]) == 50
        assert text == render_clip(seed, duration=2, video=False, audio=False).caption
        lines = [line.split() for line in (out / "events" / f"{name}_times.txt").read_text().splitlines()]
        events = make_scene(seed, 2.0).events
        assert [float(line[0]) for line in lines] == pytest.approx([event.time for event in events], abs=1e-5)
        assert [line[1:] for line in lines] == [[event.material, event.kind] for event in events]


def test_nothing_is_overwritten_unasked(tmp_path, capsys):
    order = ["export", "--count", "1", "--out", str(tmp_path), *SMALL]
    assert main(order) == 0
    assert main(order) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*order, "--overwrite"]) == 0


@pytest.mark.parametrize(
    "order",
    [
        ["export", "--split", "dev", "--count", "1", "--out", "unused"],
        ["export", "--count", "0", "--out", "unused"],
        ["export", "--count", "1", "--out", "unused", "--size", "0"],
        ["preview", "--out", "unused.mp4", "--duration", "nan"],
        ["preview", "--out", "unused.avi"],
        ["preview", "--out", "unused.mp4", "--seed", "-1"],
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(order, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(order) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())
