"""A video, a picture or words in; sound out. Every stage of the method is named here once, in order."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from mmaudio import flow
from mmaudio.features.clip import ClipEncoder
from mmaudio.features.frames import clip_frame, hold_last, sync_frame
from mmaudio.generation import Generation, fit_length
from mmaudio.loading import check_adapter, load_clip_text, load_clip_vision, load_codec, load_network, load_sync
from mmaudio.media import MediaError, VideoFrames, probe, read_image, read_video
from mmaudio.media.probe import IMAGE_SUFFIXES, check_aspect
from mmaudio.model.network import Conditions
from mmaudio.sequence import SequenceSpec
from mmaudio.variants import Variant, get_variant

DEFAULT_DURATION = 8.0  # seconds; what the networks were trained with
MAX_WHOLE_CLIP = 12.0  # a longer video is cut to DEFAULT_DURATION unless a duration is asked for
MAX_DURATION = 30.0  # seconds; attention grows with the square, and quality falls away from the trained length

PARTS = ("network", "codec", "clip_text", "clip_vision", "sync")
Progress = Callable[[str, int, int], None]  # (stage, done, total); raise from it to cancel


@dataclass
class Inputs:
    """What one clip gives to the encoders; None where that modality is missing."""

    clip: Tensor | None  # uint8 (T, 3, H, W); a picture is one frame
    sync: Tensor | None  # uint8 (T, 3, h, w)
    spec: SequenceSpec
    duration: (
        float  # seconds of sound wanted: spec.duration, or less (see Variant.pad_to), or a fraction of a frame more
    )
    source: Path | Tensor | None = None
    is_picture: bool = False
    notes: list[str] = field(default_factory=list)


def best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class Pipeline:
    """All parts of one variant; each is loaded when it is first needed.

    Args:
        variant: a name from `mmaudio.list_variants()`, the path of a flow network of your own, or a `Variant`.
        device: None is the best available.
        dtype: of network, codec and encoders; None is bfloat16 on CUDA and float32 elsewhere. The sinusoid tables, the
            rotary tables and the weight folding stay float32 under every dtype.
        weights_dir: where to look for weight files first.
        low_memory: keep one part in memory at a time and run guidance as two passes.
        lora: files of adapters that are added to the network's weights, each times `lora_strength`.
        parts: modules to use in place of loaded ones, by their names in `part`; they are brought to device and dtype
            (themselves, not copies) and stay, whatever `low_memory` says.

    Raises:
        ValueError: unknown variant or part.
        WeightError: a variant's file or an adapter cannot be used.

    Attributes:
        timings: seconds per stage of the last call.
    """

    def __init__(
        self,
        variant: str | os.PathLike | Variant,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        weights_dir: str | os.PathLike | None = None,
        low_memory: bool = False,
        *,
        lora: str | os.PathLike | Sequence[str | os.PathLike] = (),
        lora_strength: float = 1.0,
        parts: Mapping[str, nn.Module] | None = None,
    ):
        self.variant = variant if isinstance(variant, Variant) else get_variant(variant)
        self.device = torch.device(device) if device is not None else best_device()
        self.dtype = dtype or (torch.bfloat16 if self.device.type == "cuda" else torch.float32)
        self.weights_dir = weights_dir
        self.low_memory = low_memory
        self.timings: dict[str, float] = {}
        self._parts: dict[str, nn.Module] = {}
        self.lora = [lora] if isinstance(lora, str | os.PathLike) else list(lora)
        self.lora_strength = lora_strength
        for path in self.lora:
            check_adapter(self.variant, path)
        self._given = dict(parts or {})
        if self.lora and "network" in self._given:
            raise ValueError("lora changes a network that is loaded here; add it to your own with load_adapter")
        for name, part in self._given.items():
            if name not in PARTS:
                raise ValueError(f"unknown part {name!r}: expected one of {', '.join(PARTS)}")
            part.to(self.device, None if name == "codec" else self.dtype)  # the codec's mel stays float32

    # ---- parts

    def part(self, name: str) -> nn.Module:
        """One of `PARTS`, on the device; loads it if it is not there yet."""
        if name in self._given:
            return self._given[name]
        if name not in self._parts:
            if self.low_memory:
                self.release()
            with self._timed(f"load {name}"):
                if name == "codec":  # folds weight norms in float32 before its cast
                    part = load_codec(self.variant, self.weights_dir, self.dtype)
                    self._parts[name] = part.to(self.device)
                elif name == "network":
                    part = load_network(self.variant, self.weights_dir, self.lora, self.lora_strength)
                    self._parts[name] = part.to(self.device, self.dtype)
                else:
                    load = {
                        "clip_text": load_clip_text,
                        "clip_vision": load_clip_vision,
                        "sync": load_sync,
                    }[name]
                    self._parts[name] = load(self.variant, self.weights_dir).to(self.device, self.dtype)
        return self._parts[name]

    def release(self, *names: str) -> None:
        """Drop loaded parts from memory (all of them by default); they are loaded again when needed."""
        for name in names or tuple(self._parts):
            self._parts.pop(name, None)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    # ---- stages

    def read(
        self,
        video: str | os.PathLike | VideoFrames | None = None,
        image: str | os.PathLike | Tensor | None = None,
        duration: float | None = None,
        progress: Progress | None = None,
    ) -> Inputs:
        """Files to frames at the sizes and rates the encoders take.

        Raises:
            MediaError: a file cannot be used.
            ValueError: a duration out of range.
        """
        if video is not None and image is not None:
            raise ValueError("give a video or an image, not both")
        if duration is not None and not (math.isfinite(duration) and duration > 0):
            raise ValueError(f"duration must be a positive number of seconds, got {duration}")
        shortest = self.variant.spec.min_duration
        if duration is not None and not shortest <= duration <= MAX_DURATION:
            raise ValueError(f"duration must be between {shortest:g} and {MAX_DURATION:g} seconds, got {duration:g}")

        to_clip, to_sync = clip_frame(self.variant.clip.frame_size), sync_frame(self.variant.sync.frame_size)
        if video is not None and not isinstance(video, VideoFrames):
            info = probe(video)
            if info.kind == "audio":
                raise MediaError(f"{video}: has no video; give a video, or words alone with --prompt")
            if info.kind == "image":
                if Path(video).suffix.lower() not in IMAGE_SUFFIXES:
                    raise MediaError(f"{video}: has one single frame; use it as a picture with --image")
                video, image = None, video
        if image is not None:
            is_file = not isinstance(image, Tensor)
            picture = read_image(image) if is_file else image
            check_aspect(*picture.shape[-2:], image if is_file else "image")
            source = Path(image) if is_file else image
            duration = duration or DEFAULT_DURATION
            return Inputs(to_clip(picture)[None], None, self._spec(duration), duration, source, is_picture=True)
        if video is None:
            duration = duration or DEFAULT_DURATION
            return Inputs(None, None, self._spec(duration), duration)

        notes, source, length = [], None, duration
        if isinstance(video, VideoFrames):
            if duration is not None:
                raise ValueError("duration cannot be chosen for frames that are already read: read fewer")
            frames = video
            if frames.duration > MAX_DURATION:
                raise ValueError(f"duration of the frames must be at most {MAX_DURATION:g} s, got {frames.duration:g}")
            frames_clip = torch.stack([to_clip(f) for f in frames.clip])
            frames_sync = torch.stack([to_sync(f) for f in frames.sync])
        else:
            check_aspect(info.height, info.width, video)
            source, length = Path(video), info.duration
            if duration is None and length is not None and length > MAX_WHOLE_CLIP:
                duration = DEFAULT_DURATION
                notes.append(
                    f"the video is {length:.1f} s long: took its first {duration:g} s (choose with --duration)"
                )
            report = None if progress is None else lambda done, total: progress("decode", done, total)
            frames = read_video(
                video,
                duration,
                rule=self.variant.frame_rule,
                clip_transform=to_clip,
                sync_transform=to_sync,
                progress=report,
            )
            frames_clip, frames_sync = frames.clip, frames.sync
            notes += frames.warnings
        if frames.duration < shortest:
            raise MediaError(
                f"{source or 'video'}: only {frames.duration:.2f} s of video, needs at least {shortest:g} s; "
                "use a longer clip, or one frame of it with --image"
            )
        # The last slot of a whole clip is often past its last frame: the sound still runs to the end of the picture.
        wanted = min(x for x in (duration, length, MAX_DURATION) if x is not None) if source else frames.duration
        wanted = max(wanted, frames.duration) if wanted - frames.duration < 1 else frames.duration
        spec = self._spec(frames.duration)
        frames_clip, frames_sync = hold_last(frames_clip, spec.clip_len), hold_last(frames_sync, spec.sync_frames)
        return Inputs(frames_clip, frames_sync, spec, wanted, source, notes=notes)

    def _spec(self, duration: float) -> SequenceSpec:
        return self.variant.spec.with_duration(max(duration, self.variant.pad_to))

    @torch.inference_mode()
    def encode(
        self,
        inputs: Inputs,
        prompt: str = "",
        negative_prompt: str = "",
        mask_away_clip: bool = False,
        progress: Progress | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Frames and words to features: clip (1, T, D), sync (1, S, D), text (1, 77, D), negative text (1, 77, D).

        A missing modality is None and becomes the network's learned empty feature; `mask_away_clip` drops the CLIP
        frames but keeps the sync features. The negative text is None if it is empty and the network was not trained
        to take the features of the empty string for it.
        """
        clip = sync = text = None
        if inputs.clip is not None and not mask_away_clip:
            # No name is kept for an encoder: with low_memory it must go before the next one is loaded.
            with self._stage("CLIP", progress) as report:
                clip = ClipEncoder(self.part("clip_vision"), None).image(inputs.clip[None], progress=report)
                if inputs.is_picture:
                    clip = clip.expand(-1, inputs.spec.clip_len, -1)
        if inputs.sync is not None:
            with self._stage("sync", progress) as report:
                sync = self.part("sync").encode(inputs.sync[None], progress=report)
        with self._stage("text", progress):
            prompts = [prompt, negative_prompt] if prompt else [negative_prompt]
            *given, negative = ClipEncoder(None, self.part("clip_text")).text(prompts).split(1)
            text = given[0] if given else None
        if not negative_prompt and self.variant.network.missing != "default":
            negative = None
        return clip, sync, text, negative

    @torch.inference_mode()
    def conditions(self, features, spec: SequenceSpec, batch: int = 1) -> tuple[Conditions, Conditions]:
        """Features of one clip to the conditions of the two guidance branches, repeated `batch` times."""

        def repeated(x):
            return None if x is None else x.expand(batch, -1, -1)

        network = self.part("network")
        clip, sync, text, negative = map(repeated, features)
        conditional = network.encode_conditions(clip, sync, text, spec, batch=batch)
        return conditional, network.null_conditions(batch, spec, negative)

    @torch.inference_mode()
    def solve(
        self,
        conditional: Conditions,
        null: Conditions,
        spec: SequenceSpec,
        seeds: list[int],
        *,
        num_steps: int = 25,
        cfg_strength: float = 4.5,
        solver: str = "euler",
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Noise to unnormalised latents (B, L, C); one seed per sample."""
        if solver not in flow.SOLVERS:
            raise ValueError(f"unknown solver {solver!r}: expected one of {', '.join(flow.SOLVERS)}")
        network = self.part("network")
        shape = (spec.latent_len, network.config.latent_dim)
        x0 = flow.initial_noise(seeds, shape, device=self.device, dtype=self.dtype)
        solve = flow.SOLVERS[solver]
        try:
            velocity = flow.guided(network, conditional, null, cfg_strength, two_passes=self.low_memory)
            latents = solve(velocity, x0, num_steps, progress=progress)
        except torch.OutOfMemoryError:
            if self.low_memory:
                raise
            torch.cuda.empty_cache()
            velocity = flow.guided(network, conditional, null, cfg_strength, two_passes=True)
            latents = solve(velocity, x0, num_steps, progress=progress)
        return network.unnormalize(latents)

    # ---- the whole way

    def __call__(
        self,
        video: str | os.PathLike | VideoFrames | None = None,
        prompt: str = "",
        negative_prompt: str = "",
        *,
        image: str | os.PathLike | Tensor | None = None,
        duration: float | None = None,
        num_steps: int = 25,
        cfg_strength: float = 4.5,
        seed: int = 42,
        num_samples: int = 1,
        solver: str = "euler",
        mask_away_clip: bool = False,
        progress: Progress | None = None,
    ) -> list[Generation]:
        """Generate sound for a video, a picture (uint8 (3, H, W) or a file) or words alone.

        Args:
            video: a file, or frames from `mmaudio.media.read_video` without transforms, by the variant's `frame_rule`.
            duration: seconds; None is the clip's own length (8 s for pictures, words, and videos over 12 s).
            cfg_strength: guidance; below 1 there is none.
            seed: of the first sample; sample i uses seed + i, and does not depend on how many there are.

        Raises:
            MediaError: the input cannot be used.
            WeightError: weights are missing or do not fit.
            ValueError: an argument is out of range.
        """
        if num_samples < 1 or num_steps < 1:
            raise ValueError(f"num_samples and num_steps must be at least 1, got {num_samples} and {num_steps}")
        if not math.isfinite(cfg_strength):
            raise ValueError(f"cfg_strength must be a number, got {cfg_strength}")
        if not 0 <= seed < 2**63 - num_samples:
            raise ValueError(f"seed must be between 0 and 2^63, got {seed}")
        self.timings = {}
        with self._stage("decode", progress):
            inputs = self.read(video, image, duration, progress)
        features = self.encode(inputs, prompt, negative_prompt, mask_away_clip, progress)
        with self._stage("conditions", progress):
            conditional, null = self.conditions(features, inputs.spec, num_samples)
        seeds = [seed + i for i in range(num_samples)]
        with self._stage("solve", progress) as report:
            latents = self.solve(
                conditional, null, inputs.spec, seeds,
                num_steps=num_steps, cfg_strength=cfg_strength, solver=solver, progress=report,
            )  # fmt: skip
        del conditional, null
        codec = self.part("codec")
        with self._stage("VAE", progress):
            mel = codec.decode_mel(latents)
        with self._stage("vocoder", progress):
            waves = torch.cat([codec.vocode(one) for one in mel.split(1)]).cpu()  # (B, 1, N): memory of one at a time
        sample_rate = codec.sample_rate
        del codec
        if not torch.isfinite(waves).all():
            raise ValueError("the network produced values that are not finite; try --full_precision or other weights")
        if self.low_memory:
            self.release()
        return [
            Generation(
                audio=fit_length(wave.clone(), inputs.spec.duration, inputs.duration, sample_rate),
                sample_rate=sample_rate,
                latents=latent.float().cpu().clone(),  # clones: tensors of inference mode cannot be changed in place
                seed=sample_seed,
                variant=self.variant.name,
                prompt=prompt,
                duration=inputs.duration,
                source=inputs.source,
                is_picture=inputs.is_picture,
                notes=tuple(inputs.notes),
            )
            for wave, latent, sample_seed in zip(waves, latents, seeds, strict=True)
        ]

    @contextlib.contextmanager
    def _timed(self, name: str):
        began = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - began

    @contextlib.contextmanager
    def _stage(self, name: str, progress: Progress | None):
        """Time a stage (loading of its weights apart) and hand out its (done, total) progress callback."""
        if progress is not None:
            progress(name, 0, 0)
        loading = sum(v for k, v in self.timings.items() if k.startswith("load "))
        with self._timed(name):
            yield None if progress is None else lambda done, total: progress(name, done, total)
        self.timings[name] -= sum(v for k, v in self.timings.items() if k.startswith("load ")) - loading
