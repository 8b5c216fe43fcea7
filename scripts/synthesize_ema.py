"""Weights averaged over any length of a finished (or running) training, from its snapshots."""

import argparse
import sys
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from mmaudio.console import UsageError, error_line, expected_errors, log
from mmaudio.loading import check_network
from mmaudio.model.lora import merged_state
from mmaudio.training.ema import open_snapshots, synthesize
from mmaudio.variants import get_variant, network_metadata
from mmaudio.weights import save_safetensors

USAGE_ERROR = 2
SNAPSHOTS = ("", "ema", "ema_ckpts")  # in the given folder; in a run of train.py; in one of the reference's

HELP = """\
Weights averaged over any length of a training, after it: the length need not have been chosen before (post-hoc EMA).

examples:
  %(prog)s output/my_run --sigma_rel 0.08               -> output/my_run/my_run_ema0.08.safetensors
  %(prog)s output/my_run --sigma_rel 0.12 --step 150000
  %(prog)s old/ema_ckpts --variant small_16k            snapshots of the reference implementation

then:
  python demo.py --variant output/my_run/my_run_ema0.08.safetensors --video clip.mp4

--sigma_rel is the length of the average relative to the training: 0.05 is mostly made of the last tenth of it, 0.1 of
the last fifth, 0.15 of the last third. Lengths near the ones that were kept (0.05 and 0.1 unless configured) are met to
a fraction of a percent; a warning says when one is not. Exit code: 0 written, 2 not.
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run, or of its snapshots")
    parser.add_argument("--sigma_rel", type=float, default=0.05, help="relative length of the average (0.05)")
    parser.add_argument("--step", type=int, help="where it ends, a step that has snapshots; default: the last")
    parser.add_argument("--output", type=Path, help="file to write; default: in RUN, see the examples")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("--variant", help="of the network; only needed for snapshots that do not say it")
    parser.add_argument(
        "--correction",
        choices=("exact", "reference"),
        help="how snapshots are combined: from the formulas, or as the reference implementation does it; default: as "
        "the snapshots were made",
    )
    args = parser.parse_args(argv)
    try:
        print(run(args))
    except expected_errors() as error:
        log(error_line(error))
        return USAGE_ERROR
    return 0


def run(args: argparse.Namespace) -> Path:
    if args.output is None:
        end = "" if args.step is None else f"_{args.step}"
        args.output = args.run / f"{args.run.resolve().name}_ema{args.sigma_rel:g}{end}.safetensors"
    if args.output.suffix != ".safetensors":
        raise UsageError(f"{args.output}: the output must end in .safetensors")
    if args.output.exists() and not args.overwrite:
        raise UsageError(f"{args.output}: exists already; add --overwrite or choose another --output")
    snapshots = open_snapshots(snapshot_folder(args.run))
    bar = tqdm(desc="tensors", disable=None, leave=False)

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    with bar:
        averaged = synthesize(snapshots, args.sigma_rel, args.step, args.correction, progress)
    metadata = snapshots[-1].metadata
    state = official(averaged, metadata.get("part", "network"))
    if args.variant:
        variant = get_variant(args.variant)
        check_network(variant, state, args.run)
        metadata = metadata | network_metadata(variant)
    elif "variant" not in metadata:
        log(
            "note: the snapshots do not say for which variant they are; add --variant NAME to load the file by its path"
        )
    step = max(snapshot.step for snapshot in snapshots) if args.step is None else args.step
    about = {"sigma_rel": f"{args.sigma_rel:g}", "step": str(step)}
    save_safetensors(args.output, state, metadata | about)
    return args.output


def official(state: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The averaged tensors in the layout of the part's own file, as the training writes them."""
    if part == "clip":
        from mmaudio.training.tasks.clip import open_clip_state

        return open_clip_state(state)
    if part == "sync":
        from mmaudio.training.tasks.sync import official_state

        return official_state(state)
    return merged_state(state)


def snapshot_folder(run: Path) -> Path:
    """`run` itself, or the folder in it where a training keeps its snapshots."""
    if not run.is_dir():
        raise UsageError(f"{run}: no such folder")
    for name in SNAPSHOTS:
        if any((run / name).glob("[0-9]*.[0-9]*.*")):
            return run / name
    raise UsageError(f"{run}: no snapshots (<profile>.<step>.safetensors or .pt) in there or in its folder ema")


if __name__ == "__main__":
    sys.exit(main())
