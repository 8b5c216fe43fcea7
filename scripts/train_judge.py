"""Train the judge (`mmaudio.evaluation.judge`) on Foley Stage sound alone, and say how well it hears.

    python scripts/train_judge.py --work runs/judge                         # render, train, test, bundle
    python scripts/train_judge.py --work runs/judge --out judge.safetensors # elsewhere

Sound is rendered once, without pictures, into a file of log-mels (80 kB a clip) in --work; rendering and training can
be stopped and go on where they were. Three quarters of the clips come from the split `train`, a quarter from
`train_audio`; one in fifty shows a held-out material, which no scene has of its own accord but evaluation does. The
accuracy is that of clips of the split `test`: of the k true labels, how many are among the k most probable.
"""

import argparse
import math
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from mmaudio.codec.mel import FLOOR, MEL_16K, MelSpectrogram
from mmaudio.evaluation.judge import (
    KIND_COLUMNS,
    LABELS,
    MATERIAL_COLUMNS,
    WEIGHTS,
    Judge,
    label_mask,
    load_judge,
    save_judge,
)
from mmaudio.evaluation.metrics import top_k_share
from mmaudio.stage import HELD_OUT, STAGE_VERSION, render_clip, split_seeds

SECONDS = 8
FRAMES = SECONDS * MEL_16K.sample_rate // MEL_16K.hop_length
BATCH = 32
LEARNING_RATE = 3e-3
SILENT = math.log10(FLOOR)
HELD_OUT_START = 900_000  # of the split train: clips with a held-out material, far from what others train with


# ---- data: one row a clip, in the order in which they were asked for


