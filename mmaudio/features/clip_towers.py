"""CLIP's two towers (Radford et al., 2021) under open_clip's names of parameters, and with its results.

open_clip trains them; to run them its package is not needed, whose import takes longer than many a generation.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, activation: type[nn.Module]):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=activation(), c_proj=nn.Linear(4 * width, width))
        )

    def forward(self, x: Tensor, attn_mask: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=attn_mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int, heads: int, quick_gelu: bool):
        super().__init__()
        activation = QuickGELU if quick_gelu else nn.GELU
        self.resblocks = nn.ModuleList(Block(width, heads, activation) for _ in range(layers))

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """(B, N, D) to the same; attn_mask (N, N) is additive."""
        for block in self.resblocks:
            x = block(x, attn_mask)
        return x


def _random(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.normal_(torch.empty(shape), std=shape[-1] ** -0.5))


class ImageTower(nn.Module):
    """Pictures (B, 3, H, W), normalised, to embeddings (B, D)."""

    def __init__(
        self, embed_dim: int, quick_gelu: bool, *, image_size: int, patch_size: int, width: int, layers: int,
        head_width: int = 64,
    ):  # fmt: skip
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch_size, patch_size, bias=False)
        self.class_embedding = _random(width)
        self.positional_embedding = _random(1 + (image_size // patch_size) ** 2, width)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, width // head_width, quick_gelu)
        self.ln_post = nn.LayerNorm(width)
        self.proj = _random(width, embed_dim)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv1(pixels).flatten(2).transpose(1, 2)  # (B, patches, width)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        x = self.transformer(self.ln_pre(x))
        return self.ln_post(x[:, 0]) @ self.proj


class TextTower(nn.Module):
    """What `ClipEncoder.text` takes features of tokens from; the projection and the temperature are for training."""

    def __init__(
        self, embed_dim: int, quick_gelu: bool, *, context_length: int, vocab_size: int, width: int, heads: int,
        layers: int,
    ):  # fmt: skip
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = _random(context_length, width)
        self.transformer = Transformer(width, layers, heads, quick_gelu)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = _random(width, embed_dim)
        self.logit_scale = nn.Parameter(torch.zeros([]))
