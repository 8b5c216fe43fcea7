"""Which variants there are, which of them this machine has, and loading one by name."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mmaudio.model.network import MMAudio
from mmaudio.pipeline import Pipeline
from mmaudio.variants import PREFERENCE, VARIANTS, Variant, get_variant
from mmaudio.weights import WeightError, find


@dataclass(frozen=True)
class VariantInfo:
    """One row of `list_variants`."""

    name: str
    about: str
    parameters: int  # of the flow network
    sample_rate: int  # Hz
    licence: str
    weights: str  # "bundled", "local" or "missing"


def missing_files(variant: Variant, weights_dir: str | os.PathLike | None = None) -> list[str]:
    return [file.name for file in variant.files.present.values() if find(file, weights_dir) is None]


def list_variants(weights_dir: str | os.PathLike | None = None) -> list[VariantInfo]:
    """All variants, the bundled one first, with where their weights are."""

    def info(variant: Variant) -> VariantInfo:
        with torch.device("meta"):
            parameters = sum(p.numel() for p in MMAudio(variant.network).parameters())
        missing = missing_files(variant, weights_dir)
        where = "missing" if missing else "bundled" if variant.bundled else "local"
        return VariantInfo(variant.name, variant.about, parameters, variant.spec.sample_rate, variant.licence, where)

    return [info(variant) for variant in VARIANTS.values()]


def best_installed(weights_dir: str | os.PathLike | None = None) -> str:
    """Name of the best variant whose weights are all on this machine. WeightError if there is none."""
    for name in PREFERENCE:
        if not missing_files(get_variant(name), weights_dir):
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
) -> Pipeline:
    """A `Pipeline` of a variant, ready to be called; see `Pipeline` for the arguments.

    An official variant whose weights are not here is downloaded (resumed, checked) before this returns.

    Raises:
        ValueError: unknown variant.
        WeightError: weights cannot be had or do not fit.
    """
    from mmaudio.weights import fetch

    pipeline = Pipeline(variant, device, dtype, weights_dir, low_memory, lora=lora, lora_strength=lora_strength)
    for file in pipeline.variant.files.present.values():
        fetch(file, weights_dir)
    return pipeline
