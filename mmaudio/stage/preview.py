"""A contact sheet: what a clip looks like over time and around its events, in one picture."""

from pathlib import Path

import numpy as np

from .clip import StageClip
from .export import replacing, write_mp4

COLUMNS = 8
MOST_EVENTS = 12  # rows
GAP = 2  # pixels
EVENT, FRAME = (220, 30, 30), (0, 0, 0)


def write_preview(out: Path, clip: StageClip) -> Path:
    """Write the clip to `out` (mp4) and its contact sheet beside it as PNG; returns the sheet's path."""
    from PIL import Image

    write_mp4(out, clip)
    sheet = out.with_suffix(".png")
    with replacing(sheet) as temporary:
        Image.fromarray(contact_sheet(clip)).save(temporary)
    return sheet


def contact_sheet(clip: StageClip) -> np.ndarray:
    """Frames (H', W', 3) uint8: one row over the whole clip, then one around each event, its frame framed in red.

    Of many events, `MOST_EVENTS` evenly chosen ones are shown.
    """
    last = len(clip.video) - 1
    rows = [_row(clip, np.linspace(0, last, COLUMNS + 2)[1:-1].astype(int), None)]
    shown = sorted(set(np.linspace(0, len(clip.events) - 1, MOST_EVENTS).round().astype(int))) if clip.events else []
    for event in (clip.events[i] for i in shown):
        middle = min(round(event.time * clip.fps), last)
        rows.append(_row(clip, np.arange(COLUMNS) + middle - COLUMNS // 2, middle))
    return np.concatenate(rows)


def _row(clip: StageClip, indices: np.ndarray, marked: int | None) -> np.ndarray:
    """Frames side by side; those before the first and after the last are black."""
    cells = []
    for k in indices:
        inside = 0 <= k < len(clip.video)
        image = clip.video[k] if inside else np.zeros(clip.video.shape[1:], np.uint8)
        cells.append(_framed(image, EVENT if k == marked else FRAME))
    return np.concatenate(cells, axis=1)


def _framed(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    height, width = image.shape[:2]
    cell = np.full((height + 2 * GAP, width + 2 * GAP, 3), colour, np.uint8)
    cell[GAP:-GAP, GAP:-GAP] = image
    return cell
