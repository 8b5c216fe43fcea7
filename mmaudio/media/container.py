"""Opened media files: safe opening, the right stream, exact times, and decoding that survives damage."""

import os
import re
from collections.abc import Iterator
from fractions import Fraction

import av
from av.stream import Disposition

from mmaudio.media.errors import MediaError, check_source, describe, media_errors

# Playlists open other files, and a "tty" stream is a text file drawn as a picture: neither is what a user meant.
REFUSED_FORMATS = {"hls", "concat", "dash", "imf", "tty", "sdp", "rtsp"}

# Other tags of that name are free text; one that says 1e999999999 seconds would occupy a Fraction for hours.
DURATION_TAG = re.compile(r"([0-9]{1,6}):([0-9]{1,2}):([0-9]{1,2}(?:\.[0-9]{1,12})?)")


def open_input(path: str | os.PathLike, genpts: bool = False) -> av.container.InputContainer:
    """The opened container; the caller closes it (`with`). `genpts` fills in missing presentation times.

    Only local files are read: a playlist renamed to .mp4 must not make this process fetch addresses.
    """
    path = check_source(path)
    options = {"protocol_whitelist": "file"} | ({"fflags": "+genpts"} if genpts else {})
    with media_errors(path, "open it"):
        # An absolute path cannot be taken for a protocol such as "concat:"; odd metadata bytes must not matter.
        container = av.open(os.path.abspath(path), options=options, metadata_errors="ignore")
    if REFUSED_FORMATS & set(container.format.name.split(",")):
        name = container.format.name
        container.close()
        raise MediaError(f"{path}: is a text file or playlist ({name}), not a media file; give the media file itself")
    return container


def fraction(value) -> Fraction | None:
    """FFmpeg's rational as a Fraction; None if unset (PyAV before 19 gives None, later versions 0/1)."""
    return Fraction(value.numerator, value.denominator) if value else None


def exact(seconds: float) -> Fraction:
    """The decimal number a user wrote: 0.2 is 1/5 here, not the slightly larger double."""
    return Fraction(str(float(seconds)))


def video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The main video stream; cover art of audio files does not count."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    return next((s for s in streams if s is best), streams[0] if streams else None)


def codec_name(stream: av.stream.Stream) -> str | None:
    """FFmpeg's name of the codec, whichever decoder library serves it; None if none does."""
    return stream.codec_context.codec.canonical_name if stream.codec_context else None


def stream_start(stream: av.stream.Stream) -> Fraction:
    """When the stream's first frame is shown (seconds on the container's clock); 0 if unknown."""
    return (stream.start_time or 0) * (fraction(stream.time_base) or Fraction(0))


def stream_duration(container: av.container.InputContainer, stream: av.stream.Stream) -> float | None:
    """Length of the stream in seconds as the headers tell it; None if they do not."""
    if stream.duration:
        return float(stream.duration * fraction(stream.time_base))
    # Matroska counts both of these from zero, not from the stream's start.
    offset = stream_start(stream) if "matroska" in container.format.name else 0
    if found := DURATION_TAG.fullmatch(stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = found.groups()
        return float(int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds) - offset)
    return float(Fraction(container.duration, av.time_base) - offset) if container.duration else None


def scanned_duration(path: str | os.PathLike) -> float | None:
    """Length of the video in seconds by reading every packet, undecoded: for live recordings without a header."""
    with open_input(path, genpts=True) as container:
        stream = video_stream(container)
        base, start, period = fraction(stream.time_base), stream_start(stream), frame_rate(stream)
        times = [p.pts * base for p in container.demux(stream) if p.size and p.pts is not None]
    return float(max(times) - start + (1 / period if period else 0)) if times else None


def frame_rate(stream: av.VideoStream) -> Fraction | None:
    """Nominal frames per second, for display and for last-frame durations only: frames are placed by their times."""
    return fraction(stream.guessed_rate) or fraction(stream.average_rate)


def decode_frames(
    container: av.container.InputContainer, stream: av.VideoStream, damage: list[str]
) -> Iterator[av.VideoFrame]:
    """Every decodable frame from the current position, in presentation order.

    Damaged packets are skipped and a broken end of file ends the iteration; each adds a line to `damage`, and so does
    every corrupt picture.
    """
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:  # the container itself is broken from here on
            damage.append(describe(error))
            packet = av.Packet()  # drains the decoder
            packet.stream, packets = stream, iter(())
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.EOFError:
            return
        except av.FFmpegError as error:
            damage.append(describe(error))
            continue
        # FFmpeg hides most damage by painting over it; these flags are all it tells.
        if packet.is_corrupt or any(frame.is_corrupt for frame in frames):
            damage.append("pictures are corrupt")
        yield from frames


def timed_frames(
    container: av.container.InputContainer, stream: av.VideoStream, damage: list[str]
) -> Iterator[tuple[Fraction, Fraction, av.VideoFrame]]:
    """(time since the stream's start, time shown, frame) of every decodable frame, all exact seconds."""
    start, base = stream_start(stream), fraction(stream.time_base)
    period = 1 / (frame_rate(stream) or Fraction(25))
    time: Fraction | None = None
    for frame in decode_frames(container, stream, damage):
        base = fraction(frame.time_base) or base
        previous = time
        if frame.pts is not None:
            time = frame.pts * base - start
        else:  # a stream without timestamps: count frames
            time = Fraction(0) if previous is None else previous + period
        if previous is not None and time > previous:
            period = time - previous
        yield time, (frame.duration or 0) * base or period, frame
