"""The hearing stage: either half answers alike, heads look at lags, and stored features stand in for frames."""

import dataclasses

import pytest
import torch
from mediatasks import fit, task_config
from safetensors.torch import load_file

from mmaudio.data.clip_cache import CacheSpec, CacheWriter, ClipCache
from mmaudio.data.preparation import ClipError
from mmaudio.data.sampler import Item
from mmaudio.features.synchformer import SynchformerConfig, SynchformerVisual
from mmaudio.features.synchformer_audio import SynchformerAudioConfig
from mmaudio.features.synchformer_offset import OffsetHeadConfig, OffsetTransformer, offset_grid
from mmaudio.stage import render_clip
from mmaudio.training.task import Nets
from mmaudio.training.tasks import sync, sync_features
from mmaudio.training.tasks.sync_hearing import ANSWERS, moments, start_from_lags
from mmaudio.variants import TINY_16K, VARIANTS
from mmaudio.weights import save_safetensors

SMALL = dataclasses.replace(
    TINY_16K,
    sync=SynchformerConfig(embed_dim=64, depth=1, num_heads=2, frame_size=32),
    sync_audio=SynchformerAudioConfig(embed_dim=64, depth=1, num_heads=2),
    sync_head=OffsetHeadConfig(embed_dim=64, depth=2, num_heads=2),
)
CLIPS, CPU = 4, torch.device("cpu")
ITEMS = [Item(row, key=row) for row in range(CLIPS)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A clip cache, a visual half, and a stand-in for the feature store that it made of the clips."""
    folder = tmp_path_factory.mktemp("hearing")
    writer = CacheWriter(folder / "clips", CacheSpec(200, 32, 128_000, 16_000, "test"))
    for seed in range(CLIPS):
        clip = render_clip(seed, duration=8, size=32, sample_rate=16_000, family="strike")
        writer.append(clip.video, clip.audio, {"id": f"c{seed}", "captions": ["a knock"]})
    torch.manual_seed(0)
    visual = SynchformerVisual(SMALL.sync).eval()
    save_safetensors(folder / "visual.safetensors", visual.state_dict())
    frames = [row.frames(32) for row in ClipCache(folder / "clips").clips()]
    return folder, torch.cat([visual.encode(clip[None]) for clip in frames]).bfloat16()


class Store:
    def __init__(self, path, features):
        self.path, self.has_video = path, features is not None
        self.ids, self.tensors = [f"c{i}" for i in range(CLIPS)], {"sync": features}


@pytest.fixture
def build(world, monkeypatch):
    folder, features = world
    monkeypatch.setitem(VARIANTS, "tiny_16k", SMALL)
    stores = {"features": features, "others": features.flip(0), "sounds": None}
    monkeypatch.setattr(sync_features, "open_store", lambda path: Store(path, stores[path]))

    def build(stage="hearing", store="features", weights=None, **options):
        config = task_config("sync", folder / "clips", {"stage": stage} | options)
        config.data.train[0].store = store
        return sync.build(dataclasses.replace(config, weights=str(weights or folder / "visual.safetensors")), CPU)

    return build


def test_both_halves_learn_the_same_answers_and_hand_on_all_parts(build, tmp_path):
    task = build(segments=4)
    batch = task.train.__getitems__(ITEMS)
    assert batch.frames.shape == (CLIPS, 4, 8, 64)
    record = fit(task, batch, steps=40, lr=3e-3)
    assert all(record[-1][part] < 0.7 * record[0][part] for part in ("heard_onset", "heard_levels"))
    assert record[-1]["seen_levels"] < record[0]["seen_levels"]  # this visual half is untrained
    trained = {name.partition(".")[0] for name, p in task.network.named_parameters() if p.requires_grad}
    assert trained == {"audio", "head"}
    path = tmp_path / task.file_name
    save_safetensors(path, task.export(task.network.state_dict()), task.metadata)
    assert {key.partition(".")[0] for key in load_file(path)} == set(sync.PARTS)

    later = build("offset", weights=path)
    assert torch.equal(later.network.head.aproj.weight, task.network.head.aproj.weight)
    batch = later.train.__getitems__(ITEMS)
    assert batch.frames.shape == (CLIPS, 14, 8, 64)
    assert sync.offset_loss(Nets(later.network), batch, None).total.requires_grad


def test_stored_features_are_those_of_the_frames_of_the_same_span(build, world):
    kept, seen = build("offset", frozen=["visual"]).train, build("offset", None, frozen=["visual"]).train
    visual = SynchformerVisual(SMALL.sync).eval()
    visual.load_state_dict(load_file(world[0] / "visual.safetensors"))
    whole = [row.frames(32) for row in seen.rows]
    for item in (Item(row, key) for row in range(CLIPS) for key in range(10)):
        batch = kept.__getitems__([item])
        sound = seen.rows[item.row].sound()[0][0]
        begins = (
            next(n for n in range(0, len(sound), 640) if torch.equal(sound[n : n + 76_800], batch.audio[0])) / 16_000
        )
        start = round((begins - offset_grid()[batch.target].item()) * 25)  # the frame that the features begin with
        assert start % 8 == 0
        made = visual.encode(whole[item.row][None, start : start + 120]).unflatten(1, (-1, 8))
        torch.testing.assert_close(batch.frames, made, atol=0.03, rtol=0.03)


def test_stores_that_do_not_fit_are_refused(build, world):
    with pytest.raises(ValueError, match="others: another visual half made it"):
        build(store="others")
    with pytest.raises(ValueError, match="sounds: has no features of pictures"):
        build(store="sounds")
    with pytest.raises(ValueError, match=r"a store beside a manifest is for a frozen visual half: set task\.frozen"):
        build("contrastive")
    task = build()
    task.train.rows[1] = dataclasses.replace(task.train.rows[1], id="gone")
    with pytest.raises(ClipError, match="clip gone is in no store"):
        task.train.__getitems__([Item(1, 0)])
    config = task_config("sync", world[0] / "clips", {"stage": "hearing"}, weights=str(world[0] / "visual.safetensors"))
    config.data.validation.append(dataclasses.replace(config.data.train[0], store="features"))
    with pytest.raises(ValueError, match="give a store to all data entries, or to none"):
        sync.build(config, CPU)


def test_the_head_starts_as_a_comparison_at_every_lag():
    config, generator = OffsetHeadConfig(embed_dim=128), torch.Generator().manual_seed(0)
    transformer = OffsetTransformer(config)
    start_from_lags(transformer, config)
    classes = torch.arange(2, 19).repeat(3)
    happens = (
        torch.rand(len(classes), 90, 1, generator=generator) < 0.15
    ).float() * 4 - 0.6  # every 0.1 s, from -2 s on
    happens = happens.expand(-1, -1, ANSWERS) + 0.3 * torch.randn(len(classes), 90, ANSWERS, generator=generator)

    def tokens(times: torch.Tensor) -> torch.Tensor:
        x = torch.randn(len(classes), times.shape[1], 128, generator=generator)
        x[..., :ANSWERS] = happens.gather(1, ((times + 2) * 10).long().clamp(0, 89)[..., None].expand(-1, -1, ANSWERS))
        return x

    early = offset_grid()[classes][:, None]
    with torch.no_grad():
        found = transformer(tokens(moments(14, 8).expand(len(classes), -1)), tokens(moments(14, 6) + early)).argmax(1)
    assert ((found - classes).abs() <= 1).float().mean() > 0.7
    assert (found == classes).float().mean() > 0.35
