"""The whole extraction, with the bundled encoders: equal to inference, and unharmed by kills, ranks and bad files."""

import csv
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scripts_loading import load_script

import mmaudio
from mmaudio.data import extraction
from mmaudio.data.encoding import Encoders
from mmaudio.data.extraction import ExtractConfig, Extraction, extract
from mmaudio.data.manifest import read_manifest
from mmaudio.data.parts import ExtractionError
from mmaudio.data.store import StoreError, open_store
from mmaudio.stage import split_seeds
from mmaudio.stage.export import export

SCRIPT = Path(__file__).parents[2] / "scripts" / "extract_features.py"
RATE = 8000


def config(manifest, output, **settings):
    settings = {"variant": "tiny_16k", "device": "cpu", "num_workers": 0} | settings
    return ExtractConfig(manifest=str(manifest), output=str(output), **settings)


def contents(store):
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())}


def beside(store):
    return sorted(path.name for path in store.parent.iterdir() if path.name.startswith((store.name, f".{store.name}")))


# ---- videos


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Two exported Stage clips, and a row whose file is missing."""
    folder = tmp_path_factory.mktemp("stage")
    export(split_seeds("train", 2), folder, split="train", size=64, sample_rate=16_000)
    with open(folder / "manifest.tsv", "a") as table:
        table.write("lost\tlost.mp4\ta clip that is not there\n")
    return folder


@pytest.fixture(scope="module")
def video_store(stage, tmp_path_factory):
    store = tmp_path_factory.mktemp("video") / "store"
    assert extract(config(stage / "manifest.tsv", store)) == 1
    return store


def test_features_are_those_of_inference(stage, video_store):
    """The folder that the Stage exports is a manifest as it is."""
    store = open_store(video_store)
    *rows, _ = read_manifest(stage / "manifest.tsv")
    assert store.ids == [row.id for row in rows]
    assert store.captions == [row.caption for row in rows]
    assert set(store.caption_table) == {"", *(row.caption for row in rows)}  # none of the lost clip
    assert store.has_video
    assert store.meta.identity["kind"] == "video"

    pipe = mmaudio.load("tiny_16k", device="cpu")
    inputs = pipe.read(video=rows[1].path)
    clip, sync, text, _ = pipe.encode(inputs, prompt=rows[1].caption)
    batch = store.rows([1])
    assert torch.equal(batch.clip, clip.bfloat16())
    assert torch.equal(batch.sync, sync.bfloat16())
    assert torch.allclose(batch.text.float(), text, atol=2e-3)  # captions are encoded many at a time
    samples, rate = mmaudio.media.read_audio(rows[1].path)
    wave = samples.mean(0)[: 8 * rate]
    posterior = pipe.part("codec").encode((wave / wave.abs().max() * 0.95)[None])
    assert torch.allclose(batch.mean.float(), posterior.mean, atol=0.05)  # resampled from 16 kHz to 16 kHz: the same
    assert torch.allclose(batch.std.float(), posterior.std, atol=0.05)


def test_two_ranks_make_the_same_store_and_tell_of_failures(stage, video_store, tmp_path):
    store = tmp_path / "store"
    run = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            *(SCRIPT, f"manifest={stage / 'manifest.tsv'}", f"output={store}", "variant=tiny_16k", "device=cpu"),
            "num_workers=0",
        ],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 1, run.stderr  # one clip is missing
    assert "1 failed" in run.stderr
    assert contents(store) == contents(video_store)
    assert beside(store) == ["store", "store.failed.tsv"]


@pytest.mark.gpu
def test_on_a_gpu(stage, video_store, tmp_path):
    assert extract(config(stage / "manifest.tsv", tmp_path / "store", device=None)) == 1
    ours, theirs = (open_store(path).rows([0, 1]) for path in (tmp_path / "store", video_store))
    for name in ("clip", "sync", "text"):  # encoded in bfloat16 there
        x, y = getattr(ours, name).float(), getattr(theirs, name).float()
        assert torch.cosine_similarity(x, y, dim=-1).mean() > 0.99, name
    assert torch.allclose(ours.mean.float(), theirs.mean.float(), atol=0.05)


# ---- sounds: quick to encode


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Six recordings, one of them with two segments."""
    folder = tmp_path_factory.mktemp("sounds")
    lines = ["id\tpath\tcaption\n"]
    for i in range(6):
        t = np.arange(round((17 if i == 2 else 8.2) * RATE)) / RATE
        soundfile.write(folder / f"{i}.wav", 0.3 * np.sin(2 * np.pi * 110 * (i + 2) * t), RATE)
        lines.append(f"s{i}\t{i}.wav\ttone {i % 2}\n")
    (folder / "clips.tsv").write_text("".join(lines))
    return folder


