"""Are the clips of a data set sound, different from each other and from the test sets, and beside their captions?"""

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

from mmaudio.console import error_line, expected_errors, log

HELP = """\
Checks sets of clips, and writes lists without what is wrong with them.

examples:
  %(prog)s clips.tsv
  %(prog)s vggsound=train.tsv audiocaps=audiocaps.tsv --against test=test.tsv --workers 8
  %(prog)s wavcaps=freesound.csv --against audiocaps=audiocaps_test.csv --ids youtube     # ids alone, no media

A set is a manifest (.tsv with id and path, maybe caption and start), a folder of media files, or a table of ids (.csv,
.tsv or .txt). NAME=PATH gives it a name; without one it is called like the file.

What is found:
  unreadable, damaged     corrupt, cut off, not a media file, NaN samples
  silent, clipped         nothing above -75 dBFS; samples that pile up at the peak
  still                   a frozen picture
  no sound, no picture    a video without a sound track, a sound called a video
  short                   less than --min_duration
  duplicate               a clip that is in the set already, under another id
  overlap                 a clip that is in another set, by id or by content
  caption shifted, caption swapped
                          the caption of another clip, by clips of the same id or content that have it
  caption unheard         with --judge: a caption that names other sounds than are heard (Foley Stage clips only)

Duplicates are found by what is seen and heard, so encoding, volume, cutting and mirroring do not hide them.

In --output:
  NAME.clean.tsv (.csv)   each set, in its own format, without the clips that were found
  findings.tsv            each finding and its reason
  overlap.md, .json       how many clips of each set are in which other
  fingerprints.sqlite     what the clips look and sound like; keep it, and the next check takes seconds

Killed at any moment, the same command goes on where it was.

Exit code: 0 nothing found, 1 something found, 2 nothing could be checked.
"""
FOUND, USAGE_ERROR, STOPPED = 1, 2, 130


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="SET", help="[NAME=]PATH of a set that is checked and cleaned")
    parser.add_argument(
        "--against", nargs="+", default=[], metavar="SET", help="sets whose clips must not be in the others: test sets"
    )
    parser.add_argument("--output", type=Path, default=Path("output/hygiene"), help="folder (default: %(default)s)")
    parser.add_argument("--store", type=Path, help="file of fingerprints (default: fingerprints.sqlite in --output)")
    parser.add_argument("--min_duration", type=float, default=1.0, metavar="S", help="seconds (default: %(default)g)")
    parser.add_argument(
        "--duration",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds looked at of each clip (default: %(default)g)",
    )
    parser.add_argument(
        "--ids",
        choices=("exact", "youtube"),
        default="exact",
        help="youtube: the id of the video within YID, ID_000030, ID_30000_40000 (default: %(default)s)",
    )
    parser.add_argument(
        "--judge", action="store_true", help="listen for captions of other sounds, too (Foley Stage clips only)"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
    return parser.parse_args(argv)


def named(word: str) -> tuple[str, Path]:
    """[NAME=]PATH."""
    name, equals, path = word.partition("=")
    if not equals or Path(word).exists():
        name, path = Path(word).stem, word
    return re.sub(r"[^\w.-]", "_", name).strip(".") or "set", Path(path)


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from mmaudio.evaluation.hygiene.check import Settings, check_sets
    from mmaudio.evaluation.hygiene.errors import HygieneError
    from mmaudio.evaluation.hygiene.report import FINDINGS, TABLE, overlap_table, write_report
    from mmaudio.evaluation.hygiene.sets import read_set
    from mmaudio.evaluation.hygiene.store import Store

    settings = Settings(args.min_duration, args.duration, args.workers, args.ids)
    words = [named(word) for word in (*args.sets, *args.against)]
    names = [name for name, _ in words]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise HygieneError(f"two sets are called {repeated}: give them names, NAME=PATH")
    sets = [read_set(name, path) for name, path in words]
    checked, against = sets[: len(args.sets)], sets[len(args.sets) :]
    args.output.mkdir(parents=True, exist_ok=True)
    store = Store(args.store or args.output / "fingerprints.sqlite")
    with tqdm(total=0, unit="", disable=None, leave=False) as bar:

        def progress(what: str, done: int, total: int) -> None:
            bar.set_description(what, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        report = check_sets(checked, against, store, settings, progress)
    if args.judge:
        from mmaudio.evaluation.hygiene.listening import add_unheard

        add_unheard(checked, report, settings.duration)
    for clips, path in zip(checked, write_report(args.output, checked, report), strict=True):
        kept = len(clips.items) - len(report.removed[clips.name])
        log(f"{clips.name}: {kept} of {len(clips.items)} clips are left, {path}")
    counts = Counter(finding.kind for finding in report.findings)
    print(overlap_table(report.overlaps), end="")
    found = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing"
    print(f"found: {found}\nwrote {args.output / FINDINGS}, {args.output / TABLE}")
    return FOUND if report.findings else 0


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        return run(args)
    except KeyboardInterrupt:
        log("stopped; the same command goes on from here")
        return STOPPED
    except expected_errors() as error:
        log(error_line(error))
        return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
