"""Post-hoc EMA (Karras et al. 2024, arXiv 2312.02696, section 3): averages of the weights over the training, and from
their snapshots, afterwards, an average of any other length.

A power-function profile gives the weights at training time tau <= t the share (gamma + 1) tau^gamma / t^(gamma + 1).
Its relative length sigma_rel is its standard deviation divided by t. Time is counted in updates of the weights.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from mmaudio.weights import WeightError, open_lazily, read_metadata, save_safetensors

log = logging.getLogger(__name__)

LONGEST = 12**-0.5  # sigma_rel of the plain mean over the whole training, gamma = 0
REFERENCE_SIGMA_RELS = (0.05, 0.1)  # of the reference implementation's snapshots, which do not say it
LARGE_ERROR, LARGE_WEIGHT = 0.05, 5.0  # of a synthesised profile; above them a warning is due
Correction = Literal["exact", "reference"]


def sigma_rel(gamma: float) -> float:
    """Relative length of the profile with exponent `gamma`."""
    return ((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))) ** 0.5


def gamma(sigma_rel: float) -> float:
    """Exponent of the profile of relative length `sigma_rel`.

    Raises:
        ValueError: not above 0, or longer than the mean over the whole training.
    """
    if not 0 < sigma_rel <= LONGEST:
        raise ValueError(f"sigma_rel must be above 0 and at most {LONGEST:.3f} (the plain mean), got {sigma_rel}")
    roots = np.roots([1, 7, 16 - sigma_rel**-2, 12 - sigma_rel**-2])
    return max(0.0, float(roots.real.max()))


def beta(t: int, gamma: float, update_every: int = 1, correction: Correction = "exact") -> float:
    """How much of the average stays when the weights after step t are mixed in.

    "exact" is the profile's own share, the weights taken as constant between updates; 0 at the first one.
    "reference" is what the reference implementation does: its clock is one step ahead, and it takes the geometric mean
    of this update's factor and the next one's.
    """
    if correction == "exact":
        return max(0.0, 1 - update_every / t) ** (gamma + 1)
    both = (1 - 1 / (t + 1)) * (1 - 1 / (t + 1 + update_every))
    return both ** ((gamma + 1) * update_every / 2)


class PostHocEMA:
    """Averages with several profiles, in float32, on the devices of the network's tensors.

    Args:
        state: name -> floating tensor: parameters and buffers, frozen ones too. Sharded tensors (FSDP) are averaged
            shard by shard, without communication.
        sigma_rels: relative lengths of the profiles.
        update_every: of so many calls of `update` one does something; with 1 the profiles are exact.
        correction: see `beta`.

    Attributes:
        updates: calls of `update` so far.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        sigma_rels: Iterable[float] = (0.05, 0.1),
        update_every: int = 1,
        correction: Correction = "exact",
    ):
        if correction not in ("exact", "reference"):
            raise ValueError(f"correction must be exact or reference, got {correction!r}")
        if update_every < 1:
            raise ValueError(f"update_every must be at least 1, got {update_every}")
        self.sigma_rels = tuple(sigma_rels)
        if len(set(self.sigma_rels)) < len(self.sigma_rels):
            raise ValueError(f"sigma_rels must differ, got {self.sigma_rels}")
        self.update_every, self.correction = update_every, correction
        self.updates = 0
        self._gammas = [gamma(sigma) for sigma in self.sigma_rels]
        self._averages = [
            {name: tensor.detach().to(torch.float32, copy=True) for name, tensor in state.items()}
            for _ in self.sigma_rels
        ]

    @property
    def time(self) -> int:
        """t of the profiles: the update whose weights came in last."""
        if self.correction == "reference":
            return self.updates
        return max(min(self.updates, 1), self.updates - self.updates % self.update_every)

    def averages(self) -> list[dict[str, Tensor]]:
        """One state per profile; the tensors themselves, sharded like the network's."""
        return self._averages

    @torch.no_grad()
    def update(self, state: Mapping[str, Tensor]) -> None:
        """Mix in the weights that an optimizer step has just made; the first call copies them."""
        self.updates += 1
        t = self.updates
        if t != 1 and (t - 1 if self.correction == "reference" else t) % self.update_every:
            return
        for exponent, average in zip(self._gammas, self._averages, strict=True):
            assert state.keys() == average.keys(), "another set of tensors than the averages began with"
            stays = 0.0 if t == 1 else beta(t, exponent, self.update_every, self.correction)
            new = [_shard(state[name]).detach().float() for name in average]
            torch._foreach_lerp_([_shard(tensor) for tensor in average.values()], new, 1 - stays)

    def snapshot(
        self,
        folder: str | os.PathLike,
        full_states: Iterable[dict[str, Tensor]],
        write: bool = True,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write `<i>.<t>.safetensors` for every profile, each whole or not at all; `synthesize` starts from them.

        Args:
            full_states: the `averages()` with whole tensors. A generator is best: one is gathered and kept at a time.
            write: False on the ranks that only help to gather.
            metadata: goes into the files.

        Raises:
            WeightError: cannot be written.
        """
        for i, (sigma, state) in enumerate(zip(self.sigma_rels, full_states, strict=True)):
            if write:
                own = {"sigma_rel": repr(sigma), "step": str(self.time), "correction": self.correction}
                path = Path(folder) / f"{i}.{self.time}.safetensors"
                save_safetensors(path, state, {**(metadata or {}), **own})

    def state_dict(self) -> dict:
        """Nested dicts of numbers, words and the averages' own tensors: a checkpoint can be read straight into them."""
        averages = {str(sigma): average for sigma, average in zip(self.sigma_rels, self._averages, strict=True)}
        return {"updates": self.updates, **self._settings(), "averages": averages}

    def _settings(self) -> dict:
        return {"update_every": self.update_every, "correction": self.correction}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping) -> None:
        """Raises ValueError if the averages in `state` were made with other settings."""
        kept = {name: state[name] for name in self._settings()} | {"sigma_rels": tuple(map(float, state["averages"]))}
        expected = self._settings() | {"sigma_rels": self.sigma_rels}
        if kept != expected:
            raise ValueError(
                f"the checkpoint's averages were made with {kept}, the configuration's ema says {expected}: both "
                "cannot be mixed; put it back or start a new run"
            )
        for average, saved in zip(self._averages, state["averages"].values(), strict=True):
            assert saved.keys() == average.keys(), "another set of tensors than the averages began with"
            for name, tensor in average.items():
                tensor.copy_(saved[name])
        self.updates = state["updates"]


