"""The first stage of a small Synchformer: predict the sound from sixteen frames of picture.

Both later stages compare whole features, and a small network never finds the few moving pixels that decide. Here every
40 ms are asked about: does a sound begin, how loud is each band, and what moves. The answers come from the video
itself, so any video with sound will do; of simulated clips it is known besides what happens when, and can be asked
for. The read-outs are linear, hence their inputs, the features, have it plain; they are not kept.
"""

import contextlib
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmaudio.codec.mel import MelConfig, MelSpectrogram
from mmaudio.data.sampler import TensorBatch
from mmaudio.features.frames import sync_normalize
from mmaudio.features.synchformer import SynchformerConfig, SynchformerVisual, cut_segments
from mmaudio.features.synchformer_audio import SAMPLE_RATE
from mmaudio.media.video import SYNC_FPS
from mmaudio.stage import LABELS
from mmaudio.training.task import Draw, Losses, Nets
from mmaudio.training.tasks.augmentation import jittered

SAMPLES_PER_FRAME = SAMPLE_RATE // SYNC_FPS  # 40 ms
BANDS = 8
LEVELS = MelConfig(SAMPLE_RATE, 1024, SAMPLES_PER_FRAME, BANDS, log10=True)
LEVEL_MEAN, LEVEL_STD = -2.4, 0.55  # of log10 mel magnitudes of simulated scenes
FLUX = MelConfig(SAMPLE_RATE, 320, SAMPLES_PER_FRAME // 4, 16, log10=True)
QUIET = 1e-3  # mel magnitude below which a change is not heard
FLUX_NONE, FLUX_FULL = 0.1, 0.5  # mean rise of the bands' log10 magnitudes within 10 ms: no onset, a full one
BEGINS_WEIGHT, EVENTS_WEIGHT = 6.0, 0.3  # of the losses, of moments and of what it is that sounds
ONSET_WEIGHT = 4.0  # of a moment with an onset against one without: most are without
MOTION_FLOOR = 0.006  # mean absolute change that is grain
MOTION_VARIANCE = 0.12  # of the motion targets in simulated scenes


class SoundReadout(nn.Module):
    """The visual half with linear read-outs, as many per token as it has frames.

    What moves is asked for as well, of every patch and of the whole frame's feature: onsets are rare and the picture is
    full of things that do not sound, so for thousands of steps the sound alone teaches nothing.
    """

    def __init__(self, config: SynchformerConfig, events: bool = False):
        super().__init__()
        self.per_token = config.frames_per_token
        self.visual = SynchformerVisual(config)
        self.onset = nn.Linear(config.embed_dim, self.per_token)
        self.levels = nn.Linear(config.embed_dim, self.per_token * BANDS)
        self.frame_motion = nn.Linear(config.embed_dim, self.per_token * config.grid**2)
        self.patch_motion = nn.Linear(config.embed_dim, self.per_token)
        self.events = nn.Linear(config.embed_dim, self.per_token * (1 + len(LABELS))) if events else None
        self._start_from_motion()

    @torch.no_grad()
    def _start_from_motion(self) -> None:
        """Filters without a mean, half of them differences of two frames: or the still background drowns all."""
        weight = self.visual.vfeat_extractor.patch_embed_3d.proj.weight  # (D, 3, 2, p, p)
        weight -= weight.mean((1, 3, 4), keepdim=True)
        half = len(weight) // 2
        weight[:half, :, 1] = -weight[:half, :, 0]
        weight[:half] *= 6

    def forward(self, segments: Tensor) -> dict[str, Tensor]:
        """Segments (N, 16, 3, H, W) in [-1, 1] to what is read out of them, by frame: see `SoundLoss`."""
        extractor = self.visual.vfeat_extractor
        patches = extractor.patches(segments.transpose(1, 2))  # (N, 8, P, D)
        features = extractor.summary(patches)  # (N, 8, D)
        found = {
            "onset": self._by_frame(self.onset(features)).squeeze(-1),  # (N, 16)
            "levels": self._by_frame(self.levels(features)),  # (N, 16, BANDS)
            "frame_motion": self._by_frame(self.frame_motion(features)),  # (N, 16, P)
            "patch_motion": self.patch_motion(patches).transpose(2, 3).flatten(1, 2),  # (N, 16, P)
        }
        if self.events is not None:
            found["events"] = self._by_frame(self.events(features))  # (N, 16, 1 + LABELS)
        return {name: x.float() for name, x in found.items()}

    def _by_frame(self, x: Tensor) -> Tensor:
        """(N, 8, 2 K) to (N, 16, K)."""
        return x.unflatten(-1, (self.per_token, -1)).flatten(1, 2)


@dataclass(frozen=True)
class SoundLoss:
    """Cross-entropy of onsets and known events, squared errors of the bands' levels and of the motion of patches."""

    config: SynchformerConfig

    def __call__(self, nets: Nets, batch: TensorBatch, draw: Draw) -> Losses:
        c = self.config
        frames = jittered(batch.frames, draw) if nets.network.training else batch.frames
        with torch.no_grad(), torch.autocast(frames.device.type, enabled=False):
            segments = cut_segments(sync_normalize(frames), c).flatten(0, 1)  # (B S, 16, 3, H, W)
            motion = motion_energy(segments, c.patch_size)  # (B S, 16, P)
            onset, levels, events = (
                x.unfold(1, c.segment_frames, c.segment_step).flatten(0, 1)
                for x in (onset_strength(batch.audio), band_levels(batch.audio), batch.events)
            )
            levels, events = levels.transpose(1, 2), events.transpose(1, 2)  # (B S, 16, ...)
        with short_attention(segments.device):
            out = nets.network(segments)
        with torch.autocast(onset.device.type, enabled=False):
            weight = torch.tensor(ONSET_WEIGHT, device=onset.device)
            parts = {
                "onset": F.binary_cross_entropy_with_logits(out["onset"], onset, pos_weight=weight),
                "levels": F.mse_loss(out["levels"], levels),
                "frame_motion": F.mse_loss(out["frame_motion"], motion) / MOTION_VARIANCE,
                "patch_motion": F.mse_loss(out["patch_motion"], motion) / MOTION_VARIANCE,
            }
            total = 2 * parts["onset"] + parts["levels"] + parts["frame_motion"] + parts["patch_motion"]
            if "events" in out:
                known = F.binary_cross_entropy_with_logits(out["events"], events, pos_weight=weight, reduction="none")
                parts["begins"], parts["events"] = known[..., 0].mean(), known[..., 1:].sum(-1).mean()
                total = total + BEGINS_WEIGHT * parts["begins"] + EVENTS_WEIGHT * parts["events"]
        return Losses(total, {name: x.detach() for name, x in parts.items()})


def short_attention(device: torch.device):
    """Plain products on CPUs: among 9 or 17 tokens their fused kernel takes half of a whole training step."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()


def known_events(events: list[dict], frames: int) -> Tensor:
    """Events of a simulated clip to (frames, 1 + LABELS).

    First: does anything that is seen begin to sound? Then: does a thing of this kind or material, that is seen, sound?
    """
    target = torch.zeros(frames, 1 + len(LABELS))
    for event in events:
        first = int(event["time"] * SYNC_FPS)
        last = int((event["time"] + event["seconds"]) * SYNC_FPS)
        if event["seen"] and first < frames:
            target[first, 0] = 1
            target[first : last + 1, [1 + label for label in event_labels(event)]] = 1
    return target


def event_labels(event: dict) -> list[int]:
    """Places in LABELS of an event's kind and, if it has one, its material."""
    return [LABELS.index(name) for name in (event["kind"], event["material"]) if name]


def onset_strength(audio: Tensor) -> Tensor:
    """Sound (B, 640 T) at 16 kHz to how surely something begins to sound in each 40 ms, (B, T) from 0 to 1.

    The steepest rise of the bands' logarithmic magnitudes: it does not depend on loudness, but hiss does not count.
    """
    level = (_mel(FLUX, audio.device).magnitude(audio) + QUIET).log10()  # (B, M, 4 T)
    rise = F.pad((level[..., 1:] - level[..., :-1]).clamp(min=0).mean(1), (1, 0))  # (B, 4 T)
    steepest = rise.unflatten(-1, (-1, 4)).amax(-1)
    return ((steepest - FLUX_NONE) / (FLUX_FULL - FLUX_NONE)).clamp(0, 1)


def band_levels(audio: Tensor) -> Tensor:
    """Sound (B, 640 T) at 16 kHz to levels of eight bands in each 40 ms, of about unit variance, (B, T, BANDS)."""
    return (_mel(LEVELS, audio.device)(audio).transpose(1, 2) - LEVEL_MEAN) / LEVEL_STD


def motion_energy(segments: Tensor, patch: int) -> Tensor:
    """Segments (N, T, 3, H, W) in [-1, 1] to log mean absolute change per patch and frame, (N, T, P).

    Relative to the patch's median over the segment, so that film grain and texture do not count.
    """
    grey = segments.mean(2)
    change = (grey[:, 1:] - grey[:, :-1]).abs()
    change = torch.cat([change[:, :1], change], dim=1)
    energy = (F.avg_pool2d(change, patch).flatten(2) + MOTION_FLOOR).log()
    return energy - energy.median(dim=1, keepdim=True)[0]


@lru_cache
def _mel(config: MelConfig, device: torch.device) -> MelSpectrogram:
    return MelSpectrogram(config).to(device)
