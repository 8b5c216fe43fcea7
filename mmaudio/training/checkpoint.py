"""Checkpoints: whole or not there, the last few kept, on any number of ranks.

A checkpoint is a folder `step_00010000/`:

    state/                 everything training goes on from (torch.distributed.checkpoint: sharded or not, any ranks)
    <weights>.safetensors  the network as it is, in the official layout
    config.json, files.json    the run's configuration and code version; names and sizes of all files

It is written under a temporary name and renamed when all of it is on disk.
"""

import json
import logging
import os
import shutil
import warnings
from pathlib import Path

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException

from mmaudio.training.distributed import Ranks
from mmaudio.version import __version__
from mmaudio.weights import WeightError

FILES = "files.json"
PREFIX = "step_"
CANNOT_WRITE = (OSError, CheckpointException, RuntimeError, WeightError)  # what the disk says, plain and wrapped


class CheckpointError(Exception):
    """A checkpoint cannot be written or read. One line."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: holds nothing else.
        keep: how many stay; older ones are deleted after a new one is complete.
    """

    def __init__(self, folder: Path, keep: int, ranks: Ranks, log=lambda line: None):
        self.folder, self.keep, self.ranks, self.log = folder, keep, ranks, log

    def complete(self) -> list[Path]:
        """Checkpoints whose files all have their size, oldest first."""
        return [path for path in sorted(self.folder.glob(f"{PREFIX}*")) if self._problem(path) is None]

    def latest(self) -> Path | None:
        """The newest complete one. Damaged ones are named and passed over; they are never loaded."""
        for path in sorted(self.folder.glob(f"{PREFIX}*"), reverse=True):
            problem = self._problem(path)
            if problem is None:
                return path
            self.log(f"{path}: damaged ({problem}), using an older one")
        return None

    @staticmethod
    def step(path: Path) -> int:
        return int(path.name.removeprefix(PREFIX))

    @staticmethod
    def _problem(path: Path) -> str | None:
        try:
            sizes = json.loads((path / FILES).read_text())["files"]
        except (OSError, ValueError, KeyError) as error:
            return f"{FILES}: {error}"
        for name, size in sizes.items():
            found = (path / name).stat().st_size if (path / name).exists() else None
            if found != size:
                return f"{name}: {'missing' if found is None else f'{found} bytes'}, expected {size}"
        return None

    def save(self, step: int, state: dict, config: dict, write_weights) -> Path:
        """Write a checkpoint; all ranks call it.

        write_weights: called with the folder on the main rank, writes the official-layout files into it.

        Raises:
            CheckpointError: it cannot be written; what was there before is untouched.
        """
        path = self.folder / f"{PREFIX}{step:08d}"
        temporary = self.folder / f".{path.name}.tmp"

        def make_folder() -> None:
            for left in self.folder.glob(f".{PREFIX}*.tmp"):  # by a rank that was killed
                shutil.rmtree(left, ignore_errors=True)
            temporary.mkdir(parents=True)

        def save_state() -> None:
            _quiet(dcp.save, state, checkpoint_id=temporary / "state")

        def finish() -> None:
            write_weights(temporary)
            (temporary / "config.json").write_text(json.dumps(config, indent=1))
            files = {str(f.relative_to(temporary)): f.stat().st_size for f in temporary.rglob("*") if f.is_file()}
            _write_synced(temporary / FILES, json.dumps({"version": __version__, "step": step, "files": files}))
            shutil.rmtree(path, ignore_errors=True)  # only a damaged one can be there
            os.rename(temporary, path)
            _sync_folder(self.folder)

        for work, by_all in ((make_folder, False), (save_state, True), (finish, False)):
            problem = None
            if by_all or self.ranks.is_main:
                try:
                    work()
                except CANNOT_WRITE as error:
                    problem = error
            if not any(self.ranks.maximum(float(problem is not None))):
                continue
            if self.ranks.is_main:
                shutil.rmtree(temporary, ignore_errors=True)
            reason = _reason(problem) if problem else "another rank failed"
            raise CheckpointError(
                f"{path}: cannot be written ({reason}); make room and run the same command again: the older "
                "checkpoints are whole"
            ) from problem
        if self.ranks.is_main:
            for old in self.complete()[: -self.keep]:
                shutil.rmtree(old, onerror=lambda _, path, info: self.log(f"{path}: cannot be deleted ({info[1]})"))
        return path

    def load(self, path: Path, state: dict) -> None:
        """Fill `state`, as `TrainingState.state_dict` makes it, from a complete checkpoint.

        Raises:
            CheckpointError: it is of another network or optimiser, or cannot be read.
        """
        try:
            found = dcp.FileSystemReader(path / "state").read_metadata().state_dict_metadata
            found = {name for name in found if name.startswith("network.weights.")}
            differing = found ^ {f"network.weights.{name}" for name in state["network"]["weights"]}
            if differing:  # dcp itself would leave out what nobody asks for
                raise ValueError(f"{len(differing)} tensors are only on one side, e.g. {min(differing)}")
            _quiet(dcp.load, state, checkpoint_id=path / "state")
        except (OSError, CheckpointException, RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{path}: does not fit this run ({_reason(error)}); choose another exp_id, or delete it to start anew"
            ) from error


def read_config(path: Path) -> dict:
    return json.loads((path / "config.json").read_text())


def _quiet(function, *args, **kwargs):
    """dcp warns in every single-process run that it works without a process group."""
    logger = logging.getLogger("torch.distributed.checkpoint")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args, **kwargs)
    finally:
        logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """The innermost message of what dcp collected from the ranks."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__


def _write_synced(path: Path, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
