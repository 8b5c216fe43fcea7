"""Training on pieces of clips: `task.seconds`."""

import dataclasses

import pytest
import torch
from small import SMALL, SmallSource, small_task

from mmaudio.data.sampler import Item
from mmaudio.data.store import FeatureBatch
from mmaudio.training.task import Draw, Nets
from mmaudio.training.tasks.distill import FewStepLoss, GuidanceLoss, Teacher
from mmaudio.training.tasks.flow import FlowLoss
from mmaudio.variants import get_variant


def draw(step: int, rows: int) -> Draw:
    return Draw(seed=1, step=step, total=rows, rows=slice(rows), device="cpu")


def clocked(spec, rows: int) -> FeatureBatch:
    """Features that say in seconds when they begin."""
    token = torch.arange(spec.sync_len)
    times = {
        "mean": torch.arange(spec.latent_len) / spec.latent_rate,
        "clip": torch.arange(spec.clip_len) / spec.clip_fps,
        "sync": token // spec.sync_tokens_per_segment * spec.sync_step / spec.sync_fps,
    }
    fields = {name: time[None, :, None].expand(rows, -1, 3) for name, time in times.items()}
    exist = torch.ones(rows, dtype=torch.bool)
    return FeatureBatch(
        ids=[""] * rows, captions=[None] * rows, **fields, std=fields["mean"] + 0.5, text=torch.ones(rows, 77, 3),
        video_exist=exist, text_exist=exist,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["tiny_16k", "small_44k"])
@pytest.mark.parametrize("seconds", [0.64, 2.56, 7.9, 8.0])
def test_a_piece_is_of_one_time(name, seconds):
    """All features of a piece begin together, as nearly as their rates allow, and pieces come from everywhere."""
    variant = get_variant(name)
    loss = FlowLoss(small_task().network, variant, drop=0.1, independent=False, seconds=seconds)
    rows = 64
    piece = loss.pieces(clocked(variant.spec, rows), draw(0, rows))
    spec = variant.spec.with_duration(seconds)
    assert piece.mean.shape == piece.std.shape == (rows, spec.latent_len, 3)
    assert piece.clip.shape == (rows, spec.clip_len, 3)
    assert piece.sync.shape == (rows, spec.sync_len, 3)
    start = piece.sync[:, 0, 0]
    assert (piece.mean[:, 0, 0] - start).abs().max() <= 0.0162  # half a latent
    assert (piece.clip[:, 0, 0] - start).abs().max() <= 0.0626  # half a frame
    torch.testing.assert_close(piece.std, piece.mean + 0.5)
    assert (piece.mean.diff(dim=1) > 0).all()
    assert start.min() == 0
    assert start.max() == pytest.approx(int((8.0 - seconds) / 0.32 + 1e-6) * 0.32, abs=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda network: FlowLoss(network, SMALL, 0.0, False, seconds=1.0),
        lambda network: GuidanceLoss(Teacher(network, 2.0), SMALL, 0.0, False, "cpu", seconds=1.0),
        lambda network: FewStepLoss(Teacher(network, 2.0), SMALL, 0.0, False, "cpu", [1, 2], 2, seconds=1.0),
    ],
    ids=["flow", "guidance", "few_step"],
)
def test_training_takes_another_piece_each_time(make):
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, latent, t, **features):
            seen.append(features)
            return latent

    network = small_task().network
    batch = SmallSource(8).__getitems__([Item(row, 0) for row in range(8)])
    loss = make(network)
    for step in (0, 0, 1):
        loss(Nets(Spy()), batch, draw(step, 8))
    same, again, other = (features["sync"] for features in seen)
    assert same.shape[1] == seen[0]["spec"].sync_len < batch.sync.shape[1]
    assert torch.equal(same, again)
    assert not torch.equal(same, other)
    assert seen[0]["spec"] == SMALL.spec.with_duration(1.0)


@pytest.mark.parametrize("drawn", [True, False])
def test_latents_are_drawn_or_means(drawn):
    variant = dataclasses.replace(SMALL, drawn_latents=drawn)
    network = small_task().network
    network.latent_mean.fill_(0.5)
    network.latent_std.fill_(2.0)
    batch = SmallSource(8).__getitems__([Item(row, 0) for row in range(8)])
    found = FlowLoss(network, variant, drop=0.0, independent=False).latents(batch, draw(0, 8))
    apart = found - (batch.mean - 0.5) / 2
    if drawn:
        torch.testing.assert_close(apart.std(), (batch.std / 2).square().mean().sqrt(), rtol=0.05, atol=0)
    else:
        torch.testing.assert_close(apart, torch.zeros_like(apart))


@pytest.mark.parametrize("seconds", [0.5, 8.1, -1, float("nan")])
def test_an_impossible_length_is_refused(seconds):
    with pytest.raises(ValueError, match=r"task.seconds is .*expected 0.64 to 8 s"):
        FlowLoss(small_task().network, get_variant("tiny_16k"), drop=0.1, independent=False, seconds=seconds)
