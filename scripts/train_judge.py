"""Train the judge (`mmaudio.evaluation.judge`) on Foley Stage sound alone, and say how well it hears.

    python scripts/train_judge.py --work runs/judge                         # render, train, test, bundle
    python scripts/train_judge.py --work runs/judge --out judge.safetensors # elsewhere

Sound is rendered once, without pictures, into a file of log-mels (80 kB a clip) in --work; rendering and training can
be stopped and go on where they were. Two thirds of the clips are as the Stage has them, three quarters of these from
the split `train` and a quarter from `train_audio`; in the others, from far along `train`, all solid things are of one
material, each in turn, held-out ones as well. What sounds is learned moment by moment, from the times of the events,
and of stretches of half a clip. The accuracy is that of clips of the split `test`: of the k true labels, how many are
among the k most probable.
"""

import argparse
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from mmaudio.codec.mel import FLOOR, MEL_16K, MelSpectrogram
from mmaudio.data.clip_cache import whole_lines
from mmaudio.data.parts import write_text
from mmaudio.evaluation.judge import (
    KIND_COLUMNS,
    LABELS,
    MATERIAL_COLUMNS,
    STRIDE,
    WEIGHTS,
    Judge,
    label_mask,
    load_judge,
    save_judge,
)
from mmaudio.evaluation.metrics import top_k_share
from mmaudio.stage import HELD_OUT, MATERIALS, STAGE_VERSION, Event, render_clip, split_seeds

