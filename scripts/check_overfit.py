"""Does training work at all? `tiny_16k`'s network learns sixteen Foley Stage clips by heart, from random weights.

    python scripts/check_overfit.py --work runs/overfit

It must bring the loss below a third of what it was, and the sounds that it then makes for these clips must have their
onsets (F1 within 100 ms of at least 0.9); the same with the clips' videos exchanged is printed beside it. Rendering,
extraction, training and evaluation are those of the README; takes about ten minutes of two cores. The exit code is 1 if
either is missed. Run again, it trains anew.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLIPS = 16
LOSS_SHARE, LEAST_F1 = 1 / 3, 0.9


def run(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=sys.stderr)


def learn(work: Path, steps: int) -> tuple[float, float]:
    """The first and the last loss of the statistics, each a mean over ten steps."""
    run("-m", "mmaudio.stage", "export", "--split=train", f"--count={CLIPS}", "--sample-rate=16000",
        "--out", str(work / "clips"))  # fmt: skip
    extract = (f"manifest={work}/clips/manifest.tsv", f"output={work}/features", "variant=tiny_16k", "num_workers=0")
    run(str(ROOT / "scripts/extract_features.py"), *extract, "peak_normalise=false")
    shutil.rmtree(work / "run", ignore_errors=True)
    run(str(ROOT / "train.py"), "exp_id=run", f"output={work}", "variant=tiny_16k", "data=my_clips",
        f"data.train=[{{store: {work}/features}}]", f"batch_size={CLIPS}", f"steps={steps}", "precision=bf16",
        "optimizer.lr=1.5e-3", "optimizer.warmup=30", "optimizer.schedule=cosine", "log_every=10",
        "num_workers=0")  # fmt: skip
    rows = [json.loads(line) for line in (work / "run/stats.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    return losses[0], losses[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="clips, features, the run and the figures")
    parser.add_argument("--steps", type=int, default=500, help="of all sixteen clips (500)")
    args = parser.parse_args()
    work = args.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    first, last = learn(work, args.steps)
    figures = work / "figures.json"
    run(str(ROOT / "scripts/evaluate_stage.py"), f"--variant={work}/run", "--split=train", f"--count={CLIPS}",
        "--rows=variant,shuffled", f"--json={figures}")  # fmt: skip
    heard, shuffled = (row["F1 100ms"]["value"] for row in json.loads(figures.read_text())["rows"].values())
    print(f"loss {first:.3f} -> {last:.3f} ({last / first:.0%}; at most {LOSS_SHARE:.0%})")
    print(f"onset F1 within 100 ms {heard:.3f} (at least {LEAST_F1:g}), with exchanged videos {shuffled:.3f}")
    return 0 if last < LOSS_SHARE * first and heard >= LEAST_F1 else 1


if __name__ == "__main__":
    sys.exit(main())
