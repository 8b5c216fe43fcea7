"""The data check from end to end: the command on real files, the planted faults, the bench."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hygienefiles import RATE, noise, pictures
from scripts_loading import load_script

from mmaudio.evaluation.hygiene import reading

pytest.importorskip("faiss")


@pytest.fixture
def clips(tmp_path):
    """Three clips, one of them twice, a missing and a broken file; and a test set with the sound of one of them."""
    folder, other, names = tmp_path / "clips", tmp_path / "test", ("one", "two", "three")
    folder.mkdir()
    other.mkdir()
    for seed, name in enumerate(names):
        frames = np.repeat(pictures(3, seed, fps=25, size=64)[..., None], 3, axis=3).astype(np.uint8)
        load_script("check_hygiene").write_clip(folder / f"{name}.mp4", frames, noise(3, seed))
    shutil.copy(folder / "three.mp4", folder / "again.mp4")
    (folder / "broken.mp4").write_bytes((folder / "two.mp4").read_bytes()[:9000])
    rows = [f"{name}\t{name}.mp4\tnote\n" for name in (*names, "again", "broken", "missing")]
    (folder / "train.tsv").write_text("id\tpath\tremark\n" + "".join(rows))
    soundfile.write(other / "other_name.wav", 0.2 * noise(3, 0)[RATE // 2 :], RATE)
    return folder / "train.tsv", other


def table(path):
    header, *rows = [line.split("\t") for line in path.read_text().splitlines()]
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_the_command_finds_writes_and_goes_on(clips, tmp_path, capsys, monkeypatch):
    check_data, (train, test), out = load_script("check_data"), clips, tmp_path / "out"
    words = [f"train={train}", "--against", f"test={test}", "--output", str(out)]
    assert check_data.main(words) == 1
    found = {row["id"]: row for row in table(out / "findings.tsv")}
    assert {name: row["finding"] for name, row in found.items()} == {
        "again": "duplicate", "broken": "unreadable", "missing": "unreadable", "one": "overlap",
    }  # fmt: skip
    assert found["again"]["other_id"] == "three"
    assert (found["one"]["other_set"], found["one"]["other_id"]) == ("test", "other_name")
    clean = table(out / "train.clean.tsv")
    assert [(row["id"], row["remark"]) for row in clean] == [("two", "note"), ("three", "note")]
    assert all(Path(row["path"]).exists() for row in clean)
    numbers = {(row["set"], row["within"]): row for row in json.loads((out / "overlap.json").read_text())}
    assert (numbers["train", "test"]["by_content"], numbers["train", "test"]["share"]) == (1, 1.0)
    assert numbers["train", "train"]["by_content"] == 1
    assert "| train | 1 (16.67 %): 0 / 1 | 1 (100.00 %): 0 / 1 |" in (out / "overlap.md").read_text()

    looked_at = []
    look = reading.look
    monkeypatch.setattr(reading, "look", lambda path, *rest: looked_at.append(path.name) or look(path, *rest))
    first = (out / "findings.tsv").read_text()
    assert check_data.main(words) == 1
    assert looked_at == ["broken.mp4"]  # what failed is tried again, and nothing else
    assert (out / "findings.tsv").read_text() == first

    clean_words = [str(out / "train.clean.tsv"), "--output", str(tmp_path / "second")]
    assert check_data.main([*clean_words, "--store", str(out / "fingerprints.sqlite"), "--judge"]) == 0
    assert looked_at == ["broken.mp4"]
    assert "found: nothing" in capsys.readouterr().out


def test_lists_of_ids_need_no_media(tmp_path, capsys):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("rqfQRErjfk8,30,rain,train\nabcdefghijk,0,wind,train\n")
    test.write_text("audiocap_id,youtube_id,start_time,caption\n7,rqfQRErjfk8,30,Rain falls\n")
    words = [str(train), "--against", str(test), "--ids", "youtube", "--output", str(tmp_path / "out")]
    assert load_script("check_data").main(words) == 1
    assert (tmp_path / "out" / "train.clean.csv").read_text() == "abcdefghijk,0,wind,train\n"
    assert "| train | 0 (0.00 %): 0 / 0 | 1 (100.00 %): 1 / 0 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.tsv"], "there is no such manifest"),
        (["a/clips.tsv", "b/clips.tsv"], "two sets are called clips"),
        (["clips.tsv", "--min_duration", "40"], "at least min_duration"),
    ],
)
def test_what_cannot_be_checked_is_one_line(words, message, tmp_path, capsys):
    assert load_script("check_data").main([*words, "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_planted_faults_are_found_without_a_false_alarm(tmp_path, capsys):
    words = ["--count", "30", "--each", "2", "--seconds", "3", "--work", str(tmp_path)]
    assert load_script("check_hygiene").main(words) == 0, capsys.readouterr().out


@pytest.mark.slow
def test_several_processes_find_the_same(clips, tmp_path):
    check_data, (train, _) = load_script("check_data"), clips
    for workers in ("1", "2"):
        assert check_data.main([str(train), "--workers", workers, "--output", str(tmp_path / workers)]) == 1
    assert (tmp_path / "1" / "findings.tsv").read_text() == (tmp_path / "2" / "findings.tsv").read_text()


def test_the_bench_finds_what_it_planted(tmp_path, capsys):
    out = tmp_path / "figures.json"
    assert load_script("bench_hygiene").main(["--clips", "300", "--share", "0.04", "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert (figures["planted"], figures["found"], figures["false_alarms"]) == (12, 12, 0)
