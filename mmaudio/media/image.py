"""One picture from a file."""

import os
import struct
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from mmaudio.media.container import decode_frames, open_input, video_stream
from mmaudio.media.errors import MediaError, check_source, media_errors
from mmaudio.media.pixels import FrameConverter, over_white

# GIF is absent: an animation is a video, and FFmpeg tells. So is Pillow's MPEG plug-in, which cannot decode.
PICTURE_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
MAX_PIXELS = 150_000_000  # 450 MB as RGB; larger ones are attacks more often than photographs
PIL_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)


def picture_size(path: Path) -> tuple[int, int, str] | None:
    """(width, height, format) as displayed, from the header alone; None if it is not a still picture file.

    An animated WebP counts as a picture (its first frame), because FFmpeg does not decode it; an animated PNG is a
    video.
    """
    image = _open(path)
    if image is None:
        return None
    with image:
        if image.format == "PNG" and getattr(image, "is_animated", False):
            return None
        turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 swap the sides
        width, height = reversed(image.size) if turned else image.size
        return width, height, image.format


def read_image(path: str | os.PathLike) -> torch.Tensor:
    """A picture as uint8 RGB (3, H, W), turned as its EXIF orientation says.

    Transparent pixels show white, as on a page (dropping the alpha channel would show whatever colour hides there).
    16-bit grey is scaled to 8 bits. Of an animated picture or a video, the first frame is taken.
    Raises MediaError if there is no such picture, it is damaged, or it has more than MAX_PIXELS pixels.
    """
    path = check_source(path)
    image = _open(path)
    if image is None:
        return _first_frame(path)
    try:
        with image:
            return torch.from_numpy(_rgb(image)).permute(2, 0, 1).contiguous()  # (3, H, W)
    except PIL_ERRORS as error:
        raise MediaError(f"{path}: the picture is damaged ({error}); save or download it again") from error


def _open(path: Path) -> Image.Image | None:
    """The picture with only its header read; None if Pillow does not know the format."""
    Image.init()  # registers the formats this Pillow was built with
    try:
        image = Image.open(path, formats=[f for f in PICTURE_FORMATS if f in Image.OPEN])
    except Image.DecompressionBombError as error:
        raise MediaError(f"{path}: the picture is larger than {MAX_PIXELS:,} pixels; scale it down first") from error
    except Image.UnidentifiedImageError:
        return None
    except PIL_ERRORS as error:
        raise MediaError(f"{path}: cannot open the picture: {error}; save or download it again") from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise MediaError(f"{path}: the picture is larger than {MAX_PIXELS:,} pixels; scale it down first")
    return image


def _rgb(image: Image.Image) -> np.ndarray:  # (H, W, 3) uint8
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return over_white(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def _first_frame(path: Path) -> torch.Tensor:
    with open_input(path) as container, media_errors(path, "read it"):
        stream = video_stream(container)
        if stream is None or stream.codec_context is None:
            raise MediaError(f"{path}: holds no picture; give a PNG, JPEG, WebP or GIF file, or a video")
        frames = list(islice(decode_frames(container, stream, []), 1))
        if not frames:
            raise MediaError(f"{path}: its picture cannot be decoded; it is damaged or cut off")
        return FrameConverter()(frames[0]).contiguous()
