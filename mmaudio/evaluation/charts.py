"""Pieces of the report: bars, curves, players and spectrograms as HTML that needs no other file and no network."""

import base64
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch

from mmaudio.evaluation.filmstrip import spectrogram_png
from mmaudio.media import MediaError, read_audio, write_audio
from mmaudio.media.encode import resample

MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
SHOWN_RATE = 16_000  # Hz of spectrograms, so that two with different rates can be compared
WIDTH, HEIGHT = 480, 128  # pixels of a spectrogram
POINTS = 400  # of a curve; more are not seen


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart."""

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    ours: bool = True


def bars(rows: Sequence[Bar], digits: int) -> str:
    """Horizontal bars from zero with their intervals, on one scale."""
    ends = [end for row in rows for end in (row.value, row.low, row.high) if math.isfinite(end)]
    left, right = min([0.0, *ends]), max([0.0, *ends])
    scale = 100 / (right - left or 1.0)
    lines = []
    for row in rows:
        begin, end = sorted((scale * (0 - left), scale * (row.value - left)))
        whisker, span = "", ""
        if math.isfinite(row.low) and math.isfinite(row.high):
            span = f" ({row.low:.{digits}f} to {row.high:.{digits}f})"
            low, wide = scale * (row.low - left), scale * (row.high - row.low)
            whisker = f'<b style="left:{low:.2f}%;width:{wide:.2f}%"></b>'
        lines.append(
            f'<div class="bar{" ours" if row.ours else ""}"><span>{escape(row.label)}</span>'
            f'<div><i style="left:{begin:.2f}%;width:{end - begin:.2f}%"></i>{whisker}</div>'
            f"<em>{row.value:.{digits}f}<small>{span}</small></em></div>"
        )
    return "\n".join(lines)


def curve(values: Sequence[float], label: str, digits: int) -> str:
    """The values of all clips, sorted, with the quartiles written below."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    scale = 40 / (high - low or 1.0)
    picked = [round(i * (len(ordered) - 1) / (POINTS - 1)) for i in range(POINTS)] if len(ordered) > POINTS else None
    places = range(len(ordered)) if picked is None else picked
    last = max(1, len(ordered) - 1)
    points = " ".join(f"{100 * i / last:.2f},{41 - scale * (ordered[i] - low):.2f}" for i in places)
    marks = {"least": 0, "quarter": 0.25, "middle": 0.5, "three quarters": 0.75, "most": 1}
    below = "".join(
        f"<span>{name} <b>{ordered[round(share * (len(ordered) - 1))]:.{digits}f}</b></span>"
        for name, share in marks.items()
    )
    return (
        f'<figure class="curve"><figcaption>{escape(label)}, {len(ordered)} clips</figcaption>'
        '<svg viewBox="0 0 100 42" preserveAspectRatio="none" role="img">'
        f'<polyline points="{points}" vector-effect="non-scaling-stroke"/></svg><p>{below}</p></figure>'
    )


def player(path: Path, duration: float, label: str) -> str:
    """A sound's first seconds: player and spectrogram; one line instead, if it cannot be read."""
    try:
        samples, rate = read_audio(path, duration)
        sound = samples.numpy().mean(0, keepdims=True)
        playable = rate if rate in MP3_RATES else 44_100
        audio = _mp3(resample(sound, rate, playable), playable)
        shown = torch.from_numpy(resample(sound, rate, SHOWN_RATE))
        picture = base64.b64encode(spectrogram_png(shown, SHOWN_RATE, duration, WIDTH, HEIGHT)).decode()
    except MediaError as error:
        return f'<div class="sound"><span>{escape(label)}</span><p class="quiet">{escape(str(error))}</p></div>'
    return (
        f'<div class="sound"><span>{escape(label)}</span><img alt="spectrogram" src="data:image/png;base64,{picture}">'
        f'<audio controls preload="metadata" src="data:audio/mpeg;base64,{audio}"></audio></div>'
    )


def _mp3(sound, rate: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return base64.b64encode(write_audio(Path(folder) / "sound.mp3", sound, rate).read_bytes()).decode()
