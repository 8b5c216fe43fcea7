"""A part of a video as a file of its own."""

from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av

from mmaudio.media import MediaError
from mmaudio.media.container import exact
from mmaudio.media.encode import PictureTrack, open_output
from mmaudio.media.errors import atomic_path, media_errors
from mmaudio.media.pixels import FrameConverter
from mmaudio.media.video import frames_from

TIME_BASE = Fraction(1, 90_000)  # seconds; what MPEG counts in


def cut(source: Path, start: float, end: float, dest: Path, check: Callable[[], None]) -> None:
    """Write the pictures of a video that are shown in [start, end) seconds, encoded anew (H.264) and silent.

    check: called before every picture; raise from it to stop.

    Raises:
        MediaError: nothing can be decoded there, or `dest` cannot be written.
    """
    length, convert, damage = exact(end) - exact(start), FrameConverter(), []
    pictures = size = held = None
    frames = frames_from(source, exact(start), damage)
    with (
        closing(frames),
        media_errors(source, "read it"),
        atomic_path(dest) as temporary,
        open_output(temporary) as out,
    ):

        def write(frame: av.VideoFrame, since: Fraction, until: Fraction) -> None:
            nonlocal pictures, size
            size = size or (frame.width, frame.height)
            rgb = convert(frame, size).permute(1, 2, 0).numpy()  # (H, W, 3)
            if pictures is None:
                pictures = PictureTrack(out, temporary, rgb.shape[1], rgb.shape[0], TIME_BASE, still=False)
            pictures.write(pictures.prepare(rgb), since, min(until, length) - since)

        for time, shown, frame in frames:
            check()
            if held is not None and time > held[1]:
                write(*held, until=time)
                held = None
            if time >= length:
                break
            held, end_of_last = (frame, max(time, Fraction(0))), time + shown
        if held is not None and end_of_last > held[1]:
            write(*held, until=end_of_last)
        if pictures is None:
            raise MediaError(f"{source}: has no picture from {start:g} to {end:g} s; choose another part")
        pictures.finish()
