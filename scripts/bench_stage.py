"""How fast the Foley Stage renders: CPU seconds and clips of 8 s per minute of one core, by family and size.

    OMP_NUM_THREADS=1 python scripts/bench_stage.py --count 8
    OMP_NUM_THREADS=1 python scripts/bench_stage.py --families drop strike --sizes 112

A clip is picture, sound at 16 kHz and words. The time is that of the process, so that other programs do not count.
"""

import argparse
import time

import numpy as np

from mmaudio.stage import FAMILIES, render_clip

TARGETS = {112: 40, 224: 8}  # clips per minute and core


def seconds_of(family: str | None, size: int, count: int) -> np.ndarray:
    """CPU seconds of each of the first `count` training clips."""
    taken = []
    for seed in range(count):
        begin = time.process_time()
        render_clip(seed, size=size, family=family)
        taken.append(time.process_time() - begin)
    return np.array(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=8, help="clips of every family")
    parser.add_argument("--sizes", type=int, nargs="+", default=sorted(TARGETS), help="pixels, square")
    parser.add_argument("--families", nargs="+", choices=sorted(FAMILIES), default=list(FAMILIES))
    args = parser.parse_args()
    render_clip(0, duration=1, size=32)  # imports and caches do not count
    for size in args.sizes:
        print(f"{size} px          CPU s a clip (slowest)   clips/min/core")
        means = []
        for family in args.families:
            taken = seconds_of(family, size, args.count)
            means.append(taken.mean())
            print(f"  {family:14s} {taken.mean():10.2f} ({taken.max():.2f}) {60 / taken.mean():16.0f}", flush=True)
        target = f"   target {TARGETS[size]}" if size in TARGETS else ""
        print(f"  {'all':14s} {np.mean(means):10.2f} {60 / np.mean(means):23.0f}{target}")


if __name__ == "__main__":
    main()
