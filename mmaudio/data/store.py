"""The feature store: what training reads instead of media, as memory-mapped tensors in a folder.

    NAME/  meta.json        tensordict's: name, dtype and shape of every tensor; TensorDict.load_memmap reads it
           mean.memmap      (N, L, C) fp16   posterior means of the latents, unnormalised
           std.memmap       (N, L, C) fp16   their standard deviations
           clip.memmap      (N, T, clip_dim) bf16   L2-normalised CLIP frames; only where there is video
           sync.memmap      (N, S, sync_dim) bf16   Synchformer tokens; only where there is video
           text.memmap      (K, 77, text_dim) bf16  L2-normalised CLIP tokens of each distinct caption
           captions.json    the K captions
           rows.tsv         id and number of the caption (-1: none) of each of the N rows
           store.json       variant, sequence spec, checksums of the encoders, statistics of the latents

Rows are found by id or by their place in rows.tsv. The reference's own layout is read, too (`ReferenceStore`).
"""

import csv
import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from mmaudio.data.sampler import TensorBatch
from mmaudio.sequence import SequenceSpec

FORMAT = 1
META, ROWS, CAPTIONS = "store.json", "rows.tsv", "captions.json"
LATENTS, VIDEO = ("mean", "std"), ("clip", "sync")
FIELDS = (*LATENTS, *VIDEO, "text")
DTYPES = {str(dtype): dtype for dtype in (torch.float16, torch.bfloat16, torch.float32)}
REFERENCE_NAMES = {
    "mean": "mean", "std": "std", "clip": "clip_features", "sync": "sync_features", "text": "text_features"
}  # fmt: skip
BLOCK_BYTES = 64 << 20  # of what is read at once when everything is read

Progress = Callable[[int, int], None]  # (done, in all)


class StoreError(Exception):
    """A feature store cannot be read, written or used. One line: path, got, expected, remedy."""


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and unbiased standard deviation of each latent channel over rows and frames, float64."""

    count: int  # frames of all rows
    mean: Tensor  # (C,)
    std: Tensor  # (C,)

    @classmethod
    def of(cls, latents: Tensor) -> "LatentStatistics":
        """Of (N, L, C) latents, which are read in blocks."""
        return cls.pooled(cls._of_block(block) for _, block in _blocks(latents))

    @classmethod
    def _of_block(cls, latents: Tensor) -> "LatentStatistics":
        frames = latents.double().flatten(0, 1)  # (N L, C)
        return cls(len(frames), frames.mean(0), frames.std(0))

    @classmethod
    def pooled(cls, parts: Iterable["LatentStatistics"]) -> "LatentStatistics":
        """Of the union of disjoint sets: exact, not an average of averages."""
        count, mean, squares = 0, 0.0, 0.0  # squares: sum of squared deviations from the mean
        for part in parts:
            total, shift = count + part.count, part.mean - mean
            squares = squares + part.std.square() * (part.count - 1) + shift.square() * (count * part.count / total)
            mean = mean + shift * (part.count / total)
            count = total
        return cls(count, mean, (squares / (count - 1)).sqrt())


@dataclass(frozen=True)
class StoreMeta:
    """What store.json holds. A folder in the reference's layout tells none of the optional things."""

    count: int  # rows
    variant: str | None = None  # whose encoders and codec made it
    spec: SequenceSpec | None = None
    identity: dict[str, str] = dataclasses.field(default_factory=dict)  # "vae", "clip", "sync": content checksums, ...
    latent_mean: list[float] | None = None  # per channel, see LatentStatistics
    latent_std: list[float] | None = None


@dataclass
class StoreRow:
    id: str
    caption: str | None
    mean: Tensor  # (L, C)
    std: Tensor  # (L, C)
    clip: Tensor | None  # (T, clip_dim)
    sync: Tensor | None  # (S, sync_dim)


