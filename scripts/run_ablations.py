"""The paper's claims in small: networks with one thing changed (configs/experiment), compared on the Foley Stage.

    python scripts/run_ablations.py --stores runs/tiny/features/train,runs/tiny/features/train_audio \\
        --weights_dir runs/tiny/weights --steps 2000 --batch 16 --seeds 0,1,2 --time-limit 240
    python scripts/run_ablations.py ... --experiments full,no_sync precision=bf16 num_workers=4

The stores are those of scripts/train_tiny.py, or others that suit the variant. Every network is trained by train.py
with the same settings (words key=value are more of them) and judged by scripts/evaluate_stage.py. All experiments are
done with the first seed before any with the second, in the order of the table, so that a run that is stopped has
compared something. The same command goes on where it was. The table is in WORK/ablations.md.
"""

import argparse
import json
import math
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from mmaudio.console import error_line, expected_errors, log
from mmaudio.data.store import open_store
from mmaudio.weights import read_metadata

ROOT = Path(__file__).parents[1]
EXPERIMENTS = {
    "full": "the variant's own network",
    "no_sync": "no synchronisation module",
    "sum_sync": "sync summed with visual",
    "stretched_sync": "sync tokens stretched in their order",
    "default_rope": "default RoPE",
    "no_audio_text": "without audio-text data",
    "zeros": "missing modalities: zeros",
    "learned": "missing modalities: all learned",
    "mlp": "MLP instead of ConvMLP",
}
COLUMNS = {  # heading -> row and figure of scripts/evaluate_stage.py
    "F1 50ms": ("variant", "F1 50ms"),
    "F1 100ms": ("variant", "F1 100ms"),
    "lag ms": ("variant", "|lag| ms"),
    "material": ("variant", "material"),
    "kind": ("variant", "kind"),
    "FD": ("variant", "FD"),
    "video alone: F1 100ms": ("video", "F1 100ms"),
    "words alone: kind": ("text", "kind"),
}
ROWS = tuple(dict.fromkeys(row for row, _ in COLUMNS.values()))
STOPPED = 130


