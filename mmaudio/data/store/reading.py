"""Opening a store, ours or the reference's, and taking rows from it."""

import csv
import json
import math
import mmap
import os
import warnings
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from mmaudio.data.store.layout import (
    CAPTIONS,
    DTYPES,
    FIELDS,
    FORMAT,
    LATENTS,
    META,
    REFERENCE_NAMES,
    ROWS,
    VIDEO,
    FeatureBatch,
    StoreError,
    StoreMeta,
)
from mmaudio.data.store.statistics import LatentStatistics
from mmaudio.sequence import SequenceSpec


class FeatureStore:
    """A store, opened: sizes and counts are checked, nothing is read until it is asked for.

    Raises:
        StoreError: no store, damaged, truncated, of another format, or with ids that do not fit.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.meta = _read_meta(self.path)
        self.tensors = map_tensors(self.path, {name: name for name in FIELDS})
        self.ids, self.caption_index = _read_rows(self.path / ROWS)  # caption_index: row of `text`, -1: no caption
        self.caption_table = _read_captions(self.path / CAPTIONS)
        self._check()

    def _check(self) -> None:
        def fail(problem: str):
            raise StoreError(f"{self.path}: {problem}; the folder is damaged or mixed from several: write it again")

        count, texts, shapes = len(self), len(self.caption_table), self.shapes
        for name, tensor in self.tensors.items():
            expected = texts if name == "text" else count
            if tensor.ndim != 3 or len(tensor) != expected:
                fail(f"{name} has shape {tuple(tensor.shape)}, expected ({expected}, length, channels)")
        if len(self.ids) != count:
            fail(f"its table names {len(self.ids)} ids, expected {count}")
        if len(set(self.ids)) != count:
            twice = next(name for name, times in Counter(self.ids).items() if times > 1)
            fail(f"id {twice!r} is there twice")
        if shapes["mean"] != shapes["std"]:
            fail(f"mean is {shapes['mean']} per row, std {shapes['std']}")
        if ("clip" in shapes) != ("sync" in shapes):
            fail("one of clip and sync is missing")
        if ("text" in shapes) != bool(texts):
            fail(f"{texts} captions, but text features are {'there' if 'text' in shapes else 'missing'}")
        if not all(-1 <= index < texts for index in self.caption_index):
            fail(f"rows refer to captions beyond the {texts} that are there")

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

    @property
    def captions(self) -> list[str | None]:
        """Of each row."""
        return [None if index < 0 else self.caption_table[index] for index in self.caption_index]

    def text_of(self, caption: str) -> Tensor | None:
        """(77, text_dim) features of a caption, if the store has it; "" is the one that a network keeps."""
        if caption not in self.caption_table:
            return None
        return self.tensors["text"][self.caption_table.index(caption)].clone()

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
        names = (*LATENTS, *VIDEO) if video and self.has_video else LATENTS
        for place, row in zip(places, rows, strict=True):
            batch.ids[place] = self.ids[row]
            for name in names:  # straight into the batch: faster than a gather followed by a scatter
                getattr(batch, name)[place] = self.tensors[name][row]
            batch.video_exist[place] = VIDEO[0] in names
            index = self.caption_index[row]
            if text and index >= 0:
                batch.captions[place] = self.caption_table[index]
                batch.text[place] = self.tensors["text"][index]
                batch.text_exist[place] = True

    def rows(self, indices: list[int]) -> FeatureBatch:
        """These rows as a batch; fields that the store lacks have no length."""
        batch = FeatureBatch.empty(len(indices), self.shapes, self.dtypes)
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
        self.tensors = map_tensors(self.path, REFERENCE_NAMES)
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


def map_tensors(folder: Path, names: dict[str, str]) -> dict[str, Tensor]:
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
        tensors[field] = _map(path, dtype).view(shape)
    for name in LATENTS:
        if name not in tensors:
            raise StoreError(f"{folder}: is no feature store: its meta.json lists no {name!r}")
    return tensors


def _map(path: Path, dtype: torch.dtype) -> Tensor:
    """A file as a tensor that must not be written to.

    Not by torch.from_file: its mapping is either writable, which a read-only disk refuses, or private, which the
    kernel refuses where the file is larger than the memory.
    """
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=dtype)


def _read_rows(path: Path) -> tuple[list[str], list[int]]:
    """Ids and caption numbers by row. The lines may be in any order: they say which row they are about."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[1:-1]
        table = sorted((int(row), name, int(caption)) for name, row, caption in (line.split("\t") for line in lines))
    except OSError as error:
        raise StoreError(f"{path}: cannot read ({error.strerror})") from error
    except ValueError as error:
        raise StoreError(f"{path}: damaged, expected id, row and caption number on each line ({error})") from error
    if [row for row, _, _ in table] != list(range(len(table))):
        raise StoreError(f"{path}: damaged, rows are missing or there twice; write the store again")
    return [name for _, name, _ in table], [caption for _, _, caption in table]


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
