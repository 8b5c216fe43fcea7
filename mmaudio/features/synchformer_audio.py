"""Synchformer's audio half: a spectrogram transformer over short segments (Iashin et al., 2024, section 3)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmaudio.features.synchformer import SpatialAggregation

SAMPLE_RATE = 16_000
SEGMENT_SAMPLES = 10_240  # 0.64 s, as long as 16 frames at 25 fps
SEGMENT_STEP = 5_120  # 0.32 s, 8 frames
N_FFT, WINDOW, HOP = 1024, 400, 160
NUM_MELS = 128
MEL_FRAMES = 66  # 65 of the spectrogram and one of padding
LOG_FLOOR = 1e-6
MEL_MEAN, MEL_STD = -4.2677393, 4.5689974
PATCH, STRIDE = 16, 10
MEL_PATCHES = (NUM_MELS - PATCH) // STRIDE + 1  # 12
TOKENS_PER_SEGMENT = (MEL_FRAMES - PATCH) // STRIDE + 1  # 6
EPS = 1e-12


@dataclass(frozen=True)
class SynchformerAudioConfig:
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12


@lru_cache
def _mel_filters(device: torch.device) -> Tensor:
    """Triangles on the HTK mel scale without normalisation, (M, n_fft / 2 + 1); torchaudio's, as in the training."""
    from torchaudio.functional import melscale_fbanks  # slow to import

    with torch.inference_mode(False):
        return melscale_fbanks(N_FFT // 2 + 1, 0.0, SAMPLE_RATE / 2, NUM_MELS, SAMPLE_RATE).T.to(device)


def mel_segments(waveform: Tensor) -> Tensor:
    """Waveform (B, N) at 16 kHz to normalised log-mel segments (B, S, 128, 66), each on its own; always in float32.

    Raises:
        ValueError: shorter than one segment.
    """
    if waveform.shape[-1] < SEGMENT_SAMPLES:
        raise ValueError(f"Synchformer needs at least {SEGMENT_SAMPLES} samples at 16 kHz, got {waveform.shape[-1]}")
    with torch.autocast(waveform.device.type, enabled=False):
        segments = waveform.float().unfold(-1, SEGMENT_SAMPLES, SEGMENT_STEP)  # (B, S, 10240)
        window = torch.hann_window(WINDOW, device=waveform.device)
        spectrum = torch.stft(segments.flatten(0, 1), N_FFT, HOP, WINDOW, window, return_complex=True)
        mel = _mel_filters(waveform.device) @ spectrum.abs().square()  # (B S, 128, 65)
        # [quirk] the padding is zero before the normalisation, which makes it loud instead of silent
        mel = F.pad((mel + LOG_FLOOR).log(), (0, MEL_FRAMES - mel.shape[-1]))
        return ((mel - MEL_MEAN) / (2 * MEL_STD)).unflatten(0, segments.shape[:2])


class SelfAttention(nn.Module):
    """Multi-head attention with separate projections, up to the joined heads; the output projection is outside."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D)
        q, k, v = (
            rearrange(project(x), "b n (h d) -> b h n d", h=self.num_heads)
            for project in (self.query, self.key, self.value)
        )
        return rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")


class ASTLayer(nn.Module):
    """A pre-norm transformer layer; the nesting gives the official file's names."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.layernorm_before = nn.LayerNorm(dim, eps=EPS)
        self.attention = nn.ModuleDict({"attention": SelfAttention(dim, num_heads), "output": _dense(dim, dim)})
        self.layernorm_after = nn.LayerNorm(dim, eps=EPS)
        self.intermediate = _dense(dim, 4 * dim)
        self.output = _dense(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention["output"]["dense"](self.attention["attention"](self.layernorm_before(x)))
        return x + self.output["dense"](F.gelu(self.intermediate["dense"](self.layernorm_after(x))))


def _dense(inputs: int, outputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inputs, outputs)})


class ASTEmbeddings(nn.Module):
    """Overlapping patches, frequency-major, behind two tokens of no use here but in the weights."""

    EXTRA = 2

    def __init__(self, dim: int):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, dim))
        tokens = self.EXTRA + MEL_PATCHES * TOKENS_PER_SEGMENT
        self.position_embeddings = nn.Parameter(torch.zeros(1, tokens, dim))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(1, dim, PATCH, STRIDE)})
        for parameter in (self.cls_token, self.distillation_token, self.position_embeddings):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.patch_embeddings["projection"](mel.unsqueeze(1))  # (B, D, 12, 6)
        extra = torch.cat([self.cls_token, self.distillation_token], dim=1).expand(len(x), -1, -1)
        return torch.cat([extra, x.flatten(2).transpose(1, 2)], dim=1) + self.position_embeddings  # (B, 74, D)


class AST(nn.Module):
    """Spectrogram transformer: log-mel (B, 128, 66) to one token per patch (B, 12, 6, D)."""

    def __init__(self, c: SynchformerAudioConfig):
        super().__init__()
        self.embeddings = ASTEmbeddings(c.embed_dim)
        layers = nn.ModuleList(ASTLayer(c.embed_dim, c.num_heads) for _ in range(c.depth))
        self.encoder = nn.ModuleDict({"layer": layers})
        self.layernorm = nn.LayerNorm(c.embed_dim, eps=EPS)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.embeddings(mel)
        for layer in self.encoder["layer"]:
            x = layer(x)
        x = self.layernorm(x[:, ASTEmbeddings.EXTRA :])
        return x.unflatten(1, (MEL_PATCHES, TOKENS_PER_SEGMENT))


class AudioExtractor(nn.Module):
    """Log-mel (B, 128, 66) to features (B, 6, D): in each time step one token sums up the frequencies."""

    def __init__(self, c: SynchformerAudioConfig):
        super().__init__()
        self.ast = AST(c)
        self.freq_attn_agg = SpatialAggregation(c.embed_dim, c.num_heads)
        nn.init.trunc_normal_(self.freq_attn_agg.cls_token, std=0.02)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.freq_attn_agg(rearrange(self.ast(mel), "b f t d -> (b t) f d"))
        return x.unflatten(0, (len(mel), TOKENS_PER_SEGMENT))


class SynchformerAudio(nn.Module):
    """The audio encoder; keys are those of the official file's `afeat_extractor.*` part."""

    def __init__(self, config: SynchformerAudioConfig = SynchformerAudioConfig()):
        super().__init__()
        self.config = config
        self.afeat_extractor = AudioExtractor(config)

    def forward(self, mel: Tensor) -> Tensor:
        """Normalised log-mel segments (B, S, 128, 66) to features (B, S, 6, D), each segment on its own."""
        return self.afeat_extractor(mel.flatten(0, 1)).unflatten(0, mel.shape[:2])

    @torch.inference_mode()
    def encode(self, waveform: Tensor, chunk: int = 32, progress: Callable[[int, int], None] | None = None) -> Tensor:
        """Mono sound (B, N) at 16 kHz to features (B, S, 6, D); `chunk` segments at a time bound the memory.

        Raises:
            ValueError: shorter than one segment.
        """
        weight = self.afeat_extractor.ast.layernorm.weight
        mel, features = mel_segments(waveform.to(weight.device)), []
        for part in mel.split(chunk, dim=1):
            features.append(self(part.to(weight.dtype)))
            if progress is not None:
                progress(sum(f.shape[1] for f in features), mel.shape[1])
        return torch.cat(features, dim=1)
