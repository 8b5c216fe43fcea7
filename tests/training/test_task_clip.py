"""CLIP's task: it learns, compares the clips of all ranks with each other, and writes what inference loads."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from mediatasks import draw, fit, read_batch, task_config, without_gradient, write_films, write_manifest
from PIL import Image
from torch import nn

from mmaudio.data.clip_cache import CacheSpec, CacheWriter
from mmaudio.data.manifest import ManifestError, ManifestRow
from mmaudio.data.sampler import Item
from mmaudio.features.clip import ClipEncoder, tokenize
from mmaudio.loading import load_clip_text, load_clip_vision
from mmaudio.media import MediaError, read_video
from mmaudio.model.layers import unit_variance
from mmaudio.stage import LABELS
from mmaudio.training.config import DataConfig, DataEntry
from mmaudio.training.task import Nets
from mmaudio.training.tasks import clip, clip_events
from mmaudio.variants import VARIANTS
from mmaudio.weights import save_safetensors

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("films"))


def build(manifest, options=None, **changes):
    return clip.build(task_config("clip", manifest, options, **changes), CPU)


def test_it_learns_and_the_result_loads(films, tmp_path):
    task = build(films)
    batch = read_batch(task)
    record = fit(task, batch, steps=12, lr=1e-3)
    assert record[-1]["loss"] < 0.2 * record[0]["loss"]
    assert record[-1]["top1"] == 1
    assert without_gradient(task.network) == []
    assert not task.can_accumulate

    save_safetensors(tmp_path / task.file_name, task.export(task.network.state_dict()), task.metadata)
    tiny = VARIANTS["tiny_16k"]
    encoder = ClipEncoder(load_clip_vision(tiny, tmp_path), load_clip_text(tiny, tmp_path))
    with torch.no_grad():
        image, _, _ = task.network.eval()(clip.clip_normalize(batch.frame), batch.tokens)
    assert torch.allclose(encoder.image(batch.frame[:, None])[:, 0], image, atol=1e-5)
    assert encoder.text(["a ball"]).shape == (1, 77, 64)

    again = build(films, weights=str(tmp_path / task.file_name))
    assert all(torch.equal(x, again.network.state_dict()[name]) for name, x in task.network.state_dict().items())


class Towers(nn.Module):
    """As CLIP is called, in a hundredth of the time."""

    def __init__(self, events: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.events = events
        self.image, self.text, self.labels = nn.Linear(48, 8), nn.Linear(77, 8), nn.Linear(8, 2)
        self.scale = nn.Parameter(torch.tensor([1.0]))

    def forward(self, image, tokens):
        image, text = (F.normalize(x, dim=-1) for x in (self.image(image.flatten(1)), self.text(tokens / 49408)))
        known = [torch.stack([self.labels(image), self.labels(text)], 1)] if self.events else []
        return image, text, self.scale.exp(), *known


def toy_batch(captions: list[str]) -> clip.ClipBatch:
    frames = torch.randint(0, 256, (len(captions), 3, 4, 4), generator=torch.Generator().manual_seed(7))
    labels = torch.arange(len(captions) * 4).view(-1, 2, 2) % 3 / 2
    return clip.ClipBatch(captions, frames.to(torch.uint8), tokenize(captions), labels)


def test_loss_is_open_clips_where_all_captions_differ():
    from open_clip.loss import ClipLoss

    batch, towers = toy_batch(["rain", "a dog", "a train", "a bell"]), Towers()
    features = towers(clip.clip_normalize(batch.frame), batch.tokens)
    loss = clip.contrastive_loss(Nets(towers), batch, draw(batch)).total
    assert loss.item() == pytest.approx(ClipLoss()(*features).item(), rel=1e-6)


def test_equal_captions_are_no_negatives():
    pair = toy_batch(["rain", "rain"])  # nothing to be told apart
    assert clip.contrastive_loss(Nets(Towers()), pair, draw(pair)).total.item() == 0
    batch, towers = toy_batch(["rain", "a dog", "rain"]), Towers()
    image, text, scale = towers(clip.clip_normalize(batch.frame), batch.tokens)
    logits = scale * image @ text.T
    logits[[0, 2], [2, 0]] = -math.inf
    expected = (F.cross_entropy(logits, torch.arange(3)) + F.cross_entropy(logits.T, torch.arange(3))) / 2
    losses = clip.contrastive_loss(Nets(towers), batch, draw(batch))
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-6)


CAPTIONS = ["rain", "a dog", "rain", "a bell", "a dog", "a train"]


def one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    whole, towers = toy_batch(CAPTIONS), Towers(events=True)
    mine = slice(3 * rank, 3 * rank + 3)
    batch = clip.ClipBatch(whole.ids[mine], whole.frame[mine], whole.tokens[mine], whole.labels[mine])
    nets = Nets(nn.parallel.DistributedDataParallel(towers))  # must outlive the backward pass
    losses = clip.contrastive_loss(nets, batch, draw(batch))
    losses.total.backward()
    dist.all_reduce(total := losses.total.detach() / 2)
    torch.save([total, *(p.grad for p in towers.parameters())], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_learn_what_one_does(tmp_path):
    batch, towers = toy_batch(CAPTIONS), Towers(events=True)
    loss = clip.contrastive_loss(Nets(towers), batch, draw(batch)).total
    loss.backward()
    torch.multiprocessing.start_processes(one_rank, (str(tmp_path),), nprocs=2, start_method="spawn")
    for rank in range(2):
        numbers = torch.load(tmp_path / f"{rank}.pt")
        for found, expected in zip(numbers, [loss.detach(), *(p.grad for p in towers.parameters())], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_the_frame_is_the_one_shown_then(films):
    path = films.parent / "1.mp4"
    frames = read_video(path, rule="nearest").sync
    for index in (0, 13, 21):
        assert torch.equal(clip.frame_at(path, index / 25, lambda frame: frame), frames[index])


def test_frames_are_of_the_span_that_the_caption_speaks_of(films):
    read, frames = clip.ReadFrame(64, 0.4, crop=1.0), read_video(films.parent / "1.mp4", rule="nearest").sync
    row = ManifestRow("one", films.parent / "1.mp4", "a ball", start=0.2)
    picked = [read(row, np.random.default_rng(key))["frame"] for key in range(8)]
    index = [(frames.float() - frame).abs().mean((1, 2, 3)).argmin().item() for frame in picked]
    assert 5 <= min(index) < max(index) <= 15
    assert torch.equal(picked[3], read(row, np.random.default_rng(3))["frame"])


def test_crops_are_parts_of_the_frame():
    frame = torch.arange(40).view(1, 1, 40).expand(3, 20, 40).contiguous()
    crops = [clip.cropped(np.random.default_rng(key), 0.5, lambda x: x)(frame) for key in range(20)]
    assert all(10 <= crop.shape[1] <= 20 <= crop.shape[2] <= 40 for crop in crops)
    assert len({tuple(crop.shape) for crop in crops}) > 10
    assert all((crop.diff(dim=2) == 1).all() for crop in crops)
    assert torch.equal(clip.cropped(np.random.default_rng(0), 1.0, lambda x: x)(frame), frame)


def test_pictures_do_as_well(tmp_path):
    Image.new("RGB", (80, 60), (255, 0, 0)).save(tmp_path / "red.png")
    task = build(write_manifest(tmp_path, ["id\tpath\tcaption", "r\tred.png\tred"]))
    batch = read_batch(task, 2)
    assert batch.frame.shape == (2, 3, 64, 64)
    assert batch.frame.float().mean((0, 2, 3)).tolist() == [255, 0, 0]
    assert torch.equal(batch.tokens[0], tokenize(["red"])[0])


HEARD = [
    {"kind": "strike", "material": "wood", "seen": True, "time": 0.1, "seconds": 0.0},
    {"kind": "rain", "material": None, "seen": False, "time": 0.0, "seconds": 1.0},
]
SHATTERS = [{"kind": "shatter", "material": "glass", "seen": True, "time": 0.5, "seconds": 0.0}]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    writer = CacheWriter(folder, CacheSpec(2, 64, 0, 16_000, "test"))
    scenes = {"wood": ("a stick on wood in the rain", HEARD), "glass": ("a glass breaks", SHATTERS)}
    for shade, (name, (caption, events)) in zip((0, 255), scenes.items(), strict=True):
        frames = np.full((2, 64, 64, 3), shade, np.uint8)
        writer.append(frames, np.zeros(0, np.float32), {"id": name, "captions": [caption], "events": events})
    return folder


def test_labels_are_what_is_seen_and_what_is_told(simulated):
    labels = read_batch(build(simulated, {"events": True}), 2).labels
    names = [[{LABELS[i] for i in row.nonzero()[:, 0]} for row in clip] for clip in labels]
    assert names == [[{"strike", "wood"}, {"strike", "wood", "rain"}], [{"shatter", "glass"}] * 2]
    assert read_batch(build(simulated), 2).labels.shape == (2, 0)


def test_both_towers_learn_events_and_what_they_give_says_them(simulated, tmp_path):
    task = build(simulated, {"events": True})
    network, batch = task.network, read_batch(task, 2)
    assert len(task.blocks(network)) == 3 + 2
    sum(clip_events.events_loss(network(clip.clip_normalize(batch.frame), batch.tokens)[3], batch.labels)).backward()
    for first_layer in (network.clip.visual.conv1, network.clip.token_embedding):  # not the read-outs alone
        assert first_layer.weight.grad.abs().sum() > 0

    first, *_, last = fit(task, batch, steps=40, lr=2e-3)
    for part in ("seen", "told"):
        assert last[part] < 0.2 * first[part]
    save_safetensors(tmp_path / task.file_name, task.export(network.state_dict()), task.metadata)
    tiny = VARIANTS["tiny_16k"]
    encoder = ClipEncoder(load_clip_vision(tiny, tmp_path), load_clip_text(tiny, tmp_path))
    frame, words = encoder.image(batch.frame[:, None])[:, 0], encoder.text([row.caption for row in task.train.rows])
    with torch.no_grad():
        said = [network.seen(unit_variance(frame)), network.told(unit_variance(words).mean(1))]
        *plain, logits = network.eval()(clip.clip_normalize(batch.frame), batch.tokens)
        torch.testing.assert_close(torch.stack(said, 1), logits)
        torch.testing.assert_close(plain, list(network.clip(clip.clip_normalize(batch.frame), batch.tokens)))
    assert torch.equal(logits > 0, batch.labels > 0.5)

    again = build(simulated, {"events": True}, weights=str(tmp_path / task.file_name)).network.clip
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in network.clip.state_dict().items())


def test_events_are_learned_from_simulated_clips_alone(films, simulated, tmp_path):
    with pytest.raises(ManifestError, match="needs a clip cache of simulated clips"):
        build(films, {"events": True})
    writer = CacheWriter(tmp_path / "filmed", CacheSpec(2, 64, 0, 16_000, "test"))
    line = {"id": "one", "captions": ["a dog"]}
    writer.append(np.zeros((2, 64, 64, 3), np.uint8), np.zeros(0, np.float32), line)
    with pytest.raises(ManifestError, match="one: its line lists no events"):
        build(tmp_path / "filmed", {"events": True})
    filmed, cache = DataEntry(manifest=str(tmp_path / "filmed")), DataEntry(manifest=str(simulated))
    data = DataConfig(train=[cache], validation=[filmed])
    with pytest.raises(ManifestError, match="one: its line lists no events"):
        build(simulated, {"events": True}, data=data)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"crop": 0.0}, r"task\.crop must be above 0"), ({"crops": 1.0}, "task clip: Key 'crops'.*options are crop")],
)
def test_bad_settings_are_one_line(films, options, message):
    with pytest.raises(ValueError, match=message) as error:
        build(films, options)
    assert "\n" not in str(error.value)


def test_bad_data_are_one_line(films, tmp_path):
    with pytest.raises(ManifestError, match=r"clip a .*has no caption"):
        build(write_manifest(tmp_path, ["id\tpath", "a\ta.mp4"]))
    (tmp_path / "a.mp4").write_bytes(b"no film")
    task = build(write_manifest(tmp_path, ["id\tpath\tcaption", "a\ta.mp4\train"]))
    with pytest.raises(MediaError, match=r"a\.mp4") as error:
        task.train.__getitems__([Item(0, 0)])
    assert "\n" not in str(error.value)
