"""Stage clips as files: mp4 with sound, a contact sheet, and a folder for training or evaluation."""

import os
import tempfile
from collections.abc import Iterable
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .clip import StageClip, render_clip

SHEET_COLUMNS = 8
SHEET_GAP = 2  # pixels


@contextmanager
def replacing(path: Path):
    """A temporary name beside `path` that takes its place only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)  # mkstemp makes files private
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def write_mp4(path: str | Path, clip: StageClip) -> None:
    """Write picture (H.264) and sound (AAC) of a clip; one without sound becomes a silent video.

    Odd heights and widths lose their last row or column.
    """
    import av

    height, width = (extent // 2 * 2 for extent in clip.video.shape[1:3])
    rate = Fraction(clip.fps).limit_denominator(1001)
    with replacing(Path(path)) as temporary, av.open(str(temporary), "w") as container:
        picture = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        sound = container.add_stream("aac", rate=clip.sample_rate, layout="mono") if len(clip.audio) else None
        for image in clip.video:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        if sound is None:
            return
        samples = av.AudioFrame.from_ndarray(clip.audio[None], format="fltp", layout="mono")
        samples.sample_rate, samples.pts = clip.sample_rate, 0
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))


def contact_sheet(clip: StageClip) -> np.ndarray:
    """Frames around contacts (H', W', 3) uint8: one row per contact, the frame of the contact framed in red."""
    height, width = clip.video.shape[1:3]
    before = SHEET_COLUMNS // 2
    rows = []
    for event in clip.events:
        middle = round(event.time * clip.fps)
        row = []
        for k in range(middle - before, middle - before + SHEET_COLUMNS):
            cell = np.zeros((height + 2 * SHEET_GAP, width + 2 * SHEET_GAP, 3), np.uint8)
            if k == middle:
                cell[:] = (220, 30, 30)
            cell[SHEET_GAP:-SHEET_GAP, SHEET_GAP:-SHEET_GAP] = clip.video[np.clip(k, 0, len(clip.video) - 1)]
            row.append(cell)
        rows.append(np.concatenate(row, axis=1))
    return np.concatenate(rows)


def write_preview(out: Path, clip: StageClip) -> Path:
    """Write the clip to `out` and its contact sheet beside it as PNG; returns the sheet's path."""
    from PIL import Image

    write_mp4(out, clip)
    sheet = out.with_suffix(".png")
    with replacing(sheet) as temporary:
        Image.fromarray(contact_sheet(clip)).save(temporary)
    return sheet


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def event_lines(clip: StageClip) -> str:
    """One contact a line: seconds, material, kind; the layout of the Greatest Hits annotations."""
    return "".join(f"{event.time:.6f} {event.material} {event.kind}\n" for event in clip.events)


def export(seeds: Iterable[int], folder: Path, *, prefix: str, overwrite: bool = False, **options) -> list[str]:
    """Write `<id>.mp4` and `events/<id>_times.txt` per seed and `captions.tsv` last; returns the ids.

    `options` go to `render_clip`. Refuses to touch files that exist unless `overwrite`.
    """
    seeds = list(seeds)
    ids = [f"{prefix}_{seed:07d}" for seed in seeds]
    table = folder / "captions.tsv"
    wanted = (
        [table] + [folder / f"{name}.mp4" for name in ids] + [folder / "events" / f"{name}_times.txt" for name in ids]
    )
    existing = [path for path in wanted if path.exists()]
    if existing and not overwrite:
        raise FileExistsError(f"{existing[0]} exists: pass --overwrite or choose another folder")
    lines = ["id\tpath\tcaption\n"]
    for seed, name in zip(tqdm(seeds, desc="clips", unit="clip", disable=None), ids, strict=True):
        clip = render_clip(seed, **options)
        write_mp4(folder / f"{name}.mp4", clip)
        write_text(folder / "events" / f"{name}_times.txt", event_lines(clip))
        lines.append(f"{name}\t{name}.mp4\t{clip.caption}\n")
    write_text(table, "".join(lines))
    return ids
