"""Decoded clips in memory-mapped files, for small networks that see every clip many times: decoding would be the limit.

FOLDER/  cache.json   sizes and rates, see `CacheSpec`
         clips.jsonl  a line for each clip; written last, so a clip counts once its line is whole
         video.u8     (N, T, S, S, 3) pictures at 25 fps, of the encoders' size; not there for sound alone
         audio.i16    (N, samples) sound

A folder stands wherever a manifest of media files can stand: in `data.train`, and for the extraction.
"""

import dataclasses
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmaudio.data.manifest import ManifestError, ManifestRow, read_manifest
from mmaudio.data.parts import write_text

SPEC, LINES, VIDEO, AUDIO = "cache.json", "clips.jsonl", "video.u8", "audio.i16"
FULL_SCALE = 32767  # int16 of a sample of 1


@dataclass(frozen=True)
class CacheSpec:
    """What all clips of a cache have in common."""

    frames: int  # at 25 fps; 0: sound alone
    size: int  # pixels of the square pictures
    samples: int
    sample_rate: int
    source: str  # what made the clips; others are not mixed with them

    @property
    def video_bytes(self) -> int:
        return self.frames * self.size**2 * 3

    @property
    def audio_bytes(self) -> int:
        return self.samples * 2


@dataclass(frozen=True)
class CachedClip:
    """A row of a cache, where others have a `ManifestRow`."""

    id: str
    captions: tuple[str, ...]  # of the same clip; training draws one
    cache: "ClipCache"
    index: int
    start = 0.0

    @property
    def caption(self) -> str | None:
        return self.captions[0] if self.captions else None

    @property
    def path(self) -> Path:
        """Of no file: it names the clip in messages."""
        return self.cache.folder / self.id

    @property
    def events(self) -> list[dict]:
        """What happens in a simulated clip: `mmaudio.stage.Event`s as dicts.

        Raises:
            ManifestError: nobody knows.
        """
        try:
            return self.cache.lines[self.index]["events"]
        except KeyError:
            raise ManifestError(f"{self.path}: its line lists no events: the clip was not simulated") from None

    def frames(self, size: int) -> Tensor:
        """(T, 3, H, W) uint8 at 25 fps; a view.

        Raises:
            ManifestError: there are none, or of another size.
        """
        spec = self.cache.spec
        if not spec.frames or spec.size != size:
            what = f"pictures of {spec.size} pixels" if spec.frames else "no pictures"
            raise ManifestError(f"{self.cache.folder}: has {what}, {size} are needed; make a cache of that size")
        return torch.from_numpy(self.cache.video[self.index]).permute(0, 3, 1, 2)

    def sound(self) -> tuple[Tensor, int]:
        """(1, N) float32, and its rate."""
        wave = self.cache.audio[self.index][None].astype(np.float32) / FULL_SCALE
        return torch.from_numpy(wave), self.cache.spec.sample_rate


class ClipCache:
    """The clips of a folder, for reading; what is appended later is not seen.

    Raises:
        ManifestError: no such cache, or a damaged one.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(os.path.abspath(folder))
        try:
            self.spec = CacheSpec(**json.loads((self.folder / SPEC).read_text(encoding="utf-8")))
            self.lines = whole_lines(self.folder / LINES)
        except (OSError, TypeError, ValueError) as error:
            raise ManifestError(f"{folder}: is no clip cache ({error})") from error

    def __reduce__(self):  # memory maps do not travel between processes
        return ClipCache, (self.folder,)

    def __len__(self) -> int:
        return len(self.lines)

    @cached_property
    def video(self) -> np.ndarray:
        s = self.spec
        return self._map(VIDEO, np.uint8, (len(self), s.frames, s.size, s.size, 3))

    @cached_property
    def audio(self) -> np.ndarray:
        return self._map(AUDIO, np.int16, (len(self), self.spec.samples))

    def _map(self, name: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
        try:  # copy-on-write: torch takes no arrays that cannot be written
            return np.memmap(self.folder / name, dtype, "c", shape=shape)
        except (OSError, ValueError) as error:
            raise ManifestError(f"{self.folder / name}: cannot be read ({error}); make the cache again") from error

    def clips(self) -> list[CachedClip]:
        return [CachedClip(line["id"], tuple(line["captions"]), self, i) for i, line in enumerate(self.lines)]


class CacheWriter:
    """Appends clips to a folder; killed at any moment, another writer goes on with the next one.

    Raises:
        ManifestError: the folder has clips of another kind.
    """

    def __init__(self, folder: Path, spec: CacheSpec):
        self.folder, self.spec = folder, spec
        folder.mkdir(parents=True, exist_ok=True)
        path, wanted = folder / SPEC, dataclasses.asdict(spec)
        if not path.exists():
            write_text(path, json.dumps(wanted))
        elif (found := json.loads(path.read_text(encoding="utf-8"))) != wanted:
            raise ManifestError(f"{folder}: has clips of {found}, now it is {spec}; remove it or choose another")
        lines = whole_lines(folder / LINES)
        write_text(folder / LINES, "".join(json.dumps(line) + "\n" for line in lines))
        self.count = len(lines)

    def append(self, video: np.ndarray, audio: np.ndarray, line: dict) -> None:
        """A clip: (T, S, S, 3) uint8, (N,) float32 in [-1, 1], and its "id", "captions" and whatever else is known."""
        s = self.spec
        assert audio.shape == (s.samples,)
        if s.frames:
            assert video.shape == (s.frames, s.size, s.size, 3)
            self._put(VIDEO, self.count * s.video_bytes, np.ascontiguousarray(video, np.uint8))
        samples = np.rint(audio.clip(-1, 1) * FULL_SCALE).astype(np.int16)
        self._put(AUDIO, self.count * s.audio_bytes, samples)
        with open(self.folder / LINES, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.count += 1

    def _put(self, name: str, offset: int, array: np.ndarray) -> None:
        with open(self.folder / name, "r+b" if (self.folder / name).exists() else "w+b") as file:
            file.seek(offset)
            file.write(array.tobytes())


def whole_lines(path: Path) -> list[dict]:
    """What is known of each finished clip, one a line; a line that broke off is left out."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def listed_clips(path: str | os.PathLike) -> list[ManifestRow] | list[CachedClip]:
    """The clips of a manifest, or of a cache.

    Raises:
        ManifestError: it cannot be used.
    """
    if not Path(path).is_dir():
        return read_manifest(path)
    clips = ClipCache(path).clips()
    if not clips:
        raise ManifestError(f"{path}: lists no clips")
    return clips