IDS = ["s0_0", "s1_0", "s2_0", "s2_1", "s3_0", "s4_0", "s5_0"]


@pytest.fixture(scope="module")
def sound_store(sounds, tmp_path_factory):
    store = tmp_path_factory.mktemp("sound") / "store"
    assert extract(config(sounds / "clips.tsv", store)) == 0
    return store


def test_audio_files(sound_store):
    store = open_store(sound_store)
    assert store.ids == IDS
    assert store.captions[:3] == ["tone 0", "tone 1", "tone 0"]
    assert not store.has_video
    assert "sync" not in store.meta.identity
    assert beside(sound_store) == ["store"]


def test_a_complete_store_is_left_alone(sounds, sound_store, monkeypatch):
    before = contents(sound_store)
    monkeypatch.setattr(Encoders, "features", None)  # nothing is encoded
    assert extract(config(sounds / "clips.tsv", sound_store)) == 0
    with pytest.raises(ExtractionError, match="made with peak_normalise true, now it is false"):
        extract(config(sounds / "clips.tsv", sound_store, peak_normalise=False))
    more = sounds / "more.tsv"
    more.write_text((sounds / "clips.tsv").read_text() + "new\t0.wav\tanother\n")
    with pytest.raises(ExtractionError, match=r"without 1 of the manifest's clips \('new'"):
        extract(config(more, sound_store))
    assert contents(sound_store) == before
    assert beside(sound_store) == ["store"]


def test_loader_processes_change_nothing(sounds, sound_store, tmp_path):
    assert extract(config(sounds / "clips.tsv", tmp_path / "store", num_workers=2)) == 0
    assert contents(tmp_path / "store") == contents(sound_store)


def test_ranks_wait_for_each_other_but_not_for_ever(sounds, sound_store, tmp_path, monkeypatch):
    """Started one by one, as by a queueing system; what the second rank lacks, a later run alone does."""
    settings = config(sounds / "clips.tsv", tmp_path / "store", timeout=0.3)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ExtractionError, match=r"3 of 7 parts are missing and none came for 0.3 s"):
        extract(settings)
    monkeypatch.setenv("RANK", "1")
    assert extract(settings) == 0
    assert not (tmp_path / "store").exists()  # the first rank packs
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    monkeypatch.setattr(Encoders, "features", None)  # everything is there
    assert extract(settings) == 0
    assert contents(tmp_path / "store") == contents(sound_store)


def test_parts_of_other_settings_are_not_mixed_in(sounds, tmp_path):
    begun = Extraction(config(sounds / "clips.tsv", tmp_path / "store"))
    begun.parts.begin()
    with pytest.raises(ExtractionError, match=r"store.parts: was begun with max_segments 5, now it is 1"):
        extract(config(sounds / "clips.tsv", tmp_path / "store", max_segments=1))


# ---- bad files


