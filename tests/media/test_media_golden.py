"""Frames of the reference implementation: which ones are picked, and their pixels."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from mmaudio.features.frames import clip_frame, sync_frame, sync_normalize
from mmaudio.media import VideoFrames, read_image, read_video

DATA = Path(__file__).parent.parent / "data" / "media"
CASES = {
    "video_landscape_30fps": ("landscape_30fps.mp4", ("8", "3", "9.5")),
    "video_portrait_12fps": ("portrait_12fps.mp4", ("8", "3")),
    "video_25fps": ("square_25fps.mp4", ("8", "1.5")),
}
ATOL = {"frame_mean": 0.004, "downsampled_16x16": 0.012, "corner_8x8_of_picked": 0.04}
IMAGE_ATOL = {"downsampled_16x16": 0.008, "corner_8x8": 0.016}

cases = pytest.mark.parametrize(("case", "duration"), [(c, d) for c, (_, ds) in CASES.items() for d in ds])


@cache
def frames_of(case: str, duration: str) -> VideoFrames:
    path = DATA / CASES[case][0]
    return read_video(path, float(duration), clip_transform=clip_frame(384), sync_transform=sync_frame(224))


def expectation(case: str, duration: str) -> dict:
    return json.loads((DATA / "golden" / f"{case}.json").read_text())["durations"][duration]


@cases
def test_picked_frames_and_duration(case, duration):
    frames, expected = frames_of(case, duration), expectation(case, duration)
    assert frames.duration == pytest.approx(expected["returned_duration_sec"], rel=1e-9)
    assert list(frames.clip.shape) == expected["clip_shape"]
    assert list(frames.sync.shape) == expected["sync_shape"]
    assert [frames.source_fps.numerator, frames.source_fps.denominator] == expected["fps"]
    assert [frames.height, frames.width, 3] == expected["source_shape"]
    for index, key in ((frames.clip_index, "clip"), (frames.sync_index, "sync")):
        assert list(index) == expected[f"{key}_source_index_before_truncation"][: len(index)]


@cases
def test_pixels(case, duration):
    frames, expected = frames_of(case, duration), expectation(case, duration)
    stored = load_file(DATA / "golden" / f"{case}.safetensors")
    for name, x in (("clip", frames.clip.float() / 255), ("sync", sync_normalize(frames.sync))):
        picked = x[expected[f"{name}_picked_frames"]]
        ours = {
            "frame_mean": x.mean((1, 2, 3)),
            "downsampled_16x16": F.adaptive_avg_pool2d(picked, 16),
            "corner_8x8_of_picked": picked[..., :8, :8],
        }
        for key, value in ours.items():
            golden = stored[f"{duration}.{name}.{key}"]
            torch.testing.assert_close(value, golden, rtol=0, atol=ATOL[key], msg=lambda m, k=key: f"{k}: {m}")


def test_image_pixels():
    image = read_image(DATA / "still.png")
    stored = load_file(DATA / "golden" / "image.safetensors")
    clip, sync = clip_frame(384)(image)[None].float() / 255, sync_normalize(sync_frame(224)(image)[None])
    for name, x in (("clip", clip), ("sync", sync)):
        ours = {"downsampled_16x16": F.adaptive_avg_pool2d(x, 16), "corner_8x8": x[..., :8, :8]}
        for key, value in ours.items():
            torch.testing.assert_close(value, stored[f"{name}.{key}"], rtol=0, atol=IMAGE_ATOL[key])