@dataclass
class FeatureBatch(TensorBatch):
    """Rows of one or several stores, in the precision they are stored in. What a row lacks is zero."""

    captions: list[str | None]
    mean: Tensor  # (B, L, C)
    std: Tensor  # (B, L, C)
    clip: Tensor  # (B, T, clip_dim)
    sync: Tensor  # (B, S, sync_dim)
    text: Tensor  # (B, 77, text_dim)
    video_exist: Tensor  # (B,) bool
    text_exist: Tensor  # (B,) bool

    @classmethod
    def empty(cls, size: int, shapes: dict[str, tuple[int, ...]], dtypes: dict[str, torch.dtype]) -> "FeatureBatch":
        tensors = {name: torch.zeros(size, *shapes[name], dtype=dtypes[name]) for name in FIELDS}
        exist = {name: torch.zeros(size, dtype=torch.bool) for name in ("video_exist", "text_exist")}
        return cls(ids=[""] * size, captions=[None] * size, **tensors, **exist)


# ---- reading ------------------------------------------------------------------------------------------------------


class FeatureStore:
    """A store, opened: sizes and counts are checked, nothing is read until it is asked for.

    Raises:
        StoreError: no store, damaged, truncated, of another format, or with ids that do not fit.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.meta = _read_meta(self.path)
        self.tensors = _map_tensors(self.path, {name: name for name in FIELDS})
        self.ids, self.caption_index = _read_rows(self.path / ROWS)  # caption_index: row of `text`, -1: no caption
        self.caption_table = _read_captions(self.path / CAPTIONS)
        self._check()

    def _check(self) -> None:
        count, texts = self.meta.count, len(self.caption_table)
        if len(self.ids) != count:
            raise StoreError(f"{self.path}: names {len(self.ids)} ids, expected {count}; write the store again")
        if len(set(self.ids)) != count:
            twice = next(name for i, name in enumerate(self.ids) if name in self.ids[:i])
            raise StoreError(f"{self.path}: id {twice!r} is there twice; ids must be unique")
        for name, tensor in self.tensors.items():
            expected = texts if name == "text" else count
            if tensor.ndim != 3 or len(tensor) != expected:
                raise StoreError(
                    f"{self.path}: {name} has shape {tuple(tensor.shape)}, expected ({expected}, ..., ...)"
                )
        for one, other in (LATENTS, VIDEO):
            shapes = [self.shapes.get(name) for name in (one, other)]
            if None in shapes and (one in LATENTS or shapes != [None, None]):
                raise StoreError(
                    f"{self.path}: holds one of {one} and {other} without the other; write the store again"
                )
        if self.shapes["mean"] != self.shapes["std"]:
            raise StoreError(f"{self.path}: mean is {self.shapes['mean']} per row, but std {self.shapes['std']}")
        if not all(-1 <= index < texts for index in self.caption_index) or (texts and "text" not in self.tensors):
            raise StoreError(f"{self.path}: rows refer to captions that are not there; write the store again")

    def __getstate__(self) -> Path:
        return self.path  # a loader's process opens the files itself: mapped tensors would be sent as copies

    def __setstate__(self, path: Path) -> None:
        self.__init__(path)

    def __len__(self) -> int:
        return self.meta.count

    @property
    def has_video(self) -> bool:
        return "clip" in self.tensors

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """(length, channels) of each field that is there."""
        return {name: tuple(tensor.shape[1:]) for name, tensor in self.tensors.items()}

    @property
    def dtypes(self) -> dict[str, torch.dtype]:
        return {name: tensor.dtype for name, tensor in self.tensors.items()}

    def caption(self, row: int) -> str | None:
        index = self.caption_index[row]
        return None if index < 0 else self.caption_table[index]

    def latent_statistics(self) -> LatentStatistics:
        """As stored; computed, by reading all means, where the layout has no place for them."""
        if self.meta.latent_mean is None:
            return LatentStatistics.of(self.tensors["mean"])
        mean, std = (torch.tensor(x, dtype=torch.float64) for x in (self.meta.latent_mean, self.meta.latent_std))
        return LatentStatistics(len(self) * self.shapes["mean"][0], mean, std)

    def fill(
        self, batch: FeatureBatch, places: list[int], rows: list[int], *, video: bool = True, text: bool = True
    ) -> None:
        """Copy `rows` to `places` of a batch of zeros; without video or text as if the store had none."""
        pairs = list(zip(places, rows, strict=True))
        for name in (*LATENTS, *VIDEO) if video and self.has_video else LATENTS:
            source, target = self.tensors[name], getattr(batch, name)
            for place, row in pairs:  # straight into the batch: faster than a gather and a scatter
                target[place] = source[row]
        for place, row in pairs:
            batch.ids[place] = self.ids[row]
            batch.video_exist[place] = video and self.has_video
            index = self.caption_index[row]
            if text and index >= 0:
                batch.text[place] = self.tensors["text"][index]
                batch.text_exist[place] = True
                batch.captions[place] = self.caption_table[index]

    def rows(self, indices: list[int]) -> FeatureBatch:
        shapes = dict.fromkeys(FIELDS, (0, 0)) | self.shapes
        dtypes = dict.fromkeys(FIELDS, torch.float32) | self.dtypes
        batch = FeatureBatch.empty(len(indices), shapes, dtypes)
        self.fill(batch, list(range(len(indices))), indices)
        return batch


class ReferenceStore(FeatureStore):
    """A folder as the reference implementation writes it: float32, one text feature per row.

    The ids and captions are in a table with the columns id and label, or id and caption, which lies beside the folder
    under its name plus .tsv, or as the only .tsv inside it.

    Raises:
        StoreError: see FeatureStore; or the table is missing.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.tensors = _map_tensors(self.path, REFERENCE_NAMES)
        self.ids, self.caption_table = _read_reference_table(self.path)
        self.caption_index = list(range(len(self.ids)))  # every row has a text
        self.meta = StoreMeta(count=len(self.tensors["mean"]))
        self._check()


