"""Evaluation sets as they are published: a table, and media beside it, to one list of clips.

Whether the media are there and sound is found out clip by clip, and reported: of VGGSound hardly anybody has all.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmaudio import tables
from mmaudio.data.manifest import MAX_ID
from mmaudio.evaluation.cache import wait_until_done
from mmaudio.media.audio import AAC_WRITES, SOUNDFILE_SUFFIXES
from mmaudio.media.probe import VIDEO_SUFFIXES
from mmaudio.stage import Event, split_seeds
from mmaudio.stage.export import export

AUDIO_SUFFIXES = frozenset((*SOUNDFILE_SUFFIXES, *AAC_WRITES, ".opus"))
MEDIA_FOLDERS = ("", "video", "videos", "audio", "audios", "test")  # where media lie, seen from the table
STAGE_SPLIT, STAGE_RATE = "test", 44_100  # and Hz of the true sound
RENDERING = 600.0  # seconds that a Stage clip may take on another rank
RENDERERS_FROM = 16  # fewer clips are rendered before other processes have begun


class DatasetError(ValueError):
    """A set cannot be used. One line: file, line, got, expected."""


@dataclass(frozen=True)
class Clip:
    """A clip to be judged by."""

    id: str  # unique in its set, fit to be a file name
    caption: str = ""
    video: Path | None = None  # None: sound is made from words alone
    reference: Path | None = None  # the true sound, an audio or video file
    times: tuple[float, ...] | None = None  # seconds of sharp events; None where they are not known
    kind: str | None = None  # the class that scores are sorted by
    labels: tuple[str, ...] = ()  # what the Stage's judge should hear


def read_dataset(
    name: str, folder: Path | None, *, duration: float, count: int | None, size: int = 224, render: bool = True
) -> list[Clip]:
    """The clips of a set: a name of `DATASETS`, "stage", or a CSV file with columns id, path and caption.

    Args:
        folder: where table and media are; the Stage is rendered there.
        count: the first so many clips; None is all.
        size: pixels of Stage clips.
        render: False: wait until another rank has rendered the Stage's clips.

    Raises:
        DatasetError: a table is missing, truncated or not what it should be.
        ValueError: the Stage's folder holds other clips.
    """
    if count is not None and count < 1:
        raise DatasetError(f"at least 1 clip is needed, got {count}")
    if name not in (*DATASETS, "stage"):
        if not name.lower().endswith(".csv"):
            known = ", ".join((*DATASETS, "stage"))
            raise DatasetError(f"unknown dataset {name!r}: expected one of {known}, or a .csv file")
        clips = read_csv(Path(name))
    elif folder is None:
        raise DatasetError(f"where is {name}? give the folder of its table and media with --data")
    elif name == "stage":
        clips = read_stage(folder, duration, count, size, render)
    else:
        clips = DATASETS[name](Path(folder))
    if repeated := [name for name, number in Counter(clip.id for clip in clips).items() if number > 1]:
        raise DatasetError(f"{folder or name}: lists {repeated[0]!r} more than once")
    if not clips:
        raise DatasetError(f"{folder or name}: lists no clips")
    return clips[:count]


# ---- the published layouts


def read_vggsound(folder: Path) -> list[Clip]:
    """`vggsound.csv` (YouTube id, first second, label, part; no header), media called ID_SSSSSS or ID; test only."""
    path, clips = folder / "vggsound.csv", []
    find = media_of(folder)
    for where, fields in table_lines(path):
        if len(fields) != 4 or fields[3] not in ("train", "test"):
            raise DatasetError(f"{where}: expected id, second, label and train or test, got {fields[:5]}")
        if fields[3] == "test":
            video_id = safe_id(fields[0], where)
            name = f"{video_id}_{second(fields[1], where):06d}"
            file = find(name, video_id) or folder / f"{name}.mp4"
            clips.append(Clip(name, fields[2], file, file, kind=fields[2]))
    return clips


def read_audiocaps(folder: Path) -> list[Clip]:
    """`test.csv` (audiocap_id, youtube_id, start_time, caption), sounds called [Y]ID_SSSSSS, [Y]ID or the audiocap_id.

    Every caption is a clip of its own, called YID_SSSSSS_k; sound is made from it alone, as for the published figures.
    """
    path, clips, seen = folder / "test.csv", [], Counter()
    find = media_of(folder)
    for where, row in table_rows(path, ("audiocap_id", "youtube_id", "start_time", "caption")):
        youtube_id = safe_id(row["youtube_id"], where)
        start = second(row["start_time"], where)
        name = f"{youtube_id}_{start:06d}"
        file = find(name, f"Y{name}", youtube_id, f"Y{youtube_id}", row["audiocap_id"]) or folder / f"{name}.wav"
        clips.append(Clip(f"Y{name}_{seen[name]}", row["caption"], None, file))
        seen[name] += 1
    return clips


def read_moviegen(folder: Path) -> list[Clip]:
    """JSON lines with "audio_prompt" (or "caption", "prompt"), in one file, or one file a clip; videos beside them.

    The video is named by "video", "file_name" or "id", in a file with one line by the file itself. There is no true
    sound.
    """
    find, clips = media_of(folder), []
    tables = sorted(path for sub in ("", "jsonl", "metadata") for path in (folder / sub).glob("*.jsonl"))
    if not tables:
        raise DatasetError(f"{folder}: has no .jsonl file, there or in jsonl/ or metadata/")
    for path in tables:
        lines = [(f"{path}, line {i}", line) for i, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]
        for where, line in lines:
            try:
                facts = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"{where}: is no JSON ({error})") from error
            caption = _text(facts, "audio_prompt", "caption", "prompt")
            name = _text(facts, "video", "file_name", "id") or (path.stem if len(lines) == 1 else None)
            if caption is None or name is None:
                raise DatasetError(f"{where}: must have audio_prompt, and in a file of several lines video or id")
            if any(0xD800 <= ord(character) < 0xE000 for character in caption):
                raise DatasetError(f"{where}: audio_prompt is no text: it has half a character")
            name = safe_id(Path(name).stem if Path(name).suffix.lower() in VIDEO_SUFFIXES else name, where)
            clips.append(Clip(name, caption, find(name) or folder / f"{name}.mp4"))
    return clips


def _text(facts: object, *names: str) -> str | None:
    """The first of these fields that is there, as text."""
    if not isinstance(facts, dict):
        return None
    return next((str(facts[name]) for name in names if isinstance(facts.get(name), str | int)), None)


def read_greatest_hits(folder: Path) -> list[Clip]:
    """`ID_times.txt` (seconds, material, action, reaction), media called ID_denoised or ID_mic; `test.txt`: ids.

    There are no captions: sound is made from the video alone. The Stage's export has its tables in `events/`.
    """
    find, clips = media_of(folder), []
    listed = folder / "test.txt"
    names = read_text(listed).split() if listed.exists() else None
    folders = [folder / name for name in (*MEDIA_FOLDERS, "events")]
    tables = {path.stem.removesuffix("_times"): path for sub in folders for path in sub.glob("*_times.txt")}
    if not tables:
        raise DatasetError(f"{folder}: has no *_times.txt")
    for name in sorted(tables) if names is None else names:
        name = safe_id(name, listed)
        if name not in tables:
            raise DatasetError(f"{listed}: names {name!r}, but there is no {name}_times.txt")
        stems = [name + suffix for suffix in ("_denoised", "_mic", "")]
        video = find(*stems, suffixes=VIDEO_SUFFIXES) or folder / f"{stems[0]}.mp4"
        sound = find(*stems, suffixes=AUDIO_SUFFIXES) or video
        clips.append(Clip(name, "", video, sound, read_times(tables[name])))
    return clips


def read_times(path: Path) -> tuple[float, ...]:
    """The first number of each line, seconds."""
    times = []
    for i, line in enumerate(read_text(path).splitlines(), 1):
        if words := line.split():
            times.append(_number(words[0], f"{path}, line {i}"))
    return tuple(sorted(times))


def read_stage(folder: Path, duration: float, count: int | None, size: int, render: bool = True) -> list[Clip]:
    """Foley Stage clips of the test split, rendered into the folder; those that are there are kept.

    Only clips whose every event is sharp and seen have times: a lasting sound is full of onsets of its own.
    """
    if count is None:
        raise DatasetError("the Stage has any number of clips: say how many with --count")
    seeds, rendering = split_seeds(STAGE_SPLIT, count), {"size": size, "sample_rate": STAGE_RATE}
    names = [f"{STAGE_SPLIT}_{seed:07d}" for seed in seeds]
    if render:
        workers = (os.cpu_count() or 1) if count >= RENDERERS_FROM else 1
        export(seeds, folder, split=STAGE_SPLIT, workers=workers, duration=float(duration), **rendering)
    else:
        truths = folder / "ground_truth"
        wait_until_done(lambda: [n for n in names if not (truths / f"{n}.json").exists()], RENDERING, "Stage clips")
    return [_stage_clip(folder, name) for name in names]


def _stage_clip(folder: Path, name: str) -> Clip:
    truth = json.loads(read_text(folder / "ground_truth" / f"{name}.json"))
    events = [Event(**event) for event in truth["events"]]
    sharp = bool(events) and all(event.sharp for event in events)
    times = tuple(event.time for event in events) if sharp else None
    file = folder / truth["path"]
    labels = (*truth["kinds"], *truth["materials"])
    return Clip(name, truth["caption"], file, file, times, truth["family"] or "silence", labels)


def read_csv(path: Path) -> list[Clip]:
    """Columns id and path, optionally caption: a video (its own sound is the reference) or a sound file.

    An empty path is a clip of words alone, without a reference.
    """
    clips = []
    for where, row in table_rows(path, ("id", "path"), ("caption",)):
        file = path.parent / row["path"] if row["path"] else None
        video = file if file is not None and file.suffix.lower() not in AUDIO_SUFFIXES else None
        clips.append(Clip(safe_id(row["id"], where), row.get("caption", ""), video, file))
    return clips


DATASETS: dict[str, Callable[[Path], list[Clip]]] = {
    "vggsound": read_vggsound,
    "audiocaps": read_audiocaps,
    "moviegen": read_moviegen,
    "greatest_hits": read_greatest_hits,
}


# ---- captions of a folder's clips


def read_captions(path: Path) -> dict[str, str]:
    """A CSV with columns name (or id) and caption, tab-separated if it is called .tsv. Of several the first counts."""
    found: dict[str, str] = {}
    for where, row in table_rows(path, ("caption",), ("name", "id")):
        name = row.get("name") or row.get("id")
        if not name:
            raise DatasetError(f"{where}: expected a column name or id, with something in it")
        found.setdefault(name, row["caption"])
    if not found:
        raise DatasetError(f"{path}: lists no captions")
    return found


# ---- tables


def read_text(path: Path) -> str:
    try:
        return tables.read_text(path)
    except OSError as error:
        raise DatasetError(f"{path}: cannot read ({error.strerror})") from error
    except ValueError as error:
        raise DatasetError(str(error)) from error


def table_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(Where it stands, fields) of every line that is not empty."""
    text = read_text(path)
    try:
        for line, fields in tables.table_lines(path, text):
            yield f"{path}, line {line}", fields
    except ValueError as error:
        raise DatasetError(str(error)) from error


