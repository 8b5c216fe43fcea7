"""Stage clips as files: one mp4, or a data set with its ground truth.

A data set grows clip by clip. `ground_truth/<id>.json` is written after the other files of a clip and says that it is
complete; the tables beside the folders are made of these files in the end.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .clip import StageClip, render_clip
from .scene import STAGE_VERSION, Event

SETTINGS = "stage.json"
# As in mmaudio.media.encode, which would load torch into every rendering process.
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)


@contextmanager
def replacing(path: Path):
    """A temporary name beside `path` that takes its place only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")  # always the same: a killed run leaves no more
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_mp4(path: str | Path, clip: StageClip) -> None:
    """Write picture (H.264) and sound (AAC) of a clip; one without sound becomes a silent video.

    Odd heights and widths lose their last row or column.

    Raises:
        ValueError: AAC has no such sample rate.
    """
    import av

    if len(clip.audio):
        _check_rate(clip.sample_rate)
    height, width = (extent // 2 * 2 for extent in clip.video.shape[1:3])
    rate = Fraction(clip.fps).limit_denominator(1001)
    with replacing(Path(path)) as temporary, av.open(str(temporary), "w") as container:
        picture = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        picture.thread_count = 1  # the same file on any number of cores
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


def _check_rate(sample_rate: int) -> None:
    if sample_rate not in AAC_RATES:
        rates = ", ".join(map(str, AAC_RATES))
        raise ValueError(f"the sound of a video cannot have sample_rate={sample_rate}: expected one of {rates}")


def export(
    seeds: Iterable[int],
    folder: Path,
    *,
    split: str,
    workers: int = 1,
    audio_only: bool = False,
    stems: bool = False,
    **rendering,
) -> list[str]:
    """Write clips, or go on writing them: clips of the folder that are complete are kept. Returns the ids.

    `video/<id>.mp4` or, with `audio_only`, `audio/<id>.flac`; `events/<id>_times.txt` with the impacts in the layout of
    Greatest Hits; with `stems`, `stems/<id>/<source>.flac`. Of all complete clips in the folder: `manifest.tsv` (what
    feature extraction takes), `captions.tsv`, `vggsound.csv` and `ground_truth.jsonl`.

    Args:
        split: names the clips and their part in `vggsound.csv`.
        workers: processes. More than one need a main module that can be imported.
        rendering: goes to `render_clip`.

    Raises:
        ValueError: unfit rendering arguments, or the folder holds clips of other ones or of another STAGE_VERSION.
    """
    seeds, folder = list(seeds), Path(folder)
    for seed in seeds[:1]:  # before anything is written: are the arguments fit?
        fit = render_clip(seed, video=False, audio=False, **rendering)
        if not audio_only:
            _check_rate(fit.sample_rate)
    settings = {"stage_version": STAGE_VERSION, "split": split, "audio_only": audio_only, "stems": stems, **rendering}
    _claim(folder, settings)
    names = {seed: f"{split}_{seed:07d}" for seed in seeds}
    todo = [seed for seed in seeds if not _complete(folder, names[seed])]
    write = partial(_write_clip, folder, split, audio_only, stems, rendering)
    with tqdm(total=len(seeds), initial=len(seeds) - len(todo), desc=split, unit="clip", disable=None) as bar:
        for _ in _each(write, todo, workers):
            bar.update()
    _write_tables(folder)
    return list(names.values())


def _claim(folder: Path, settings: dict) -> None:
    """Note down what the clips of a folder are like, or make sure that it is the same."""
    path = folder / SETTINGS
    wanted = json.loads(json.dumps(settings))  # as it is read back
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                raise ValueError(
                    f"{folder} holds clips of {name} {found.get(name)}, not {wanted.get(name)}: choose another folder"
                )
    elif folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise ValueError(f"{folder} holds other files (there is no {SETTINGS}): choose another folder")
    else:
        _write_text(path, json.dumps(wanted, indent=2) + "\n")


def _each(write: Callable, seeds: list[int], workers: int) -> Iterator[None]:
    if workers <= 1 or len(seeds) <= 1:
        yield from map(write, seeds)
        return
    with ProcessPoolExecutor(min(workers, len(seeds)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(write, seeds)


# ---- one clip


def _write_clip(folder: Path, split: str, audio_only: bool, stems: bool, rendering: dict, seed: int) -> None:
    clip, name = render_clip(seed, video=not audio_only, **rendering), f"{split}_{seed:07d}"
    media = f"audio/{name}.flac" if audio_only else f"video/{name}.mp4"
    if audio_only:
        _write_flac(folder / media, clip.audio, clip.sample_rate)
    else:
        write_mp4(folder / media, clip)
    _write_text(folder / "events" / f"{name}_times.txt", event_lines(clip))
    files = {source: f"stems/{name}/{source.replace(' ', '_')}.flac" for source in clip.stems} if stems else {}
    for source, path in files.items():
        _write_flac(folder / path, clip.stems[source], clip.sample_rate)
    truth = {"id": name, "path": media, "split": split, **ground_truth(clip), "stems": files}
    _write_text(folder / "ground_truth" / f"{name}.json", json.dumps(truth) + "\n")


def _complete(folder: Path, name: str) -> bool:
    """Whether all files of a clip are there."""
    record = folder / "ground_truth" / f"{name}.json"
    if not record.exists():
        return False
    truth = json.loads(record.read_text(encoding="utf-8"))
    files = [truth["path"], f"events/{name}_times.txt", *truth["stems"].values()]
    return all((folder / path).exists() for path in files)


def event_lines(clip: StageClip) -> str:
    """One impact a line: seconds, material, kind and "None", as Greatest Hits has time, material, action, reaction.

    What lasts has no onset that could be measured, and is left to the ground truth.
    """
    impacts = [event for event in clip.events if event.seconds == 0]
    return "".join(f"{event.time:.6f} {event.material} {event.kind} None\n" for event in impacts)


def ground_truth(clip: StageClip) -> dict:
    """All that is known about a clip, ready for JSON. `rms` and `peak` are of the whole sound, full scale is 1."""
    return {
        "stage_version": STAGE_VERSION,
        "seed": clip.seed,
        "family": clip.family,
        "kinds": clip.kinds,
        "materials": clip.materials,
        "sound_classes": sorted({sound_class(event) for event in clip.events}),
        "duration": clip.scene.duration,
        "rms": round(float(np.sqrt(np.mean(clip.audio**2))), 6),
        "peak": round(float(np.abs(clip.audio).max()), 6),
        "caption": clip.caption,
        "captions": asdict(clip.captions),
        "negative": clip.negative,
        "events": [asdict(event) for event in clip.events],
    }


def sound_class(event: Event) -> str:
    """Kind and material: "bounce wood", "rain"."""
    return event.kind if event.material is None else f"{event.kind} {event.material}"


# ---- the tables


def _write_tables(folder: Path) -> None:
    """Of all complete clips in the folder, by id."""
    truths = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "ground_truth").glob("[!.]*"))]
    manifest = [("id", "path", "caption"), *((t["id"], t["path"], t["caption"]) for t in truths)]
    levels = [(t["id"], *t["captions"].values(), t["negative"]) for t in truths]
    captions = [("id", "tag", "sentence", "detail", "negative"), *levels]
    _write_text(folder / "manifest.tsv", "".join("\t".join(row) + "\n" for row in manifest))
    _write_text(folder / "captions.tsv", "".join("\t".join(row) + "\n" for row in captions))
    _write_text(folder / "vggsound.csv", "".join(_vggsound_line(truth) for truth in truths))
    _write_text(folder / "ground_truth.jsonl", "".join(json.dumps(truth) + "\n" for truth in truths))


def _vggsound_line(truth: dict) -> str:
    """Id, first second, label and part, as VGGSound has them: without a header, and with two parts."""
    part = "train" if truth["split"].startswith("train") else "test"
    return f'{truth["id"]},0,"{", ".join(truth["kinds"]) or "silence"}",{part}\n'


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _write_flac(path: Path, audio: np.ndarray, sample_rate: int) -> None:
    import soundfile

    with replacing(path) as temporary:
        soundfile.write(temporary, audio, sample_rate, format="FLAC", subtype="PCM_24")
