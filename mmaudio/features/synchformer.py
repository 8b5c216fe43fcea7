"""Synchformer's visual half: divided space-time attention over short segments (Iashin et al., 2024, section 3)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from mmaudio.features.frames import sync_normalize


@dataclass(frozen=True)
class SynchformerConfig:
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    frame_size: int = 224
    patch_size: int = 16
    segment_frames: int = 16
    segment_step: int = 8
    frames_per_token: int = 2

    @property
    def grid(self) -> int:
        return self.frame_size // self.patch_size

    @property
    def tokens_per_segment(self) -> int:
        return self.segment_frames // self.frames_per_token


EPS = 1e-6


class DividedAttention(nn.Module):
    """Attention within groups of tokens; CLS sees every token, and every group sees CLS."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, frames: int, over: str) -> Tensor:
        """x (B, 1 + frames * patches, D), time-major; `over` is "time" (same place) or "space" (same frame)."""
        q, k, v = rearrange(self.qkv(x), "b n (j h d) -> j b h n d", j=3, h=self.num_heads)
        cls_out = F.scaled_dot_product_attention(q[:, :, :1], k, v)  # (B, H, 1, d)

        grouping = "b h (f p) d -> (b p) h f d" if over == "time" else "b h (f p) d -> (b f) h p d"
        q_in, k_in, v_in = (rearrange(y[:, :, 1:], grouping, f=frames) for y in (q, k, v))
        groups = q_in.shape[0] // x.shape[0]
        k_in, v_in = (
            torch.cat([repeat(y[:, :, :1], "b h 1 d -> (b g) h 1 d", g=groups), inner], dim=2)
            for y, inner in ((k, k_in), (v, v_in))
        )
        out = F.scaled_dot_product_attention(q_in, k_in, v_in)
        ungrouping = "(b p) h f d -> b h (f p) d" if over == "time" else "(b f) h p d -> b h (f p) d"
        out = rearrange(out, ungrouping, b=x.shape[0])
        return self.proj(rearrange(torch.cat([cls_out, out], dim=2), "b h n d -> b n (h d)"))


class MLP(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = DividedAttention(dim, num_heads)
        self.timeattn = DividedAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = MLP(dim)
        self.norm3 = nn.LayerNorm(dim, eps=EPS)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        x = x + self.timeattn(self.norm3(x), frames, over="time")
        x = x + self.attn(self.norm1(x), frames, over="space")
        return x + self.mlp(self.norm2(x))


class SpatialAggregation(nn.TransformerEncoderLayer):
    """One CLS token summarises each frame's patches: (N, patches, D) -> (N, D)."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__(
            dim,
            num_heads,
            4 * dim,
            dropout=0.0,
            activation=F.gelu,
            layer_norm_eps=EPS,
            batch_first=True,
            norm_first=True,
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return super().forward(x)[:, 0]


class PatchEmbed(nn.Module):
    """Holds a convolution under the official file's name."""

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.proj = conv

    def tubelets(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, F, patches, D): kernel and stride are equal, so one matrix product does it."""
        t, p, q = self.proj.kernel_size
        x = rearrange(x, "b c (f t) (h p) (w q) -> b f (h w) (c t p q)", t=t, p=p, q=q)
        return F.linear(x, self.proj.weight.flatten(1), self.proj.bias)


class VisualExtractor(nn.Module):
    """Segments (B, 3, T, H, W) to one feature per two frames (B, T / 2, D): every patch's, then their summary."""

    def __init__(self, c: SynchformerConfig):
        super().__init__()
        p = c.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + c.grid**2, c.embed_dim))
        self.temp_embed = nn.Parameter(torch.zeros(1, c.tokens_per_segment, c.embed_dim))
        self.patch_embed = PatchEmbed(nn.Conv2d(3, c.embed_dim, p, p)).requires_grad_(False)  # in the file, never used
        self.patch_embed_3d = PatchEmbed(
            nn.Conv3d(3, c.embed_dim, (c.frames_per_token, p, p), (c.frames_per_token, p, p))
        )
        self.blocks = nn.ModuleList(Block(c.embed_dim, c.num_heads) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.embed_dim, eps=EPS)
        self.spatial_attn_agg = SpatialAggregation(c.embed_dim, c.num_heads)
        for parameter in (self.cls_token, self.pos_embed, self.temp_embed, self.spatial_attn_agg.cls_token):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self.summary(self.patches(x))

    def patches(self, x: Tensor) -> Tensor:
        """Segments (B, 3, T, H, W) to (B, F, patches, D), F = T / 2."""
        x = self.patch_embed_3d.tubelets(x)  # (B, F, patches, D)
        frames = x.shape[1]
        x = x + self.pos_embed[:, 1:].unsqueeze(1) + self.temp_embed.unsqueeze(2)
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([cls, x.flatten(1, 2)], dim=1)  # (B, 1 + F h w, D)
        for block in self.blocks:
            x = block(x, frames)
        return rearrange(self.norm(x[:, 1:]), "b (f p) d -> b f p d", f=frames)

    def summary(self, patches: Tensor) -> Tensor:
        """(B, F, patches, D) to (B, F, D)."""
        x = self.spatial_attn_agg(patches.flatten(0, 1))
        return x.unflatten(0, patches.shape[:2])


def cut_segments(frames: Tensor, c: SynchformerConfig) -> Tensor:
    """Frames (B, T, 3, H, W) to overlapping segments (B, S, 16, 3, H, W), one every 8 frames; a view.

    Raises:
        ValueError: fewer frames than one segment has.
    """
    if frames.shape[1] < c.segment_frames:
        raise ValueError(f"Synchformer needs at least {c.segment_frames} frames at 25 fps, got {frames.shape[1]}")
    return rearrange(frames.unfold(1, c.segment_frames, c.segment_step), "b s c h w t -> b s t c h w")


class SynchformerVisual(nn.Module):
    """The visual encoder; keys are those of the official file's `vfeat_extractor.*` part."""

    def __init__(self, config: SynchformerConfig = SynchformerConfig()):
        super().__init__()
        self.config = config
        self.vfeat_extractor = VisualExtractor(config)

    def forward(self, segments: Tensor) -> Tensor:
        """Segments (B, S, 16, 3, H, W) in [-1, 1] to features (B, S, 8, D), each segment on its own."""
        batch = segments.shape[0]
        x = rearrange(segments, "b s t c h w -> (b s) c t h w")
        return rearrange(self.vfeat_extractor(x), "(b s) f d -> b s f d", b=batch)

    def segment(self, frames: Tensor) -> Tensor:
        return cut_segments(frames, self.config)

    @torch.inference_mode()
    def encode(self, frames: Tensor, chunk: int = 8, progress: Callable[[int, int], None] | None = None) -> Tensor:
        """uint8 frames at 25 fps (B, T, 3, H, W) to features (B, 8 S, D); `chunk` segments at a time bound the memory.

        Raises:
            ValueError: fewer frames than one segment has.
        """
        weight = self.vfeat_extractor.patch_embed_3d.proj.weight
        segments, features = self.segment(frames), []  # (B, S, 16, 3, H, W), a view
        for part in segments.split(chunk, dim=1):
            features.append(self(sync_normalize(part.to(weight.device)).to(weight.dtype)))
            if progress is not None:
                progress(sum(f.shape[1] for f in features), segments.shape[1])
        return torch.cat(features, dim=1).flatten(1, 2)
