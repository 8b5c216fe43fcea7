"""Which sounds are judged, and by what: folders, tables, published sets, and a variant that makes the sounds first."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from mmaudio.console import UsageError, log
from mmaudio.evaluation.cache import digest, wait_until_done
from mmaudio.evaluation.datasets import AUDIO_SUFFIXES, Clip, read_captions, read_dataset
from mmaudio.evaluation.features import TIMEOUT, Failure, Sound, rank_and_world
from mmaudio.evaluation.generating import Generating, Sampling, local_device
from mmaudio.evaluation.pairing import clip_id, pair
from mmaudio.media.probe import VIDEO_SUFFIXES
from mmaudio.stage import STAGE_VERSION
from mmaudio.weights import cache_dir

DURATIONS = {"audiocaps": 10.0}  # seconds; of all others 8
DEFAULT_DURATION = 8.0
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class EvaluateConfig:
    """What `mmaudio evaluate` is asked for; its flags have the same names."""

    generated: Path | None = None
    reference: Path | None = None
    captions: Path | None = None
    unpaired: bool = False
    variant: str | None = None
    dataset: str | None = None
    data: Path | None = None
    count: int | None = None
    size: int = 224
    out: Path = Path("output/evaluation")
    duration: float | None = None
    seed: int = 42
    num_steps: int = 25
    cfg_strength: float = 4.5
    solver: str = "euler"
    batch_size: int | None = None
    backbones: tuple[str, ...] | None = None
    weights_dir: Path | None = None
    device: str | None = None
    download: bool = False
    cache: Path | None = None
    allow_missing: int = 0
    compare: Path | None = None

    @property
    def seconds(self) -> float:
        return self.duration or DURATIONS.get(self.dataset, DEFAULT_DURATION)

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.seconds, self.num_steps, self.cfg_strength, self.solver, self.seed)

    @property
    def shared(self) -> Path:
        """Where the features of references are kept for other runs."""
        return self.cache or cache_dir() / "evaluation"

    def check(self) -> None:
        """Refuse before the work what would fail in it. Raises UsageError."""
        if (self.generated is None) == (self.variant is None):
            raise UsageError("give the sounds, --generated DIR, or what makes them, --variant NAME: one of both")
        if self.variant is not None and self.dataset is None:
            raise UsageError("what should the variant make sound for? give --dataset")
        if self.dataset is not None and (self.reference or self.captions):
            raise UsageError("a --dataset has its own references and captions: leave out --reference and --captions")
        if self.dataset is None and self.reference is None and self.captions is None:
            raise UsageError("nothing to compare with: give --reference, --captions or --dataset")
        if self.unpaired and self.reference is None:
            raise UsageError("--unpaired compares with the clips of --reference: give it")
        if self.duration is not None and not 0 < self.duration <= 60:
            raise UsageError(f"--duration must be above 0 and at most 60 seconds, got {self.duration:g}")
        for name in ("num_steps", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"--{name} must be at least 1, got {value}")
        if self.allow_missing < 0:
            raise UsageError(f"--allow_missing must be zero or more clips, got {self.allow_missing}")


@dataclass
class Gathered:
    """What is judged, what it is compared with, and how it was made."""

    sounds: list[Sound]
    references: list[Clip]
    origin: str  # of the references: names their part of the cache
    failures: list[Failure] = field(default_factory=list)
    made_by: dict = field(default_factory=dict)  # variant, weights and sampling


def gather(config: EvaluateConfig) -> Gathered:
    """Raises UsageError, DatasetError, and what making sounds raises."""
    clips, origin = _references(config)
    if config.variant is not None:
        return _made(config, clips, origin)
    files = folder_files(config.generated)
    sounds = [path for paths in files.values() for path in sounding(paths)]
    if not sounds:
        raise UsageError(f"{config.generated}: has no sound (.wav, .flac, .mp3, ... or videos)")
    if config.unpaired:
        return Gathered([Sound(path.stem, path, None) for path in sounds], clips, origin)
    known = {clip.id: clip for clip in clips}
    pairs = pair([path.stem for path in sounds], list(known))
    if not len(pairs):
        names = ", ".join(sorted(known)[:SHOWN])
        raise UsageError(f"{pairs.problem()}; references are called {names}; --unpaired compares the sets as a whole")
    of_sound = dict(zip(pairs.generated, pairs.reference, strict=True))
    found = [Sound(path.stem, path, known.get(of_sound.get(path.stem))) for path in sounds]
    if problem := pairs.problem():
        log(f"note: {problem}")
    if pairs.lone_reference:
        log(f"note: {len(pairs.lone_reference)} of {len(known)} references have no generated sound")
    reason = "its name pairs with no reference"
    return Gathered(found, clips, origin, [Failure(s, "generated", "pairing", reason) for s in pairs.lone_generated])


# ---- what to compare with


def _references(config: EvaluateConfig) -> tuple[list[Clip], str]:
    if config.dataset is not None:
        folder = config.data
        if folder is None and config.dataset == "stage":
            folder = config.shared / f"stage{STAGE_VERSION}_{config.seconds:g}s_{config.size}px"
        rank = rank_and_world()[0]
        clips = read_dataset(
            config.dataset, folder, duration=config.seconds, count=config.count, size=config.size, render=rank == 0
        )
        return clips, origin_name(folder or Path(config.dataset))
    captions = read_captions(config.captions) if config.captions else {}
    if config.reference is None:
        return [Clip(name, caption) for name, caption in captions.items()], origin_name(config.captions)
    clips, used = [], set()
    for stem, paths in folder_files(config.reference).items():
        if sounds := sounding(paths):
            if len(sounds) > 1:
                raise UsageError(f"{config.reference}: has {sounds[0].name} and {sounds[1].name}; which one is it?")
            name = stem if stem in captions else clip_id(stem)
            used |= {name} & captions.keys()
            video = next((path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES), None)
            clips.append(Clip(stem, captions.get(name, ""), video, sounds[0]))
    if not clips:
        raise UsageError(f"{config.reference}: has no sound or video to compare with")
    if captions and not used:
        names = f"{', '.join(list(captions)[:SHOWN])}; {', '.join(clip.id for clip in clips[:SHOWN])}"
        raise UsageError(f"{config.captions}: no name in it is one of {config.reference} ({names})")
    return clips, origin_name(config.reference)


def folder_files(folder: Path) -> dict[str, list[Path]]:
    """Stem to the sound and video files of that name, sorted.

    Raises:
        UsageError: no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder")
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in AUDIO_SUFFIXES | VIDEO_SUFFIXES and not path.name.startswith("."):
            files.setdefault(path.stem, []).append(path)
    return files