def open_store(path: str | os.PathLike) -> FeatureStore:
    """Ours or the reference's, by what is in the folder.

    Raises:
        StoreError: see FeatureStore.
    """
    path = Path(path)
    if not path.is_dir():
        raise StoreError(f"{path}: no such folder; make a feature store with scripts/extract_features.py")
    if (path / META).exists():
        return FeatureStore(path)
    if (path / "meta.json").exists():
        return ReferenceStore(path)
    raise StoreError(f"{path}: is no feature store (neither {META} nor meta.json in it); check the path")


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{path}: cannot read ({error.strerror})") from error
    except ValueError as error:  # no UTF-8, or no JSON
        raise StoreError(f"{path}: damaged ({error})") from error


def _read_meta(folder: Path) -> StoreMeta:
    path = folder / META
    found = _read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        got = found.get("format") if isinstance(found, dict) else None
        raise StoreError(f"{path}: format {got!r}, this version of mmaudio reads {FORMAT}")
    try:
        return StoreMeta(
            count=int(found["count"]), variant=found["variant"], spec=SequenceSpec(**found["spec"]),
            identity=dict(found["identity"]), latent_mean=list(map(float, found["latent_mean"])),
            latent_std=list(map(float, found["latent_std"])),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: damaged ({type(error).__name__}: {error})") from error


def _map_tensors(folder: Path, names: dict[str, str]) -> dict[str, Tensor]:
    """field -> memory-mapped tensor, read-only, of the fields that are there; `names` are those on disk."""
    table = _read_json(folder / "meta.json")
    tensors = {}
    for field, name in names.items():
        entry = table.get(name) if isinstance(table, dict) else None
        if entry is None:
            continue
        try:
            shape, dtype = [int(n) for n in entry["shape"]], DTYPES[entry["dtype"]]
            expected = math.prod(shape) * dtype.itemsize
            if min(shape) <= 0:
                raise ValueError(f"shape {shape}")
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{folder / 'meta.json'}: damaged entry {name!r} ({error})") from error
        path = folder / f"{name}.memmap"
        got = path.stat().st_size if path.is_file() else 0
        if got != expected:
            raise StoreError(f"{path}: has {got} bytes, expected {expected}; truncated or damaged, copy it again")
        # read through a private mapping, so a read-only disk will do
        tensors[field] = torch.from_file(str(path), shared=False, size=math.prod(shape), dtype=dtype).view(shape)
    for name in LATENTS:
        if name not in tensors:
            raise StoreError(f"{folder}: is no feature store: its meta.json lists no {name!r}")
    return tensors


def _read_rows(path: Path) -> tuple[list[str], list[int]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[1:-1]
        pairs = [line.split("\t") for line in lines]
        return [name for name, _ in pairs], [int(index) for _, index in pairs]
    except OSError as error:
        raise StoreError(f"{path}: cannot read ({error.strerror})") from error
    except ValueError as error:
        raise StoreError(f"{path}: damaged, expected an id, a tab and a number on each line ({error})") from error


def _read_captions(path: Path) -> list[str]:
    captions = _read_json(path)
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise StoreError(f"{path}: damaged, expected a list of captions")
    return captions


def _read_reference_table(folder: Path) -> tuple[list[str], list[str]]:
    beside, inside = folder.with_name(f"{folder.name}.tsv"), sorted(folder.glob("*.tsv"))
    if not beside.is_file() and len(inside) != 1:
        raise StoreError(f"{folder}: its table of ids and captions is missing; put it at {beside}")
    path = beside if beside.is_file() else inside[0]
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, delimiter="\t"))
    except OSError as error:
        raise StoreError(f"{path}: cannot read ({error.strerror})") from error
    except (ValueError, csv.Error) as error:
        raise StoreError(f"{path}: is no UTF-8 text table ({error})") from error
    header = lines[0] if lines else []
    caption = next((name for name in ("label", "caption") if name in header), None)
    if "id" not in header or caption is None:
        raise StoreError(f"{path}: the first line must name the columns id and label (or caption), got {header[:5]}")
    rows = [line for line in lines[1:] if line]
    short = next((line for line in rows if len(line) != len(header)), None)
    if short is not None:
        raise StoreError(f"{path}: a line has {len(short)} fields, the header {len(header)}: {short[:3]}")
    return [line[header.index("id")] for line in rows], [line[header.index(caption)] for line in rows]


