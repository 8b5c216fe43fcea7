"""Half the bytes of the reference's float32 folders, and no difference to what training sees."""

import csv

import pytest
import torch
from storefiles import make_rows, make_texts, write
from tensordict import TensorDict

from mmaudio.data.store import FIELDS, FeatureBatch, open_store
from mmaudio.data.store.layout import REFERENCE_NAMES
from mmaudio.model.network import MMAudio, MMAudioConfig
from mmaudio.sequence import SPEC_16K, SPEC_44K
from mmaudio.training.task import Draw, Nets
from mmaudio.training.tasks.flow import FlowLoss

DIMS = {"latent": 40, "clip": 1024, "sync": 768, "text": 1024, "tokens": 77}  # of the 44.1 kHz variants


def folder_bytes(path):
    return sum(file.stat().st_size for file in path.iterdir())


def write_reference(path, rows, texts):
    tensors = {
        REFERENCE_NAMES[name]: torch.stack([getattr(row, name) for row in rows])
        for name in ("mean", "std", "clip", "sync") if getattr(rows[0], name) is not None
    }  # fmt: skip
    tensors[REFERENCE_NAMES["text"]] = torch.stack([texts[row.caption] for row in rows])
    TensorDict(tensors, []).memmap(path)
    with open(path / "table.tsv", "w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerows([("id", "label"), *((row.id, row.caption) for row in rows)])


@pytest.mark.parametrize("video", [True, False])
@pytest.mark.parametrize("captions", [["a dog barks", "it rains"], [f"caption {i}" for i in range(8)]])
def test_bytes_per_clip(tmp_path, captions, video):
    rows = make_rows(8, video, captions, spec=SPEC_44K, dims=DIMS)
    texts = make_texts(captions, dims=DIMS)
    write(tmp_path / "ours", rows, texts, spec=SPEC_44K)
    write_reference(tmp_path / "reference", rows, dict(texts))
    ours, theirs = open_store(tmp_path / "ours"), open_store(tmp_path / "reference")
    assert theirs.rows([7]).text[0].equal(dict(texts)[rows[7].caption])
    per_clip = [sum(tensor.nbytes for tensor in store.tensors.values()) / len(store) for store in (ours, theirs)]
    assert per_clip[0] <= per_clip[1] / 2
    if len(captions) < len(rows):  # captions that come again are stored once
        assert folder_bytes(tmp_path / "ours") < 0.45 * folder_bytes(tmp_path / "reference")
    else:  # half, but for a few kilobytes of names and statistics
        assert folder_bytes(tmp_path / "ours") < folder_bytes(tmp_path / "reference") / 2 + 5000
    print(f"{per_clip[0]:,.0f} bytes per clip, the reference {per_clip[1]:,.0f}: {per_clip[0] / per_clip[1]:.3f}")


def test_precision_makes_no_difference_to_the_loss(tmp_path):
    """The same draws on float32 features and on stored ones: they differ far less than one step does from the next."""
    network_dims = {"latent_dim": 20, "clip_dim": 64, "sync_dim": 128, "text_dim": 64}
    dims = {"latent": 20, "clip": 64, "sync": 128, "text": 64, "tokens": 77}
    spec, count = SPEC_16K.with_duration(1.0), 6
    rows, texts = make_rows(count, captions=["wood"], spec=spec, dims=dims), make_texts(["wood"], dims=dims)
    write(tmp_path / "s", rows, texts, spec=spec)
    stored = open_store(tmp_path / "s").rows(range(count))
    exact = {name: torch.stack([getattr(row, name) for row in rows]) for name in FIELDS if name != "text"}
    exact["text"] = texts[0][1].expand(count, -1, -1)
    exact = FeatureBatch(**{name: exact.get(name, value) for name, value in vars(stored).items()})

    torch.manual_seed(0)
    network = MMAudio(MMAudioConfig(hidden_dim=32, num_heads=1, joint_blocks=2, fused_blocks=1, **network_dims))
    for parameter in network.parameters():  # zero gates would keep the features from the loss
        if parameter.requires_grad and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    statistics = open_store(tmp_path / "s").latent_statistics()
    for parameter, value in ((network.latent_mean, statistics.mean), (network.latent_std, statistics.std)):
        parameter.data.copy_(value)
    variant = type("Variant", (), {"spec": spec, "drawn_latents": True})
    loss = FlowLoss(network, variant, drop=0.1, independent=True)

    def step(batch, number):
        network.zero_grad()
        total = loss(Nets(network), batch, Draw(5, number, count, slice(0, count), "cpu")).total
        total.backward()
        return total.item(), torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    losses, differences = [], []
    for number in range(8):
        (a, gradient), (b, stored_gradient) = step(exact, number), step(stored, number)
        losses.append(a)
        differences.append(abs(a - b) / a)
        assert (gradient - stored_gradient).norm() < 0.01 * gradient.norm()
    noise = torch.tensor(losses).std().item() / torch.tensor(losses).mean().item()
    print(f"relative difference at most {max(differences):.1e}, from step to step {noise:.1e}")
    assert 0 < max(differences) < noise / 50
