"""Features of clips, kept: one file per set and backbone, by what is in the clips and what looked at them.

FOLDER/  panns.audio.3f2a91c0.safetensors   all clips' features, under the hash of each clip's content; the number is
                                            that of the backbone's identity and the evaluated length
         panns.audio.3f2a91c0.parts/        finished clips of a run that has not ended, see `mmaudio.data.parts`

Several ranks may extract at the same time: each takes its share, the first waits for the others and packs.
"""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open

from mmaudio.data.parts import FAILED, Parts
from mmaudio.media import MediaError
from mmaudio.media.errors import atomic_path
from mmaudio.weights import read_metadata

IDENTITY = "identity"  # key of a file's metadata
DTYPES = {"float32": "F32", "float64": "F64", "int64": "I64"}  # as safetensors names them
HASHING_THREADS = 4


class CacheError(ValueError):
    """A cache file cannot be used. One line: file, what is wrong, what to do."""


def digest(*content: bytes | str, size: int = 16) -> str:
    hashed = hashlib.blake2b(digest_size=size)
    for piece in content:
        hashed.update(piece.encode() if isinstance(piece, str) else piece)
    return hashed.hexdigest()


def file_key(path: Path) -> str:
    """Hash of a file's bytes; raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def file_keys(paths: Collection[Path]) -> dict[Path, str | None]:
    """Of each file, None for those that cannot be read; in threads, since disks and hashing wait for each other."""

    def key_of(path: Path) -> str | None:
        try:
            return file_key(path)
        except OSError:
            return None

    paths = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        return dict(zip(paths, pool.map(key_of, paths), strict=True))


@dataclass(frozen=True)
class Job:
    """A clip whose features are wanted: the hash of its content, and what makes them."""

    key: str
    make: Callable[[], dict[str, np.ndarray]]


class FeatureFile:
    """Features of one set of clips by one backbone.

    Args:
        folder: of the set.
        name: of backbone and modality, "panns.audio".
        identity: of everything that decides the numbers but the clip; another one's features are in another file.
    """

    def __init__(self, folder: Path, name: str, identity: str):
        self.name, self.identity = name, identity
        stem = f"{name}.{digest(identity, size=4)}"
        self.path = folder / f"{stem}.safetensors"
        self.parts = Parts(folder / f"{stem}.parts", {IDENTITY: identity})

    def others(self) -> list[Path]:
        """Files of the same backbone and modality with another identity: they are not used."""
        return sorted(path for path in self.path.parent.glob(f"{self.name}.*.safetensors") if path != self.path)

    def known(self) -> set[str]:
        """Keys of the clips whose features are there."""
        finished = self.parts.names() if self.parts.folder.exists() else set()  # first: packing moves them to the file
        return finished | set(self._index)

    def extract(self, jobs: Iterable[Job]) -> Iterator[str | None]:
        """Make what is missing, clip by clip; yields the reason where it failed, which is noted down, too."""
        jobs, known = {job.key: job for job in jobs}, self.known()
        missing = [job for key, job in jobs.items() if key not in known]
        if missing:
            self.parts.begin()
        for job in missing:  # what failed in an earlier run is tried again
            self.parts.forget_failure(job.key)
        for job in missing:
            reason = self._extract_one(job)
            if reason is not None:
                self.parts.fail(job.key, reason)
            yield reason

    def _extract_one(self, job: Job) -> str | None:
        try:
            arrays = job.make()
        except (MediaError, ValueError) as error:
            return " ".join(str(error).split())
        except Exception as error:  # whatever one file among many thousands does must not end the run
            return " ".join(f"{type(error).__name__}: {error}".split())
        if not all(np.isfinite(array).all() for array in arrays.values()):
            return "its features are not finite"
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        self.parts.save(job.key, tensors, {})
        return None

    def unfinished(self, keys: Collection[str]) -> set[str]:
        """Those that are neither there nor failed."""
        failed = self.parts.names(FAILED) if self.parts.folder.exists() else set()
        return set(keys) - failed - self.known()

    def pack(self, keys: Collection[str]) -> dict[str, str]:
        """All parts into the file; of these clips, the reasons of those that failed. The parts are gone afterwards."""
        if not self.parts.folder.exists():
            return {}
        with FileLock(f"{self.path}.lock"):
            names = self.parts.names()
            failures = {key: self.parts.reason(key) for key in sorted(self.parts.names(FAILED) & set(keys))}
            self._forget_index()
            if new := sorted(names - set(self._index)):
                self._write(new)
                self._forget_index()
            for name in names:
                self.parts.path(name).unlink(missing_ok=True)
            if not self.parts.names():  # of another run at the same time
                self.parts.remove()
        return failures

    def __getitem__(self, key: str) -> dict[str, np.ndarray]:
        if key in self._index:
            return {name: self._opened.get_tensor(f"{key}.{name}") for name in self._index[key]}
        return {name: tensor.numpy() for name, tensor in self.parts.tensors(key).items()}

    def __contains__(self, key: str) -> bool:
        return key in self._index or self.parts.path(key).exists()

    # ---- the file

    @cached_property
    def _opened(self):
        try:
            opened = safe_open(self.path, framework="numpy")
            identity = opened.metadata().get(IDENTITY)
        except (SafetensorError, OSError, AttributeError) as error:
            raise CacheError(f"{self.path}: damaged ({error}); delete it and run the same command again") from error
        if identity != self.identity:
            raise CacheError(
                f"{self.path}: holds features of another backbone ({identity}, not {self.identity}); delete it"
            )
        return opened

    @cached_property
    def _index(self) -> dict[str, list[str]]:
        index: dict[str, list[str]] = {}
        for full_name in self._opened.keys() if self.path.exists() else ():
            key, _, name = full_name.partition(".")
            index.setdefault(key, []).append(name)
        return index

    def _forget_index(self) -> None:
        for name in ("_index", "_opened"):
            self.__dict__.pop(name, None)

    def _write(self, new: list[str]) -> None:
        """The file again with these parts; one clip in memory at a time, since synchronisation takes 0.6 MB of each."""
        header, offset = {"__metadata__": {IDENTITY: self.identity}}, 0
        for name, array in self._arrays(new):
            header[name] = {
                "dtype": DTYPES[array.dtype.name],
                "shape": list(array.shape),
                "data_offsets": [offset, offset := offset + array.nbytes],
            }
        encoded = json.dumps(header).encode()
        encoded += b" " * (-len(encoded) % 8)
        with atomic_path(self.path) as temporary, open(temporary, "wb") as file:
            file.write(len(encoded).to_bytes(8, "little") + encoded)
            for _, array in self._arrays(new):
                file.write(array.tobytes())

    def _arrays(self, new: list[str]) -> Iterator[tuple[str, np.ndarray]]:
        for key in [*self._index, *new]:
            yield from ((f"{key}.{name}", array) for name, array in self[key].items())


def described(path: Path) -> str:
    """The identity that a cache file was made with."""
    return read_metadata(path).get(IDENTITY, "unknown")


def wait_until_done(unfinished: Callable[[], Collection], timeout: float, what: str) -> None:
    """Until other ranks have done their share.

    Raises:
        CacheError: nothing new came for `timeout` seconds.
    """
    fewest, since, pause = None, time.monotonic(), 0.1
    while missing := unfinished():
        if fewest is None or len(missing) < fewest:
            fewest, since = len(missing), time.monotonic()
        elif time.monotonic() - since > timeout:
            raise CacheError(
                f"{len(missing)} {what} of other ranks are missing and none came for {timeout:g} s; run the same "
                "command again to go on"
            )
        time.sleep(pause)
        pause = min(10.0, 1.5 * pause)
