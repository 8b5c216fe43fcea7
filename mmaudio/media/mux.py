"""Sound into a video file without touching its pictures."""

import math
import os
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import torch

from mmaudio.media.audio import read_audio
from mmaudio.media.container import codec_name, exact, fraction, frame_rate, open_input, stream_start, video_stream
from mmaudio.media.encode import (
    MuxResult,
    as_samples,
    audio_track,
    destination,
    open_output,
    resample,
)
from mmaudio.media.errors import MediaError, atomic_path, describe
from mmaudio.media.probe import MediaInfo, probe
from mmaudio.media.still import encode_animation, still_video

UNTIMED_FORMATS = {"avi", "h264", "hevc", "m4v"}  # store no presentation times; FFmpeg can work them out
MAX_GAIN = 60  # dB
CONTAINER_METADATA = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}


def check_gain(decibels: float) -> None:
    """ValueError unless a gain for the original sound is between -MAX_GAIN and MAX_GAIN dB."""
    if not -MAX_GAIN <= decibels <= MAX_GAIN:
        raise ValueError(f"mix_original must be between -{MAX_GAIN} and {MAX_GAIN} dB, got {decibels}")


class _DoesNotFit(Exception):
    """The container asked for cannot hold these streams."""


def mux(
    source: str | os.PathLike,
    audio: torch.Tensor | np.ndarray,
    sample_rate: int,
    dest: str | os.PathLike,
    *,
    duration: float | None = None,
    mix_original: float | None = None,
    overwrite: bool = True,
) -> MuxResult:
    """Write `source`'s video with `audio`, (channels, samples) or (samples,) in [-1, 1], as its sound.

    Pictures are copied, not encoded: times, rotation, metadata, chapters and (where `dest` can hold them) subtitles
    stay; the video is moved to start at 0. Only GIFs are encoded anew, and a picture becomes a still video. The
    suffix of `dest` chooses the container (.mp4, .m4v, .mov, .mkv with AAC, .webm with Opus at 48 kHz or less); if
    that cannot hold the video's codec, Matroska is written beside it and a note says so. The sound gets exactly the
    length of the written video, by silence at the end or a cut (to one codec block).

    duration: copy the video's first seconds only. Compressed pictures are stored in decoding order, so the copy can
        run over by the depth of the B-frames (about two frames), which keep their order but move up to the cut; no
        picture before the cut is lost.
    mix_original: gain in dB for the source's own sound, mixed under ours; None drops it.
    The file appears complete or not at all. Raises MediaError for anything that cannot be read or written.
    """
    dest = destination(source, dest)
    samples = as_samples(audio, dest)
    if sample_rate <= 0:
        raise ValueError(f"sample_rate must be positive, got {sample_rate}")
    if mix_original is not None:
        check_gain(mix_original)
    notes: list[str] = []
    info = probe(source)
    if info.kind == "audio":
        raise MediaError(f"{source}: has no video stream to put the sound into; write an audio file instead")
    if info.kind == "image":
        kept = samples if duration is None else samples[:, : max(1, round(duration * sample_rate))]
        return still_video(source, kept, sample_rate, dest, overwrite=overwrite)
    if info.has_audio and mix_original is None:
        notes.append("the original sound was replaced")
    if mix_original is not None:
        samples = _mixed(info, samples, sample_rate, mix_original, duration, notes)
    limit = None if duration is None else exact(duration)
    copied = info.format != "gif"
    for path in dict.fromkeys([dest, dest.with_suffix(".mkv")]):
        destination(source, path)  # the Matroska file beside `dest` may be the source itself
        try:
            with atomic_path(path, overwrite) as temporary:
                if copied:
                    extra = _copy(info, samples, sample_rate, temporary, limit)
                else:
                    extra = encode_animation(info.path, samples, sample_rate, temporary, limit)
            return MuxResult(path, copied, (*notes, *extra))
        except _DoesNotFit as reason:
            notes.append(f"{path.suffix} cannot hold this video ({reason}); wrote Matroska (.mkv) instead")
    raise MediaError(f"{source}: its streams fit neither {dest.suffix} nor .mkv; convert the video to H.264 first")


def _copy(
    info: MediaInfo, samples: np.ndarray, sample_rate: int, path: os.PathLike, limit: Fraction | None
) -> list[str]:
    """Copy video and subtitle packets beside the new sound; returns notes. _DoesNotFit if the container cannot."""
    untimed = bool(UNTIMED_FORMATS & set(info.format.split(",")))
    with open_input(info.path, genpts=untimed) as container, open_output(path) as out:
        video = video_stream(container)
        streams, notes = _copied_streams(container, video, out)
        sound = audio_track(out, path, samples, sample_rate)
        try:
            out.start_encoding()
        except OSError:
            raise  # the disk, not the format
        except (av.FFmpegError, ValueError) as error:
            raise _DoesNotFit(f"{codec_name(video)}: {describe(error)}") from error

        end = Fraction(0)
        for packet in _packets(container, video, list(streams), limit, notes):
            base = fraction(packet.time_base)
            if packet.stream is video:
                end = max(end, (packet.pts + packet.duration) * base)
                sound.write(until=max(packet.pts if packet.dts is None else packet.dts, 0) * base)
            packet.stream = streams[packet.stream]
            out.mux(packet)
        if not end:
            raise MediaError(f"{info.path}: holds no video packet that can be copied; it is damaged")
        sound.write(until=end)
        sound.finish()
    return notes


