"""CLIP, on frames and captions: open_clip's contrastive loss over all ranks; of simulated clips also what they tell."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio.data.clip_cache import CachedClip
from mmaudio.data.clips import MediaClips, Row, check_events, simulated_events
from mmaudio.data.manifest import ManifestError
from mmaudio.data.sampler import TensorBatch
from mmaudio.features.clip import build_clip, tokenize
from mmaudio.features.frames import clip_frame, clip_normalize
from mmaudio.media import probe, read_image, read_video
from mmaudio.media.video import CLIP_FPS, SYNC_FPS, Transform
from mmaudio.training.config import TrainConfig
from mmaudio.training.task import Draw, Losses, Nets, Task
from mmaudio.training.tasks.augmentation import jittered
from mmaudio.training.tasks.clip_events import EVENTS_WEIGHT, READOUTS, EventReadout, events_loss, known_labels
from mmaudio.training.tasks.setup import (
    chosen_variant,
    media_clips,
    metadata,
    rank_and_world,
    start_weights,
    task_options,
)
from mmaudio.weights import load_strict

PART = "clip"
MAX_SCALE = 100.0  # of the logits, as CLIP's own training limits it


@dataclass
class Options:
    crop: float = 0.9  # smallest share of a frame's height and width that is seen in training; 1: whole frames
    jitter: bool = False  # also flip, shift and tint the frames of training: for small data
    events: bool = False  # also learn what clip caches of simulated clips list: kinds and materials


def build(config: TrainConfig, device: torch.device) -> Task:
    """The task from its configuration.

    Raises:
        ValueError, ManifestError, WeightError: something does not fit; one line.
    """
    options = task_options(Options, config)
    if not 0 < options.crop <= 1:
        raise ValueError(f"task.crop must be above 0 and at most 1, got {options.crop:g}")
    variant = chosen_variant(config)
    size, duration = variant.clip.frame_size, variant.spec.duration
    read = ReadFrame(size, duration, options.crop, options.events)
    train = captioned(media_clips(config.data.train, read, ClipBatch))
    validation = None
    if config.data.validation:
        whole = dataclasses.replace(read, crop=1.0)
        validation = captioned(media_clips(config.data.validation, whole, ClipBatch))
    if options.events:
        check_events(train, validation)

    torch.manual_seed(config.seed)
    clip = build_clip(variant.clip)
    start = start_weights(config, PART)
    if start is not None:
        load_strict(clip, start[0], source=start[1])
    clip.logit_scale = nn.Parameter(clip.logit_scale.detach().view(1))  # FSDP cannot shard a scalar
    return Task(
        name="clip",
        network=(EventReadout(clip) if options.events else clip).to(device),
        loss=ContrastiveLoss(options.jitter),
        train=train,
        validation=validation,
        file_name=variant.files.clip.local_names[0],
        metadata=metadata(variant, PART, variant.clip),
        export=open_clip_state,
        blocks=blocks,
        can_accumulate=False,
    )


def open_clip_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's state as open_clip has it: its temperature is a scalar, and there are no read-outs."""
    state = {key.removeprefix("clip."): x for key, x in state.items() if key.partition(".")[0] not in READOUTS}
    return state | {"logit_scale": state["logit_scale"].view(())}


def blocks(network: nn.Module) -> tuple[nn.Module, ...]:
    clip = network.clip if isinstance(network, EventReadout) else network
    return (*clip.visual.transformer.resblocks, *clip.transformer.resblocks)


def captioned(clips: MediaClips) -> MediaClips:
    """The clips; ManifestError if one has no caption."""
    for row in clips.rows:
        if row.caption is None:
            raise ManifestError(f"clip {row.id} ({row.path}) has no caption: task=clip needs one for every clip")
    return clips


@dataclass
class ClipBatch(TensorBatch):
    frame: Tensor  # (B, 3, H, W) uint8
    tokens: Tensor  # (B, 77) int64
    labels: Tensor  # (B, 2, LABELS) of `known_labels`; (B, 0) if they are not asked for


