"""LAION-CLAP (Wu et al., 2023): HTSAT for sound and RoBERTa for text, as the networks of `transformers`.

The weights are those of the official checkpoint, renamed; that the converted file on the hub is equal is not verified.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmaudio.evaluation.backbones.loading import Loaded
from mmaudio.evaluation.backbones.sound import decibel_mel, mono
from mmaudio.evaluation.backbones.table import BackboneInfo
from mmaudio.weights import load_strict, read_state

SAMPLE_RATE = 48_000
SAMPLES = 480_000  # 10 s, always
N_FFT, HOP = 1024, 480
LOWEST, HIGHEST = 50, 14_000  # Hz
TEXT_LENGTH = 77
START, PAD, END = (0, "<s>"), (1, "<pad>"), (2, "</s>")  # of RoBERTa's vocabulary
POSITIONS = 514

UNUSED = re.compile(
    r"audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\.|.*\.attn_mask$"
    r"|(text|audio)_transform\.|text_branch\.embeddings\.position_ids$"
)
NAMES = (  # in the official file, and in transformers
    ("text_branch.", "text_model."),
    ("audio_branch.bn0.", "audio_branch.batch_norm."),
    (".attn.proj.", ".attention.output.dense."),
    (".attn.", ".attention.self."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    ("_projection.0.", "_projection.linear1."),
    ("_projection.2.", "_projection.linear2."),
    ("audio_branch.", "audio_model.audio_encoder."),
)


def repeat_and_pad(wave: Tensor) -> Tensor:
    """(N,) to 10 s at 48 kHz: whole repeats, then silence. The official code cuts longer sound at random; this, at 0.

    Raises:
        ValueError: empty.
    """
    if not len(wave):
        raise ValueError("CLAP needs sound, got 0 samples")
    wave = wave[:SAMPLES]
    wave = wave.repeat(SAMPLES // len(wave))
    return F.pad(wave, (0, SAMPLES - len(wave)))


def log_mel(wave: Tensor) -> Tensor:
    """(B, 480000) to (B, 1, 1001, 64) decibels."""
    return decibel_mel(wave, SAMPLE_RATE, N_FFT, HOP, LOWEST, HIGHEST)


def build_network():
    """A `ClapModel` in the layout of laion/larger_clap_general."""
    from transformers import ClapConfig, ClapModel

    # The default of transformers, 1e-12, is not what RoBERTa was trained with: unit embeddings move by up to 7e-5.
    text = {"layer_norm_eps": 1e-5}
    audio = {"patch_embeds_hidden_size": 128, "depths": [2, 2, 12, 2], "hidden_size": 1024}
    return ClapModel(ClapConfig(text_config=text, audio_config=audio)).eval()


def converted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The official checkpoint's tensors under the names of transformers; an unknown key stays, for strict loading."""
    found = {
        "text_model.embeddings.position_ids": torch.arange(POSITIONS)[None],
        "text_model.embeddings.token_type_ids": torch.zeros(1, POSITIONS, dtype=torch.long),
    }
    for key, tensor in state.items():
        key = key.removeprefix("module.")
        if UNUSED.match(key):
            continue
        for official, own in NAMES:
            key = key.replace(official, own)
        if ".qkv." in key:
            for name, part in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[key.replace("qkv", name)] = part
        else:
            found[key] = tensor
    return found


def read_tokenizer(vocabulary: Path, merges: Path):
    """RoBERTa's tokeniser: texts to 77 ids, cut or padded."""
    from tokenizers.implementations import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing

    tokenizer = ByteLevelBPETokenizer(str(vocabulary), str(merges))
    tokenizer.post_processor = RobertaProcessing(END[::-1], START[::-1])
    tokenizer.enable_truncation(TEXT_LENGTH)
    tokenizer.enable_padding(length=TEXT_LENGTH, pad_id=PAD[0], pad_token=PAD[1])
    return tokenizer


class ClapLaion(Loaded):
    def __init__(self, info: BackboneInfo, paths: Sequence[Path], device: torch.device):
        super().__init__(info, paths, device)
        weights, vocabulary, merges = paths
        with torch.device("meta"):
            network = build_network()
        load_strict(network, converted(read_state(weights)), source=weights)
        self.network = network.requires_grad_(False).to(device)
        self.tokenizer = read_tokenizer(vocabulary, merges)

    @torch.inference_mode()
    def audio(self, samples: Tensor, sample_rate: int, duration: float) -> dict[str, np.ndarray]:
        """{"embedding": (512,)} of length 1, of the first `duration` seconds, or 10 if that is more.

        Raises:
            ValueError: no sound, or a sample rate that cannot be resampled.
        """
        wave = repeat_and_pad(mono(samples, sample_rate, SAMPLE_RATE, duration, centred=True))
        found = self.network.audio_model(log_mel(wave[None].to(self.device))).pooler_output
        return _unit(self.network.audio_projection(found))

    def text(self, caption: str) -> dict[str, np.ndarray]:
        """{"embedding": (512,)} of length 1."""
        return self.text_of_ids(torch.tensor([self.tokenizer.encode(caption).ids]))

    @torch.inference_mode()
    def text_of_ids(self, ids: Tensor) -> dict[str, np.ndarray]:
        """What `text` makes of the token ids (1, 77)."""
        ids = ids.to(self.device)
        found = self.network.text_model(ids, attention_mask=(ids != PAD[0]).long()).pooler_output
        return _unit(self.network.text_projection(found))


def _unit(embedding: Tensor) -> dict[str, np.ndarray]:
    return {"embedding": F.normalize(embedding, dim=-1)[0].cpu().numpy()}


def load(info: BackboneInfo, paths: Sequence[Path], device: torch.device) -> ClapLaion:
    return ClapLaion(info, paths, device)