def table_rows(path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[tuple[str, dict]]:
    """(Where it stands, column to field) of every line below the header."""
    header = None
    for where, fields in table_lines(path):
        if header is None:
            header = fields
            if any(header.count(name) != 1 for name in required) or any(header.count(name) > 1 for name in optional):
                raise DatasetError(f"{path}: the first line must name {', '.join(required)}, got {header[:5]}")
        elif len(fields) != len(header):
            raise DatasetError(f"{where}: has {len(fields)} fields, the header has {len(header)}")
        else:
            yield where, dict(zip(header, fields, strict=True))


def safe_id(name: str, where: object) -> str:
    """`name`, if it can be a file name."""
    if not name or not name.isprintable() or any(c in name for c in "/\\") or name.startswith("."):
        raise DatasetError(f"{where}: id {name[:40]!r} cannot be a file name")
    if len(name.encode()) > MAX_ID:
        raise DatasetError(f"{where}: id {name[:20]!r}... is longer than {MAX_ID} bytes")
    return name


def second(text: str, where: object) -> int:
    return int(_number(text, where))


def _number(text: str, where: object) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and 0 <= value < 1e6):
        raise DatasetError(f"{where}: expected seconds, zero or more, got {text[:20]!r}")
    return value


def media_of(folder: Path) -> Callable[..., Path | None]:
    """A function from stems to the first file there is, in `MEDIA_FOLDERS`; videos come before sounds."""
    files: dict[str, list[Path]] = {}
    for path in (path for sub in MEDIA_FOLDERS if (folder / sub).is_dir() for path in sorted((folder / sub).iterdir())):
        if path.suffix.lower() in VIDEO_SUFFIXES | AUDIO_SUFFIXES and not path.name.startswith("."):
            files.setdefault(path.stem, []).append(path)
    for paths in files.values():
        paths.sort(key=lambda path: path.suffix.lower() not in VIDEO_SUFFIXES)

    def find(*stems: str, suffixes: frozenset[str] = VIDEO_SUFFIXES | AUDIO_SUFFIXES) -> Path | None:
        return next((path for stem in stems for path in files.get(stem, ()) if path.suffix.lower() in suffixes), None)

    return find