def _copied_streams(
    container: av.container.InputContainer, video: av.VideoStream, out: av.container.OutputContainer
) -> tuple[dict[av.stream.Stream, av.stream.Stream], list[str]]:
    """Source stream -> output stream of everything that is copied, and notes on what cannot be."""
    notes = []
    try:
        # Without opaque=True PyAV looks for an encoder named like the decoder, which AV1's has not.
        streams = {video: out.add_stream_from_template(video, opaque=True)}
    except ValueError as error:
        raise _DoesNotFit(str(error)) from error
    if video.codec_context.name == "hevc" and out.format.name in ("mp4", "mov"):
        streams[video].codec_context.codec_tag = "hvc1"  # the default, hev1, is refused by Apple's players
    for subtitle in container.streams.subtitles:
        try:
            streams[subtitle] = out.add_stream_from_template(subtitle, opaque=True)
        except ValueError:
            notes.append(f"subtitles ({codec_name(subtitle)}) were dropped: {out.format.name} cannot hold them")
    for old, new in streams.items():
        new.metadata.update({k: v for k, v in old.metadata.items() if not k.startswith(("DURATION", "_STATISTICS"))})
        new.disposition = old.disposition
    out.metadata.update({k: v for k, v in container.metadata.items() if k.lower() not in CONTAINER_METADATA})
    if chapters := container.chapters():
        out.set_chapters(chapters)
    return streams, notes


def _packets(
    container: av.container.InputContainer,
    video: av.VideoStream,
    streams: list[av.stream.Stream],
    limit: Fraction | None,
    notes: list[str],
) -> Iterator[av.Packet]:
    """The packets to copy, their times counted from the first picture, up to the cut (see `mux`)."""
    start, period = stream_start(video), 1 / (frame_rate(video) or Fraction(25))
    held: list[av.Packet] = []  # from the first picture past the cut on
    last: dict[av.stream.Stream, int] = {}  # decoding time of the latest packet
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            notes.append(f"the source is damaged; its video was copied up to there ({describe(error)})")
            yield from held
            return
        if packet is None:
            yield from held
            return
        # Not "dts is None": the first pictures of a Matroska file may lack a decoding time.
        if packet.size == 0 or (packet.pts is None and packet.dts is None):
            continue
        base = fraction(packet.time_base)
        shift = round(start / base)
        packet.pts = (packet.dts if packet.pts is None else packet.pts) - shift
        if packet.dts is not None:
            packet.dts -= shift
        if limit is not None and (packet.pts if packet.dts is None else packet.dts) * base >= limit:
            if packet.stream is video:
                yield from _closed_up(held, video, limit)
                return
            continue
        if packet.dts is not None:  # spoiled clocks run backwards, which muxers refuse: step on by the least, as FFmpeg
            dts = max(packet.dts, last.get(packet.stream, packet.dts - 1) + 1)
            if dts != packet.dts and packet.pts >= packet.dts:
                packet.pts = max(packet.pts, dts)
            packet.dts = last[packet.stream] = dts
        if packet.stream is video and not packet.duration:  # transport streams do not say
            packet.duration = round(period / base)
        if held or (limit is not None and packet.stream is video and packet.pts * base >= limit):
            held.append(packet)
        elif packet.stream is video or packet.pts >= 0:
            yield packet


def _closed_up(packets: list[av.Packet], video: av.VideoStream, limit: Fraction) -> list[av.Packet]:
    """The last packets of a cut video, their pictures past the cut moved together: some between them are missing."""
    over = [p for p in packets if p.stream is video and p.pts * fraction(p.time_base) >= limit]
    time = 0
    for packet in sorted(over, key=lambda p: p.pts):
        time = max(time, math.ceil(limit / fraction(packet.time_base)))
        packet.pts = min(packet.pts, time)
        time = packet.pts + packet.duration
    return packets


def _mixed(
    info: MediaInfo, samples: np.ndarray, sample_rate: int, gain_db: float, duration: float | None, notes: list[str]
) -> np.ndarray:
    """`samples` (C, N) with the source's own sound under them, as long as the longer of the two."""
    if not info.has_audio:
        notes.append("the source has no sound of its own to mix in")
        return samples
    original, rate = read_audio(info.path, duration)
    channels = min(original.shape[0], 2)  # surround sound is mixed down
    under = resample(original.numpy(), rate, sample_rate, channels) * np.float32(10 ** (gain_db / 20))
    channels, length = max(len(samples), len(under)), max(samples.shape[1], under.shape[1])
    mix = np.zeros((channels, length), np.float32)
    for part in (samples, under):
        mix[:, : part.shape[1]] += part  # mono spreads to both channels
    peak = float(np.abs(mix).max())
    notes.append(f"the original sound was mixed in at {gain_db:+g} dB")
    if peak > 1:
        notes.append("the mix was made quieter to avoid clipping")
        mix /= peak
    return mix