SECONDS = 8
FRAMES = SECONDS * MEL_16K.sample_rate // MEL_16K.hop_length
MOMENTS = -(-FRAMES // STRIDE)
STRETCH = MOMENTS // 2  # moments of a training example
RING = 0.3  # seconds for which a sharp event counts as heard
BATCH = 32
LEARNING_RATE = 3e-3
SILENT = math.log10(FLOOR)
FORCED = (*MATERIALS, *HELD_OUT)
FORCED_START = 900_000  # of the split train


# ---- data: one row a clip, in the order in which they were asked for


def clip_plan(count: int) -> list[tuple[int, str | None]]:
    """(seed, forced material) of `count` training clips; a longer plan begins like a shorter one."""
    train, audio = iter(split_seeds("train", count)), iter(split_seeds("train_audio", count))
    forced = iter(split_seeds("train", count, FORCED_START))
    plan: list[tuple[int, str | None]] = []
    for i in range(count):
        if i % 3 == 2:
            plan.append((next(forced), FORCED[i // 3 % len(FORCED)]))
        else:
            plan.append((next(audio if i % 6 == 4 else train), None))
    return plan


@dataclass(frozen=True)
class Clips:
    mels: np.ndarray  # (N, M, F) float16
    moments: np.ndarray  # (N, len(LABELS), MOMENTS) bool: what sounds when
    labels: np.ndarray  # (N, len(LABELS)) bool
    families: list[str]


def moments_of(events: Iterable[Event]) -> np.ndarray:
    """What sounds when, bool (len(LABELS), MOMENTS)."""
    rate = MEL_16K.sample_rate / MEL_16K.hop_length / STRIDE
    found = np.zeros((len(LABELS), MOMENTS), bool)
    for event in events:
        begin, end = int(event.time * rate), int((event.time + max(event.seconds, RING)) * rate)
        for label in {event.kind, event.material} - {None}:
            found[LABELS.index(label), begin : end + 1] = True
    return found


def rendered(folder: Path, plan: list[tuple[int, str | None]]) -> Clips:
    """The planned clips; those that are not in the folder yet are rendered into it."""
    folder.mkdir(parents=True, exist_ok=True)
    mel = MelSpectrogram(MEL_16K)
    row_bytes = 2 * MEL_16K.num_mels * FRAMES
    sound, notes = folder / f"stage{STAGE_VERSION}.f16", folder / f"stage{STAGE_VERSION}.jsonl"
    noted = whole_lines(notes)
    write_text(notes, "".join(json.dumps(note) + "\n" for note in noted))  # without a line that broke off
    with sound.open("r+b" if sound.exists() else "w+b") as data, notes.open("a") as words:
        data.seek(len(noted) * row_bytes)
        for seed, material in tqdm(plan[len(noted) :], desc=f"render {folder.name}", unit="clip", disable=None):
            clip = render_clip(seed, duration=SECONDS, video=False, material=material)
            data.write(mel(torch.from_numpy(clip.audio)[None])[0].half().numpy().tobytes())
            data.flush()
            heard = [np.flatnonzero(row).tolist() for row in moments_of(clip.events)]
            note = {"seed": seed, "family": clip.family, "kinds": clip.kinds, "materials": clip.materials}
            noted.append(json.loads(json.dumps(note | {"moments": heard})))
            words.write(json.dumps(noted[-1]) + "\n")  # last: a row counts once its line is there
            words.flush()
    mels = np.memmap(sound, np.float16, "r", shape=(len(noted), MEL_16K.num_mels, FRAMES))[: len(plan)]
    noted = noted[: len(plan)]
    if [note["seed"] for note in noted] != [seed for seed, _ in plan]:
        raise SystemExit(f"{folder}: holds other clips than are wanted now; choose another --work")
    moments = np.zeros((len(noted), len(LABELS), MOMENTS), bool)
    for i, note in enumerate(noted):
        for label, heard in enumerate(note["moments"]):
            moments[i, label, heard] = True
    labels = np.array([label_mask(note["kinds"], note["materials"]) for note in noted])
    return Clips(mels, moments, labels, [note["family"] for note in noted])


# ---- training


def stretch(clips: Clips, i: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Some seconds of clip i: log-mel (M, F') and what sounds when (len(LABELS), STRETCH)."""
    start = int(rng.integers(FRAMES // STRIDE - STRETCH + 1))
    mel = clips.mels[i, :, start * STRIDE : (start + STRETCH) * STRIDE]
    return mel.astype(np.float32), clips.moments[i, :, start : start + STRETCH]


def augmented(mel: Tensor, moments: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Another clip under it, another level, and now and then the blur of a codec; (B, M, F) and (B, labels, F')."""
    count = len(mel)
    gain = torch.from_numpy(rng.uniform(-0.6, 0.3, (2, count, 1, 1)).astype(np.float32))  # decades: -12 to 6 dB
    mel = mel + gain[0]
    other = (mel + gain[1]).flip(0)
    mixed = torch.from_numpy(rng.random(count) < 0.2)[:, None, None]
    mel = torch.where(mixed, 0.5 * torch.log10(10 ** (2 * mel) + 10 ** (2 * other)), mel)  # powers add
    moments = torch.where(mixed, torch.maximum(moments, moments.flip(0)), moments)
    blurred = torch.from_numpy(rng.random(count) < 0.25)[:, None, None]
    mel = torch.where(blurred, F.avg_pool2d(mel[:, None], 3, 1, 1, count_include_pad=False)[:, 0], mel)
    return mel.clamp(min=SILENT), moments


def train(work: Path, clips: Clips, steps: int, seed: int) -> Judge:
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
        rows = rng.choice(len(clips.mels), min(BATCH, len(clips.mels)), replace=False)
        mel, moments = (
            torch.from_numpy(np.stack(x)) for x in zip(*(stretch(clips, i, rng) for i in rows), strict=True)
        )
        mel, moments = augmented(mel, moments.float(), rng)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        logits, _, now = judge.judge_mel(mel)
        loss = F.binary_cross_entropy_with_logits(logits, moments.amax(2), reduction="none").sum(1).mean()
        loss = loss + F.binary_cross_entropy_with_logits(now, moments, reduction="none").sum(1).mean()
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
    parser.add_argument("--clips", type=int, default=2400, help="for training")
    parser.add_argument("--test_clips", type=int, default=400)
    parser.add_argument("--steps", type=int, default=1600, help=f"of {BATCH} clips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args(argv)

    judge = train(args.work, rendered(args.work / "train", clip_plan(args.clips)), args.steps, args.seed)
    test = rendered(args.work / "test", [(seed, None) for seed in split_seeds("test", args.test_clips)])
    facts = {"clips": args.clips, "steps": args.steps, "seed": args.seed, "licence": "MIT"}
    save_judge(judge, args.out, {name: str(value) for name, value in facts.items()})
    report(logits_of(load_judge(args.out), test.mels), test.labels, test.families)
    print(f"\n{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
