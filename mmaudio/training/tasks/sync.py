"""Synchformer, on videos with sound, in two stages: contrastive segments, then offset classes (Iashin et al., 2024).

The first stage teaches the encoders which sound belongs to which 0.64 s of picture; the second puts the head on top,
which tells by how much sound and picture are apart. Small models on small machines learn next to nothing from either.
For them there are two stages of our own: the picture predicts its sound (`sync_sound`), which is all that the flow
network needs, and then the audio half and the head's projections learn the same from the sound (`sync_hearing`), in
place of the contrastive stage.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

from mmaudio.data.clip_cache import CachedClip
from mmaudio.data.clips import Row, check_events, read_sound, simulated_events
from mmaudio.data.preparation import ClipError, resample
from mmaudio.data.sampler import TensorBatch
from mmaudio.features.frames import sync_frame
from mmaudio.features.synchformer_audio import SAMPLE_RATE
from mmaudio.features.synchformer_offset import MAX_OFFSET, NUM_OFFSETS, PARTS, OffsetHead, Synchformer, official_key
from mmaudio.media import read_video
from mmaudio.media.video import SYNC_FPS
from mmaudio.training.config import DataEntry, TrainConfig
from mmaudio.training.task import Draw, Losses, Nets, Task
from mmaudio.training.tasks.setup import (
    chosen_variant,
    media_clips,
    metadata,
    positive,
    rank_and_world,
    start_weights,
    task_options,
)
from mmaudio.training.tasks.sync_features import StoredFeatures, stored_features
from mmaudio.training.tasks.sync_hearing import AnsweringHead, hearing_loss
from mmaudio.training.tasks.sync_sound import SoundLoss, SoundReadout, known_events, short_attention
from mmaudio.variants import Variant
from mmaudio.weights import WeightError, load_strict

PART = "sync"
FROZEN = {"sound": [], "contrastive": [], "hearing": ["visual"], "offset": ["visual", "audio"]}  # by default
ENCODERS = ("visual", "audio")
FRAMES_PER_STEP = 8  # a segment is 16 frames, one begins every 8
SAMPLES_PER_FRAME = SAMPLE_RATE // SYNC_FPS
FRAMES_PER_CLASS = round(SYNC_FPS * 2 * MAX_OFFSET / (NUM_OFFSETS - 1))  # 0.2 s
START_SCALE, MAX_SCALE = 1 / 0.07, 100.0  # of the cosines


@dataclass
class Options:
    stage: str = "contrastive"  # sound, contrastive, hearing, offset
    segments: int = 14  # of a training example, each 0.64 s, one every 0.32 s; offset always takes 14
    duration: float = 8.0  # seconds from a clip's start on that examples are cut from
    events: bool = False  # sound: also learn what clip caches of simulated clips list (kind and material, by frame)
    frozen: list[str] | None = None  # of visual, audio: stay as `weights` has them; None: see FROZEN


def build(config: TrainConfig, device: torch.device) -> Task:
    """The task from its configuration.

    Raises:
        ValueError, ManifestError, WeightError: something does not fit; one line.
    """
    options = task_options(Options, config)
    positive(segments=options.segments, duration=options.duration)
    if options.stage not in FROZEN:
        raise ValueError(f"task.stage must be one of {', '.join(FROZEN)}, got {options.stage!r}")
    variant = chosen_variant(config)
    offset = options.stage == "offset"
    if options.events and options.stage != "sound":
        raise ValueError("task.events is for task.stage=sound")
    segments = variant.sync_head.segments if offset else options.segments
    frozen = FROZEN[options.stage] if options.frozen is None else options.frozen
    entries = [*config.data.train, *config.data.validation]
    stored = stored_features(entries, variant.sync.tokens_per_segment)
    if stored is not None and "visual" not in frozen:
        raise ValueError("a store beside a manifest is for a frozen visual half: set task.frozen=[visual] too")
    read = ReadSpan(variant.sync.frame_size, segments, options.duration, offset, options.events, stored)
    if read.needed > options.duration * SYNC_FPS:
        raise ValueError(
            f"task.duration is {options.duration:g} s, but {segments} segments{' and the offsets' if offset else ''} "
            f"need {read.needed / SYNC_FPS:g} s"
        )
    train = media_clips(manifests(config.data.train, stored), read, SpanBatch)
    held_out = manifests(config.data.validation, stored)
    validation = media_clips(held_out, read, SpanBatch) if held_out else None
    if options.events:
        check_events(train, validation)

    torch.manual_seed(config.seed)
    network = build_network(variant, options)
    start = start_weights(config, PART)
    loaded = load_parts(network, *start) if start else set()
    freeze(network, frozen, loaded)
    if stored is not None:
        stored.check(network.visual, train.rows[0], read.frames(train.rows[0]))
    return Task(
        name="sync",
        network=network.to(device),
        loss=SoundLoss(variant.sync) if options.stage == "sound" else LOSSES[options.stage],
        train=train,
        validation=validation,
        file_name=variant.files.sync.local_names[0],
        metadata=metadata(variant, PART, variant.synchformer),
        export=official_state,
        blocks=blocks,
        can_accumulate=options.stage != "contrastive",
    )


def build_network(variant: Variant, options: Options) -> nn.Module:
    if options.stage == "sound":
        return SoundReadout(variant.sync, options.events)
    network = Synchformer(variant.synchformer)
    if options.stage == "contrastive":
        network.head = ContrastiveHead(variant.sync_head.embed_dim)
    elif options.stage == "hearing":
        network.head = AnsweringHead(variant.sync_head)
    return network


def manifests(entries: list[DataEntry], stored: StoredFeatures | None) -> list[DataEntry]:
    """The entries without their stores, if these are used: an entry is either otherwise."""
    return entries if stored is None else [dataclasses.replace(entry, store=None) for entry in entries]


# ---- data


@dataclass
class SpanBatch(TensorBatch):
    frames: Tensor  # (B, T, 3, H, W) uint8 at 25 fps, or their features (B, S, 8, D)
    audio: Tensor  # (B, N) float32 at 16 kHz, as long as the frames
    target: Tensor  # (B,) int64: class of the offset in `offset_grid`
    events: Tensor  # (B, T, 1 + LABELS) of `known_events`; (B, T, 0) if they are not asked for


@dataclass(frozen=True)
class ReadSpan:
    """A `ReadClip`: picture and sound of a random span, in step or apart by a random offset of the grid.

    Stored features are those of a clip's segments, so that spans of them begin with one.
    """

    frame_size: int  # pixels
    segments: int
    duration: float  # seconds
    offset: bool
    events: bool = False
    stored: StoredFeatures | None = None  # in place of pictures

    @property
    def step(self) -> int:
        """Frames between the places where a span can begin."""
        return 1 if self.stored is None else FRAMES_PER_STEP

    @property
    def length(self) -> int:
        """Frames of a span."""
        return FRAMES_PER_STEP * (self.segments + 1)

    @property
    def needed(self) -> int:
        """Frames of a clip: any span at any offset must find its sound."""
        return self.length + (NUM_OFFSETS // 2 * FRAMES_PER_CLASS + self.step - 1 if self.offset else 0)

    def __call__(self, row: Row, rng: np.random.Generator) -> dict[str, Tensor]:
        seen, audio = self.clip(row)
        frames = len(audio) // SAMPLES_PER_FRAME
        target = int(rng.integers(NUM_OFFSETS)) if self.offset else NUM_OFFSETS // 2
        early = (target - NUM_OFFSETS // 2) * FRAMES_PER_CLASS  # frames by which the sound is too early
        first, last = -(-max(0, -early) // self.step), (frames - self.length - max(0, early)) // self.step
        place = int(rng.integers(first, last + 1))
        start = place * self.step
        heard = (start + early) * SAMPLES_PER_FRAME
        events = self.known(row, frames)
        length = self.length if self.stored is None else self.segments
        return {
            "frames": seen[place : place + length].clone(),  # else the whole clip travels between processes
            "audio": audio[heard : heard + self.length * SAMPLES_PER_FRAME].clone(),
            "target": torch.tensor(target),
            "events": events[start : start + self.length].clone(),
        }

    def clip(self, row: Row) -> tuple[Tensor, Tensor]:
        """The clip's frames (T, 3, H, W), or features of them, and mono sound (640 T,), cut to the shorter of the two.

        Raises:
            MediaError: it cannot be read, or lacks picture or sound.
            ClipError: too short.
        """
        seen = self.frames(row) if self.stored is None else self.stored(row)
        frames = len(seen) if self.stored is None else FRAMES_PER_STEP * (len(seen) + 1)
        sound, rate = read_sound(row, self.duration)
        try:
            audio = resample(sound.mean(0), rate, SAMPLE_RATE)
        except ClipError as error:
            raise ClipError(f"{row.path}: {error}") from None
        length = min(frames, len(audio) // SAMPLES_PER_FRAME)
        if length < self.needed:
            raise ClipError(
                f"{row.path}: has {length / SYNC_FPS:g} s of picture and sound from {row.start:g} s on, "
                f"needs {self.needed / SYNC_FPS:g} s; leave clip {row.id} out"
            )
        return seen[:length], audio[: length * SAMPLES_PER_FRAME]

    def known(self, row: Row, frames: int) -> Tensor:
        return known_events(simulated_events(row), frames) if self.events else torch.zeros(frames, 0)

    def frames(self, row: Row) -> Tensor:
        if isinstance(row, CachedClip):
            return row.frames(self.frame_size)
        return read_video(
            row.path,
            self.duration,
            row.start,
            rule="nearest",
            sync_transform=sync_frame(self.frame_size),
            clip_transform=lambda frame: frame[:, :1, :1],  # the frames at 8 fps are not wanted
        ).sync


# ---- first stage


class ContrastiveHead(nn.Module):
    """One unit vector per segment and modality, and what their cosines are multiplied by; not part of the result."""

    def __init__(self, dim: int):
        super().__init__()
        self.video = nn.Linear(dim, dim)
        self.audio = nn.Linear(dim, dim)
        self.log_scale = nn.Parameter(torch.full((1,), math.log(START_SCALE)))

    def forward(self, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, S, 8, D) and (B, S, 6, D) to embeddings (B S, D), (B S, D) and the scale (1,)."""
        video, audio = (
            F.normalize(project(x.mean(2)).flatten(0, 1).float(), dim=-1)
            for project, x in ((self.video, video), (self.audio, audio))
        )
        return video, audio, self.log_scale.float().exp().clamp(max=MAX_SCALE)