def _blocks(tensor: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first row, some rows) through the whole of a memory-mapped tensor."""
    size = max(1, BLOCK_BYTES // max(1, tensor[0].nbytes))
    for first in range(0, len(tensor), size):
        yield first, tensor[first : first + size]


# ---- writing ------------------------------------------------------------------------------------------------------


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
        texts: each distinct caption of the rows with its (77, text_dim) features; they are taken before the rows.
        identity: checksums of what extracted it: "vae", "clip" and "sync" by `mmaudio.weights.fingerprint`, and
            whatever else should be remembered.
        latent_dtype: of mean and std; torch.float16 or torch.float32.
        progress: called with (rows written, count).

    Raises:
        StoreError: the folder exists, the disk is full, a row has other shapes than `spec` says or values that are not
            finite in the stored precision, an id is twice, a caption has no text. Nothing is left under `path`.
    """
    path = Path(path)
    temporary, lock = path.with_name(f".{path.name}.tmp"), FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock.acquire(timeout=0):
            if path.exists():
                raise StoreError(f"{path}: exists already; remove it or choose another name")
            shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
            temporary.mkdir()
            try:
                with _Writer(path, temporary, spec, latent_dtype) as writer:
                    meta = writer.write(rows, texts, count, variant, identity, progress)
                os.rename(temporary, path)
                _sync_folder(path.parent)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout as error:
        raise StoreError(f"{path}: another process is writing it; wait for it") from error
    except OSError as error:
        raise StoreError(
            f"{path}: cannot write ({error.strerror or error}); make room or choose another disk"
        ) from error
    return meta


