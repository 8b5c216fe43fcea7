"""A small audio tagger that knows the Foley Stage: which kinds of sound, of which materials, at any length.

It was trained on Stage sound alone (`scripts/train_judge.py`) and is bundled, so that semantics can be measured with no
download: label accuracy, KL and inception score from its logits, a Frechet distance from its embedding.
"""

import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio.codec.mel import MEL_16K, MelSpectrogram
from mmaudio.data.preparation import resample
from mmaudio.stage import KINDS, LABELS, STAGE_VERSION
from mmaudio.weights import BUNDLED_DIR, WeightError, load_strict, read_metadata, read_state, save_safetensors

KIND_COLUMNS = slice(0, len(KINDS))
MATERIAL_COLUMNS = slice(len(KINDS), len(LABELS))
WEIGHTS = BUNDLED_DIR / "stage_judge.safetensors"

WIDTHS = (32, 64, 96, 128)  # channels after each convolution
STRIDE = 8  # mel frames to a moment: 128 ms
EMBEDDING = 96
SHORTEST = 0.5  # seconds; shorter sound is followed by silence
RANGE = 4.0  # decades below the clip's loudest band that the level-free picture shows


@dataclass(frozen=True)
class Verdict:
    """What the judge makes of one clip."""

    logits: np.ndarray  # (len(LABELS),) float32
    embedding: np.ndarray  # (EMBEDDING,) float32

    @property
    def probabilities(self) -> np.ndarray:
        """Of each label on its own, (len(LABELS),)."""
        return 1 / (1 + np.exp(-self.logits))


def label_mask(kinds: tuple[str, ...], materials: tuple[str, ...]) -> np.ndarray:
    """Names to bool (len(LABELS),)."""
    return np.array([label in kinds or label in materials for label in LABELS])


class Judge(nn.Module):
    """Waveform (B, N) at 16 kHz to logits (B, len(LABELS)) and embeddings (B, EMBEDDING)."""

    def __init__(self):
        super().__init__()
        self.mel = MelSpectrogram(MEL_16K)
        widths = (2, *WIDTHS)
        self.convolutions = nn.Sequential()
        for i, (narrow, wide) in enumerate(itertools.pairwise(widths)):
            size, stride = (5, 2) if i == 0 else (3, (2, 1) if i == len(WIDTHS) - 1 else 2)
            self.convolutions.append(nn.Conv2d(narrow, wide, size, stride, padding=size // 2, bias=False))
            self.convolutions.append(nn.BatchNorm2d(wide))
            self.convolutions.append(nn.ReLU())
        self.frame = nn.Conv1d(WIDTHS[-1] * (MEL_16K.num_mels >> len(WIDTHS)), 2 * EMBEDDING, 1)
        self.moment = nn.Conv1d(2 * EMBEDDING, len(LABELS), 1)
        self.embed = nn.Linear(4 * EMBEDDING, EMBEDDING)
        self.classify = nn.Linear(EMBEDDING, len(LABELS))

    @property
    def sample_rate(self) -> int:
        return self.mel.config.sample_rate

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        missing = round(SHORTEST * self.sample_rate) - waveform.shape[1]
        logits, embedding, _ = self.judge_mel(self.mel(F.pad(waveform, (0, max(missing, 0)))))
        return logits, embedding

    def judge_mel(self, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-mel (B, M, F) as `self.mel` makes it: also the logits of each moment, (B, len(LABELS), F / STRIDE)."""
        # The sound as it is and relative to its loudest moment: quiet clips are heard, and heard to be quiet.
        relative = mel - mel.amax((1, 2), keepdim=True)
        x = torch.stack([mel / 2 + 1, relative.clamp(min=-RANGE) / 2 + 1], 1)  # (B, 2, M, F)
        x = self.frame(self.convolutions(x).flatten(1, 2)).relu()  # (B, C, F / STRIDE)
        moments = self.moment(x)
        x = self.embed(torch.cat([x.mean(2), x.amax(2)], 1))  # what lasts, and what happens once
        return self.classify(x.relu()) + moments.amax(2), x, moments

    @torch.inference_mode()
    def listen(self, audio: np.ndarray, sample_rate: int) -> Verdict:
        """Judge mono audio (N,) of any length and rate."""
        wave = torch.as_tensor(np.asarray(audio, np.float32))
        if sample_rate != self.sample_rate:
            wave = resample(wave, sample_rate, self.sample_rate)
        logits, embedding = self(wave[None])
        return Verdict(logits[0].numpy(), embedding[0].numpy())


def save_judge(judge: Judge, path: str | os.PathLike, metadata: dict[str, str]) -> None:
    """Write the weights in half precision; `metadata` is added to the Stage version and the labels."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in judge.state_dict().items()}
    facts = {"stage_version": str(STAGE_VERSION), "labels": json.dumps(LABELS)}
    save_safetensors(path, state, metadata | facts)


def load_judge(path: str | os.PathLike = WEIGHTS) -> Judge:
    """The judge of this version of the Stage, in float32 on the CPU.

    Raises:
        WeightError: no such file, damaged, or trained for another Stage.
    """
    path, remedy = Path(path), "run scripts/train_judge.py"
    if not path.exists():
        raise WeightError(f"{path}: the judge is not there; {remedy}")
    facts = read_metadata(path)
    if (version := facts.get("stage_version")) != str(STAGE_VERSION):
        raise WeightError(f"{path}: judges Stage version {version}, this is version {STAGE_VERSION}; {remedy}")
    if tuple(json.loads(facts.get("labels", "[]"))) != LABELS:
        raise WeightError(f"{path}: knows other labels than this Stage has; {remedy}")
    judge = Judge()
    load_strict(judge, read_state(path), source=path)
    return judge.eval().requires_grad_(False)
