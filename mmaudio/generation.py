"""A generated sound: what it holds, how it is written, and how it shows itself in a notebook."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmaudio.media import MediaError, mux, still_video, write_audio

FADE = 0.02  # seconds of fade-out where a video runs on after its last usable frame


@dataclass
class Generation:
    """One generated sound. In a notebook it shows itself as a player with waveform and spectrogram."""

    audio: Tensor  # (channels, samples) float32 in [-1, 1], on the CPU
    sample_rate: int
    latents: Tensor  # (L, C) unnormalised latents the audio was decoded from
    seed: int
    variant: str
    prompt: str
    duration: float  # seconds
    source: Path | Tensor | None = None  # the video or picture it was made for; a tensor is a picture (3, H, W)
    is_picture: bool = False
    notes: tuple[str, ...] = ()  # one line each, for the user

    def save(self, path: str | os.PathLike, *, overwrite: bool = True) -> Path:
        """Write the sound (.flac, .wav, .mp3, .ogg, .m4a). Raises MediaError; nothing half-written stays."""
        if not overwrite and Path(path).exists():
            raise MediaError(f"{path}: exists already; choose another name or overwrite it")
        return write_audio(path, self.audio, self.sample_rate)

    def save_video(self, path: str | os.PathLike, *, mix_original: float | None = None, overwrite: bool = True):
        """Write the source with this sound; pictures are copied, not encoded again. Returns a `media.MuxResult`.

        mix_original: gain in dB for the source's own sound, mixed under this one; None replaces it.
        """
        if self.source is None:
            raise MediaError(f"{path}: made without a video file, there is nothing to put the sound into; use save()")
        if self.is_picture:
            return still_video(self.source, self.audio, self.sample_rate, path, overwrite=overwrite)
        return mux(
            self.source, self.audio, self.sample_rate, path,
            duration=self.duration, mix_original=mix_original, overwrite=overwrite,
        )  # fmt: skip

    def _repr_html_(self) -> str:
        from mmaudio.player import player

        return player(self.audio, self.sample_rate, f"{self.variant}, seed {self.seed}: {self.prompt}")


def fit_length(wave: Tensor, covered: float, wanted: float, sample_rate: int) -> Tensor:
    """(1, N) to exactly `wanted` seconds: whole latents are longer, and after the last usable frame comes silence."""
    wave = wave[:, : round(min(covered, wanted) * sample_rate)]
    missing = round(wanted * sample_rate) - wave.shape[1]
    if missing > 0:
        fade = round(FADE * sample_rate)
        wave[:, -fade:] *= torch.linspace(1, 0, fade)
        wave = torch.nn.functional.pad(wave, (0, missing))
    return wave.clone()
