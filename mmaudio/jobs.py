"""What `mmaudio generate` has to do: a job per input, the names of its results, and files that appear whole or not."""

import contextlib
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmaudio.console import UsageError
from mmaudio.tables import TOO_MANY, number, read_rows

if TYPE_CHECKING:
    from mmaudio.generate_command import DemoConfig

LIST_COLUMNS = ("video", "prompt", "negative_prompt", "seed", "duration", "output")
CONTAINERS = (".mkv", ".mov", ".webm", ".m4v")  # others become .mp4
RESULT_SUFFIXES = (".flac", ".mp4", *CONTAINERS)


@dataclass(frozen=True)
class Job:
    """One input and the stem of its results."""

    source: Path | None
    is_image: bool
    stem: str
    changes: Mapping[str, Any] = field(default_factory=dict)  # settings of its own
    error: str = ""  # why it cannot be done: a bad row of a list

    def settings(self, config: "DemoConfig") -> "DemoConfig":
        return replace(config, **self.changes)


def file_safe(text: str, limit: int = 60) -> str:
    """A prompt as a file name."""
    return re.sub(r"[^\w-]+", "_", text.strip().lower()).strip("_")[:limit] or "sound"


def is_list(path: str) -> bool:
    return Path(path).suffix.lower() == ".csv"


def plan_jobs(config: "DemoConfig") -> list[Job]:
    """The jobs in the order given; equal names of results get numbers.

    Raises:
        UsageError: nothing to do, or too much at once.
        MediaError, ValueError, OSError: a path yields nothing, or a list cannot be read.
    """
    from mmaudio.media import find_videos

    if config.video and config.image:
        raise UsageError("give --video or --image, not both")
    if any(map(is_list, config.video)):
        if len(config.video) > 1:
            raise UsageError("give one list, or videos and folders, not both; a list may name any number of videos")
        jobs = listed_jobs(Path(config.video[0]))
    elif config.image is not None:
        jobs = [Job(Path(config.image), True, Path(config.image).stem)]
    elif config.video:
        jobs = [Job(source, False, source.stem) for source in find_videos(config.video)]
    elif config.audio is not None:
        return [Job(None, False, f"{Path(config.audio).stem}_edited")]
    elif config.prompt:
        return [Job(None, False, file_safe(config.prompt))]
    else:
        raise UsageError("nothing to do: give --video, --image or --prompt (see --help)")
    planned, taken = [], set()
    for job in jobs:
        stems = itertools.chain([job.stem], (f"{job.stem}_{n}" for n in itertools.count(2)))
        for named in (replace(job, stem=stem) for stem in stems):
            names = {str(path).casefold() for pair in targets(config, named) for path in pair if path is not None}
            if not names & taken:
                break
        planned.append(named)
        taken |= names
    return planned


def listed_jobs(path: Path) -> list[Job]:
    """The rows of a list; videos are beside it unless their paths are absolute. A bad row is a job with an error."""
    jobs = []
    for line, row in read_rows(path, LIST_COLUMNS, ("video",)):
        video, prompt, output = row["video"], row.get("prompt", ""), row.get("output", "")
        changes: dict[str, Any] = {name: row[name] for name in ("prompt", "negative_prompt") if row.get(name)}
        error = ""
        try:
            if None in row:
                raise ValueError(TOO_MANY)
            if not video and not prompt:
                raise ValueError("names neither a video nor a prompt")
            if output and (output in (".", "..") or re.search(r"[/\\\0]", output)):
                raise ValueError(f"output is {output!r}, expected a name without folders")
            changes |= {
                name: number(row[name], name, kind)
                for name, kind in (("seed", int), ("duration", float))
                if row.get(name)
            }
        except ValueError as problem:
            error = f"{path}: row {line}: {problem}"
        source = path.parent / video if video else None
        name = Path(output).stem if output.lower().endswith(RESULT_SUFFIXES) else output
        jobs.append(Job(source, False, name or (source.stem if source else file_safe(prompt)), changes, error))
    if not jobs:
        raise UsageError(f"{path}: lists nothing; write one line per video under the header")
    return jobs


def targets(config: "DemoConfig", job: Job) -> list[tuple[Path, Path | None]]:
    """(sound, video or None) for every take of a job that is kept."""
    folder, names, count = Path(config.output), [job.stem], config.pick or config.num_samples
    if count > 1:
        names = [f"{job.stem}_{i + 1}" for i in range(count)]
    with_video = job.source is not None and not config.skip_video_composite
    suffix = ".mp4"
    if with_video and job.source.suffix.lower() in CONTAINERS:
        suffix = job.source.suffix.lower()
    return [(folder / f"{n}.flac", folder / f"{n}{suffix}" if with_video else None) for n in names]


def existing_results(config: "DemoConfig", job: Job) -> list[Path] | None:
    """The results of a job if all are there; a video may have become Matroska (see `media.mux`)."""
    found = []
    for path in (path for pair in targets(config, job) for path in pair if path is not None):
        here = next((p for p in (path, path.with_suffix(".mkv")) if p.exists()), None)
        if here is None or (here != path and path.suffix == ".flac"):
            return None
        found.append(here)
    return found


def check_targets(config: "DemoConfig", job: Job) -> None:
    """UsageError if results are there already, or would replace what they are made from."""
    for path in (path for pair in targets(config, job) for path in pair if path is not None and path.exists()):
        if not (config.overwrite or config.skip_existing):
            raise UsageError(f"{path}: exists already; add --overwrite or choose another --output")
        for source in (job.source, config.audio):
            if source is not None and Path(source).exists() and path.samefile(source):
                raise UsageError(f"{path}: is the source itself; choose another --output")


def check_writable(folder: Path) -> None:
    """Fail before the work, not after it. Leaves nothing behind that was not there."""
    try:
        existing = folder
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir():
            raise UsageError(f"{folder}: cannot be the output folder, {existing} is a file; choose another --output")
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UsageError(f"{folder}: cannot write here ({error.strerror}); choose another --output") from error


@contextlib.contextmanager
def staged(output: Path, overwrite: bool):
    """A hidden folder inside `output` and a list for what is written there; all of it moves up at the end, or nothing.

    Half a job's results would look like a whole one's. An output folder that was not there before a failure goes too.
    """
    new = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    folder, written, moved = Path(tempfile.mkdtemp(prefix=".mmaudio-", dir=output)), [], []
    try:
        yield folder, written
        for path in written:  # a container that could not hold the video may have changed a name since the check
            if not overwrite and (output / path.name).exists():
                raise UsageError(f"{output / path.name}: exists already; add --overwrite or choose another --output")
        for path in written:
            target = output / path.name
            if not target.exists():  # an older file that is replaced is not ours to remove
                moved.append(target)
            os.replace(path, target)
    except BaseException:
        for path in moved:
            path.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if new and not any(output.iterdir()):
            output.rmdir()
