"""Audio files in and out."""

import io
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
import torch

from mmaudio.media.container import exact, fraction, open_input, stream_start, video_stream
from mmaudio.media.encode import AudioTrack, as_samples
from mmaudio.media.errors import MediaError, atomic_path, check_source, media_errors

# Suffixes whose files libsndfile reads, exactly and with its own seeking; all others go to FFmpeg at once.
SOUNDFILE_SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".mp3", ".aif", ".aiff", ".aifc", ".caf", ".w64", ".rf64", ".au"}
SOUNDFILE_WRITES = {
    ".wav": ("WAV", "PCM_24"),  # 24 bits: 16 would add noise audible after amplification
    ".flac": ("FLAC", "PCM_24"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
}
AAC_WRITES = {".m4a": "ipod", ".aac": "adts"}  # suffix -> FFmpeg's name of the container
WRITE_BLOCK = 65_536  # frames per call: libsndfile's Vorbis encoder overflows the stack on long ones

GAP_TOLERANCE = 0.01  # seconds; smaller differences between timestamps and samples are rounding
MAX_GAP = 60  # seconds; a longer silence is a broken timestamp
MAX_PADDING = 4096  # samples a codec may add at the end to fill its last block


def read_audio(path: str | os.PathLike, duration: float | None = None, start: float = 0.0) -> tuple[torch.Tensor, int]:
    """Sound of an audio or video file: (float32 (channels, samples), sample rate), nominally in [-1, 1].

    Time 0 is the first frame of the video where there is one, else the first sample: a track that begins later is
    padded with silence, one that begins earlier loses its head, so the sound stays in step with `read_video`. Lost
    stretches become silence; padding added by the codec at the end is cut. Nothing is resampled or mixed down.

    duration: at most so many seconds from `start`; fewer come back where the sound ends earlier.
    Raises MediaError if the file cannot be read, has no audio, none in this span, or NaN or infinite samples;
    ValueError for arguments that make no sense.
    """
    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise ValueError(f"duration must be a positive number of seconds, got {duration}")
    if not (math.isfinite(start) and start >= 0):
        raise ValueError(f"start must be zero or a positive number of seconds, got {start}")
    path = check_source(path)
    found = None
    if path.suffix.lower() in SOUNDFILE_SUFFIXES:
        found = _read_soundfile(path, duration, start)
    samples, rate = found or _read_ffmpeg(path, duration, exact(start))
    if samples.shape[1] == 0:
        raise MediaError(f"{path}: has no sound at {start:g} s or later; start earlier")
    if not np.isfinite(samples).all():
        raise MediaError(f"{path}: contains NaN or infinite samples; export it again")
    return torch.from_numpy(np.ascontiguousarray(samples)), rate


def write_audio(path: str | os.PathLike, audio: torch.Tensor | np.ndarray, sample_rate: int) -> Path:
    """Write float audio (channels, samples) or (samples,) in [-1, 1] to a file; the suffix chooses the format.

    .wav and .flac hold 24 bits, .mp3 and .ogg (Vorbis) are lossy, .m4a and .aac hold AAC. Values beyond [-1, 1] are
    clipped. The file appears complete or not at all. Returns the path.
    Raises MediaError for an unknown suffix, NaN or infinite samples, a rate the format lacks, or a failed write.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SOUNDFILE_WRITES and suffix not in AAC_WRITES:
        known = ", ".join([*SOUNDFILE_WRITES, *AAC_WRITES])
        raise MediaError(f"{path}: unknown audio format {suffix or '(no suffix)'}; use one of {known}")
    samples = as_samples(audio, path)  # (C, N)
    # Encoded in memory and written by Python, because libsndfile reports a full disk only by a short count.
    buffer = io.BytesIO()
    if suffix in SOUNDFILE_WRITES:
        container, subtype = SOUNDFILE_WRITES[suffix]
        try:
            with soundfile.SoundFile(
                buffer, "w", sample_rate, samples.shape[0], format=container, subtype=subtype
            ) as file:
                for begin in range(0, samples.shape[1], WRITE_BLOCK):
                    block = samples[:, begin : begin + WRITE_BLOCK].T
                    file.write(_as_24_bits(block) if subtype == "PCM_24" else block)
        except (soundfile.SoundFileError, ValueError) as error:
            raise MediaError(
                f"{path}: {container} cannot hold {samples.shape[0]} channel(s) at {sample_rate} Hz "
                f"({' '.join(str(error).split())}); use .wav or .flac"
            ) from error
    else:
        with media_errors(path, "encode it"), av.open(buffer, "w", format=AAC_WRITES[suffix]) as out:
            track = AudioTrack(out, "aac", samples, sample_rate)
            track.write(until=samples.shape[1] / sample_rate)
            track.finish()
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return path


def _as_24_bits(block: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] to int32, 24 bits in use. libsndfile scales by 2^23 - 1, which changes 16-bit sound."""
    return np.clip(np.rint(block.astype(np.float64) * 2**23), -(2**23), 2**23 - 1).astype(np.int32) * 256


def _read_soundfile(path: Path, duration: float | None, start: float) -> tuple[np.ndarray, int] | None:
    """(C, N) samples and rate; None if libsndfile does not take the file, so that FFmpeg can try."""
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = file.samplerate
            file.seek(min(round(start * rate), file.frames))
            count = -1 if duration is None else round(duration * rate)
            return file.read(count, dtype="float32", always_2d=True).T, rate
    except (soundfile.SoundFileError, OSError):
        return None


def _read_ffmpeg(path: Path, duration: float | None, start: Fraction) -> tuple[np.ndarray, int]:
    with open_input(path) as container, media_errors(path, "decode its audio"):
        stream = container.streams.best("audio")
        if stream is None:
            raise MediaError(f"{path}: has no audio track")
        if stream.codec_context is None:
            raise MediaError(f"{path}: its audio codec is unknown here; convert it to AAC, FLAC or WAV first")
        video = video_stream(container)
        origin = stream_start(video or stream)
        pieces: list[tuple[int, np.ndarray]] = []  # (first sample since the origin, samples)
        cursor = begin = rate = 0
        end = math.inf
        for time, block, rate in _blocks(stream):
            begin = round(start * rate)
            end = math.inf if duration is None else begin + round(duration * rate)
            position = cursor if time is None else round((time - origin) * rate)
            # Within the track samples are counted: timestamps are too coarse (1 ms in Matroska) to be followed.
            if not pieces or GAP_TOLERANCE * rate < position - cursor <= MAX_GAP * rate:
                cursor = position
            pieces.append((cursor, block if cursor + block.shape[1] > begin else block[:, :0].copy()))
            cursor += block.shape[1]
            if cursor >= end:
                break
    if not pieces:
        raise MediaError(f"{path}: nothing of its audio can be decoded; it is damaged or empty")
    if stream.duration:
        stop = round((stream_start(stream) + stream.duration * fraction(stream.time_base) - origin) * rate)
        if 0 < cursor - stop <= MAX_PADDING:
            cursor = stop
    samples = np.zeros((pieces[0][1].shape[0], max(0, min(cursor, end) - begin)), np.float32)
    for first, block in pieces:
        skip = max(0, begin - first)
        target = samples[:, first + skip - begin :][:, : max(0, block.shape[1] - skip)]
        target[:] = block[:, skip : skip + target.shape[1]]
    return samples, rate


def _blocks(stream: av.AudioStream) -> Iterator[tuple[Fraction | None, np.ndarray, int]]:
    """(time on the container's clock, float32 (C, n), rate) of every decodable frame; damaged packets are skipped.

    Rate and channel layout are those of the first frame throughout.
    """
    resampler = setup = target = None
    packets = stream.container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            frames = packet.decode() if packet else []
        except av.EOFError:
            return
        except av.FFmpegError:
            if packet is None:
                return
            continue
        if packet is None:
            return
        for frame in frames:
            time = None if frame.pts is None else frame.pts * (fraction(frame.time_base) or fraction(stream.time_base))
            target = target or (frame.layout.name, frame.sample_rate)
            if setup != (frame.format.name, frame.layout.name, frame.sample_rate):
                setup = (frame.format.name, frame.layout.name, frame.sample_rate)
                resampler = av.AudioResampler(format="fltp", layout=target[0], rate=target[1])
            for part in resampler.resample(frame):
                yield time, part.to_ndarray(), target[1]
                time = None
