"""The sound stage of Synchformer: its targets are right, it learns them, and hands on the visual half alone."""

import dataclasses

import numpy as np
import pytest
import torch
from mediatasks import fit, task_config, write_films
from safetensors.torch import load_file

from mmaudio.data.clip_cache import CacheSpec, CacheWriter
from mmaudio.data.manifest import ManifestError
from mmaudio.data.sampler import Item
from mmaudio.features.synchformer import SynchformerConfig
from mmaudio.loading import load_sync
from mmaudio.training.task import Draw, Nets
from mmaudio.training.tasks import sync
from mmaudio.training.tasks.augmentation import jittered
from mmaudio.training.tasks.sync_sound import LABELS, band_levels, known_events, motion_energy, onset_strength
from mmaudio.variants import TINY_16K, VARIANTS
from mmaudio.weights import save_safetensors

SMALL = dataclasses.replace(TINY_16K, sync=SynchformerConfig(embed_dim=32, depth=1, num_heads=2, frame_size=32))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("films"))


@pytest.fixture
def build(manifest, monkeypatch):
    monkeypatch.setitem(VARIANTS, "tiny_16k", SMALL)

    def build(weights=None, stage="sound", **options):
        config = task_config("sync", manifest, {"stage": stage, "segments": 1, "duration": 1.0} | options)
        return sync.build(dataclasses.replace(config, weights=weights), CPU)

    return build


def as_it_is(task, batch) -> float:
    """The loss of a batch without jitter."""
    with torch.no_grad():
        loss = task.loss(Nets(task.network.eval()), batch, Draw(0, 0, len(batch.ids), slice(None), CPU)).total.item()
    task.network.train()
    return loss


def test_it_learns_and_hands_on_the_visual_half(build, tmp_path):
    task = build()
    batch = task.train.__getitems__([Item(i, i) for i in range(4)])
    untrained = as_it_is(task, batch)
    record = fit(task, batch, steps=60, lr=3e-3)
    trained = as_it_is(task, batch)
    assert trained < 0.85 * untrained, (trained, untrained)
    assert {"onset", "levels", "frame_motion", "patch_motion"} <= record[0].keys()
    assert task.can_accumulate
    path = tmp_path / task.file_name
    save_safetensors(path, task.export(task.network.state_dict()), task.metadata)
    assert {key.partition(".")[0] for key in load_file(path)} == {"vfeat_extractor"}
    features = load_sync(SMALL, tmp_path).encode(batch.frames)
    task.network.eval()
    assert torch.allclose(features, task.network.visual.encode(batch.frames), atol=1e-6)

    again = build(weights=str(path))
    assert torch.allclose(again.network.eval().visual.encode(batch.frames), features, atol=1e-6)
    later = build(weights=str(path), stage="contrastive", frozen=["visual"])
    assert not any(p.requires_grad for p in later.network.visual.parameters())
    with pytest.raises(ValueError, match="this stage has no audio encoder"):
        build(frozen=["audio"])


def test_onsets_are_where_something_begins():
    generator = torch.Generator().manual_seed(0)
    audio = 1e-4 * torch.randn(2, 16_000, generator=generator)  # 25 frames of hiss
    click = torch.exp(-torch.arange(3200) / 400) * torch.randn(3200, generator=generator)
    audio[0, 6720:9920] += 0.02 * click  # in the middle of frame 10
    audio[1, 6720:9920] += 0.8 * click
    strength = onset_strength(audio)
    assert strength.shape == (2, 25)
    assert strength.argmax(1).tolist() == [10, 10]
    assert strength[:, 10].min() > 0.5
    strength[:, 10] = 0
    assert strength.max() < 0.2
    levels = band_levels(audio)
    assert levels.shape == (2, 25, 8)
    assert (levels[1, 10] > levels[0, 10]).all()


def test_known_events_are_marked_by_kind_and_material_while_they_sound():
    event = {"time": 0.41, "kind": "strike", "material": "wood", "seconds": 0.0, "seen": True}
    lasting = {"time": 0.6, "kind": "rain", "material": None, "seconds": 5.0, "seen": True}
    target = known_events([event, lasting, event | {"time": 0.1, "kind": "bell", "seen": False}], 25)
    assert target.shape == (25, 1 + len(LABELS))
    assert target[:, 0].nonzero().squeeze(1).tolist() == [10, 15]
    assert target[:, 1:].nonzero().tolist() == [
        *sorted([10, LABELS.index(name)] for name in ("strike", "wood")),
        *([frame, LABELS.index("rain")] for frame in range(15, 25)),
    ]


def test_known_events_are_learned_from_a_clip_cache_and_from_nothing_else(build, tmp_path):
    with pytest.raises(ValueError, match=r"task\.events is for task\.stage=sound"):
        build(stage="contrastive", events=True)
    with pytest.raises(ManifestError, match="needs a clip cache of simulated clips"):
        build(events=True)
    rng = np.random.default_rng(0)
    writer = CacheWriter(tmp_path / "cache", CacheSpec(25, 32, 16_000, 16_000, "test"))
    for k in range(4):
        event = {"time": 0.2 + 0.1 * k, "kind": "strike", "material": "wood", "seconds": 0.0, "seen": True}
        line = {"id": str(k), "captions": ["a knock"], "events": [event]}
        video = rng.integers(0, 255, (25, 32, 32, 3)).astype(np.uint8)
        writer.append(video, rng.normal(size=16_000).astype(np.float32) / 9, line)
    config = task_config("sync", tmp_path / "cache", {"stage": "sound", "segments": 1, "duration": 1.0, "events": True})
    task = sync.build(config, CPU)
    batch = task.train.__getitems__([Item(i, i) for i in range(4)])
    assert batch.events.shape == (4, 16, 1 + len(LABELS))
    record = fit(task, batch, steps=60, lr=3e-3)
    for part, share in (("begins", 0.8), ("events", 0.5)):
        assert record[-1][part] < share * record[0][part]
    assert {key.partition(".")[0] for key in task.export(task.network.state_dict())} == {"vfeat_extractor"}


def test_motion_energy_sees_what_moves():
    frames = torch.zeros(1, 16, 3, 64, 64)
    frames[:, 8:, :, :16, :16] = 1.0  # the first patch jumps once
    energy = motion_energy(frames, 16)
    assert energy.shape == (1, 16, 16)
    assert energy[0, 8, 0] > 2
    energy[0, 8, 0] = 0
    assert energy.abs().max() == 0


def test_jitter_is_one_for_all_frames_of_a_row():
    frames = torch.randint(0, 256, (6, 1, 3, 16, 16), dtype=torch.uint8).expand(6, 5, 3, 16, 16)
    out = jittered(frames, Draw(0, 0, 6, slice(None), CPU))
    assert (out.shape, out.dtype) == (frames.shape, torch.uint8)
    assert torch.equal(out[:, 0], out[:, 4])
    assert all(not torch.equal(a, b) for a, b in zip(out, frames, strict=True))
    assert torch.equal(jittered(frames[:, 0], Draw(0, 0, 6, slice(None), CPU)), out[:, 0])  # pictures too
    half = jittered(frames[3:], Draw(0, 0, 6, slice(3, 6), CPU))  # a rank's share
    assert torch.equal(half, out[3:])
