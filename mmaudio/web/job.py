"""One job of the engine: its state, its files, and how others wait for it."""

import contextlib
import json
import logging
import os
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from mmaudio.web.asks import Ask, without_path

RECORD, SOURCE = "job.json", "source"
STAGES = {  # stage of the pipeline -> the part of the way that it is
    "load": (0.0, 0.02),
    "decode": (0.02, 0.25),
    "CLIP": (0.25, 0.3),
    "sync": (0.3, 0.34),
    "text": (0.34, 0.35),
    "conditions": (0.35, 0.35),
    "solve": (0.35, 0.85),
    "VAE": (0.85, 0.87),
    "vocoder": (0.87, 0.95),
    "write": (0.95, 1.0),
}


class QueueFull(Exception):
    """No more jobs are taken at present."""

    def __init__(self, waiting: int, retry_after: int):
        super().__init__(f"{waiting} jobs wait already: try again in {retry_after} s")
        self.retry_after = retry_after  # seconds


class NoSuchJob(LookupError):
    """There is no job of this id, or it has expired."""


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Take:
    seed: int
    files: dict[str, str]  # "flac", "wav" and, if there is a picture, "mp4" (or "mkv") -> name in the job's folder


class Job:
    """What was asked for and how far it is. Attributes are read from any thread; the engine alone changes them.

    Attributes:
        stage: of the pipeline, as in its progress callback; "" before there was one.
        progress: 0 to 1.
        error: one line, if it has failed.
        notes: one line each, for whoever asked.
        takes: results, once it is done.
        created, ended: seconds since 1970; `ended` is None until it is over.
        version: grows with every change.
    """

    def __init__(self, changed: threading.Condition, counts: Counter, folder: Path, ask: Ask, length: float):
        self.id, self.folder, self.ask, self.length = folder.name, folder, ask, length
        self.state, self.stage, self.progress, self.error = State.QUEUED, "", 0.0, ""
        self.notes: list[str] = []
        self.takes: list[Take] = []
        self.created, self.ended = time.time(), None
        self.version, self.cancelling, self.postponed = 0, False, False
        self._changed, self._counts = changed, counts

    # ---- for whoever asked

    @property
    def over(self) -> bool:
        return self.state in (State.DONE, State.FAILED, State.CANCELLED)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is over, or put off by a closing engine. Returns whether it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.over or self.postponed, timeout)
            return self.over

    def changes(self) -> Iterator["Job"]:
        """The job at once and after every change; the last time when it is over, or put off by a closing engine."""
        seen, last = -1, False
        while not last:
            with self._changed:
                while self.version == seen:
                    self._changed.wait()
                seen, last = self.glance()
            yield self

    def glance(self) -> tuple[int, bool]:
        """(version, whether nothing comes after it in this process)."""
        with self._changed:
            return self.version, self.over or self.postponed

    def cancel(self) -> None:
        """Stop it: at once if it waits, at the solver's next step if it runs."""
        with self._changed:
            self.cancelling = True
            if self.state == State.QUEUED:
                self.end(State.CANCELLED)

    def file(self, take: int, kind: str) -> Path:
        """A result: take 0 is the first, kind as in `Take.files`. Raises NoSuchJob if there is none."""
        try:
            return self.folder / self.takes[take].files[kind]
        except LookupError as error:
            raise NoSuchJob(f"{self.id}: no {kind} of take {take}") from error

    # ---- for the engine

    def size(self) -> int:
        """Bytes of its files."""
        with contextlib.suppress(OSError):  # somebody has cleared the folder away
            return sum(path.stat().st_size for path in self.folder.iterdir())
        return 0

    @staticmethod
    def new(changed: threading.Condition, counts: Counter, home: Path, ask: Ask, length: float) -> "Job":
        """A job with a folder of its own; its file is linked or copied there."""
        folder = home / secrets.token_hex(16)
        folder.mkdir()
        try:
            if ask.source is not None:
                try:
                    os.link(ask.source.resolve(), folder / SOURCE)
                except OSError:  # another disk, or a file system without links
                    shutil.copyfile(ask.source, folder / SOURCE)
                ask = ask.moved(folder / SOURCE)
            job = Job(changed, counts, folder, ask, length)
            job._save()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return job

    @staticmethod
    def read(changed: threading.Condition, counts: Counter, folder: Path) -> "Job":
        """As it was saved. Raises OSError, ValueError, KeyError or TypeError."""
        row = json.loads((folder / RECORD).read_text())
        ask = Ask(**row["ask"])
        if row["source"]:
            ask = Ask(**row["ask"], **{row["source"]: folder / SOURCE})
        job = Job(changed, counts, folder, ask, row["length"])
        job.state, job.error, job.notes = State(row["state"]), row["error"], row["notes"]
        job.created, job.ended = row["created"], row["ended"]
        job.takes = [Take(**take) for take in row["takes"]]
        job.progress = float(job.state == State.DONE)
        return job

    def begin(self) -> None:
        self.state = State.RUNNING
        self._tell()

    def move(self, stage: str, done: float, total: float | None) -> None:
        begin, end = STAGES.get(stage, (0.0, 0.0))
        progress = begin + (end - begin) * min(1.0, done / total) if total else begin
        before = self.stage, round(self.progress, 3)
        self.stage, self.progress = stage, max(self.progress, progress)
        if before != (self.stage, round(self.progress, 3)):
            self._tell(save=False)

    def give_back(self) -> None:
        """Back into the queue, where it was; it ends if it was cancelled meanwhile."""
        if self.cancelling:
            return self.end(State.CANCELLED)
        self.state, self.stage, self.progress = State.QUEUED, "", 0.0
        self._tell()

    def postpone(self) -> None:
        """Nobody needs to wait for it in this process."""
        self.postponed = True
        self._tell(save=False)

    def end(self, state: State, error: str = "", takes: list[Take] = (), notes: list[str] = ()) -> None:
        """The end, and what stays of it. A cancelled job does not get done any more."""
        with self._changed:
            if state == State.DONE and self.cancelling:
                state = State.CANCELLED
            if state == State.DONE:
                self.takes, self.progress = list(takes), 1.0
                self.notes = [without_path(note, self.folder) for note in notes]
            self.error, self.ended = error, time.time()
            self.state = state  # the last, as others look without the lock
            self._counts[state] += 1
            self._tell()
            kept = {RECORD, *(name for take in self.takes for name in take.files.values())}
            with contextlib.suppress(OSError):  # somebody has cleared the folder away
                for path in self.folder.iterdir():
                    if path.name not in kept:
                        path.unlink(missing_ok=True)

    def _tell(self, save: bool = True) -> None:
        with self._changed:
            if save:
                try:
                    self._save()
                except OSError as error:  # no room: what is in memory goes on
                    logging.getLogger(__name__).error("%s: cannot be saved: %s", self.folder, error)
            self.version += 1
            self._changed.notify_all()

    def _save(self) -> None:
        row = {
            "state": self.state,
            "error": self.error,
            "notes": self.notes,
            "created": self.created,
            "ended": self.ended,
            "length": self.length,
            "source": None if self.ask.source is None else "video" if self.ask.video else "image",
            "ask": self.ask.settings(),
            "takes": [asdict(take) for take in self.takes],
        }
        temporary = self.folder / f".{RECORD}"
        temporary.write_text(json.dumps(row))
        os.replace(temporary, self.folder / RECORD)
