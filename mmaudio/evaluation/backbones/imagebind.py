"""ImageBind huge (Girdhar et al., 2023) through an installed package: its licence forbids commercial use.

Only the network is the package's; pictures and sound are prepared here, as the published figures do it.
"""

import sys
import types
from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio.evaluation.backbones.loading import Loaded
from mmaudio.evaluation.backbones.sound import resample
from mmaudio.evaluation.backbones.table import BackboneInfo
from mmaudio.features.frames import clip_normalize, short_side_frame
from mmaudio.media import MediaError
from mmaudio.media.container import open_input, timed_frames, video_stream
from mmaudio.media.errors import media_errors
from mmaudio.media.picking import Nearest
from mmaudio.media.pixels import FrameConverter
from mmaudio.weights import load_strict, read_state

SAMPLE_RATE = 16_000
CLIPS, CLIP_SECONDS = 3, 2
WINDOW = 400  # samples of the spectrogram's window
MELS, MEL_FRAMES = 128, 204
MEL_MEAN, MEL_RANGE = -4.268, 9.138
FPS = Fraction(1, 2)
FRAME_SIZE = 224
CLIP_FRAMES = 2
MODALITIES = ("vision", "audio")


# ---- sound --------------------------------------------------------------------------------------------------------


def sample_ranges(count: int) -> list[tuple[int, int]]:
    """(first, end) of three clips of 2 s, evenly spread over so many samples at 16 kHz; all of it if that is shorter.

    [quirk] the spacing is computed from the length as a double and cut to whole samples: one sample early at 5.1 s.
    """
    spacing = Fraction(max(count / SAMPLE_RATE - CLIP_SECONDS, 0.0)) / (CLIPS - 1)
    starts = [i * spacing for i in range(CLIPS)]
    return [
        (int(start * SAMPLE_RATE), min(int((start + CLIP_SECONDS) * SAMPLE_RATE), count)) for start in starts
    ]  # fmt: skip


def fbank_clips(samples: Tensor) -> Tensor:
    """(C, N) at 16 kHz to normalised log-mel clips (3, 1, 128, 204) of the first channel.

    Raises:
        ValueError: shorter than one window.
    """
    from torchaudio.compliance.kaldi import fbank  # slow to import

    if samples.shape[1] < WINDOW:
        raise ValueError(f"ImageBind needs at least {WINDOW} samples at 16 kHz, got {samples.shape[1]}")
    samples, clips = samples.clone(), []
    for first, end in sample_ranges(samples.shape[1]):
        # [quirk] in place: where clips overlap, the later one starts from samples that are shifted already
        clip = samples[:, first:end]
        clip -= clip.mean()
        mel = fbank(
            clip, htk_compat=True, sample_frequency=SAMPLE_RATE, use_energy=False, window_type="hanning",
            num_mel_bins=MELS, dither=0.0,
        ).T[:, :MEL_FRAMES]  # fmt: skip
        clips.append(F.pad(mel, (0, MEL_FRAMES - mel.shape[1])))  # [quirk] before the normalisation: no silence
    return (torch.stack(clips).unsqueeze(1) - MEL_MEAN) / MEL_RANGE


# ---- pictures -----------------------------------------------------------------------------------------------------


def read_frames(path: Path, duration: float) -> Tensor:
    """uint8 (T, 3, h, w) at half a frame a second, T = int(duration / 2), the shorter side 224.

    Raises:
        MediaError: the file cannot be read.
        ValueError: it has fewer frames, or `duration` asks for fewer than two.
    """
    needed = int(FPS * Fraction(duration))
    if needed < CLIP_FRAMES:
        raise ValueError(f"ImageBind needs at least {CLIP_FRAMES / float(FPS):g} s of pictures, got {duration:g}")
    picker, resize, convert = Nearest(FPS), short_side_frame(FRAME_SIZE), FrameConverter()
    shown, before, end, size = [], None, Fraction(0), None
    with media_errors(path, "decode it"), open_input(path) as container:
        stream = video_stream(container)
        if stream is None:
            raise MediaError(f"{path}: has no video stream; give a video")
        for time, length, frame in timed_frames(container, stream, []):
            shown += [before] * picker.offer(time)[0]
            if len(shown) >= needed:
                break
            size = size or (frame.width, frame.height)
            before, end = frame, time + length
        else:
            shown += [before] * picker.finish(end)
        if len(shown) < needed:
            raise ValueError(f"has {len(shown)} pictures at {float(FPS):g} fps, ImageBind needs {needed}")
        return torch.stack([resize(convert(frame, size).contiguous()) for frame in shown[:needed]])


