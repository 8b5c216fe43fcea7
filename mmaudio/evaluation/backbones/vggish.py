"""VGGish without its last ReLU and its PCA (Hershey et al., 2017), key-compatible with torchvggish's file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmaudio.evaluation.backbones.loading import Loaded, fill
from mmaudio.evaluation.backbones.sound import mono
from mmaudio.evaluation.backbones.table import BackboneInfo

SAMPLE_RATE = 16_000
WINDOW, HOP, N_FFT = 400, 160, 512
MELS, LOWEST, HIGHEST = 64, 125.0, 7500.0  # Hz
LOG_OFFSET = 0.01
EXAMPLE = 96  # frames
SHORTEST = WINDOW + (EXAMPLE - 1) * HOP  # samples of one example
PLAN = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool")  # channels of each convolution
EMBEDDING = 128


def _mel(hertz: Tensor) -> Tensor:
    return 1127 * torch.log1p(hertz / 700)


def _filters() -> Tensor:
    """Triangles that are linear on the mel scale, without normalisation, (n_fft / 2 + 1, 64) float64."""
    first, last = _mel(torch.tensor([LOWEST, HIGHEST], dtype=torch.float64)).tolist()
    edges = torch.linspace(first, last, MELS + 2, dtype=torch.float64)
    bins = _mel(torch.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1, dtype=torch.float64))[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    filters = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp(min=0)
    filters[0] = 0
    return filters


def examples(waveform: Tensor) -> Tensor:
    """(N,) at 16 kHz to log-mel examples (k, 96, 64), computed in float64; what is left of the last one is dropped.

    The window stands at the start of the transform and nothing is padded, unlike `torch.stft`'s.

    Raises:
        ValueError: shorter than one example.
    """
    if len(waveform) < SHORTEST:
        raise ValueError(f"VGGish needs at least {SHORTEST} samples at 16 kHz, got {len(waveform)}")
    frames = waveform.cpu().double().unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW, dtype=torch.float64)
    mel = (torch.fft.rfft(frames, N_FFT).abs() @ _filters() + LOG_OFFSET).log().float()  # (F, 64)
    count = len(mel) // EXAMPLE
    return mel[: count * EXAMPLE].unflatten(0, (count, EXAMPLE))


class VGG(nn.Module):
    """Examples (k, 96, 64) to embeddings (k, 128)."""

    def __init__(self):
        super().__init__()
        self.features, width = nn.Sequential(), 1
        for step in PLAN:
            if step == "pool":
                self.features.append(nn.MaxPool2d(2))
            else:
                self.features.extend([nn.Conv2d(width, step, 3, padding=1), nn.ReLU()])
                width = step
        size = width * (EXAMPLE // 16) * (MELS // 16)
        self.embeddings = nn.Sequential(
            nn.Linear(size, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, EMBEDDING)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x.unsqueeze(1))  # (k, 512, 6, 4)
        return self.embeddings(x.permute(0, 2, 3, 1).flatten(1))  # channels last, as the original was trained


class Vggish(Loaded):
    def __init__(self, info: BackboneInfo, paths: Sequence[Path], device: torch.device):
        super().__init__(info, paths, device)
        self.network = fill(VGG, paths[0], device)

    @torch.inference_mode()
    def audio(self, samples: Tensor, sample_rate: int, duration: float) -> dict[str, np.ndarray]:
        """{"embedding": (k, 128)}, one row for each 0.96 s that are whole.

        Raises:
            ValueError: shorter than one example, or a sample rate that cannot be resampled.
        """
        wave = mono(samples, sample_rate, SAMPLE_RATE, duration, centred=True)
        return {"embedding": self.network(examples(wave).to(self.device)).cpu().numpy()}


def load(info: BackboneInfo, paths: Sequence[Path], device: torch.device) -> Vggish:
    return Vggish(info, paths, device)