def _shard(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


# ---- after the training


@dataclass(frozen=True)
class Snapshot:
    """One file of the folder; its tensors are read when asked for."""

    path: Path
    sigma_rel: float
    step: int
    correction: Correction
    metadata: dict[str, str]  # what else the training put into the file
    tensors: Mapping[str, Callable[[], Tensor]]


def open_snapshots(folder: str | os.PathLike) -> list[Snapshot]:
    """All snapshots of a training, ours or the reference implementation's, by profile and step.

    Raises:
        WeightError: no snapshots, a damaged one, or ones that do not belong together.
    """
    names = re.compile(r"(\d+)\.(\d+)\.(safetensors|pt)")
    found = [(m, path) for path in Path(folder).glob("*") if (m := names.fullmatch(path.name))]
    if not found:
        raise WeightError(f"{folder}: no snapshots (<profile>.<step>.safetensors or .pt) in there")
    found.sort(key=lambda pair: (int(pair[0][1]), int(pair[0][2])))
    snapshots = [_open(path, int(m[1]), int(m[2])) for m, path in found]
    first, seen = snapshots[0], {}
    for other in snapshots:
        twin = seen.setdefault((other.step, other.sigma_rel), other)
        if twin is not other:
            raise WeightError(f"{other.path}: of the same profile and step as {twin.path.name}; remove one of them")
        if other.correction != first.correction:
            raise WeightError(
                f"{other.path}: made with correction {other.correction}, {first.path.name} with {first.correction}: "
                "snapshots of two trainings cannot be mixed"
            )
        if other.tensors.keys() != first.tensors.keys():
            name = min(other.tensors.keys() ^ first.tensors.keys())
            raise WeightError(f"{other.path}: has other tensors than {first.path.name} (e.g. {name})")
    return snapshots


def _open(path: Path, profile: int, step: int) -> Snapshot:
    content, metadata = open_lazily(path), read_metadata(path)
    if path.suffix == ".safetensors":
        try:
            own = [metadata.pop(name) for name in ("sigma_rel", "step", "correction")]
            sigma, inside, correction = float(own[0]), int(own[1]), own[2]
        except (KeyError, ValueError) as error:
            raise WeightError(f"{path}: no snapshot of ours, sigma_rel or step are not in its metadata") from error
        tensors = content
    else:
        prefix = "ema_model."
        if profile >= len(REFERENCE_SIGMA_RELS):
            raise WeightError(f"{path}: the reference keeps {len(REFERENCE_SIGMA_RELS)} profiles, this is another one")
        sigma, correction = REFERENCE_SIGMA_RELS[profile], "reference"
        extra = content.get("_extra_state", dict)()
        inside = int(extra.get("step", step)) if isinstance(extra, Mapping) else step
        tensors = {name.removeprefix(prefix): read for name, read in content.items() if name.startswith(prefix)}
    if not tensors:
        raise WeightError(f"{path}: holds no averaged weights")
    if inside != step:
        raise WeightError(f"{path}: was made at step {inside}, its name says {step}")
    return Snapshot(path, sigma, step, correction, metadata, tensors)


def synthesis_weights(
    profiles: list[tuple[int, float]], step: int, sigma_rel: float, correction: Correction = "exact"
) -> Tensor:
    """How much of each snapshot makes the average of length `sigma_rel` at `step`, (n,) float64.

    The least-squares fit of its profile by the stored ones (Karras et al., algorithms 2 and 3).

    Args:
        profiles: (step, sigma_rel) of the snapshots.
        correction: "exact" leaves out snapshots of later steps and makes the weights sum to one; "reference" does
            neither, and rounds the exponents to float32, as that implementation does.
    """
    t = torch.tensor([step for step, _ in profiles], dtype=torch.float64)
    exponents = torch.tensor([gamma(sigma) for _, sigma in profiles], dtype=torch.float64)
    target = torch.tensor([gamma(sigma_rel)], dtype=torch.float64)
    if correction == "reference":
        used = torch.ones(len(t), dtype=torch.bool)
        exponents, target = exponents.float().double(), target.float().double()
    else:
        used = t <= step
    t_used, used_exponents, at = t[used], exponents[used], torch.tensor([step], dtype=torch.float64)
    inner = inner_product(t_used[:, None], used_exponents[:, None], t_used, used_exponents)
    with_target = inner_product(t_used, used_exponents, at, target)
    weights = torch.linalg.solve(inner, with_target)
    norm = inner_product(at, target, at, target).item()
    error = max(0.0, 1 - (2 * with_target @ weights - weights @ inner @ weights).item() / norm) ** 0.5
    largest = weights.abs().max().item()
    if error > LARGE_ERROR or largest > LARGE_WEIGHT:
        stored = ", ".join(f"{sigma:g}" for sigma in sorted({sigma for _, sigma in profiles}))
        log.warning(
            "sigma_rel %g is far from the stored %s, or the snapshots are far apart: its profile is missed by %.1f %%, "
            "with weights up to %.1f", sigma_rel, stored, 100 * error, largest,
        )  # fmt: skip
    if correction == "exact":
        weights = weights / weights.sum()
    return torch.zeros_like(t).masked_scatter(used, weights)


def inner_product(ta: Tensor, gamma_a: Tensor, tb: Tensor, gamma_b: Tensor) -> Tensor:
    """Integral over the training of the product of two profiles that end at ta and tb."""
    power = (ta / tb) ** torch.where(ta < tb, gamma_b, -gamma_a)
    return (gamma_a + 1) * (gamma_b + 1) * power / ((gamma_a + gamma_b + 1) * torch.maximum(ta, tb))


def synthesize(
    folder: str | os.PathLike | list[Snapshot],
    sigma_rel: float,
    step: int | None = None,
    correction: Correction | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Tensor]:
    """The weights averaged over the length `sigma_rel`, float32; read tensor by tensor.

    Args:
        folder: with the snapshots, or what `open_snapshots` returned.
        step: the end of the average, one that has a snapshot; None is the last.
        correction: how the weights of the sum are computed; None is how the snapshots were made.
        progress: called with (done, total) tensors.

    Raises:
        WeightError: see `open_snapshots`.
        ValueError: a length or step that cannot be had.
    """
    snapshots = folder if isinstance(folder, list) else open_snapshots(folder)
    steps = sorted({snapshot.step for snapshot in snapshots})
    step = steps[-1] if step is None else step
    if step not in steps:
        near = sorted(sorted(steps, key=lambda stored: abs(stored - step))[:3])
        raise ValueError(f"step {step} has no snapshot (there are {steps[0]} to {steps[-1]}); near it: {near}")
    profiles = [(snapshot.step, snapshot.sigma_rel) for snapshot in snapshots]
    if (step, sigma_rel) in profiles:  # exactly what is stored
        chosen = [(snapshots[profiles.index((step, sigma_rel))], 1.0)]
    else:
        weights = synthesis_weights(profiles, step, sigma_rel, correction or snapshots[0].correction).tolist()
        chosen = [(snapshot, weight) for snapshot, weight in zip(snapshots, weights, strict=True) if weight]
    state = {}
    for i, name in enumerate(chosen[0][0].tensors, start=1):
        parts = (weight * snapshot.tensors[name]().double() for snapshot, weight in chosen)
        state[name] = sum(parts).float()
        if progress is not None:
            progress(i, len(chosen[0][0].tensors))
    return state