def test_failures_are_listed_and_the_rest_is_packed(sounds, stage, tmp_path):
    good = next(iter((stage / "video").glob("*.mp4")))
    soundfile.write(tmp_path / "short.wav", np.ones(RATE), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(9 * RATE), RATE)
    (tmp_path / "text.wav").write_text("no sound at all\n")
    (tmp_path / "cut.mp4").write_bytes(good.read_bytes()[:2000])
    (tmp_path / "empty.flac").touch()
    names = ["text.wav", "short.wav", "silent.wav", str(sounds / "0.wav"), "cut.mp4", "empty.flac", "none.ogg"]
    lines = [f"id{i}\t{name}\ttone\t0\n" for i, name in enumerate(names)]
    (tmp_path / "clips.tsv").write_text("id\tpath\tcaption\tstart\n" + "".join(lines))
    settings = config(tmp_path / "clips.tsv", tmp_path / "store", kind="audio")
    assert extract(settings) == 1
    assert open_store(tmp_path / "store").ids == ["id3_0"]
    assert beside(tmp_path / "store") == ["store", "store.failed.tsv"]
    with open(tmp_path / "store.failed.tsv", newline="") as file:
        reasons = {row["id"]: row["reason"] for row in csv.DictReader(file, delimiter="\t")}
    expected = {
        "id0": "damaged, incomplete or not a media file", "id1": "has 1.00 s of sound", "id2": "is silent",
        "id4": "damaged, incomplete or not a media file", "id5": "is empty", "id6": "there is no such file",
    }  # fmt: skip
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in reasons[name]
    assert extract(settings) == 1  # complete, with failures

    mended = tmp_path / "none.ogg"  # the list is a manifest: what was mended goes to another store
    soundfile.write(mended, 0.1 * np.ones(9 * RATE), RATE)
    assert extract(config(tmp_path / "store.failed.tsv", tmp_path / "mended", kind="audio")) == 1
    assert open_store(tmp_path / "mended").ids == ["id6_0"]


def test_nothing_usable_makes_no_store(tmp_path):
    (tmp_path / "clips.tsv").write_text("id\tpath\na\ta.mp4\n")
    assert extract(config(tmp_path / "clips.tsv", tmp_path / "store")) == 1
    assert beside(tmp_path / "store") == ["store.failed.tsv"]


def test_features_that_are_not_finite_and_unforeseen_errors_are_failures(sounds, tmp_path, monkeypatch):
    encode, prepare = Encoders.features, extraction.Preparation.audio_segments

    def spoiled(self, prepared):
        features = {name: tensor.clone() for name, tensor in encode(self, prepared).items()}
        if prepared.ids == ["s1_0"]:
            features["mean"][0, 0, 0] = torch.nan
        return features

    def surprised(self, row):
        if row.id == "s3":
            raise KeyError("a case nobody thought of")
        return prepare(self, row)

    monkeypatch.setattr(Encoders, "features", spoiled)
    monkeypatch.setattr(extraction.Preparation, "audio_segments", surprised)
    assert extract(config(sounds / "clips.tsv", tmp_path / "store")) == 1
    assert open_store(tmp_path / "store").ids == [name for name in IDS if name not in ("s1_0", "s3_0")]
    table = (tmp_path / "store.failed.tsv").read_text()
    assert "features are not finite" in table
    assert "KeyError: 'a case nobody thought of'" in table


# ---- killed


