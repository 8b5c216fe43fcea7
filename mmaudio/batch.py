"""Doing the jobs of `mmaudio generate`: files read ahead, batches of equal length, takes picked, one line per input."""

import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from mmaudio.console import StageBar, error_line, expected_errors, log
from mmaudio.jobs import Job, existing_results, staged, targets

if TYPE_CHECKING:
    from mmaudio.generate_command import DemoConfig
    from mmaudio.generation import Generation
    from mmaudio.pipeline import Pipeline
    from mmaudio.request import Request

RESULTS = "results.jsonl"
READ_AHEAD = 2  # inputs read beyond those that wait for a batch; 8 s are up to 59 MB of frames


class Results:
    """results.jsonl: a line for every input that was finished ("done"), failed, or found finished ("existing").

    A line that a killed run left half-written is dropped; whole ones stay.
    """

    def __init__(self, path: Path):
        self.path = path
        self.outputs: set[str] = set()
        if path.exists():
            data = path.read_bytes()
            if data and not data.endswith(b"\n"):
                with path.open("r+b") as file:
                    file.truncate(data.rfind(b"\n") + 1)
            for line in data.splitlines():
                try:
                    self.outputs |= set(json.loads(line)["outputs"])
                except (ValueError, KeyError, TypeError):
                    continue  # half a line, or not ours

    def add(self, state: str, job: Job, outputs: Sequence[Path] = (), **facts) -> None:
        row = {
            "state": state,
            "input": None if job.source is None else str(job.source),
            "outputs": [str(path) for path in outputs],
            **facts,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.outputs |= set(row["outputs"])


def without_finished(config: "DemoConfig", jobs: Sequence[Job], results: Results) -> list[Job]:
    """The jobs whose results are not all there; of the others there is a line in `results`."""
    left = []
    for job in jobs:
        found = None if job.error else existing_results(config, job)
        if found is None:
            left.append(job)
        elif not {str(path) for path in found} <= results.outputs:  # by a run that was killed before it could say so
            results.add("existing", job, found)
    if len(left) < len(jobs):
        log(f"{len(jobs) - len(left)} of {len(jobs)} inputs have their results already: skipped")
    return left


def read_ahead(
    read: Callable[[Job], "Request"], jobs: Sequence[Job], ahead: int
) -> Iterator[tuple[Job, Callable[[], "Request"]]]:
    """Each job, and what gives its request or raises. A thread reads files `ahead` jobs before they are asked."""
    pool, waiting = ThreadPoolExecutor(1), deque()
    try:
        for job in jobs:
            waiting.append((job, pool.submit(read, job).result))
            if len(waiting) > ahead:
                yield waiting.popleft()
        yield from waiting
    finally:
        pool.shutdown(cancel_futures=True)


class Runner:
    """Runs jobs; owns what was done, what failed, and where that is written."""

    def __init__(self, pipe: "Pipeline", config: "DemoConfig", results: Results | None = None, **reading):
        """results: None is one job alone, whose errors are raised. reading: more for `read_request`."""
        self.pipe, self.config, self.results, self.reading = pipe, config, results, reading
        self.failures = 0

    def run(self, jobs: Sequence[Job]) -> None:
        config, waiting = self.config, []
        if self.results is None:
            (job,) = jobs
            bar = StageBar()
            try:
                request = self.read(job, bar)
            finally:
                bar.close()
            self.finish([(job, request)])
            return
        for i, (job, request) in enumerate(read_ahead(self.read, jobs, READ_AHEAD + config.batch_size), start=1):
            log(f"[{i}/{len(jobs)}] {job.source or job.settings(config).prompt}")
            try:
                request = request()
            except expected_errors() as error:
                self.fail(job, error)
                continue
            if waiting and not fits(waiting[0][1], request):
                self.finish(waiting)
                waiting = []
            waiting.append((job, request))
            if len(waiting) == config.batch_size or request.inputs.windowed:
                self.finish(waiting)
                waiting = []
        if waiting:
            self.finish(waiting)

    def read(self, job: Job, progress=None) -> "Request":
        from mmaudio.request import read_request

        if job.error:
            raise ValueError(job.error)
        settings = job.settings(self.config)
        return read_request(
            self.pipe.variant,
            video=None if job.is_image else job.source,
            image=job.source if job.is_image else None,
            prompt=settings.prompt,
            negative_prompt=settings.negative_prompt,
            duration=settings.duration,
            seed=settings.seed,
            progress=progress,
            **self.reading,
        )

    def finish(self, group: "Sequence[tuple[Job, Request]]") -> None:
        """Generate a batch and write its results; if it fails, each of it alone."""
        config, bar = self.config, StageBar()
        try:
            takes = self.pipe.generate(
                [request for _, request in group],
                num_steps=config.num_steps,
                cfg_strength=config.cfg_strength,
                num_samples=config.num_samples,
                solver=config.solver,
                mask_away_clip=config.mask_away_clip,
                progress=bar,
            )
        except expected_errors() as error:
            if len(group) == 1:
                self.fail(group[0][0], error)
                return
            takes = None
        finally:
            bar.close()
        if takes is None:
            for one in group:
                self.finish([one])
            return
        for (job, _), generations in zip(group, takes, strict=True):
            try:
                self.write(job, generations)
            except expected_errors() as error:
                self.fail(job, error)
        loading = sum(seconds for stage, seconds in self.pipe.timings.items() if stage.startswith("load "))
        took, made = sum(self.pipe.timings.values()) - loading, sum(one[0].duration for one in takes)
        log(f"{made:.2f} s of sound in {took:.1f} s (and {loading:.1f} s loading)")

    def write(self, job: Job, generations: "Sequence[Generation]") -> None:
        from mmaudio.loudness import normalize_loudness

        config, facts = self.config, {}
        for note in generations[0].notes:
            log(f"note: {note}")
        if config.pick is not None:
            from mmaudio.ranking import SCORE, pick

            generations, scores, line = pick(generations, config.pick)
            facts = {"score": SCORE, "scores": [s if math.isfinite(s) else None for s in scores]}
            log(line)
        output = Path(config.output)
        with staged(output, config.overwrite or config.skip_existing) as (folder, written):
            for generation, (sound, video) in zip(generations, targets(config, job), strict=True):
                if config.lufs is not None:
                    generation.audio, note = normalize_loudness(generation.audio, generation.sample_rate, config.lufs)
                    log(f"note: {note}")
                written.append(generation.save(folder / sound.name))
                if video is not None:
                    result = generation.save_video(folder / video.name, mix_original=config.mix_original)
                    written.append(result.path)
                    for note in dict.fromkeys(result.notes):
                        log(f"note: {note}")
        paths = [output / path.name for path in written]
        if self.results is not None:
            seeds = [generation.seed for generation in generations]
            self.results.add("done", job, paths, seeds=seeds, **facts, settings=self.told(job), error=None)
        for path in paths:
            print(path, flush=True)

    def told(self, job: Job) -> dict:
        """The settings that decide what a job's sound is."""
        settings = vars(job.settings(self.config))
        names = (
            "prompt", "negative_prompt", "seed", "duration", "num_samples", "num_steps", "cfg_strength", "solver",
            "mask_away_clip", "split_scenes", "lora", "lora_strength", "lufs",
        )  # fmt: skip
        return {"variant": self.pipe.variant.name} | {name: settings[name] for name in names}

    def fail(self, job: Job, error: Exception) -> None:
        if self.results is None:
            raise error
        self.failures += 1
        line = error_line(error)
        log(line)
        self.results.add("failed", job, settings=self.told(job), error=line.removeprefix("error: "))


def fits(one: "Request", other: "Request") -> bool:
    """Whether two inputs can be in one batch."""
    return one.inputs.spec == other.inputs.spec and not other.inputs.windowed
