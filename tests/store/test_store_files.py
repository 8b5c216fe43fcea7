"""Writing and reading the feature store: what goes in comes out, whole or not at all, and damage is told."""

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
import time

import pytest
import torch
from storefiles import IDENTITY, SPEC, edit_json, make_rows, make_texts, one_line, poke, write
from torch.testing import assert_close

from mmaudio.data.store import FeatureStore, LatentStatistics, StoreError, open_store, verify


@pytest.fixture
def store(tmp_path):
    write(tmp_path / "store")
    return tmp_path / "store"


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- round trip


def test_rows_come_back_in_stored_precision(store):
    rows, texts = make_rows(5), dict(make_texts())
    opened = open_store(store)
    assert len(opened) == 5
    assert opened.ids == [row.id for row in rows]
    assert opened.captions == ["wood", "glass", None, "wood", "glass"]
    batch = opened.rows([3, 2, 0])
    for place, row in enumerate((rows[3], rows[2], rows[0])):
        for name, dtype in (
            ("mean", torch.float16), ("std", torch.float16), ("clip", torch.bfloat16), ("sync", torch.bfloat16)
        ):  # fmt: skip
            assert_close(getattr(batch, name)[place], getattr(row, name).to(dtype), rtol=0, atol=0)
    assert batch.ids == ["clip_3", "clip_2", "clip_0"]
    assert batch.captions == ["wood", None, "wood"]
    assert batch.text_exist.tolist() == [True, False, True]
    assert batch.video_exist.tolist() == [True, True, True]
    assert_close(batch.text[2], texts["wood"].bfloat16(), rtol=0, atol=0)
    assert batch.text[1].count_nonzero() == 0


def test_metadata(store):
    meta = open_store(store).meta
    assert (meta.count, meta.variant, meta.spec, meta.identity) == (5, "toy", SPEC, IDENTITY)
    frames = torch.stack([row.mean for row in make_rows(5)]).half().double().flatten(0, 1)
    assert_close(torch.tensor(meta.latent_mean, dtype=torch.float64), frames.mean(0))
    assert_close(torch.tensor(meta.latent_std, dtype=torch.float64), frames.std(0, correction=1))


def test_tensordict_reads_the_folder(store):
    from tensordict import TensorDict

    loaded, opened = TensorDict.load_memmap(store), open_store(store)
    assert set(loaded.keys()) == {"mean", "std", "clip", "sync", "text"}
    for name, tensor in opened.tensors.items():
        assert_close(loaded[name].clone(), tensor.clone(), rtol=0, atol=0)


def test_texts_are_stored_once(tmp_path):
    rows = make_rows(40, captions=["wood"])
    write(tmp_path / "s", rows, make_texts(["wood"]))
    opened = open_store(tmp_path / "s")
    assert len(opened.tensors["text"]) == 1
    assert opened.rows([0, 39]).text[1].equal(opened.tensors["text"][0])


def test_sound_alone_and_without_captions(tmp_path):
    write(tmp_path / "s", make_rows(3, video=False, captions=[None]), texts=[])
    opened = open_store(tmp_path / "s")
    assert not opened.has_video
    assert set(opened.tensors) == {"mean", "std"}
    batch = opened.rows([1])
    assert not batch.video_exist.any()
    assert not batch.text_exist.any()
    assert verify(tmp_path / "s") == []


def test_latents_in_float32_if_asked_for(tmp_path):
    rows = make_rows(2)
    write(tmp_path / "s", rows, latent_dtype=torch.float32)
    assert open_store(tmp_path / "s").rows([1]).mean[0].equal(rows[1].mean)


def test_text_of_the_empty_string(store):
    assert_close(open_store(store).text_of(""), dict(make_texts())[""].bfloat16(), rtol=0, atol=0)
    assert open_store(store).text_of("water") is None


def test_odd_captions_survive(tmp_path):
    captions = ['a "quoted" one', "tab\there", "two\nlines", "Регтайм", "line\u2028separator"]
    write(tmp_path / "s", make_rows(5, captions=captions), make_texts(captions))
    assert open_store(tmp_path / "s").captions == captions


def test_rows_are_known_by_their_ids(store):
    """A table that somebody sorted says the same."""
    before = open_store(store)
    header, *lines = (store / "rows.tsv").read_text().splitlines()
    (store / "rows.tsv").write_text("\n".join([header, *sorted(lines, reverse=True), ""]))
    after = open_store(store)
    assert after.ids == before.ids
    assert after.captions == before.captions


