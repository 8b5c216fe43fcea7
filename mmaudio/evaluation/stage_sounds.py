"""The sounds that are compared on Foley Stage clips: true, made by a variant in several ways, and taken from others.

What takes long is kept in a folder, in files named after all that made them, so that a run can be stopped at any clip.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mmaudio.data.store import open_store
from mmaudio.evaluation.judge import Judge
from mmaudio.evaluation.stage_report import Heard, Known, figures, hear
from mmaudio.few_steps import choose
from mmaudio.media import read_audio, write_audio
from mmaudio.pipeline import Pipeline
from mmaudio.stage import STAGE_VERSION, render_clip, split_seeds
from mmaudio.stage.director import split_of
from mmaudio.stage.export import replacing, write_mp4
from mmaudio.weights import fetch, fingerprint

ROWS = {
    "truth": "ground truth",
    "ceiling": "VAE and vocoder of ground truth",
    "variant": "{}",
    "shuffled": "{}, shuffled videos",
    "text": "{}, text only",
    "video": "{}, video only",
    "retrieval": "nearest training clip",
}

ENCODERS = ("clip", "sync")


@dataclass(frozen=True)
class Settings:
    """How clips are rendered and sounds are made."""

    size: int = 224  # pixels
    duration: float = 8.0  # seconds
    seed: int = 0  # of the sampler, the same for every clip
    num_steps: int = 25
    cfg_strength: float = 4.5
    retrieval: int = 200  # first training clips to choose from, encoded here
    store: str | None = None  # or all training clips in this store of features by the variant's encoders


class Sounds:
    """Sounds for the clips of these seeds, by row; all have the pipeline's sample rate."""

    def __init__(self, pipe: Pipeline, seeds: Sequence[int], work: Path, settings: Settings = Settings()):
        self.pipe, self.seeds, self.work, self.settings = pipe, list(seeds), Path(work), settings
        self.clips = [Known.of(self._render(seed, audio=False)) for seed in self.seeds]
        self._fingerprints: dict[str, str] = {}
        self.by, self.note = choose(pipe, settings.num_steps, settings.cfg_strength)

    @property
    def sample_rate(self) -> int:
        return self.pipe.variant.spec.sample_rate

    def make(self, row: str, i: int) -> np.ndarray:
        """The sound (N,) of a row for clip i."""
        clip, other = self.clips[i], self.clips[(i + 1) % len(self.clips)]
        match row:
            case "truth":
                return self._render(clip.seed).audio
            case "ceiling":
                return self._kept(("vae", "vocoder"), {"clip": clip.seed}, lambda: self._through_codec(clip.seed))
            case "variant":
                return self._generated(clip.seed, clip.caption)
            case "shuffled":
                return self._generated(other.seed, clip.caption)
            case "text":
                return self._generated(None, clip.caption)
            case "video":
                return self._generated(clip.seed, "")
            case "retrieval":
                return self._render(self.neighbours[i]).audio
        raise ValueError(f"unknown row {row!r}: expected one of {', '.join(ROWS)}")

    # ---- rendering

    def _render(self, seed: int, video: bool = False, audio: bool = True):
        s = self.settings
        return render_clip(
            seed, duration=s.duration, size=s.size, sample_rate=self.sample_rate, video=video, audio=audio
        )

    def mp4(self, seed: int) -> Path:
        s = self.settings
        path = self.work / "videos" / f"stage{STAGE_VERSION}_{seed:07d}_{s.size}px_{s.duration:g}s.mp4"
        if not path.exists():
            write_mp4(path, self._render(seed, video=True, audio=False))
        return path

    # ---- sounds of the variant

    def _through_codec(self, seed: int) -> torch.Tensor:
        codec = self.pipe.part("codec")
        wave = torch.from_numpy(self._render(seed).audio)[None].to(self.pipe.device)
        return codec.decode(codec.encode(wave).mean)[0, :, : wave.shape[1]].cpu()

    def _generated(self, video: int | None, prompt: str) -> np.ndarray:
        s = self.settings
        facts = {"video": video, "prompt": prompt, "size": s.size, "seed": s.seed, "steps": s.num_steps}

        def generate():
            return self.pipe(
                video=None if video is None else self.mp4(video), prompt=prompt, duration=s.duration,
                seed=s.seed, num_steps=s.num_steps, cfg_strength=s.cfg_strength,
            )[0].audio  # fmt: skip

        return self._kept(tuple(self.pipe.variant.files_by(self.by)), facts | {"cfg": s.cfg_strength}, generate)

    def _kept(self, parts: tuple[str, ...], facts: dict, make) -> np.ndarray:
        """The sound of the file named after weights and facts, made and written if it is not there."""
        path = self.work / "sounds" / f"{self._key(parts, facts)}.flac"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_audio(path, make(), self.sample_rate)
        return read_audio(path)[0].mean(0).numpy()

    def _key(self, parts: Iterable[str], facts: dict) -> str:
        made_by = {part: self._fingerprint(part) for part in parts}
        everything = [self.pipe.variant.base, STAGE_VERSION, self.settings.duration, made_by, facts]
        return hashlib.blake2b(json.dumps(everything, sort_keys=True).encode(), digest_size=12).hexdigest()

    def _fingerprint(self, part: str) -> str:
        """Of the file of a part; empty if it has none."""
        if part not in self._fingerprints:
            file = self.pipe.variant.files_by(self.by).get(part)
            self._fingerprints[part] = fingerprint(fetch(file, self.pipe.weights_dir)) if file else ""
        return self._fingerprints[part]

    # ---- the nearest training clip

    @cached_property
    def neighbours(self) -> list[int]:
        """For each clip the seed of the training clip whose picture is most like its to the variant's own encoders."""
        seeds, bank = self.bank
        return [seeds[k] for k in nearest([self._features(clip.seed) for clip in self.clips], bank)]

    @cached_property
    def bank(self) -> tuple[Sequence[int], list[tuple[np.ndarray, np.ndarray]]]:
        """Seeds of the training clips that retrieval chooses from, and the `summary` of each.

        Raises:
            StoreError, ValueError: the store cannot be used, or has no such clips.
        """
        if self.settings.store is None:
            seeds = split_seeds("train", self.settings.retrieval)
            return seeds, [self._features(seed) for seed in tqdm(seeds, desc="retrieval features", disable=None)]
        store = open_store(self.settings.store)
        if {part: self._fingerprint(part) for part in ENCODERS}.items() - store.meta.identity.items():
            raise ValueError(f"{store.path}: its features are by other encoders than this variant's")
        if store.meta.spec.duration != self.settings.duration:
            raise ValueError(
                f"{store.path}: has clips of {store.meta.spec.duration:g} s, not {self.settings.duration:g} s"
            )
        named = ((name.removeprefix("train_"), row) for row, name in enumerate(store.ids))
        rows = {int(name): row for name, row in named if name.isdecimal()}  # "7#1" is 7 with another caption
        seeds = [seed for seed in rows if split_of(seed) == "train"]
        if not seeds:
            raise ValueError(f"{store.path}: has no clips of the Stage's split train")
        clip, sync = store.tensors["clip"], store.tensors["sync"]
        return seeds, [summary(clip[rows[seed]], sync[rows[seed]]) for seed in seeds]

    def _features(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The `summary` of a clip's picture."""
        key = self._key(ENCODERS, {"features of": seed, "size": self.settings.size})
        path = self.work / "features" / f"{key}.npy"
        if not path.exists():
            clip, sync, *_ = self.pipe.encode(self.pipe.read(self.mp4(seed)))
            with replacing(path) as temporary:
                np.save(temporary, np.concatenate(summary(clip[0], sync[0])).astype(np.float16))
        stored = np.load(path).astype(np.float32)
        width = self.pipe.variant.network.clip_dim
        return stored[:width], stored[width:]


def summary(clip: torch.Tensor, sync: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """CLIP features (T, D) over time averaged (D,), and sync features (S, D') in time (S * D',)."""
    return clip.float().mean(0).cpu().numpy(), sync.float().flatten().cpu().numpy()


def nearest(queries: Sequence[tuple[np.ndarray, ...]], bank: Sequence[tuple[np.ndarray, ...]]) -> list[int]:
    """For each query the index in the bank with the largest sum of cosines, part by part, about the bank's mean."""
    total = np.zeros((len(queries), len(bank)))
    for part in range(len(bank[0])):
        known = np.array([features[part] for features in bank])
        middle = known.mean(0) if len(known) > 1 else 0.0
        asked = np.array([features[part] for features in queries]) - middle
        known = known - middle
        total += _unit(asked) @ _unit(known).T
    return total.argmax(1).tolist()


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-9)


def evaluate(sounds: Sounds, judge: Judge, rows: Sequence[str], resamples: int = 500) -> dict:
    """Make and judge all rows; figures and what they are about, ready for JSON.

    Raises:
        ValueError: an unknown row, fewer than two clips, or a store that retrieval cannot choose from.
    """
    if unknown := [row for row in rows if row not in ROWS]:
        raise ValueError(f"unknown row {unknown[0]!r}: expected some of {','.join(ROWS)}")
    if len(sounds.clips) < 2:
        raise ValueError("at least 2 clips are needed: shuffling pairs different ones")
    choice = len(sounds.bank[0]) if "retrieval" in rows else None  # before all that takes long: a store can be wrong
    heard: dict[str, list[Heard]] = {}
    wanted = list(dict.fromkeys(["truth", *rows]))  # FD and KL compare with the truth
    with tqdm(total=len(wanted) * len(sounds.clips), unit="sound", disable=None) as bar:
        for row in wanted:
            bar.set_description(row)
            heard[row] = []
            for i, clip in enumerate(sounds.clips):
                heard[row].append(hear(sounds.make(row, i), sounds.sample_rate, clip, judge))
                bar.update()
    name = sounds.pipe.variant.name
    return {
        "variant": name,
        "stage_version": STAGE_VERSION,
        "first_seed": sounds.seeds[0],
        "clips": len(sounds.clips),
        "clips_with_onsets": sum(len(clip.times) > 0 for clip in sounds.clips),
        "events_with_onsets": sum(len(clip.times) for clip in sounds.clips),
        **asdict(sounds.settings) | {"retrieval": choice},
        "note": sounds.note,
        "rows": {ROWS[row].format(name): figures(sounds.clips, heard[row], heard["truth"], resamples) for row in rows},
    }