def sounding(paths: Iterable[Path]) -> list[Path]:
    """Of files of one name the sounds, else the videos: a generated video lies beside its sound."""
    paths = list(paths)
    return [path for path in paths if path.suffix.lower() in AUDIO_SUFFIXES] or paths


def origin_name(path: Path) -> str:
    """A file name for a folder or table, the same for the same place."""
    safe = re.sub(r"[^\w.-]+", "_", path.resolve().name)[:40]
    return f"{safe}-{digest(str(path.resolve()), size=4)}"


# ---- sounds of a variant


def _made(config: EvaluateConfig, clips: list[Clip], origin: str) -> Gathered:
    from mmaudio.catalogue import load

    pipe = load(config.variant, local_device(config.device), weights_dir=config.weights_dir)
    rank, world = rank_and_world()
    generating = Generating(pipe, clips, config.out / "sounds", config.sampling)
    if generating.note and rank == 0:
        log(f"note: {generating.note}")
    batch_size = config.batch_size or (8 if pipe.device.type == "cuda" else 1)
    share = clips[rank::world]
    with tqdm(total=len(share), desc=pipe.variant.name, unit="clip", disable=None if rank == 0 else True) as bar:
        for _ in generating.run(share, batch_size):
            bar.update()
    wait_until_done(generating.unfinished, TIMEOUT, "sounds")
    failed = generating.failures()
    sounds = [Sound(clip.id, generating.path(clip), clip) for clip in clips if clip.id not in failed]
    if not sounds:
        raise UsageError(f"not one sound could be made; the first clip: {next(iter(failed.values()), 'none')}")
    made_by = {"variant": pipe.variant.name, "weights": generating.weights, "sampling": asdict(config.sampling)}
    failures = [Failure(name, "generated", "generation", reason) for name, reason in failed.items()]
    return Gathered(sounds, clips, origin, failures, made_by)
