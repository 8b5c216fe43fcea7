"""What the page's buttons do, apart from how they look."""

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path
from weakref import WeakKeyDictionary

import gradio as gr

from mmaudio.console import expected_errors
from mmaudio.media import MediaError, probe
from mmaudio.web import cards
from mmaudio.web.asks import told, without_path
from mmaudio.web.form import Form
from mmaudio.web.jobs import Engine, Job, NoSuchJob, QueueFull, State

PARTS = "part-"  # in the engine's folder: clips that are being cut
LOOK = 0.2  # seconds between two looks at a job
PREPARED = 2  # clips that are cut at once
MAX_HISTORY = 100  # jobs that a browser remembers


class Cancelled(Exception):
    """Raised where a clip is cut when nobody waits for it any more."""


@dataclass
class Run:
    """What a page waits for; there is no job yet while its clip is being cut."""

    job: Job | None = None
    stopped: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        self.stopped.set()
        if self.job is not None:
            self.job.cancel()

    def check(self) -> None:
        if self.stopped.is_set():
            raise Cancelled


class Desk:
    """What the page's buttons do; one for all browsers. Which jobs a browser has seen, it remembers itself."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self.preparing = asyncio.Semaphore(PREPARED)
        self.forms: WeakKeyDictionary[Job, Form] = WeakKeyDictionary()

    async def generate(self, history: list, source: str | None, *filled) -> AsyncIterator[tuple]:
        form, run = Form(source and str(source), *filled), Run()
        yield shown(cards.message("Preparing"), run=run)
        try:
            async with self.preparing:
                job = await asyncio.to_thread(self._submit, form, run)
        except Cancelled:
            yield shown(cards.message("Cancelled."), run=None)
        except (QueueFull, *expected_errors()) as error:
            line = without_path(told(error, source and Path(source)), self.engine.folder)  # a part is kept there
            yield shown(cards.failure(line), run=None)
        else:
            async for view in self._follow(run, [*self._known(history), job]):
                yield view

    async def restore(self, history: list) -> AsyncIterator[tuple]:
        """A page that is loaded shows the takes that its browser has seen, and goes on with what it waited for."""
        jobs = self._known(history)
        finished = [job for job in jobs if job.state == State.DONE]
        yield shown("", run=None, history=finished, takes=finished)
        if jobs and jobs[-1].state != State.DONE:
            async for view in self._follow(Run(jobs[-1]), jobs):
                yield view

    def cancel(self, run: Run | None) -> None:
        if run is not None:
            run.cancel()

    def look(self, source: str | None) -> tuple:
        """What was dropped, or taken away: status, preview, the two ends of the part, and what can be chosen."""
        status, preview, length, moves = "", "", None, False
        if source is not None:
            try:
                info = probe(source)
                if info.kind == "audio":
                    raise MediaError("the file has sound but no pictures: drop a video or a picture")
                preview, length, moves = cards.source(source, info), info.duration, info.kind == "video"
            except expected_errors() as error:
                status = cards.failure(told(error, Path(source)))
        return status, preview, *ends(0.0, length, length), gr.update(visible=not moves)

    def again(self, event: gr.EventData) -> tuple:
        """The form as it was for a take, with that take's seed; the fields, and then what `look` gives but the ends."""
        try:
            job = self.engine.job(str(event.job))
            seed = job.takes[int(event.take)].seed
        except (AttributeError, LookupError, TypeError, ValueError):  # also what is not from our script
            return *[gr.skip()] * len(fields(Form)), cards.failure("this take is gone"), gr.skip(), gr.skip()
        form = replace(self.forms.get(job) or Form.of(job), seed=seed, takes=1)
        status = f"The form is as it was for seed {seed}. Change words, steps or strength, and generate."
        if form.source is not None and not Path(form.source).exists():
            form = replace(form, source=None)
        if form.source is None and job.ask.source is not None:
            status += " The clip is no longer here: drop it again."
        _, preview, start, end, duration = self.look(form.source)
        if form.end and preview:
            start, end = start | {"value": form.start}, end | {"value": form.end}
        kept, _, _, *others = astuple(form)
        return kept, start, end, *others, cards.message(status), preview, duration

    def _submit(self, form: Form, run: Run) -> Job:
        run.check()
        self.engine.check_room()  # before anything is cut
        with tempfile.TemporaryDirectory(prefix=PARTS, dir=self.engine.folder) as folder:
            run.job = self.engine.submit(form.ask(self.engine.variants[form.variant], Path(folder), run.check))
        self.forms[run.job] = form
        if run.stopped.is_set():
            run.job.cancel()
        return run.job

    async def _follow(self, run: Run, jobs: list[Job]) -> AsyncIterator[tuple]:
        job, seen = run.job, None
        while not (job.over or job.postponed or run.stopped.is_set()):  # a cancelled job ends by itself
            before = self._before(job)
            if (job.version, before) != seen:
                first = {"run": run, "history": jobs} if seen is None else {}
                seen = job.version, before
                yield shown(cards.progress(job, before), busy=True, **first)
            await asyncio.sleep(LOOK)
        finished = [job for job in jobs if job.state == State.DONE]
        waits = not (job.over or run.stopped.is_set())
        if job.state == State.DONE:
            status = cards.message(f"Done. Takes are kept for {self.engine.expire / 60:.0f} minutes.")
        elif job.state == State.FAILED:
            status = cards.failure(job.error)
        elif waits:
            status = cards.message("The server is being restarted: load the page again in a moment.")
        else:
            status = cards.message("Cancelled.")
        yield shown(status, run=None, history=jobs if waits else finished, takes=finished)

    def _before(self, job: Job) -> int:
        queued = self.engine.queued
        return queued.index(job) + len(self.engine.running) if job in queued else 0

    def _known(self, history: list) -> list[Job]:
        jobs = []
        for id in history[-MAX_HISTORY:]:
            try:
                jobs.append(self.engine.job(str(id)))
            except NoSuchJob:
                continue  # it has expired
        return [job for job in jobs if job.state == State.DONE or not (job.cancelling or job.state == State.CANCELLED)]


def shown(status: str, *, busy: bool | None = None, run=gr.skip(), history=None, takes=None) -> tuple:  # noqa: B008
    """One state of the page, in the order of its outputs: run, history, takes, status, and the two buttons."""
    busy = run is not None if busy is None else busy
    history = gr.skip() if history is None else [job.id for job in history]
    takes = gr.skip() if takes is None else list(made(takes))
    return run, history, takes, status, gr.update(interactive=not busy), gr.update(interactive=busy)


def made(jobs: Iterable[Job]) -> Iterator[dict]:
    for job in jobs:
        try:
            yield {"id": job.id, "html": cards.card(job)}
        except (NoSuchJob, MediaError):
            continue  # it has expired just now


def ends(start: float, end: float | None, length: float | None) -> tuple[dict, dict]:
    """The two sliders of a part; hidden where there is no length."""
    if not length:
        return (gr.update(visible=False, value=0),) * 2
    longest = round(length, 2)
    return tuple(gr.update(visible=True, maximum=longest, value=min(at, longest)) for at in (start, end))
