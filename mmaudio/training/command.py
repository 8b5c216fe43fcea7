"""`train.py`: configuration in, a run folder out."""

import contextlib
import dataclasses
import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from mmaudio.console import error_line, expected_errors, log
from mmaudio.generate_command import config_dir
from mmaudio.training.config import TrainConfig

TASKS = ("flow", "distill", "vae", "vocoder", "clip", "sync")
USAGE_ERROR, LOST_RANK = 2, 1
LOCK = ".lock"  # of a run folder
PATIENCE = 300.0  # seconds for another training to leave it
OUT_OF_MEMORY = "error: out of memory: set a smaller batch_size, or share it with accumulation=2 (or 4, 8)"


def main() -> None:
    """Entry point; Hydra reads the command line."""
    import hydra
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store("train_schema", TrainConfig)
    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")(_run)()


def _run(raw) -> None:
    from omegaconf import OmegaConf

    sys.exit(run(OmegaConf.to_object(raw)))


def run(config: TrainConfig) -> int:
    """Train; the exit code. Whatever a user can mend is one line on stderr."""
    import torch

    from mmaudio.data.manifest import ManifestError
    from mmaudio.data.preparation import ClipError
    from mmaudio.training.checkpoint import CheckpointError
    from mmaudio.training.distributed import RankError, ranks
    from mmaudio.training.loop import TrainingError

    known = (*expected_errors(), ManifestError, ClipError, CheckpointError, TrainingError)
    who = f"[rank {os.environ['RANK']}] " if int(os.environ.get("WORLD_SIZE", 1)) > 1 else ""
    try:
        with ranks(config.device, config.timeout, config.strategy) as here:
            return train_here(config, here)
    except RankError as error:
        log(who + error_line(error))
        return LOST_RANK
    except torch.OutOfMemoryError:
        log(who + OUT_OF_MEMORY)
        return USAGE_ERROR
    except known as error:
        log(who + error_line(error))
        return USAGE_ERROR


def train_here(config: TrainConfig, here) -> int:
    from mmaudio.training.loop import train
    from mmaudio.training.numerics import set_up_numerics

    def say(line: str) -> None:
        if here.is_main:
            log(line)

    set_up_numerics(here.device)
    name = config.task.get("name")
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}: expected one of {', '.join(TASKS)}")
    if config.lora.rank and name != "flow":
        raise ValueError(f"lora is for task flow; for task {name} leave lora.rank=0")
    task = importlib.import_module(f"mmaudio.training.tasks.{name}").build(config, here.device)
    folder = Path(config.output) / config.exp_id
    parameters = sum(p.numel() for p in task.network.parameters() if p.requires_grad)
    say(
        f"task {task.name}: {parameters / 1e6:.2f}M trainable parameters, {len(task.train)} clips, "
        f"{here.world} rank(s) on {here.device.type}, batches of {config.batch_size}; everything goes to {folder}"
    )
    with sole_writer(folder, here, min(PATIENCE, config.timeout / 2), say):
        if here.is_main:
            write_config(folder, config)
        weights, step = train(task, config, here, folder, say)
    if weights is None:
        say(f"stopped at step {step}; run the same command again to go on")
    elif here.is_main:
        print(weights)
    return 0


@contextlib.contextmanager
def sole_writer(folder: Path, here, patience: float, say: Callable[[str], None]):
    """Keeps other trainings out of the run folder; waits a while for ranks that end because their torchrun was killed.

    Raises:
        ValueError: somebody else writes it; on all ranks.
    """
    with contextlib.ExitStack() as open_files:
        busy = False
        if here.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            file = open_files.enter_context(open(folder / LOCK, "w"))
            busy = not locked(file, 0)
            if busy:
                say(f"waiting for another training that writes {folder}")
                busy = not locked(file, patience)
        if any(here.maximum(float(busy))):
            raise ValueError(
                f"{folder}: another training writes it; wait for its end or stop it, or choose another exp_id"
            )
        yield


def locked(file: IO, patience: float) -> bool:
    """Whether the file became this process's own; where files cannot be locked, it is.

    A record lock: the data loader's processes do not inherit it, and it ends with this one, however that ends.
    """
    import fcntl

    end = time.monotonic() + patience
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if time.monotonic() >= end:
                return False
            time.sleep(0.2)
        except OSError:  # the file system has no locks
            return True
        else:
            return True


def write_config(folder: Path, config: TrainConfig) -> None:
    from omegaconf import OmegaConf

    OmegaConf.save(OmegaConf.create(dataclasses.asdict(config)), folder / "config.yaml")
