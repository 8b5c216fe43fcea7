"""Does DeSync grow with a delay? Held-out Stage clips with their own sound, late by 0 to 1 s, are measured and drawn.

    python scripts/plot_desync.py --weights output/offset/weights/tiny_16k_sync.safetensors --out desync.png

Clips of split test are rendered longer than they are looked at, so that a late sound begins as any other does and not
with silence. Beside the network stands one of the same sizes that was never trained. Intervals are 95 % bootstraps over
clips. docs/evaluation.md tells how to train the network.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mmaudio.console import error_line, expected_errors
from mmaudio.data.parts import ExtractionError
from mmaudio.evaluation.backbones import BACKBONES
from mmaudio.evaluation.backbones.sound import mono
from mmaudio.evaluation.backbones.synchformer import SynchformerBackbone
from mmaudio.evaluation.datasets import Clip, read_dataset
from mmaudio.evaluation.metrics import Estimate, compare_systems, desync
from mmaudio.features.synchformer_audio import SAMPLE_RATE, SEGMENT_STEP
from mmaudio.features.synchformer_offset import Synchformer, SynchformerModelConfig, official_key
from mmaudio.media import read_audio
from mmaudio.variants import VARIANTS, get_variant
from mmaudio.weights import save_safetensors

SECONDS = 8.0  # that are looked at
LEAD = 4  # segments before them
BEFORE = LEAD * SEGMENT_STEP / SAMPLE_RATE  # 1.28 s
DELAYS = tuple(k / 10 for k in range(11))  # seconds
SIZE = 112  # pixels of the clips
FEWEST = 2  # clips that have an interval

Values = dict[float, np.ndarray]  # delay to the DeSync of each clip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="a Synchformer with audio half and offset head")
    parser.add_argument("--variant", default="tiny_16k", choices=VARIANTS, help="whose sizes it has (%(default)s)")
    parser.add_argument("--count", type=int, default=64, help="clips (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("runs/desync"), help="where they are rendered (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    args = parser.parse_args(argv)
    if args.out.suffix != ".png":
        parser.error(f"--out must end in .png: got {args.out}")
    if args.count < FEWEST:
        parser.error(f"--count must be at least {FEWEST}: got {args.count}")
    config = get_variant(args.variant).synchformer
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = {"trained": args.weights, "untrained": random_weights(Path(folder), config)}
            networks = {name: backbone(path, config) for name, path in files.items()}
        clips = read_dataset("stage", args.work, duration=BEFORE + SECONDS, count=args.count, size=SIZE)
        values = measure(networks, clips)
    except (*expected_errors(), ExtractionError) as error:
        print(error_line(error), file=sys.stderr)
        return 1
    curves = {f"{name}, all {len(clips)} clips": found for name, found in values.items()}
    sharp = [i for i, clip in enumerate(clips) if clip.times is not None]
    if len(sharp) >= FEWEST:
        only = {delay: each[sharp] for delay, each in values["trained"].items()}
        curves = {f"trained, {len(sharp)} clips of seen impacts alone": only} | curves
    print(table(curves))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw(curves, args.out)
    return 0


def backbone(path: Path, config: SynchformerModelConfig) -> SynchformerBackbone:
    return SynchformerBackbone(BACKBONES["synchformer"], [path], torch.device("cpu"), config)


def random_weights(folder: Path, config: SynchformerModelConfig) -> Path:
    torch.manual_seed(0)
    path = folder / "untrained.safetensors"
    save_safetensors(path, {official_key(key): x for key, x in Synchformer(config).state_dict().items()})
    return path


def measure(networks: dict[str, SynchformerBackbone], clips: list[Clip]) -> dict[str, Values]:
    values = {name: {delay: [] for delay in DELAYS} for name in networks}
    for clip in tqdm(clips, unit="clip", disable=None):
        samples, rate = read_audio(clip.reference, BEFORE + SECONDS)
        wave = mono(samples, rate, SAMPLE_RATE, BEFORE + SECONDS)
        for name, network in networks.items():
            seen = network.video(clip.video, BEFORE + SECONDS)["features"][LEAD:]
            for delay, each in values[name].items():
                heard = network.audio(late(wave, delay)[None], SAMPLE_RATE, SECONDS)["features"]
                each.append(desync([network.offsets(seen, heard)])[0])
    return {name: {delay: np.array(each) for delay, each in found.items()} for name, found in values.items()}


def late(wave: Tensor, delay: float) -> Tensor:
    """What is heard with the pictures from `BEFORE` on, if sound comes so many seconds too late."""
    return wave[round((BEFORE - delay) * SAMPLE_RATE) :]


def estimate(each: np.ndarray) -> Estimate:
    return Estimate.mean([f"{i:06d}" for i in range(len(each))], each)


def table(curves: dict[str, Values]) -> str:
    """A row for each delay, and what the longest one adds."""
    lines = ["delay   " + "   ".join(curves)]
    for delay in DELAYS:
        found = [estimate(values[delay]) for values in curves.values()]
        cells = ("{:.3f} ({:.3f} .. {:.3f})".format(e.value, *e.interval()) for e in found)
        lines.append(
            f"{delay:3.1f} s   " + "   ".join(f"{c:{len(name)}s}" for c, name in zip(cells, curves, strict=True))
        )
    for name, values in curves.items():
        gain = compare_systems(estimate(values[DELAYS[-1]]), estimate(values[0.0]))
        lines.append(
            f"{name}: {DELAYS[-1]:g} s late against in time {gain.difference:+.3f} s "
            f"({gain.low:+.3f} .. {gain.high:+.3f}), p = {gain.p:.4f}"
        )
    return "\n".join(lines)


def draw(curves: dict[str, Values], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        found = [estimate(values[delay]) for delay in DELAYS]
        low, high = zip(*(e.interval() for e in found), strict=True)
        (line,) = axes.plot(DELAYS, [e.value for e in found], marker="o", label=name)
        axes.fill_between(DELAYS, low, high, color=line.get_color(), alpha=0.15)
    axes.set(xlabel="delay of the sound, seconds", ylabel="DeSync, seconds")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    part = path.with_name(f".{path.name}")
    figure.savefig(part, dpi=120, format="png")
    os.replace(part, path)


if __name__ == "__main__":
    sys.exit(main())
