"""Does a LoRA adapter teach `tiny_16k` a new material, and does it keep the old ones?

    python scripts/check_lora.py --work runs/lora

Stone is in no Stage scene that `tiny_16k` was trained on. Clips of struck stone, and as many of the old materials to
remember them by, are rendered and extracted, an adapter is trained on them, and clips of other seeds are given their
sound with and without it, from the same seeds of the sampler. Judged by a material classifier: a linear one, on the
log-mel of the 0.3 s after each contact, fitted to true sounds of other seeds; the share of contacts whose generated
sound it takes for the right material. Loudness and what lies 40 dB below a contact's peak do not count for it. And by
mel distance: the mean absolute difference of log10-mel to the true sound, all of the clip. The exit code is 1 unless by
both stone gains, and the mel distance of the old materials grows by no more than 5 %; what the classifier says of the
old ones is printed. The sounds are kept. Every stage is resumed when the command is run again.
"""

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import mmaudio
from mmaudio.codec.mel import MelSpectrogram
from mmaudio.data.manifest import read_manifest
from mmaudio.media import read_audio
from mmaudio.stage import render_clip, split_seeds
from mmaudio.stage.export import export
from mmaudio.stage.materials import TABLE
from mmaudio.variants import TINY_16K

ROOT = Path(__file__).resolve().parents[1]
NEW = "stone"
FAMILY = "strike"  # every clip has contacts, of everything that there is
FLOOR = -2.0  # log10 of magnitude: 40 dB
MOST_LOST = 1.05  # of the old materials' mel distance


def make_clips(folder: Path, split: str, count: int, material: str | None, start: int = 0) -> Path:
    """A folder of clips with sound at the model's rate; its manifest."""
    options = {"size": 112, "sample_rate": TINY_16K.spec.sample_rate, "family": FAMILY, "material": material}
    export(split_seeds(split, count, start), folder, split=split, **options)
    return folder / "manifest.tsv"


def run(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=sys.stderr)


def after_contacts(mel: Tensor, times: list[float]) -> Tensor:
    """Mean log-mel in three windows after each contact, relative to their peak, (contacts, 3 M); mel is (M, F)."""
    rate = TINY_16K.mel.sample_rate / TINY_16K.mel.hop_length
    rows = []
    for time in times:
        edges = [round((time + offset) * rate) for offset in (0.0, 0.06, 0.14, 0.3)]
        spans = itertools.pairwise(edges)
        row = torch.cat([mel[:, first : max(end, first + 1)].mean(1) for first, end in spans])
        rows.append((row - row.nan_to_num(-torch.inf).max()).nan_to_num(FLOOR).clamp(min=FLOOR))
    return torch.stack(rows)


def fit_classifier(mel: MelSpectrogram, seeds: range) -> tuple[Callable[[Tensor], Tensor], float]:
    """Contacts' features to material numbers, and the classifier's accuracy on true sounds it was not fitted to."""
    features, labels, held = [], [], []
    for i, seed in enumerate(seeds):
        for number, material in enumerate(TABLE):
            rate = TINY_16K.spec.sample_rate
            clip = render_clip(seed, video=False, sample_rate=rate, family=FAMILY, material=material)
            found = after_contacts(mel(torch.from_numpy(clip.audio)[None])[0], [e.time for e in clip.events])
            features.append(found)
            labels += [number] * len(found)
            held += [i % 4 == 0] * len(found)
    x, y, held = torch.cat(features), torch.tensor(labels), torch.tensor(held)
    mean, std = x[~held].mean(0), x[~held].std(0).clamp(min=1e-3)
    torch.manual_seed(0)
    linear = torch.nn.Linear(x.shape[1], len(TABLE))
    optimizer = torch.optim.AdamW(linear.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(linear((x[~held] - mean) / std), y[~held]).backward()
        optimizer.step()

    @torch.no_grad()
    def classify(features: Tensor) -> Tensor:
        return linear((features - mean) / std).argmax(1)

    return classify, (classify(x[held]) == y[held]).float().mean().item()


@torch.no_grad()
def judge(pipe, manifest: Path, seed: int, classify, mel: MelSpectrogram, sounds: Path) -> dict[str, float]:
    """Share of contacts heard as the right material, and mean mel distance; the sounds are written to a folder."""
    right, distances = [], []
    for row in tqdm(read_manifest(manifest), desc=sounds.name, disable=None):
        lines = (manifest.parent / "events" / f"{row.id}_times.txt").read_text().split("\n")[:-1]
        events = [(float(time), material) for time, material, *_ in map(str.split, lines)]
        sound = sounds / f"{row.id}.wav"
        if not sound.exists():
            pipe(video=row.path, prompt=row.caption, seed=seed)[0].save(sound)
        made, truth = (read_audio(path)[0] for path in (sound, row.path))
        samples = min(truth.shape[1], made.shape[1])
        a, b = (mel(wave[:1, :samples])[0] for wave in (made, truth))
        distances.append((a - b).abs().mean().item())
        wanted = torch.tensor([list(TABLE).index(material) for _, material in events])
        right.append(classify(after_contacts(a, [time for time, _ in events])) == wanted)
    return {"right_material": torch.cat(right).float().mean().item(), "mel_distance": float(np.mean(distances))}


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
    mel = MelSpectrogram(TINY_16K.mel)
    classify, accuracy = fit_classifier(mel, split_seeds("train", 60, 7000))
    report: dict = {"classifier_accuracy": accuracy}
    for state, options in (("before", {}), ("after", {"lora": adapter})):
        pipe = mmaudio.load("tiny_16k", **options)
        for kind, manifest in judged.items():
            sounds = args.work / f"{kind}_{state if state == 'before' else args.steps}"
            report[f"{kind} {state}"] = judge(pipe, manifest, args.seed, classify, mel, sounds)
    print(f"the classifier is right about {accuracy:.1%} of true contacts, {len(TABLE)} materials")
    for kind in judged:
        before, after = report[f"{kind} before"], report[f"{kind} after"]
        print(
            f"{kind} materials: right material {before['right_material']:.1%} -> {after['right_material']:.1%}, "
            f"mel distance {before['mel_distance']:.4f} -> {after['mel_distance']:.4f}"
        )
    (args.work / "figures.json").write_text(json.dumps(report, indent=1))
    (new, old), (new_now, old_now) = ([report[f"{kind} {state}"] for kind in judged] for state in ("before", "after"))
    gained = new_now["right_material"] > new["right_material"] and new_now["mel_distance"] < new["mel_distance"]
    return 0 if gained and old_now["mel_distance"] <= MOST_LOST * old["mel_distance"] else 1


if __name__ == "__main__":
    sys.exit(main())
