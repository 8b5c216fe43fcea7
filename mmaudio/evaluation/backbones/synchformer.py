"""Synchformer as a backbone: features of picture and sound, and the offset between them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmaudio.evaluation.backbones.loading import Loaded, fill
from mmaudio.evaluation.backbones.sound import mono
from mmaudio.evaluation.backbones.table import BackboneInfo
from mmaudio.features.frames import sync_frame
from mmaudio.features.synchformer_audio import SAMPLE_RATE
from mmaudio.features.synchformer_offset import Synchformer, SynchformerModelConfig, offset_grid, own_key
from mmaudio.media import read_video
from mmaudio.media.container import exact
from mmaudio.media.video import SYNC_FPS

OFFICIAL = SynchformerModelConfig()


class SynchformerBackbone(Loaded):
    """`config` is another one for weights of one's own training."""

    def __init__(
        self,
        info: BackboneInfo,
        paths: Sequence[Path],
        device: torch.device,
        config: SynchformerModelConfig = OFFICIAL,
    ):
        super().__init__(info, paths, device)
        self.network = fill(lambda: Synchformer(config), paths[0], device, rename=own_key)

    def audio(self, samples: Tensor, sample_rate: int, duration: float) -> dict[str, np.ndarray]:
        """{"features": (S, 6, D)}, a segment each 0.32 s.

        Raises:
            ValueError: shorter than `duration`, under one segment, or a sample rate that cannot be resampled.
        """
        wave, needed = mono(samples, sample_rate, SAMPLE_RATE, duration), int(SAMPLE_RATE * exact(duration))
        if len(wave) < needed:
            raise ValueError(f"has {len(wave)} samples of sound at 16 kHz, Synchformer needs {needed}")
        return {"features": self.network.audio.encode(wave[None])[0].cpu().numpy()}

    def video(self, path: Path, duration: float) -> dict[str, np.ndarray]:
        """{"features": (S, 8, D)} of the file's pictures from the first one on.

        Raises:
            MediaError: the file cannot be read.
            ValueError: shorter than `duration`, or under one segment.
        """
        visual = self.network.visual
        frames = read_video(
            path,
            duration,
            rule="nearest",
            clip_transform=lambda frame: frame[:, :1, :1],  # 8 fps are not used here
            sync_transform=sync_frame(visual.config.frame_size),
        ).sync
        needed = int(SYNC_FPS * exact(duration))
        if len(frames) < needed:
            raise ValueError(f"has {len(frames)} pictures at {SYNC_FPS} fps, Synchformer needs {needed}")
        features = visual.encode(frames[None])[0]  # (8 S, D)
        return {"features": features.unflatten(0, (-1, visual.config.tokens_per_segment)).cpu().numpy()}

    @torch.inference_mode()
    def offsets(self, video_features: np.ndarray, audio_features: np.ndarray) -> np.ndarray:
        """(S, 8, D) and (S, 6, D) to the likeliest offsets of the first and of the last 14 segments, (2,) seconds.

        DeSync is the mean of their absolute values.

        Raises:
            ValueError: fewer than 14 segments (4.8 s), or different numbers of them.
        """
        count = self.network.head.config.segments
        if len(video_features) != len(audio_features) or len(video_features) < count:
            raise ValueError(
                f"DeSync needs the same number of segments of picture and of sound, at least {count} (4.8 s); "
                f"got {len(video_features)} and {len(audio_features)}"
            )
        video, audio = (
            torch.as_tensor(np.stack([x[:count], x[-count:]]), device=self.device)
            for x in (video_features, audio_features)
        )
        logits = self.network.head(video.float(), audio.float())  # (2, 21)
        return offset_grid()[logits.argmax(1).cpu()].numpy()


def load(info: BackboneInfo, paths: Sequence[Path], device: torch.device) -> SynchformerBackbone:
    return SynchformerBackbone(info, paths, device)
