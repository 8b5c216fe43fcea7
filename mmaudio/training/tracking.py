"""What a run writes down: `stats.jsonl` and TensorBoard, by the main rank only."""

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Tracker:
    """Numbers, sounds and pictures of a run. On other ranks, a tracker without a folder keeps nothing.

    A resumed run first drops what an earlier one had written after the checkpoint, so each step is there once.
    """

    def __init__(self, folder: Path | None, start: int = 0):
        self.folder, self.board = folder, None
        if folder is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "stats.jsonl"
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _is_before(line, start)]
            temporary = self.path.with_name(".stats.tmp")
            temporary.write_text("".join(f"{line}\n" for line in kept))
            os.replace(temporary, self.path)
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start)

    def log(self, step: int, kind: str, **scalars: float | list) -> None:
        """One line of stats.jsonl, {"step": ..., "kind": "train" | "validation" | ..., name: value}."""
        if self.folder is None:
            return
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "kind": kind} | scalars) + "\n")
        for name, value in scalars.items():
            if not isinstance(value, list):
                self.board.add_scalar(f"{kind}/{name}", value, step)
                continue
            for i, part in enumerate(value):  # by bins of the flow time, the first at noise
                if part is not None:
                    self.board.add_scalar(f"{kind}_{name}/{i:02}", part, step)

    def audio(self, name: str, waveform: Tensor, sample_rate: int, step: int) -> None:
        """Waveform (1, N) in [-1, 1]."""
        if self.board is not None:
            self.board.add_audio(name, waveform.float().cpu(), step, sample_rate)

    def spectrogram(self, name: str, mel: Tensor, step: int) -> None:
        """Log-mel (M, F) as a grey picture, low frequencies at the bottom."""
        if self.board is not None:
            mel = mel.float().cpu()
            scaled = (mel - mel.min()) / (mel.max() - mel.min()).clamp(min=1e-6)
            self.board.add_image(name, scaled.flip(0)[None], step)

    def close(self) -> None:
        if self.board is not None:
            with contextlib.suppress(OSError):  # a full disk: the checkpoint's error says so, and must be heard
                self.board.close()


def _is_before(line: str, start: int) -> bool:
    """Whether a line is from before the checkpoint of step `start`: that step's validation is, its training is not."""
    try:
        row = json.loads(line)
        return row["step"] < start + (row["kind"] != "train")
    except (ValueError, KeyError, TypeError):  # the last line of a killed run
        return False


def by_time(sums_and_counts: Tensor) -> list[float | None]:
    """(2, bins) sums and counts to means; None where nothing fell."""
    sums, counts = sums_and_counts.double().cpu().numpy()
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return [None if np.isnan(m) else round(float(m), 6) for m in means]


def peak_memory(device: torch.device) -> float:
    """GiB: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
