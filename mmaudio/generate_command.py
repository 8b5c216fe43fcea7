"""`mmaudio generate`, also `demo.py`: flags and settings, and from them to the jobs that are run."""

import argparse
import math
import os
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from mmaudio.batch import RESULTS, Results, Runner, without_finished
from mmaudio.console import UsageError, log, usable_device
from mmaudio.jobs import check_targets, check_writable, is_list, plan_jobs

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
    prompts: str | None = None
    split_scenes: bool = False
    audio: str | None = None
    keep: str | None = None
    strength: float = 1.0
    cfg_strength: float = 4.5
    num_steps: int | None = None
    solver: str = "euler"
    seed: int = 42
    num_samples: int = 1
    pick: int | None = None
    batch_size: int = 1
    output: str = "output"
    lufs: float | None = None
    mix_original: float | None = None
    mask_away_clip: bool = False
    skip_video_composite: bool = False
    full_precision: bool = False
    low_memory: bool = False
    compile: bool = False
    device: str | None = None
    weights_dir: str | None = None
    overwrite: bool = False
    skip_existing: bool = False


GENERATE_HELP = """\
Synthesise sound for a video, a picture, words, or both words and video.

examples:
  %(prog)s --video clip.mp4 --prompt "a metal ball bounces on wood"
  %(prog)s --prompt "rain, distant thunder" --duration 6
  %(prog)s --image still.jpg --prompt "waves"

several takes, and the best in time of eight:
  %(prog)s --video clip.mp4 --num_samples 4
  %(prog)s --video clip.mp4 --num_samples 8 --pick 1

many videos: a folder; a list that goes on where it stopped:
  %(prog)s --video holiday/ --output sounds
  %(prog)s --video list.csv --skip_existing

long ones are made in overlapping windows, with words for every part:
  %(prog)s --video film.mp4 --prompts segments.csv

a sound that is there already: go on with it, fill a gap, make it anew:
  %(prog)s --audio in.wav --keep 0-2.5 --duration 8
  %(prog)s --audio in.wav --keep 0-2,5-8 --prompt "a bell"
  %(prog)s --audio in.wav --strength 0.6 --prompt "metal"

weights of your own, and adapters:
  %(prog)s --video clip.mp4 --variant output/my_run
  %(prog)s --video clip.mp4 --variant small_16k --lora my.safetensors

Writes OUTPUT/<name>.flac and, with a video or picture, OUTPUT/<name>.mp4 (or
.mkv, .mov, .webm, .m4v as the source is; the pictures are copied, not encoded
again). Of several inputs OUTPUT/results.jsonl tells what became of each. Paths
of results go to stdout, everything else to stderr. Exit code: 0 all written, 1
some of several inputs failed, 2 nothing could be done.
"""


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    # Only given flags override configs/demo.yaml, so none has a default here.
    inputs = parser.add_argument_group("input", "and any setting of configs/demo.yaml as key=value, in Hydra's syntax")
    inputs.add_argument(
        "--video",
        nargs="+",
        metavar="PATH",
        help="video files, folders or quoted globs; or one .csv with the columns video, prompt, "
        "negative_prompt, seed, duration, output, of which only the first is needed",
    )
    inputs.add_argument("--image", metavar="PATH", help="a picture; the result is a still video")
    inputs.add_argument("--prompt", help="what should be heard")
    inputs.add_argument("--negative_prompt", help="what should not be heard")
    inputs.add_argument(
        "--duration", type=float, metavar="SECONDS", help="at most 30; default: the clip's own length, whatever it is"
    )
    parts = parser.add_argument_group("parts of a video")
    parts.add_argument(
        "--prompts", metavar="FILE", help=".csv or .yaml with start, end, prompt and perhaps negative_prompt"
    )
    parts.add_argument("--split_scenes", action="store_true", help="make every scene for itself (needs PySceneDetect)")
    editing = parser.add_argument_group("editing")
    editing.add_argument("--audio", metavar="PATH", help="a sound, or a video's, to be kept in part")
    editing.add_argument("--keep", metavar="SPANS", help="seconds of it that stay as they are: 0-2.5 or 0-2.5,5-6")
    editing.add_argument(
        "--strength",
        type=float,
        metavar="X",
        help="how far the rest may leave it: 1 (default) ignores it, 0 repeats it",
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
    model.add_argument(
        "--compile", action="store_true", help="slow to start and then faster, for many clips: torch.compile"
    )
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument(
        "--num_steps",
        type=int,
        help="solver steps (25; 4 of a network for few steps); up to 4 are made by the variant's own such network, if "
        "it has one",
    )
    sampling.add_argument("--cfg_strength", type=float, help="guidance (4.5); below 1: none")
    sampling.add_argument("--solver", help="euler (default), midpoint, heun, dopri5")
    sampling.add_argument("--seed", type=int, help="of the first sample (42)")
    sampling.add_argument("--num_samples", type=int, help="takes per input, with consecutive seeds (1)")
    sampling.add_argument(
        "--pick", type=int, metavar="K", help="of these takes keep the K best in time with the picture"
    )
    sampling.add_argument("--batch_size", type=int, metavar="N", help="inputs of equal length made together (1)")
    sampling.add_argument(
        "--mask_away_clip", action="store_true", help="use only the timing of the video, not its content"
    )
    out = parser.add_argument_group("output")
    out.add_argument("--output", metavar="DIR", help="output folder (output)")
    out.add_argument("--overwrite", action="store_true", help="replace existing files")
    out.add_argument(
        "--skip_existing", action="store_true", help="skip inputs whose results are all there, make the others' anew"
    )
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
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        if args.overrides:
            config = with_words(args.overrides)
        else:  # without Hydra, which takes longer than all of the rest of this
            settings = OmegaConf.load(config_dir() / "demo.yaml")
            del settings.defaults
            config: DemoConfig = OmegaConf.to_object(OmegaConf.merge(DemoConfig, settings))
    except OmegaConfBaseException as error:
        raise UsageError(f"setting: {str(error).splitlines()[0]}") from error
    flags = {f.name: getattr(args, f.name, None) for f in fields(DemoConfig)}
    # 0 is a value; a flag that was not given is None or False. Set outside OmegaConf, which would read "${x}" in text.
    return replace(config, **{name: v for name, v in flags.items() if v is not None and v is not False})


def with_words(words: list[str]) -> DemoConfig:
    """configs/demo.yaml, then these words in Hydra's grammar. Raises UsageError and OmegaConf's own errors."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    ConfigStore.instance().store("demo_schema", DemoConfig)
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return OmegaConf.to_object(compose("demo", overrides=words))
    except HydraException as error:
        raise UsageError(f"setting: {str(error).splitlines()[0]}") from error


def check_settings(config: DemoConfig) -> None:
    """Refuse before the work what would fail after it. Raises UsageError or ValueError."""
    from mmaudio.loudness import check_target
    from mmaudio.media.mux import check_gain

    paths = [("image", config.image), ("audio", config.audio), ("prompts", config.prompts), ("output", config.output)]
    paths += [("video", path) for path in config.video]
    paths += [("variant", config.variant), *(("lora", path) for path in config.lora)]
    for name, path in paths:
        if path == "":  # an unset shell variable; Path would take it for the current folder
            raise UsageError(f"--{name} is empty: give a path")
    for name, value in (("num_samples", config.num_samples), ("num_steps", config.num_steps)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: must be at least 1")
    if config.pick is not None and not 1 <= config.pick <= config.num_samples:
        raise UsageError(f"--pick {config.pick}: must be between 1 and --num_samples {config.num_samples}")
    if config.batch_size < 1:
        raise UsageError(f"--batch_size {config.batch_size}: must be at least 1")
    if config.audio is None and (config.keep is not None or config.strength != 1):
        raise UsageError("--keep and --strength need the sound that they are about: --audio")
    if config.keep is not None and config.lufs is not None:
        raise UsageError("--lufs would change what --keep keeps: leave one of them out")
    if not math.isfinite(config.lora_strength):
        raise UsageError(f"--lora_strength {config.lora_strength}: must be a number")
    if config.lufs is not None:
        check_target(config.lufs)
    if config.mix_original is not None:
        check_gain(config.mix_original)


def reading_options(config: DemoConfig) -> dict:
    """What only one input can have: words for its parts, and a sound to keep. Raises ValueError and OSError."""
    from mmaudio.editing import Edit, parse_spans
    from mmaudio.segments import read_prompts

    options = {"split_scenes": config.split_scenes}
    if config.prompts is not None:
        options["segments"] = read_prompts(config.prompts)
    if config.audio is not None:
        keep = [] if config.keep is None else parse_spans(config.keep)
        options["edit"] = Edit(config.audio, keep, config.strength)
    return options


def generate(args: argparse.Namespace) -> int:
    config = demo_config(args)
    check_settings(config)
    jobs, reading = plan_jobs(config), reading_options(config)
    several = len(jobs) > 1 or any(map(is_list, config.video))
    if several and (config.prompts is not None or config.audio is not None):
        raise UsageError("--prompts and --audio are for one input: give a single video, picture or prompt")
    check_writable(Path(config.output))
    results = Results(Path(config.output) / RESULTS) if several or config.skip_existing else None
    if config.skip_existing:
        jobs = without_finished(config, jobs, results)
        if not jobs:
            return 0
    for job in jobs:
        check_targets(config, job)

    import torch

    from mmaudio.catalogue import best_installed, load
    from mmaudio.variants import PREFERENCE

    name = config.variant
    if name == "auto":
        name = best_installed(config.weights_dir)
        better = "" if name == PREFERENCE[0] else f"; for the best one: mmaudio download {PREFERENCE[0]}"
        log(f"variant: {name} (the best one on this machine{better})")
    device = usable_device(config.device)
    dtype = torch.float32 if config.full_precision else None
    pipe = load(
        name, device, dtype, config.weights_dir, config.low_memory,
        lora=config.lora, lora_strength=config.lora_strength, compile=config.compile,
    )  # fmt: skip
    config.num_steps = pipe.variant.num_steps if config.num_steps is None else config.num_steps
    log(f"using {pipe.variant.name} on {pipe.device}, {str(pipe.dtype).removeprefix('torch.')}, seed {config.seed}")
    for path in config.lora:
        log(f"with the adapter {path}, times {config.lora_strength:g}")

    if config.compile:
        log("compiling: with every part and until two lengths have come up, this can take minutes")

    runner = Runner(pipe, config, results, **reading)
    runner.run(jobs)
    if runner.failures:
        log(f"{runner.failures} of {len(jobs)} inputs failed")
    return SOME_FAILED if runner.failures else 0
