"""An existing sound as a part of a new one: spans of it that stay, or all of it as where the flow begins."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torchaudio
from torch import Tensor

from mmaudio import flow
from mmaudio.codec.codec import AudioCodec
from mmaudio.data.preparation import resampling_problem
from mmaudio.media import read_audio
from mmaudio.sequence import SequenceSpec

CROSS_FADE = 0.02  # seconds, inside a kept span at each of its ends
MIN_SPAN = 0.1  # seconds
Kept = tuple[float, float]  # (start, end) seconds that stay


@dataclass(frozen=True)
class Edit:
    """What to keep of an existing sound.

    audio: a sound or video file, or a tensor (channels, samples) in [-1, 1] and its sample rate.
    keep: (start, end) seconds that stay as they are; everything else is made anew, to fit.
    strength: how far the rest may leave the sound: 1 ignores it, 0 gives it back through the codec.

    Raises ValueError for a strength outside of [0, 1], and spans that are short, reversed or overlap.
    """

    audio: str | os.PathLike | tuple[Tensor, int]
    keep: Sequence[Kept] = ()
    strength: float = 1.0

    def __post_init__(self):
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength must be between 0 and 1, got {self.strength}")
        spans = sorted((float(start), float(end)) for start, end in self.keep)
        for start, end in spans:
            if not (math.isfinite(end) and start >= 0 and end - start >= MIN_SPAN):
                raise ValueError(f"keep must be spans of at least {MIN_SPAN:g} s, got {start:g}-{end:g}")
        for (_, before), (start, end) in pairwise(spans):
            if start < before:
                raise ValueError(f"spans to keep overlap: {start:g}-{end:g} begins before {before:g}")
        object.__setattr__(self, "keep", tuple(spans))

    @property
    def name(self) -> str:
        return "the sound" if isinstance(self.audio, tuple) else os.fspath(self.audio)

    def read(self, duration: float | None = None) -> tuple[Tensor, int]:
        """The sound (channels, samples), at most its first `duration` seconds, and its sample rate.

        Raises MediaError if the file cannot be used; ValueError if a span to keep is not within the sound.
        """
        if isinstance(self.audio, tuple):
            wave, rate = self.audio
            wave = wave.float().cpu()
            if wave.ndim != 2 or not wave.numel() or not torch.isfinite(wave).all():
                raise ValueError(f"audio must be (channels, samples), finite and not empty, got {tuple(wave.shape)}")
            wave = wave if duration is None else wave[:, : round(duration * rate)]
        else:
            wave, rate = read_audio(self.audio, duration)
        for start, end in self.keep:
            if round(end * rate) > wave.shape[1]:
                there = f"only {wave.shape[1] / rate:.3f} s of it are in the result"
                raise ValueError(f"{self.name}: cannot keep {start:g}-{end:g}, {there}")
        return wave, rate


def parse_spans(text: str) -> list[Kept]:
    """ "0-2.5,5-6" to [(0, 2.5), (5, 6)]. Raises ValueError."""
    spans = []
    for part in text.split(","):
        start, _, end = part.partition("-")
        try:
            spans.append((float(start), float(end)))
        except ValueError:
            raise ValueError(f"{part.strip()!r} is no span; write start-end in seconds, such as 0-2.5,5-6") from None
    return spans


@dataclass(frozen=True)
class Given:
    """A sound as the flow takes it."""

    latents: Tensor  # (1, L, C) unnormalised
    kept: Tensor  # (L,) bool: frames that lie within the spans to keep
    strength: float

    @property
    def start(self) -> float:
        """The time at which the flow begins."""
        return 1 - self.strength

    def steps(self, num_steps: int) -> int:
        """So many of `num_steps` are left of the way."""
        return max(1, round(num_steps * self.strength))

    def begin(self, x0: Tensor, x1: Tensor) -> Tensor:
        """Noise and this sound, normalised, both (B, L, C), to the state in which the flow begins."""
        return x0 if self.strength == 1 else flow.interpolate(x0, x1, torch.full((len(x0),), self.start).to(x0))

    def bind(self, velocity: flow.Velocity, x0: Tensor, x1: Tensor) -> flow.Velocity:
        """The network's velocity, held to this sound."""
        if self.kept.any():
            velocity = flow.holding(velocity, x0, x1, self.kept)
        return velocity if self.strength == 1 else flow.starting_at(velocity, self.start)


def given_sound(edit: Edit, wave: Tensor, rate: int, codec: AudioCodec, spec: SequenceSpec) -> Given:
    """The sound (channels, samples) encoded over the length of `spec`, with silence after its end.

    Raises ValueError for a sample rate that has no small ratio to the codec's.
    """
    if problem := resampling_problem(rate, spec.sample_rate):
        raise ValueError(f"{edit.name}: {problem}")
    mono = torchaudio.functional.resample(wave.mean(0, keepdim=True), rate, spec.sample_rate)[:, : spec.num_samples]
    padded = torch.nn.functional.pad(mono, (0, spec.num_samples - mono.shape[1]))
    latents = codec.encode(padded.to(codec.mel.window.device)).mean
    borders = torch.arange(spec.latent_len + 1, dtype=torch.float64) / spec.latent_rate  # seconds
    kept = torch.zeros(spec.latent_len, dtype=torch.bool)
    for start, end in edit.keep:
        kept |= (borders[:-1] >= start) & (borders[1:] <= end)
    return Given(latents, kept.to(latents.device), edit.strength)


def paste(made: Tensor, made_rate: int, original: Tensor, rate: int, keep: Sequence[Kept], duration: float) -> Tensor:
    """The kept spans of `original` (C, N) into `made` (1, n): `duration` seconds (C, m) at the original's rate.

    Inside a span the samples are the original's, bit for bit, but for a cross-fade of 20 ms at each end that borders on
    something new.
    """
    length = round(duration * rate)
    result = torchaudio.functional.resample(made, made_rate, rate)[:, :length]
    result = torch.nn.functional.pad(result, (0, length - result.shape[1])).repeat(original.shape[0], 1)
    fade = round(CROSS_FADE * rate)
    rise = (torch.arange(fade) + 1) / (fade + 1)
    for start, end in keep:
        first, last = round(start * rate), min(round(end * rate), length)
        weight = torch.ones(last - first)
        if first > 0:
            weight[:fade] = rise
        if last < length:
            weight[-fade:] = rise.flip(0)
        blend = weight * original[:, first:last] + (1 - weight) * result[:, first:last]
        result[:, first:last] = torch.where(weight == 1, original[:, first:last], blend)
    return result
