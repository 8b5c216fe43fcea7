"""Pictures for notebooks and papers, with matplotlib: a sound and its events, takes of a video, aligned RoPE."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmaudio.codec.mel import hz_to_mel
from mmaudio.evaluation.filmstrip import BANDS, spectrogram, strip
from mmaudio.features.frames import short_side_frame
from mmaudio.generation import Generation
from mmaudio.media import read_video
from mmaudio.model.layers import rope_table
from mmaudio.sequence import SequenceSpec

WIDTH = 1200  # pixels of the longest picture
TICKS = (200, 500, 1000, 2000, 4000, 8000, 16_000)  # Hz
STRIP_FPS = 25.0


def plot_spectrogram(
    sound: Tensor | Generation,
    sample_rate: int | None = None,
    *,
    events: Iterable[float] = (),
    seconds: float | None = None,
    axes=None,
):
    """Draw the log-mel spectrogram of a sound, with a dashed line at each event's time. Returns matplotlib's Axes.

    Args:
        sound: a generation, or (channels, N) in [-1, 1] with its sample rate.
        events: seconds; those of a Stage clip are `[event.time for event in clip.events]`.
        seconds: of the time axis; None is the sound's length.
        axes: to draw into; None makes a new figure.
    """
    if isinstance(sound, Generation):
        sound, sample_rate = sound.audio, sound.sample_rate
    if sample_rate is None:
        raise ValueError("give the sample rate with the sound: plot_spectrogram(sound, sample_rate)")
    seconds = seconds or sound.shape[1] / sample_rate
    if axes is None:
        axes = _pyplot().figure(figsize=(8, 3), layout="constrained").subplots()
    mels = hz_to_mel(torch.tensor([sample_rate / 2, *TICKS], dtype=torch.float64)).tolist()
    band = mels[0] / (BANDS + 1)  # the first band's middle is one such step from 0 Hz, its edge half a step
    edges = (0, seconds, band / 2, mels[0] - band / 2)
    axes.imshow(_pixels(spectrogram(sound, sample_rate, seconds, WIDTH)), extent=edges, aspect="auto")
    ticks = [(mel, f"{hz / 1000:g}") for mel, hz in zip(mels[1:], TICKS, strict=True) if hz < sample_rate / 2]
    axes.set_yticks(*zip(*ticks, strict=True))
    axes.set(xlabel="seconds", ylabel="kHz")
    for time in events:
        axes.axvline(time, color="white", linewidth=0.8, linestyle="--")
    return axes


def plot_takes(takes: Sequence[Generation], *, events: Iterable[float] = ()):
    """Draw takes of one input on a shared time axis, under frames of their video if they have one. Returns the Figure.

    Raises:
        ValueError: there is no take.
        MediaError: the video cannot be read any more.
    """
    if not takes:
        raise ValueError("no takes to plot: give the list that the pipeline returned")
    events, seconds = list(events), max(take.duration for take in takes)
    source = takes[0].source if isinstance(takes[0].source, Path) and not takes[0].is_picture else None
    rows = len(takes) + (source is not None)
    figure = _pyplot().figure(figsize=(10, 1 + 1.8 * rows), layout="constrained")
    plots = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    if source is not None:
        small = short_side_frame(WIDTH // 10)
        frames = read_video(source, seconds, clip_transform=lambda frame: frame[:, :1, :1], sync_transform=small).sync
        covered = len(frames) / STRIP_FPS
        plots[0].imshow(_pixels(strip(frames, STRIP_FPS, WIDTH)), extent=(0, covered, 0, 1), aspect="auto")
        plots[0].set_yticks([])
    for axes, take in zip(plots[rows - len(takes) :], takes, strict=True):
        plot_spectrogram(take, events=events, seconds=seconds, axes=axes)
        axes.set_title(f"seed {take.seed}", loc="left", fontsize="small")
    for axes in plots[:-1]:
        axes.set_xlabel("")
    plots[-1].set_xlim(0, seconds)
    figure.suptitle(takes[0].prompt, parse_math=False, fontsize="medium", wrap=True)
    return figure


def rope_affinity(spec: SequenceSpec, head_dim: int = 64, *, aligned: bool = True) -> Tensor:
    """How much the rotary embeddings alone favour each pair of a CLIP frame and a latent, (T, L) in [-1, 1].

    The mean over frequencies of the cosine between the two rotations. `aligned` scales the frames' positions to the
    latents' rate (paper, section 3.3 and Figure A5): then the largest value of each row lies at the frame's own time.
    """
    latent = rope_table(spec.latent_len, head_dim)  # (L, head_dim / 2, 2)
    clip = rope_table(spec.clip_len, head_dim, spec.latent_len / spec.clip_len if aligned else 1.0)
    return torch.einsum("tfc,lfc->tl", clip, latent) / (head_dim / 2)


def plot_rope_affinity(spec: SequenceSpec, head_dim: int = 64):
    """Draw `rope_affinity` without and with the scaling beside each other, as the paper's Figure A5: the Figure."""
    figure = _pyplot().figure(figsize=(10, 4.5), layout="constrained")
    for axes, aligned in zip(figure.subplots(1, 2, sharey=True), (False, True), strict=True):
        picture = axes.imshow(
            rope_affinity(spec, head_dim, aligned=aligned).numpy(),
            extent=(0, spec.duration, spec.duration, 0), aspect="auto", vmin=0, vmax=1, cmap="magma",
        )  # fmt: skip
        axes.set(xlabel="latent (seconds)", title="aligned RoPE" if aligned else "RoPE, not aligned")
    figure.axes[0].set_ylabel("CLIP frame (seconds)")
    figure.colorbar(picture, ax=figure.axes, label="affinity")
    return figure


def _pixels(picture: Tensor):
    """(3, H, W) float to the (H, W, 3) uint8 array that matplotlib shows."""
    return picture.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def _pyplot():
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install matplotlib") from error
    return plt
