"""Layers of the flow network: SwiGLU units, channel-last convolutions, rotary tables, time embedding."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio.sequence import SequenceSpec

RMS_EPS = torch.finfo(torch.float32).eps  # whatever the dtype: the reference was trained with this epsilon


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


def layer_norm(x: Tensor) -> Tensor:
    """Layer norm without an affine part, eps 1e-5."""
    return F.layer_norm(x, x.shape[-1:])


def unit_variance(x: Tensor) -> Tensor:
    """Features of unit length to such whose D numbers vary by about one."""
    return x * x.shape[-1] ** 0.5


class ChannelLastConv1d(nn.Conv1d):
    """1-D convolution over time on (B, N, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def swiglu_width(dim: int, hidden: int, multiple_of: int = 256) -> int:
    """Inner width of a SwiGLU unit: two thirds of `hidden`, rounded up."""
    return multiple_of * -(-int(2 * hidden / 3) // multiple_of)


class MLP(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x), no biases. `times` widens it."""

    def __init__(self, dim: int, times: int = 1):
        super().__init__()
        inner = times * swiglu_width(dim, 4 * dim)
        self.w1 = nn.Linear(dim, inner, bias=False)
        self.w2 = nn.Linear(inner, dim, bias=False)
        self.w3 = nn.Linear(dim, inner, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class ConvMLP(nn.Module):
    """SwiGLU whose three maps are convolutions over time, channel-last outside."""

    def __init__(self, dim: int, kernel_size: int):
        super().__init__()
        inner, padding = swiglu_width(dim, 4 * dim), kernel_size // 2
        self.w1 = nn.Conv1d(dim, inner, kernel_size, padding=padding, bias=False)
        self.w2 = nn.Conv1d(inner, dim, kernel_size, padding=padding, bias=False)
        self.w3 = nn.Conv1d(dim, inner, kernel_size, padding=padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)  # (B, D, N): once for the three convolutions
        return self.w2(F.silu(self.w1(x)) * self.w3(x)).transpose(1, 2)


def without_convolutions(unit: ConvMLP) -> MLP:
    """A plain MLP with as many parameters: wider by the kernel's size."""
    return MLP(unit.w1.in_channels, times=unit.w1.kernel_size[0])


class RMSNorm(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), RMS_EPS)


def constant_table(build):
    """Builds each table once per device and keeps it: a table copied in every step makes the CPU wait for the GPU.

    The result is shared, so it must not be written to. It is no inference tensor, even if inference wants it first:
    training could not use that.
    """
    return lru_cache(maxsize=64)(torch.inference_mode(False)(build))


@constant_table
def rope_table(length: int, head_dim: int, scale: float = 1.0, device=None) -> Tensor:
    """Rotation angles' cosines and sines, (length, head_dim / 2, 2), float32.

    `scale` stretches the positions: the CLIP stream uses latent_len / clip_len, so that both streams run over the
    same time scale (paper, section 3.3, aligned RoPE).
    """
    i = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu")
    freqs = 1.0 / (10_000 ** (i / head_dim)) * scale
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device="cpu"), freqs)
    return torch.stack([angles.cos(), angles.sin()], dim=-1).to(device)


def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    """Rotate adjacent pairs of (B, H, N, head_dim) by the table's angles; arithmetic in float32 under every dtype."""
    pairs = x.float().unflatten(-1, (-1, 2))  # (B, H, N, head_dim / 2, 2)
    even, odd = pairs.unbind(-1)
    cos, sin = table.unbind(-1)  # (N, head_dim / 2)
    rotated = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return rotated.flatten(-2).to(x.dtype)


@constant_table
def nearest_exact_index(source_len: int, target_len: int, device=None) -> Tensor:
    """Index of the source frame for each target frame, as torch's "nearest-exact" rounds it in float32.

    Exact arithmetic picks other frames at ties (192 -> 345 differs at two places); checkpoints rely on float32.
    """
    ratio = torch.tensor(source_len / target_len, dtype=torch.float32, device="cpu")
    index = ((torch.arange(target_len, dtype=torch.float32, device="cpu") + 0.5) * ratio).floor().long()
    return index.clamp(max=source_len - 1).to(device)


@constant_table
def sync_frame_index(spec: SequenceSpec, device=None) -> Tensor:
    """Which of the frames of overlapping Synchformer segments, in their order, is seen at the middle of each latent.

    Of the two segments that see a frame, the one in which it is further from the ends: it knows before and after.
    """
    middle = torch.arange(spec.latent_len, dtype=torch.float64, device="cpu") + 0.5
    frame = (middle * (spec.mel_per_latent * spec.hop_length) * spec.sync_fps / spec.sample_rate).long()
    margin = (spec.sync_segment - spec.sync_step) // 2
    segment = ((frame - margin) // spec.sync_step).clamp(0, spec.sync_segments - 1)
    within = (frame - segment * spec.sync_step).clamp(max=spec.sync_segment - 1)  # the clip's end may be in no segment
    return (segment * spec.sync_segment + within).to(device)


class TimestepEmbedder(nn.Module):
    """Sinusoids of t and a two-layer MLP.

    v1: 256 features, t as it is. v2: `dim` features, frequencies scaled by 10^4, so that one float32 rounding of the
    table is visible in the output; the table is therefore built on the CPU in this order of operations, kept out of
    the module's buffers, and stays float32 whatever the module is cast to.
    """

    def __init__(self, dim: int, num_freqs: int, max_period: float):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(num_freqs, dim), nn.SiLU(), nn.Linear(dim, dim))
        exponent = torch.arange(0, num_freqs, 2, dtype=torch.float32, device="cpu") / num_freqs
        self.freqs = 1.0 / (10_000**exponent) * (10_000 / max_period)  # (num_freqs / 2)

    def embedding(self, t: Tensor) -> Tensor:
        if self.freqs.device != t.device:
            self.freqs = self.freqs.to(t.device)
        angles = t.float()[:, None] * self.freqs
        return torch.cat([angles.cos(), angles.sin()], dim=-1)  # (B, num_freqs)

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(self.embedding(t).to(self.mlp[0].weight.dtype))  # (B, D)
