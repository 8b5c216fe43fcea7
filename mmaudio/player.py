"""A sound on a page: player, waveform and spectrogram as HTML that needs no other file and no network."""

import base64
import io
from html import escape

import torch
from torch import Tensor

WIDTH, HEIGHT = 640, 128  # pixels of the spectrogram
POINTS = 320  # of the waveform; more are not seen


def player(sound: Tensor, sample_rate: int, label: str) -> str:
    """Sound (channels, N) in [-1, 1] with its label, which may be any text, as one figure."""
    import soundfile

    from mmaudio.evaluation.filmstrip import spectrogram_png

    buffer = io.BytesIO()
    soundfile.write(buffer, sound.T.numpy(), sample_rate, format="WAV", subtype="PCM_16")
    audio = base64.b64encode(buffer.getvalue()).decode()
    seconds = sound.shape[1] / sample_rate
    picture = base64.b64encode(spectrogram_png(sound, sample_rate, seconds, WIDTH, HEIGHT)).decode()
    return (
        f'<figure style="margin:0;max-width:{WIDTH}px"><figcaption>{escape(label)}</figcaption>{waveform(sound)}'
        f'<img alt="spectrogram" style="display:block;width:100%" src="data:image/png;base64,{picture}">'
        f'<audio controls style="width:100%" src="data:audio/wav;base64,{audio}"></audio></figure>'
    )


def waveform(sound: Tensor) -> str:
    """The extremes of sound (channels, N) over time as an SVG in the colour of the text around it."""
    parts = sound.mean(0).tensor_split(min(POINTS, sound.shape[1]))
    lows, highs = zip(*(torch.aminmax(part) for part in parts), strict=True)
    there = [f"{i},{50 - 50 * high:.1f}" for i, high in enumerate(highs)]
    back = [f"{i},{50 - 50 * low:.1f}" for i, low in reversed(list(enumerate(lows)))]
    return (
        f'<svg role="img" aria-label="waveform" viewBox="0 0 {len(parts)} 100" preserveAspectRatio="none" '
        'style="display:block;width:100%;height:64px"><polygon fill="currentColor" stroke="currentColor" '
        f'vector-effect="non-scaling-stroke" points="{" ".join(there + back)}"/></svg>'
    )
