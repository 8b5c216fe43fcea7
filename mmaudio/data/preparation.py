"""From a manifest row to what the encoders take: the rules by which training data is made of media files."""

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
import torchaudio.functional as AF
from torch import Tensor

from mmaudio.data.clip_cache import CachedClip
from mmaudio.data.manifest import ManifestRow
from mmaudio.features.frames import clip_frame, hold_last, sync_frame
from mmaudio.media import probe, read_audio, read_video
from mmaudio.media.picking import RULES, Rule
from mmaudio.media.probe import check_aspect
from mmaudio.media.video import CLIP_FPS, SYNC_FPS
from mmaudio.variants import Variant

PEAK = 0.95
SILENCE = 1e-6  # a peak that is no higher than this
SEGMENT_SECONDS = 8.1  # read for a clip of 8 s: whole latents and the resampling filter take a little more
KAISER = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}
MAX_FILTERS = 10**8  # values in the resampling filters of two rates with no common divisor


class ClipError(Exception):
    """A clip cannot be used for training. One line: the file, what is wrong, what is needed."""


# ---- sound --------------------------------------------------------------------------------------------------------


def to_mono(samples: Tensor, peak_normalise: bool) -> Tensor:
    """(C, N) to the mean of the channels (N,), scaled to a peak of 0.95 if asked for.

    Raises:
        ClipError: silent.
    """
    mono = samples.mean(0)
    peak = mono.abs().max().item()
    if peak <= SILENCE:
        raise ClipError(f"is silent (peak {peak:.1g})")
    return mono / peak * PEAK if peak_normalise else mono


def resample(mono: Tensor, rate: int, new_rate: int) -> Tensor:
    """(N,) at `rate` to (ceil(N new_rate / rate),) by a Kaiser-windowed sinc.

    Raises:
        ClipError: the two rates have no small ratio, so that the filters would fill the memory.
    """
    if problem := resampling_problem(rate, new_rate):
        raise ClipError(problem)
    return AF.resample(mono, rate, new_rate, **KAISER)


