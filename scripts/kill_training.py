"""Is anything lost or doubled when a run is killed at any moment? Kills extraction and training, again and again.

    python scripts/kill_training.py --kills 20

On a few small Foley Stage clips: one extraction and one training are left alone; another pair is killed (SIGKILL, the
whole process group) at random moments and started again with the same command until it has been killed so many times,
half of them each. In the end the feature stores must be equal byte by byte, the final weights bit by bit, and every
step be in the statistics once. Takes a few minutes on two cores.
"""

import argparse
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


def command(name: str, steps: int) -> tuple[list[str], list[str]]:
    """Extraction and training of one of the two pairs."""
    extract = [
        str(ROOT / "scripts" / "extract_features.py"), "manifest=clips/captions.tsv", f"output=data/{name}",
        "variant=tiny_16k", "num_workers=0",
    ]  # fmt: skip
    train = [
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


def finish(words: list[str], folder: Path) -> float:
    """Run to the end; the seconds it took."""
    began = time.monotonic()
    process = start(words, folder)
    if process.wait(timeout=LONGEST_RUN) != 0:
        sys.exit(f"failed: {' '.join(words)}\n{(folder / 'log.txt').read_text()[-2000:]}")
    return time.monotonic() - began


def harass(words: list[str], folder: Path, kills: int, seconds: float, rng: random.Random, bar: tqdm) -> int:
    """Kill it at random times of what it takes undisturbed, then let it finish; how often it really was killed."""
    killed = 0
    for _ in range(kills):
        process = start(words, folder)
        try:
            process.wait(timeout=rng.uniform(0.2, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        bar.update()
    finish(words, folder)
    return killed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    problems = []
    with tempfile.TemporaryDirectory() as name, tqdm(total=args.kills, desc="kills", disable=None) as bar:
        folder = Path(name)
        export(range(args.clips), folder / "clips", prefix="train", size=64)
        seconds = [finish(words, folder) for words in command("calm", args.steps)]
        extract, train = command("killed", args.steps)
        killed = harass(extract, folder, args.kills // 2, seconds[0], rng, bar)
        killed += harass(train, folder, args.kills - args.kills // 2, seconds[1], rng, bar)

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
    return 1 if problems or killed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
