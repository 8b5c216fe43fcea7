"""`python -m mmaudio.stage`: look at Stage clips, or write a data set of them."""

import argparse
import os
import sys
from pathlib import Path

from .clip import render_clip
from .director import SPLITS, split_seeds
from .families import FAMILIES

SECONDS, AUDIO_ONLY_SECONDS = 8.0, 10.0  # feature extraction wants a little more than 8 s of sound on its own


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code (2 for a mistake in the request)."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mmaudio.stage", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    preview = commands.add_parser("preview", help="one clip as mp4 with sound, and a contact sheet as PNG")
    preview.add_argument("--seed", type=int, default=0)
    preview.add_argument("--out", type=Path, help="the mp4 to write, the sheet goes beside it (default: in output/)")
    preview.add_argument("--silent", action="store_true", help="pictures only: something to try a model on")
    preview.add_argument("--overwrite", action="store_true", help="replace files that exist")
    preview.set_defaults(run=_preview)

    export = commands.add_parser("export", help="a folder of clips, captions and ground truth; goes on where it was")
    export.add_argument("--split", help=f"{', '.join(SPLITS)} (default: test, or train_audio with --audio-only)")
    export.add_argument("--count", type=int, required=True)
    export.add_argument("--start", type=int, default=0, help="skip this many clips of the split")
    export.add_argument("--out", type=Path, required=True, help="the folder to write")
    export.add_argument("--stems", action="store_true", help="also one FLAC file per source")
    export.add_argument("--audio-only", action="store_true", help="FLAC files instead of videos; so is train_audio")
    export.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default %(default)s)")
    export.set_defaults(run=_export)

    for command, size, rate in ((preview, 256, 44100), (export, 224, 44100)):
        command.add_argument("--duration", type=float, help="seconds (default 8; 10 for sound only)")
        command.add_argument("--fps", type=float, default=25.0, help="frames per second (default %(default)s)")
        command.add_argument("--size", type=int, default=size, help="pixels, square (default %(default)s)")
        command.add_argument("--sample-rate", type=int, default=rate, help="hertz (default %(default)s)")
        command.add_argument("--family", help=f"only this one: {', '.join(FAMILIES)}")
        command.add_argument("--material", help="make everything solid of it; stone is in no other scene")
    return parser


def _rendering(options: argparse.Namespace, seconds: float) -> dict:
    names = ("duration", "fps", "size", "sample_rate", "family", "material")
    rendering = {name: getattr(options, name) for name in names}
    return rendering if options.duration is not None else rendering | {"duration": seconds}


def _preview(options: argparse.Namespace) -> int:
    from .preview import write_preview

    family = f"_{options.family}" if options.family else ""
    out = options.out or Path("output") / f"stage{family}_{options.seed}.mp4"
    if out.suffix != ".mp4":
        raise ValueError(f"--out must end in .mp4: got {out}")
    for path in (out, out.with_suffix(".png")):
        if path.exists() and not options.overwrite:
            raise FileExistsError(f"{path} exists: pass --overwrite or choose another name")
    clip = render_clip(options.seed, audio=not options.silent, **_rendering(options, SECONDS))
    sheet = write_preview(out, clip)
    print(f"{out}: {clip.caption}")
    for event in clip.events:
        lasting = f" for {event.seconds:.2f} s" if event.seconds else ""
        unseen = "" if event.seen else ", out of sight"
        material = f" {event.material}" if event.material else ""
        print(f"  {event.time:6.3f} s  {event.kind}{material}{lasting}, loudness {event.loudness:.2f}{unseen}")
    print(f"{sheet}: the whole clip, then the frames around events")
    return 0


def _export(options: argparse.Namespace) -> int:
    from .export import export

    if options.count < 1:
        raise ValueError(f"--count must be at least 1: got {options.count}")
    if options.workers < 1:
        raise ValueError(f"--workers must be at least 1: got {options.workers}")
    split = options.split or ("train_audio" if options.audio_only else "test")
    audio_only = options.audio_only or split == "train_audio"
    seeds = split_seeds(split, options.count, options.start)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the workers: there is one for each core
    ids = export(
        seeds, options.out, split=split, workers=options.workers, audio_only=audio_only, stems=options.stems,
        **_rendering(options, AUDIO_ONLY_SECONDS if audio_only else SECONDS),
    )  # fmt: skip
    print(f"{options.out}: {len(ids)} clips; see manifest.tsv and ground_truth.jsonl")
    return 0


if __name__ == "__main__":
    sys.exit(main())