class _Writer(ExitStack):
    """The open files of a store in the making, in the folder `temporary`; `path` is for messages."""

    def __init__(self, path: Path, temporary: Path, spec: SequenceSpec, latent_dtype: torch.dtype):
        super().__init__()
        self.path, self.folder, self.spec = path, temporary, spec
        self.dtypes = dict.fromkeys(FIELDS, torch.bfloat16) | dict.fromkeys(LATENTS, latent_dtype)
        self.lengths = {
            "mean": spec.latent_len, "std": spec.latent_len, "clip": spec.clip_len, "sync": spec.sync_len
        }  # fmt: skip
        self.files, self.shapes, self.counts = {}, {}, {}

    def write(self, rows, texts, count, variant, identity, progress) -> StoreMeta:
        numbers: dict[str, int] = {}  # caption -> row of text
        for caption, features in texts:
            if caption in numbers:
                raise StoreError(f"{self.path}: caption {caption!r} is there twice in the texts")
            numbers[caption] = len(numbers)
            self.append("text", features, f"caption {caption!r}")
        ids: dict[str, int] = {}  # id -> number of its caption
        statistics = LatentStatistics.pooled(self.rows(rows, numbers, ids, count, progress))
        if len(ids) != count:
            raise StoreError(f"{self.path}: got {len(ids)} rows, expected {count}")
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        meta = StoreMeta(count, variant, self.spec, dict(identity), statistics.mean.tolist(), statistics.std.tolist())
        self.text(ROWS, "id\tcaption\n" + "".join(f"{name}\t{number}\n" for name, number in ids.items()))
        self.text(CAPTIONS, json.dumps(list(numbers), ensure_ascii=False))
        self.text(META, json.dumps({"format": FORMAT} | dataclasses.asdict(meta), indent=2))
        self.tensordict_meta()
        _sync_folder(self.folder)
        return meta

    def rows(self, rows, numbers, ids, count, progress) -> Iterator[LatentStatistics]:
        for row in rows:
            if not row.id or any(c in row.id for c in "\t\r\n") or row.id in ids:
                reason = "is there twice" if row.id in ids else "is empty or has a tab or line break"
                raise StoreError(f"{self.path}: id {row.id!r} {reason}")
            if row.caption is not None and row.caption not in numbers:
                raise StoreError(f"{self.path}: row {row.id}: its caption {row.caption!r} has no text features")
            ids[row.id] = -1 if row.caption is None else numbers[row.caption]
            for name in (*LATENTS, *VIDEO):
                if (value := getattr(row, name)) is not None:
                    stored = self.append(name, value, f"row {row.id}")
                    if name == "mean":  # of what training will read, rounding included
                        yield LatentStatistics._of_block(stored[None])
            odd = next((name for name in (*LATENTS, *VIDEO) if self.counts.get(name, len(ids)) != len(ids)), None)
            if odd:
                raise StoreError(f"{self.path}: row {row.id}: {odd} must be in all rows of a store or in none")
            if progress:
                progress(len(ids), count)

    def append(self, name: str, value: Tensor, whose: str) -> Tensor:
        if name not in self.files:
            if name in VIDEO and self.counts.get("mean", 0) > 1:
                raise StoreError(f"{self.path}: {whose}: {name} must be in all rows of a store or in none")
            self.files[name] = self.enter_context(open(self.folder / f"{name}.memmap", "wb"))  # noqa: SIM115
            self.shapes[name] = (self.lengths.get(name, value.shape[0]), value.shape[-1])
            self.counts[name] = 0
        if tuple(value.shape) != self.shapes[name]:
            raise StoreError(
                f"{self.path}: {whose}: {name} has shape {tuple(value.shape)}, expected {self.shapes[name]}"
            )
        stored = value.detach().cpu().to(self.dtypes[name]).contiguous()
        if not stored.isfinite().all():
            raise StoreError(f"{self.path}: {whose}: {name} holds values that are not finite as {stored.dtype}")
        self.files[name].write(memoryview(stored.view(torch.uint8).numpy()))
        self.counts[name] += 1
        return stored

    def text(self, name: str, content: str) -> None:
        with open(self.folder / name, "w", encoding="utf-8", newline="\n") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def tensordict_meta(self) -> None:
        """meta.json, by tensordict itself from the files in place."""
        from tensordict import MemoryMappedTensor, TensorDict  # takes seconds, and only writing needs it

        tensors = {
            name: MemoryMappedTensor.from_filename(
                self.folder / f"{name}.memmap", self.dtypes[name], (self.counts[name], *shape)
            )
            for name, shape in self.shapes.items()
        }
        TensorDict(tensors, []).memmap_(self.folder)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