def contrastive_loss(nets: Nets, batch: SpanBatch, draw: Draw) -> Losses:
    """Which of all segments of all ranks has this picture's sound, and the other way round (InfoNCE).

    Every rank computes the same number. The gathering hands gradients back summed over the ranks, and averaging them
    afterwards gives those of one rank with the whole batch. Validation compares within its own batches.
    """
    with short_attention(batch.frames.device):
        video, audio, scale = nets.network(batch.frames, batch.audio)
    if nets.network.training and rank_and_world()[1] > 1:
        video, audio = (torch.cat(all_gather(x)) for x in (video, audio))
    with torch.autocast(video.device.type, enabled=False):
        logits = scale * video @ audio.T  # (N, N)
    own = torch.arange(len(logits), device=logits.device)
    loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    top1 = (logits.argmax(1) == own).float().mean()
    return Losses(loss, {"top1": top1, "scale": scale.detach().mean()})


# ---- second stage


def offset_loss(nets: Nets, batch: SpanBatch, draw: Draw) -> Losses:
    """Cross-entropy over the offset grid; logged are the share of right classes, and of right or neighbouring ones."""
    with short_attention(batch.frames.device):
        logits = nets.network(batch.frames, batch.audio).float()  # (B, 21)
    miss = (logits.argmax(1) - batch.target).abs()
    parts = {"exact": (miss == 0).float().mean(), "within_one": (miss <= 1).float().mean()}
    return Losses(F.cross_entropy(logits, batch.target), parts)


