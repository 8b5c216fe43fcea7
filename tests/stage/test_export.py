"""The files the Stage writes, read back by readers that know nothing of it."""

import csv
import json

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from mmaudio.data.manifest import read_manifest
from mmaudio.evaluation.datasets import read_dataset
from mmaudio.media import encode
from mmaudio.stage import STAGE_VERSION, make_scene, render_clip
from mmaudio.stage.__main__ import main
from mmaudio.stage.export import AAC_RATES
from mmaudio.stage.preview import GAP, MOST_EVENTS

SMALL = ["--size", "32", "--duration", "2", "--sample-rate", "16000"]
FOLDER = ["--fps", "8", "--workers", "1", *SMALL]


def decode(path):
    with av.open(str(path)) as container:
        video = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        audio = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return np.stack(video), audio


def files(folder):
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- preview


def test_preview_writes_film_and_sheet(tmp_path, capsys):
    out = tmp_path / "clip.mp4"
    assert main(["preview", "--seed", "7", "--family", "drop", "--out", str(out), *SMALL]) == 0
    clip = render_clip(7, duration=2, size=32, family="drop")
    video, audio = decode(out)
    assert video.shape == clip.video.shape
    assert np.abs(video.astype(float) - clip.video).mean() < 8
    length = len(clip.audio)
    lags = {lag: audio[400 + lag : length - 400 + lag] @ clip.audio[400 : length - 400] for lag in range(-400, 401, 4)}
    assert abs(max(lags, key=lags.get)) <= 8  # picture and sound keep their common clock
    rows = 1 + min(len(clip.events), MOST_EVENTS)
    assert Image.open(out.with_suffix(".png")).height == rows * (32 + 2 * GAP)
    assert clip.caption in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "clip.png"]


def test_preview_of_silence_and_of_what_lasts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quiet = next(seed for seed in range(300) if not make_scene(seed, 2.0).acts)
    assert main(["preview", "--seed", str(quiet), "--silent", *SMALL]) == 0
    assert main(["preview", "--family", "rain", *SMALL]) == 0
    assert set(files(tmp_path)) == {f"output/stage_{n}.{s}" for n in (quiet, "rain_0") for s in ("mp4", "png")}


def test_preview_overwrites_nothing_unasked(tmp_path, capsys):
    order = ["preview", "--out", str(tmp_path / "a.mp4"), "--fps", "5", *SMALL]
    assert main(order) == 0
    assert main(order) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*order, "--overwrite"]) == 0


# ---- export


