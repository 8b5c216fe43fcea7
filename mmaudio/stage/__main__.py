"""`python -m mmaudio.stage`: look at Stage clips, or write a folder of them."""

import argparse
import sys
from pathlib import Path

from .clip import render_clip
from .director import SPLITS, split_seeds


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
    preview.add_argument("--out", type=Path, required=True, help="the mp4 to write; the sheet goes beside it")
    preview.set_defaults(run=_preview)

    export = commands.add_parser("export", help="a folder of mp4 files, captions.tsv and contact times")
    export.add_argument("--split", default="test", help=", ".join(SPLITS))
    export.add_argument("--count", type=int, required=True)
    export.add_argument("--start", type=int, default=0, help="skip this many clips of the split")
    export.add_argument("--out", type=Path, required=True, help="the folder to write")
    export.set_defaults(run=_export)

    for command, size, rate in ((preview, 256, 44100), (export, 224, 44100)):
        command.add_argument("--duration", type=float, default=8.0, help="seconds (default %(default)s)")
        command.add_argument("--fps", type=float, default=25.0, help="frames per second (default %(default)s)")
        command.add_argument("--size", type=int, default=size, help="pixels, square (default %(default)s)")
        command.add_argument("--sample-rate", type=int, default=rate, help="hertz (default %(default)s)")
        command.add_argument("--material", help="make everything that sounds of it; stone is in no other scene")
        command.add_argument("--silent", action="store_true", help="pictures only: something to try a model on")
        command.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser


def _rendering(options: argparse.Namespace) -> dict:
    rendering = {name: getattr(options, name) for name in ("duration", "fps", "size", "sample_rate", "material")}
    return rendering | {"audio": not options.silent}


def _preview(options: argparse.Namespace) -> int:
    from .export import write_preview

    if options.out.suffix != ".mp4":
        raise ValueError(f"--out must end in .mp4: got {options.out}")
    for path in (options.out, options.out.with_suffix(".png")):
        if path.exists() and not options.overwrite:
            raise FileExistsError(f"{path} exists: pass --overwrite or choose another name")
    clip = render_clip(options.seed, **_rendering(options))
    sheet = write_preview(options.out, clip)
    print(f"{options.out}: {clip.caption}")
    for event in clip.events:
        print(f"  {event.time:6.3f} s  {event.kind} {event.material}  loudness {event.loudness:.2f}")
    print(f"{sheet}: the frames around each contact")
    return 0


def _export(options: argparse.Namespace) -> int:
    from .export import export

    if options.count < 1:
        raise ValueError(f"--count must be at least 1: got {options.count}")
    seeds = split_seeds(options.split, options.count, options.start)
    ids = export(seeds, options.out, prefix=options.split, overwrite=options.overwrite, **_rendering(options))
    print(f"{options.out}: {len(ids)} clips, captions.tsv, events/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
