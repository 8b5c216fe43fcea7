"""Sound of any length: windows of the training duration that overlap and are solved for jointly.

There is one sequence of latents, from one draw of noise. At every evaluation each window predicts its own velocity from
its own conditions, and where windows overlap the predictions are averaged with smooth weights (after MultiDiffusion,
Bar-Tal et al., arXiv 2302.08113, which does it for wide pictures), so there is no seam. Frames, features, activations
and decoding take one window at a time: only conditions, latents, mel and sound grow with the length.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor

from mmaudio import flow
from mmaudio.codec.codec import AudioCodec
from mmaudio.features.frames import clip_frame, hold_last, sync_frame
from mmaudio.inputs import Inputs, Progress
from mmaudio.media import read_video
from mmaudio.model.network import Conditions
from mmaudio.segments import Segment
from mmaudio.sequence import SequenceSpec

OVERLAP = 2.0  # seconds that neighbouring windows share
SEGMENT_FADE = 0.25  # seconds on either side of a segment's border, over which it takes over
VOCODER_OVERLAP = 1.0  # seconds that neighbouring pieces of mel share; a vocoder is uncertain at the ends
AT_ONCE = 8  # windows in one evaluation of the network: bounds the activations


@dataclass(frozen=True)
class Windows:
    """Windows of `length` frames over a sequence of `total`; each belongs to one segment."""

    total: int
    length: int
    starts: tuple[int, ...]
    segments: tuple[int, ...]  # index of each window's segment
    weights: Tensor  # (windows, length) float32; at every frame of the sequence they sum to one

    def cut(self, x: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """(L, C) to those windows of it, (n, length, C)."""
        return torch.stack([x[start : start + self.length] for start in self.starts[first:last]])

    def join(self, parts: Tensor, into: Tensor, first: int = 0) -> None:
        """Add windows (n, length, C), the first of which is number `first`, to (L, C), each by its weights."""
        for i, part in enumerate(parts, start=first):
            weight = self.weights[i, :, None].to(into.device)
            into[self.starts[i] : self.starts[i] + self.length] += weight * part.to(into.dtype)


def plan(
    total: int, length: int, overlap: int, segments: Sequence[tuple[int, int]] | None = None, fade: int = 0
) -> Windows:
    """Windows that cover `total` frames, evenly spread so that neighbours share at least `overlap`.

    segments: (begin, end) frames, in order and without gaps; each gets windows of its own, and takes over from the one
        before within `fade` frames on either side of the border. None is one segment.
    """
    assert 0 < overlap < length <= total, f"{total=} {length=} {overlap=}"
    starts, owners, weights = [], [], []
    for k, (begin, end) in enumerate(segments or [(0, total)]):
        low, high = max(0, begin - fade), min(total, end + fade)
        if high - low <= length:
            own = [min(max((low + high - length) // 2, 0), total - length)]
        else:
            steps = math.ceil((high - low - length) / (length - overlap))
            own = [low + round(i * (high - low - length) / steps) for i in range(steps + 1)]
        for start in own:
            at = torch.arange(length, dtype=torch.float64) + 0.5
            weight = _rise(at / overlap) * _rise((length - at) / overlap)
            if begin > 0:
                weight *= _rise((at + start - begin + fade) / max(1, 2 * fade))
            if end < total:
                weight *= _rise((end + fade - at - start) / max(1, 2 * fade))
            weights.append(weight)
            owners.append(k)
        starts += own
    sums = torch.zeros(total, dtype=torch.float64)
    for start, weight in zip(starts, weights, strict=True):
        sums[start : start + length] += weight
    weights = [weight / sums[start : start + length] for start, weight in zip(starts, weights, strict=True)]
    return Windows(total, length, tuple(starts), tuple(owners), torch.stack(weights).float())


def _rise(x: Tensor) -> Tensor:
    """0 up to 0, 1 from 1 on, smooth between."""
    return torch.sin(x.clamp(0, 1) * (math.pi / 2)).square()


def joint_velocity(
    windows: Windows, velocity_of: Callable[[int, int], flow.Velocity], at_once: int = AT_ONCE,
    tick: Callable[[int], None] | None = None,
) -> flow.Velocity:  # fmt: skip
    """The velocity of the whole sequence (1, L, C): the windows' own velocities, averaged where they overlap.

    Args:
        velocity_of: (first, last) to the velocity of windows first <= i < last, which maps (last - first, length, C).
        at_once: so many windows are evaluated together.
        tick: called with the number of windows after each such evaluation; raise from it to stop.
    """

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        joined = torch.zeros_like(x[0], dtype=torch.float32)
        for first in range(0, len(windows.starts), at_once):
            last = min(first + at_once, len(windows.starts))
            windows.join(velocity_of(first, last)(t, windows.cut(x[0], first, last)), joined, first)
            if tick is not None:
                tick(last - first)
        return joined.to(x.dtype)[None]

    return velocity


def plan_video(inputs: Inputs, segments: Sequence[Segment]) -> Windows:
    """The windows of a long video, in latents. A video shorter than a window is one that runs on."""
    spec, rate = inputs.spec, inputs.spec.latent_rate
    total = max(spec.with_duration(inputs.duration).latent_len, spec.latent_len)
    borders = [round(segment.start * rate) for segment in segments] + [total]
    return plan(
        total, spec.latent_len, round(OVERLAP * rate), list(pairwise(borders)),
        round(SEGMENT_FADE * rate),
    )  # fmt: skip


def window_frames(pipe, inputs: Inputs, start: float, scene: tuple[float, float]) -> Inputs:
    """The frames of the window that begins at `start` seconds; outside of its scene the nearest frame is held."""
    variant, spec = pipe.variant, inputs.spec
    begin, end = max(start, scene[0]), min(start + spec.duration, scene[1], inputs.duration)
    frames = read_video(
        inputs.source, end - begin, begin, rule=variant.frame_rule,
        clip_transform=clip_frame(variant.clip.frame_size), sync_transform=sync_frame(variant.sync.frame_size),
    )  # fmt: skip

    def held(x: Tensor, rate: float, length: int) -> Tensor:
        before = x[:1].expand(round((begin - start) * rate), -1, -1, -1)
        return hold_last(torch.cat([before, x]), length)[:length]

    clip, sync = held(frames.clip, spec.clip_fps, spec.clip_len), held(frames.sync, spec.sync_fps, spec.sync_frames)
    return Inputs(clip, sync, spec, spec.duration, inputs.source)


def encode_windows(
    pipe, inputs: Inputs, windows: Windows, segments: Sequence[Segment], mask_away_clip: bool = False,
    progress: Progress | None = None,
) -> list[tuple[Tensor | None, Tensor | None]]:  # fmt: skip
    """CLIP and sync features of every window, (1, T, D) and (1, S, D).

    With low_memory the encoders are loaded one after the other, and the video is read for each.
    """
    clips, syncs, count = [], [], len(windows.starts)
    for names in (("clip",), ("sync",)) if pipe.low_memory else (("clip", "sync"),):
        for i, (start, k) in enumerate(zip(windows.starts, windows.segments, strict=True)):

            def report(*_, i=i):
                progress("decode", i, count)

            with pipe.stage("decode", None):
                frames = window_frames(pipe, inputs, start / inputs.spec.latent_rate, segments[k].scene)
            frames.clip, frames.sync = (
                frames.clip if "clip" in names else None,
                frames.sync if "sync" in names else None,
            )
            clip, sync = pipe.encode_video(frames, mask_away_clip, None if progress is None else report)
            clips += [clip] if "clip" in names else []
            syncs += [sync] if "sync" in names else []
    return list(zip(clips, syncs, strict=True))


@torch.inference_mode()
def generate_windows(
    pipe, inputs: Inputs, segments: Sequence[Segment], seeds: Sequence[int], *,
    num_steps: int, cfg_strength: float, solver: str, mask_away_clip: bool, progress: Progress | None,
    by: str = "network",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """A long video to unnormalised latents (B, L, C) and sound (B, 1, N); one seed per sample, `by` as in `solve`.

    Raises MediaError if the video is damaged where a window lies.
    """
    windows = plan_video(inputs, segments)
    features = encode_windows(pipe, inputs, windows, segments, mask_away_clip, progress)
    words = dict.fromkeys((segment.prompt, segment.negative_prompt) for segment in segments)
    for prompt, negative in words:
        words[prompt, negative] = pipe.encode_text(prompt, negative, progress)

    groups: list[tuple[Conditions, Conditions]] = []
    nulls: dict[tuple[str, ...], Conditions] = {}  # by their negative words: without a picture all are alike
    with pipe.stage("conditions", progress):
        for first in range(0, len(features), AT_ONCE):
            parts, own = [segments[k] for k in windows.segments[first : first + AT_ONCE]], []
            for (clip, sync), part in zip(features[first : first + AT_ONCE], parts, strict=True):
                text = words[part.prompt, part.negative_prompt]
                own.append(pipe.conditions((clip, sync, *text), inputs.spec, by=by))
            conditional, null = (reduce(Conditions.concat, branch).shared() for branch in zip(*own, strict=True))
            groups.append((conditional, nulls.setdefault(tuple(part.negative_prompt for part in parts), null)))
    del features

    latents = solve(pipe, windows, groups, seeds, num_steps, cfg_strength, solver, progress, by)
    del groups
    return latents, torch.cat([decode(pipe, one[None], inputs.spec, progress) for one in latents])


@torch.inference_mode()
def solve(
    pipe, windows: Windows, groups: Sequence[tuple[Conditions, Conditions]], seeds: Sequence[int],
    num_steps: int, cfg_strength: float, solver: str, progress: Progress | None, by: str = "network",
) -> Tensor:  # fmt: skip
    """Noise to unnormalised latents (B, L, C), one sample after the other.

    groups: conditions and null conditions of every `AT_ONCE` windows.
    by: the part of the pipeline that makes the steps, "network" or "few_step"; the conditions must be by the same one.
    """
    network, latents, done = pipe.part(by), [], 0
    evaluations = {"euler": 1, "midpoint": 2, "heun": 2}.get(solver, 0)  # dopri5: not known beforehand
    work = len(windows.starts) * num_steps * evaluations * len(seeds)

    def velocity_of(first: int, two_passes: bool) -> flow.Velocity:
        conditions = groups[first // AT_ONCE]
        return flow.sampled(network, *conditions, cfg_strength, 1 / num_steps, two_passes=two_passes)

    with pipe.stage("solve", progress) as report:

        def tick(count: int) -> None:
            nonlocal done
            done += count
            if report is not None:
                report(done, work)

        def joint(two_passes: bool) -> flow.Velocity:
            return joint_velocity(windows, lambda first, last: velocity_of(first, two_passes), tick=tick)

        shape = (windows.total, network.config.latent_dim)
        for seed in seeds:
            x0 = flow.initial_noise([seed], shape, device=pipe.device, dtype=pipe.dtype)
            latents.append(network.unnormalize(pipe.integrate(joint, x0, num_steps, solver, by=by)))
    return torch.cat(latents)


@torch.inference_mode()
def decode(pipe, latents: Tensor, spec: SequenceSpec, progress: Progress | None = None) -> Tensor:
    """Unnormalised latents (1, L, C) of any length to a waveform (1, 1, N) on the CPU, window by window."""
    codec = pipe.part("codec")
    windows = plan(latents.shape[1], spec.latent_len, round(OVERLAP * spec.latent_rate))
    count, ratio = len(windows.starts), spec.mel_per_latent
    with pipe.stage("VAE", progress) as report:
        mel = None
        upsampled = Windows(
            ratio * windows.total, ratio * windows.length, tuple(ratio * start for start in windows.starts),
            windows.segments, windows.weights.repeat_interleave(ratio, dim=1),
        )  # fmt: skip
        for i in range(count):
            part = codec.decode_mel(windows.cut(latents[0], i, i + 1)).transpose(1, 2)  # (1, F, M)
            mel = torch.zeros(upsampled.total, part.shape[2], device=part.device) if mel is None else mel
            upsampled.join(part, mel, i)
            if report is not None:
                report(i + 1, count)
    with pipe.stage("vocoder", progress) as report:
        return vocode(codec, mel.T[None].to(pipe.dtype), spec, report)


def vocode(
    codec: AudioCodec, mel: Tensor, spec: SequenceSpec, progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """Log-mel (1, M, F) of any length to a waveform (1, 1, F hop) on the CPU: pieces that overlap and are faded."""
    overlap = round(VOCODER_OVERLAP * spec.sample_rate / spec.hop_length)
    pieces, hop = plan(mel.shape[2], spec.mel_len, overlap), spec.hop_length
    wave = torch.zeros(1, 1, mel.shape[2] * hop)
    end = 0  # frames of it that are done
    for i, start in enumerate(pieces.starts):
        piece = codec.vocode(mel[..., start : start + pieces.length]).cpu()
        quarter = (end - start) // 4  # of what is shared; the outer quarters are not used
        low, high = (start + quarter, end - quarter) if i else (0, 0)
        mixed = cross_fade(wave[..., low * hop : high * hop], piece[..., (low - start) * hop : (high - start) * hop])
        wave[..., low * hop : high * hop] = mixed
        end = start + pieces.length
        wave[..., high * hop : end * hop] = piece[..., (high - start) * hop :]
        if progress is not None:
            progress(i + 1, len(pieces.starts))
    return wave


def cross_fade(a: Tensor, b: Tensor) -> Tensor:
    """From a to b (..., N) at a constant level, whatever their correlation: equal signals come out unchanged.

    Pieces from a convolutional vocoder agree where they overlap, those from Griffin-Lim have other phases.
    """
    out = _rise(torch.arange(1, a.shape[-1] + 1, dtype=torch.float64) / (a.shape[-1] + 1)).to(a.dtype)
    norms = (a.square().sum() * b.square().sum()).sqrt()
    alike = ((a * b).sum() / norms).clamp(0, 1) if norms > 0 else 1.0
    level = ((1 - out).square() + out.square() + 2 * alike * out * (1 - out)).sqrt()
    return ((1 - out) * a + out * b) / level
