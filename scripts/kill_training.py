"""Is anything lost or doubled when a run is killed at any moment? Kills extraction and training, again and again.

    python scripts/kill_training.py --kills 20
    python scripts/kill_training.py --kills 20 --ranks 2     # training under torchrun

On a few small Foley Stage clips: one extraction and one training are left alone; another pair is killed (SIGKILL) at
random moments and started again with the same command, half of the times each. In the end the feature stores must be
equal byte by byte, the final weights bit by bit, and every step be in the statistics once. Of several ranks half of the
kills take torchrun alone, whose ranks then save and end by themselves, and half all processes. Takes a few minutes on
two cores.
"""

import argparse
import contextlib
import filecmp
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from tqdm import tqdm

from mmaudio.stage.export import export

ROOT = Path(__file__).resolve().parents[1]
LONGEST_RUN = 600  # seconds
START_UP = 8  # seconds, about
WINDOWS = (1.0, 6.0)  # seconds of work before a kill, at most: extraction and training


def command(name: str, steps: int, ranks: int) -> tuple[list[str], list[str]]:
    """Extraction and training of one of the two pairs."""
    extract = [
        str(ROOT / "scripts" / "extract_features.py"), "manifest=clips/manifest.tsv", f"output=data/{name}",
        "variant=tiny_16k", "num_workers=0",
    ]  # fmt: skip
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    train = [
        *(torchrun if ranks > 1 else []),
        *(str(ROOT / "train.py"), f"exp_id={name}", "variant=tiny_16k", "data=my_clips"),
        *(f"data.train=[{{store: data/{name}}}]", f"steps={steps}", "batch_size=2", "num_workers=0", "log_every=1"),
        *("checkpoint_every=3", "validate_every=0", "ema.snapshot_every=10", "precision=bf16", "optimizer.warmup=5"),
    ]
    return extract, train


def start(words: list[str], folder: Path) -> subprocess.Popen:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    log = open(folder / "log.txt", "a")  # noqa: SIM115 (the process keeps it)
    return subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
    )


def finish(words: list[str], folder: Path) -> None:
    process = start(words, folder)
    if process.wait(timeout=LONGEST_RUN) != 0:
        fail(words, folder)


def fail(words: list[str], folder: Path) -> None:
    sys.exit(f"failed: {' '.join(words)}\n{(folder / 'log.txt').read_text()[-2000:]}")


def progress(folder: Path) -> int:
    """Grows with whatever extraction and training write."""
    parts = sum(1 for path in (folder / "data").glob("killed*/**/*") if path.is_file())
    stats = folder / "output" / "killed" / "stats.jsonl"
    return parts + (stats.read_bytes().count(b"\n") if stats.exists() else 0)


def harass(words: list[str], folder: Path, kills: int, window: float, rng: random.Random, bar: tqdm) -> int:
    """Kill it again and again, then let it finish; how often it could be killed before it had finished.

    One time in four at a random moment of its start, else within `window` seconds after it wrote something.
    """
    for killed in range(kills):
        process, before = start(words, folder), progress(folder)
        patience = rng.uniform(0, START_UP) if rng.random() < 0.25 else LONGEST_RUN
        deadline = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < deadline and progress(folder) == before:
            time.sleep(0.01)
        if patience == LONGEST_RUN:
            time.sleep(rng.uniform(0, window))
        if process.poll() is not None:
            if process.returncode:
                fail(words, folder)
            return killed
        kill(process, rng.random() < 0.5)
        bar.update()
    finish(words, folder)
    return kills


def kill(process: subprocess.Popen, with_ranks: bool) -> None:
    """SIGKILL to the process, and to the ranks that it started as torchrun does: in process groups of their own."""
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.killpg(process.pid, signal.SIGKILL)
    for pid in ranks if with_ranks else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--ranks", type=int, default=1, help="of the training")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    problems = []
    with tempfile.TemporaryDirectory() as name, tqdm(total=args.kills, desc="kills", disable=None) as bar:
        folder = Path(name)
        export(range(args.clips), folder / "clips", split="train", size=64)
        for words in command("calm", args.steps, args.ranks):
            finish(words, folder)
        shares = (args.kills // 2, args.kills - args.kills // 2)
        killed = sum(
            harass(words, folder, share, window, rng, bar)
            for words, share, window in zip(command("killed", args.steps, args.ranks), shares, WINDOWS, strict=True)
        )
        if killed < args.kills:
            problems.append(f"only {killed} kills before the work was done: give it more --clips or --steps")

        calm, other = folder / "data" / "calm", folder / "data" / "killed"
        names = sorted(path.name for path in calm.iterdir())
        _, differing, missing = filecmp.cmpfiles(calm, other, names, shallow=False)
        if differing or missing or sorted(path.name for path in other.iterdir()) != names:
            problems.append(f"the stores differ: {differing or missing or sorted(other.iterdir())}")
        left = [path.name for path in (folder / "data").iterdir() if path.name not in ("calm", "killed")]
        if left:
            problems.append(f"the extraction left {left}")
        runs = [folder / "output" / name for name in ("calm", "killed")]
        a, b = (load_file(run / "weights" / "tiny_16k_network.safetensors") for run in runs)
        if a.keys() != b.keys() or not all(torch.equal(a[key], b[key]) for key in a):
            problems.append("the final weights differ")
        lines = [[json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()] for run in runs]
        losses = [[(row["step"], row["loss"]) for row in rows] for rows in lines]
        if losses[0] != losses[1] or len(losses[1]) != args.steps:
            problems.append(f"the statistics differ: {len(losses[1])} steps instead of {args.steps}, or other losses")
        going_on = (folder / "log.txt").read_text().count("going on from")
    print(
        f"killed {killed} times, {going_on} starts went on from a checkpoint; " + ("; ".join(problems) or "all equal")
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
