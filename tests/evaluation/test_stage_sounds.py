"""The whole evaluation, on two short small clips with the bundled variant and a judge that has learned nothing."""

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
    assert found["clips"] == 2
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
    """Of three clips, one of them the asked one itself, it is the nearest; other captions of a clip are not others."""
    settings, spec = Settings(**vars(SETTINGS) | {"duration": 8.0}), pipe.variant.spec
    sounds, files = Sounds(pipe, SEEDS, tmp_path, settings), pipe.variant.files
    seeds = [5, SEEDS[1], 6]
    encoded = [pipe.encode_video(pipe.read(sounds.mp4(seed))) for seed in seeds]

    def row(name, features):
        clip, sync = (x[0].bfloat16() for x in features)
        latents = torch.zeros(spec.latent_len, 20)
        return StoreRow(name, "", latents, latents + 1, clip, sync)

    rows = [row(name + end, x) for name, x in zip(map(str, seeds), encoded, strict=True) for end in ("", "#1")]
    made_by = {part: fingerprint(fetch(file)) for part, file in (("clip", files.clip), ("sync", files.sync))}
    text = {"": torch.zeros(77, pipe.variant.network.text_dim)}
    for name, identity in (("store", made_by), ("other", made_by | {"sync": "x"})):
        write_store(tmp_path / name, rows, text.items(), count=6, variant="tiny_16k", spec=spec, identity=identity)
    assert Sounds(pipe, SEEDS, tmp_path, settings, tmp_path / "store")._neighbour(1) == SEEDS[1]
    with pytest.raises(ValueError, match="other: has no features of Stage clips by this variant's encoders"):
        Sounds(pipe, SEEDS, tmp_path, settings, tmp_path / "other").make("retrieval", 1)
    with pytest.raises(ValueError, match="has clips of 8 s, not 2 s"):
        Sounds(pipe, SEEDS, tmp_path, SETTINGS, tmp_path / "store").make("retrieval", 1)


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