def test_opening_in_another_process_sends_the_path_alone(store):
    sent = pickle.dumps(open_store(store))
    assert len(sent) < 1000
    assert pickle.loads(sent).rows([1]).mean.equal(open_store(store).rows([1]).mean)


def test_a_read_only_store_opens(store):
    for path in store.iterdir():
        path.chmod(0o444)
    store.chmod(0o555)
    try:
        assert verify(store) == []
    finally:
        store.chmod(0o755)


def test_pooled_statistics_are_exact():
    x = torch.randn(7, 5, 3, dtype=torch.float64) * 3 + 100
    parts = [LatentStatistics(5 * len(p), p.flatten(0, 1).mean(0), p.flatten(0, 1).std(0)) for p in x.split([1, 4, 2])]
    pooled, whole = LatentStatistics.pooled(parts), LatentStatistics.of(x)
    assert pooled.count == whole.count == 35
    assert_close(pooled.mean, x.flatten(0, 1).mean(0))
    assert_close(pooled.std, x.flatten(0, 1).std(0))
    assert_close(whole.std, pooled.std)


# ---- writing: whole or not at all


def test_progress(tmp_path):
    seen = []
    write(tmp_path / "s", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 5) for i in range(1, 6)]


def test_rows_are_streamed(tmp_path):
    """A row is not kept: when the next is asked for, the one before is gone."""
    import weakref

    before = []

    def rows():
        for row in (dataclasses.replace(row) for row in make_rows(4)):
            row.mean = row.mean.clone()
            assert all(kept() is None for kept in before[:-1])
            before.append(weakref.ref(row.mean))
            yield row

    write(tmp_path / "s", rows=SizedStream(rows(), 4))
    assert len(open_store(tmp_path / "s")) == 4


class SizedStream:
    def __init__(self, rows, length):
        self.rows, self.length = rows, length

    def __iter__(self):
        return self.rows

    def __len__(self):
        return self.length