class Stopped(Exception):
    """Out of time, or the training was stopped by somebody."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", type=words, required=True, help="feature stores to train on, with commas")
    parser.add_argument("--experiments", type=words, default=list(EXPERIMENTS), help=f"of {','.join(EXPERIMENTS)}")
    parser.add_argument("--seeds", type=words, default=["0"], help="of the trainings, with commas (0)")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--variant", default="tiny_16k")
    parser.add_argument("--weights_dir", help="codec and encoders that the stores were made with; default: as bundled")
    parser.add_argument("--split", default="test", help="that is judged")
    parser.add_argument("--count", type=int, default=64, help="clips that are judged")
    parser.add_argument("--work", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--time-limit", type=float, default=math.inf, metavar="MINUTES", help="stop then, saved")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of train.py for all of them")
    args = parser.parse_intermixed_args(argv)
    if unknown := [name for name in args.experiments if name not in EXPERIMENTS]:
        parser.error(f"unknown experiment {unknown[0]!r}: expected some of {','.join(EXPERIMENTS)}")
    end = time.monotonic() + 60 * args.time_limit
    found: dict[str, list[dict]] = {name: [] for name in EXPERIMENTS if name in args.experiments}
    try:
        for seed in args.seeds:
            for name, figures in found.items():
                log(f"== {name}, seed {seed}")
                network = train(args, name, seed, end)
                figures.append(evaluate(args, network, f"{name}_{seed}", end))
                (args.work / "ablations.md").write_text(report(args, found), encoding="utf-8")
    except Stopped:
        log("stopped; the same command goes on from here")
        return STOPPED
    except expected_errors() as error:
        log(error_line(error))
        return 2
    print(report(args, found), end="")
    return 0


def words(text: str) -> list[str]:
    return text.split(",")


def train(args: argparse.Namespace, name: str, seed: str, end: float) -> Path:
    """`train.py +experiment=NAME`; the finished network."""
    run = args.work / f"{name}_{seed}"
    if network := finished(run, args.steps):
        return network
    data = ", ".join(f"{{store: {quoted(store)}}}" for store in stores_for(name, args.stores))
    every = max(1, args.steps // 20)
    settings = [
        f"+experiment={name}", f"exp_id={run.name}", f"output={quoted(args.work)}", f"variant={quoted(args.variant)}",
        f"data.train=[{data}]", "data.validation=[]", f"seed={seed}", f"steps={args.steps}", f"batch_size={args.batch}",
        "optimizer.lr=1.5e-3", f"optimizer.warmup={args.steps // 50}", "optimizer.schedule=cosine",
        "ema.snapshot_every=0", f"checkpoint_every={every}", "keep_checkpoints=1", "num_workers=0",
    ]  # fmt: skip
    if args.weights_dir:
        settings.append(f"weights_dir={quoted(args.weights_dir)}")
    call("train.py", [*settings, *args.settings], end)
    if network := finished(run, args.steps):
        return network
    raise Stopped


def quoted(text: object) -> str:
    return json.dumps(str(text), ensure_ascii=False)


def stores_for(experiment: str, stores: list[str]) -> list[str]:
    """Those with video if there is to be no audio-text data."""
    if experiment != "no_audio_text":
        return stores
    seen = [store for store in stores if open_store(store).has_video]
    if len(seen) in (0, len(stores)):
        raise ValueError("experiment no_audio_text: --stores needs one with video and one of sound alone, or leave it")
    return seen


def finished(run: Path, steps: int) -> Path | None:
    files = (run / "weights").glob("*.safetensors")
    return next((path for path in files if read_metadata(path).get("step") == str(steps)), None)


def evaluate(args: argparse.Namespace, network: Path, name: str, end: float) -> dict[str, float | None]:
    path = args.work / f"{name}_{args.split}_{args.count}_{'_'.join(ROWS)}.json"
    if not path.exists() or path.stat().st_mtime < network.stat().st_mtime:
        options = {
            "variant": network, "split": args.split, "count": args.count, "rows": ",".join(ROWS),
            "work": args.work / "evaluation", "json": path,
        }  # fmt: skip
        if args.weights_dir:
            options["weights_dir"] = args.weights_dir
        call("scripts/evaluate_stage.py", [f"--{key}={value}" for key, value in options.items()], end)
    rows = dict(zip(ROWS, json.loads(path.read_text(encoding="utf-8"))["rows"].values(), strict=True))
    return {heading: rows[row][figure]["value"] for heading, (row, figure) in COLUMNS.items()}


def call(script: str, words: list[str], end: float) -> None:
    """A script of the repository, in a process of its own. At `end` it gets SIGTERM, by which a training saves itself.

    Raises:
        Stopped: the time is over.
        SystemExit: the script failed, and said why.
    """
    process = subprocess.Popen([sys.executable, str(ROOT / script), *words])
    try:
        code = process.wait(None if end == math.inf else max(0, end - time.monotonic()))
    except subprocess.TimeoutExpired as over:
        raise Stopped from over
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if code:
        raise SystemExit(code)


def report(args: argparse.Namespace, found: dict[str, list[dict]]) -> str:
    """Markdown: mean and standard deviation over seeds."""
    head = ["experiment", "seeds", *COLUMNS]
    lines = [
        f"{args.variant}, {args.steps} steps of {args.batch}; {args.count} clips of {args.split}; mean ± standard "
        "deviation over seeds",
        "",
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
    ]
    for name, figures in found.items():
        cells = [cell([one[column] for one in figures]) for column in COLUMNS]
        lines.append("| " + " | ".join([EXPERIMENTS[name], str(len(figures)), *cells]) + " |")
    return "\n".join(lines) + "\n"


def cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ± {statistics.stdev(known):.3f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.3f}{spread}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))  # so that what it started is stopped, too
    sys.exit(main())
