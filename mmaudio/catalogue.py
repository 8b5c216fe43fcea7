"""Which variants there are, which of them this machine has, and loading one by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mmaudio.loading import unfilled
from mmaudio.model.network import MMAudio
from mmaudio.pipeline import Pipeline
from mmaudio.variants import PREFERENCE, VARIANTS, Variant, get_variant
from mmaudio.weights import WeightError, WeightFile, find

if TYPE_CHECKING:
    from mmaudio.evaluation.backbones import BackboneInfo


@dataclass(frozen=True)
class VariantInfo:
    """One row of `list_variants`."""

    name: str
    about: str
    parameters: int  # of the flow network
    sample_rate: int  # Hz
    licence: str
    weights: str  # "bundled", "local" or "missing"


def whereabouts(
    owner: Variant | BackboneInfo, files: Iterable[WeightFile], weights_dir: str | os.PathLike | None = None
) -> str:
    """Of its weights: "bundled", "local" or "missing"."""
    if any(find(file, weights_dir) is None for file in files):
        return "missing"
    return "bundled" if owner.bundled else "local"


def with_weights(name: str | os.PathLike) -> tuple[Variant | BackboneInfo, dict[str, WeightFile]]:
    """A variant or a network of the evaluation, and its weight files by the names of their parts.

    Raises:
        ValueError: unknown name.
        WeightError: see `get_variant`.
    """
    from mmaudio.evaluation.backbones import BACKBONES

    if name in BACKBONES:
        return BACKBONES[name], {f"file {i}": file for i, file in enumerate(BACKBONES[name].files, 1)}
    variant = get_variant(name)
    beside = {"few": variant.few_step} if variant.few_step else {}
    return variant, variant.files.present | beside


def list_variants(weights_dir: str | os.PathLike | None = None) -> list[VariantInfo]:
    """All variants, the bundled one first, with where their weights are."""

    def info(variant: Variant) -> VariantInfo:
        with unfilled():
            parameters = sum(p.numel() for p in MMAudio(variant.network).parameters())
        where = whereabouts(variant, variant.files.present.values(), weights_dir)
        return VariantInfo(variant.name, variant.about, parameters, variant.spec.sample_rate, variant.licence, where)

    return [info(variant) for variant in VARIANTS.values()]


def best_installed(weights_dir: str | os.PathLike | None = None) -> str:
    """Name of the best variant whose weights are all on this machine. WeightError if there is none."""
    for name in PREFERENCE:
        variant = get_variant(name)
        if whereabouts(variant, variant.files.present.values(), weights_dir) != "missing":
            return name
    raise WeightError("no weights on this machine, not even the bundled ones: install the package again")


def load(
    variant: str | os.PathLike = "tiny_16k",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    weights_dir: str | os.PathLike | None = None,
    low_memory: bool = False,
    lora: str | os.PathLike | Sequence[str | os.PathLike] = (),
    lora_strength: float = 1.0,
    compile: bool = False,
) -> Pipeline:
    """A `Pipeline` of a variant, ready to be called; see `Pipeline` for the arguments.

    An official variant whose weights are not here is downloaded (resumed, checked) before this returns.

    Raises:
        ValueError: unknown variant.
        WeightError: weights cannot be had or do not fit.
    """
    from mmaudio.weights import fetch

    pipeline = Pipeline(
        variant, device, dtype, weights_dir, low_memory, lora=lora, lora_strength=lora_strength, compile=compile
    )
    for file in pipeline.variant.files.present.values():
        fetch(file, weights_dir)
    return pipeline