def clip_plan(count: int) -> list[tuple[int, str | None]]:
    """(seed, forced material) of `count` training clips; a longer plan begins like a shorter one."""
    train, audio, held_out = (iter(s) for s in (
        split_seeds("train", count), split_seeds("train_audio", count), split_seeds("train", count, HELD_OUT_START),
    ))  # fmt: skip
    plan: list[tuple[int, str | None]] = []
    for i in range(count):
        if i % 50 == 49:
            plan.append((next(held_out), HELD_OUT[i // 50 % len(HELD_OUT)]))
        else:
            plan.append((next(audio if i % 4 == 3 else train), None))
    return plan


def rendered(folder: Path, plan: list[tuple[int, str | None]]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Log-mels (N, M, F) float16, labels (N, len(LABELS)) bool and families of the planned clips, rendered if new."""
    folder.mkdir(parents=True, exist_ok=True)
    mel = MelSpectrogram(MEL_16K)
    row_bytes = 2 * MEL_16K.num_mels * FRAMES
    sound, notes = folder / f"stage{STAGE_VERSION}.f16", folder / f"stage{STAGE_VERSION}.txt"
    lines = notes.read_text().splitlines() if notes.exists() else []
    with sound.open("r+b" if sound.exists() else "w+b") as data, notes.open("a") as words:
        data.seek(len(lines) * row_bytes)
        for seed, material in tqdm(plan[len(lines) :], desc=f"render {folder.name}", unit="clip", disable=None):
            clip = render_clip(seed, duration=SECONDS, video=False, material=material)
            data.write(mel(torch.from_numpy(clip.audio)[None])[0].half().numpy().tobytes())
            data.flush()
            lines.append("\t".join([str(seed), clip.family, " ".join(clip.kinds), " ".join(clip.materials)]))
            words.write(lines[-1] + "\n")  # last: a row counts once its line is there
            words.flush()
    mels = np.memmap(sound, np.float16, "r", shape=(len(lines), MEL_16K.num_mels, FRAMES))[: len(plan)]
    _, families, kinds, materials = zip(*(line.split("\t") for line in lines[: len(plan)]), strict=True)
    labels = [label_mask(tuple(k.split()), tuple(m.split())) for k, m in zip(kinds, materials, strict=True)]
    return mels, np.array(labels), list(families)


# ---- training


def augmented(mel: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Another clip under it, another level, another start, and now and then the blur of a codec; (B, M, F)."""
    count = len(mel)
    gain = torch.from_numpy(rng.uniform(-0.6, 0.3, (2, count, 1, 1)).astype(np.float32))  # decades: -12 to 6 dB
    mel = torch.roll(mel + gain[0], int(rng.integers(FRAMES)), 2)
    other = mel.flip(0) + gain[1] - gain[0].flip(0)
    mixed = torch.from_numpy(rng.random(count) < 0.3)
    together = 0.5 * torch.log10(10 ** (2 * mel) + 10 ** (2 * other))  # powers add
    mel = torch.where(mixed[:, None, None], together, mel)
    labels = torch.where(mixed[:, None], torch.maximum(labels, labels.flip(0)), labels)
    blurred = torch.from_numpy(rng.random(count) < 0.25)[:, None, None]
    mel = torch.where(blurred, F.avg_pool2d(mel[:, None], 3, 1, 1, count_include_pad=False)[:, 0], mel)
    return mel.clamp(min=SILENT), labels


def train(work: Path, mels: np.ndarray, labels: np.ndarray, steps: int, seed: int) -> Judge:
    """The judge after `steps` steps; goes on from the checkpoint in `work`."""
    torch.manual_seed(seed)
    judge = Judge()
    optimizer = torch.optim.AdamW(judge.parameters(), LEARNING_RATE, weight_decay=0.02)
    path, step = work / "judge.pt", 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        judge.load_state_dict(saved["judge"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    judge.train().to(memory_format=torch.channels_last)

    def save():
        state = {"judge": judge.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    bar = tqdm(total=steps, initial=step, desc="train", unit="step", disable=None)
    while step < steps:
        rng = np.random.default_rng((seed, step))
        rows = np.sort(rng.choice(len(mels), min(BATCH, len(mels)), replace=False))
        mel, target = torch.from_numpy(mels[rows].astype(np.float32)), torch.from_numpy(labels[rows]).float()
        mel, target = augmented(mel, target, rng)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        logits, _ = judge.judge_mel(mel)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        bar.update()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if step % 100 == 0:
            save()
    save()
    bar.close()
    return judge.eval()


# ---- what it hears


@torch.inference_mode()
def logits_of(judge: Judge, mels: np.ndarray) -> np.ndarray:
    parts = [
        judge.judge_mel(torch.from_numpy(mels[i : i + BATCH].astype(np.float32)))[0] for i in range(0, len(mels), BATCH)
    ]
    return torch.cat(parts).numpy()


def report(logits: np.ndarray, labels: np.ndarray, families: list[str]) -> dict[str, float]:
    """Print accuracies, also of clips with one source, and what is taken for what; returns the accuracies."""
    alone = np.array(["+" not in family and family != "silence" for family in families])
    figures = {}
    for name, columns in (("kind", KIND_COLUMNS), ("material", MATERIAL_COLUMNS)):
        scores, true, names = logits[:, columns], labels[:, columns], LABELS[columns]
        share, one = top_k_share(scores, true), top_k_share(scores[alone], true[alone])
        figures[f"{name} accuracy"] = float(np.nanmean(share))
        figures[f"{name} accuracy, one source"] = float(np.nanmean(one))
        figures[f"{name}s all right, one source"] = float(np.mean(one[~np.isnan(one)] == 1))
        print(f"\n{name:12s} clips  found  missed, and what was heard instead")
        chosen = (-scores).argsort(1).argsort(1) < true.sum(1, keepdims=True)
        for c, label in enumerate(names):
            if has := int(true[:, c].sum()):
                lost = np.flatnonzero(true[:, c] & ~chosen[:, c])
                instead = Counter(names[i] for row in lost for i in np.flatnonzero(chosen[row] & ~true[row]))
                where = Counter(families[row] for row in lost)
                text = ", ".join(f"{n} {k}" for n, k in instead.most_common(4))
                text += f" (in {', '.join(f'{n} {k}' for n, k in where.most_common(4))})" if where else ""
                print(f"{label:12s} {has:5d}  {1 - len(lost) / has:5.3f}  {text}")
    print()
    for name, value in figures.items():
        print(f"{name:34s} {value:.4f}")
    return figures


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/judge"), help="rendered sound and checkpoint")
    parser.add_argument("--clips", type=int, default=4000, help="for training")
    parser.add_argument("--test_clips", type=int, default=400)
    parser.add_argument("--steps", type=int, default=1000, help=f"of {BATCH} clips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args(argv)

    mels, labels, _ = rendered(args.work / "train", clip_plan(args.clips))
    judge = train(args.work, mels, labels, args.steps, args.seed)
    mels, labels, families = rendered(args.work / "test", [(s, None) for s in split_seeds("test", args.test_clips)])
    facts = {"clips": args.clips, "steps": args.steps, "seed": args.seed, "licence": "MIT"}
    save_judge(judge, args.out, {name: str(value) for name, value in facts.items()})
    report(logits_of(load_judge(args.out), mels), labels, families)
    print(f"\n{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
