"""A task that takes a millisecond a step: a linear map is learned from noisy pairs."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mmaudio.data.sampler import Item, TensorBatch, weighted_order
from mmaudio.training.config import EMAConfig, OptimizerConfig, TrainConfig
from mmaudio.training.task import Draw, Losses, Nets, Task

CONFIG = TrainConfig(
    exp_id="toy",
    steps=12,
    batch_size=8,
    num_workers=0,
    log_every=1,
    validate_every=5,
    checkpoint_every=4,
    optimizer=OptimizerConfig(lr=0.02, warmup=3, schedule="constant"),
    ema=EMAConfig(snapshot_every=6),
)


@dataclass
class ToyBatch(TensorBatch):
    x: Tensor  # (B, 4)


class ToySource:
    def __init__(self, count: int = 40, bad: tuple[int, ...] = ()):
        self.x = torch.randn(count, 4, generator=torch.Generator().manual_seed(5))
        self.x[list(bad)] = torch.nan

    def __len__(self) -> int:
        return len(self.x)

    def order(self, epoch: int, seed: int) -> Tensor:
        return weighted_order([(0, len(self.x), 1.0)], epoch, seed)

    def __getitems__(self, items: list[Item]) -> ToyBatch:
        rows = [item.row for item in items]
        return ToyBatch([f"clip{row}" for row in rows], self.x[rows])


class ToyNet(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer, self.out = nn.Linear(4, 16), nn.Linear(16, 4)
        self.register_buffer("offset", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x).relu()) + self.offset


def toy_loss(nets: Nets, batch: ToyBatch, draw: Draw) -> Losses:
    y = nets.network(batch.x + 0.1 * draw.normal(4))
    error = (y - batch.x.flip(-1)).square().mean()
    if nets.critic is None:
        return Losses(error, {"error": error.detach()})
    return Losses(error - 0.01 * nets.critic(y).mean(), {"error": error.detach()})


def toy_critic_loss(nets: Nets, batch: ToyBatch, draw: Draw) -> Losses:
    with torch.no_grad():
        fake = nets.network(batch.x + 0.1 * draw.normal(4))
    if draw.step < 3:  # not playing yet
        return Losses(torch.zeros(()))
    total = (1 - nets.critic(batch.x)).relu().mean() + (1 + nets.critic(fake)).relu().mean()
    return Losses(total, {"critic": total.detach()})


def toy_task(source: ToySource | None = None, critic: bool = False) -> Task:
    torch.manual_seed(4)
    return Task(
        name="toy",
        network=ToyNet(),
        loss=toy_loss,
        train=source or ToySource(),
        validation=ToySource(37),
        file_name="toy.safetensors",
        metadata={"variant": "toy"},
        critic=nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)) if critic else None,
        critic_loss=toy_critic_loss if critic else None,
        blocks=lambda net: [net.layer] if isinstance(net, ToyNet) else [],
    )


def toy_config(**changes) -> TrainConfig:
    return replace(CONFIG, **changes)
