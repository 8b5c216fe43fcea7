"""The whole evaluation: what it measures and what it skips, what it keeps, and how bad input ends."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmaudio.cli import main
from mmaudio.console import UsageError
from mmaudio.evaluation import model_free
from mmaudio.evaluation.backbones import BACKBONES, Found, Unavailable
from mmaudio.evaluation.backbones.audioset import CLASSES
from mmaudio.evaluation.cache import CacheError
from mmaudio.evaluation.gathering import EvaluateConfig
from mmaudio.evaluation.onsets import detect_onsets
from mmaudio.evaluation.run import evaluate
from mmaudio.evaluation.scorecard import METRICS

CLIPS, RATE = 12, 16000
MEDIA = Path(__file__).parents[1] / "data" / "media"


class Counting:
    """Stands for PANNs: cheap features of a sound's level and rate, and a count of the clips it was shown."""

    name, modalities, licence = "panns", ("audio",), "none"

    def __init__(self, identity="counting-1", stop_after=None):
        self.identity, self.stop_after, self.seen = identity, stop_after, 0

    def audio(self, samples, sample_rate, duration):
        if self.seen == self.stop_after:
            raise KeyboardInterrupt
        self.seen += 1
        wave = samples.mean(0)[: int(sample_rate * duration)].numpy()
        if len(wave) < 1000:
            raise ValueError("has too few samples")
        logits = np.full(CLASSES, -3, np.float32)
        logits[:3] = 30 * wave.std(), wave.mean(), sample_rate / RATE
        return {"embedding": logits[:3].copy(), "logits": logits}


@pytest.fixture
def folders(tmp_path):
    """Generated and true sounds, of different length and rate, and what an evaluation of them is."""
    rng = np.random.default_rng(0)
    for i in range(CLIPS):
        for side, rate, scale in (("made", RATE, 0.2), ("true", 22050, 0.1)):
            path = tmp_path / side / (f"clip_{i:02d}.wav" if side == "made" else f"clip_{i:02d}.flac")
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, scale * rng.random() * rng.standard_normal((rate // 4, 1 + i % 2)), rate)

    def run(backbone, out="out", load=None, **settings):
        def find(name):
            known = backbone if isinstance(backbone, dict) else {"panns": backbone}
            if name in known:
                return Found(known[name].identity, load or (lambda: known[name]))
            raise Unavailable("not here", "fetch it")

        settings = {"generated": tmp_path / "made", "reference": tmp_path / "true", "duration": 1.0} | settings
        config = EvaluateConfig(out=tmp_path / out, cache=tmp_path / "cache", **settings)
        code = evaluate(config, find)
        return code, json.loads((tmp_path / out / "metrics.json").read_text())

    run.folder = tmp_path
    return run


def test_the_stage_end_to_end_without_any_download(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMAUDIO_WEIGHTS", str(tmp_path / "no_weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(model_free, "librosa_onsets", lambda audio, delta: detect_onsets(audio, 22050))
    words = ["evaluate", "--variant", "tiny_16k", "--dataset", "stage", "--count", "5", "--size", "48", "--duration"]
    words += ["2", "--num_steps", "1", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    first = json.loads((tmp_path / "out" / "metrics.json").read_text())
    measured = first["metrics"]
    assert {"FD_judge", "KL_judge", "Judge_kinds", "Onset_AP", "Onset_F1_50ms", "AV_Align"} <= set(measured)
    assert measured["Onset_F1_50ms"]["true_sounds"] > 0.8
    assert measured["Judge_kinds"]["true_sounds"] > 0.8 > measured["Judge_kinds"]["value"]
    assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in measured.values() if entry["low"])
    assert set(measured) | set(first["skipped"]) == set(METRICS)
    official = {name for name, metric in METRICS.items() if metric.backbone not in (None, "judge")}
    assert official <= set(first["skipped"])
    assert all(skip["reason"] and skip["remedy"] for skip in first["skipped"].values())
    assert first["times"]["features_made"] > 0
    out = capsys.readouterr().out
    assert all(name in out for name in METRICS)

    sounds = {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "out" / "sounds").glob("*.flac"))}
    assert len(sounds) == 5
    lost = list(sounds)[2]
    lost.unlink()
    assert main(words) == 0
    second = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert second.pop("times")["features_made"] == 0  # also of the sound that was made again: it is the same
    first.pop("times")
    assert second == first
    assert [path for path, written in sounds.items() if path.stat().st_mtime_ns != written] == [lost]

    assert main([*words, "--num_steps", "2"]) == 2  # the sounds in this folder are others
    assert "num_steps" in capsys.readouterr().err


def test_features_are_made_once_and_the_truth_serves_other_runs(folders):
    first, second, other = Counting(), Counting(), Counting()
    code, result = folders(first)
    assert code == 0
    assert {"FD_PANNs", "KL_PANNs", "IS_PANNs", "KAD_PANNs", "Speech", "Music"} == set(result["metrics"])
    assert result["metrics"]["KL_PANNs"]["clips"] == CLIPS
    assert first.seen == 2 * CLIPS
    again = folders(second, load=lambda: pytest.fail("loads a network of which nothing is needed"))[1]
    assert again.pop("times")["features_made"] == 0 < result.pop("times")["features_made"]
    assert again == result
    assert second.seen == 0
    folders(other, out="another")
    assert other.seen == CLIPS  # another run's sounds; the true ones are known


def test_features_of_another_backbone_or_length_are_not_used_and_it_is_said(folders, capsys):
    folders(Counting())
    capsys.readouterr()
    other, longer = Counting("counting-2"), Counting()
    folders(other)
    assert other.seen == 2 * CLIPS
    assert "counting-1" in capsys.readouterr().err
    folders(longer, duration=2.0)
    assert longer.seen == 2 * CLIPS
    # One that says it is another's.
    files = sorted((folders.folder / "out" / "features").glob("panns.generated.*.safetensors"))
    assert len(files) == 3
    for file in files:
        file.write_bytes(files[0].read_bytes())
    with pytest.raises(CacheError, match="another backbone"):
        folders(Counting())
    for file in files:
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CacheError, match="damaged"):
        folders(Counting())


