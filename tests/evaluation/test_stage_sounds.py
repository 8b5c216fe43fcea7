"""The whole evaluation, on two short small clips with the bundled variant and a judge that has learned nothing."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import mmaudio
from mmaudio.data.store import StoreRow, write_store
from mmaudio.evaluation.judge import Judge
from mmaudio.evaluation.stage_report import COLUMNS, table
from mmaudio.evaluation.stage_sounds import ROWS, Settings, Sounds, evaluate, nearest
from mmaudio.weights import fetch, fingerprint

SETTINGS = Settings(size=64, duration=2.0, num_steps=1, retrieval=1)
LONG = Settings(size=64, duration=8.0)
MADE = ["truth", "ceiling", "variant", "retrieval"]  # the others are made as the variant's
SEEDS = (2_000_000, 2_000_001)


@pytest.fixture(scope="module")
def pipe():
    return mmaudio.load("tiny_16k", device="cpu")


def test_every_row_is_made_judged_and_kept(pipe, tmp_path, monkeypatch):
    torch.manual_seed(0)
    judge = Judge().eval()
    found = evaluate(Sounds(pipe, SEEDS, tmp_path, SETTINGS), judge, MADE, resamples=5)
    assert list(found["rows"]) == [ROWS[row].format("tiny_16k") for row in MADE]
    assert all(list(row) == list(COLUMNS) for row in found["rows"].values())
    assert (found["clips"], found["retrieval"]) == (2, 1)
    assert found["rows"]["ground truth"]["KL"].value == 0
    assert len(list((tmp_path / "sounds").iterdir())) == 2 * 2  # through the codec and by the variant

    # a second run makes nothing, and says the same
    monkeypatch.setattr(pipe, "part", None)
    again = evaluate(Sounds(pipe, SEEDS, tmp_path, SETTINGS), judge, MADE, resamples=5)
    assert json.dumps(again, default=vars) == json.dumps(found, default=vars)
    assert table(again["rows"]) == table(found["rows"])


def test_rows_differ_in_what_they_are_given(pipe, tmp_path, monkeypatch):
    sounds, calls = Sounds(pipe, SEEDS, tmp_path, SETTINGS), []

    def call(video, prompt, **options):
        calls.append((video and video.name.split("_")[1], prompt))
        return [mmaudio.Generation(torch.zeros(1, 32_000), 16_000, torch.zeros(1), 0, "", prompt, 2.0)]

    monkeypatch.setattr(type(pipe), "__call__", lambda self, **options: call(**options))
    for row in ("variant", "shuffled", "text", "video"):
        sounds.make(row, 0)
    caption, first, second = sounds.clips[0].caption, *map(str, SEEDS)
    assert calls == [(first, caption), (second, caption), (None, caption), (first, "")]
    sounds.make("variant", 0)
    assert len(calls) == 4
    other = Sounds(pipe, SEEDS, tmp_path, Settings(**vars(SETTINGS) | {"num_steps": 2}))
    other.make("variant", 0)
    assert len(calls) == 5


def test_retrieval_from_a_store(pipe, tmp_path):
    """One of three training clips looks as the asked one does; other captions of a clip are no other clips."""
    files, encoded = pipe.variant.files, Sounds(pipe, SEEDS, tmp_path, LONG)
    features = [pipe.encode_video(pipe.read(encoded.mp4(seed))) for seed in (5, SEEDS[1], 6)]
    made_by = {part: fingerprint(fetch(file)) for part, file in (("clip", files.clip), ("sync", files.sync))}

    def store(name, ids, identity=made_by):
        latents = torch.zeros(pipe.variant.spec.latent_len, 20)
        rows = [
            StoreRow(i + end, "", latents, latents + 1, *(x[0].bfloat16() for x in one))
            for i, one in zip(ids, features, strict=True)
            for end in ("", "#1")
        ]
        text = {"": torch.zeros(77, pipe.variant.network.text_dim)}.items()
        spec = pipe.variant.spec
        write_store(tmp_path / name, rows, text, count=6, variant="tiny_16k", spec=spec, identity=identity)
        return Sounds(pipe, SEEDS, tmp_path, dataclasses.replace(LONG, store=str(tmp_path / name)))

    assert store("plain", ("5", "7", "6")).neighbours[1] == 7
    assert store("exported", ("train_0000005", "train_0000007", "train_0000006")).neighbours[1] == 7
    with pytest.raises(ValueError, match="test: has no clips of the Stage's split train"):
        evaluate(store("test", ("2000005", "2000001", "x")), Judge(), ["retrieval"])
    with pytest.raises(ValueError, match="other: its features are by other encoders"):
        evaluate(store("other", ("5", "7", "6"), made_by | {"sync": "x"}), Judge(), ["truth", "retrieval"])
    short = dataclasses.replace(SETTINGS, store=str(tmp_path / "plain"))
    with pytest.raises(ValueError, match="has clips of 8 s, not 2 s"):
        evaluate(Sounds(pipe, SEEDS, tmp_path, short), Judge(), ["retrieval"])


def test_what_cannot_be_evaluated(pipe, tmp_path):
    with pytest.raises(ValueError, match="unknown row 'noise': expected some of truth,"):
        evaluate(Sounds(pipe, SEEDS, tmp_path, SETTINGS), Judge(), ["truth", "noise"])
    with pytest.raises(ValueError, match="at least 2 clips"):
        evaluate(Sounds(pipe, SEEDS[:1], tmp_path, SETTINGS), Judge(), ["truth"])


def test_nearest_looks_at_every_part_about_the_mean():
    rng = np.random.default_rng(0)
    bank = [(100 + rng.normal(0, 1, 8), rng.normal(0, 5, 30)) for _ in range(6)]
    queries = [tuple(part + rng.normal(0, 0.1, part.shape) for part in bank[k]) for k in (4, 0, 5)]
    assert nearest(queries, bank) == [4, 0, 5]
    mixed = [(bank[1][0], -bank[2][1]), (bank[1][0], bank[1][1])]
    assert nearest(mixed, bank)[1] == 1