@pytest.mark.parametrize("error", [ValueError("decoder"), OSError("source disk"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_leaves_nothing(tmp_path, error):
    def rows():
        yield from make_rows(2)
        raise error

    with pytest.raises(type(error)):  # as it was: the rows' trouble is not the store's
        write(tmp_path / "s", SizedStream(rows(), 3))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("size", [0, 100, 500, 1500])  # at the first text, a later one, the rows, and the very end
def test_disk_full(tmp_path, size, full_disk):
    long = "very " * 400 + "long"
    with full_disk(size), pytest.raises(StoreError) as error:
        write(tmp_path / "s", make_rows(5, captions=[long]), make_texts([long, "wood"]))
    assert "cannot write (file too large); make room" in one_line(error)
    assert leftovers(tmp_path) == []


def test_a_killed_writer_leaves_nothing_under_the_name_and_the_next_succeeds(tmp_path):
    code = f"""
import sys, os, time; sys.path.insert(0, {os.path.dirname(__file__)!r})
from storefiles import *
def rows():
    yield from make_rows(2)
    print("ready", flush=True); time.sleep(60)
write({str(tmp_path / "s")!r}, type("R", (), {{"__iter__": lambda self: rows(), "__len__": lambda self: 5}})())
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(StoreError) as error:
        write(tmp_path / "s")
    assert "another process is writing it" in one_line(error)
    process.kill()
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "s").exists()
    assert leftovers(tmp_path)  # what the kill left behind
    write(tmp_path / "s")
    assert leftovers(tmp_path) == ["s"]
    assert verify(tmp_path / "s") == []


def with_row(number, **changes):
    rows = make_rows(3)
    rows[number] = dataclasses.replace(rows[number], **changes)
    return rows


nan = torch.full((32, 3), float("nan"))
BAD_ROWS = {
    "id twice": (with_row(2, id="clip_0"), "id 'clip_0' is there twice"),
    "id with a tab": (with_row(0, id="a\tb"), "tab or line break"),
    "no id": (with_row(0, id=""), "is empty"),
    "latents too long": (with_row(1, mean=torch.ones(33, 3)), "row clip_1: mean has shape (33, 3), expected (32, 3)"),
    "first latents too long": (with_row(0, mean=torch.ones(33, 3)), "clip_0: mean has shape (33, 3), expected (32, 3)"),
    "other channels": (with_row(1, std=torch.ones(32, 4)), "row clip_1: std has shape (32, 4), expected (32, 3)"),
    "too few frames": (with_row(0, clip=torch.ones(7, 6)), "clip has shape (7, 6), expected (8, 6)"),
    "NaN": (with_row(2, mean=nan), "row clip_2: mean holds values that are not finite in torch.float16"),
    "beyond float16": (with_row(2, std=torch.full((32, 3), 1e6)), "row clip_2: std holds values that are not finite"),
    "video in some": (with_row(1, clip=None, sync=None), "row clip_1: clip and sync must be in all rows"),
    "clip alone": (with_row(0, sync=None), "row clip_0: clip and sync must be in all rows"),
    "unknown caption": (with_row(1, caption="water"), "row clip_1: no text features for its caption 'water'"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows(tmp_path, case):
    rows, expected = BAD_ROWS[case]
    with pytest.raises(StoreError) as error:
        write(tmp_path / "s", rows)
    assert expected in one_line(error)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("count", [2, 4])
def test_other_number_of_rows_than_announced(tmp_path, count):
    with pytest.raises(StoreError, match=f"got 3 rows, expected {count}"):
        write(tmp_path / "s", make_rows(3), count=count)
    assert leftovers(tmp_path) == []


def test_no_rows(tmp_path):
    with pytest.raises(StoreError, match="got 0 rows, expected at least one"):
        write(tmp_path / "s", [])


def test_text_twice(tmp_path):
    with pytest.raises(StoreError, match="'wood' is in the texts twice"):
        write(tmp_path / "s", texts=make_texts(["wood", "wood"]))


def test_an_existing_store_is_left_alone(store):
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    with pytest.raises(StoreError, match="exists already"):
        write(store, make_rows(2))
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before


# ---- damaged, mixed and hostile folders


def cut(path, size):
    with open(path, "r+b") as file:
        file.truncate(size)


def table(rows):
    """rows.tsv with these (id, row, caption)."""
    lines = ["id\trow\tcaption", *("\t".join(map(str, row)) for row in rows), ""]
    return lambda store: (store / "rows.tsv").write_text("\n".join(lines))


def meta_entry(name, **changes):
    def spoil(store):
        table = json.loads((store / "meta.json").read_text())
        edit_json(store / "meta.json", **{name: table[name] | changes})

    return spoil


SPOILED = {
    "truncated memmap": (lambda s: cut(s / "sync.memmap", 100), "sync.memmap: has 100 bytes, expected 800"),
    "memmap too long": (lambda s: cut(s / "clip.memmap", 999), "clip.memmap: has 999 bytes, expected 480"),
    "memmap missing": (lambda s: (s / "std.memmap").unlink(), "std.memmap: has 0 bytes, expected 960"),
    "ids missing": (table([("a", 0, 0)]), "names 1 ids, expected 5"),
    "ids twice": (table([(name, row, 0) for row, name in enumerate("abacd")]), "id 'a' is there twice"),
    "rows twice": (table([(name, row % 4, 0) for row, name in enumerate("abcde")]), "rows are missing or there twice"),
    "a line lost": (table([(name, row, 0) for row, name in enumerate("abcde") if row != 2]), "rows are missing"),
    "no table": (lambda s: (s / "rows.tsv").unlink(), "rows.tsv: cannot read (No such file or directory)"),
    "table of something else": (lambda s: (s / "rows.tsv").write_text("id\nx\n"), "rows.tsv: damaged"),
    "table of bytes": (lambda s: (s / "rows.tsv").write_bytes(b"\xff\xfe\n\x80\n"), "rows.tsv: damaged"),
    "caption number": (table([(name, row, 7) for row, name in enumerate("abcde")]), "captions beyond the 3"),
    "captions missing": (lambda s: (s / "captions.json").write_text('["a"]'), "text has shape (3, 7, 4), expected (1,"),
    "captions no list": (lambda s: (s / "captions.json").write_text('{"a": 1}'), "captions.json: damaged"),
    "other count": (lambda s: edit_json(s / "store.json", count=4), "mean has shape (5, 32, 3), expected (4,"),
    "newer format": (lambda s: edit_json(s / "store.json", format=2), "format 2, this version of mmaudio reads 1"),
    "spec of another kind": (lambda s: edit_json(s / "store.json", spec={"fps": 3}), "store.json: damaged"),
    "no JSON": (lambda s: (s / "store.json").write_text("{"), "store.json: damaged"),
    "a list": (lambda s: (s / "store.json").write_text("[]"), "format None"),
    "no mean": (lambda s: edit_json(s / "meta.json", mean=None), "its meta.json lists no 'mean'"),
    "odd dtype": (meta_entry("mean", dtype="torch.complex64"), "meta.json: damaged entry 'mean'"),
    "odd shape": (meta_entry("mean", shape="many"), "meta.json: damaged entry 'mean'"),
    "negative shape": (meta_entry("mean", shape=[-5, -32, 3]), "meta.json: damaged entry 'mean'"),
    "huge shape": (meta_entry("mean", shape=[2**40, 32, 3]), "mean.memmap: has 960 bytes, expected 2"),
    "flat shape": (meta_entry("mean", shape=[480]), "mean has shape (480,), expected (5, length, channels)"),
    "one of two": (lambda s: edit_json(s / "meta.json", sync=None), "one of clip and sync is missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_damage_is_told(store, case):
    spoil, expected = SPOILED[case]
    spoil(store)
    with pytest.raises(StoreError) as error:
        open_store(store)
    assert expected in one_line(error)
    assert str(store) in one_line(error)
    assert verify(store) == [one_line(error)]


def test_no_store(tmp_path):
    with pytest.raises(StoreError, match="no such folder; make a feature store with"):
        open_store(tmp_path / "nothing")
    with pytest.raises(StoreError, match="is no feature store"):
        open_store(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="no such folder"):
        open_store(tmp_path / "file")


def test_a_folder_that_asks_for_code_gets_none(store):
    """tensordict's own loader would import the class that meta.json names."""
    edit_json(store / "meta.json", _type="<class 'os.system'>", _class="os:system")
    assert len(open_store(store)) == 5


def test_a_store_larger_than_the_memory_opens_at_once(store):
    length = 2**40 // 100  # sparse: the file takes no room
    os.truncate(store / "clip.memmap", 5 * length * 6 * 2)
    meta_entry("clip", shape=[5, length, 6])(store)
    start = time.perf_counter()
    opened = open_store(store)
    assert opened.shapes["clip"] == (length, 6)
    assert opened.tensors["clip"][4, length - 1].tolist() == [0] * 6
    assert time.perf_counter() - start < 5


# ---- verify


def test_a_sound_store(store):
    seen = []
    assert verify(store, lambda done, total: seen.append((done, total))) == []
    assert seen[-1][0] == seen[-1][1] == sum(t.nbytes for t in open_store(store).tensors.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["mean", "std", "clip", "sync"])
def test_rows_that_are_not_finite_are_named(store, field, value):
    for row in (1, 4):
        poke(store, field, row, value)
    problems = verify(store)
    assert f"{store}: {field}: 2 of 5 hold NaN or infinite values: 'clip_1', 'clip_4'" in problems


def test_many_bad_rows_are_counted(tmp_path):
    write(tmp_path / "s", make_rows(9))
    for row in range(9):
        poke(tmp_path / "s", "sync", row, float("nan"))
    assert verify(tmp_path / "s") == [
        f"{tmp_path / 's'}: sync: 9 of 9 hold NaN or infinite values: 'clip_0', 'clip_1', 'clip_2', ..."
    ]


@pytest.mark.parametrize(
    ("field", "row", "value", "expected"),
    [
        ("std", 2, 0.0, "std: 1 of 5 are zero or negative somewhere: 'clip_2'"),
        ("clip", 3, 2.0, "clip: 1 of 5 are not of unit norm: 'clip_3'"),
        ("text", 1, 2.0, "text: 1 of 3 are not of unit norm: 'glass'"),
        ("mean", 0, 50.0, "latent_mean of channel 0 is stored as"),
    ],
)
def test_values_that_cannot_be(store, field, row, value, expected):
    poke(store, field, row, value)
    assert any(expected in problem for problem in verify(store))


def test_statistics_of_another_store(store, tmp_path):
    write(tmp_path / "other", make_rows(5, seed=9))
    shutil.copy(tmp_path / "other" / "store.json", store)
    assert {"latent_mean", "latent_std"} <= {problem.split(": ")[1].split()[0] for problem in verify(store)}
    edit_json(store / "store.json", latent_mean=[0.0])
    assert any("latent_mean has 1 channels, the latents 3" in problem for problem in verify(store))


def test_a_latent_channel_that_never_varies(tmp_path):
    rows = make_rows(3)
    for row in rows:
        row.mean[:, 1] = 2.0
    write(tmp_path / "s", rows)
    assert verify(tmp_path / "s") == [f"{tmp_path / 's'}: latent channels [1] are the same everywhere"]


def test_blocks_cover_everything(store, monkeypatch):
    monkeypatch.setattr("mmaudio.data.store.statistics.BLOCK_BYTES", 2 * 192)  # two rows of latents
    poke(store, "mean", 4, float("nan"))
    assert "'clip_4'" in verify(store)[0]
    assert isinstance(open_store(store), FeatureStore)
