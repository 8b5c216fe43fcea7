"""The jobs of the service: queued, made by one thread that owns the device, kept on disk, and forgotten in time.

folder/jobs/ID/job.json     state and settings, written whole: a killed process knows afterwards what it had
folder/jobs/ID/source       the video or picture, while it is needed
folder/jobs/ID/1.flac ...   the takes
"""

import logging
import math
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from mmaudio.console import UsageError, expected_errors
from mmaudio.generation import Generation
from mmaudio.inputs import MAX_WHOLE_CLIP, Progress
from mmaudio.loudness import normalize_loudness
from mmaudio.media import MediaError
from mmaudio.pipeline import Pipeline
from mmaudio.request import Request, read_request
from mmaudio.variants import Variant
from mmaudio.web.asks import Ask, told
from mmaudio.web.job import Job, NoSuchJob, QueueFull, State, Take

__all__ = ["Ask", "Engine", "Job", "NoSuchJob", "QueueFull", "State", "Take"]

SWEEP = 10.0  # seconds between two looks for what has expired
PATIENCE = 30.0  # seconds that a closing engine gives to what is running
FIRST_PACE = 10.0  # seconds that a batch is thought to take before there was one
ID = re.compile("[0-9a-f]{32}")
LOST = "the server was stopped while this was being made: ask again"


class Stopped(Exception):
    """Raised out of the pipeline when nobody waits for its result any more."""


