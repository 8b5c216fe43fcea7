"""Clips per minute against the batch size: what `--batch_size` brings on a machine.

    python scripts/bench_batch.py --sizes 1,2,4 --clips 8
    python scripts/bench_batch.py --variant large_44k --device cuda --random_weights --sizes 1,2,4,8,16 --clips 32

Foley Stage clips are read from files, as a folder's videos are, the next ones in a thread while sound is made, and
written. Sizes are tried in turns, so that a change of the machine's load meets all; times are the best of the turns,
without the first, which warms up. Loading of weights does not count.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from bench_inference import randomise
from tqdm import tqdm

from mmaudio.batch import READ_AHEAD, read_ahead
from mmaudio.pipeline import Pipeline
from mmaudio.request import Request, read_request
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4

FIRST_SEED = 2_000_000  # of the Stage's split test


def make_all(pipe: Pipeline, paths: list[Path], size: int, num_steps: int, out: Path) -> float:
    """Seconds from the first file's reading to the last one's writing."""

    def read(job: tuple[int, Path]) -> Request:
        seed, path = job
        return read_request(pipe.variant, path, "a metal ball bounces on wood", seed=seed)

    began, waiting = time.perf_counter(), []
    for (seed, _), request in read_ahead(read, list(enumerate(paths)), READ_AHEAD + size):
        waiting.append(request())
        if len(waiting) == size or seed == len(paths) - 1:
            for takes in pipe.generate(waiting, num_steps=num_steps):
                takes[0].save_video(out / f"made_{takes[0].seed}.mp4")
            waiting = []
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="tiny_16k")
    parser.add_argument("--device")
    parser.add_argument("--weights_dir")
    parser.add_argument("--random_weights", action="store_true", help="for variants whose files are not here")
    parser.add_argument("--sizes", default="1,2,4,8", help="of batches, with commas (1,2,4,8)")
    parser.add_argument("--clips", type=int, default=8, help="for each size, in a turn (8)")
    parser.add_argument("--size", type=int, default=360, help="pixels of the clips' sides (360)")
    parser.add_argument("--duration", type=float, default=8.0, help="seconds (8)")
    parser.add_argument("--num_steps", type=int, default=25)
    parser.add_argument("--repeat", type=int, default=2, help="turns that count (2)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    try:
        sizes = [int(word) for word in args.sizes.split(",")]
    except ValueError:
        sizes = [0]
    if min(*sizes, args.clips, args.repeat, args.num_steps) < 1:
        parser.error("--sizes, --clips, --repeat and --num_steps are whole numbers from 1 on")
    pipe = Pipeline(args.variant, args.device, weights_dir=args.weights_dir)
    if args.random_weights:
        randomise(pipe)
    on_gpu = pipe.device.type == "cuda"
    seconds, peaks = {size: [] for size in sizes}, {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.mp4" for i in range(args.clips)]
        for i, path in enumerate(tqdm(paths, desc="rendering", unit="clip", disable=None)):
            write_mp4(path, render_clip(FIRST_SEED + i, size=args.size, duration=args.duration, audio=False))
        for turn in tqdm(range(args.repeat + 1), desc="turns", disable=None):
            for size in sizes:
                if on_gpu:
                    torch.cuda.reset_peak_memory_stats(pipe.device)
                took = make_all(pipe, paths, size, args.num_steps, Path(folder))
                if turn:
                    seconds[size].append(took)
                if on_gpu:
                    peaks[size] = torch.cuda.max_memory_allocated(pipe.device)
    rates = {size: 60 * args.clips / min(runs) for size, runs in seconds.items()}
    print(f"{args.variant}, {args.duration:g} s, {args.num_steps} steps, {pipe.device}, {pipe.dtype}")
    print("  batch  clips a minute  against the first" + ("  peak MiB" if on_gpu else ""))
    for size, rate in rates.items():
        peak = f"{peaks[size] / 2**20:10.0f}" if on_gpu else ""
        print(f"  {size:5d}  {rate:14.1f}  {rate / rates[sizes[0]]:17.2f}{peak}")
    if args.json:
        report = {"variant": args.variant, "device": str(pipe.device), "clips_per_minute": rates, "peak_bytes": peaks}
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
