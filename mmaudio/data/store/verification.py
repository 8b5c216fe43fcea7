"""Reading a whole store to see that it is sound."""

import os
from collections.abc import Callable

import torch
from torch import Tensor

from mmaudio.data.store.layout import Progress, StoreError
from mmaudio.data.store.reading import FeatureStore, open_store
from mmaudio.data.store.statistics import LatentStatistics, blocks, finite_rows

NORM_TOLERANCE = 0.01  # bf16 rounds by up to 1/256
SHOWN = 3  # names in a message

Rule = Callable[[Tensor], Tensor]  # (n, length, channels) of a field -> (n,) bool, True where the row is at fault


def _not_finite(x: Tensor) -> Tensor:
    return ~finite_rows(x)


def _not_above_zero(x: Tensor) -> Tensor:
    return (x <= 0).flatten(1).any(dim=1)


def _not_of_unit_norm(x: Tensor) -> Tensor:
    return ((x.float().norm(dim=-1) - 1).abs() > NORM_TOLERANCE).any(dim=1)


NOT_FINITE = "hold NaN or infinite values"
RULES: dict[str, dict[str, Rule]] = {
    "mean": {NOT_FINITE: _not_finite},
    "std": {NOT_FINITE: _not_finite, "are zero or negative somewhere": _not_above_zero},
    "clip": {NOT_FINITE: _not_finite, "are not of unit norm": _not_of_unit_norm},
    "sync": {NOT_FINITE: _not_finite},
    "text": {NOT_FINITE: _not_finite, "are not of unit norm": _not_of_unit_norm},
}


def verify(path: str | os.PathLike, progress: Progress | None = None) -> list[str]:
    """Everything that is wrong with a store, a line each; nothing: it is sound.

    Args:
        progress: called with (bytes read, bytes in all).
    """
    try:
        store = open_store(path)
    except StoreError as error:
        return [str(error)]
    done, total = 0, sum(tensor.nbytes for tensor in store.tensors.values())
    found = {(name, problem): [] for name in store.tensors for problem in RULES[name]}  # -> rows at fault
    for name, tensor in store.tensors.items():
        for first, block in blocks(tensor):
            for problem, rule in RULES[name].items():
                found[name, problem] += (first + rule(block).nonzero().flatten()).tolist()
            done += block.nbytes
            if progress:
                progress(done, total)
    problems = []
    for (name, problem), rows in found.items():
        if rows:
            names = store.caption_table if name == "text" else store.ids
            some = ", ".join(repr(names[row]) for row in rows[:SHOWN]) + (", ..." if len(rows) > SHOWN else "")
            problems.append(f"{store.path}: {name}: {len(rows)} of {len(store.tensors[name])} {problem}: {some}")
    if not found["mean", NOT_FINITE]:
        problems += _check_statistics(store)
    return problems


def _check_statistics(store: FeatureStore) -> list[str]:
    actual, stored = LatentStatistics.of(store.tensors["mean"]), store.latent_statistics()
    problems = []
    for what in ("mean", "std"):
        got, expected = getattr(stored, what), getattr(actual, what)
        if got.shape != expected.shape:
            problems.append(f"{store.path}: latent_{what} has {len(got)} channels, the latents {len(expected)}")
        elif not torch.allclose(got, expected, rtol=1e-6, atol=1e-6):
            worst = (got - expected).abs().argmax().item()
            problems.append(
                f"{store.path}: latent_{what} of channel {worst} is stored as {got[worst]:.6g}, "
                f"the rows give {expected[worst]:.6g}"
            )
    flat = (actual.std == 0).nonzero().flatten().tolist()
    if flat:
        problems.append(f"{store.path}: latent channels {flat} are the same everywhere")
    return problems
