"""The list of media files that extraction and training from media start from."""

import csv
import math
import os
from dataclasses import dataclass
from pathlib import Path

REQUIRED = ("id", "path")
OPTIONAL = ("caption", "start")
MAX_ID = 200  # bytes: ids become parts of file names


class ManifestError(Exception):
    """A manifest cannot be used. One line: file, line, got, expected."""


@dataclass(frozen=True)
class ManifestRow:
    id: str  # unique, fit to be part of a file name
    path: Path  # absolute, or relative to the manifest's folder
    caption: str | None = None
    start: float = 0.0  # seconds

    @property
    def captions(self) -> tuple[str, ...]:
        return () if self.caption is None else (self.caption,)


def read_manifest(path: str | os.PathLike) -> list[ManifestRow]:
    """Tab-separated, UTF-8, with a header: id and path, optionally caption and start (seconds); others are ignored.

    Whether the media files exist is not looked at here: that is found out, and reported, clip by clip.

    Raises:
        ManifestError: no such file, no header, a field missing, an id twice or unfit for a file name, a bad start.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except OSError as error:
        raise ManifestError(f"{path}: cannot read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: is no UTF-8 text table ({error})") from error
    header = lines[0] if lines else []
    if any(header.count(name) != 1 for name in REQUIRED) or any(header.count(name) > 1 for name in OPTIONAL):
        raise ManifestError(
            f"{path}: the first line must name the columns id and path, each once and tab-separated, got {header[:5]}"
        )
    column = {name: header.index(name) for name in (*REQUIRED, *OPTIONAL) if name in header}
    rows, seen = [], {}
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        where = f"{path}, line {number}"
        if len(line) != len(header):
            raise ManifestError(f"{where}: has {len(line)} fields, the header has {len(header)}")
        fields = {name: line[i].strip() for name, i in column.items()}
        name = fields["id"]
        if not name or not fields["path"]:
            raise ManifestError(f"{where}: id and path must not be empty")
        if not name.isprintable() or any(c in name for c in "/\\") or name in (".", ".."):
            raise ManifestError(f"{where}: id {name!r} cannot be part of a file name")
        if len(name.encode()) > MAX_ID:
            raise ManifestError(f"{where}: id {name[:20]!r}... is longer than {MAX_ID} bytes")
        if name in seen:
            raise ManifestError(f"{where}: id {name!r} was on line {seen[name]} already")
        seen[name] = number
        try:
            start = float(fields.get("start") or 0)
        except ValueError:
            start = math.nan
        if not (math.isfinite(start) and start >= 0):
            raise ManifestError(f"{where}: start must be seconds, zero or more, got {fields['start']!r}")
        rows.append(ManifestRow(name, path.parent / fields["path"], fields.get("caption") or None, start))
    if not rows:
        raise ManifestError(f"{path}: lists no clips")
    return rows
