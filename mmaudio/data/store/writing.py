"""Writing a store: streamed, and whole or not at all."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from mmaudio.data.store.layout import (
    CAPTIONS,
    FIELDS,
    FORMAT,
    LATENTS,
    META,
    ROWS,
    VIDEO,
    Progress,
    StoreError,
    StoreMeta,
    StoreRow,
)
from mmaudio.data.store.reading import map_tensors
from mmaudio.data.store.statistics import LatentStatistics, finite_rows
from mmaudio.sequence import SequenceSpec


def write_store(
    path: str | os.PathLike,
    rows: Iterable[StoreRow],
    texts: Iterable[tuple[str, Tensor]],
    *,
    count: int,
    variant: str,
    spec: SequenceSpec,
    identity: dict[str, str],
    latent_dtype: torch.dtype = torch.float16,
    progress: Progress | None = None,
) -> StoreMeta:
    """Write a store, whole or not at all; one row at a time is in memory.

    Args:
        path: a folder that does not exist yet.
        rows: exactly `count` of them with different ids, all with clip and sync or all without.
        texts: each distinct caption of the rows with its (77, text_dim) features, taken before the rows. Give "" as
            well: a network keeps the features of the empty string.
        identity: checksums of what extracted it: "vae", "clip" and "sync" by `mmaudio.weights.fingerprint`, and
            whatever else should be remembered.
        latent_dtype: of mean and std; torch.float16 or torch.float32.
        progress: called with (rows written, count).

    Raises:
        StoreError: the folder exists, the disk is full, a row has other shapes than `spec` says or values that are not
            finite in the stored precision, an id is twice, a caption has no text. Nothing is left under `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    with _exclusive(path):
        if path.exists():
            raise StoreError(f"{path}: exists already; remove it or choose another name")
        try:
            with _disk_errors(path):
                shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
                temporary.mkdir()
            with _Writer(path, temporary, spec, latent_dtype) as writer:
                for caption, features in texts:
                    writer.add_text(caption, features)
                for row in rows:
                    writer.add_row(row)
                    if progress:
                        progress(len(writer.index), count)
                meta = writer.finish(count, variant, identity)
            with _disk_errors(path):
                os.rename(temporary, path)
                _sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return meta


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:  # an OSError, too
            raise StoreError(f"{path}: another process is writing it; wait for that") from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


class _Writer(ExitStack):
    """The files of a store in the making, in the folder `temporary`; `path` is for messages."""

    def __init__(self, path: Path, temporary: Path, spec: SequenceSpec, latent_dtype: torch.dtype):
        super().__init__()
        self.path, self.folder, self.spec = path, temporary, spec
        self.dtypes = dict.fromkeys(FIELDS, torch.bfloat16) | dict.fromkeys(LATENTS, latent_dtype)
        self.lengths = dict.fromkeys(LATENTS, spec.latent_len) | {"clip": spec.clip_len, "sync": spec.sync_len}
        self.files: dict[str, BinaryIO] = {}
        self.shapes: dict[str, list[int]] = {}  # (rows so far, length, channels)
        self.captions: dict[str, int] = {}  # caption -> row of text
        self.index: dict[str, int] = {}  # id -> row of text, or -1

    def add_text(self, caption: str, features: Tensor) -> None:
        if caption in self.captions:
            raise StoreError(f"{self.path}: caption {caption!r} is in the texts twice")
        self.captions[caption] = len(self.captions)
        self._append("text", features, f"caption {caption!r}")

    def add_row(self, row: StoreRow) -> None:
        if not row.id or any(c in row.id for c in "\t\r\n"):
            raise StoreError(f"{self.path}: id {row.id!r} is empty or has a tab or line break in it")
        if row.id in self.index:
            raise StoreError(f"{self.path}: id {row.id!r} is there twice")
        if row.caption is not None and row.caption not in self.captions:
            raise StoreError(f"{self.path}: row {row.id}: no text features for its caption {row.caption!r}")
        there = [name for name in (*LATENTS, *VIDEO) if getattr(row, name) is not None]
        if there not in ([*LATENTS], [*LATENTS, *VIDEO]) or (self.index and (VIDEO[0] in there) != self.has_video):
            raise StoreError(f"{self.path}: row {row.id}: clip and sync must be in all rows of a store or in none")
        for name in there:
            self._append(name, getattr(row, name), f"row {row.id}")
        self.index[row.id] = -1 if row.caption is None else self.captions[row.caption]

    @property
    def has_video(self) -> bool:
        return VIDEO[0] in self.files

    def _append(self, name: str, value: Tensor, whose: str) -> None:
        if name not in self.files:
            with _disk_errors(self.path):
                file = open(self.folder / f"{name}.memmap", "wb", buffering=0)  # noqa: SIM115 (the stack closes it)
                self.files[name] = self.enter_context(file)
            self.shapes[name] = [0, self.lengths.get(name, value.shape[0]), value.shape[-1]]
        expected = tuple(self.shapes[name][1:])
        if tuple(value.shape) != expected:
            raise StoreError(f"{self.path}: {whose}: {name} has shape {tuple(value.shape)}, expected {expected}")
        value = value.detach().to("cpu", self.dtypes[name]).contiguous()
        if not finite_rows(value[None]):
            raise StoreError(f"{self.path}: {whose}: {name} holds values that are not finite in {value.dtype}")
        content = memoryview(value.view(torch.uint8).numpy()).cast("B")
        with _disk_errors(self.path):
            while content:  # a file without buffer may take a part only; with one, closing it would fail once more
                content = content[self.files[name].write(content) :]
        self.shapes[name][0] += 1

    def finish(self, count: int, variant: str, identity: dict[str, str]) -> StoreMeta:
        if len(self.index) != count or count == 0:
            raise StoreError(f"{self.path}: got {len(self.index)} rows, expected {count or 'at least one'}")
        with _disk_errors(self.path):
            self._write_tensordict_meta()
            statistics = LatentStatistics.of(map_tensors(self.folder, {name: name for name in LATENTS})["mean"])
            meta = StoreMeta(
                count, variant, self.spec, dict(identity), statistics.mean.tolist(), statistics.std.tolist()
            )
            lines = [f"{name}\t{row}\t{caption}\n" for row, (name, caption) in enumerate(self.index.items())]
            (self.folder / ROWS).write_text("".join(["id\trow\tcaption\n", *lines]), encoding="utf-8", newline="\n")
            (self.folder / CAPTIONS).write_text(json.dumps(list(self.captions), ensure_ascii=False), encoding="utf-8")
            content = json.dumps({"format": FORMAT} | dataclasses.asdict(meta), indent=2)
            (self.folder / META).write_text(content, encoding="utf-8")
            for path in (*self.folder.iterdir(), self.folder):
                _sync(path)
        return meta

    def _write_tensordict_meta(self) -> None:
        """meta.json, by tensordict itself from the files in place."""
        from tensordict import MemoryMappedTensor, TensorDict  # takes seconds, and only writing needs it

        tensors = {
            name: MemoryMappedTensor.from_filename(self.folder / f"{name}.memmap", self.dtypes[name], shape)
            for name, shape in self.shapes.items()
        }
        TensorDict(tensors, []).memmap_(self.folder)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StoreError(f"{path}: cannot write ({reason}); make room or choose another disk") from error


def _sync(path: Path) -> None:
    """To the disk, or a power cut could leave the final name on empty files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
