"""A video, a picture or words in; sound out. Every stage of the method is named here once, in order."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, reduce

import torch
from torch import Tensor, nn

from mmaudio import editing, flow, long
from mmaudio.features.clip import ClipEncoder
from mmaudio.few_steps import FewStep, choose, find_few_step
from mmaudio.generation import Generation
from mmaudio.inputs import DEFAULT_DURATION, MAX_DURATION, MAX_WHOLE_CLIP, Inputs, Progress, read_inputs
from mmaudio.loading import PARTS, check_adapter, load_part
from mmaudio.media import VideoFrames
from mmaudio.model.network import Conditions
from mmaudio.request import Request, read_request, unused_guidance
from mmaudio.segments import Span
from mmaudio.sequence import SequenceSpec
from mmaudio.variants import Variant, get_variant

__all__ = [
    "DEFAULT_DURATION", "MAX_DURATION", "MAX_WHOLE_CLIP", "PARTS", "Inputs", "Pipeline", "Progress", "Request",
    "best_device",
]  # fmt: skip


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
        low_memory: keep one part in memory at a time, run guidance as two passes, and on a CPU do without the faster
            convolutions, whose weights take more room.
        compile: run network and codec through torch.compile: the first sounds take long, then it is faster.
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
        compile: bool = False,
        parts: Mapping[str, nn.Module] | None = None,
    ):
        self.variant = variant if isinstance(variant, Variant) else get_variant(variant)
        self.device = torch.device(device) if device is not None else best_device()
        self.dtype = dtype or (torch.bfloat16 if self.device.type == "cuda" else torch.float32)
        self.weights_dir = weights_dir
        self.low_memory, self.compile = low_memory, compile
        if low_memory and compile:
            raise ValueError("compile and low_memory exclude each other: what is dropped would be compiled again")
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
                self._parts[name] = load_part(
                    name, self.variant, self.weights_dir, self.device, self.dtype,
                    lora=self.lora, lora_strength=self.lora_strength, fast=not self.low_memory, compiled=self.compile,
                )  # fmt: skip
        return self._parts[name]

    def release(self, *names: str) -> None:
        """Drop loaded parts from memory (all of them by default); they are loaded again when needed."""
        for name in names or tuple(self._parts):
            self._parts.pop(name, None)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @cached_property
    def few_step(self) -> FewStep | None:
        """Of the part "few_step", which takes the network's place where there are few steps; None: not in this one."""
        changed = self.lora or "network" in self._given
        return None if changed else find_few_step(self.variant, self.weights_dir)

    # ---- stages

    def read(
        self,
        video: str | os.PathLike | VideoFrames | None = None,
        image: str | os.PathLike | Tensor | None = None,
        duration: float | None = None,
        progress: Progress | None = None,
    ) -> Inputs:
        """Files to frames at the sizes and rates the encoders take; of a video over 12 s the first 8 s.

        See `mmaudio.inputs.read_inputs` for the errors.
        """
        return read_inputs(self.variant, video, image, duration, progress)

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
        clip, sync = self.encode_video(inputs, mask_away_clip, progress)
        text, negative = self.encode_text(prompt, negative_prompt, progress)
        return clip, sync, text, negative

    @torch.inference_mode()
    def encode_video(
        self, inputs: Inputs, mask_away_clip: bool = False, progress: Progress | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The frames' part of `encode`: clip and sync."""
        clip = sync = None
        if inputs.clip is not None and not mask_away_clip:
            # No name is kept for an encoder: with low_memory it must go before the next one is loaded.
            with self.stage("CLIP", progress) as report:
                clip = ClipEncoder(self.part("clip_vision"), None).image(inputs.clip[None], progress=report)
                if inputs.is_picture:
                    clip = clip.expand(-1, inputs.spec.clip_len, -1)
        if inputs.sync is not None:
            with self.stage("sync", progress) as report:
                sync = self.part("sync").encode(inputs.sync[None], progress=report)
        return clip, sync

    @torch.inference_mode()
    def encode_text(
        self, prompt: str = "", negative_prompt: str = "", progress: Progress | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The words' part of `encode`: text and negative text."""
        with self.stage("text", progress):
            prompts = [prompt, negative_prompt] if prompt else [negative_prompt]
            *given, negative = ClipEncoder(None, self.part("clip_text")).text(prompts).split(1)
        if not negative_prompt and self.variant.network.missing != "default":
            negative = None
        return given[0] if given else None, negative

    @torch.inference_mode()
    def conditions(
        self, features, spec: SequenceSpec, batch: int = 1, by: str = "network"
    ) -> tuple[Conditions, Conditions]:
        """Features of one clip to the conditions of the two guidance branches, repeated `batch` times."""

        def repeated(x):
            return None if x is None else x.expand(batch, -1, -1)

        network = self.part(by)
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
        given: editing.Given | None = None,
        by: str = "network",
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Noise, and perhaps a given sound, to unnormalised latents (B, L, C); one seed per sample.

        by: the part that makes the steps, "network" or "few_step"; the conditions must be by the same one.
        """
        network = self.part(by)
        conditional, null = conditional.shared(), null.shared()
        shape = (spec.latent_len, network.config.latent_dim)
        x0 = flow.initial_noise(seeds, shape, device=self.device, dtype=self.dtype)

        steps = num_steps if given is None else given.steps(num_steps)
        step = (1 if given is None else given.strength) / steps

        def guided(two_passes: bool) -> flow.Velocity:
            return flow.sampled(network, conditional, null, cfg_strength, step, two_passes=two_passes)

        if given is None:
            return network.unnormalize(self.integrate(guided, x0, steps, solver, progress, by))
        if given.strength == 0:
            return given.latents.to(x0).expand_as(x0)
        x1 = network.normalize(given.latents.to(x0)).expand_as(x0)
        latents = self.integrate(
            lambda both: given.bind(guided(both), x0, x1), given.begin(x0, x1), steps, solver, progress, by
        )
        return network.unnormalize(latents)

    def integrate(
        self, velocity: Callable[[bool], flow.Velocity], x0: Tensor, num_steps: int, solver: str,
        progress: Callable[[int, int], None] | None = None, by: str = "network",
    ) -> Tensor:  # fmt: skip
        """Follow velocity(two_passes) from time 0 to 1; in two passes where memory is short."""
        if solver not in flow.SOLVERS:
            raise ValueError(f"unknown solver {solver!r}: expected one of {', '.join(flow.SOLVERS)}")
        if solver != "euler" and self.part(by).config.few_step:
            raise ValueError(f"{self.variant.name} steps by averages, which solver {solver} cannot use: take euler")
        solve = flow.SOLVERS[solver]
        try:
            return solve(velocity(self.low_memory), x0, num_steps, progress=progress)
        except torch.OutOfMemoryError:
            if self.low_memory:
                raise
            torch.cuda.empty_cache()
            return solve(velocity(True), x0, num_steps, progress=progress)

    # ---- the whole way

    def __call__(
        self,
        video: str | os.PathLike | VideoFrames | None = None,
        prompt: str = "",
        negative_prompt: str = "",
        *,
        image: str | os.PathLike | Tensor | None = None,
        duration: float | None = None,
        num_steps: int | None = None,
        cfg_strength: float = 4.5,
        seed: int = 42,
        num_samples: int = 1,
        solver: str = "euler",
        mask_away_clip: bool = False,
        segments: Sequence[Span] = (),
        split_scenes: bool = False,
        edit: editing.Edit | None = None,
        progress: Progress | None = None,
    ) -> list[Generation]:
        """Generate sound for a video, a picture (uint8 (3, H, W) or a file) or words alone.

        Args:
            video: a file, or frames from `mmaudio.media.read_video` without transforms, by the variant's `frame_rule`.
            duration: seconds; None is the clip's own length, in windows if it is over 12 s (8 s for pictures and words,
                and the length of an edited sound without video).
            num_steps: None is 25, and 4 with a network for few steps. Up to 4 of Euler's are made by the variant's own
                such network, if it has one, unless another guidance or a negative prompt is asked for.
            cfg_strength: guidance; below 1 there is none.
            seed: of the first sample; sample i uses seed + i, and does not depend on how many there are.
            segments: spans of a video file with prompts of their own, as `mmaudio.segments.read_prompts` gives them.
            split_scenes: no window looks across a change of scene (needs PySceneDetect).
            edit: an existing sound of which something is kept.

        Raises:
            MediaError: the input cannot be used.
            WeightError: weights are missing or do not fit.
            ValueError: an argument is out of range.
        """
        self.timings = {}
        with self.stage("decode", progress):
            request = read_request(
                self.variant, video, prompt, negative_prompt, image=image, duration=duration, seed=seed,
                segments=segments, split_scenes=split_scenes, edit=edit, progress=progress,
            )  # fmt: skip
        return self._generate(
            [request], num_samples=num_samples, num_steps=num_steps, cfg_strength=cfg_strength, solver=solver,
            mask_away_clip=mask_away_clip, progress=progress,
        )[0]  # fmt: skip

    def generate(self, requests: Sequence[Request], **options) -> list[list[Generation]]:
        """Several inputs of equal length (`Inputs.spec`) as one batch, each with its own words and seed.

        Requests come from `mmaudio.request.read_request`. A windowed one, and one with an edit, must be alone. Options
        and errors are those of a call: num_samples, num_steps, cfg_strength, solver, mask_away_clip, progress.
        """
        self.timings = {}
        return self._generate(requests, **options)

    def _generate(
        self, requests: Sequence[Request], *, num_samples: int = 1, num_steps: int | None = None,
        cfg_strength: float = 4.5, solver: str = "euler", mask_away_clip: bool = False,
        progress: Progress | None = None,
    ) -> list[list[Generation]]:  # fmt: skip
        num_steps = self.variant.num_steps if num_steps is None else num_steps
        if num_samples < 1 or num_steps < 1:
            raise ValueError(f"num_samples and num_steps must be at least 1, got {num_samples} and {num_steps}")
        if not math.isfinite(cfg_strength):
            raise ValueError(f"cfg_strength must be a number, got {cfg_strength}")
        for request in requests:
            if not 0 <= request.seed < 2**63 - num_samples:
                raise ValueError(f"seed must be between 0 and 2^63, got {request.seed}")
        first = requests[0]
        alone = any(r.inputs.windowed or r.edit or r.inputs.spec != first.inputs.spec for r in requests)
        if alone and len(requests) > 1:
            raise ValueError("a batch takes inputs of equal length, neither long videos nor edits: generate them alone")
        settings = {"num_steps": num_steps, "cfg_strength": cfg_strength, "solver": solver}
        chosen = [choose(self, **settings, negative=request.negative) for request in requests]
        made: dict[int, list[Generation]] = {}
        for by, note in dict.fromkeys(chosen):  # what others ask for changes nobody's sound
            rows = [i for i, one in enumerate(chosen) if one == (by, note)]
            group, options = [requests[i] for i in rows], settings | {"by": by}
            takes = self._together(group, num_samples, note, mask_away_clip, progress, options)
            made |= zip(rows, takes, strict=True)
        return [made[i] for i in range(len(requests))]

    def _together(self, requests, num_samples, note, mask_away_clip, progress, settings) -> list[list[Generation]]:
        """The sounds of requests that one part of the pipeline makes; the note is for each."""
        first, seeds = requests[0], [request.seed + i for request in requests for i in range(num_samples)]
        if first.inputs.windowed:
            latents, waves = long.generate_windows(
                self, first.inputs, first.segments, seeds, mask_away_clip=mask_away_clip, progress=progress, **settings
            )
        else:
            latents, waves = self._whole(requests, seeds, num_samples, mask_away_clip, progress, settings)
        if not torch.isfinite(waves).all():
            raise ValueError("the network produced values that are not finite; try --full_precision or other weights")
        if self.low_memory:
            self.release()
        made = []
        for i, (wave, latent, seed) in enumerate(zip(waves, latents, seeds, strict=True)):
            request = requests[i // num_samples]
            notes = [note] if note else unused_guidance(self.variant, request, settings["cfg_strength"])
            made.append(request.result(self.variant, wave, latent, seed, notes))
        return [made[i : i + num_samples] for i in range(0, len(made), num_samples)]

    @torch.inference_mode()
    def _whole(self, requests, seeds, num_samples, mask_away_clip, progress, settings) -> tuple[Tensor, Tensor]:
        """Latents (B, L, C) and sound (B, 1, N) of inputs of equal length, each as one piece."""
        spec, edit, given = requests[0].inputs.spec, requests[0].edit, None
        features = [self.encode(r.inputs, r.prompt, r.negative_prompt, mask_away_clip, progress) for r in requests]
        if edit is not None:
            with self.stage("encode", progress):
                given = editing.given_sound(edit, *requests[0].original, self.part("codec"), spec)
        with self.stage("conditions", progress):
            own = [self.conditions(one, spec, num_samples, settings["by"]) for one in features]
            conditional, null = (reduce(Conditions.concat, branch) for branch in zip(*own, strict=True))
        with self.stage("solve", progress) as report:
            latents = self.solve(conditional, null, spec, seeds, given=given, progress=report, **settings)
        del conditional, null
        codec = self.part("codec")
        with self.stage("VAE", progress):
            mel = codec.decode_mel(latents)
        with self.stage("vocoder", progress):
            waves = torch.cat([codec.vocode(one) for one in mel.split(1)]).cpu()  # (B, 1, N): memory of one at a time
        return latents, waves

    @contextlib.contextmanager
    def _timed(self, name: str):
        began = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - began

    @contextlib.contextmanager
    def stage(self, name: str, progress: Progress | None):
        """Time a stage (loading of its weights apart) and hand out its (done, total) progress callback."""
        if progress is not None:
            progress(name, 0, 0)
        loading = sum(v for k, v in self.timings.items() if k.startswith("load "))
        with self._timed(name):
            yield None if progress is None else lambda done, total: progress(name, done, total)
        self.timings[name] -= sum(v for k, v in self.timings.items() if k.startswith("load ")) - loading
