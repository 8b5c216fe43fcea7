"""Decoded clips: written, cut off, read, and standing where a manifest can stand."""

import dataclasses
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmaudio.data.clip_cache import CacheSpec, CacheWriter, ClipCache, listed_clips
from mmaudio.data.clips import MediaClips, ReadSound, SoundBatch
from mmaudio.data.manifest import ManifestError
from mmaudio.data.preparation import Preparation, picked
from mmaudio.data.sampler import Item
from mmaudio.media import read_video
from mmaudio.stage.export import write_mp4
from mmaudio.variants import TINY_16K

SPEC = CacheSpec(frames=200, size=64, samples=128_000, sample_rate=16_000, source="noise")


def clip(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    audio = rng.uniform(-0.9, 0.9, SPEC.samples).astype(np.float32)
    return rng.integers(0, 256, (SPEC.frames, SPEC.size, SPEC.size, 3), dtype=np.uint8), audio


def fill(folder, seeds, spec=SPEC):
    writer = CacheWriter(folder, spec)
    for seed in seeds:
        writer.append(*clip(seed), {"id": f"c{seed}", "captions": ["noise", "loud noise"]})
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("cache"), range(3))


def test_what_is_written_is_read(cache):
    rows = pickle.loads(pickle.dumps(listed_clips(cache)))
    video, audio = clip(2)
    assert [row.id for row in rows] == ["c0", "c1", "c2"]
    assert rows[2].captions == ("noise", "loud noise")
    assert torch.equal(rows[2].frames(64), torch.from_numpy(video).permute(0, 3, 1, 2))
    sound, rate = rows[2].sound()
    assert (sound.shape, rate) == ((1, 128_000), 16_000)
    assert (sound[0] - torch.from_numpy(audio)).abs().max() < 1 / 32_767


def test_a_killed_writer_goes_on(tmp_path):
    fill(tmp_path, [0, 1])
    lines = tmp_path / "clips.jsonl"
    lines.write_text(lines.read_text()[:-5])
    (tmp_path / "video.u8").write_bytes((tmp_path / "video.u8").read_bytes()[:-1000])
    assert len(ClipCache(tmp_path)) == 1
    assert CacheWriter(tmp_path, SPEC).count == 1
    fill(tmp_path, [7])
    first, second = listed_clips(tmp_path)
    assert (first.id, second.id) == ("c0", "c7")
    assert torch.equal(second.frames(64), torch.from_numpy(clip(7)[0]).permute(0, 3, 1, 2))


def test_a_writer_killed_at_its_start_loses_nothing(tmp_path, monkeypatch):
    fill(tmp_path, [0, 1])

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        CacheWriter(tmp_path, SPEC)
    monkeypatch.undo()
    assert CacheWriter(tmp_path, SPEC).count == len(ClipCache(tmp_path)) == 2


def test_it_stands_for_a_manifest(cache):
    source = MediaClips([(str(cache), 1.0)], ReadSound(16_000, 128_000), SoundBatch)
    batch = source.__getitems__([Item(1, 0)])
    assert batch.ids == ["c1"]
    assert torch.equal(batch.wave, listed_clips(cache)[1].sound()[0])


def test_it_is_prepared_like_a_file(cache, tmp_path):
    """The same frames at both rates as an mp4 of the clip would give, from the pictures before compression."""
    row = listed_clips(cache)[0]
    found = Preparation(TINY_16K, video=True, peak_normalise=False)(row)
    video = np.arange(200, dtype=np.uint8)[:, None, None, None].repeat(64, 1).repeat(64, 2).repeat(3, 3)
    path = tmp_path / "clip.mp4"
    write_mp4(path, SimpleNamespace(video=video, audio=clip(0)[1], sample_rate=16_000, fps=25))
    for rule in ("nearest", "first"):
        seen = read_video(path, 8.0, rule=rule)
        index = np.array(seen.clip_index).clip(0).tolist()
        assert picked(200, 25, 8, rule)[: len(index)] == index  # "first" loses its last slot to rounding in the file
        assert len(index) >= 63
    assert found.ids == ["c0"]
    assert torch.equal(found.sync, row.frames(64))
    assert torch.equal(found.clip, row.frames(64)[picked(200, 25, 8, "nearest")])
    assert torch.equal(found.waveforms, row.sound()[0])


def test_what_does_not_fit_is_one_line(cache, tmp_path):
    with pytest.raises(ManifestError, match=r"has clips of .* remove it or choose another"):
        CacheWriter(cache, dataclasses.replace(SPEC, source="rain"))
    with pytest.raises(ManifestError, match="pictures of 64 pixels, 224 are needed"):
        listed_clips(cache)[0].frames(224)
    with pytest.raises(ManifestError, match="is no clip cache"):
        listed_clips(tmp_path)
    CacheWriter(tmp_path / "empty", SPEC)
    with pytest.raises(ManifestError, match="lists no clips"):
        listed_clips(tmp_path / "empty")
