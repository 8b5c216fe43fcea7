"""Small tables that people write: CSV with a header, and YAML lists."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

TOO_MANY = "has more cells than the header; put text with commas in double quotes"


def read_rows(
    path: str | os.PathLike, columns: Sequence[str], required: Sequence[str]
) -> list[tuple[int, dict[str | None, str]]]:
    """(line number, row) of a CSV file, or (entry number, row) of a YAML list; cells are text without spaces around.

    Missing cells are "". Cells beyond the header are under the key None: the caller says whether that ends the work.

    Raises:
        ValueError: the file is no such table, or has an unknown column or lacks a required one.
        OSError: it cannot be read.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() in (".yaml", ".yml"):
                header, rows = _yaml_rows(path, file)
            else:
                reader = csv.DictReader(file, restval="")
                header = [name.strip() for name in reader.fieldnames or []]
                reader.fieldnames = header
                rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: is not a CSV file in UTF-8 ({error})") from error
    for name in header:
        if name not in columns:
            raise ValueError(f"{path}: unknown column {name!r}; expected {', '.join(columns)}")
    for name in required:
        if name not in header:
            raise ValueError(f"{path}: has no column {name!r}; its first line must name the columns")
    return [(line, {k: v if k is None else v.strip() for k, v in row.items()}) for line, row in rows]


def number(text: str, name: str, kind: type = float):
    """A cell as a number. Raises ValueError with the column's name."""
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}, expected {'a whole number' if kind is int else 'a number'}") from None


def _yaml_rows(path: Path, file) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    import yaml

    try:
        entries = yaml.safe_load(file)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path}: must be a YAML list of entries such as '- {{start: 0, end: 4, prompt: rain}}'")
    rows = [
        (i, {str(key): "" if v is None else str(v) for key, v in entry.items()})
        for i, entry in enumerate(entries, start=1)
    ]
    return list(dict.fromkeys(key for _, row in rows for key in row)), rows
