"""Seconds to lengths: every sequence length of the method, derived from a duration (paper, section 3)."""

import dataclasses
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class SequenceSpec:
    """How many audio samples, latents, CLIP frames and sync tokens a clip of `duration` seconds has.

    All lengths use double arithmetic in one fixed order: a truncated duration such as 3.92 s must give the same
    lengths everywhere.
    """

    duration: float = 8.0  # seconds
    sample_rate: int = 16_000  # audio samples per second
    hop_length: int = 256  # audio samples per mel frame
    mel_per_latent: int = 2  # the VAE halves the time axis
    clip_fps: float = 8.0
    sync_fps: float = 25.0
    sync_segment: int = 16  # frames per Synchformer segment
    sync_step: int = 8  # frames between segment starts
    sync_tokens_per_segment: int = 8

    def __post_init__(self):
        if not (math.isfinite(self.duration) and self.duration > 0):
            raise ValueError(f"duration must be a positive number of seconds, got {self.duration}")

    @property
    def latent_len(self) -> int:
        return math.ceil(self.duration * self.sample_rate / self.hop_length / self.mel_per_latent)

    @property
    def latent_rate(self) -> float:
        """Latents per second."""
        return self.sample_rate / self.hop_length / self.mel_per_latent

    @property
    def mel_len(self) -> int:
        return self.latent_len * self.mel_per_latent

    @property
    def num_samples(self) -> int:
        """Audio samples the codec produces: whole latents, so up to one latent longer than the duration."""
        return self.mel_len * self.hop_length

    @property
    def clip_len(self) -> int:
        return int(self.clip_fps * self.duration)

    @property
    def sync_frames(self) -> int:
        return int(self.sync_fps * self.duration)

    @property
    def sync_segments(self) -> int:
        return math.floor((self.sync_fps * self.duration - self.sync_segment) / self.sync_step) + 1

    @property
    def sync_len(self) -> int:
        return self.sync_segments * self.sync_tokens_per_segment

    @property
    def min_duration(self) -> float:
        """The shortest duration with one whole Synchformer segment (seconds)."""
        return self.sync_segment / self.sync_fps

    def with_duration(self, duration: float) -> "SequenceSpec":
        return dataclasses.replace(self, duration=float(duration))


SPEC_16K = SequenceSpec()
SPEC_44K = SequenceSpec(sample_rate=44_100, hop_length=512)