def test_killed_at_random_moments_nothing_is_lost_or_doubled(sounds, sound_store, tmp_path):
    """kill -9 before the first part, between parts and while packing; the last run meets the same command."""
    store = tmp_path / "store"
    settings = config(sounds / "clips.tsv", store)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mmaudio.data.extraction", "open_clip.model", "tensordict", "torchvision"])
    draw = random.Random(0)

    def parts():
        return len(list(Path(f"{store}.parts").glob("*/*.safetensors")))

    def start():
        process = context.Process(target=extract, args=(settings,))
        process.start()
        return process

    killed = 0
    for wanted in (0, 1, 3, 5, 7):
        process = start()
        while process.is_alive() and parts() < wanted:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.1))
        killed += process.is_alive()
        process.kill()
        process.join()
        if store.exists():
            break
    assert killed >= 3
    process = start()
    process.join()
    assert process.exitcode == 0
    assert open_store(store).ids == IDS
    assert contents(store) == contents(sound_store)
    assert beside(store) == ["store"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_around_the_packing(sounds, sound_store, tmp_path, monkeypatch, moment):
    write = extraction.write_store

    def dying(*args, **kwargs):
        if moment == "after":
            write(*args, **kwargs)
        raise KeyboardInterrupt

    settings = config(sounds / "clips.tsv", tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(extraction, "write_store", dying)
        with pytest.raises(KeyboardInterrupt):
            extract(settings)
    assert (tmp_path / "store.parts").exists()
    monkeypatch.setattr(Encoders, "features", None)  # nothing is encoded again
    assert extract(settings) == 0
    assert contents(tmp_path / "store") == contents(sound_store)
    assert beside(tmp_path / "store") == ["store"]


def test_what_failed_is_tried_again_by_the_next_run(sounds, sound_store, tmp_path, monkeypatch):
    """As long as the store is not packed: a disk that was not mounted is mended, and the command run again."""
    manifest = tmp_path / "clips.tsv"
    manifest.write_text((sounds / "clips.tsv").read_text())
    for i in range(1, 6):
        (tmp_path / f"{i}.wav").symlink_to(sounds / f"{i}.wav")
    settings = config(manifest, tmp_path / "store")
    begun = Extraction(settings)
    begun.parts.begin()
    extraction.run_share(begun, begun.units, rank=1)
    assert "no such file" in begun.parts.reason(begun.clips[0].name)
    (tmp_path / "0.wav").symlink_to(sounds / "0.wav")
    assert extract(settings) == 0
    assert contents(tmp_path / "store") == contents(sound_store)


# ---- settings


@pytest.fixture(scope="module")
def script():
    return load_script("extract_features")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["manifest=a.tsv", "output=b", "variant=tiny_16k", "batch=3"], "batch"),
        (["manifest=a.tsv"], "missing: output=..., variant=..."),
        (["manifest=a.tsv", "output=b", "variant=tiny_16k", "kind=image"], "kind must be one of auto, video, audio"),
        (["manifest=a.tsv", "output=b", "variant=tiny_16k", "num_workers=-1"], "num_workers -1"),
        (["manifest=a.tsv", "output=b", "variant=tiny_16k", "max_segments=many"], "max_segments"),
        (["manifest=a.tsv", "output=b", "variant=tiny_16k", "device=gpu"], "device gpu is not usable here"),
        (["manifest=a.tsv", "output=b", "variant=huge"], "unknown variant 'huge'"),
        (["manifest=no, such (file).tsv", "output=b", "variant=tiny_16k"], "no, such (file).tsv: cannot read"),
        (["--engine", "ray", "manifest=none.tsv", "output=b", "variant=tiny_16k"], "none.tsv: cannot read"),
    ],
)
def test_wrong_settings_are_one_line(script, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert script.main(words) == script.USAGE_ERROR
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_ray_under_torchrun_is_refused(script, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert script.main(["engine=ray", "manifest=a.tsv", "output=b", "variant=tiny_16k"]) == script.USAGE_ERROR
    assert "without torchrun" in capsys.readouterr().err


def test_help_explains_every_setting(script, capsys):
    with pytest.raises(SystemExit, match="0"):
        script.main(["--help"])
    text = capsys.readouterr().out
    for name in ExtractConfig.__dataclass_fields__:
        assert f"{name}: " in text
    assert "torchrun" in text


def test_something_else_in_the_output_s_place(sounds, tmp_path):
    (tmp_path / "store").mkdir()
    with pytest.raises(StoreError, match="no feature store"):
        extract(config(sounds / "clips.tsv", tmp_path / "store"))
    assert beside(tmp_path / "store") == ["store"]
