"""Pictures that have to be encoded: stills and animations become videos with sound."""

import os
from fractions import Fraction

import numpy as np
import torch
from PIL import Image

from mmaudio.media.container import fraction, open_input, timed_frames, video_stream
from mmaudio.media.encode import MuxResult, PictureTrack, as_samples, audio_track, destination, open_output
from mmaudio.media.errors import MediaError, atomic_path
from mmaudio.media.image import read_image
from mmaudio.media.pixels import FrameConverter

STILL_FPS = 25  # players and upload sites refuse or stutter on lower rates; repeated pictures cost almost nothing
MAX_STILL_SIDE = 1920  # pixels; larger pictures are scaled down, because H.264 decoders stop at 4096


def still_video(
    image: str | os.PathLike | torch.Tensor,
    audio: torch.Tensor | np.ndarray,
    sample_rate: int,
    dest: str | os.PathLike,
    *,
    fps: int = STILL_FPS,
    overwrite: bool = True,
) -> MuxResult:
    """One picture, a file or uint8 (3, H, W), shown for as long as the audio lasts (H.264, or VP9 in WebM).

    Odd sides grow by a repeated pixel; a side over MAX_STILL_SIDE pixels scales the picture down. The last picture
    ends with the sound rounded up to 1/fps. Raises MediaError as `mux` does.
    """
    dest = destination(None if isinstance(image, torch.Tensor) else image, dest)
    samples = as_samples(audio, dest)
    picture = image if isinstance(image, torch.Tensor) else read_image(image)
    rgb, notes = _fitted(picture.permute(1, 2, 0).contiguous().cpu().numpy())  # (H, W, 3)
    period = Fraction(1, fps)
    count = -(-samples.shape[1] * fps // sample_rate)  # rounded up
    with atomic_path(dest, overwrite) as temporary, open_output(temporary) as out:
        pictures = PictureTrack(out, temporary, rgb.shape[1], rgb.shape[0], period, still=True)
        sound = audio_track(out, temporary, samples, sample_rate)
        frame = pictures.prepare(rgb)
        for n in range(count):
            sound.write(until=n * period)
            pictures.write(frame, n * period, period)
        pictures.finish()
        sound.write(until=count * period)
        sound.finish()
    return MuxResult(dest, False, ("a still picture was encoded as a video", *notes))


def encode_animation(
    source: str | os.PathLike, samples: np.ndarray, sample_rate: int, path: os.PathLike, limit: Fraction | None
) -> list[str]:
    """Encode a GIF's frames, at their own times, beside sound (C, N) of the same length; returns notes."""
    damage: list[str] = []
    convert = FrameConverter()
    pictures = sound = None
    end = Fraction(0)
    with open_input(source) as container, open_output(path) as out:
        stream = video_stream(container)
        for time, shown, frame in timed_frames(container, stream, damage):
            if limit is not None and time >= limit:
                break
            rgb = convert(frame).permute(1, 2, 0).numpy()  # (H, W, 3)
            if pictures is None:
                base = fraction(stream.time_base)
                pictures = PictureTrack(out, path, rgb.shape[1], rgb.shape[0], base, still=False)
                sound = audio_track(out, path, samples, sample_rate)
            shown = shown if limit is None else min(shown, limit - time)
            end = time + shown
            sound.write(until=time)
            pictures.write(pictures.prepare(rgb), time, shown)
        if pictures is None:
            raise MediaError(f"{source}: none of its pictures can be decoded; it is damaged")
        pictures.finish()
        sound.write(until=end)
        sound.finish()
    notes = ["the animation was encoded anew as a video"]
    return [*notes, f"{len(damage)} damaged part(s) were skipped"] if damage else notes


def _fitted(rgb: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(H, W, 3) scaled down if a side exceeds MAX_STILL_SIDE; and a note if so."""
    height, width = rgb.shape[:2]
    if max(height, width) <= MAX_STILL_SIDE:
        return rgb, []
    scale = MAX_STILL_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    scaled = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))
    return scaled, [f"the picture was scaled down from {width}x{height} to {size[0]}x{size[1]}"]
