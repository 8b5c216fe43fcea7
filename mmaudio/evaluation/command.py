"""`mmaudio evaluate`, also `scripts/evaluate.py`: its flags."""

import argparse
from dataclasses import fields
from pathlib import Path

HELP = """\
Judge generated sounds, or make them first and then judge them.

examples:
  %(prog)s --generated sounds --reference test_set --captions all.csv
  %(prog)s --variant tiny_16k --dataset stage --count 64
  %(prog)s --variant small_16k --dataset vggsound --data /data/vggsound
  %(prog)s --generated sounds --dataset greatest_hits \\
    --data /data/greatest_hits
  torchrun --standalone --nproc_per_node=8 scripts/evaluate.py \\
    --variant large_44k --dataset vggsound --data ...
  %(prog)s ... --compare output/other_run    # which is better, by clip

Writes OUT/metrics.json, OUT/clips.json and OUT/report.html, and prints the
table. What is made and extracted is kept: a run that was killed goes on where
it was, and the same references are looked at once. A metric whose network is
not on this machine is skipped, and the table says why and what to do. Exit
code: 0 done, 1 more clips failed than --allow_missing, 2 nothing could be done.
"""


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    # Defaults are those of EvaluateConfig: only given flags override them.
    what = parser.add_argument_group("what is judged: one of these two")
    what.add_argument("--generated", type=Path, metavar="DIR", help="sounds or videos that are there")
    what.add_argument("--variant", help="makes the sounds: a name from `mmaudio info`, or a network of your own")
    by = parser.add_argument_group("what it is compared with")
    by.add_argument("--reference", type=Path, metavar="DIR", help="true sounds, and videos, called as the generated")
    by.add_argument("--captions", type=Path, metavar="FILE", help="CSV with the columns name and caption")
    by.add_argument("--unpaired", action="store_true", help="names mean nothing: compare the sets as a whole")
    by.add_argument(
        "--dataset", metavar="NAME|CSV", help="vggsound, audiocaps, moviegen, greatest_hits, stage, or id,path,caption"
    )
    by.add_argument("--data", type=Path, metavar="DIR", help="where the dataset's table and media are")
    by.add_argument("--count", type=int, help="the first so many clips of the dataset; all")
    by.add_argument("--size", type=int, help="pixels of Stage clips (224)")
    by.add_argument("--duration", type=float, metavar="SECONDS", help="of every clip (8; audiocaps 10)")
    sampling = parser.add_argument_group("how a variant makes sounds")
    sampling.add_argument("--num_steps", type=int, help="solver steps (25)")
    sampling.add_argument("--cfg_strength", type=float, help="guidance (4.5)")
    sampling.add_argument("--solver", help="euler (default), midpoint, heun, dopri5")
    sampling.add_argument("--seed", type=int, help="with a clip's id it decides the noise (42)")
    sampling.add_argument("--batch_size", type=int, help="clips at a time (8 on a GPU, else 1)")
    networks = parser.add_argument_group("networks")
    networks.add_argument("--backbones", metavar="A,B", help="only these; none: what needs no network (all)")
    networks.add_argument("--weights_dir", type=Path, metavar="DIR", help="where to look for weight files first")
    networks.add_argument("--download", action="store_true", help="fetch weights that are missing: gigabytes")
    networks.add_argument("--device", help="cuda, cuda:1, mps or cpu; default: the best there is")
    out = parser.add_argument_group("output")
    out.add_argument("--out", type=Path, metavar="DIR", help="output/evaluation")
    out.add_argument("--cache", type=Path, metavar="DIR", help="features of references (~/.cache/mmaudio/evaluation)")
    out.add_argument("--allow_missing", type=int, metavar="N", help="clips that may fail (0)")
    out.add_argument("--compare", type=Path, metavar="RUN", help="folder or clips.json of another run")


def evaluate_command(args: argparse.Namespace) -> int:
    from mmaudio.console import UsageError
    from mmaudio.data.parts import ExtractionError
    from mmaudio.evaluation.gathering import EvaluateConfig
    from mmaudio.evaluation.run import evaluate

    given = {f.name: getattr(args, f.name) for f in fields(EvaluateConfig)}
    if given["backbones"] is not None:
        names = given["backbones"].split(",")
        given["backbones"] = () if names == ["none"] else tuple(names)
    config = EvaluateConfig(**{name: v for name, v in given.items() if v is not None and v is not False})
    try:
        return evaluate(config)
    except ExtractionError as error:  # of sounds that other settings made
        raise UsageError(str(error)) from error
