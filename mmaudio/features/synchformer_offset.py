"""Synchformer whole: both encoders and the head that tells by how much sound and picture are apart (section 3.3)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmaudio.features.frames import sync_normalize
from mmaudio.features.synchformer import SynchformerConfig, SynchformerVisual
from mmaudio.features.synchformer_audio import (
    TOKENS_PER_SEGMENT,
    SelfAttention,
    SynchformerAudio,
    SynchformerAudioConfig,
    mel_segments,
)

NUM_OFFSETS = 21
MAX_OFFSET = 2.0  # seconds


@dataclass(frozen=True)
class OffsetHeadConfig:
    embed_dim: int = 768
    depth: int = 3
    num_heads: int = 8
    segments: int = 14  # 4.8 s; the table of positions fits no other number
    video_tokens: int = 8  # per segment


@dataclass(frozen=True)
class SynchformerModelConfig:
    visual: SynchformerConfig = field(default_factory=SynchformerConfig)
    audio: SynchformerAudioConfig = field(default_factory=SynchformerAudioConfig)
    head: OffsetHeadConfig = field(default_factory=OffsetHeadConfig)


def offset_grid() -> Tensor:
    """What the classes mean, (21,) seconds from -2 to 2: how much too early the sound is."""
    return torch.linspace(-MAX_OFFSET, MAX_OFFSET, NUM_OFFSETS, dtype=torch.float64).float()


class OffsetAttention(SelfAttention):
    def __init__(self, dim: int, num_heads: int):
        super().__init__(dim, num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(super().forward(x))


class OffsetBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.ln1 = nn.LayerNorm(dim)
        self.attn = OffsetAttention(dim, num_heads)
        self.ln2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class OffsetTransformer(nn.Module):
    """[OFF, video, MOD, audio] with learned positions; the logits come from OFF."""

    def __init__(self, c: OffsetHeadConfig):
        super().__init__()
        tokens = 2 + c.segments * (c.video_tokens + TOKENS_PER_SEGMENT)
        self.OFF_tok = nn.Parameter(torch.randn(1, 1, c.embed_dim) * 0.02)
        self.MOD_tok = nn.Parameter(torch.randn(1, 1, c.embed_dim) * 0.02)
        self.vis_in_lnorm = nn.LayerNorm(c.embed_dim)
        self.aud_in_lnorm = nn.LayerNorm(c.embed_dim)
        self.pos_emb_cfg = nn.ParameterDict({"pos_emb": nn.Parameter(torch.randn(1, tokens, c.embed_dim) * 0.02)})
        self.blocks = nn.ModuleList(OffsetBlock(c.embed_dim, c.num_heads) for _ in range(c.depth))
        self.ln_f = nn.LayerNorm(c.embed_dim)
        self.off_head = nn.Linear(c.embed_dim, NUM_OFFSETS)

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        """Video (B, Nv, D) and audio tokens (B, Na, D) to logits (B, 21)."""
        off, mod = (token.expand(len(video), -1, -1) for token in (self.OFF_tok, self.MOD_tok))
        x = torch.cat([off, self.vis_in_lnorm(video), mod, self.aud_in_lnorm(audio)], dim=1)
        x = x + self.pos_emb_cfg["pos_emb"]
        for block in self.blocks:
            x = block(x)
        return self.off_head(self.ln_f(x[:, 0]))


class OffsetHead(nn.Module):
    """Features of 14 segments to logits over `offset_grid`; keys are those of the official file."""

    def __init__(self, config: OffsetHeadConfig = OffsetHeadConfig()):
        super().__init__()
        self.config = config
        self.vproj = nn.Linear(config.embed_dim, config.embed_dim)
        self.aproj = nn.Linear(config.embed_dim, config.embed_dim)
        self.transformer = OffsetTransformer(config)

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        """Video (B, 14, 8, D) and audio (B, 14, 6, D) features to logits (B, 21).

        Raises:
            ValueError: another number of segments.
        """
        if not video.shape[1] == audio.shape[1] == self.config.segments:
            raise ValueError(
                f"the offset head needs exactly {self.config.segments} segments of picture and of sound, "
                f"got {video.shape[1]} and {audio.shape[1]}"
            )
        return self.transformer(self.vproj(video.flatten(1, 2)), self.aproj(audio.flatten(1, 2)))


PARTS = {  # first word of a key in the official file -> part of `Synchformer`
    "vfeat_extractor": "visual",
    "afeat_extractor": "audio",
    "vproj": "head",
    "aproj": "head",
    "transformer": "head",
}


class Synchformer(nn.Module):
    """The whole model; `own_key` and `official_key` translate between its names and the official file's."""

    def __init__(self, config: SynchformerModelConfig = SynchformerModelConfig()):
        super().__init__()
        self.visual = SynchformerVisual(config.visual)
        self.audio = SynchformerAudio(config.audio)
        self.head = OffsetHead(config.head)

    def forward(self, frames: Tensor, waveform: Tensor) -> Tensor:
        """uint8 frames at 25 fps (B, 120, 3, H, W) and sound at 16 kHz (B, 76800) to the head's output.

        Or features (B, 14, 8, D) in place of the frames, as `visual` made them.
        """
        whole = frames.dtype == torch.uint8
        video = self.visual(self.visual.segment(sync_normalize(frames))) if whole else frames  # (B, 14, 8, D)
        return self.head(video, self.audio(mel_segments(waveform)))


def own_key(official: str) -> str:
    """`Synchformer`'s name of an official key; a key of no part stays as it is, for strict loading to report."""
    part = PARTS.get(official.partition(".")[0])
    return f"{part}.{official}" if part else official


def official_key(own: str) -> str:
    return own.partition(".")[2]
