"""Audiobox-Aesthetics (Tjandra et al., 2025) through its package: four scores of a listener's taste, 1 to 10."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmaudio.evaluation.backbones.loading import Loaded
from mmaudio.evaluation.backbones.sound import resample
from mmaudio.evaluation.backbones.table import BackboneInfo

AXES = ("PQ", "PC", "CE", "CU")  # production quality and complexity, content enjoyment and usefulness
SAMPLE_RATE = 16_000


class Audiobox(Loaded):
    def __init__(self, info: BackboneInfo, paths: Sequence[Path], device: torch.device):
        from audiobox_aesthetics.infer import initialize_predictor

        super().__init__(info, paths, device)
        self.predictor = initialize_predictor(str(paths[0]))  # a path that exists, so that nothing is downloaded
        self.predictor.device = device  # it takes a device of its own choice
        self.predictor.model.to(device)

    def audio(self, samples: Tensor, sample_rate: int, duration: float) -> dict[str, np.ndarray]:
        """{"scores": (4,)} in the order of `AXES`, of the first `duration` seconds.

        Raises:
            ValueError: no sound, or a sample rate that cannot be resampled.
        """
        wave = resample(samples[:, : int(sample_rate * duration)], sample_rate, SAMPLE_RATE)
        if not wave.shape[1]:
            raise ValueError("Audiobox-Aesthetics needs sound, got 0 samples")
        (scores,) = self.predictor.forward([{"path": wave, "sample_rate": SAMPLE_RATE}])
        return {"scores": np.array([scores[axis] for axis in AXES], np.float32)}


def load(info: BackboneInfo, paths: Sequence[Path], device: torch.device) -> Audiobox:
    return Audiobox(info, paths, device)
