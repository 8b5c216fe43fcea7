"""Which way through the flow is worth its passes? Solvers, times and guidance, compared on the Foley Stage.

    python scripts/compare_sampling.py --count 64
    python scripts/compare_sampling.py --variant small_16k --count 32 --only euler,heun

Every way takes the same clips, captions and noise, and is judged as by scripts/evaluate_stage.py. A pass is one run of
one sample through the network: a guided evaluation is two. Ways are in groups of about as many passes.

warp W        times t / (t + W (1 - t)) of uniform ones: above 1 more steps are near the noise, below near the data
until T       guidance up to time T alone (Kynkäänniemi et al., arXiv 2404.07724); one pass from there on
rescale P     guided velocities take over P of the conditional ones' standard deviation (Lin et al., arXiv 2305.08891)
guidance S    another strength than 4.5
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from evaluate_stage import plain
from torch import Tensor
from tqdm import tqdm

import mmaudio
from mmaudio import flow
from mmaudio.console import error_line, expected_errors
from mmaudio.evaluation.judge import load_judge
from mmaudio.evaluation.stage_report import figures, hear
from mmaudio.evaluation.stage_sounds import Settings, Sounds
from mmaudio.stage import SPLITS, split_seeds

STRENGTH = 4.5
COLUMNS = ("F1 50ms", "F1 100ms", "kind", "material", "FD", "KL")


@dataclass(frozen=True)
class Way:
    """How to sample."""

    solver: str
    steps: int
    warp: float = 1.0
    until: float = 1.0
    rescale: float = 0.0
    strength: float = STRENGTH

    @property
    def name(self) -> str:
        words = [self.solver, f"{self.steps} steps"]
        words += [f"warp {self.warp:g}"] if self.warp != 1 else []
        words += [f"until {self.until:g}"] if self.until != 1 else []
        words += [f"rescale {self.rescale:g}"] if self.rescale else []
        words += [f"guidance {self.strength:g}"] if self.strength != STRENGTH else []
        return ", ".join(words)

    @property
    def times(self) -> Tensor:
        t = torch.linspace(0, 1, self.steps + 1)
        return t / (t + self.warp * (1 - t))

    @property
    def passes(self) -> int:
        times: list[float] = []

        def velocity(t: float, x: Tensor) -> Tensor:
            times.append(t)
            return x

        integrate(self, velocity, torch.zeros(1))
        return sum(2 if self.is_guided(t) else 1 for t in times)

    def is_guided(self, t: float) -> bool:
        return t < self.until or self.until == 1


WAYS = [
    Way("euler", 4), Way("midpoint", 2), Way("heun", 2), Way("euler", 4, warp=2), Way("euler", 4, warp=0.5),
    Way("euler", 5, until=0.6), Way("euler", 8), Way("midpoint", 4), Way("heun", 4), Way("euler", 8, warp=2),
    Way("euler", 8, warp=0.5), Way("euler", 10, until=0.6), Way("euler", 25), Way("midpoint", 12), Way("heun", 12),
    Way("euler", 25, warp=2), Way("euler", 31, until=0.6), Way("euler", 25, rescale=0.7), Way("euler", 25, strength=3),
    Way("euler", 25, strength=7),
]  # fmt: skip


def guided(way: Way, network, conditional, null) -> Callable[[float, Tensor], Tensor]:
    both = conditional.concat(null)

    def velocity(t: float, x: Tensor) -> Tensor:
        times = torch.full((len(x),), t, device=x.device)
        if not way.is_guided(t):
            return network.velocity(x, times, conditional)
        v, v_null = network.velocity(x, times.repeat(2), both).chunk(2)
        combined = way.strength * v + (1 - way.strength) * v_null
        scale = v.std((1, 2), keepdim=True) / combined.std((1, 2), keepdim=True)
        return combined * (1 + way.rescale * (scale - 1))

    return velocity


def integrate(way: Way, velocity: Callable[[float, Tensor], Tensor], x: Tensor) -> Tensor:
    """By the library's solvers, one step from each time to the next."""
    for start, end in pairwise(way.times.tolist()):
        length = end - start

        def stretched(t: Tensor, x: Tensor, start: float = start, length: float = length) -> Tensor:
            return length * velocity(start + length * t.item(), x)

        x = flow.SOLVERS[way.solver](stretched, x, 1)
    return x


@torch.inference_mode()
def compare(pipe: mmaudio.Pipeline, sounds: Sounds, ways: list[Way]) -> dict[Way, dict[str, float]]:
    judge, network, codec = load_judge(), pipe.part("network"), pipe.part("codec")
    truth, heard = [], {way: [] for way in ways}
    for i, clip in enumerate(tqdm(sounds.clips, unit="clip", disable=None)):
        truth.append(hear(sounds.make("truth", i), sounds.sample_rate, clip, judge))
        inputs = pipe.read(sounds.mp4(clip.seed))
        spec = inputs.spec
        conditional, null = pipe.conditions(pipe.encode(inputs, clip.caption), spec)
        conditional, null = conditional.shared(), null.shared()
        shape = (spec.latent_len, network.config.latent_dim)
        noise = flow.initial_noise([sounds.settings.seed], shape, device=pipe.device, dtype=pipe.dtype)
        for way in ways:
            latents = network.unnormalize(integrate(way, guided(way, network, conditional, null), noise))
            wave = codec.decode(latents)[0, 0, : round(inputs.duration * sounds.sample_rate)]
            heard[way].append(hear(wave.float().cpu().numpy(), sounds.sample_rate, clip, judge))
    found = {way: figures(sounds.clips, heard[way], truth, resamples=2) for way in ways}
    return {way: {column: found[way][column].value for column in COLUMNS} for way in ways}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="tiny_16k", help="a name, or the run folder or weight file of your own")
    parser.add_argument("--weights_dir")
    parser.add_argument("--split", default="test", choices=SPLITS)
    parser.add_argument("--count", type=int, default=64, help="clips (64)")
    parser.add_argument(
        "--only", default="", help="ways whose names have one of these words, with commas; default: all"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/evaluate_stage"), help="where rendered clips are kept")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(argv)
    wanted = args.only.split(",")
    ways = [way for way in WAYS if any(word in way.name for word in wanted)]
    if not ways:
        parser.error(f"--only {args.only}: fits no way; they are {'; '.join(way.name for way in WAYS)}")
    try:
        pipe = mmaudio.load(args.variant, weights_dir=args.weights_dir)
        if pipe.variant.network.guidance is not None:
            raise ValueError(
                f"{pipe.variant.name} has its guidance in it: compare ways of the network it was made from"
            )
        found = compare(pipe, Sounds(pipe, split_seeds(args.split, args.count), args.work, Settings()), ways)
    except expected_errors() as error:
        print(error_line(error), file=sys.stderr)
        return 1
    print("| way | passes | " + " | ".join(COLUMNS) + " |\n" + "|---" * (len(COLUMNS) + 2) + "|")
    for way, row in found.items():
        print(f"| {way.name} | {way.passes} | " + " | ".join(f"{value:.3f}" for value in row.values()) + " |")
    if args.json:
        report = {way.name: {"passes": way.passes} | row for way, row in found.items()}
        args.json.write_text(json.dumps(plain(report), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
