"""Output containers, and sound and pictures into them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from mmaudio.media.container import fraction
from mmaudio.media.errors import MediaError

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
FALLBACK_RATE = 48_000
BIT_RATE = 160_000  # per channel at most; AAC's own ceiling is lower for low sample rates
AAC_BITS_PER_SAMPLE = 6  # 6144 bits for each block of 1024 samples
CHUNK_SECONDS = 1

BT709 = 1  # FFmpeg's number for the matrix, the primaries and the transfer curve alike
LIMITED_RANGE = 1


@dataclass(frozen=True)
class MuxResult:
    """What `mux` and `still_video` wrote."""

    path: Path  # not the path asked for if the container had to change
    picture_copied: bool  # True: the compressed pictures are those of the source, bit for bit
    notes: tuple[str, ...]  # one line each, for the user


def destination(source: str | os.PathLike | None, dest: str | os.PathLike) -> Path:
    """`dest` as a Path; MediaError if its suffix is no video container or it is the source file itself."""
    dest = Path(dest)
    if dest.suffix.lower() not in CONTAINERS:
        known = ", ".join(CONTAINERS)
        raise MediaError(f"{dest}: unknown video format {dest.suffix or '(no suffix)'}; use one of {known}")
    if source is not None and dest.exists() and os.path.exists(source) and os.path.samefile(source, dest):
        raise MediaError(f"{dest}: is the source itself; choose another name for the result")
    return dest


@contextmanager
def open_output(path: Path) -> Iterator[av.container.OutputContainer]:
    """An output container for `path`; closing it writes the index, unless the block failed."""
    name = CONTAINERS[path.suffix.lower()]
    options = {"movflags": "+faststart"} if name in ("mp4", "mov") else {}
    with av.open(os.path.abspath(path), "w", format=name, container_options=options) as out:
        yield out


def as_samples(audio: torch.Tensor | np.ndarray, path: Path) -> np.ndarray:
    """Audio (C, N) or (N,) as float32 (C, N) clipped to [-1, 1]; MediaError, naming `path`, if it is not that."""
    array = audio.detach().float().cpu().numpy() if isinstance(audio, torch.Tensor) else np.asarray(audio, np.float32)
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[0] not in LAYOUTS or array.shape[1] == 0:
        shape = tuple(audio.shape)
        raise MediaError(f"{path}: cannot write audio of shape {shape}; it must be (channels, samples) or (samples,)")
    if not np.isfinite(array).all():
        raise MediaError(f"{path}: the audio has NaN or infinite samples, so nothing was written; make it again")
    return np.clip(array, -1.0, 1.0)


def resample(samples: np.ndarray, rate: int, new_rate: int, channels: int | None = None) -> np.ndarray:
    """Audio (C, N) at `rate` to (channels or C, round(N * new_rate / rate)) with FFmpeg's resampler and mixer."""
    channels = channels or samples.shape[0]
    if rate == new_rate and channels == samples.shape[0]:
        return samples
    resampler = av.AudioResampler(format="fltp", layout=LAYOUTS[channels], rate=new_rate)
    frames = [*resampler.resample(_audio_frame(samples, rate, 0)), *resampler.resample(None)]
    out = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    wanted = round(samples.shape[1] * new_rate / rate)
    return np.pad(out[:, :wanted], ((0, 0), (0, max(0, wanted - out.shape[1]))))


class AudioTrack:
    """An audio stream of an output container, written piece by piece so that it interleaves with the pictures."""

    def __init__(self, out: av.container.OutputContainer, codec: str, samples: np.ndarray, sample_rate: int):
        rates = OPUS_RATES if codec == "libopus" else AAC_RATES
        self.rate = sample_rate if sample_rate in rates else FALLBACK_RATE
        self.samples = resample(samples, sample_rate, self.rate)  # (C, N)
        channels = self.samples.shape[0]
        if channels not in LAYOUTS:
            raise MediaError(f"cannot write {channels} audio channels; mix them down to at most {max(LAYOUTS)}")
        self.out = out
        self.stream = out.add_stream(codec, rate=self.rate, layout=LAYOUTS[channels])
        self.stream.bit_rate = channels * min(BIT_RATE, AAC_BITS_PER_SAMPLE * self.rate)
        self.position = 0  # samples written

    def write(self, until: Fraction | float) -> None:
        """Write the sound up to `until` seconds, silence where there is no more."""
        end = round(until * self.rate)
        while self.position < end:
            stop = min(end, self.position + CHUNK_SECONDS * self.rate)
            piece = self.samples[:, self.position : stop]
            piece = np.pad(piece, ((0, 0), (0, stop - self.position - piece.shape[1])))
            self.out.mux(self.stream.encode(_audio_frame(piece, self.rate, self.position)))
            self.position = stop

    def finish(self) -> None:
        self.out.mux(self.stream.encode(None))


def audio_track(out: av.container.OutputContainer, path: Path, samples: np.ndarray, sample_rate: int) -> AudioTrack:
    """The audio stream for the container that `path` names."""
    return AudioTrack(out, "libopus" if path.suffix.lower() == ".webm" else "aac", samples, sample_rate)


def _audio_frame(samples: np.ndarray, rate: int, position: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=LAYOUTS[samples.shape[0]])
    frame.sample_rate = rate
    frame.time_base = Fraction(1, rate)
    frame.pts = position
    return frame


class PictureTrack:
    """A video stream of an output container, encoded from RGB pictures at given times."""

    def __init__(
        self, out: av.container.OutputContainer, path: Path, width: int, height: int, time_base: Fraction, still: bool
    ):
        self.out, self.time_base = out, time_base
        self.size = (width + width % 2, height + height % 2)  # 4:2:0 chroma needs even sides
        webm = path.suffix.lower() == ".webm"
        options = {"crf": "18", "preset": "veryfast"} | ({"tune": "stillimage"} if still else {})
        if webm:
            options = {"crf": "24", "b": "0", "cpu-used": "6", "row-mt": "1"}
        self.stream = out.add_stream("libvpx-vp9" if webm else "libx264", rate=Fraction(25), options=options)
        context = self.stream.codec_context
        context.width, context.height = self.size
        context.pix_fmt = "yuv420p"
        context.time_base = time_base
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED_RANGE
        self.stream.time_base = time_base
        self.shown: dict[int, int] = {}  # pts -> duration of pictures inside the encoder, which forgets durations

    def prepare(self, rgb: np.ndarray) -> av.VideoFrame:
        """(H, W, 3) uint8 to what the encoder takes; an odd side is grown by its last pixels."""
        height, width = rgb.shape[:2]
        rgb = np.pad(rgb, ((0, self.size[1] - height), (0, self.size[0] - width), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        return frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range=LIMITED_RANGE)

    def write(self, frame: av.VideoFrame, time: Fraction, shown: Fraction) -> None:
        """Write one prepared picture, shown from `time` for `shown` seconds; it may be written again later."""
        frame.time_base = self.time_base
        frame.pts = round(time / self.time_base)
        self.shown[frame.pts] = round(shown / self.time_base)
        self._mux(self.stream.encode(frame))

    def finish(self) -> None:
        self._mux(self.stream.encode(None))

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            ratio = self.time_base / fraction(packet.time_base)
            packet.duration = round(self.shown.pop(round(packet.pts / ratio)) * ratio)
            self.out.mux(packet)
