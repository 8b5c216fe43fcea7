"""From a manifest of media files (or a clip cache) to a feature store: what there is to do, who does it, the packing.

A *unit* is a manifest row, or a chunk of distinct captions. Every finished unit is a file of its own (`Parts`), so a
run can be killed at any moment and goes on where it was, with any number of ranks; nobody waits for anybody until the
first rank packs the parts into the store. Clips that cannot be used are listed with their reasons.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from omegaconf import MISSING
from torch import Tensor
from tqdm import tqdm

from mmaudio.console import log
from mmaudio.data.clip_cache import CachedClip, listed_clips
from mmaudio.data.encoding import Encoders, Unit, extract_units
from mmaudio.data.manifest import ManifestRow, read_manifest
from mmaudio.data.parts import FAILED, ExtractionError, Parts, write_text
from mmaudio.data.preparation import Preparation
from mmaudio.data.store import StoreRow, open_store, write_store
from mmaudio.media import MediaError, probe
from mmaudio.media.picking import RULES
from mmaudio.variants import get_variant
from mmaudio.version import __version__
from mmaudio.weights import fetch, fingerprint

KINDS, ENGINES = ("auto", "video", "audio"), ("local", "ray")
LATENT_DTYPES = {"float16": torch.float16, "float32": torch.float32}
CAPTIONS_PER_UNIT = 64
PROBED = 100  # rows that are looked at to tell a manifest of videos from one of sounds


@dataclass
class ExtractConfig:
    """Typed schema of configs/extract.yaml, which documents the fields."""

    manifest: str = MISSING
    output: str = MISSING
    variant: str = MISSING
    kind: str = "auto"
    peak_normalise: bool = True
    max_segments: int = 5
    frame_rule: str = "nearest"
    latent_dtype: str = "float16"
    engine: str = "local"
    device: str | None = None
    weights_dir: str | None = None
    num_workers: int = 4
    timeout: float = 1800.0

    def check(self) -> None:
        """Raises ValueError naming the setting."""
        choices = {"kind": KINDS, "frame_rule": RULES, "latent_dtype": LATENT_DTYPES, "engine": ENGINES}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        try:
            torch.empty(0, device=self.device if self.engine == "local" else None)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device {self.device} is not usable here ({str(error).splitlines()[0]})") from error
        if self.max_segments < 1 or self.num_workers < 0 or not self.timeout > 0:
            raise ValueError(
                f"max_segments {self.max_segments}, num_workers {self.num_workers}, timeout {self.timeout:g}: "
                "must be at least 1, at least 0, above 0"
            )


# ---- one extraction -----------------------------------------------------------------------------------------------


class Extraction:
    """What there is to do, what is done, and the packing of it.

    Raises:
        ManifestError, WeightError: the manifest, or the weights of the variant, cannot be used.
        ValueError: a setting out of range.
        ExtractionError: the output belongs to another extraction.
    """

    def __init__(self, config: ExtractConfig):
        config.check()
        self.config, self.variant = config, get_variant(config.variant)
        self.rows = listed_clips(os.path.abspath(config.manifest))  # a cluster's processes work in other folders
        self.video = config.kind == "video" or (config.kind == "auto" and _is_video(self.rows))
        self.preparation = Preparation(
            self.variant, self.video, config.frame_rule, config.peak_normalise, config.max_segments
        )
        # "" is what a network is given for no words; a store has it whatever its captions are.
        captions = list(dict.fromkeys(["", *(caption for row in self.rows for caption in row.captions)]))
        self.clips = [Unit(row) for row in self.rows]
        self.captions = [
            Unit(captions=tuple(captions[i : i + CAPTIONS_PER_UNIT]))
            for i in range(0, len(captions), CAPTIONS_PER_UNIT)
        ]
        self.identity = self._identity()
        self.output = Path(os.path.abspath(config.output))
        self.failed_path = self.output.with_name(f"{self.output.name}.failed.tsv")
        self.parts = Parts(self.output.with_name(f"{self.output.name}.parts"), self.identity)

    def _identity(self) -> dict[str, str]:
        config, files = self.config, self.variant.files
        used = {"vae": files.vae, "clip": files.clip} | ({"sync": files.sync} if self.video else {})
        identity = {part: fingerprint(fetch(file, config.weights_dir)) for part, file in used.items()}
        settings = {"kind": "video" if self.video else "audio", "peak_normalise": config.peak_normalise}
        settings |= {"frame_rule": config.frame_rule} if self.video else {"max_segments": config.max_segments}
        settings |= {"latent_dtype": config.latent_dtype, "variant": self.variant.name, "version": __version__}
        return identity | {key: str(value).lower() for key, value in settings.items()}

    @property
    def units(self) -> list[Unit]:
        return self.clips + self.captions

    def is_complete(self) -> bool:
        """Whether the store is there and has, or has refused, every row of the manifest.

        Raises:
            ExtractionError: it was made of other rows, or by other extractors or settings.
            StoreError: something else is in its place.
        """
        if not self.output.exists():
            return False
        store = open_store(self.output)
        other = "choose another output, or remove it"
        for key in sorted(store.meta.identity | self.identity):
            if (was := store.meta.identity.get(key)) != (now := self.identity.get(key)):
                raise ExtractionError(f"{self.output}: exists already, made with {key} {was}, now it is {now}; {other}")
        known = set(store.ids) if self.video else {name.rpartition("_")[0] for name in store.ids}
        known |= set(self.failed())
        new = [row.id for row in self.rows if row.id not in known]
        if new:
            raise ExtractionError(
                f"{self.output}: exists already, without {len(new)} of the manifest's clips ({new[0]!r}, ...); give "
                "those a manifest and an output of their own, since training mixes any number of stores"
            )
        return True

    def failed(self) -> list[str]:
        """Ids in the list of failures that a complete extraction left."""
        return [row.id for row in read_manifest(self.failed_path)] if self.failed_path.exists() else []

    def pack(self, progress=None) -> tuple[int, int]:
        """All parts into the store, in the manifest's order: (rows, failures). The parts are gone afterwards.

        The list of failures comes first and the parts go last, so a run killed in between packs again.
        """
        names, done, failed = self.parts.names(), [], []
        for unit in self.clips:
            if unit.name in names:
                info = self.parts.info(unit.name)
                done.append((unit, info["ids"]))
                failed += [(name, reason, unit.row) for name, reason in info["rejected"]]
            else:
                failed.append((unit.row.id, self.parts.reason(unit.name), unit.row))
        self._write_failed(failed)
        count = sum(len(ids) * max(1, len(unit.row.captions)) for unit, ids in done)
        if count:
            write_store(
                self.output,
                self._store_rows(done),
                self._texts({"", *(caption for unit, _ in done for caption in unit.row.captions)}),
                count=count,
                variant=self.variant.name,
                spec=self.variant.spec,
                identity=self.identity,
                latent_dtype=LATENT_DTYPES[self.config.latent_dtype],
                progress=progress,
            )
        self.parts.remove()
        return count, len(failed)

    def _store_rows(self, done: list[tuple[Unit, list[str]]]) -> Iterator[StoreRow]:
        for unit, ids in done:
            part = self.parts.tensors(unit.name)
            for i, name in enumerate(ids):
                clip, sync = (part[field][i] if field in part else None for field in ("clip", "sync"))
                for k, caption in enumerate(unit.row.captions or (None,)):  # a row for each: training draws them alike
                    own = f"{name}#{k}" if k else name
                    yield StoreRow(own, caption, part["mean"][i], part["std"][i], clip, sync)

    def _texts(self, used: set[str]) -> Iterator[tuple[str, Tensor]]:
        for unit in self.captions:
            features = self.parts.tensors(unit.name)["text"]
            yield from ((caption, x) for caption, x in zip(unit.captions, features, strict=True) if caption in used)

    def _write_failed(self, failed: list[tuple[str, str, ManifestRow]]) -> None:
        """A manifest in its own right: what was mended can be extracted from it, to another store."""
        lines = [
            f"{name}\t{reason}\t{os.path.abspath(row.path)}\t{row.caption or ''}\t{row.start!r}\n"
            for name, reason, row in failed
        ]
        if lines:
            write_text(self.failed_path, "id\treason\tpath\tcaption\tstart\n" + "".join(lines))
        else:
            self.failed_path.unlink(missing_ok=True)


def _is_video(rows: list[ManifestRow | CachedClip]) -> bool:
    """What the first readable file is; the whole manifest is taken for that."""
    for row in islice(rows, PROBED):
        if isinstance(row, CachedClip):
            return row.cache.spec.frames > 0
        try:
            kind = probe(row.path).kind
        except MediaError:
            continue
        if kind != "image":
            return kind == "video"
    return True


# ---- the command --------------------------------------------------------------------------------------------------


def extract(config: ExtractConfig) -> int:
    """Make the store, alone or as one of torchrun's ranks. Returns the exit code: 0, or 1 if some clips failed.

    Raises:
        see Extraction, and StoreError: the store cannot be written.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if config.engine == "ray" and world > 1:
        raise ValueError("engine=ray shares the work by itself: start it once, without torchrun")
    extraction = Extraction(config)
    parts, failed_path = extraction.parts, extraction.failed_path
    is_main = rank == 0
    if extraction.is_complete():
        failed = len(extraction.failed())
        if is_main:
            parts.remove()  # of a run that was killed after its last step
            log(f"{config.output}: is complete" + (f"; {failed} failed, see {failed_path}" if failed else ""))
        return 1 if failed and is_main else 0
    parts.begin()
    finished = parts.names()
    if extraction.output.exists():  # the first rank found everything done and was faster
        parts.remove()
        return 0
    todo = [unit for unit in extraction.units[rank::world] if unit.name not in finished]
    for unit in todo:  # what failed in an earlier run is tried again
        parts.forget_failure(unit.name)
    if is_main:
        what = "videos" if extraction.video else "audio files"
        log(
            f"{len(extraction.rows)} {what}, {sum(len(unit.captions) for unit in extraction.captions)} texts with "
            f"{extraction.variant.name} to {config.output}; {len(finished)} of {len(extraction.units)} parts are done"
        )
    run_share(extraction, todo, rank)
    if not is_main:  # a failure of one rank would end the others: only the first tells
        return 0
    wait_for_others(extraction)
    with tqdm(total=0, desc="pack", unit="clip", disable=None) as bar:

        def packed(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        count, failed = extraction.pack(packed)
    log(f"{config.output}: {count} clips" if count else f"{config.output}: not one clip could be extracted")
    if failed:
        log(f"{failed} failed: {failed_path} has the reasons")
    return 1 if failed else 0


def run_share(extraction: Extraction, todo: list[Unit], rank: int) -> None:
    """This process's part of the work; only the first rank shows it."""
    config = extraction.config
    if config.engine == "ray":
        from mmaudio.data.ray_engine import extract_with_ray

        results = extract_with_ray(extraction, todo)
    else:
        encoders = Encoders(extraction.variant, _device(config.device), config.weights_dir)
        results = extract_units(todo, extraction.preparation, encoders, extraction.parts, config.num_workers)
    failed = 0
    with tqdm(total=len(todo), desc="extract", unit="clip", disable=None if rank == 0 else True) as bar:
        for reason in results:
            failed += reason is not None
            bar.update()
            bar.set_postfix(failed=failed, refresh=False)


def _device(name: str | None) -> torch.device:
    device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return device


def wait_for_others(extraction: Extraction) -> None:
    """Until every unit is done or failed.

    Raises:
        ExtractionError: nothing new came for `timeout` seconds.
    """
    parts, names = extraction.parts, {unit.name for unit in extraction.units}
    fewest, since, pause = len(names) + 1, time.monotonic(), 0.1
    while missing := names - parts.names() - parts.names(FAILED):
        if len(missing) < fewest:
            if fewest > len(names):
                log(f"waiting for {len(missing)} parts of other ranks")
            fewest, since = len(missing), time.monotonic()
        elif time.monotonic() - since > extraction.config.timeout:
            raise ExtractionError(
                f"{len(missing)} of {len(names)} parts are missing and none came for {extraction.config.timeout:g} s; "
                "run the same command again to go on"
            )
        time.sleep(pause)
        pause = min(10.0, 1.5 * pause)
