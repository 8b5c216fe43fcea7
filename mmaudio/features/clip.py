"""CLIP features: one embedding per frame, one feature per text token."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio.features.clip_towers import ImageTower, TextTower
from mmaudio.features.frames import clip_normalize


@dataclass(frozen=True)
class ClipConfig:
    """open_clip's own model configuration, as keyword arguments of its `CLIP` class."""

    embed_dim: int
    vision: dict[str, Any]
    text: dict[str, Any]
    quick_gelu: bool
    frame_size: int  # frames are resized to this square, pixels


CLIP_DFN5B_H14 = ClipConfig(
    embed_dim=1024,
    vision={"image_size": 378, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
    text={"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24},
    quick_gelu=True,
    frame_size=384,
)


def build_clip(config: ClipConfig) -> nn.Module:
    """open_clip's `CLIP` with random weights, for training."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    model = CLIP(
        config.embed_dim, CLIPVisionCfg(**config.vision), CLIPTextCfg(**config.text), quick_gelu=config.quick_gelu
    )
    return model.eval()


def build_vision(config: ClipConfig) -> nn.Module:
    """Only the image tower, for inference: the `visual.*` part of `build_clip`'s keys, random weights."""
    return ImageTower(config.embed_dim, config.quick_gelu, **config.vision).eval()


def build_text(config: ClipConfig) -> nn.Module:
    """Everything but the image tower, for inference, random weights."""
    return TextTower(config.embed_dim, config.quick_gelu, **config.text).eval()


def causal_mask(length: int, device: torch.device | None = None) -> Tensor:
    """(N, N) additive mask: a token sees itself and those before it."""
    return torch.full((length, length), float("-inf"), device=device).triu(1)


def tokenize(prompts: list[str]) -> Tensor:
    """Prompts to (B, 77) token ids: lower-cased BPE, cut with the end token last, zero padded."""
    return _tokenizer()(prompts)


@cache
def _tokenizer() -> Callable[[list[str]], Tensor]:
    """open_clip's, made once: its vocabulary takes 0.2 s. Run from its file, as the package imports much besides."""
    package = importlib.util.find_spec("open_clip")
    path = Path(package.origin).with_name("tokenizer.py")
    spec = importlib.util.spec_from_file_location("open_clip.tokenizer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.tokenize


class ClipEncoder:
    """Frames and prompts to features. Each tower may be absent: text-to-audio never loads the image tower."""

    def __init__(self, vision: nn.Module | None, text: nn.Module | None):
        self.vision = vision
        self.text_tower = text

    @torch.inference_mode()
    def image(self, frames: Tensor, chunk: int = 16, progress: Callable[[int, int], None] | None = None) -> Tensor:
        """uint8 frames (B, T, 3, H, W) to unit-length embeddings (B, T, D).

        Frames may be larger than the model's image size: the unpadded patch convolution then ignores the last rows
        and columns (384 px in the 378 px model), as in training. `chunk` frames at a time bound the memory.
        """
        weight = self.vision.conv1.weight
        flat, features = frames.flatten(0, 1), []
        for part in flat.split(chunk):
            pixels = clip_normalize(part.to(weight.device)).to(weight.dtype)
            features.append(F.normalize(self.vision(pixels), dim=-1))
            if progress is not None:
                progress(sum(map(len, features)), len(flat))
        return torch.cat(features).unflatten(0, frames.shape[:2])

    @torch.inference_mode()
    def text(self, prompts: list[str]) -> Tensor:
        """Prompts to unit-length features of *every* token, (B, 77, D), without the text projection."""
        tokens = tokenize(prompts).to(self.text_tower.token_embedding.weight.device)
        return F.normalize(token_features(self.text_tower, tokens), dim=-1)


def token_features(tower: nn.Module, tokens: Tensor) -> Tensor:
    """Token ids (B, N) to the last layer's output for each of them, (B, N, D); also of open_clip's own `CLIP`."""
    table = tower.token_embedding.weight
    x = tower.token_embedding(tokens) + tower.positional_embedding.to(table.dtype)  # (B, N, D)
    mask = causal_mask(x.shape[1], x.device).to(x.dtype)
    return tower.ln_final(tower.transformer(x, attn_mask=mask))