@dataclass(frozen=True)
class ReadFrame:
    """A `ReadClip`: a random frame of a clip (or a picture), and the tokens of its caption, or of one of them; and what
    is known to sound."""

    size: int  # pixels
    duration: float  # seconds from the row's start that the caption speaks of
    crop: float
    events: bool = False

    def __call__(self, row: Row, rng: np.random.Generator) -> dict[str, Tensor]:
        frame = self.frame(row, rng)
        caption = row.captions[int(rng.integers(len(row.captions)))]
        labels = known_labels(simulated_events(row)) if self.events else torch.zeros(0)
        return {"frame": frame, "tokens": tokenize([caption])[0], "labels": labels}

    def frame(self, row: Row, rng: np.random.Generator) -> Tensor:
        transform = cropped(rng, self.crop, clip_frame(self.size))
        if isinstance(row, CachedClip):
            frames = row.frames(self.size)
            return transform(frames[int(rng.integers(len(frames)))])
        info = probe(row.path)
        if info.kind == "image":
            return transform(read_image(row.path))
        length = min(self.duration, (info.duration or self.duration) - row.start)
        time = row.start + max(0.0, length - 1 / CLIP_FPS) * rng.random()  # later, no slot would be left
        return frame_at(row.path, time, transform)


def frame_at(path, time: float, transform: Transform) -> Tensor:
    """The video's frame nearest to a time, at least 1/8 s before its end: `read_video` of one slot at 25 fps."""

    def unwanted(frame: Tensor) -> Tensor:
        return frame[:, :1, :1]

    video = read_video(path, 1 / SYNC_FPS, time, rule="nearest", sync_transform=transform, clip_transform=unwanted)
    return video.sync[0]


def cropped(rng: np.random.Generator, least: float, transform: Transform) -> Transform:
    """`transform` after a random box, at least `least` of each side."""
    shares, places = rng.uniform(least, 1, 2), rng.random(2)

    def crop(frame: Tensor) -> Tensor:
        for side, share, place in zip((1, 2), shares, places, strict=True):
            length = max(1, round(share * frame.shape[side]))
            frame = frame.narrow(side, round(place * (frame.shape[side] - length)), length)
        return transform(frame)

    return crop


@dataclass(frozen=True)
class ContrastiveLoss:
    jitter: bool = False

    def __call__(self, nets: Nets, batch: ClipBatch, draw: Draw) -> Losses:
        frame = jittered(batch.frame, draw) if self.jitter and nets.network.training else batch.frame
        return contrastive_loss(nets, dataclasses.replace(batch, frame=frame), draw)


def contrastive_loss(nets: Nets, batch: ClipBatch, draw: Draw) -> Losses:
    """open_clip's loss over the batches of all ranks together; equal captions are not each other's negatives.

    Every rank computes the same number. The gathering hands gradients back summed over the ranks, and averaging them
    afterwards gives those of one rank with the whole batch. What is asked of events is asked of a rank's own rows, and
    averaged with the gradients.
    """
    from open_clip.loss import ClipLoss

    image, text, scale, *logits = nets.network(clip_normalize(batch.frame), batch.tokens)  # (B, D), (B, D)
    rank, world = rank_and_world() if nets.network.training else (0, 1)
    open_clip_loss = ClipLoss(gather_with_grad=True, rank=rank, world_size=world)
    per_image, per_text = open_clip_loss.get_logits(image.float(), text.float(), scale.float().clamp(max=MAX_SCALE))
    own = open_clip_loss.get_ground_truth(image.device, len(per_image))  # (N,): image i belongs to text i

    _, caption = gathered(batch.tokens, world).unique(dim=0, return_inverse=True)  # (N,)
    twins = (caption[:, None] == caption) & (own[:, None] != own)
    loss = (F.cross_entropy(without(per_image, twins), own) + F.cross_entropy(without(per_text, twins), own)) / 2
    found = caption[per_image.detach().argmax(dim=1)] == caption
    parts = {"top1": found.float().mean(), "scale": scale.detach().mean()}
    if logits:
        seen, told = events_loss(logits[0], batch.labels)
        loss = loss + EVENTS_WEIGHT * (seen + told)
        parts |= {"seen": seen.detach(), "told": told.detach()}
    return Losses(loss, parts)


def without(logits: Tensor, pairs: Tensor) -> Tensor:
    return logits.masked_fill(pairs, float("-inf"))


def gathered(x: Tensor, world: int) -> Tensor:
    """The rows of all ranks, in their order."""
    if world == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world)]
    dist.all_gather(parts, x)
    return torch.cat(parts)
