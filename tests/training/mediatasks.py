"""A few small media files to train from, and the smallest loop that can train a task."""

import dataclasses
from pathlib import Path

import torch
from torch import nn

from mmaudio.data.sampler import Item, TensorBatch
from mmaudio.media import write_audio
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4
from mmaudio.training.config import DataConfig, DataEntry, TrainConfig
from mmaudio.training.task import Draw, Nets, Task


def write_sounds(folder: Path, count: int = 4) -> Path:
    """A manifest of struck things, 2 s each, of several rates, channels and formats."""
    formats = ((16_000, "wav"), (44_100, "flac"), (22_050, "ogg"), (48_000, "wav"))
    lines = ["id\tpath"]
    for seed, (rate, suffix) in zip(range(count), formats, strict=False):
        sound = render_clip(seed, duration=2, sample_rate=rate, video=False, family="strike").audio
        wave = torch.from_numpy(sound).repeat(1 + seed % 2, 1)
        lines.append(f"s{seed}\t{write_audio(folder / f'{seed}.{suffix}', wave, rate).name}")
    return write_manifest(folder, lines)


def write_films(folder: Path, count: int = 4) -> Path:
    """A manifest of Stage clips of 1 s with picture, sound and caption."""
    lines = ["id\tpath\tcaption"]
    for seed in range(count):
        clip = render_clip(seed, duration=1, size=64)
        write_mp4(folder / f"{seed}.mp4", clip)
        lines.append(f"f{seed}\t{seed}.mp4\t{clip.caption}")
    return write_manifest(folder, lines)


def write_manifest(folder: Path, lines: list[str]) -> Path:
    path = folder / "clips.tsv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def task_config(task: str, manifest: Path | None, options: dict | None = None, **changes) -> TrainConfig:
    data = DataConfig(train=[DataEntry(manifest=str(manifest))] if manifest else [])
    config = TrainConfig(variant="tiny_16k", task={"name": task} | (options or {}), data=data, num_workers=0)
    return dataclasses.replace(config, **changes)


def read_batch(task: Task, size: int = 4) -> TensorBatch:
    """Its row i is of clip i, if there are so many."""
    return task.train.__getitems__([Item(i % len(task.train), i) for i in range(size)])


def part_of(batch: TensorBatch, rows: slice) -> TensorBatch:
    tensors = {name: x[rows] for name, x in vars(batch).items()}  # a list of ids is cut, too
    return dataclasses.replace(batch, **tensors)


def draw(batch: TensorBatch, step: int = 0, seed: int = 0, rows: slice | None = None) -> Draw:
    return Draw(seed, step, len(batch), rows or slice(0, len(batch)), "cpu")


def fit(task: Task, batch: TensorBatch, steps: int, lr: float) -> list[dict[str, float]]:
    """Losses of every step on one batch; the players alternate as in the loop."""
    nets = Nets(task.network.train(), task.critic)
    players = [m and torch.optim.AdamW(m.parameters(), lr, betas=(0.9, 0.95)) for m in (task.network, task.critic)]
    record = []
    for step in range(steps):
        entry = {}
        for optimizer, loss in zip(reversed(players), (task.critic_loss, task.loss), strict=True):
            if optimizer is None:
                continue
            if task.critic is not None:
                task.critic.requires_grad_(loss is not task.loss)
            losses = loss(nets, batch, draw(batch, step))
            entry |= {name: value.item() for name, value in losses.parts.items()}
            if losses.total.requires_grad:
                entry["loss"] = losses.total.item()
                optimizer.zero_grad()
                losses.total.backward()
                optimizer.step()
        record.append(entry)
    return record


def without_gradient(module: nn.Module) -> list[str]:
    """Parameters that the last backward pass left out."""
    return [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]


def halves(task: Task, batch: TensorBatch, loss) -> tuple[float, float]:
    """The loss of a batch, and the mean of the losses of its halves."""
    nets, middle = Nets(task.network.train(), task.critic), len(batch) // 2
    rows = (slice(0, middle), slice(middle, len(batch)))
    whole = loss(nets, batch, draw(batch)).total.item()
    parts = [loss(nets, part_of(batch, part), draw(batch, rows=part)).total.item() for part in rows]
    return whole, sum(parts) / 2
