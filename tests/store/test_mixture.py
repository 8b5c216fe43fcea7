"""Mixtures: what an epoch holds, what a row lacks, and which stores go together."""

import dataclasses
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from storefiles import (
    DIMS,
    IDENTITY,
    SPEC,
    VARIANT,
    edit_json,
    entry,
    make_rows,
    make_texts,
    network_of,
    one_line,
    poke,
    write,
)
from torch.testing import assert_close

from mmaudio.data.mixture import Mixture, row_shapes
from mmaudio.data.sampler import Item
from mmaudio.data.store import StoreError, open_store
from mmaudio.variants import get_variant


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Video, sound with captions, sound without."""
    folder = tmp_path_factory.mktemp("stores")
    write(folder / "video", make_rows(4, prefix="v"))
    write(folder / "sound", make_rows(6, video=False, captions=["wood"], seed=3, prefix="s"), make_texts(["wood"]))
    write(folder / "mute", make_rows(3, video=False, captions=[None], seed=4, prefix="m"), texts=[])
    return folder


def fetch(mixture, rows):
    return mixture.__getitems__([Item(row, 0) for row in rows])


def test_rows_run_through_the_stores(stores):
    mixture = Mixture([entry(stores / name) for name in ("video", "sound", "mute")])
    assert len(mixture) == 13
    batch = fetch(mixture, [12, 0, 4, 3, 9, 10])
    assert batch.ids == ["m_2", "v_0", "s_0", "v_3", "s_5", "m_0"]
    assert batch.video_exist.tolist() == [False, True, False, True, False, False]
    assert batch.text_exist.tolist() == [False, True, True, True, True, False]
    assert batch.captions == [None, "wood", "wood", "wood", "wood", None]
    for place, (name, row) in enumerate([("mute", 2), ("video", 0), ("sound", 0), ("video", 3), ("sound", 5)]):
        alone = open_store(stores / name).rows([row])
        assert batch.mean[place].equal(alone.mean[0])
        assert batch.std[place].equal(alone.std[0])
    assert batch.clip[0].count_nonzero() == batch.sync[2].count_nonzero() == batch.text[5].count_nonzero() == 0
    assert batch.sync[1].equal(open_store(stores / "video").rows([0]).sync[0])
    assert (batch.mean.dtype, batch.clip.dtype, batch.text.dtype) == (torch.float16, torch.bfloat16, torch.bfloat16)
    assert batch.bad_rows() == []


def test_weights(stores):
    mixture = Mixture([entry(stores / "video", 3), entry(stores / "sound", 0.5), entry(stores / "mute", 0)])
    epochs = [mixture.order(epoch, seed=7).tolist() for epoch in range(40)]
    for order in epochs:
        seen = Counter(order)
        assert {seen[row] for row in range(4)} == {3}
        assert sorted(seen[row] for row in range(4, 10)) == [0, 0, 0, 1, 1, 1]
        assert not any(row in seen for row in range(10, 13))
    assert epochs[0] == mixture.order(0, seed=7).tolist()
    assert len(set(map(tuple, epochs))) == 40
    assert {row for order in epochs for row in order} == set(range(10))  # another half in every epoch


def test_presence_flags(stores):
    mixture = Mixture([entry(stores / "video", video=False), entry(stores / "video", text=False)])
    assert len(mixture) == 8
    assert len(mixture.stores) == 1
    batch = fetch(mixture, [0, 4])
    assert batch.ids == ["v_0", "v_0"]
    assert batch.video_exist.tolist() == [False, True]
    assert batch.text_exist.tolist() == [True, False]
    assert batch.captions == ["wood", None]
    assert batch.clip[0].count_nonzero() == batch.text[1].count_nonzero() == 0
    assert batch.clip[1].count_nonzero() > 0


def test_precisions_meet_in_one_that_holds_both(stores, tmp_path):
    write(tmp_path / "fine", make_rows(2, prefix="f"), latent_dtype=torch.float32)
    mixture = Mixture([entry(stores / "video"), entry(tmp_path / "fine")])
    batch = fetch(mixture, [0, 4])
    assert (batch.mean.dtype, batch.clip.dtype) == (torch.float32, torch.bfloat16)
    assert batch.mean[1].equal(make_rows(2)[0].mean)


def test_sound_alone_learns_the_sizes_of_video_from_the_variant(stores):
    mixture = Mixture([entry(stores / "mute")])
    mixture.check_variant(VARIANT)
    batch = fetch(mixture, [0, 1])
    assert batch.clip.shape == (2, SPEC.clip_len, DIMS["clip"])
    assert batch.sync.shape == (2, SPEC.sync_len, DIMS["sync"])
    assert batch.text.shape == (2, DIMS["tokens"], DIMS["text"])
    assert batch.text.count_nonzero() == 0


def test_latent_statistics_are_of_the_video_stores(stores, tmp_path):
    write(tmp_path / "more", make_rows(7, seed=5, prefix="w"))
    entries = [entry(stores / "video", 5), entry(stores / "sound"), entry(tmp_path / "more"), entry(stores / "video")]
    mean, std = Mixture(entries).latent_statistics()
    rows = [open_store(path).tensors["mean"] for path in (stores / "video", tmp_path / "more")]
    frames = torch.cat([x.double().flatten(0, 1) for x in rows])  # each store once, whatever its weight
    assert_close(mean, frames.mean(0).float())
    assert_close(std, frames.std(0).float())
    assert mean.dtype == std.dtype == torch.float32


@pytest.mark.parametrize("entries", [[("sound", True)], [("video", False), ("sound", True)]])
def test_latent_statistics_without_video(stores, entries):
    mean, _ = Mixture([entry(stores / name, video=video) for name, video in entries]).latent_statistics()
    frames = torch.cat([open_store(stores / name).tensors["mean"].double().flatten(0, 1) for name, _ in entries])
    assert_close(mean, frames.mean(0).float())


def test_latent_statistics_of_a_constant_channel(tmp_path):
    rows = make_rows(3)
    for row in rows:
        row.mean[:, 0] = 0.0
    write(tmp_path / "s", rows)
    with pytest.raises(StoreError, match="channels that never vary"):
        Mixture([entry(tmp_path / "s")]).latent_statistics()


def test_empty_text(stores):
    mixture = Mixture([entry(stores / "sound"), entry(stores / "video")])
    assert_close(mixture.empty_text(), dict(make_texts())[""].bfloat16().float(), rtol=0, atol=0)
    assert Mixture([entry(stores / "mute")]).empty_text() is None


def test_identity(stores):
    assert Mixture([entry(stores / "mute"), entry(stores / "video")]).identity == IDENTITY


def test_nan_rows_are_named_by_their_batch(tmp_path):
    write(tmp_path / "s")
    poke(tmp_path / "s", "clip", 2, float("nan"))
    assert fetch(Mixture([entry(tmp_path / "s")]), [1, 2, 3]).bad_rows() == ["clip_2"]


# ---- what does not go together


def other(**changes):
    dims = {**DIMS, **changes}
    return make_rows(2, dims=dims, prefix="o"), make_texts(dims=dims)


LONG = SPEC.with_duration(2.0)
DISAGREE = {
    "lengths": (
        (make_rows(2, spec=LONG), make_texts()), {"spec": LONG},
        ["mean is 63 x 3 per row, that of", "32 x 3; only stores of the same extractors"],
    ),
    "latent channels": (other(latent=4), {}, ["mean is 32 x 4 per row, that of", "32 x 3"]),
    "text width": (other(text=9), {}, ["text is 7 x 9 per row, that of", "7 x 4"]),
    "spec of the same lengths": (
        other(), {"spec": dataclasses.replace(SPEC, sample_rate=32_000, hop_length=512)},
        ["sample_rate is 32000, ", "has 16000, hop_length is 512, ", "has 256"],
    ),
    "codec": (
        other(), {"identity": IDENTITY | {"vae": "codec-b"}},
        ["extracted with another codec than", "checksum codec-b, expected codec-a"],
    ),
    "synchformer": (
        other(), {"identity": IDENTITY | {"sync": "sync-b"}},
        ["extracted with another Synchformer than", "checksum sync-b, expected sync-a"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DISAGREE)
def test_stores_that_disagree(stores, tmp_path, case):
    (rows, texts), changes, expected = DISAGREE[case]
    write(tmp_path / "other", rows, texts, **changes)
    with pytest.raises(StoreError) as error:
        Mixture([entry(stores / "mute"), entry(stores / "video"), entry(tmp_path / "other")])
    for part in [*expected, str(tmp_path / "other"), str(stores)]:
        assert part in one_line(error)


def test_unknown_identity_is_no_disagreement(stores, tmp_path):
    """An audio-only store may name fewer encoders, and versions of the code may differ."""
    write(tmp_path / "o", make_rows(2, video=False), identity={"vae": "codec-a", "version": "9"})
    assert len(Mixture([entry(stores / "video"), entry(tmp_path / "o")])) == 6


def test_wrong_latent_length_for_the_variant(stores):
    mixture = Mixture([entry(stores / "mute"), entry(stores / "video")])
    mixture.check_variant(VARIANT)
    longer = SimpleNamespace(name="toy_44k", spec=dataclasses.replace(SPEC, sample_rate=44_100), network=network_of())
    with pytest.raises(StoreError) as error:
        mixture.check_variant(longer)
    assert one_line(error) == (
        f"{stores / 'mute'}: mean is 32 x 3 per row (extracted for toy), toy_44k needs 87 x 3; "
        "extract features for variant=toy_44k, or train a variant that fits"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"network": network_of(DIMS | {"clip": 8})}, "clip is 8 x 6 per row (extracted for toy), toy needs 8 x 8"),
        ({"network": network_of(DIMS | {"tokens": 77})}, "text is 7 x 4 per row (extracted for toy), toy needs 77 x 4"),
        (
            {"spec": dataclasses.replace(SPEC, sample_rate=32_000, hop_length=512)},
            "sample_rate is 16000, toy has 32000, hop_length is 256, toy has 512",
        ),
    ],
)
def test_other_sizes_than_the_variant(stores, changes, expected):
    with pytest.raises(StoreError) as error:
        Mixture([entry(stores / "video")]).check_variant(SimpleNamespace(**vars(VARIANT) | changes))
    assert expected in one_line(error)


def test_a_store_extracted_with_another_codec(stores):
    mixture = Mixture([entry(stores / "video")])
    mixture.check_variant(VARIANT, {"vae": "codec-a"})
    mixture.check_variant(VARIANT, {"clip": "clip-a", "unknown": "x"})
    with pytest.raises(StoreError) as error:
        mixture.check_variant(VARIANT, {"vae": "codec-b", "clip": "clip-a"})
    assert "extracted with another codec: checksum codec-a, expected codec-b for toy; extract" in one_line(error)


def test_real_variants_have_the_sizes_of_the_paper():
    assert row_shapes(get_variant("large_44k_v2")) == {
        "mean": (345, 40), "std": (345, 40), "clip": (64, 1024), "sync": (192, 768), "text": (77, 1024)
    }  # fmt: skip


def test_bad_entries(stores, tmp_path):
    for entries, expected in (
        ([], "lists no feature stores"),
        ([SimpleNamespace(**vars(entry("x")) | {"store": None})], "entry 1 of the data names no store"),
        ([entry(stores / "video", -1.0)], "weight must be zero or more, got -1.0"),
        ([entry(stores / "video", float("nan"))], "weight must be zero or more, got nan"),
        ([entry(tmp_path / "none")], "no such folder"),
    ):
        with pytest.raises(StoreError, match=expected):
            Mixture(entries)


def test_a_damaged_store_is_found_before_training(stores, tmp_path):
    write(tmp_path / "s")
    edit_json(tmp_path / "s" / "store.json", count=3)
    with pytest.raises(StoreError, match=r"expected \(3, length, channels\)"):
        Mixture([entry(stores / "video"), entry(tmp_path / "s")])
