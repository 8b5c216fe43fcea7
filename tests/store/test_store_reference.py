"""Folders as the reference implementation writes them, against its numbers."""

import json
import shutil
from collections import Counter

import pytest
import torch
from storefiles import entry, one_line, poke

from mmaudio.data.mixture import Mixture
from mmaudio.data.sampler import Item
from mmaudio.data.store import ReferenceStore, StoreError, open_store, verify


@pytest.fixture
def folders(kit, tmp_path):
    """A copy to spoil."""
    shutil.copytree(kit.root / "fixtures" / "memmap", tmp_path / "memmap")
    return tmp_path / "memmap"


def test_golden_dataset(kit):
    case = kit.case("dataset")
    expected, config = kit.json(case), case["config"]
    weights = [config["oversample"] if has_video else 1 for _, _, has_video in config["sets"]]
    mixture = Mixture([
        entry(kit.root / config["folder"] / name, weight)
        for (name, _, _), weight in zip(config["sets"], weights, strict=True)
    ])  # fmt: skip
    assert [len(m.store) for m in mixture.members] == [count for _, count, _ in config["sets"]]
    order = mixture.order(epoch=0, seed=0)
    assert len(order) == expected["length"]
    batch = mixture.__getitems__([Item(row, 0) for row in sorted(order.tolist())])

    def contents(*columns):
        return Counter(zip(*columns, strict=True))

    names = ("ids_in_index_order", "captions_in_index_order", "video_exist", "text_exist")
    got = contents(batch.ids, batch.captions, batch.video_exist.tolist(), batch.text_exist.tolist())
    assert got == contents(*(expected[name] for name in names))

    assert batch.ids[-1] == expected["last_item"]
    fields = {
        "a_mean": batch.mean, "a_std": batch.std, "clip_features": batch.clip, "sync_features": batch.sync,
        "text_features": batch.text, "video_exist": batch.video_exist, "text_exist": batch.text_exist,
    }  # fmt: skip
    for name, x in fields.items():
        assert f"{str(x.dtype)[6:]}{list(x.shape[1:])}" == expected["item_keys"][name], name
    mean, std = mixture.latent_statistics()
    kit.compare(case, {
        "latent_mean": mean, "latent_std": std, "first_a_mean": batch.mean[0], "last_a_std": batch.std[-1],
        "last_clip_features": batch.clip[-1],
    })  # fmt: skip


def test_every_row_has_its_own_text(folders):
    opened = open_store(folders / "vgg-toy")
    assert isinstance(opened, ReferenceStore)
    assert len(set(map(tuple, opened.rows(range(4)).text.flatten(1).tolist()))) == 4


def test_table_inside_the_folder(folders):
    (folders / "vgg-toy.tsv").rename(folders / "vgg-toy" / "train.tsv")
    assert open_store(folders / "vgg-toy").captions[3] == "label 3 of vgg-toy"


def test_quoted_captions(folders):
    """As pandas writes them."""
    (folders / "audio-toy.tsv").write_text('id\tcaption\na\t"a ""big"" dog"\nb\tplain\nc\t"a\ttab"\n')
    assert open_store(folders / "audio-toy").captions == ['a "big" dog', "plain", "a\ttab"]


def drop_text(folder):
    table = json.loads((folder / "meta.json").read_text())
    del table["text_features"]
    (folder / "meta.json").write_text(json.dumps(table))


SPOILED = {
    "no table": (lambda f: f.with_suffix(".tsv").unlink(), "ids and captions is missing; put it at"),
    "fewer ids": (
        lambda f: f.with_suffix(".tsv").write_text("id\tlabel\na\tx\n"),
        "text has shape (4, 7, 6)",
    ),
    "id twice": (lambda f: f.with_suffix(".tsv").write_text("id\tlabel\n" + "a\tx\n" * 4), "id 'a' is there twice"),
    "no header": (lambda f: f.with_suffix(".tsv").write_text("a\tx\nb\ty\n"), "must name the columns id and label"),
    "empty table": (lambda f: f.with_suffix(".tsv").write_text(""), "must name the columns id and label"),
    "ragged": (lambda f: f.with_suffix(".tsv").write_text("id\tlabel\na\n"), "a line has 1 fields, the header 2"),
    "bytes": (lambda f: f.with_suffix(".tsv").write_bytes(b"\xff\x00"), "is no UTF-8 text table"),
    "truncated": (lambda f: (f / "clip_features.memmap").write_bytes(b"abc"), "has 3 bytes, expected 384"),
    "no text": (drop_text, "4 captions, but text features are missing"),
    "empty meta": (lambda f: (f / "meta.json").write_text("{}"), "its meta.json lists no 'mean'"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_damage_is_told(folders, case):
    spoil, expected = SPOILED[case]
    spoil(folders / "vgg-toy")
    with pytest.raises(StoreError) as error:
        open_store(folders / "vgg-toy")
    assert expected in one_line(error)


def test_verify(folders):
    """The fixture's features are of no unit norm; nothing else is wrong with it until a NaN is put in."""
    assert {problem.split(": ")[1] for problem in verify(folders / "vgg-toy")} == {"clip", "text"}
    assert {problem.split(": ")[1] for problem in verify(folders / "audio-toy2")} == {"text"}
    poke(folders / "vgg-toy", "sync", 2, float("nan"))
    assert any("sync: 1 of 4 hold NaN or infinite values: 'vgg-toy_000002'" in p for p in verify(folders / "vgg-toy"))


def test_statistics_of_nan_are_refused(folders):
    poke(folders / "vgg-toy", "mean", 1, float("nan"))
    with pytest.raises(StoreError, match="`mmaudio store verify` tells which"):
        Mixture([entry(folders / "vgg-toy")]).latent_statistics()


def test_results_are_copies(folders):
    """The files are mapped without permission to write: a view of them would crash whoever changes it."""
    mixture = Mixture([entry(folders / "vgg-toy")])
    (folders / "vgg-toy.tsv").write_text("id\tlabel\na\t\nb\tx\nc\ty\nd\tz\n")
    mixture = Mixture([entry(folders / "vgg-toy")])
    for tensor in (mixture.empty_text(), mixture.stores[0].rows([0]).mean, *mixture.latent_statistics()):
        tensor += 1
        assert torch.isfinite(tensor).all()
