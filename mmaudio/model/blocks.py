"""Transformer blocks: one stream of tokens, the joint block over three of them, and the final layer."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmaudio.model.layers import MLP, ChannelLastConv1d, ConvMLP, RMSNorm, apply_rope, layer_norm, modulate


class SelfAttention(nn.Module):
    """Projection to normalised, rotated q, k and v. The attention itself is the caller's: it may join streams."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = RMSNorm(dim // num_heads)
        self.k_norm = RMSNorm(dim // num_heads)

    def forward(self, x: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        # q, k, v are interleaved per channel in the rows of the weight, not three blocks of rows. They are set apart
        # in memory as well: torch has no fused attention for channels that do not lie side by side.
        q, k, v = rearrange(self.qkv(x), "b n (h d j) -> j b h n d", h=self.num_heads, j=3).contiguous()
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = apply_rope(q, rope), apply_rope(k, rope)
        return q, k, v.to(q.dtype)  # each (B, H, N, head_dim)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")


class StreamBlock(nn.Module):
    """One modality's half of a transformer block, modulated by a condition of shape (B, 1 or N, D).

    Many frames may have the same condition: then it is (U, D), and `row_of_frame` (B, N) says whose is which.

    `before` gives q, k, v; `after` takes the attention's result. Latent and CLIP streams mix neighbouring frames by
    convolutions of width 3 (`kernel_size=3`); the text stream does not (`kernel_size=1`). A `pre_only` block (the last
    joint block's CLIP and text streams) supplies q, k, v and ends there.
    """

    def __init__(self, dim: int, num_heads: int, kernel_size: int, pre_only: bool = False):
        super().__init__()
        self.pre_only = pre_only
        self.attn = SelfAttention(dim, num_heads)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, (2 if pre_only else 6) * dim))
        if pre_only:
            return
        if kernel_size == 1:
            self.linear1 = nn.Linear(dim, dim)
            self.ffn = MLP(dim)
        else:
            self.linear1 = ChannelLastConv1d(dim, dim, kernel_size, padding=kernel_size // 2)
            self.ffn = ConvMLP(dim, kernel_size)

    def before(self, x: Tensor, condition: Tensor, rope: Tensor | None, row_of_frame: Tensor | None = None):
        modulation = self.adaLN_modulation(condition)
        if row_of_frame is not None:
            modulation = F.embedding(row_of_frame, modulation)  # (B, N, 6 D)
        shift, scale, *rest = modulation.chunk(2 if self.pre_only else 6, dim=-1)
        return self.attn(modulate(layer_norm(x), shift, scale), rope), rest

    def after(self, x: Tensor, attended: Tensor, modulation: list[Tensor]) -> Tensor:
        gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation
        x = x + gate_attn * self.linear1(attended)
        return x + gate_mlp * self.ffn(modulate(layer_norm(x), shift_mlp, scale_mlp))

    def forward(self, x: Tensor, condition: Tensor, rope: Tensor | None, row_of_frame: Tensor | None = None) -> Tensor:
        qkv, modulation = self.before(x, condition, rope, row_of_frame)
        return self.after(x, attention(*qkv), modulation)


class JointBlock(nn.Module):
    """Latent, CLIP and text streams with weights of their own and one attention over all tokens (paper, 3.3).

    The latent stream is modulated per frame, CLIP and text by the global condition. Text tokens are not rotated.
    """

    def __init__(self, dim: int, num_heads: int, pre_only: bool):
        super().__init__()
        self.pre_only = pre_only
        self.latent_block = StreamBlock(dim, num_heads, kernel_size=3)
        self.clip_block = StreamBlock(dim, num_heads, kernel_size=3, pre_only=pre_only)
        self.text_block = StreamBlock(dim, num_heads, kernel_size=1, pre_only=pre_only)

    def forward(
        self,
        latent: Tensor,  # (B, L, D)
        clip: Tensor,  # (B, T, D)
        text: Tensor,  # (B, N, D)
        global_c: Tensor,  # (B, 1, D)
        frame_c: Tensor,  # (B, L, D); (U, D) with row_of_frame
        latent_rope: Tensor,
        clip_rope: Tensor,
        row_of_frame: Tensor | None = None,  # (B, L)
    ) -> tuple[Tensor, Tensor, Tensor]:
        latent_qkv, latent_mod = self.latent_block.before(latent, frame_c, latent_rope, row_of_frame)
        clip_qkv, clip_mod = self.clip_block.before(clip, global_c, clip_rope)
        text_qkv, text_mod = self.text_block.before(text, global_c, None)

        q, k, v = (torch.cat(parts, dim=2) for parts in zip(latent_qkv, clip_qkv, text_qkv, strict=True))
        attended = attention(q, k, v)  # (B, L + T + N, D)
        lengths = (latent.shape[1], clip.shape[1], text.shape[1])
        latent_out, clip_out, text_out = attended.split(lengths, dim=1)

        latent = self.latent_block.after(latent, latent_out, latent_mod)
        if not self.pre_only:
            clip = self.clip_block.after(clip, clip_out, clip_mod)
            text = self.text_block.after(text, text_out, text_mod)
        return latent, clip, text


class FinalBlock(nn.Module):
    """Modulated layer norm and a convolution to the latent channels.

    It takes the *global* condition although the blocks before it use the per-frame one: released weights rely on it.
    """

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))
        self.conv = ChannelLastConv1d(dim, out_dim, kernel_size=7, padding=3)

    def forward(self, latent: Tensor, global_c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(global_c).chunk(2, dim=-1)
        return self.conv(modulate(layer_norm(latent), shift, scale))
