"""PANNs' Cnn14 at 16 kHz: an AudioSet tagger (Kong et al., 2020, table II), key-compatible with the official file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio.evaluation.backbones.loading import Loaded, fill
from mmaudio.evaluation.backbones.sound import decibel_mel, mono
from mmaudio.evaluation.backbones.table import BackboneInfo

SAMPLE_RATE = 16_000
N_FFT, HOP = 512, 160
LOWEST, HIGHEST = 50, 8000  # Hz
MELS = 64
WIDTHS = (64, 128, 256, 512, 1024, 2048)
SHORTEST = 31 * HOP  # samples: 32 frames, what five poolings leave one of
EMBEDDING, CLASSES = 2048, 527
FRONT_END = ("spectrogram_extractor.", "logmel_extractor.")  # matrices in the file, which are computed here
OPTIONS = {"rename": lambda key: None if key.startswith(FRONT_END) else key}  # of `load_strict`


class ConvBlock(nn.Module):
    def __init__(self, narrow: int, wide: int):
        super().__init__()
        self.conv1 = nn.Conv2d(narrow, wide, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.bn2 = nn.BatchNorm2d(wide)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()


class Cnn14(nn.Module):
    """Waveform (B, N) at 16 kHz to embedding (B, 2048) and logits (B, 527)."""

    def __init__(self):
        super().__init__()
        self.bn0 = nn.BatchNorm2d(MELS)
        for i, (narrow, wide) in enumerate(zip((1, *WIDTHS), WIDTHS, strict=False), 1):
            setattr(self, f"conv_block{i}", ConvBlock(narrow, wide))
        self.fc1 = nn.Linear(WIDTHS[-1], EMBEDDING)
        self.fc_audioset = nn.Linear(EMBEDDING, CLASSES)

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        x = self.pictures(log_mel(waveform)).mean(3)  # (B, 2048, F / 32), over the bands
        embedding = self.fc1(x.amax(2) + x.mean(2)).relu()
        return embedding, self.fc_audioset(embedding)

    def pictures(self, mel: Tensor) -> Tensor:
        """(B, 1, F, 64) to (B, 2048, F / 32, 2)."""
        x = self.bn0(mel.transpose(1, 3)).transpose(1, 3)
        for i in range(1, len(WIDTHS) + 1):
            x = getattr(self, f"conv_block{i}")(x)
            if i < len(WIDTHS):  # the last block is not pooled
                x = F.avg_pool2d(x, 2)
        return x


def log_mel(waveform: Tensor) -> Tensor:
    """(B, N) to (B, 1, F, 64) decibels."""
    return decibel_mel(waveform, SAMPLE_RATE, N_FFT, HOP, LOWEST, HIGHEST)


class Panns(Loaded):
    def __init__(self, info: BackboneInfo, paths: Sequence[Path], device: torch.device):
        super().__init__(info, paths, device)
        self.network = fill(Cnn14, paths[0], device, **OPTIONS)

    @torch.inference_mode()
    def audio(self, samples: Tensor, sample_rate: int, duration: float) -> dict[str, np.ndarray]:
        """{"embedding": (2048,), "logits": (527,)}; a clip shorter than `duration` stays short.

        Raises:
            ValueError: under 0.31 s, or a sample rate that cannot be resampled.
        """
        wave = mono(samples, sample_rate, SAMPLE_RATE, duration, centred=True)
        if len(wave) < SHORTEST:
            raise ValueError(f"PANNs needs at least {SHORTEST} samples at 16 kHz, got {len(wave)}")
        embedding, logits = self.network(wave[None].to(self.device))
        return {"embedding": embedding[0].cpu().numpy(), "logits": logits[0].cpu().numpy()}


def load(info: BackboneInfo, paths: Sequence[Path], device: torch.device) -> Panns:
    return Panns(info, paths, device)
