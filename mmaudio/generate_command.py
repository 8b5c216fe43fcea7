"""`mmaudio generate`, also `demo.py`: settings, inputs and their results' names, and files that appear whole or not."""

import argparse
import contextlib
import itertools
import math
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from mmaudio.console import StageBar, UsageError, error_line, expected_errors, log

SOME_FAILED = 1


@dataclass
class DemoConfig:
    """Typed schema of configs/demo.yaml; `None` is "not set"."""

    variant: str = "auto"
    lora: list[str] = field(default_factory=list)
    lora_strength: float = 1.0
    video: list[str] = field(default_factory=list)
    image: str | None = None
    prompt: str = ""
    negative_prompt: str = ""
    duration: float | None = None
    cfg_strength: float = 4.5
    num_steps: int = 25
    solver: str = "euler"
    seed: int = 42
    num_samples: int = 1
    output: str = "output"
    lufs: float | None = None
    mix_original: float | None = None
    mask_away_clip: bool = False
    skip_video_composite: bool = False
    full_precision: bool = False
    low_memory: bool = False
    device: str | None = None
    weights_dir: str | None = None
    overwrite: bool = False


GENERATE_HELP = """\
Synthesise sound for a video, a picture, words, or both words and video.

examples:
  %(prog)s --video clip.mp4 --prompt "a metal ball bounces on wood"
  %(prog)s --video holiday/ --output sounds          every video of a folder
  %(prog)s --prompt "rain, distant thunder"           words alone, 8 seconds
  %(prog)s --image still.jpg --prompt "waves" --duration 6
  %(prog)s --video clip.mp4 --num_samples 4           four takes, seeds 42 to 45
  %(prog)s --video clip.mp4 --variant output/my_run   weights of your own, from train.py
  %(prog)s --video clip.mp4 --variant small_16k --lora adapter.safetensors

Writes OUTPUT/<name>.flac and, with a video or picture, OUTPUT/<name>.mp4 (or .mkv, .mov, .webm, .m4v as the source
is; the pictures are copied, not encoded again). Result paths go to stdout, everything else to stderr. Exit code: 0 all
written, 1 some of several inputs failed, 2 nothing could be done.
"""


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    # Only given flags override configs/demo.yaml, so none has a default here.
    inputs = parser.add_argument_group("input", "and any setting of configs/demo.yaml as key=value, in Hydra's syntax")
    inputs.add_argument("--video", nargs="+", metavar="PATH", help="video files, folders or quoted globs")
    inputs.add_argument("--image", metavar="PATH", help="a picture; the result is a still video")
    inputs.add_argument("--prompt", help="what should be heard")
    inputs.add_argument("--negative_prompt", help="what should not be heard")
    inputs.add_argument(
        "--duration", type=float, metavar="SECONDS", help="default: the clip's own length, at most 12 s"
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--variant",
        help="auto (default: the best one installed), a name from `mmaudio info`, "
        "or the path of a flow network or run of your own",
    )
    model.add_argument("--lora", nargs="+", metavar="FILE", help="adapters to add to the variant's weights")
    model.add_argument("--lora_strength", type=float, metavar="X", help="times which they are added (1)")
    model.add_argument("--weights_dir", metavar="DIR", help="where to look for weight files first")
    model.add_argument("--device", help="cuda, cuda:1, mps or cpu; default: the best there is")
    model.add_argument("--full_precision", action="store_true", help="float32 also on a GPU")
    model.add_argument("--low_memory", action="store_true", help="keep one part of the model in memory at a time")
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--num_steps", type=int, help="solver steps (25)")
    sampling.add_argument("--cfg_strength", type=float, help="guidance (4.5); below 1: none")
    sampling.add_argument("--solver", help="euler (default), midpoint, heun, dopri5")
    sampling.add_argument("--seed", type=int, help="of the first sample (42)")
    sampling.add_argument("--num_samples", type=int, help="takes per input, with consecutive seeds (1)")
    sampling.add_argument(
        "--mask_away_clip", action="store_true", help="use only the timing of the video, not its content"
    )
    out = parser.add_argument_group("output")
    out.add_argument("--output", metavar="DIR", help="output folder (output)")
    out.add_argument("--overwrite", action="store_true", help="replace existing files")
    out.add_argument("--skip_video_composite", action="store_true", help="write only the sound")
    out.add_argument(
        "--mix_original", type=float, metavar="DB", help="keep the video's own sound under ours, at this gain"
    )
    out.add_argument(
        "--lufs",
        type=float,
        help="normalise the new sound, e.g. -16 (true peak at most -1 dBTP); default: off",
    )


