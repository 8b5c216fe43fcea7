"""Small tables that people write: CSV, mostly with a header, and YAML lists."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
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
    text = read_text(path)
    if path.suffix.lower() in (".yaml", ".yml"):
        header, rows = _yaml_rows(path, text)
    else:
        lines = table_lines(path, text)
        _, header = next(lines, (1, []))
        rows = [(line, _row(header, cells)) for line, cells in lines]
    for name in header:
        if name not in columns:
            raise ValueError(f"{path}: unknown column {name!r}; expected {', '.join(columns)}")
    for name in required:
        if name not in header:
            raise ValueError(f"{path}: has no column {name!r}; its first line must name the columns")
    return rows


def read_text(path: Path) -> str:
    """Raises ValueError if it is no text, OSError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no UTF-8 text ({error})") from error


def table_lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """(Line number, cells) of every line of a CSV file's text that is not empty; between tabs if it is called .tsv.

    Cells have no spaces around. Raises ValueError if it is no CSV.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: is no CSV ({error})") from error


def _row(header: list[str], cells: list[str]) -> dict[str | None, str | list[str]]:
    missing, beyond = [""] * (len(header) - len(cells)), cells[len(header) :]
    return dict(zip(header, [*cells, *missing], strict=False)) | ({None: beyond} if beyond else {})


def number(text: str, name: str, kind: type = float):
    """A cell as a number. Raises ValueError with the column's name."""
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}, expected {'a whole number' if kind is int else 'a number'}") from None


def _yaml_rows(path: Path, text: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    import yaml

    try:
        entries = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path}: must be a YAML list of entries such as '- {{start: 0, end: 4, prompt: rain}}'")
    rows = [
        (i, {str(key): "" if v is None else str(v).strip() for key, v in entry.items()})
        for i, entry in enumerate(entries, start=1)
    ]
    return list(dict.fromkeys(key for _, row in rows for key in row)), rows