class Engine:
    """Makes what is asked for, in order; asks of the same kind are made together.

    Args:
        load: a pipeline by the name of its variant; one is kept in memory at a time.
        folder: where jobs are kept. What was queued there by a process before is made, what it was making has failed.
        variants: what may be asked for, by name; the first one is the default.
        max_queue: jobs that may wait.
        max_batch: takes of several jobs that are made together; those of one job always are.
        expire: seconds that a job is kept after its end.
        max_disk: bytes of finished jobs; beyond them the oldest are forgotten before their time, the last one never.

    Raises:
        UsageError: another engine uses the folder.

    Attributes:
        counts: jobs by the state in which they ended, and "refused" ones.
        batches, batched: batches made, and jobs in them.
    """

    def __init__(
        self,
        load: Callable[[str], Pipeline],
        folder: Path,
        variants: Mapping[str, Variant],
        max_queue: int = 16,
        max_batch: int = 4,
        expire: float = 3600.0,
        max_disk: float = 20e9,
    ):
        self.load, self.variants, self.expire, self.max_disk = load, dict(variants), expire, max_disk
        self.folder, self.max_queue, self.max_batch = Path(folder).absolute(), max_queue, max_batch
        self.changed = threading.Condition()
        self.counts: Counter[str] = Counter()
        self.batches = self.batched = 0
        self.closing = False
        self._stopping = False
        self._pace = FIRST_PACE
        self._loaded: tuple[str, Pipeline] | None = None
        self._jobs: dict[str, Job] = {}  # in the order in which they came
        self._home = self.folder / "jobs"
        self._home.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / "lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UsageError(f"{folder}: is used by another server; choose another folder") from error
        self._restore()
        self._thread = threading.Thread(target=self._work, name="generating", daemon=True)
        self._thread.start()

    # ---- from any thread

    def submit(self, ask: Ask) -> Job:
        """Queue what is asked for; the file is copied (linked where that is possible).

        Raises:
            QueueFull: too many wait.
            ValueError, MediaError: it cannot be done.
            OSError: there is no room for the file.
        """
        self.check_room()
        if ask.variant not in self.variants:
            raise ValueError(f"variant must be one of {', '.join(self.variants)}, got {ask.variant[:80]!r}")
        length = ask.check(self.variants[ask.variant])
        job = Job.new(self.changed, self.counts, self._home, ask, length)
        try:
            with self.changed:
                self.check_room()
                self._jobs[job.id] = job
                self.changed.notify_all()
        except BaseException:
            shutil.rmtree(job.folder, ignore_errors=True)
            raise
        return job

    def check_room(self, coming: int = 0) -> None:
        """Raises QueueFull if no more than `coming` jobs could be queued now."""
        waiting = len(self.queued) + coming
        if self.closing or waiting >= self.max_queue:
            self.counts["refused"] += 1
            raise QueueFull(waiting, math.ceil(self._pace))

    def job(self, id: str) -> Job:
        """A job by its id. Raises NoSuchJob if there is none or it has expired."""
        job = self._jobs.get(id)
        if job is None or self._expired(job):
            raise NoSuchJob(id)
        return job

    def forget(self, job: Job) -> None:
        """Cancel a job that is not over; delete one that is."""
        with self.changed:
            if not job.over:
                job.cancel()
                return
            self._jobs.pop(job.id, None)
            shutil.rmtree(job.folder, ignore_errors=True)

    @property
    def queued(self) -> list[Job]:
        with self.changed:
            return [job for job in self._jobs.values() if job.state == State.QUEUED]

    @property
    def running(self) -> list[Job]:
        with self.changed:
            return [job for job in self._jobs.values() if job.state == State.RUNNING]

    @property
    def alive(self) -> bool:
        """Whether jobs are being made."""
        return self._thread.is_alive() and not self.closing

    def close(self, patience: float = PATIENCE) -> None:
        """Finish what is running, or hand it back to the queue after `patience` seconds; the queue stays on disk.

        Nothing happens the second time.
        """
        with self.changed:
            self.closing = True
            for job in self.queued:
                job.postpone()
            self.changed.notify_all()
        self._thread.join(patience)
        self._stopping = True
        self._thread.join()
        self._lock.release()

    def _expired(self, job: Job) -> bool:
        return job.ended is not None and time.time() > job.ended + self.expire

    # ---- in the engine's thread

    def _work(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.closing or self.queued, SWEEP)
                if self.closing:
                    return
                group = self._next_group()
            self._sweep()
            if group:
                self._make(group)

    def _next_group(self) -> list[Job]:
        """The first that waits, and those of its kind; they are running from now on."""
        group: list[Job] = []
        for job in self.queued:
            kind = job.ask.kind(self.variants[job.ask.variant], job.length)
            if not group:
                group, wanted = [job], kind
            elif kind is not None and kind == wanted and (len(group) + 1) * job.ask.num_samples <= self.max_batch:
                group.append(job)
        for job in group:
            job.begin()
        return group

    def _make(self, group: list[Job]) -> None:
        began = time.monotonic()
        try:
            pipe = self._pipeline(group)
            self._finish(pipe, [(job, request) for job in group if (request := self._read(pipe, job, group))])
        except Stopped:
            pass
        except expected_errors() as error:
            logging.getLogger(__name__).error("a batch failed: %s", error)
            self._fail(group, error)
        except Exception:  # a bug must not end the thread on which every job waits
            logging.getLogger(__name__).exception("a batch failed")
            self._fail(group, RuntimeError("an internal error, which is in the server's log"))
        self._pace = time.monotonic() - began
        with self.changed:
            for job in group:
                if job.state == State.RUNNING:  # does not fit the others after all, or there is no time any more
                    job.give_back()
                    if self.closing:
                        job.postpone()

    def _pipeline(self, group: list[Job]) -> Pipeline:
        name = group[0].ask.variant
        if self._loaded is None or self._loaded[0] != name:
            self._watch(group, group)("load", 0, 0)
            if self._loaded is not None:
                self._loaded[1].release()
            self._loaded = None
            self._loaded = name, self.load(name)
        return self._loaded[1]

    def _watch(self, group: list[Job], moving: list[Job]) -> Progress:
        """Tells the progress of a batch to `moving` jobs. Cancelled ones leave; with the last one the work stops."""

        def report(stage: str, done: float, total: float | None) -> None:
            with self.changed:
                for job in group:
                    if job.state == State.RUNNING and job.cancelling:
                        job.end(State.CANCELLED)
                    elif job.state == State.RUNNING and job in moving:
                        job.move(stage, done, total)
                if self._stopping or not any(job.state == State.RUNNING for job in group):
                    raise Stopped

        return report

    def _read(self, pipe: Pipeline, job: Job, group: list[Job]) -> Request | None:
        """What the network needs to know of a job; None if it cannot be had, and then the job has failed."""
        watch, ask = self._watch(group, [job]), job.ask
        limit = math.inf if ask.duration else MAX_WHOLE_CLIP + 1  # seconds

        def report(stage: str, done: float, total: float | None) -> None:
            watch(stage, done, total)
            if job.over:
                raise Stopped
            if done > limit:  # frames are held in memory
                raise MediaError("the video is longer than its header says: save it again")

        try:
            return read_request(
                pipe.variant, ask.video, ask.prompt, ask.negative_prompt, image=ask.image, duration=ask.duration,
                seed=ask.seed, progress=report,
            )  # fmt: skip
        except Stopped:
            if self._stopping:
                raise
        except expected_errors() as error:
            self._fail([job], error)
        return None

    def _finish(self, pipe: Pipeline, group: list[tuple[Job, Request]]) -> None:
        """Generate a batch and write its takes; if it fails, each of it alone."""
        if not group:
            return
        first = group[0][1]
        group = [(job, request) for job, request in group if request.inputs.spec == first.inputs.spec]
        jobs, ask = [job for job, _ in group], group[0][0].ask
        watch = self._watch(jobs, jobs)
        try:
            takes = pipe.generate(
                [request for _, request in group], num_samples=ask.num_samples, num_steps=ask.num_steps,
                cfg_strength=ask.cfg_strength, solver=ask.solver, mask_away_clip=ask.mask_away_clip, progress=watch,
            )  # fmt: skip
        except expected_errors() as error:
            if len(group) == 1:
                return self._fail(jobs, error)
            takes = None
        if takes is None:
            for one in group:
                if one[0].state == State.RUNNING:
                    self._finish(pipe, [one])
            return
        self.batches, self.batched = self.batches + 1, self.batched + len(group)
        for job, generations in zip(jobs, takes, strict=True):
            try:
                watch("write", 0, 0)
                if job.state == State.RUNNING:
                    self._write(job, generations)
            except expected_errors() as error:
                self._fail([job], error)

    def _write(self, job: Job, generations: list[Generation]) -> None:
        takes, notes = [], [*generations[0].notes]
        for number, generation in enumerate(generations, 1):
            if job.ask.lufs is not None:
                generation.audio, note = normalize_loudness(generation.audio, generation.sample_rate, job.ask.lufs)
                notes.append(f"take {number}: {note}")
            paths = [generation.save(job.folder / f"{number}{suffix}") for suffix in (".flac", ".wav")]
            if job.ask.source is not None:
                result = generation.save_video(job.folder / f"{number}.mp4")
                paths.append(result.path)
                notes += result.notes
            takes.append(Take(generation.seed, {path.suffix[1:]: path.name for path in paths}))
        job.end(State.DONE, takes=takes, notes=list(dict.fromkeys(notes)))

    def _fail(self, jobs: list[Job], error: Exception) -> None:
        with self.changed:
            for job in jobs:
                if job.state == State.RUNNING:
                    job.end(State.FAILED, told(error, job.folder))

    def _sweep(self) -> None:
        """Forget what has expired, and of finished jobs the oldest for which there is no room."""
        with self.changed:
            for job in [job for job in self._jobs.values() if self._expired(job)]:
                self.forget(job)
            done = sorted((job for job in self._jobs.values() if job.state == State.DONE), key=lambda job: -job.ended)
        room = self.max_disk
        for job in done:
            room -= job.size()
            if room < 0 and job is not done[0]:
                self.forget(job)

    def _restore(self) -> None:
        """The jobs of the process before: what it had not begun waits, what it was making has failed."""
        for folder in self._home.iterdir():
            if not ID.fullmatch(folder.name):
                continue
            try:
                job = Job.read(self.changed, self.counts, folder)
            except (OSError, ValueError, KeyError, TypeError):  # killed before it was written: nobody knows of it
                shutil.rmtree(folder, ignore_errors=True)
                continue
            self._jobs[job.id] = job
        self._jobs = dict(sorted(self._jobs.items(), key=lambda item: item[1].created))
        for job in self._jobs.values():
            if job.state == State.RUNNING:
                job.end(State.FAILED, LOST)
            elif job.state == State.QUEUED and job.ask.variant not in self.variants:
                job.end(State.FAILED, f"the server has no variant {job.ask.variant} any more")
