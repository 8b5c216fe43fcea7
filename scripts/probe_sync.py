"""How much of the timing do sync features hold, and does it matter where on the time axis they are put?

    python scripts/train_tiny.py --budget cpu --stages data,vae,clip,sync,features    # or wherever these are
    python scripts/probe_sync.py --work runs/tiny

A probe of three convolutions (about 0.2 s to each side) learns from the features of training clips at which of the
latents' frames something begins to sound, and is asked about the clips of split val whose every event is a seen
impact. It reads the features as flow networks do: stretched over the clip in their order, or each at its own time
(`MMAudioConfig.sync_in_time`). It bounds what a flow network can be expected to find, and takes minutes to train.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from mmaudio.console import error_line, expected_errors
from mmaudio.data.clip_cache import ClipCache
from mmaudio.data.manifest import ManifestError
from mmaudio.data.store import open_store
from mmaudio.evaluation.onsets import Matches, match_onsets
from mmaudio.model.layers import nearest_exact_index, sync_frame_index
from mmaudio.sequence import SequenceSpec
from mmaudio.stage import Event
from mmaudio.variants import VARIANTS

SPEC = VARIANTS["tiny_16k"].spec
TOLERANCES = (0.05, 0.1)  # seconds
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # of the probability; the best one is taken
POSITIVE_WEIGHT = 4.0  # of a moment with an onset against one without


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="of scripts/train_tiny.py (runs/tiny)")
    parser.add_argument("--clips", type=int, default=1500, help="training clips")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        (train, began, _), (held, _, times) = (load(args.work, *split) for split in (("train", args.clips), ("val", 0)))
    except (*expected_errors(), ManifestError) as error:
        print(error_line(error), file=sys.stderr)
        return 1
    print(f"{len(train)} training clips; {len(times)} clips of val with {sum(map(len, times))} impacts")
    for name, place in PLACES.items():
        torch.manual_seed(args.seed)
        probe = fit(place(train), began, args.epochs, name)
        with torch.no_grad():
            found = torch.cat([probe(place(part)) for part in held.split(64)]).sigmoid().numpy()
        print(
            f"{name:10s} onset F1 " + "  ".join(f"{t * 1000:.0f} ms {best_f1(found, times, t):.3f}" for t in TOLERANCES)
        )
    return 0


def load(work: Path, split: str, count: int) -> tuple[Tensor, Tensor, list[np.ndarray]]:
    """Features (N, S, D), where something seen begins (N, L), and the times of the impacts (seconds).

    Of split val only clips whose every event is a seen impact are there; `count` 0 is all.
    """
    store, lines = open_store(work / "features" / split), ClipCache(work / "data" / split).lines
    lines = lines[: count or None] if split == "train" else [line for line in lines if sharp(line["events"])]
    row_of = {name: index for index, name in enumerate(store.ids)}
    rows = [row_of[line["id"]] for line in lines]
    features = torch.cat([store.rows(rows[i : i + 64]).sync.float() for i in range(0, len(rows), 64)])
    times = [np.array(sorted(event["time"] for event in line["events"] if event["seen"])) for line in lines]
    began = torch.zeros(len(rows), SPEC.latent_len)
    for row, seconds in zip(began, times, strict=True):
        row[(seconds * SPEC.latent_len / SPEC.duration).astype(int).clip(max=SPEC.latent_len - 1)] = 1
    return features, began, times


def sharp(events: list[dict]) -> bool:
    return bool(events) and all(Event(**event).sharp for event in events)


def stretched(x: Tensor, spec: SequenceSpec = SPEC) -> Tensor:
    """Tokens (B, S, D) to (B, 16 D, L): each latent's token, in the place of its number in its segment."""
    return gathered(x, nearest_exact_index(spec.sync_len, spec.latent_len), spec.sync_tokens_per_segment, 1)


def in_time(x: Tensor, spec: SequenceSpec = SPEC) -> Tensor:
    """Tokens (B, S, D) to (B, 2 D, L): the token of each latent's moment, in the place of its frame in the token."""
    per_token = spec.sync_segment // spec.sync_tokens_per_segment
    return gathered(x, sync_frame_index(spec), per_token, per_token)


def gathered(x: Tensor, index: Tensor, phases: int, per_token: int) -> Tensor:
    """A copy of the features for each of `phases`, all but the present one zero, so that weights can differ."""
    phase = F.one_hot(index % phases, phases).float()  # (L, P)
    return torch.einsum("bld,lp->bpdl", x[:, index // per_token], phase).flatten(1, 2)


PLACES = {"stretched": stretched, "in time": in_time}


class Probe(nn.Module):
    def __init__(self, width: int, mean: Tensor, std: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.layers = nn.Sequential(
            nn.Dropout(0.2), nn.Conv1d(width, 64, 5, padding=2), nn.GELU(),
            nn.Dropout(0.2), nn.Conv1d(64, 64, 5, padding=2), nn.GELU(), nn.Conv1d(64, 1, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, L) to logits (B, L)."""
        return self.layers((x - self.mean) / self.std).squeeze(1)


def fit(x: Tensor, began: Tensor, epochs: int, name: str) -> Probe:
    probe = Probe(x.shape[1], x.mean((0, 2))[:, None], x.std((0, 2))[:, None] + 1e-5)
    optimizer = torch.optim.AdamW(probe.parameters(), weight_decay=0.05)
    weight = torch.tensor(POSITIVE_WEIGHT)
    for epoch in trange(epochs, desc=name, leave=False):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - epoch / epochs)
        for rows in torch.randperm(len(x)).split(32):
            loss = F.binary_cross_entropy_with_logits(probe(x[rows]), began[rows], pos_weight=weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return probe.eval()


def best_f1(found: np.ndarray, times: list[np.ndarray], tolerance: float) -> float:
    """F1 of the peaks of (N, L) probabilities above the best of the thresholds."""
    around = np.pad(found, ((0, 0), (1, 1)))
    peak = (found >= around[:, :-2]) & (found >= around[:, 2:])
    seconds = (np.arange(found.shape[1]) + 0.5) * SPEC.duration / SPEC.latent_len
    return max(
        sum((match_onsets(seconds[p & (q >= bar)], t, tolerance) for p, q, t in zip(peak, found, times, strict=True)),
            Matches()).f1
        for bar in THRESHOLDS
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
