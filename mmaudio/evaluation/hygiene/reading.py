"""All files of the sets looked at, by several processes; what was looked at before is not looked at again."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from mmaudio.evaluation.cache import file_key
from mmaudio.evaluation.hygiene.errors import HygieneError
from mmaudio.evaluation.hygiene.looking import Look, look
from mmaudio.evaluation.hygiene.sets import Item
from mmaudio.evaluation.hygiene.store import Store
from mmaudio.media import MediaError

AT_ONCE = 256  # tasks between two commits


def read_clips(
    items: list[Item], store: Store, duration: float, workers: int
) -> tuple[list[str | None], dict[int, str]]:
    """(Key of each item in the store, None where there is none; reasons of those that cannot be read).

    Items without a path have neither.

    Raises:
        HygieneError: a worker died.
    """
    with _mapping(workers) as each:
        contents, reasons = _hashed(sorted({str(item.path) for item in items if item.path}), store, each)
        keys: list[str | None] = []
        tasks: dict[str, tuple[Path, float, float]] = {}
        for item in items:
            content = contents.get(str(item.path))
            keys.append(None if content is None else f"{content} {item.start:g} {duration:g}")
            if content is not None:
                tasks.setdefault(keys[-1], (item.path, item.start, duration))
        failed = _looked(tasks, store, each)
    failures = {}
    for i, item in enumerate(items):
        reason = reasons.get(str(item.path)) or failed.get(keys[i])
        if reason is not None:
            failures[i], keys[i] = reason, None
    return keys, failures


Mapping = Callable[[Callable, list], Iterable]


@contextmanager
def _mapping(workers: int) -> Iterator[Mapping]:
    """`map`, in this process or in several."""
    if workers <= 1:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        try:
            yield pool.map
        except BrokenProcessPool as error:
            raise HygieneError(
                "a process died while it read a file; run the same command again with --workers 1 to see which one"
            ) from error


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _hashed(paths: list[str], store: Store, each: Mapping) -> tuple[dict[str, str], dict[str, str]]:
    """(Path -> hash of its content, path -> why it cannot be read)."""
    known, contents, reasons, todo = store.contents(), {}, {}, []
    for path in paths:
        size, time, content = known.get(path, (None, None, None))
        try:
            found = os.stat(path)
        except OSError as error:
            reasons[path] = f"{path}: cannot be read ({error.strerror})"
            continue
        if content is not None and (found.st_size, found.st_mtime_ns) == (size, time):
            contents[path] = content
        else:
            todo.append(path)
    for rows in _blocks(_content, todo, each, "read"):
        store.add_files([row for row in rows if row[3] is not None])
        for path, _, _, content in rows:
            if content is None:
                reasons[path] = f"{path}: cannot be read"
            else:
                contents[path] = content
    return contents, reasons


def _content(path: str) -> tuple[str, int, int, str | None]:
    try:
        if not os.path.isfile(path):  # a pipe would keep the run waiting
            return path, 0, 0, None
        found = os.stat(path)
        return path, found.st_size, found.st_mtime_ns, file_key(Path(path))
    except OSError:
        return path, 0, 0, None


def _looked(tasks: dict[str, tuple[Path, float, float]], store: Store, each: Mapping) -> dict[str, str]:
    """Key -> why it cannot be used; the others are in the store. What failed in an earlier run is tried again."""
    done, failed = store.keys(), {}
    todo = [(key, *task) for key, task in tasks.items() if key not in done]
    for rows in _blocks(_look, todo, each, "look and listen"):
        store.add((key, found) for key, found in rows if isinstance(found, Look))
        failed |= {key: found for key, found in rows if isinstance(found, str)}
    return failed


def _look(task: tuple[str, Path, float, float]) -> tuple[str, Look | str]:
    key, path, start, duration = task
    try:
        return key, look(path, start, duration)
    except (MediaError, ValueError) as error:
        return key, " ".join(str(error).split())
    except Exception as error:  # whatever one file among many thousands does must not end the run
        return key, " ".join(f"{path}: {type(error).__name__}: {error}".split())


def _blocks(work: Callable, tasks: list, each: Mapping, what: str) -> Iterator[list]:
    """Results in blocks, with a progress bar."""
    with tqdm(total=len(tasks), desc=what, unit="file", disable=None) as bar:
        waiting = iter(tasks)
        while some := list(islice(waiting, AT_ONCE)):
            results = []
            for result in each(work, some):
                results.append(result)
                bar.update()
            yield results
