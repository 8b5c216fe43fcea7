"""PaSST-S, an AudioSet tagger of patches (Koutini et al., 2022), key-compatible with `passt_s_swa_p16_128_ap476`.

Written here rather than taken from the `hear21passt` package, which prints, and downloads its weights by itself.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio.evaluation.backbones.loading import Loaded, fill
from mmaudio.evaluation.backbones.sound import mono
from mmaudio.evaluation.backbones.table import BackboneInfo

SAMPLE_RATE = 32_000
SAMPLES = 320_000  # 10 s, always
PRE_EMPHASIS = 0.97
N_FFT, WINDOW, HOP = 1024, 800, 320
MELS, HIGHEST = 128, 15_000.0  # Hz
WIDTH, DEPTH, HEADS = 768, 12, 12
PATCH, STRIDE = 16, 10
ROWS, COLUMNS = 12, 99  # of patches: frequency, time
CLASSES = 527
OPTIONS = {"drop": ("head_dist.weight", "head_dist.bias")}  # of `load_strict`: in the file, never used


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    """Kaldi's triangles, with a column of zeros for the highest bin, (128, 513)."""
    from torchaudio.compliance.kaldi import get_mel_banks  # slow to import

    with torch.inference_mode(False):
        # The last three are the warping of the vocal tract, at the factor 1 that warps nothing.
        filters, _ = get_mel_banks(MELS, N_FFT, float(SAMPLE_RATE), 0.0, HIGHEST, 100.0, -500.0, 1.0)
        return F.pad(filters, (0, 1))


def log_mel(waveform: Tensor) -> Tensor:
    """(B, N) at 32 kHz, N up to any length, to (B, 128, 1000): of 10 s, cut or followed by silence."""
    waveform = F.pad(waveform[:, :SAMPLES], (0, max(0, SAMPLES - waveform.shape[1])))
    waveform = waveform[:, 1:] - PRE_EMPHASIS * waveform[:, :-1]
    window = torch.hann_window(WINDOW, periodic=False, device=waveform.device)
    spectrum = torch.stft(waveform, N_FFT, HOP, WINDOW, window, return_complex=True)
    mel = _filters().to(waveform.device) @ spectrum.abs().square()
    return ((mel + 1e-5).log() + 4.5) / 5


class PasstNetwork(nn.Module):
    """Log-mel (B, 128, 1000) to feature (B, 768) and logits (B, 527)."""

    def __init__(self):
        super().__init__()
        from timm.models.vision_transformer import Block  # slow to import

        norm = partial(nn.LayerNorm, eps=1e-6)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.new_pos_embed = nn.Parameter(torch.zeros(1, 2, WIDTH))
        self.freq_new_pos_embed = nn.Parameter(torch.zeros(1, WIDTH, ROWS, 1))
        self.time_new_pos_embed = nn.Parameter(torch.zeros(1, WIDTH, 1, COLUMNS))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, WIDTH, PATCH, STRIDE)})
        self.blocks = nn.ModuleList(Block(WIDTH, HEADS, qkv_bias=True, norm_layer=norm) for _ in range(DEPTH))
        self.norm = norm(WIDTH)
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES))

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        x = self.tokens(mel)
        for block in self.blocks:
            x = block(x)
        feature = self.norm(x[:, :2]).mean(1)
        return feature, self.head(feature)

    def tokens(self, mel: Tensor) -> Tensor:
        """(B, 2 + 12 * 99, 768): two summaries, then the patches, frequency-major."""
        patches = self.patch_embed["proj"](mel.unsqueeze(1)) + self.time_new_pos_embed + self.freq_new_pos_embed
        summaries = torch.cat([self.cls_token, self.dist_token], dim=1) + self.new_pos_embed
        return torch.cat([summaries.expand(len(mel), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)


class Passt(Loaded):
    def __init__(self, info: BackboneInfo, paths: Sequence[Path], device: torch.device):
        super().__init__(info, paths, device)
        self.network = fill(PasstNetwork, paths[0], device, **OPTIONS)

    @torch.inference_mode()
    def audio(self, samples: Tensor, sample_rate: int, duration: float) -> dict[str, np.ndarray]:
        """{"embedding": (768,), "logits": (527,)} of the first `duration` seconds, or 10 if that is more.

        Raises:
            ValueError: a sample rate that cannot be resampled.
        """
        wave = mono(samples, sample_rate, SAMPLE_RATE, duration, centred=True)
        feature, logits = self.network(log_mel(wave[None].to(self.device)))
        return {"embedding": feature[0].cpu().numpy(), "logits": logits[0].cpu().numpy()}


def load(info: BackboneInfo, paths: Sequence[Path], device: torch.device) -> Passt:
    return Passt(info, paths, device)
