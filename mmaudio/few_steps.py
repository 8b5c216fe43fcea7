"""Which network makes the steps: a variant's own, or the one for few steps that is kept beside it."""

import os
from dataclasses import dataclass

from mmaudio.model.difference import mismatch, read_config
from mmaudio.variants import FEW_STEPS, Variant
from mmaudio.weights import fetch, find


@dataclass(frozen=True)
class FewStep:
    """What decides whether a variant's network for few steps can be used."""

    guidance: float  # that it has in it
    problem: str = ""  # why it does not belong to the variant's network


def find_few_step(variant: Variant, weights_dir: str | os.PathLike | None = None) -> FewStep | None:
    """None if the variant has no network for few steps, or it is not on this machine.

    Raises WeightError if its file or the network's cannot be read.
    """
    path = None if variant.few_step is None else find(variant.few_step, weights_dir)
    if path is None:
        return None
    problem = mismatch(path, variant.network, fetch(variant.files.network, weights_dir))
    return FewStep(read_config(path).guidance, f"{path.name} was made for another network" if problem else "")


def choose(pipe, num_steps: int, cfg_strength: float, solver: str = "euler", negative: bool = False) -> tuple[str, str]:
    """The part of a pipeline that makes the steps, and a line about it, "" where there is nothing to choose.

    Guidance is in a network for few steps: who wants another one, or a negative prompt, gets the variant's own.

    negative: whether there is a negative prompt.
    """
    few_step: FewStep | None = pipe.few_step if num_steps <= FEW_STEPS and solver == "euler" else None
    if few_step is None:
        return "network", ""
    why = few_step.problem
    if not why and cfg_strength != few_step.guidance:
        why = f"the network for few steps has a guidance of {few_step.guidance:g} in it, not {cfg_strength:g}"
    if not why and negative:
        why = "the network for few steps takes no negative prompt"
    if why:
        return "network", f"so few steps of the plain network make it coarse: {why}"
    return "few_step", f"made by the network for few steps, with a guidance of {few_step.guidance:g} in it"
