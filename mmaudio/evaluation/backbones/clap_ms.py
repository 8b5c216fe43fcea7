"""MS-CLAP 2023 (Elizalde et al.) through its package: HTSAT for sound and GPT-2 for text.

The package cuts sound of more than 7 s at random and reads stereo as one channel after the other. Here sound is mixed
down, and cut at 0, so that a score is the same in every run.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmaudio.evaluation.backbones.backbone import Unavailable
from mmaudio.evaluation.backbones.loading import Loaded
from mmaudio.evaluation.backbones.sound import mono
from mmaudio.evaluation.backbones.table import BackboneInfo

SAMPLE_RATE = 44_100
SAMPLES = 7 * SAMPLE_RATE
TEXT_MODEL, TEXT_LENGTH, END_OF_TEXT = "gpt2", 77, "<|endoftext|>"
TEXT_FILES = ("config.json", "vocab.json", "merges.txt", "model.safetensors")


def repeat_and_cut(wave: Tensor) -> Tensor:
    """(N,) to exactly 7 s at 44.1 kHz: repeated until it is enough, and cut.

    Raises:
        ValueError: empty.
    """
    if not len(wave):
        raise ValueError("CLAP needs sound, got 0 samples")
    return wave.repeat(-(-SAMPLES // len(wave)))[:SAMPLES]


class ClapMs(Loaded):
    def __init__(self, info: BackboneInfo, paths: Sequence[Path], device: torch.device):
        with warnings.catch_warnings():  # the package silences all warnings of the process
            from msclap import CLAP

            super().__init__(info, paths, device)
            self.wrapper = CLAP(model_fp=str(paths[0]), version="2023", use_cuda=False)
        self.wrapper.clap.to(device)

    @torch.inference_mode()
    def audio(self, samples: Tensor, sample_rate: int, duration: float) -> dict[str, np.ndarray]:
        """{"embedding": (1024,)} of the first `duration` seconds, or 7 if that is more; not of length 1.

        Raises:
            ValueError: no sound, or a sample rate that cannot be resampled.
        """
        wave = repeat_and_cut(mono(samples, sample_rate, SAMPLE_RATE, duration))
        embedding, _ = self.wrapper.clap.audio_encoder(wave[None].to(self.device))
        return {"embedding": embedding[0].cpu().numpy()}

    @torch.inference_mode()
    def text(self, caption: str) -> dict[str, np.ndarray]:
        """{"embedding": (1024,)}; not of length 1."""
        tokens = self.wrapper.tokenizer(  # the package's own way to call it is gone from transformers 5
            f"{caption} {END_OF_TEXT}", padding="max_length", truncation=True, max_length=TEXT_LENGTH,
            return_tensors="pt",
        )  # fmt: skip
        tokens = {key: tokens[key].to(self.device) for key in ("input_ids", "attention_mask")}
        return {"embedding": self.wrapper.clap.caption_encoder(tokens)[0].cpu().numpy()}


def load(info: BackboneInfo, paths: Sequence[Path], device: torch.device) -> ClapMs:
    """Raises `Unavailable` if GPT-2 is not in the Hugging Face cache, from where the package takes it."""
    from huggingface_hub import try_to_load_from_cache

    if missing := [name for name in TEXT_FILES if not isinstance(try_to_load_from_cache(TEXT_MODEL, name), str)]:
        raise Unavailable(
            f"{', '.join(missing)} of {TEXT_MODEL} are not in the Hugging Face cache", f"hf download {TEXT_MODEL}"
        )
    return ClapMs(info, paths, device)
