"""Decoded frames to RGB, upright, in the colours a screen shows."""

from contextlib import suppress

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

HDR_TRANSFERS = {16, 18}  # PQ (SMPTE 2084) and HLG (ARIB STD-B67) in FFmpeg's numbering
BT709 = 1  # FFmpeg's number for the BT.709 transfer curve and primaries alike


def quarter_turns(frame: av.VideoFrame) -> int:
    """How many counter-clockwise quarter turns the file asks for before the frame is shown (0 to 3)."""
    return round(frame.rotation / 90) % 4


def over_white(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 with alpha, laid over white: (H, W, 3) uint8."""
    alpha = rgba[..., 3:].astype(np.uint16)
    blended = (rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return blended.astype(np.uint8)


class FrameConverter:
    """Decoded frames to upright RGB. Keep one for a whole video: its tables for high dynamic range take seconds."""

    def __init__(self):
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame, size: tuple[int, int] | None = None) -> torch.Tensor:
        """RGB (3, H, W) uint8, turned upright; a view, so call .contiguous() where the order in memory matters.

        size: (width, height) as stored; a frame of another size is rescaled to it.
        High dynamic range is mapped to BT.709; transparent pixels show white.
        """
        width, height = size or (frame.width, frame.height)
        rgb = torch.from_numpy(self._array(frame, width, height)).permute(2, 0, 1)
        turns = quarter_turns(frame)
        return torch.rot90(rgb, turns, (1, 2)) if turns else rgb

    def _array(self, frame: av.VideoFrame, width: int, height: int) -> np.ndarray:  # (height, width, 3)
        convert = self._reformatter.reformat
        if frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components):
            return over_white(convert(frame, width, height, "rgba").to_ndarray())
        if frame.color_trc in HDR_TRANSFERS:
            with suppress(TypeError):  # PyAV before 17 cannot map tones: the picture comes out flat but usable
                sdr = {"dst_colorspace": "ITU709", "dst_color_trc": BT709, "dst_color_primaries": BT709}
                return convert(frame, width, height, "rgb24", **sdr).to_ndarray()
        return convert(frame, width, height, "rgb24").to_ndarray()
