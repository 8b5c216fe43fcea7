"""Sounds for a set of clips: made in batches, a share for each rank, and kept, so that a run can stop at any clip.

FOLDER/  <id>.flac   the sounds
         .made/      what was made with which settings, and what failed, see `mmaudio.data.parts`
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from mmaudio.data.parts import FAILED, Parts
from mmaudio.evaluation.cache import digest, file_keys
from mmaudio.evaluation.checksums import checksum
from mmaudio.evaluation.datasets import Clip
from mmaudio.few_steps import choose
from mmaudio.generation import fit_length
from mmaudio.media import MediaError, write_audio
from mmaudio.pipeline import Inputs, Pipeline
from mmaudio.weights import fetch


@dataclass(frozen=True)
class Sampling:
    """How sounds are made; `seed` and a clip's id decide its noise, whatever else is in the list."""

    duration: float = 8.0  # seconds
    num_steps: int = 25
    cfg_strength: float = 4.5
    solver: str = "euler"
    seed: int = 42

    def seed_of(self, clip_id: str) -> int:
        return int(digest(f"{self.seed} {clip_id}", size=7), 16)


def weights_of(pipe: Pipeline, by: str) -> dict[str, str]:
    """Checksum of each of a variant's weight files, as its steps are made by the part "network" or "few_step"."""
    return {part: checksum(fetch(file, pipe.weights_dir)) for part, file in pipe.variant.files_by(by).items()}


@dataclass
class _Waiting:
    """Clips that are read and encoded, and wait until there are enough of them for a batch."""

    clips: list[Clip] = field(default_factory=list)
    inputs: list[Inputs] = field(default_factory=list)
    features: list[tuple] = field(default_factory=list)


class Generating:
    """Sounds of a variant for these clips.

    Raises:
        ExtractionError: the folder has sounds of other weights or settings.
    """

    def __init__(self, pipe: Pipeline, clips: Sequence[Clip], folder: Path, sampling: Sampling):
        self.pipe, self.clips, self.folder, self.sampling = pipe, list(clips), folder, sampling
        self.by, self.note = choose(pipe, sampling.num_steps, sampling.cfg_strength, sampling.solver)
        self.weights = weights_of(pipe, self.by)
        identity = {"variant": pipe.variant.name, **self.weights, **{k: str(v) for k, v in asdict(sampling).items()}}
        self.parts = Parts(folder / ".made", identity)
        self.parts.begin()

    def path(self, clip: Clip) -> Path:
        return self.folder / f"{clip.id}.flac"

    @cached_property
    def names(self) -> dict[str, str]:
        """Clip to the name under which it is noted down; another one if its words or pictures are."""
        keys = file_keys([clip.video for clip in self.clips if clip.video is not None])
        return {clip.id: digest(clip.id, "\n", clip.caption, "\n", str(keys.get(clip.video))) for clip in self.clips}

    def unfinished(self) -> set[str]:
        """Ids of the clips that have neither a sound nor failed."""
        made, failed = self.parts.names(), self.parts.names(FAILED)
        return {
            clip.id
            for clip in self.clips
            if (name := self.names[clip.id]) not in failed and not (name in made and self.path(clip).exists())
        }

    def failures(self) -> dict[str, str]:
        """Clip to the reason why it has no sound."""
        failed = self.parts.names(FAILED)
        return {clip.id: self.parts.reason(n) for clip in self.clips if (n := self.names[clip.id]) in failed}

    def run(self, share: Sequence[Clip], batch_size: int = 1) -> Iterator[None]:
        """Make what is missing of a share of the clips; yields once for each of them."""
        done, waiting = self.parts.names(), {}
        for clip in share:
            self.parts.forget_failure(self.names[clip.id])
        for clip in share:
            if self.names[clip.id] in done and self.path(clip).exists():
                yield
                continue
            try:
                inputs = self.pipe.read(clip.video, None, self.sampling.duration)
                features = self.pipe.encode(inputs, clip.caption)
            except (MediaError, ValueError) as error:
                self.parts.fail(self.names[clip.id], " ".join(str(error).split()))
                yield
                continue
            alike = (inputs.spec, inputs.duration, *(x is None for x in features))
            batch = waiting.setdefault(alike, _Waiting())
            batch.clips.append(clip)
            batch.inputs.append(inputs)
            batch.features.append(features)
            if len(batch.clips) == batch_size:
                yield from self._finish(waiting.pop(alike))
        for batch in waiting.values():
            yield from self._finish(batch)

    @torch.inference_mode()
    def _finish(self, batch: _Waiting) -> Iterator[None]:
        pipe, s, spec = self.pipe, self.sampling, batch.inputs[0].spec
        features = [None if xs[0] is None else torch.cat(xs) for xs in zip(*batch.features, strict=True)]
        conditions = pipe.conditions(features, spec, len(batch.clips), self.by)
        seeds = [s.seed_of(clip.id) for clip in batch.clips]
        latents = pipe.solve(
            *conditions, spec, seeds, num_steps=s.num_steps, cfg_strength=s.cfg_strength, solver=s.solver, by=self.by
        )
        codec = pipe.part("codec")
        mels = codec.decode_mel(latents)
        for clip, inputs, mel in zip(batch.clips, batch.inputs, mels.split(1), strict=True):
            wave = codec.vocode(mel)[0].cpu()
            name = self.names[clip.id]
            if torch.isfinite(wave).all():
                wave = fit_length(wave.clone(), inputs.spec.duration, inputs.duration, codec.sample_rate)
                write_audio(self.path(clip), wave, codec.sample_rate)
                self.parts.save(name, {}, {"id": clip.id})
            else:
                self.parts.fail(name, "the network produced values that are not finite")
            yield


def local_device(name: str | None) -> str | None:
    """Of this rank: its own GPU where there are several."""
    if name in (None, "cuda") and torch.cuda.is_available():
        return f"cuda:{int(os.environ.get('LOCAL_RANK', 0))}"
    return name
