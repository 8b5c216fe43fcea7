"""Both stages of Synchformer's training learn, follow the grid of offsets, and write what the loaders read."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mmaudio.data.manifest import ManifestRow
from mmaudio.data.preparation import ClipError
from mmaudio.data.sampler import Item
from mmaudio.features.synchformer import SynchformerConfig
from mmaudio.features.synchformer_audio import SynchformerAudioConfig
from mmaudio.features.synchformer_offset import OffsetHeadConfig, offset_grid
from mmaudio.loading import load_sync, load_synchformer
from mmaudio.media import MediaError, write_audio
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4
from mmaudio.training.config import DataConfig, DataEntry, TrainConfig
from mmaudio.training.task import Nets
from mmaudio.training.tasks import sync
from mmaudio.variants import VARIANTS
from mmaudio.weights import WeightError, save_safetensors

SMALL = dataclasses.replace(
    VARIANTS["tiny_16k"],
    sync=SynchformerConfig(embed_dim=32, depth=1, num_heads=2, frame_size=32),
    sync_audio=SynchformerAudioConfig(embed_dim=32, depth=1, num_heads=2),
    sync_head=OffsetHeadConfig(embed_dim=32, depth=1, num_heads=2),
)
ITEMS = [Item(row, key=row) for row in range(4)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for seed in range(4):
        write_mp4(folder / f"{seed}.mp4", render_clip(seed, size=32, duration=7.0, family="strike"))
    path = folder / "clips.tsv"
    path.write_text("id\tpath\n" + "".join(f"clip_{seed}\t{seed}.mp4\n" for seed in range(4)))
    return path


@pytest.fixture
def build(manifest, monkeypatch):
    monkeypatch.setitem(VARIANTS, "tiny_16k", SMALL)

    def build(weights=None, manifests=(manifest,), **options):
        data = DataConfig(train=[DataEntry(manifest=str(path)) for path in manifests])
        config = TrainConfig(variant="tiny_16k", weights=weights, task={"name": "sync", **options}, data=data)
        return sync.build(config, torch.device("cpu"))

    return build


def fit(task, steps: int, lr: float) -> tuple[dict, float, float]:
    """Gradient norms of the first step by parameter, first and last loss on one batch."""
    batch, network = task.train.__getitems__(ITEMS), task.network.train()
    trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trainable.values(), lr=lr)
    losses, norms = [], {}
    for _ in range(steps):
        loss = task.loss(Nets(network), batch, None).total
        optimizer.zero_grad()
        loss.backward()
        norms = norms or {name: 0.0 if p.grad is None else p.grad.norm().item() for name, p in trainable.items()}
        optimizer.step()
        losses.append(loss.item())
    return norms, losses[0], losses[-1]


def save(task, folder, **state):
    path = folder / task.file_name
    save_safetensors(path, task.export(task.network.state_dict() | state), task.metadata)
    return path


def test_contrastive_stage_then_offset_stage(build, tmp_path):
    first = build(segments=2)
    norms, start, end = fit(first, steps=40, lr=1e-3)
    assert start == pytest.approx(math.log(8), rel=0.5)  # 8 segments to choose from
    assert end < start / 1.5
    assert min(norms.values()) > 0
    assert not first.can_accumulate
    weights = save(first, tmp_path / "first")
    assert load_sync(SMALL, tmp_path / "first").vfeat_extractor.norm.weight.shape == (32,)

    second = build(str(weights), stage="offset")
    norms, start, end = fit(second, steps=20, lr=3e-3)
    assert start == pytest.approx(math.log(21), rel=0.3)
    assert end < start / 2
    assert all(name.startswith("head.") for name in norms)
    assert min(norms.values()) > 0
    save(second, tmp_path / "second")
    whole = load_synchformer(SMALL, tmp_path / "second")
    aggregation, learnt = (x.audio.afeat_extractor.freq_attn_agg for x in (whole, first.network))
    assert torch.equal(aggregation.cls_token, learnt.cls_token)
    batch = second.train.__getitems__(ITEMS)
    assert torch.allclose(whole(batch.frames, batch.audio), second.network.eval()(batch.frames, batch.audio), atol=1e-5)


def test_offset_stage_can_train_everything(build):
    task = build(stage="offset", frozen=[])
    norms, _, _ = fit(task, steps=1, lr=0.0)
    assert min(norms.values()) > 0
    assert {name.partition(".")[0] for name in norms} == {"visual", "audio", "head"}
    parts = task.loss(Nets(task.network), task.train.__getitems__(ITEMS), None).parts
    assert 0 <= parts["exact"] <= parts["within_one"] <= 1


def test_one_item_is_one_span(build):
    source = build(stage="offset", frozen=[]).train
    a, b, c = (source.__getitems__([item]) for item in (Item(0, 5), Item(0, 5), Item(0, 6)))
    assert a.frames.shape == (1, 120, 3, 32, 32)
    assert a.audio.shape == (1, 76_800)
    assert torch.equal(a.frames, b.frames)
    assert torch.equal(a.audio, b.audio)
    assert not torch.equal(a.audio, c.audio)


def test_offsets_follow_the_grid(monkeypatch):
    read = sync.ReadSpan(frame_size=32, segments=14, duration=8.0, offset=True)
    frame, sample = torch.arange(200), torch.arange(200 * 640)
    monkeypatch.setattr(sync.ReadSpan, "clip", lambda self, row: (frame, sample))
    spans = [read(None, np.random.default_rng(key)) for key in range(300)]
    for span in spans:
        early = (span["audio"][0] / 16_000 - span["frames"][0] / 25).item()  # what is heard comes from later on
        assert early == pytest.approx(offset_grid()[span["target"]].item(), abs=1e-6)
        assert len(span["frames"]) * 640 == len(span["audio"]) == 76_800
    assert {span["target"].item() for span in spans} == set(range(21))
    starts = [span["frames"][0].item() for span in spans]
    assert min(starts) == 0
    assert max(starts) == 80  # 8 s hold 4.8 s from 3.2 s on

    in_step = dataclasses.replace(read, offset=False, segments=2)
    for key in range(20):
        span = in_step(None, np.random.default_rng(key))
        assert (len(span["frames"]), span["target"]) == (24, 10)
        assert span["audio"][0] == span["frames"][0] * 640


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": "third"}, "task.stage must be one of sound, contrastive, hearing, offset, got 'third'"),
        ({"segments": 0}, "task.segments must be above zero, got 0"),
        ({"segments": 25}, "task.duration is 8 s, but 25 segments need 8.32 s"),
        ({"stage": "offset", "frozen": [], "duration": 6.0}, "14 segments and the offsets need 6.8 s"),
        ({"stage": "offset"}, "task.frozen would keep an untrained visual encoder: set weights=FILE"),
        ({"frozen": ["ears"]}, "task.frozen can hold visual, audio, got 'ears'"),
        ({"nonsense": 1}, "'nonsense'"),
        ({"manifests": ()}, "data.train is empty"),
    ],
)
def test_bad_options(build, options, message):
    with pytest.raises(ValueError, match=message) as error:
        build(**options)
    assert "\n" not in str(error.value)


def test_bad_weights(build, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_safetensors(path, {"vfeat_extractor.norm.weight": torch.ones(32)})
    with pytest.raises(WeightError, match=r"weights\.safetensors: does not fit SynchformerVisual: \d+ keys missing"):
        build(str(path))
    save_safetensors(path, {"decoder.weight": torch.ones(32)})
    with pytest.raises(WeightError, match=r"weights\.safetensors: decoder\.weight is of no part of Synchformer"):
        build(str(path))


def test_unusable_media_are_named(manifest, tmp_path):
    read = sync.ReadSpan(frame_size=32, segments=14, duration=8.0, offset=True)
    rng = np.random.default_rng(0)
    with pytest.raises(MediaError, match=r"gone\.mp4: there is no such file"):
        read(ManifestRow("a", tmp_path / "gone.mp4"), rng)
    write_audio(tmp_path / "sound.wav", np.zeros((1, 16_000), np.float32), 16_000)
    with pytest.raises(MediaError, match=r"sound\.wav: has no video"):
        read(ManifestRow("a", tmp_path / "sound.wav"), rng)
    with pytest.raises(
        ClipError, match=r"0\.mp4: has 6 s of picture and sound from 1 s on, needs 6\.8 s; leave clip a"
    ):
        read(ManifestRow("a", manifest.parent / "0.mp4", start=1.0), rng)


def network_of(frames, audio, weight):
    def unit(x):
        return torch.nn.functional.normalize(x @ weight, dim=-1)

    return unit(frames), unit(audio), torch.full((1,), 5.0)


def loss_and_gradient(rows: slice) -> tuple[float, torch.Tensor]:
    """Of some rows of the same four clips; the encoders are one matrix."""
    generator = torch.Generator().manual_seed(0)
    frames, audio, weight = (torch.randn(4, 4, generator=generator) for _ in range(3))
    weight.requires_grad_()

    class Network:
        training = True

        def __call__(self, frames, audio):
            return network_of(frames, audio, weight)

    batch = SimpleNamespace(frames=frames[rows], audio=audio[rows])
    loss = sync.contrastive_loss(Nets(Network()), batch, None).total
    loss.backward()
    return loss.item(), weight.grad


def one_of_two(rank: int, store: str, results) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    loss, gradient = loss_and_gradient(slice(2 * rank, 2 * rank + 2))
    dist.all_reduce(gradient)
    results.put((loss, (gradient / 2).tolist()))  # the mean over ranks, as data-parallel training takes it
    dist.barrier()
    dist.destroy_process_group()


def test_ranks_do_not_change_the_contrastive_loss(tmp_path):
    loss, gradient = loss_and_gradient(slice(None))
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    mp.spawn(one_of_two, (str(tmp_path / "store"), results), nprocs=2)
    for _ in range(2):
        their_loss, their_gradient = results.get()
        assert their_loss == pytest.approx(loss, rel=1e-6)
        assert torch.allclose(torch.tensor(their_gradient), gradient, atol=1e-6)
