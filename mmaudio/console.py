"""What the commands say: lines, a progress bar, and errors that are the user's to mend."""

import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class UsageError(Exception):
    """A wrong argument; the message is one line for the user."""


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class StageBar:
    """One progress bar that follows the pipeline's stages."""

    def __init__(self):
        from tqdm import tqdm

        self.bar = tqdm(total=0, disable=None, leave=False, dynamic_ncols=True, delay=0.5)
        self.stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self.stage:
            self.stage = stage
            self.bar.reset(total=total or None)
            self.bar.set_description(stage)
        self.bar.total = total or None
        self.bar.n = done
        self.bar.refresh()

    def close(self) -> None:
        self.bar.close()


def expected_errors() -> tuple[type[Exception], ...]:
    """What a user can cause or mend; anything else is a bug and deserves its traceback."""
    import torch

    from mmaudio.data.store import StoreError
    from mmaudio.media import MediaError
    from mmaudio.weights import WeightError

    return (MediaError, WeightError, StoreError, ValueError, UsageError, OSError, torch.OutOfMemoryError)


def error_line(error: Exception) -> str:
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return "error: out of memory: try --low_memory, a shorter --duration, fewer --num_samples or --device cpu"
    return "error: " + " ".join(str(error).split())


def usable_device(name: str | None) -> "torch.device | None":
    """The device of `--device`; None is the best one. Raises UsageError if it cannot be used here."""
    import torch

    try:
        device = torch.device(name) if name else None
        if device is not None and device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("use cpu, cuda or mps")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: not usable here ({str(error).splitlines()[0]})") from error
    return device


def machine_name(device: "torch.device") -> str:
    """Of the GPU, or of the processor."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
