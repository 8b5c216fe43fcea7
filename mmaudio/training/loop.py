"""The loop: one for every task, every number of ranks, every start and every end.

`train` reads top to bottom: validate, preview, save, stop, then step. Maintenance comes before the step, so the first
and the last step are ordinary ones, and "run the same command again" goes on where the last checkpoint was.
"""

import contextlib
import dataclasses
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from mmaudio.data.loader import loader
from mmaudio.data.sampler import GlobalBatches, Item, Split, TensorBatch, derived_seed
from mmaudio.training.checkpoint import Checkpoints, read_config
from mmaudio.training.compilation import compile_blocks
from mmaudio.training.config import TrainConfig
from mmaudio.training.distributed import LAUNCHER, Ranks, share_gradients, wrap
from mmaudio.training.ema import PostHocEMA, synthesize
from mmaudio.training.numerics import autocast, uses_bf16
from mmaudio.training.optimizer import build_optimizer, learning_rate
from mmaudio.training.task import Draw, LossFunction, Nets, Task
from mmaudio.training.tracking import Tracker, by_time, peak_memory
from mmaudio.version import __version__
from mmaudio.weights import save_safetensors

VALIDATION_BATCH = 32  # rows; fixed, so that the number of ranks does not change what is drawn
VALIDATION_STREAM = 1  # of random numbers: never the ones of training


class TrainingError(Exception):
    """The run cannot go on. One line."""


def train(
    task: Task, config: TrainConfig, ranks: Ranks, folder: Path, log: Callable[[str], None]
) -> tuple[Path | None, int]:
    """Train until `config.steps`, a SIGTERM, torchrun's end, or too many bad steps. All ranks call it.

    Returns:
        The finished weights (None if it was stopped before its end), and the steps done.

    Raises:
        TrainingError: loss or gradient were not finite `max_bad_steps` times in a row.
        CheckpointError: a checkpoint cannot be written, or the one to go on from does not fit.
    """
    if config.accumulation > 1 and not task.can_accumulate:
        raise ValueError(f"task {task.name} compares the clips of a batch with each other: set accumulation=1")
    split = Split(config.batch_size, ranks.rank, ranks.world, config.accumulation)
    if config.compile:
        compile_blocks(task, config, ranks, split, log)
    state = TrainingState(task, config, ranks)
    checkpoints = Checkpoints(folder / "checkpoints", config.keep_checkpoints, ranks, log)
    start = state.resume(checkpoints, log)
    tracker = Tracker(folder if ranks.is_main else None, start)
    order = GlobalBatches(task.train, split, config.seed, start)
    batches = iter(loader(task.train, order, config.num_workers, pin_memory=ranks.device.type == "cuda"))
    meter = Meter(config.batch_size)
    bar = tqdm(
        total=config.steps, initial=start, desc=config.exp_id, unit="step", disable=None if ranks.is_main else True
    )

    with bar, contextlib.closing(tracker), stop_on_sigterm() as stop:
        for step in count(start):
            done = step >= config.steps
            last = done and step > start  # a finished run that is started again has nothing to do
            if task.validation is not None and (last or due(step, config.validate_every, start)):
                tracker.log(step, "validation", **state.validate())
            if task.preview is not None and (last or due(step, config.preview_every, start)):
                state.preview(step, folder / "previews", tracker)
            if last or due(step, config.ema.snapshot_every, start):
                state.snapshot(folder / "ema")
            if last or stop.agreed or due(step, config.checkpoint_every, start):
                state.save(step, checkpoints)
            if done or stop.agreed:
                break

            micros = meter.waiting_for(lambda: [next(batches).to(ranks.device) for _ in range(config.accumulation)])
            good = state.step(step, micros, split, stop, meter)
            meter.steps += 1
            bar.update()
            if not good:
                state.bad_steps += 1
                names = ranks.gather([name for batch in micros for name in batch.bad_rows()])
                where = f"not finite in the data: {', '.join(names[:5])}" if names else "all data are finite"
                log(f"step {step}: loss or gradient not finite, skipped ({state.bad_steps} in a row); {where}")
                if state.bad_steps >= config.max_bad_steps:
                    path = state.save(step + 1, checkpoints)
                    raise TrainingError(
                        f"{state.bad_steps} steps in a row were not finite: the last good state is in {path}; look "
                        "for bad clips with `mmaudio store verify`, or go on with a smaller optimizer.lr"
                    )
            else:
                state.bad_steps = 0
            if due(step + 1, config.log_every, start) or step + 1 == config.steps:
                numbers = meter.read(ranks)
                rate = learning_rate(step, config.optimizer, config.steps)
                tracker.log(step, "train", **numbers, lr=rate, skipped=state.skipped, memory=peak_memory(ranks.device))
                bar.set_postfix(loss=numbers.get("loss"), lr=rate, data=f"{numbers['data_wait']:.0%}")
    return (state.write_result(step, folder) if done else None), step


