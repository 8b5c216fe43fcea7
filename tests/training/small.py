"""The real flow loss on a small network and random features: for what must not depend on how the work is shared."""

import dataclasses

import torch
from torch import Tensor
from toy import toy_config

from mmaudio.data.sampler import Item, weighted_order
from mmaudio.data.store import FeatureBatch
from mmaudio.model.network import MMAudio, MMAudioConfig
from mmaudio.training.config import EMAConfig, OptimizerConfig, TrainConfig
from mmaudio.training.task import Task
from mmaudio.training.tasks.flow import FlowLoss
from mmaudio.variants import TINY_16K

NETWORK = MMAudioConfig(
    latent_dim=6, hidden_dim=32, num_heads=1, joint_blocks=2, fused_blocks=1, clip_dim=8, sync_dim=12, text_dim=8
)
SMALL = dataclasses.replace(TINY_16K, network=NETWORK, spec=TINY_16K.spec.with_duration(2.0))


class SmallSource:
    def __init__(self, count: int):
        g, spec, c = torch.Generator().manual_seed(8), SMALL.spec, NETWORK
        self.tensors = {
            "mean": torch.randn(count, spec.latent_len, c.latent_dim, generator=g),
            "std": torch.rand(count, spec.latent_len, c.latent_dim, generator=g),
            "clip": torch.randn(count, spec.clip_len, c.clip_dim, generator=g),
            "sync": torch.randn(count, spec.sync_len, c.sync_dim, generator=g),
            "text": torch.randn(count, 77, c.text_dim, generator=g),
            "video_exist": torch.arange(count) % 3 > 0,
            "text_exist": torch.arange(count) % 5 > 0,
        }

    def __len__(self) -> int:
        return len(self.tensors["mean"])

    def order(self, epoch: int, seed: int) -> Tensor:
        return weighted_order([(0, len(self), 1.0)], epoch, seed)

    def __getitems__(self, items: list[Item]) -> FeatureBatch:
        rows = [item.row for item in items]
        return FeatureBatch(
            ids=[str(r) for r in rows], captions=[None] * len(rows), **{k: v[rows] for k, v in self.tensors.items()}
        )


def small_task(independent: bool = False, count: int = 32) -> Task:
    torch.manual_seed(1)
    network = MMAudio(NETWORK)
    for parameter in network.parameters():  # zero gates would hide most of the network from the first steps
        if parameter.requires_grad and parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    network.freeze_constants()
    return Task(
        name="flow",
        network=network,
        loss=FlowLoss(network, SMALL, drop=0.3, independent=independent),
        train=SmallSource(count),
        validation=SmallSource(37),
        file_name="small.safetensors",
        metadata={},
        blocks=lambda net: (*net.joint_blocks, *net.fused_blocks),
    )


def small_config(**changes) -> TrainConfig:
    base = toy_config(
        exp_id="small", steps=20, validate_every=10, checkpoint_every=10,
        optimizer=OptimizerConfig(lr=1e-3, warmup=3, schedule="constant"), ema=EMAConfig(snapshot_every=10),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)
