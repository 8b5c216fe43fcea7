"""Small media files made on the spot. Every picture carries its number as eight black or white bars."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

BITS = 8
RATE = 44_100  # of the sound in the files


def numbered(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """(H, W, 3) uint8: vertical bars spell `index` in binary; the bottom eighth is red, to tell up from down."""
    bars = [255 * (index >> bit & 1) for bit in range(BITS)]
    row = np.repeat(np.array(bars, np.uint8), -(-width // BITS))[:width]
    picture = np.repeat(np.broadcast_to(row, (height, width))[..., None], 3, axis=2).copy()
    picture[-height // 8 :] = (255, 0, 0)
    return picture


def number_of(frame: torch.Tensor) -> int:
    """The number in an upright picture (3, H, W)."""
    row = frame[:, frame.shape[1] // 4 : frame.shape[1] // 2].float().mean((0, 1))
    bars = [part.mean() > 127 for part in row.tensor_split(BITS)]
    return sum(int(bar) << bit for bit, bar in enumerate(bars))


def numbers_of(frames: torch.Tensor) -> list[int]:
    return [number_of(frame) for frame in frames]


def cfr(count: int, fps: int | Fraction) -> list[Fraction]:
    return [Fraction(n) / Fraction(fps) for n in range(count)]


def write_video(
    path: Path,
    times: list[Fraction],
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (64, 48),
    time_base: Fraction = Fraction(1, 12_000),
    rate: Fraction | int = 24,
    start: Fraction | int = 0,
    rotation: int = 0,
    sound: bool = False,
    sound_delay: float = 0.0,
    options: dict[str, str] | None = None,
    context: dict | None = None,
    subtitles: bool = False,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Pictures numbered 0, 1, ... at `times` (seconds); `sound` adds a 440 Hz tone of the same length."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=rate, options=options or {})
        video.width, video.height = size
        video.pix_fmt = pix_fmt
        video.codec_context.time_base = time_base
        for name, value in (context or {}).items():
            setattr(video.codec_context, name, value)
        if rotation:
            video.set_display_rotation(rotation)
        audio = out.add_stream("aac", rate=RATE, layout="mono") if sound else None
        if subtitles:
            text = out.add_mux_stream("subrip" if path.suffix == ".mkv" else "mov_text")
        out.metadata.update(metadata or {})
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(index, *size), format="rgb24").reformat(format=pix_fmt)
            frame.time_base, frame.pts = time_base, round((start + time) / time_base)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio:
            length = float(times[-1] + Fraction(1) / rate) - sound_delay
            out.mux(audio.encode(tone_frame(length, float(start) + sound_delay)))
            out.mux(audio.encode(None))
        if subtitles:
            for number in range(2):
                packet = av.Packet(subtitle_text(f"line {number}", path.suffix))
                packet.stream, packet.time_base = text, Fraction(1, 1000)
                packet.pts = packet.dts = int(1000 * (start + Fraction(number, 2)))
                packet.duration = 400
                out.mux(packet)
    return path


def subtitle_text(text: str, suffix: str) -> bytes:
    return text.encode() if suffix == ".mkv" else len(text).to_bytes(2, "big") + text.encode()


def tone(seconds: float, frequency: float = 440, rate: int = RATE, amplitude: float = 0.25) -> np.ndarray:
    """(1, N) float32."""
    t = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * frequency * t)).astype(np.float32)[None]


def tone_frame(seconds: float, start: float) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(tone(seconds), format="fltp", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), round(start * RATE)
    return frame


def video_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]


def decoded(path: Path) -> list[tuple[Fraction, np.ndarray]]:
    """(time since the stream's start, RGB picture) of every frame."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        start = (stream.start_time or 0) * stream.time_base
        return [(f.pts * f.time_base - start, f.to_ndarray(format="rgb24")) for f in container.decode(stream)]


def strongest_frequency(samples: torch.Tensor, rate: int) -> float:
    spectrum = torch.fft.rfft(samples.mean(0).double() * torch.hann_window(samples.shape[1], dtype=torch.float64)).abs()
    return float(spectrum.argmax()) * rate / samples.shape[1]