def resampling_problem(rate: int, new_rate: int) -> str | None:
    """What is wrong with two rates that have no small ratio: the filters between them would fill the memory."""
    divisor = math.gcd(rate, new_rate)
    if (rate // divisor) * (new_rate // divisor) > MAX_FILTERS:
        return f"{rate} Hz cannot be resampled to {new_rate} Hz; convert it to 44100 or 48000 Hz"
    return None


def partition(total: int, rate: int, max_segments: int = 5) -> list[tuple[int, int]]:
    """(first, end) samples of the segments of a long recording of `total` samples, spread evenly; none if too short."""
    length = int(rate * SEGMENT_SECONDS)
    count = min(max_segments, total // length)
    step = (total - length) // (count - 1) if count > 1 else 0
    return [(i * step, i * step + length) for i in range(count)]


def cut(wave: Tensor, length: int, shortest: int) -> Tensor:
    """The first `length` samples; silence fills up what has fewer.

    Raises:
        ClipError: there are fewer than `shortest`.
    """
    if len(wave) < shortest:
        raise ClipError(f"has {len(wave)} samples of sound after resampling, needs {shortest}")
    return F.pad(wave[:length], (0, max(0, length - len(wave))))


# ---- clips --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """One manifest row, ready for the encoders: a video is one clip, a long recording several."""

    ids: list[str]
    waveforms: Tensor  # float32 (n, N) at the codec's rate
    clip: Tensor | None = None  # uint8 (T, 3, H, W) at 8 fps
    sync: Tensor | None = None  # uint8 (T, 3, h, w) at 25 fps
    rejected: tuple[tuple[str, str], ...] = ()  # (id, reason) of segments that cannot be used


@dataclass(frozen=True)
class Preparation:
    """How rows are prepared: `Preparation(...)(row)`.

    Raises, when called:
        MediaError: the file cannot be read, or lacks pictures or sound.
        ClipError: silent or too short.
        ManifestError: a cached clip has no pictures, or ones of another size.
    """

    variant: Variant
    video: bool  # False: of videos, too, only the sound is taken
    frame_rule: Rule = "nearest"
    peak_normalise: bool = True
    max_segments: int = 5

    def __call__(self, row: ManifestRow | CachedClip) -> Prepared:
        try:
            if isinstance(row, CachedClip):
                return self.cached_clip(row)
            return self.video_clip(row) if self.video else self.audio_segments(row)
        except ClipError as error:
            raise ClipError(f"{row.path}: {error}") from None

    def video_clip(self, row: ManifestRow) -> Prepared:
        """[start, start + duration) of the picture, and the sound that is heard with it.

        A clip may be short by one slot of 25 fps (7.96 s): its last frame is held, and where there is no sound any
        more is silence. Whole latents of 44.1 kHz take 8.011 s, so this also lets clips of exactly 8 s in.
        """
        spec = self.variant.spec
        shortest = round((spec.duration - 1 / spec.sync_fps) * spec.sample_rate)  # samples
        samples, rate = read_audio(row.path, SEGMENT_SECONDS, row.start)
        wave = resample(to_mono(samples, self.peak_normalise), rate, spec.sample_rate)
        wave = cut(wave, spec.num_samples, shortest)

        info = probe(row.path)
        if info.kind == "video":  # else read_video says what it is
            check_aspect(info.height, info.width, row.path)
        frames = read_video(
            row.path,
            spec.duration,
            row.start,
            rule=self.frame_rule,
            clip_transform=clip_frame(self.variant.clip.frame_size),
            sync_transform=sync_frame(self.variant.sync.frame_size),
        )
        if len(frames.sync) < spec.sync_frames - 1:
            raise ClipError(f"has {frames.duration:.2f} s of video from {row.start:g} s on, needs {spec.duration:g} s")
        clip, sync = hold_last(frames.clip, spec.clip_len), hold_last(frames.sync, spec.sync_frames)
        return Prepared([row.id], wave[None], clip, sync)

    def cached_clip(self, row: CachedClip) -> Prepared:
        """The whole clip, with pictures or without; these are of the encoders' size already."""
        spec = self.variant.spec
        shortest = round((spec.duration - 1 / spec.sync_fps) * spec.sample_rate)  # samples
        samples, rate = row.sound()
        wave = resample(to_mono(samples, self.peak_normalise), rate, spec.sample_rate)
        wave = cut(wave, spec.num_samples, shortest)
        if not self.video:
            return Prepared([f"{row.id}_0"], wave[None])
        sync, clip = row.frames(self.variant.sync.frame_size), row.frames(self.variant.clip.frame_size)
        clip = clip[picked(len(clip), SYNC_FPS, CLIP_FPS, self.frame_rule)]
        return Prepared([row.id], wave[None], hold_last(clip, spec.clip_len), hold_last(sync, spec.sync_frames))

    def audio_segments(self, row: ManifestRow) -> Prepared:
        """What follows `start`, cut into segments that are called <id>_0, <id>_1, ...; the peak is the whole file's."""
        spec = self.variant.spec
        samples, rate = read_audio(row.path)
        mono = to_mono(samples, self.peak_normalise)[round(row.start * rate) :]
        segments = partition(len(mono), rate, self.max_segments)
        if not segments:
            seconds, start = len(mono) / rate, f" from {row.start:g} s on" if row.start else ""
            raise ClipError(f"has {seconds:.2f} s of sound{start}, needs {SEGMENT_SECONDS:g} s")
        ids, waveforms, rejected = [], [], []
        for i, (first, end) in enumerate(segments):
            segment = mono[first:end]
            if segment.abs().max() <= SILENCE:
                rejected.append((f"{row.id}_{i}", f"{row.path}: is silent from {row.start + first / rate:.2f} s on"))
                continue
            ids.append(f"{row.id}_{i}")
            waveforms.append(cut(resample(segment, rate, spec.sample_rate), spec.num_samples, spec.num_samples))
        if not ids:
            raise ClipError("is silent in every segment")
        return Prepared(ids, torch.stack(waveforms), rejected=tuple(rejected))


def picked(frames: int, fps: int, rate: int, rule: Rule) -> list[int]:
    """Which of so many frames at `fps` are seen at `rate` frames a second, as `read_video` picks them."""
    picker, index = RULES[rule](rate, frames / fps), []
    for i in range(frames):
        before, here = picker.offer(Fraction(i, fps))
        index += [max(0, i - 1)] * before + [i] * here
    return index + [frames - 1] * picker.finish(Fraction(frames, fps))
