"""The card of the bundled model: what the stages of scripts/train_tiny.py recorded, and nothing else."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from mmaudio.stage import STAGE_VERSION
from mmaudio.variants import TINY_16K
from mmaudio.weights import read_metadata

FEW_RUNS = {  # row -> its file after the split's name, steps, and whether these are plain ones of the network for 25
    "tiny_16k, 4 steps": ("4", 4, False),
    "tiny_16k, 1 step": ("1", 1, False),
    "tiny_16k, 4 plain steps": ("4_plain", 4, True),
}


def model_card(
    work: Path, names: Sequence[str], name: str, seed: int, *,
    clips: Mapping[str, int], plans: Mapping[str, Mapping], evaluated: int,
) -> str:  # fmt: skip
    """Markdown.

    Args:
        work: the script's folder, with runs, weights and records.
        names: of the bundled files.
        name: of the budget; clips, plans and evaluated are what it says.
    """
    seconds = read_record(work / "seconds.json")
    lines = [
        "# tiny_16k",
        "",
        f"The bundled model: {', '.join(names)}; MIT. Made by `python scripts/train_tiny.py --budget {name}`; this "
        "card was written by its last stage.",
        "",
        f"**Data.** Foley Stage, version {STAGE_VERSION}, clips of 8 s: {clips['train']} of split `train` with "
        f"picture, sound and up to three captions each, and {clips['train_audio']} of split `train_audio` with sound "
        f"and captions alone; for the flow network, {clips['struck']} later ones of it, too, in which things are only "
        f"struck, rolled or scraped; {clips['val']} of split `val` to choose the averaging length. Nothing else: no "
        "recording, no pretrained weight.",
        "",
        f"**Training.** Each network from scratch, seed {seed}; heard goes on from vae, flow from pieces (of "
        "2.56 s: its losses are others), guided and few from flow.",
        "",
        "| network | batch | steps | peak learning rate | hours here | last training loss | last validation loss |",
        "|---|---|---|---|---|---|---|",
    ]
    for network, plan in plans.items():
        if not (losses := last_losses(work / "runs" / network / "stats.jsonl")):
            continue  # kept from an earlier round, or left out
        hours = f"{seconds.get(network, 0) / 3600:.2f}"
        cells = [network, plan["batch"], plan["steps"], f"{plan['lr']:g}", hours]
        cells += [losses.get("train"), losses.get("validation")]
        lines.append("| " + " | ".join(f"{x:.4f}" if isinstance(x, float) else str(x) for x in cells) + " |")
    lines += ["", f"All stages of this round took {sum(seconds.values()) / 3600:.1f} hours on {machine()}."]
    if rounds := read_metadata(work / "weights" / TINY_16K.files.network.name).get("rounds"):
        lines += [f"The flow network saw, in steps x clips: {rounds}."]
    if chosen := read_record(work / "ema.json"):
        lines += [f"It is the average of length sigma_rel {chosen['chosen']:g}."]
    if few := read_record(work / "few_step.json"):
        lines += [
            f"Few steps are made by changes of rank {few['rank']} to its weights ({few['bytes'] / 1e6:.1f} MB), "
            f"without {few['lost']:.1%} of the changes that were trained (root of squares)."
        ]
    if compared := read_record(work / "vocoders.json"):
        lines += ["", f"**Vocoders** on held-out mel spectrograms; {compared['best']} is the better one.", ""]
        lines += table(compared["figures"])
    for split in ("test", "test_hard"):
        if rows := rows_of(work, split):
            lines += ["", f"**Split {split}**, {evaluated} clips, seed 0, by `scripts/evaluate_stage.py`.", ""]
            lines += table(rows)
    lines += [
        "",
        "**Limits.** It knows the simulated world alone: its sounds and pictures, at 8 s, 25 frames a second and "
        f"{TINY_16K.sync.frame_size} pixels. On other videos it makes such sounds in time with sudden motion; it knows "
        "no speech and no music. Its sound passes a small VAE and Griffin-Lim, and is coarse beside the big models'.",
    ]
    return "\n".join(lines) + "\n"


def machine() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"


def last_losses(path: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {line["kind"]: line["loss"] for line in lines if line.get("loss") is not None}


def rows_of(work: Path, split: str) -> dict[str, dict]:
    """All rows of a split's evaluation, those with few steps last."""
    rows = dict(read_record(work / f"{split}.json").get("rows", {}))
    for row, (name, *_) in FEW_RUNS.items():
        if found := read_record(work / f"{split}_{name}.json"):
            (rows[row],) = found["rows"].values()
    return rows


def table(rows: Mapping[str, Mapping]) -> list[str]:
    """Markdown of rows of figures; a figure is a number, or one with its bootstrap interval."""
    columns = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(columns).replace("|lag|", "lag") + " |", "|---" * (len(columns) + 1) + "|"]
    return lines + [
        f"| {name} | " + " | ".join(cell(row.get(key)) for key in columns) + " |" for name, row in rows.items()
    ]


def cell(figure: float | dict | None) -> str:
    if isinstance(figure, dict):
        whole = figure["value"] is not None
        return f"{cell(figure['value'])} ({cell(figure['low'])} to {cell(figure['high'])})" if whole else "-"
    return "-" if figure is None else f"{figure:.3f}"


def read_record(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