def due(step: int, every: int, start: int) -> bool:
    """Every so many steps; not at the start, where a resumed run has just been."""
    return every > 0 and step % every == 0 and step > start


@dataclass
class Player:
    """A network with its optimiser; `wrapped` shares its gradients with the other ranks."""

    module: nn.Module
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def state(self) -> dict:
        weights, optimizer = get_state_dict(self.module, self.optimizer)
        return {"weights": weights, "optimizer": optimizer}

    def load(self, state: dict) -> None:
        set_state_dict(
            self.module, self.optimizer, model_state_dict=state["weights"], optim_state_dict=state["optimizer"]
        )


class TrainingState:
    """All that a checkpoint holds, and what can be done with it."""

    def __init__(self, task: Task, config: TrainConfig, ranks: Ranks):
        self.task, self.config, self.ranks = task, config, ranks
        self.bf16 = uses_bf16(config.precision, ranks.device)
        self.network = self._player(task.network, config.strategy)
        self.critic = None if task.critic is None else self._player(task.critic, "ddp")
        self.ema = PostHocEMA(
            floating(self.network.module), config.ema.sigma_rels, config.ema.update_every, config.ema.correction
        )
        self.skipped = 0  # steps with a loss or gradient that was not finite
        self.bad_steps = 0  # in a row

    def _player(self, module: nn.Module, strategy: str) -> Player:
        module.to(self.ranks.device).train()
        wrapped = wrap(module, self.ranks, strategy, self.task.blocks(module), self.bf16)
        return Player(module, wrapped, build_optimizer(module, self.config.optimizer, self.bf16))

    # ---- one step

    def step(self, step: int, micros: list[TensorBatch], split: Split, stop: "Stop", meter: "Meter") -> bool:
        """False if it was skipped because something was not finite: the network has not changed then."""
        rate = learning_rate(step, self.config.optimizer, self.config.steps)
        raw = Nets(self.network.module, None if self.critic is None else self.critic.module)
        losses, good = {}, True
        if self.critic is not None:
            nets = Nets(raw.network, self.critic.wrapped)
            good = self._play(self.critic, self.task.critic_loss, nets, step, micros, split, rate, stop, losses)
            self.critic.module.requires_grad_(False)
        if good:
            nets = Nets(self.network.wrapped, raw.critic)
            good = self._play(self.network, self.task.loss, nets, step, micros, split, rate, stop, losses)
        if self.critic is not None:
            self.critic.module.requires_grad_(True)
        if good:
            self.ema.update(floating(self.network.module))
            meter.add(losses)
        else:
            self.skipped += 1
        return good

    def _play(
        self, player: Player, loss: LossFunction, nets: Nets, step: int, micros: list[TensorBatch], split: Split,
        rate: float, stop: "Stop", record: dict,
    ) -> bool:  # fmt: skip
        total = 0.0
        for i, batch in enumerate(micros):
            share_gradients(player.wrapped, i == len(micros) - 1)
            draw = Draw(self.config.seed, step, split.batch_size, split.rows(i), self.ranks.device)
            with autocast(self.config.precision, self.ranks.device):
                losses = loss(nets, batch, draw)
            if not losses.total.requires_grad:  # an adversary that is not playing yet
                return True
            (losses.total / len(micros)).backward()
            parts = {"loss": losses.total.detach()} if player is self.network else {}
            for name, value in (parts | losses.parts).items():
                record[name] = record.get(name, 0.0) + value.detach().float() / len(micros)
            if losses.by_time is not None:
                record["by_time"] = record.get("by_time", 0.0) + losses.by_time.detach()
            total = total + losses.total.detach()
        norm = nn.utils.clip_grad_norm_(player.parameters, self.config.optimizer.clip_norm)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        # The one place per network and step where the CPU waits for the GPU: a bad step must not reach the weights.
        finite = math.isfinite(norm.item()) and math.isfinite(float(total))
        if not self.ranks_agree(finite, stop):
            player.optimizer.zero_grad()
            return False
        record["grad_norm" if player is self.network else "critic_grad_norm"] = norm.detach()
        for group in player.optimizer.param_groups:
            group["lr"] = rate
        player.optimizer.step()
        player.optimizer.zero_grad()
        return True

    def ranks_agree(self, finite: bool, stop: "Stop") -> bool:
        """Whether all ranks have finite numbers; spreads a request to stop on the way."""
        stopping, not_finite = self.ranks.maximum(float(stop.requested), float(not finite))
        stop.agreed = bool(stopping)
        return not not_finite

    # ---- validation and previews

    @torch.no_grad()
    def validate(self) -> dict[str, float | list]:
        """Mean losses over the held-out rows, with fixed draws, whatever the number of ranks."""
        source, ranks, module = self.task.validation, self.ranks, self.network.module
        starts = list(range(0, len(source), VALIDATION_BATCH))
        rounds = -(-len(starts) // ranks.world)
        mine = [(i * ranks.world + ranks.rank) for i in range(rounds)]
        # A sharded network is run by all ranks together: one without a batch repeats the first, unweighed.
        numbers = [k if k < len(starts) else 0 for k in mine]
        seed = derived_seed(self.config.seed, VALIDATION_STREAM)
        items = [
            [
                Item(row, derived_seed(seed, row))
                for row in range(starts[k], min(starts[k] + VALIDATION_BATCH, len(source)))
            ]
            for k in numbers
        ]
        sums: dict[str, Tensor] = {}
        module.eval()
        raw = Nets(module, None if self.critic is None else self.critic.module)
        for k, number, batch in zip(mine, numbers, loader(source, items, self.config.num_workers), strict=True):
            batch = batch.to(ranks.device)
            draw = Draw(seed, number, VALIDATION_BATCH, slice(0, len(batch)), ranks.device)
            with autocast(self.config.precision, self.ranks.device):
                losses = self.task.loss(raw, batch, draw)
            weight = float(len(batch)) if k < len(starts) else 0.0
            for name, value in ({"loss": losses.total} | losses.parts).items():
                sums[name] = sums.get(name, 0.0) + weight * value.detach().double()
            if losses.by_time is not None:
                sums["by_time"] = sums.get("by_time", 0.0) + (k < len(starts)) * losses.by_time.detach().double()
        module.train()
        times = sums.pop("by_time", None)
        means = {name: ranks.total(value.item())[0] / len(source) for name, value in sums.items()}
        return means if times is None else means | {"by_time": by_time(ranks.sum(times))}

    def preview(self, step: int, folder: Path, tracker: Tracker) -> None:
        """Sound and pictures from the averaged weights, on the main rank while the others wait."""
        averaged = full(self.ema.averages()[0] if self.ema.updates else floating(self.network.module))
        if self.ranks.is_main:
            self.task.preview(self.task.export(averaged), step, folder, tracker)
        self.ranks.wait()

    # ---- keeping

    def state_dict(self) -> dict:
        state = {"network": self.network.state(), "ema": self.ema.state_dict()}
        if self.critic is not None:
            state["critic"] = self.critic.state()
        return state | {"progress": {"skipped": self.skipped, "bad_steps": self.bad_steps}}

    def save(self, step: int, checkpoints: Checkpoints) -> Path:
        weights = full(self.network.module.state_dict())

        def write_weights(folder: Path) -> None:
            self._write(folder / self.task.file_name, weights, {"step": step})

        settings = dataclasses.asdict(self.config) | {"code_version": __version__}
        return checkpoints.save(step, self.state_dict(), settings, write_weights)

    def resume(self, checkpoints: Checkpoints, log: Callable[[str], None]) -> int:
        """Go on from the newest whole checkpoint; the step it was made at, 0 without one."""
        path = checkpoints.latest()
        if path is None:
            return 0
        now, then = dataclasses.asdict(self.config), read_config(path)
        changed = [name for name in now if now[name] != then.get(name)]
        state = self.state_dict()
        checkpoints.load(path, state)
        self.network.load(state["network"])
        self.ema.load_state_dict(state["ema"])
        if self.critic is not None:
            self.critic.load(state["critic"])
        self.skipped, self.bad_steps = state["progress"]["skipped"], state["progress"]["bad_steps"]
        step = checkpoints.step(path)
        log(f"going on from {path} at step {step}" + (f"; changed since: {', '.join(changed)}" if changed else ""))
        return step

    def snapshot(self, folder: Path) -> None:
        whole = (full(average) for average in self.ema.averages())
        self.ema.snapshot(folder, whole, write=self.ranks.is_main, metadata=self.task.metadata)

    def write_result(self, step: int, folder: Path) -> Path:
        """The averaged weights of the end, in the official layout: `weights/<file name>`."""
        path = folder / "weights" / self.task.file_name
        if self.ranks.is_main:
            sigma_rel = self.config.ema.result
            averaged = synthesize(folder / "ema", sigma_rel, correction=self.config.ema.correction)
            self._write(path, averaged, {"step": step, "sigma_rel": sigma_rel})
        self.ranks.wait()
        return path

    def _write(self, path: Path, state: dict[str, Tensor], about: dict) -> None:
        metadata = self.task.metadata | {name: str(value) for name, value in about.items()}
        save_safetensors(path, self.task.export(state), metadata)
        if self.task.also_write is not None:
            self.task.also_write(path.parent, state)


def floating(module: nn.Module) -> dict[str, Tensor]:
    """What is averaged: floating parameters and buffers, frozen ones too."""
    return {name: x for name, x in module.state_dict().items() if x.is_floating_point()}


def full(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors on the CPU; all ranks must call it, for sharded ones are gathered."""
    return {name: (x.full_tensor() if isinstance(x, DTensor) else x).detach().cpu() for name, x in state.items()}


class Meter:
    """Losses and times since the last reading; nothing is taken off the device before that."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.reset()

    def reset(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}  # steps that had this number: an adversary may join later
        self.steps = 0
        self.began, self.waited = time.perf_counter(), 0.0

    def waiting_for(self, fetch):
        began = time.perf_counter()
        result = fetch()
        self.waited += time.perf_counter() - began
        return result

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self, ranks: Ranks) -> dict[str, float | list]:
        """Means over steps and ranks; all ranks call it."""
        seconds = time.perf_counter() - self.began
        out: dict[str, float | list] = {}
        for name, value in self.sums.items():
            value = ranks.sum(torch.as_tensor(value).clone())
            out[name] = by_time(value) if name == "by_time" else value.item() / (ranks.world * self.counts[name])
        out |= {"samples_per_second": self.batch_size * self.steps / seconds, "data_wait": self.waited / seconds}
        self.reset()
        return out


@dataclass
class Stop:
    signalled: bool = False  # this rank got a SIGTERM
    agreed: bool = False  # some rank is to stop, and all know

    @property
    def requested(self) -> bool:
        return self.signalled or LAUNCHER not in (None, os.getppid())


@contextlib.contextmanager
def stop_on_sigterm():
    """SIGTERM (a pre-empted node, torchrun stopping) becomes a request: save, then end.

    So does the end of torchrun itself: when it is killed its ranks are not, and nobody would stop them.
    """
    stop = Stop()

    def request(signum, frame):
        stop.signalled = True

    before = signal.signal(signal.SIGTERM, request)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
