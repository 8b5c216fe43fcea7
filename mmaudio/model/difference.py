"""What a distilled network has beyond its teacher, as a small file.

Of each large weight's change its strongest directions are kept, as many as the rank: no other product of that rank is
as near (Eckart and Young 1936). They have the names and shapes of a LoRA adapter. Biases, norms, and what the teacher
does not have are kept whole, as `<name>.diff`. All is float16, and is added to the very weights it was taken from.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mmaudio.model.lora import delta, take_pair
from mmaudio.model.network import MMAudioConfig
from mmaudio.weights import CONFIG_KEY, WeightError, fingerprint, read_metadata, read_state, save_safetensors

_WHOLE = ".diff"


def factored(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The change of a weight (out, in, ...) as A (rank, in, ...) and B (out, rank, ...), see `lora.delta`."""
    u, s, v = torch.linalg.svd(change.flatten(1), full_matrices=False)
    root = s[:rank].sqrt()  # shared alike, so that neither leaves the range of float16
    b = u[:, :rank] * root
    return (root[:, None] * v[:rank]).unflatten(1, change.shape[1:]), b[(..., *[None] * (change.ndim - 2))]


def difference(base: Mapping[str, Tensor], other: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """What `added` makes `other` with, of `base`. ValueError for a rank below 1."""
    if rank < 1:
        raise ValueError(f"the rank must be at least 1, got {rank}")
    change = {}
    for key, tensor in other.items():
        step = tensor.float() - base[key].float() if key in base else tensor.float()
        layer, _, name = key.rpartition(".")
        smaller = step.ndim > 1 and rank * sum(step.flatten(1).shape) < step.numel()
        if key in base and name == "weight" and smaller:
            change[f"{layer}.lora_A.weight"], change[f"{layer}.lora_B.weight"] = factored(step, rank)
        elif key not in base or step.any():
            change[key + _WHOLE] = step
    return {key: tensor.half() for key, tensor in change.items()}


def added(base: Mapping[str, Tensor], change: Mapping[str, Tensor], source: str | os.PathLike) -> dict[str, Tensor]:
    """Both together, float32. Raises WeightError, naming `source`, if the change does not fit."""
    state = {key: tensor.float() for key, tensor in base.items()}
    change = dict(change)
    for key in [key for key in change if key.endswith(_WHOLE)]:
        name, step = key.removesuffix(_WHOLE), change.pop(key).float()
        if name in state and step.shape != state[name].shape:
            got, wanted = tuple(step.shape), tuple(state[name].shape)
            raise WeightError(f"{source}: {name} is changed by {got}, which does not fit its {wanted}")
        state[name] = state[name] + step if name in state else step
    for layer in dict.fromkeys(key.rpartition(".lora_")[0] for key in change):
        name = f"{layer}.weight"
        a, b = take_pair(change, layer, state.get(name), source)
        state[name] = state[name] + delta(a.float(), b.float(), 1.0)
    if change:
        raise WeightError(f"{source}: unexpected entry {next(iter(change))}")
    return state


def save_difference(path: str | os.PathLike, student: Path, teacher: Path, rank: int, **about: str) -> float:
    """Write what the network of the file `student` has beyond the one of the file `teacher`, which it was made from.

    Args:
        rank: of the weights' changes.
        about: more for the metadata, which is the student's otherwise.

    Returns:
        How much of the change the file does not have: 0 is nothing, 1 all (root of the sums of squares).

    Raises:
        WeightError: a file cannot be read or written.
        ValueError: a rank below 1.
    """
    base, other = read_state(teacher), read_state(student)
    change = difference(base, other, rank)
    made_of = {"part": "few_step", "base": fingerprint(teacher), "rank": str(rank)}
    save_safetensors(path, change, read_metadata(student) | made_of | about)
    made = added(base, change, path)
    missed = sum((made[key] - other[key].float()).square().sum() for key in base if key in other)
    whole = sum((other[key].float() - base[key].float()).square().sum() for key in base if key in other)
    return float((missed / whole).sqrt()) if whole else 0.0


def read_config(path: str | os.PathLike) -> MMAudioConfig:
    """Of the network that a file of `save_difference` makes. Raises WeightError if it is none."""
    metadata = read_metadata(path)
    if metadata.get("part") != "few_step":
        raise WeightError(f"{path}: holds a {metadata.get('part', 'network')}, expected what makes one for few steps")
    try:
        config = MMAudioConfig(**json.loads(metadata[CONFIG_KEY]))
        if config.few_step is not True or not isinstance(config.guidance, int | float):
            raise ValueError(f"few_step {config.few_step!r}, guidance {config.guidance!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise WeightError(f"{path}: its metadata cannot be used ({error!r}); write the file again") from error
    return config


def mismatch(path: str | os.PathLike, teacher: MMAudioConfig, weights: Path) -> str:
    """Why a file of `save_difference` is not for the network of this configuration in the file `weights`; "" if it is.

    Raises WeightError if one of them cannot be read.
    """
    made_for = dataclasses.replace(read_config(path), guidance=None, few_step=False)
    for name, value in vars(teacher).items():
        if (own := getattr(made_for, name)) != value:
            return f"made for a network with {name} {own}, not {value}"
    return "" if read_metadata(path).get("base") == fingerprint(weights) else f"made for other weights than {weights}"
