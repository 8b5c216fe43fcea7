"""Everything a study must not forget, in one SQLite file: what is compared, who takes part, every rating and choice."""

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from mmaudio.study.methods import StudyError

VERSION = 2  # of the tables; 1 had no choices
PATIENCE = 10.0  # seconds to wait for another process that writes
TABLES = """
create table study (secret text not null, methods text not null, videos text not null);
create table participant (token text primary key, began text not null);
create table rating (
    participant text not null references participant, video text not null, method text not null,
    question text not null, rating integer not null check (rating between 1 and 5), answered text not null,
    primary key (participant, video, method, question)
) without rowid;
"""
CHOICES = """
create table choice (
    participant text not null references participant, video text not null,
    first text not null, second text not null check (first < second),
    question text not null, preferred text check (preferred in (first, second)), answered text not null,
    primary key (participant, video, first, second, question)
) without rowid;
"""


class AnswersError(StudyError):
    """The file of answers itself fails."""


class Rating(NamedTuple):
    participant: str
    video: str
    method: str
    question: str
    rating: int  # 1 to 5


class Choice(NamedTuple):
    participant: str
    video: str
    first: str  # the two methods, by name
    second: str
    question: str
    preferred: str | None  # one of them; None: no difference


class Answers:
    """An open file of answers; its methods may be called from several threads.

    Args:
        path: made if `methods` are given and it is not there.
        methods: files by method and video; None reads what is there. A file of another study is refused.

    Raises:
        StudyError: the file cannot be used; AnswersError, also from every method, if the database fails.
    """

    def __init__(self, path: str | Path, methods: Mapping[str, Mapping[str, Path]] | None = None):
        self.path, self.lock = Path(path), Lock()
        if methods is None and not self.path.is_file():
            raise StudyError(f"{path}: there is no such file; `mmaudio study serve` makes it")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            self.database = sqlite3.connect(self.path, timeout=PATIENCE, check_same_thread=False)
        try:
            with self._errors():
                self._open(methods)
        except StudyError:
            self.database.close()
            raise

    def _open(self, methods: Mapping[str, Mapping[str, Path]] | None) -> None:
        (version,) = self.database.execute("pragma user_version").fetchone()
        (tables,) = self.database.execute("select count(*) from sqlite_master").fetchone()
        if version == 0 and tables == 0 and methods is not None:
            videos = sorted(next(iter(methods.values())))
            with self.database:
                self.database.executescript(f"begin; {TABLES} {CHOICES} pragma user_version = {VERSION};")
                row = (secrets.token_hex(32), json.dumps(sorted(methods)), json.dumps(videos))
                self.database.execute("insert into study values (?, ?, ?)", row)
        elif version == 1:
            with self.database:
                self.database.executescript(f"begin; {CHOICES} pragma user_version = {VERSION};")
        elif version != VERSION:
            raise StudyError(f"{self.path}: holds no listening study of this version; give another file")
        self.secret, compared, videos = self.database.execute("select * from study").fetchone()
        self.methods: list[str] = json.loads(compared)
        self.videos: list[str] = json.loads(videos)
        if methods is not None and (sorted(methods), sorted(next(iter(methods.values())))) != (
            self.methods, self.videos,
        ):  # fmt: skip
            raise StudyError(
                f"{self.path}: is of another study ({', '.join(self.methods)}; {len(self.videos)} videos); "
                "give another --out, or the same folders"
            )

    def close(self) -> None:
        self.database.close()

    def begin(self) -> str:
        """A new participant's token."""
        token = secrets.token_urlsafe(16)
        with self._transaction():
            self.database.execute("insert into participant values (?, ?)", (token, _now()))
        return token

    def knows(self, token: str) -> bool:
        with self._transaction():
            return self.database.execute("select 1 from participant where token = ?", (token,)).fetchone() is not None

    def answered(self, token: str) -> set[str]:
        """The videos that a participant has rated; those of one page are always all there or none."""
        with self._transaction():
            rows = self.database.execute("select distinct video from rating where participant = ?", (token,))
            return {video for (video,) in rows}

    def compared(self, token: str) -> set[tuple[str, tuple[str, str]]]:
        """The videos and pairs of methods that a participant has compared; all questions are answered or none."""
        with self._transaction():
            query = "select distinct video, first, second from choice where participant = ?"
            return {(video, (first, second)) for video, first, second in self.database.execute(query, (token,))}

    def record(self, token: str, video: str, ratings: Mapping[tuple[str, str], int]) -> None:
        """Keep the ratings of one page, by (method, question); later ones replace earlier ones."""
        now = _now()
        rows = [(token, video, method, question, value, now) for (method, question), value in ratings.items()]
        with self._transaction():
            self.database.executemany("insert or replace into rating values (?, ?, ?, ?, ?, ?)", rows)

    def prefer(self, token: str, video: str, pair: tuple[str, str], preferred: Mapping[str, str | None]) -> None:
        """Keep which of two methods is preferred, by question (None: neither); later choices replace earlier ones."""
        first, second = sorted(pair)
        now = _now()
        rows = [(token, video, first, second, question, method, now) for question, method in preferred.items()]
        with self._transaction():
            self.database.executemany("insert or replace into choice values (?, ?, ?, ?, ?, ?, ?)", rows)

    def ratings(self) -> list[Rating]:
        with self._transaction():
            return [
                Rating(*row)
                for row in self.database.execute("select participant, video, method, question, rating from rating")
            ]

    def choices(self) -> list[Choice]:
        with self._transaction():
            query = "select participant, video, first, second, question, preferred from choice"
            return [Choice(*row) for row in self.database.execute(query)]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self.lock, self._errors(), self.database:
            yield

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise AnswersError(
                f"{self.path}: the answers cannot be used ({error}); check the file and the disk"
            ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
