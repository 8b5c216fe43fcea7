"""One sound to make: inputs read from files, words, seed, and what is to be kept of another sound."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from mmaudio.editing import Edit, paste
from mmaudio.generation import Generation, fit_length
from mmaudio.inputs import MAX_DURATION, MAX_WHOLE_CLIP, Inputs, Progress, read_inputs
from mmaudio.media import VideoFrames
from mmaudio.segments import Segment, Span, make_segments, scene_cuts
from mmaudio.variants import Variant


@dataclass
class Request:
    inputs: Inputs
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 42
    segments: Sequence[Segment] = ()  # of a windowed input
    edit: Edit | None = None
    original: tuple[Tensor, int] | None = None  # what `edit.read` gives

    @property
    def negative(self) -> bool:
        """Whether it has a negative prompt anywhere."""
        return any(part.negative_prompt for part in (self, *self.segments))

    def result(self, variant: Variant, wave: Tensor, latents: Tensor, seed: int, notes: Sequence[str]) -> Generation:
        """A take of it, from sound (1, N) and latents (L, C) as the variant makes them."""
        inputs, rate = self.inputs, variant.spec.sample_rate
        covered = inputs.duration if inputs.windowed else inputs.spec.duration
        audio = fit_length(wave.clone(), covered, inputs.duration, rate)
        if self.edit is not None and self.edit.keep:
            audio = paste(audio, rate, *self.original, self.edit.keep, inputs.duration)
            rate = self.original[1]
        return Generation(
            audio=audio,
            sample_rate=rate,
            latents=latents.float().cpu().clone(),  # clones: tensors of inference mode cannot be changed in place
            seed=seed,
            variant=variant.name,
            prompt=self.prompt,
            duration=inputs.duration,
            source=inputs.source,
            is_picture=inputs.is_picture,
            notes=(*inputs.notes, *notes),
        )


def read_request(
    variant: Variant,
    video: str | os.PathLike | VideoFrames | None = None,
    prompt: str = "",
    negative_prompt: str = "",
    *,
    image: str | os.PathLike | Tensor | None = None,
    duration: float | None = None,
    seed: int = 42,
    segments: Sequence[Span] = (),
    split_scenes: bool = False,
    edit: Edit | None = None,
    progress: Progress | None = None,
) -> Request:
    """Read what a call of `Pipeline` names; see there for the arguments and the errors. Needs no network."""
    parted = bool(segments) or split_scenes
    if edit is not None and parted:
        raise ValueError("segments and scenes cannot be edited: leave them or the edit out")
    original = None
    if edit is not None and video is None and duration is None:
        original = edit.read(MAX_DURATION + 1)
        duration = original[0].shape[1] / original[1]
        if duration > MAX_DURATION:
            raise ValueError(f"the sound to edit is over {MAX_DURATION:g} s long: choose a duration")
    windows_beyond = None if edit is not None else 0.0 if parted else MAX_WHOLE_CLIP
    inputs = read_inputs(variant, video, image, duration, progress, windows_beyond)
    if edit is not None:
        original = original or edit.read(inputs.duration)
    parts = ()
    if inputs.windowed:
        cuts = scene_cuts(inputs.source) if split_scenes else ()
        parts = make_segments(inputs.duration, prompt, negative_prompt, segments, cuts)
    elif parted:
        raise ValueError("segments and scenes are of whole video files: give a video and no duration")
    return Request(inputs, prompt, negative_prompt, seed, parts, edit, original)


def unused_guidance(variant: Variant, request: Request, cfg_strength: float) -> list[str]:
    """Which settings of guidance a network does not follow that has its guidance in it; a line for each."""
    own = variant.network.guidance
    if own is None:
        return []
    lines = []
    if cfg_strength != own:
        lines.append(f"cfg_strength {cfg_strength:g} is not used: {variant.name} has a guidance of {own:g} in it")
    if request.negative:
        lines.append(f"negative prompts are not used: {variant.name} has its guidance in it")
    return lines