def crop_corners(height: int, width: int) -> list[tuple[int, int]]:
    """(top, left) of the three squares along the longer side."""
    room = max(height, width) - FRAME_SIZE
    offsets = (0, ceil(room / 2), room)
    return [(offset, 0) if height > width else (0, offset) for offset in offsets]


def frame_clips(frames: Tensor) -> Tensor:
    """uint8 (T, 3, h, w), the shorter side 224, to normalised clips (3 (T - 1), 3, 2, 224, 224).

    Each is two frames in a row of one crop; crops change fastest.
    """
    pictures = clip_normalize(frames)
    crops = [
        pictures[..., top : top + FRAME_SIZE, left : left + FRAME_SIZE]
        for top, left in crop_corners(*frames.shape[-2:])
    ]
    return torch.stack(
        [crop[i : i + CLIP_FRAMES].transpose(0, 1) for i in range(len(frames) - CLIP_FRAMES + 1) for crop in crops]
    )


# ---- the network --------------------------------------------------------------------------------------------------


def build_network() -> nn.Module:
    """The package's network, pictures and sound only."""
    # The package imports its own preprocessing first, which needs libraries that no longer work and is not used here.
    sys.modules.setdefault("imagebind.data", types.ModuleType("imagebind.data"))
    from imagebind.models.imagebind_model import ImageBindModel

    network = ImageBindModel(  # "huge"; what hears text, depth, heat and motion is not built
        vision_embed_dim=1280,
        vision_num_blocks=32,
        vision_num_heads=16,
        out_embed_dim=1024,
        **{f"{other}_num_blocks": 0 for other in ("text", "depth", "thermal", "imu")},
    )
    for part in network.children():
        for modality in set(part) - set(MODALITIES):
            del part[modality]
    return network.eval().requires_grad_(False)


def wanted_key(key: str) -> str | None:
    return key if key.split(".")[1] in MODALITIES else None


class ImageBind(Loaded):
    def __init__(self, info: BackboneInfo, paths: Sequence[Path], device: torch.device):
        super().__init__(info, paths, device)
        network = build_network()  # its code cannot be run on the meta device
        load_strict(network, read_state(paths[0]), source=paths[0], rename=wanted_key)
        self.network = network.to(device)

    def audio(self, samples: Tensor, sample_rate: int, duration: float) -> dict[str, np.ndarray]:
        """{"embedding": (1024,)} of three clips over the whole file: `duration` does not matter, as published.

        Raises:
            ValueError: under 25 ms, or a sample rate that cannot be resampled.
        """
        wave = resample(samples, sample_rate, SAMPLE_RATE)
        return self._embed("audio", fbank_clips(wave))

    def video(self, path: Path, duration: float) -> dict[str, np.ndarray]:
        """{"embedding": (1024,)}.

        Raises:
            MediaError: the file cannot be read.
            ValueError: shorter than `duration`, or `duration` under 4 s.
        """
        return self._embed("vision", frame_clips(read_frames(path, duration)))

    @torch.inference_mode()
    def _embed(self, modality: str, clips: Tensor) -> dict[str, np.ndarray]:
        found = self.network({modality: clips[None].to(self.device)})  # the mean over clips of their embeddings
        return {"embedding": found[modality][0].cpu().numpy()}


def load(info: BackboneInfo, paths: Sequence[Path], device: torch.device) -> ImageBind:
    return ImageBind(info, paths, device)