LOSSES = {"contrastive": contrastive_loss, "hearing": hearing_loss, "offset": offset_loss}


# ---- weights


def load_parts(network: nn.Module, state: dict[str, Tensor], source: str) -> set[str]:
    """Load the parts that the file has, each strictly: the encoders without a head, the visual half alone, or all.

    Returns:
        The names of these parts.

    Raises:
        WeightError: none of its keys, or not all, belong to a Synchformer, or a part does not fit.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        part = PARTS.get(key.partition(".")[0])
        if part is None:
            raise WeightError(f"{source}: {key} is of no part of Synchformer; a checkpoint of another kind of model?")
        found.setdefault(part, {})[key] = tensor
    if not isinstance(getattr(network, "head", None), OffsetHead):
        found.pop("head", None)
    if isinstance(network, SoundReadout):
        found.pop("audio", None)
    for part, tensors in found.items():
        load_strict(getattr(network, part), tensors, source=source)
    return set(found)


def freeze(network: nn.Module, encoders: list[str], loaded: set[str]) -> None:
    """Raises ValueError for what is no encoder, or one that `weights` did not bring."""
    for part in encoders:
        if part not in ENCODERS:
            raise ValueError(f"task.frozen can hold {', '.join(ENCODERS)}, got {part!r}")
        if not hasattr(network, part):
            raise ValueError(f"task.frozen: this stage has no {part} encoder")
        if part not in loaded:
            raise ValueError(
                f"task.frozen would keep an untrained {part} encoder: set weights=FILE that has it, or task.frozen=[]"
            )
        getattr(network, part).requires_grad_(False)


def official_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's state under the official file's names; the heads of our own are in no such file."""
    official = {official_key(key): x for key, x in state.items()}
    return {key: x for key, x in official.items() if key.partition(".")[0] in PARTS}


def blocks(network: nn.Module) -> list[nn.Module]:
    found = [*network.visual.vfeat_extractor.blocks]
    if isinstance(network, Synchformer):
        found += network.audio.afeat_extractor.ast.encoder["layer"]
        found += network.head.transformer.blocks if isinstance(network.head, OffsetHead) else []
    return found
