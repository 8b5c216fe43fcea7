"""Every backbone over every set of clips, each clip once: what is there is read, the rest is extracted and kept."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmaudio.console import log
from mmaudio.evaluation.backbones import Backbone, Found, Unavailable, find_backbone
from mmaudio.evaluation.cache import FeatureFile, Job, described, digest, file_keys, wait_until_done
from mmaudio.evaluation.datasets import Clip
from mmaudio.evaluation.model_free import ALIGNMENT, ONSETS, alignment, onset_hits
from mmaudio.media import read_audio

SETS = {  # backbone -> the sets it looks at
    "panns": ("generated", "reference"),
    "vggish": ("generated", "reference"),
    "passt": ("generated", "reference"),
    "judge": ("generated", "reference"),
    "synchformer": ("generated", "video", "offsets"),
    "imagebind": ("generated", "video"),
    "clap_laion": ("generated", "captions"),
    "clap_ms": ("generated", "captions"),
    "audiobox": ("generated",),
}
MODALITIES = {"generated": "audio", "reference": "audio", "video": "video", "captions": "text"}
MODEL_FREE = {  # sets of pairs -> name and identity of what looks at them
    "onsets": ("onsets", ONSETS),
    "true_onsets": ("onsets", ONSETS),
    "alignment": ("alignment", ALIGNMENT),
    "true_alignment": ("alignment", ALIGNMENT),
}
UNSEEN = "its picture or its sound could not be used"
TIMEOUT = 1800.0  # seconds without any progress of another rank


@dataclass(frozen=True)
class Sound:
    """A generated sound, and the clip that it was made for; None if no clip belongs to its name."""

    id: str
    path: Path
    clip: Clip | None

    @property
    def clip_id(self) -> str:
        return self.clip.id if self.clip else self.id


@dataclass(frozen=True)
class Subject:
    """One thing to look at: whose it is, the hash of its content, and what makes its features, given a backbone."""

    owner: str
    key: str
    make: Callable[[Backbone | None], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Failure:
    """A clip that something could not be done with."""

    clip: str
    where: str  # the set
    by: str  # the backbone
    reason: str


@dataclass(frozen=True)
class Skip:
    """Why something is not measured, and what to do about it."""

    reason: str
    remedy: str


def rank_and_world() -> tuple[int, int]:
    """Of torchrun's processes; (0, 1) without it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class Features:
    """Features of these sounds and of the clips that they are compared with.

    Args:
        folder: where those of the sounds are kept.
        shared: where those of references, videos and captions are kept, for other runs to use.
        find: gives a backbone, loaded or not, or raises `Unavailable`; it is loaded if features are missing.

    Attributes:
        skipped: backbone to the reason why it is not used.
        failures: of single clips; complete once `extract` is through.
        made: how many features this rank made, and did not find in the cache.
    """

    def __init__(
        self,
        sounds: Sequence[Sound],
        references: Sequence[Clip],
        *,
        folder: Path,
        shared: Path,
        duration: float,
        find: Callable[[str], Found] = find_backbone,
    ):
        self.sounds, self.references, self.duration = list(sounds), list(references), duration
        self.folder, self.shared, self.find = folder, shared, find
        self.skipped: dict[str, Skip] = {}
        self.failures: list[Failure] = []
        self.identities: dict[str, str] = {}
        self.made = 0
        self._files: dict[tuple[str, str], FeatureFile] = {}
        paths = [sound.path for sound in self.sounds]
        paths += [path for clip in self.references for path in (clip.reference, clip.video) if path is not None]
        paths += [sound.clip.video for sound in self.sounds if sound.clip and sound.clip.video]
        self.keys = file_keys(paths)
        self.subjects = self._subjects()

    def _subjects(self) -> dict[str, list[Subject | None]]:
        """Set to its subjects; lists about sounds are as long as these, so that a rank's share fits together."""
        sets: dict[str, list[Subject | None]] = {
            "generated": [self._sound(sound.id, sound.path) for sound in self.sounds],
            "reference": [self._sound(c.id, c.reference) if c.reference else None for c in self.references],
        }
        for name, of in {"video": self._video, "captions": self._caption, "offsets": self._offsets}.items():
            sets[name] = [of(sound) if sound.clip else None for sound in self.sounds]
        sets["onsets"] = [self._onsets(s.id, s.path, s.clip) if s.clip else None for s in self.sounds]
        sets["true_onsets"] = [self._onsets(c.id, c.reference, c) for c in self.references]
        sets["alignment"] = [self._alignment(s.id, s.path, s.clip) if s.clip else None for s in self.sounds]
        sets["true_alignment"] = [self._alignment(c.id, c.reference, c) for c in self.references]
        return sets

    def _key(self, path: Path) -> str:
        """Of a file; one that cannot be read has a key of its own, and fails when it is looked at."""
        return self.keys[path] or digest("missing", str(path))

    def _sound(self, owner: str, path: Path) -> Subject:
        return Subject(owner, self._key(path), lambda backbone: backbone.audio(*read_audio(path), self.duration))

    def _video(self, sound: Sound) -> Subject | None:
        path = sound.clip.video
        return path and Subject(sound.id, self._key(path), lambda backbone: backbone.video(path, self.duration))

    def _caption(self, sound: Sound) -> Subject | None:
        text = sound.clip.caption
        return Subject(sound.id, digest(text), lambda backbone: backbone.text(text)) if text else None

    def _offsets(self, sound: Sound) -> Subject | None:
        if sound.clip.video is None:
            return None
        video, audio = self._key(sound.clip.video), self._key(sound.path)

        def make(backbone):
            seen, heard = self._files["synchformer", "video"], self._files["synchformer", "generated"]
            if video not in seen or audio not in heard:
                raise ValueError(UNSEEN)
            return {"offsets": backbone.offsets(seen[video]["features"], heard[audio]["features"])}

        return Subject(sound.id, digest(video, audio), make)

    def _onsets(self, owner: str, path: Path | None, clip: Clip) -> Subject | None:
        if path is None or not clip.times:
            return None
        key = digest(self._key(path), repr(clip.times))
        return Subject(owner, key, lambda _: onset_hits(path, clip.times, self.duration))

    def _alignment(self, owner: str, path: Path | None, clip: Clip) -> Subject | None:
        if path is None or clip.video is None:
            return None
        key = digest(self._key(clip.video), self._key(path))
        return Subject(owner, key, lambda _: alignment(clip.video, path, self.duration))

    # ---- extraction

    def extract(self, backbones: Sequence[str]) -> None:
        """Make what is not there: this rank's share of it; the first rank waits for the others.

        Raises:
            WeightError: a weight file is damaged.
            CacheError: a cache file is damaged, or other ranks came to a stop.
        """
        for name in backbones:
            wanted = [which for which in SETS[name] if any(self.subjects[which])]
            needed = {"video", "captions"} & set(SETS[name])
            if needed and not needed & set(wanted):
                continue  # nothing to compare with; the metrics say so
            try:
                found = self.find(name)
                files = {which: self._file(name, which, found.identity) for which in wanted}
                missing = {which: self._missing(which, file) for which, file in files.items()}
                backbone = found.load() if any(missing.values()) else None
            except Unavailable as error:
                self.skipped[name] = Skip(error.reason, error.remedy)
                continue
            self.identities[name] = found.identity
            for which, file in files.items():
                self._extract(name, which, file, missing[which], backbone)
        for which, (name, identity) in MODEL_FREE.items():
            if any(self.subjects[which]):
                file = self._file(name, which, identity)
                self._extract(name, which, file, self._missing(which, file), None)
        if rank_and_world()[0] == 0:
            self._collect()

    def _file(self, name: str, which: str, identity: str) -> FeatureFile:
        if which != "captions":
            identity += f" {self.duration:g} s"
        of_sounds = which in ("generated", "offsets", "onsets", "alignment")
        return FeatureFile(self.folder if of_sounds else self.shared, f"{name}.{which}", identity)

    def _missing(self, which: str, file: FeatureFile) -> dict[str, Subject]:
        """Those of this rank's share that are not in the cache, by their keys."""
        (rank, world), known = rank_and_world(), file.known()
        return {s.key: s for s in self.subjects[which][rank::world] if s and s.key not in known}

    def _extract(
        self, name: str, which: str, file: FeatureFile, missing: dict[str, Subject], backbone: Backbone | None
    ) -> None:
        self._files[name, which] = file
        first = rank_and_world()[0] == 0
        if missing and first and (others := file.others()):
            log(f"{others[0]}: made by {described(others[0])}, now it is {file.identity}: not used, made anew")
        jobs = [Job(key, lambda make=subject.make: make(backbone)) for key, subject in missing.items()]
        silent, failed = None if missing and first else True, 0
        with tqdm(total=len(missing), desc=f"{name}, {which}", unit="clip", disable=silent) as bar:
            for reason in file.extract(jobs):
                failed += reason is not None
                self.made += reason is None
                bar.update()
                bar.set_postfix(failed=failed, refresh=False)

    def _collect(self) -> None:
        owners: dict[str, dict[str, list[str]]] = {}
        for which, subjects in self.subjects.items():
            for subject in filter(None, subjects):
                owners.setdefault(which, {}).setdefault(subject.key, []).append(subject.owner)
        for (name, which), file in self._files.items():  # all, before the first is packed: some look into others
            wait_until_done(lambda file=file, keys=owners[which]: file.unfinished(keys), TIMEOUT, f"clips of {name}")
        for (name, which), file in self._files.items():
            for key, reason in file.pack(owners[which]).items():
                self.failures += [Failure(o, which, name, reason) for o in owners[which][key] if reason != UNSEEN]

    # ---- results

    def looked(self, name: str, which: str, distinct: bool = False) -> dict[str, dict[str, np.ndarray]]:
        """Owner to its features; only those that are there, and with `distinct` each content once."""
        file = self._files.get((name, which))
        found, seen = {}, set()
        for subject in filter(None, self.subjects[which]):
            if file is not None and subject.key in file and not (distinct and subject.key in seen):
                seen.add(subject.key)
                found[subject.owner] = file[subject.key]
        return found