def config_dir() -> Path:
    """`configs/`: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    return next(p for p in (package / "configs", package.parent / "configs") if (p / "demo.yaml").exists())


def split_overrides(argv: list[str]) -> tuple[list[str], list[str]]:
    """Command line without its `key=value` words, and those words.

    argparse cannot do it: `--video` takes several values and would swallow them. What follows a flag that takes one
    value is that value, whatever it looks like; what exists as a file is a file.
    """
    one_value = {f"--{f.name}" for f in fields(DemoConfig) if f.type not in (bool, list[str])}
    rest, words = [], []
    for before, word in zip([None, *argv], argv, strict=False):
        is_word = re.match(r"[+~]*[A-Za-z_][\w.@/]*=", word) and before not in one_value and not os.path.exists(word)
        (words if is_word else rest).append(word)
    return rest, words


def demo_config(args: argparse.Namespace) -> DemoConfig:
    """configs/demo.yaml, then `key=value` words, then flags. Free text never meets Hydra's grammar."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    ConfigStore.instance().store("demo_schema", DemoConfig)
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config: DemoConfig = OmegaConf.to_object(compose("demo", overrides=args.overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(f"setting: {str(error).splitlines()[0]}") from error
    flags = {f.name: getattr(args, f.name, None) for f in fields(DemoConfig)}
    # 0 is a value; a flag that was not given is None or False. Set outside OmegaConf, which would read "${x}" in text.
    return replace(config, **{name: v for name, v in flags.items() if v is not None and v is not False})


def file_safe(text: str, limit: int = 60) -> str:
    """A prompt as a file name."""
    return re.sub(r"[^\w-]+", "_", text.strip().lower()).strip("_")[:limit] or "sound"


@dataclass(frozen=True)
class Job:
    """One input and the stem of its results."""

    source: Path | None
    is_image: bool
    stem: str


def plan_jobs(config: DemoConfig) -> list[Job]:
    from mmaudio.media import find_videos

    if config.video and config.image:
        raise UsageError("give --video or --image, not both")
    if config.image is not None:
        sources = [Path(config.image)]
    elif config.video:
        sources = find_videos(config.video)
    elif config.prompt:
        return [Job(None, False, file_safe(config.prompt))]
    else:
        raise UsageError("nothing to do: give --video, --image or --prompt (see --help)")
    jobs, taken = [], set()
    for source in sources:  # equal names from several folders get numbers
        stems = itertools.chain([source.stem], (f"{source.stem}_{n}" for n in itertools.count(2)))
        for job in (Job(source, config.image is not None, stem) for stem in stems):
            planned = {str(path).casefold() for pair in targets(config, job) for path in pair if path is not None}
            if not planned & taken:
                break
        jobs.append(job)
        taken |= planned
    return jobs


def check_writable(folder: Path) -> None:
    """Fail before the work, not after it. Leaves nothing behind that was not there."""
    try:
        existing = folder
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir():
            raise UsageError(f"{folder}: cannot be the output folder, {existing} is a file; choose another --output")
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UsageError(f"{folder}: cannot write here ({error.strerror}); choose another --output") from error


def targets(config: DemoConfig, job: Job) -> list[tuple[Path, Path | None]]:
    """(sound, video or None) for every sample of a job."""
    folder, names = Path(config.output), [job.stem]
    if config.num_samples > 1:
        names = [f"{job.stem}_{i + 1}" for i in range(config.num_samples)]
    with_video = job.source is not None and not config.skip_video_composite
    suffix = ".mp4"
    if with_video and job.source.suffix.lower() in (".mkv", ".mov", ".webm", ".m4v"):
        suffix = job.source.suffix.lower()
    return [(folder / f"{n}.flac", folder / f"{n}{suffix}" if with_video else None) for n in names]


@contextlib.contextmanager
def staged(output: Path, overwrite: bool):
    """A hidden folder inside `output` and a list for what is written there; all of it moves up at the end, or nothing.

    Half a job's results would look like a whole one's. An output folder that was not there before a failure goes too.
    """
    new = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    folder, written, moved = Path(tempfile.mkdtemp(prefix=".mmaudio-", dir=output)), [], []
    try:
        yield folder, written
        for path in written:  # a container that could not hold the video may have changed a name since the check
            if not overwrite and (output / path.name).exists():
                raise UsageError(f"{output / path.name}: exists already; add --overwrite or choose another --output")
        for path in written:
            target = output / path.name
            if not target.exists():  # an older file that is replaced is not ours to remove
                moved.append(target)
            os.replace(path, target)
    except BaseException:
        for path in moved:
            path.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if new and not any(output.iterdir()):
            output.rmdir()


def run_job(pipe, config: DemoConfig, job: Job) -> None:
    from mmaudio.loudness import normalize_loudness

    bar = StageBar()
    try:
        generations = pipe(
            video=None if job.is_image else job.source,
            image=job.source if job.is_image else None,
            prompt=config.prompt,
            negative_prompt=config.negative_prompt,
            duration=config.duration,
            num_steps=config.num_steps,
            cfg_strength=config.cfg_strength,
            seed=config.seed,
            num_samples=config.num_samples,
            solver=config.solver,
            mask_away_clip=config.mask_away_clip,
            progress=bar,
        )
    finally:
        bar.close()
    for note in generations[0].notes:
        log(f"note: {note}")
    with staged(Path(config.output), config.overwrite) as (folder, written):
        for generation, (sound, video) in zip(generations, targets(config, job), strict=True):
            if config.lufs is not None:
                generation.audio, note = normalize_loudness(generation.audio, generation.sample_rate, config.lufs)
                log(f"note: {note}")
            written.append(generation.save(folder / sound.name))
            if video is not None:
                result = generation.save_video(folder / video.name, mix_original=config.mix_original)
                written.append(result.path)
                for note in dict.fromkeys(result.notes):
                    log(f"note: {note}")
    took = sum(seconds for stage, seconds in pipe.timings.items() if not stage.startswith("load "))
    loading = sum(pipe.timings.values()) - took
    log(f"{generations[0].duration:.2f} s of sound in {took:.1f} s (and {loading:.1f} s loading)")
    for path in written:
        print(Path(config.output) / path.name, flush=True)


def check_settings(config: DemoConfig) -> None:
    """Refuse before the work what would fail after it. Raises UsageError or ValueError."""
    from mmaudio.loudness import check_target
    from mmaudio.media.mux import check_gain

    paths = [("image", config.image), ("output", config.output), *(("video", path) for path in config.video)]
    paths += [("variant", config.variant), *(("lora", path) for path in config.lora)]
    for name, path in paths:
        if path == "":  # an unset shell variable; Path would take it for the current folder
            raise UsageError(f"--{name} is empty: give a path")
    if config.num_samples < 1 or config.num_steps < 1:
        raise UsageError(f"--num_samples {config.num_samples}, --num_steps {config.num_steps}: must be at least 1")
    if not math.isfinite(config.lora_strength):
        raise UsageError(f"--lora_strength {config.lora_strength}: must be a number")
    if config.lufs is not None:
        check_target(config.lufs)
    if config.mix_original is not None:
        check_gain(config.mix_original)


def generate(args: argparse.Namespace) -> int:
    config = demo_config(args)
    check_settings(config)
    jobs = plan_jobs(config)
    check_writable(Path(config.output))
    for job in jobs:
        for path in (path for pair in targets(config, job) for path in pair if path is not None and path.exists()):
            if not config.overwrite:
                raise UsageError(f"{path}: exists already; add --overwrite or choose another --output")
            if job.source is not None and job.source.exists() and path.samefile(job.source):
                raise UsageError(f"{path}: is the source itself; choose another --output")

    import torch

    from mmaudio.catalogue import best_installed, load
    from mmaudio.variants import PREFERENCE

    name = config.variant
    if name == "auto":
        name = best_installed(config.weights_dir)
        better = "" if name == PREFERENCE[0] else f"; for the best one: mmaudio download {PREFERENCE[0]}"
        log(f"variant: {name} (the best one on this machine{better})")
    try:
        device = torch.device(config.device) if config.device else None
        if device is not None and device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("use cpu, cuda or mps")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {config.device}: not usable here ({str(error).splitlines()[0]})") from error
    dtype = torch.float32 if config.full_precision else None
    pipe = load(
        name, device, dtype, config.weights_dir, config.low_memory,
        lora=config.lora, lora_strength=config.lora_strength,
    )  # fmt: skip
    log(f"using {pipe.variant.name} on {pipe.device}, {str(pipe.dtype).removeprefix('torch.')}, seed {config.seed}")
    for path in config.lora:
        log(f"with the adapter {path}, times {config.lora_strength:g}")

    failures = 0
    for i, job in enumerate(jobs, start=1):
        if len(jobs) > 1:
            log(f"[{i}/{len(jobs)}] {job.source}")
        try:
            run_job(pipe, config, job)
        except expected_errors() as error:
            if len(jobs) == 1:
                raise
            failures += 1
            log(error_line(error))
    if failures:
        log(f"{failures} of {len(jobs)} inputs failed")
    return SOME_FAILED if failures else 0
