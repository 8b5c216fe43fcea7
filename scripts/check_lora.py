"""Does a LoRA adapter teach `tiny_16k` a new material, and does it keep the old ones?

    python scripts/check_lora.py --work runs/lora --steps 150

Stone is in no Stage scene that `tiny_16k` was trained on. Clips of stone, and as many of the old materials to remember
them by, are rendered and extracted, an adapter is trained on them, and clips of other seeds are given their sound with
and without it. Judged by mel distance: the mean absolute difference of log10-mel between a generated sound and the
true one, the same seeds of the sampler before and after. Every stage is resumed when the command is run again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import mmaudio
from mmaudio.codec.mel import MelSpectrogram
from mmaudio.data.manifest import read_manifest
from mmaudio.media import read_audio
from mmaudio.stage import split_seeds
from mmaudio.stage.export import export
from mmaudio.variants import TINY_16K

ROOT = Path(__file__).resolve().parents[1]
NEW = "stone"


def make_clips(folder: Path, split: str, count: int, material: str | None, start: int = 0) -> Path:
    """A folder of clips with sound at the model's rate; its manifest."""
    manifest = folder / "captions.tsv"
    if not manifest.exists():
        seeds = split_seeds(split, count, start)
        options = {"size": 112, "sample_rate": TINY_16K.spec.sample_rate, "material": material}
        export(seeds, folder, prefix=split, overwrite=True, **options)
    return manifest


def run(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=sys.stderr)


@torch.inference_mode()
def distances(pipe, manifest: Path, seed: int, name: str) -> np.ndarray:
    """Mel distance of every clip."""
    mel, found = MelSpectrogram(TINY_16K.mel), []
    for row in tqdm(read_manifest(manifest), desc=name, disable=None):
        take = pipe(video=row.path, prompt=row.caption, seed=seed)[0]
        truth, rate = read_audio(row.path)
        assert rate == take.sample_rate
        samples = min(truth.shape[1], take.audio.shape[1])
        a, b = (mel(wave[:1, :samples]) for wave in (take.audio, truth))
        found.append((a - b).abs().mean().item())
    return np.array(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/lora"))
    parser.add_argument("--clips", type=int, default=40, help="of stone, and as many of the old materials")
    parser.add_argument("--held_out", type=int, default=16, help="clips of each kind to judge by")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=42, help="of the sampler")
    args = parser.parse_args()

    stores = []
    for kind, material, start in (("new", NEW, 5000), ("old", None, 6000)):
        manifest = make_clips(args.work / f"{kind}_train", "train", args.clips, material, start)
        store = args.work / f"{kind}_store"
        stores.append(f"{{store: {store}}}")
        if not store.exists():
            words = [f"manifest={manifest}", f"output={store}", "variant=tiny_16k", "peak_normalise=false"]
            run(str(ROOT / "scripts" / "extract_features.py"), *words)
    run(
        *(str(ROOT / "train.py"), "exp_id=lora", f"output={args.work}", "weights=tiny_16k", "data=my_clips"),
        *(f"data.train=[{', '.join(stores)}]", f"lora.rank={args.rank}", "precision=bf16", "num_workers=1"),
        *(f"steps={args.steps}", "batch_size=8", f"optimizer.lr={args.lr}", "optimizer.warmup=10"),
        *("optimizer.schedule=cosine", "log_every=10", "checkpoint_every=50", "ema.snapshot_every=0"),
    )
    adapter = args.work / "lora" / "weights" / "adapter.safetensors"
    judged = {
        kind: make_clips(args.work / f"{kind}_test", "test", args.held_out, material, 5000)
        for kind, material in (("new", NEW), ("old", None))
    }
    figures = {}
    for state, options in (("before", {}), ("after", {"lora": adapter})):
        pipe = mmaudio.load("tiny_16k", **options)
        for kind, manifest in judged.items():
            figures[kind, state] = distances(pipe, manifest, args.seed, f"{kind} {state}")
    report = {}
    for kind in judged:
        before, after = figures[kind, "before"], figures[kind, "after"]
        change = after.mean() / before.mean() - 1
        better = int((after < before).sum())
        report[kind] = {"before": before.mean(), "after": after.mean(), "change": change, "better": better}
        print(
            f"{kind} materials: mel distance {before.mean():.4f} -> {after.mean():.4f} ({change:+.1%}), "
            f"smaller in {better} of {len(before)} clips"
        )
    (args.work / "figures.json").write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
