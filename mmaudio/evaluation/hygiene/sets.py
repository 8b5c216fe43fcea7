"""Sets of clips that can be checked: a manifest, a folder of media, or a list of ids alone."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from mmaudio.data.manifest import ManifestError, read_manifest
from mmaudio.data.parts import write_text
from mmaudio.evaluation.datasets import AUDIO_SUFFIXES, DatasetError, read_text, table_lines
from mmaudio.evaluation.hygiene.errors import HygieneError
from mmaudio.media.probe import VIDEO_SUFFIXES

ID_COLUMNS = ("id", "youtube_id", "ytid", "audiocap_id", "name", "file_name")  # the first there is
CAPTION_COLUMNS = ("caption", "label", "labels", "text")
VGGSOUND_COLUMNS = ("id", "start", "label", "split")  # its list has no header
YOUTUBE = re.compile(r"(?:\d{3}_)?Y?([A-Za-z0-9_-]{11})(?:[_-]\d{1,6}){0,2}")


@dataclass(frozen=True)
class Item:
    id: str
    path: Path | None  # None: only its id is known
    caption: str | None = None
    start: float = 0.0  # seconds


@dataclass(frozen=True)
class ClipSet:
    name: str
    items: list[Item]
    lines: list[list[str]]  # of the input, one for each item
    header: list[str] | None
    delimiter: str

    @property
    def suffix(self) -> str:
        return ".tsv" if self.delimiter == "\t" else ".csv"

    def write(self, path: Path, keep: list[bool]) -> None:
        """These clips, in the format that they came in."""
        lines = [line for line, kept in zip(self.lines, keep, strict=True) if kept]
        lines = lines if self.header is None else [self.header, *lines]
        if self.delimiter == "\t":  # a manifest knows no quotes
            write_text(path, "".join("\t".join(line) + "\n" for line in lines))
            return
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        write_text(path, text.getvalue())


def read_set(name: str, path: Path) -> ClipSet:
    """A folder (its media files, in sub-folders, too), a manifest (.tsv with id and path), or a table of ids.

    Raises:
        HygieneError, ManifestError, DatasetError: it cannot be read, or lists nothing.
    """
    if path.is_dir():
        return _folder(name, path)
    if not path.exists():
        raise HygieneError(f"{path}: there is no such manifest, folder or list of ids")
    try:
        is_manifest = path.suffix.lower() == ".tsv" and {"id", "path"} <= set(_first_line(path).split("\t"))
        found = _manifest(name, path) if is_manifest else _table(name, path)
    except (ManifestError, DatasetError) as error:
        raise HygieneError(str(error)) from error
    if not found.items:
        raise HygieneError(f"{path}: lists no clips")
    return found


def _first_line(path: Path) -> str:
    return read_text(path).partition("\n")[0].strip()


def _folder(name: str, folder: Path) -> ClipSet:
    suffixes = VIDEO_SUFFIXES | AUDIO_SUFFIXES
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )
    if not files:
        raise HygieneError(f"{folder}: has no video or audio files")
    if unfit := next((path for path in files if not str(path).isprintable()), None):
        raise HygieneError(f"{str(unfit)!r}: cannot be listed in a table; give it another name")
    stems = [path.stem for path in files]
    repeated = len(set(stems)) < len(stems)
    ids = [path.relative_to(folder).as_posix().replace("/", "_") if repeated else path.stem for path in files]
    items = [Item(name, path.absolute()) for name, path in zip(ids, files, strict=True)]
    lines = [[item.id, str(item.path)] for item in items]
    return ClipSet(name, items, lines, ["id", "path"], "\t")


def _manifest(name: str, path: Path) -> ClipSet:
    items = [Item(row.id, row.path.absolute(), row.caption, row.start) for row in read_manifest(path)]
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = [line for line in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if line]
    return _anchored(ClipSet(name, items, lines[1:], lines[0], "\t"), path)


def _anchored(found: ClipSet, source: Path) -> ClipSet:
    """Paths of the lines absolute, since the cleaned list stands in another folder."""
    column = found.header.index("path")
    for line, item in zip(found.lines, found.items, strict=True):
        line[column] = str(item.path)
    return found


def _table(name: str, path: Path) -> ClipSet:
    rows = [fields for _, fields in table_lines(path)]
    if not rows:
        raise HygieneError(f"{path}: lists no clips")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    header, lower = rows[0], [field.lower().lstrip("# ") for field in rows[0]]
    if not any(column in lower for column in ID_COLUMNS):
        header, lower = None, list(VGGSOUND_COLUMNS if len(rows[0]) == 4 else ("id",))
    lines = rows if header is None else rows[1:]
    width = len(rows[0])
    for number, line in enumerate(lines, 1):
        if len(line) != width:
            raise HygieneError(f"{path}: clip {number} has {len(line)} fields, the first line has {width}")
    id_column = next(lower.index(column) for column in ID_COLUMNS if column in lower)
    caption_column = next((lower.index(column) for column in CAPTION_COLUMNS if column in lower), None)
    path_column = lower.index("path") if "path" in lower else None
    items = []
    for line in lines:
        if not line[id_column] or not line[id_column].isprintable():
            raise HygieneError(f"{path}: id {line[id_column][:40]!r} is empty or not printable")
        file = path.parent / line[path_column] if path_column is not None and line[path_column] else None
        caption = line[caption_column] if caption_column is not None else None
        items.append(Item(line[id_column], file and file.absolute(), caption or None))
    found = ClipSet(name, items, lines, header, delimiter)
    return found if path_column is None else _anchored(found, path)


def source_of(name: str) -> str:
    """The YouTube id within "ID", "YID", "ID_000030", "ID_30000_40000", "YID-0" or "007_ID-0"; else the id itself."""
    found = YOUTUBE.fullmatch(name)
    return found[1] if found else name
