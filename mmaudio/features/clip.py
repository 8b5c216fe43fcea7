"""CLIP features through open_clip: one embedding per frame, one feature per text token."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio.features.frames import clip_normalize


@dataclass(frozen=True)
class ClipConfig:
    """open_clip's own model configuration, as keyword arguments of its `CLIP` class."""

    embed_dim: int
    vision: dict[str, Any]
    text: dict[str, Any]
    quick_gelu: bool
    frame_size: int  # frames are resized to this square; may exceed the model's image size (see ClipEncoder.image)


CLIP_DFN5B_H14 = ClipConfig(
    embed_dim=1024,
    vision={"image_size": 378, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
    text={"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24},
    quick_gelu=True,
    frame_size=384,
)


def build_clip(config: ClipConfig) -> nn.Module:
    """open_clip's `CLIP` with random weights."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    model = CLIP(
        config.embed_dim, CLIPVisionCfg(**config.vision), CLIPTextCfg(**config.text), quick_gelu=config.quick_gelu
    )
    return model.eval()


def tokenize(prompts: list[str]) -> Tensor:
    """Prompts to (B, 77) token ids: lower-cased BPE, cut with the end token last, zero padded."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=77)(prompts)


class ClipEncoder(nn.Module):
    """Frames and prompts to features. A tower that was never needed need not be loaded: see `vision` and `text`."""

    def __init__(self, model: nn.Module, frame_size: int):
        super().__init__()
        self.model = model
        self.frame_size = frame_size

    @torch.inference_mode()
    def image(self, frames: Tensor, chunk: int = 16) -> Tensor:
        """uint8 frames (B, T, 3, H, W) to unit-length embeddings (B, T, D).

        `frame_size` may be larger than the model's image size: the unpadded patch convolution then ignores the last
        rows and columns (384 px in the 378 px model), as in training. `chunk` frames at a time bound the memory.
        """
        visual = self.model.visual
        dtype, device = visual.conv1.weight.dtype, visual.conv1.weight.device
        flat = frames.flatten(0, 1)
        features = [
            F.normalize(visual(clip_normalize(part.to(device)).to(dtype)), dim=-1) for part in flat.split(chunk)
        ]
        return torch.cat(features).unflatten(0, frames.shape[:2])

    @torch.inference_mode()
    def text(self, prompts: list[str]) -> Tensor:
        """Prompts to unit-length features of *every* token, (B, 77, D), without the text projection."""
        m = self.model
        tokens = tokenize(prompts).to(m.token_embedding.weight.device)
        dtype = m.transformer.get_cast_dtype()
        x = m.token_embedding(tokens).to(dtype) + m.positional_embedding.to(dtype)  # (B, 77, D)
        x = m.ln_final(m.transformer(x, attn_mask=m.attn_mask))
        return F.normalize(x, dim=-1)
