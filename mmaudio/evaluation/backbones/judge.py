"""The bundled judge of Foley Stage sounds, as a backbone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmaudio.data.preparation import ClipError
from mmaudio.evaluation.backbones.loading import Loaded
from mmaudio.evaluation.backbones.table import BackboneInfo
from mmaudio.evaluation.judge import load_judge


class JudgeBackbone(Loaded):
    def __init__(self, info: BackboneInfo, paths: Sequence[Path], device: torch.device):
        super().__init__(info, paths, device)
        self.judge = load_judge(paths[0])  # stays on the CPU: it is small, and the same everywhere there

    def audio(self, samples: Tensor, sample_rate: int, duration: float) -> dict[str, np.ndarray]:
        """{"embedding": (96,), "logits": (len(LABELS),)} of the first `duration` seconds; what is shorter stays short.

        Raises:
            ValueError: at a sample rate that cannot be resampled.
        """
        mono = samples[:, : int(sample_rate * duration)].mean(0)
        try:
            verdict = self.judge.listen(mono.numpy(), sample_rate)
        except ClipError as error:
            raise ValueError(str(error)) from error
        return {"embedding": verdict.embedding, "logits": verdict.logits}


def load(info: BackboneInfo, paths: Sequence[Path], device: torch.device) -> JudgeBackbone:
    return JudgeBackbone(info, paths, device)