def test_the_rates_of_video_sound_are_those_of_the_library():
    assert AAC_RATES == encode.AAC_RATES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four clips of test, by two processes."""
    folder = tmp_path_factory.mktemp("set") / "test"
    order = ["export", "--count", "4", "--stems", "--out", str(folder), *FOLDER]
    order[order.index("--workers") + 1] = "2"
    assert main(order) == 0
    return folder


@pytest.fixture(scope="module")
def clips():
    return [render_clip(2_000_000 + i, duration=2, size=32, fps=8) for i in range(4)]


def truths(folder):
    return [json.loads(line) for line in (folder / "ground_truth.jsonl").read_text().splitlines()]


def test_the_manifest_lists_the_videos(folder, clips):
    rows = read_manifest(folder / "manifest.tsv")
    assert [row.id for row in rows] == [f"test_{2_000_000 + i}" for i in range(4)]
    for row, clip in zip(rows, clips, strict=True):
        video, _ = decode(row.path)
        assert video.shape == clip.video.shape
        assert np.abs(video.astype(float) - clip.video).mean() < 10
        assert row.caption == clip.caption


def test_captions_are_there_at_all_levels(folder, clips):
    with open(folder / "captions.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row, clip in zip(rows, clips, strict=True):
        levels = clip.captions
        assert list(row.values())[1:] == [levels.tag, levels.sentence, levels.detail, clip.negative]


def test_events_are_those_of_the_scene(folder, clips):
    lasting = 0
    for truth, clip in zip(truths(folder), clips, strict=True):
        lines = [line.split() for line in (folder / "events" / f"{truth['id']}_times.txt").read_text().splitlines()]
        impacts = [event for event in clip.events if event.seconds == 0]
        lasting += len(clip.events) - len(impacts)
        assert [float(line[0]) for line in lines] == pytest.approx([event.time for event in impacts], abs=1e-5)
        assert [line[1:] for line in lines] == [[str(event.material), event.kind, "None"] for event in impacts]
        assert truth["events"] == [vars(event) for event in clip.events]
    assert lasting


def test_the_events_are_read_as_greatest_hits(folder, clips):
    read = read_dataset("greatest_hits", folder, duration=2.0, count=None)
    assert [clip.video for clip in read] == [folder / truth["path"] for truth in truths(folder)]
    for found, clip in zip(read, clips, strict=True):
        assert found.times == pytest.approx([event.time for event in clip.events if event.seconds == 0], abs=1e-5)


def test_ground_truth_says_what_is_known(folder, clips):
    for truth, clip in zip(truths(folder), clips, strict=True):
        assert (truth["seed"], truth["stage_version"], truth["family"]) == (clip.seed, STAGE_VERSION, clip.family)
        assert truth["kinds"] == list(clip.kinds)
        assert truth["materials"] == list(clip.materials)
        assert {name for label in truth["sound_classes"] for name in label.split()} == {*clip.kinds, *clip.materials}
        assert truth["peak"] == pytest.approx(np.abs(clip.audio).max(), abs=1e-5)
        assert 0 < truth["rms"] < truth["peak"]


def test_stems_add_up(folder, clips):
    for truth, clip in zip(truths(folder), clips, strict=True):
        assert list(truth["stems"]) == list(clip.stems)
        stems = [soundfile.read(folder / path)[0] for path in truth["stems"].values()]
        assert np.abs(sum(stems) - clip.audio).max() < 1e-4


def test_the_table_of_vggsound(folder, clips):
    with open(folder / "vggsound.csv", newline="") as file:
        rows = list(csv.reader(file))
    kinds = [", ".join(clip.kinds) for clip in clips]
    assert rows == [[f"test_{2_000_000 + i}", "0", kinds[i] or "silence", "test"] for i in range(4)]


def test_an_export_goes_on_where_it_was(tmp_path):
    folder = tmp_path / "set"
    assert main(["export", "--count", "2", "--out", str(folder), *FOLDER]) == 0
    before = {name: path.read_bytes() for name, path in files(folder).items()}
    kept, lost = folder / "video" / "test_2000000.mp4", folder / "video" / "test_2000001.mp4"
    written = kept.stat().st_mtime_ns
    lost.unlink()
    (folder / "video" / ".test_2000001.part.mp4").write_bytes(b"killed while it was written")
    assert main(["export", "--count", "2", "--out", str(folder), *FOLDER]) == 0
    assert {name: path.read_bytes() for name, path in files(folder).items()} == before
    assert kept.stat().st_mtime_ns == written
    assert main(["export", "--count", "1", "--start", "2", "--out", str(folder), *FOLDER]) == 0
    assert len(read_manifest(folder / "manifest.tsv")) == 3


def test_sound_without_pictures(tmp_path):
    folder = tmp_path / "sounds"
    order = ["export", "--audio-only", "--count", "2", "--out", str(folder), "--sample-rate", "16000", "--workers", "1"]
    assert main(order) == 0
    rows = read_manifest(folder / "manifest.tsv")
    assert [row.id for row in rows] == ["train_audio_4000000", "train_audio_4000001"]
    for row in rows:
        audio, rate = soundfile.read(row.path)
        assert (len(audio), rate) == (160_000, 16000)  # extraction needs more than 8.1 s
    assert ",train\n" in (folder / "vggsound.csv").read_text()
    assert not (folder / "video").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--size", "48"], "holds clips of size 32, not 48: choose another folder"),
        (["--stems"], "holds clips of stems False, not True"),
        (["--family", "drop"], "holds clips of family None, not drop"),
        (["--split", "val"], "holds clips of split test, not val"),
    ],
    ids=lambda value: "",
)
def test_clips_of_another_kind_are_refused(change, message, tmp_path, capsys):
    order = ["export", "--count", "1", "--out", str(tmp_path / "set"), *FOLDER]
    assert main(order) == 0
    before = files(tmp_path)
    assert main([*order, *change]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert files(tmp_path) == before


def test_another_version_and_other_files_are_refused(tmp_path, capsys, monkeypatch):
    order = ["export", "--count", "1", "--out", str(tmp_path / "set"), *FOLDER]
    assert main(order) == 0
    monkeypatch.setattr("mmaudio.stage.export.STAGE_VERSION", STAGE_VERSION + 1)
    assert main(order) == 2
    assert f"stage_version {STAGE_VERSION}, not {STAGE_VERSION + 1}" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("not clips")
    assert main(["export", "--count", "1", "--out", str(tmp_path / "mine"), *FOLDER]) == 2
    assert "holds other files" in capsys.readouterr().err


@pytest.mark.parametrize(
    "order",
    [
        ["export", "--split", "dev", "--count", "1", "--out", "unused"],
        ["export", "--count", "0", "--out", "unused"],
        ["export", "--count", "1", "--workers", "0", "--out", "unused"],
        ["export", "--count", "1", "--out", "unused", "--size", "0"],
        ["export", "--count", "1", "--out", "unused", "--family", "circus"],
        ["export", "--count", "1", "--out", "unused", "--sample-rate", "11111"],
        ["preview", "--out", "unused.mp4", "--size", "16", "--duration", "1", "--sample-rate", "192000"],
        ["preview", "--out", "unused.mp4", "--duration", "nan"],
        ["preview", "--out", "unused.avi"],
        ["preview", "--out", "unused.mp4", "--seed", "-1"],
        ["preview", "--out", "unused.mp4", "--family", "rain", "--material", "wood"],
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(order, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(order) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())