def test_a_killed_run_goes_on_where_it_was(folders):
    with pytest.raises(KeyboardInterrupt):
        folders(Counting(stop_after=CLIPS + 5))
    rest = Counting()
    code, result = folders(rest)
    assert (code, rest.seen) == (0, CLIPS - 5)
    assert result["metrics"]["FD_PANNs"] == folders(Counting(), out="at_once")[1]["metrics"]["FD_PANNs"]


def test_ranks_share_the_work(folders, monkeypatch):
    ranks = Counting(), Counting()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(FileNotFoundError):  # the first rank writes the results
        folders(ranks[1])
    monkeypatch.setenv("RANK", "0")
    _, result = folders(ranks[0])
    assert [rank.seen for rank in ranks] == [CLIPS, CLIPS]
    monkeypatch.delenv("WORLD_SIZE")
    assert result["metrics"] == folders(Counting(), out="alone")[1]["metrics"]


def test_a_clip_that_fails_is_listed_and_nothing_takes_its_place(folders, capsys):
    made = folders.folder / "made"
    soundfile.write(made / "clip_03.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    (made / "clip_05.wav").write_bytes((made / "clip_05.wav").read_bytes()[:30])
    soundfile.write(made / "clip_07.wav", np.zeros(10), RATE)
    (made / "clip_11.wav").unlink()
    code, result = folders(Counting())
    assert code == 1
    assert "--allow_missing 3" in capsys.readouterr().err
    reasons = {failure["clip"]: failure["reason"] for failure in result["failed"]}
    assert set(reasons) == {"clip_03", "clip_05", "clip_07"}
    assert "NaN" in reasons["clip_03"]
    assert "too few samples" in reasons["clip_07"]
    assert result["metrics"]["KL_PANNs"]["clips"] == CLIPS - 4
    assert folders(Counting(), allow_missing=3)[0] == 0


class Pairing:
    """Stands for the backbones that look at pairs; the picture of one clip is too short for it."""

    identity = "pairing"

    def audio(self, samples, sample_rate, duration):
        return {"embedding": np.eye(3)[0], "features": np.ones(2), "scores": np.array([7.0, 3.0, 5.0, 6.0])}

    def video(self, path, duration):
        if path.stem == "clip_01":
            raise ValueError("has too few pictures")
        return {"embedding": np.array([3.0, 4.0, 0.0]), "features": np.full(2, 2.0)}

    def text(self, caption):
        return {"embedding": -np.eye(3)[0] if caption == "a dog" else np.eye(3)[0]}

    def offsets(self, video, audio):
        return np.array([0.4, -0.2]) * video[0] * audio[0]


def test_pairs_are_measured_with_their_videos_and_captions(folders):
    for i, name in enumerate(("square_25fps.mp4", "portrait_12fps.mp4", "square_25fps.mp4")):
        shutil.copy(MEDIA / name, folders.folder / "true" / f"clip_{i:02d}.mp4")
    (folders.folder / "captions.csv").write_text("name,caption\nclip_00,a dog\nclip_05,rain\nclip_06,rain\n")
    names = ("synchformer", "imagebind", "clap_laion", "audiobox")
    settings = {"captions": folders.folder / "captions.csv", "backbones": names, "allow_missing": 1}
    code, result = folders({name: Pairing() for name in names}, **settings)
    metrics = result["metrics"]
    assert code == 0
    assert metrics["DeSync"]["value"] == pytest.approx(0.6)
    assert metrics["IB"]["value"] == pytest.approx(0.6)
    assert metrics["DeSync"]["clips"] == metrics["IB"]["clips"] == 2
    assert metrics["CLAP_LAION"]["value"] == pytest.approx(1 / 3)
    assert metrics["Audiobox_CE"]["value"] == 5
    assert metrics["AV_Align"]["clips"] == 3
    assert [(f["clip"], f["by"]) for f in result["failed"]] == [("clip_01", "synchformer"), ("clip_01", "imagebind")]


def test_names_decide_what_is_compared(folders, capsys):
    made = folders.folder / "made"
    (made / "clip_00.wav").rename(made / "dog.wav")
    code, result = folders(Counting(), allow_missing=1)
    assert code == 0
    assert [failure["clip"] for failure in result["failed"]] == ["dog"]
    assert result["metrics"]["KL_PANNs"]["clips"] == CLIPS - 1
    assert result["metrics"]["FD_PANNs"]["clips"] == CLIPS
    assert "dog" in capsys.readouterr().err
    for path in sorted(made.glob("clip*")):
        path.rename(made / f"x{path.name}")
    with pytest.raises(UsageError, match="unpaired"):
        folders(Counting())
    _, result = folders(Counting(), unpaired=True)
    assert set(result["metrics"]) == {"FD_PANNs", "IS_PANNs", "KAD_PANNs"}
    assert result["skipped"]["KL_PANNs"]["reason"]


def test_two_systems_are_compared_clip_by_clip(folders):
    folders(Counting(), out="before")
    for path in (folders.folder / "made").iterdir():  # the second system makes the true sounds
        wave, rate = soundfile.read(folders.folder / "true" / f"{path.stem}.flac")
        soundfile.write(path, wave, rate)
    _, result = folders(Counting(), compare=folders.folder / "before")
    assert result["metrics"]["KL_PANNs"]["value"] < 1e-6
    difference = result["comparison"]["KL_PANNs"]
    assert difference["difference"] < difference["high"] < 0
    assert difference["p"] < 0.01
    _, result = folders(Counting("counting-2"), compare=folders.folder / "before")
    assert "another backbone" in result["comparison"]["KL_PANNs"]["reason"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"generated": "empty"}, "has no sound"),
        ({"generated": "nowhere"}, "no such folder"),
        ({"reference": "empty"}, "nothing to compare|no sound"),
        ({"reference": None}, "nothing to compare"),
        ({"variant": "tiny_16k"}, "one of both"),
        ({"captions": "captions.csv"}, "no name in it"),
        ({"backbones": ("nonsense",)}, "unknown backbone"),
        ({"compare": "empty"}, "clips.json"),
        ({"duration": -1.0}, "duration"),
        ({"allow_missing": -1}, "allow_missing"),
    ],
)
def test_bad_requests_end_in_one_line(folders, settings, message):
    (folders.folder / "empty").mkdir()
    (folders.folder / "captions.csv").write_text("name,caption\nnobody,a dog\n")
    is_path = ("generated", "reference", "captions", "compare")
    settings = {k: folders.folder / v if k in is_path and v else v for k, v in settings.items()}
    with pytest.raises(UsageError, match=message) as error:
        folders(Counting(), **settings)
    assert "\n" not in str(error.value)


def test_every_backbone_has_its_sets_and_a_metric():
    assert {metric.backbone for metric in METRICS.values()} - {None} == set(BACKBONES)
