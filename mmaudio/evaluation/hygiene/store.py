"""Fingerprints of clips that were looked at, in one SQLite file: killed at any moment, a run goes on where it was.

A clip is known by the hash of its file's content, so a renamed or copied file is not decoded again; and a file is known
by its path, size and time, so an unchanged one is not even read.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mmaudio.evaluation.hygiene.errors import HygieneError
from mmaudio.evaluation.hygiene.fingerprint import (
    BANDS,
    CELLS,
    GRID,
    PICTURE_BITS,
    SOUND_BITS,
    VERSION,
    Fingerprint,
)
from mmaudio.evaluation.hygiene.looking import Facts, Look

TABLES = """
create table if not exists file (path text primary key, size integer, time integer, content text) without rowid;
create table if not exists clip (
    key text primary key, facts text, sound blob, motion blob, picture blob, sound_codes blob, picture_codes blob
);
"""
PATIENCE = 60.0  # seconds that one run waits for another one's writing
MANY = 500  # keys in one query
CACHE_KIB = 65_536


class Store:
    """Only the main process opens it.

    Raises:
        HygieneError: not such a file, damaged, or made by another version.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            self.database = sqlite3.connect(self.path, timeout=PATIENCE)
            (version,) = self.database.execute("pragma user_version").fetchone()
            if version not in (0, VERSION):
                raise HygieneError(
                    f"{self.path}: holds fingerprints of version {version}, now it is {VERSION}; delete it"
                )
            self.database.execute(f"pragma cache_size = -{CACHE_KIB}")
            self.database.executescript(TABLES)
            self.database.execute(f"pragma user_version = {VERSION}")
            self.database.commit()

    def close(self) -> None:
        self.database.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            reason = str(error)
            remedies = {"locked": "another run uses it, wait for that", "full": "free some space"}
            remedy = next((text for word, text in remedies.items() if word in reason), "delete it and run again")
            raise HygieneError(f"{self.path}: the fingerprints cannot be used ({reason}); {remedy}") from error

    # ---- files

    def contents(self) -> dict[str, tuple[int, int, str]]:
        """Path -> (size, time in ns, hash of the content), as they were when last read."""
        with self._errors():
            return {path: tuple(rest) for path, *rest in self.database.execute("select * from file")}

    def add_files(self, rows: Iterable[tuple[str, int, int, str]]) -> None:
        with self._errors(), self.database:
            self.database.executemany("insert or replace into file values (?, ?, ?, ?)", rows)

    # ---- clips

    def keys(self) -> set[str]:
        with self._errors():
            return {key for (key,) in self.database.execute("select key from clip")}

    def add(self, looks: Iterable[tuple[str, Look]]) -> None:
        """Whole or not at all."""
        with self._errors(), self.database:
            self.database.executemany("insert or replace into clip values (?, ?, ?, ?, ?, ?, ?)", map(_row, looks))

    def facts(self, keys: Iterable[str]) -> Iterator[tuple[str, Facts]]:
        for key, text in self._select("facts", keys):
            yield key, Facts(**json.loads(text))

    def codes(self, keys: Iterable[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """(Key, codes of the sound, codes of the picture), as in `Fingerprint`."""
        for key, sound, picture in self._select("sound_codes, picture_codes", keys):
            yield key, _codes(sound, SOUND_BITS), _codes(picture, PICTURE_BITS)

    def fingerprints(self, keys: Iterable[str]) -> Iterator[tuple[str, Fingerprint]]:
        for key, sound, motion, picture, *codes in self._select(
            "sound, motion, picture, sound_codes, picture_codes", keys
        ):
            image = np.frombuffer(picture, np.uint8).reshape(*(GRID, GRID) if picture else (0, 0))
            yield (
                key,
                Fingerprint(
                    unpacked(sound, BANDS),
                    unpacked(motion, CELLS * CELLS),
                    image,
                    _codes(codes[0], SOUND_BITS),
                    _codes(codes[1], PICTURE_BITS),
                ),
            )

    def _select(self, columns: str, keys: Iterable[str]) -> Iterator[tuple]:
        keys = list(keys)
        with self._errors():
            for first in range(0, len(keys), MANY):
                some = keys[first : first + MANY]
                marks = ", ".join("?" * len(some))
                yield from self.database.execute(f"select key, {columns} from clip where key in ({marks})", some)


def _row(item: tuple[str, Look]) -> tuple:
    key, look = item
    f = look.fingerprint
    return (
        key, json.dumps(asdict(look.facts)), packed(f.sound), packed(f.motion), f.picture.tobytes(),
        f.sound_codes.tobytes(), f.picture_codes.tobytes(),
    )  # fmt: skip


def packed(trits: np.ndarray) -> bytes:
    """Two bits each: is it not 0, is it 1."""
    return np.packbits(trits != 0).tobytes() + np.packbits(trits > 0).tobytes()


def unpacked(data: bytes, width: int) -> np.ndarray:
    """int8 (T, width); the width is a multiple of 8."""
    known, positive = np.unpackbits(np.frombuffer(data, np.uint8)).reshape(2, -1).astype(np.int8)
    return (2 * positive - known).reshape(-1, width)


def _codes(data: bytes, bits: int) -> np.ndarray:
    return np.frombuffer(data, np.uint8).reshape(-1, bits // 8)
