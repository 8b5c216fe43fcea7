"""Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): a frozen network learns W + (alpha / rank) B A.

The product is added to the weight, not the output, so one small module serves linear layers and convolutions, and a
merged network is a plain one. `peft` could do it as well; it brings transformers and accelerate along for these lines.
Adapter files have its names and shapes.
"""

import dataclasses
import json
import math
import os
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mmaudio.model.network import MMAudio, MMAudioConfig
from mmaudio.weights import CONFIG_KEY, WeightError, read_metadata, read_state, save_safetensors

DEFAULT_TARGETS = (r"_blocks\..*attn\.qkv$", r"_blocks\..*linear1$", r"_blocks\..*ffn\.w[123]$")
_BASE, _ADAPTER = ".parametrizations.weight.original", ".parametrizations.weight.0."  # how torch names them


class LowRank(nn.Module):
    """What a layer's `weight` passes through; at the start it changes nothing, as B is zero."""

    def __init__(self, weight: Tensor, rank: int, alpha: float, generator: torch.Generator | None = None):
        super().__init__()
        out_dim, in_dim, *kernel = weight.shape
        a = torch.empty(rank, in_dim, *kernel)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)  # as a layer of torch begins
        self.lora_A = nn.Parameter(a.to(weight.device))
        self.lora_B = nn.Parameter(torch.zeros(out_dim, rank, *(1 for _ in kernel), device=weight.device))
        self.register_buffer("scale", torch.tensor(alpha / rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + delta(self.lora_A, self.lora_B, self.scale).to(weight.dtype)


def delta(a: Tensor, b: Tensor, scale: Tensor | float) -> Tensor:
    """scale B A in the shape of the layer's weight: A (rank, in, ...), B (out, rank, ...) -> (out, in, ...)."""
    return (scale * (b.flatten(1) @ a.flatten(1))).unflatten(1, a.shape[1:])


def add_lora(
    network: nn.Module,
    rank: int,
    alpha: float = 16.0,
    targets: Sequence[str] = (),
    generator: torch.Generator | None = None,
) -> list[str]:
    """Freeze the network and give its layers trainable adapters, float32; before it is wrapped or compiled.

    Args:
        targets: regular expressions, searched for in the names of linear layers and 1-D convolutions. Empty: the
            attention projections, output maps and feed-forward units of all blocks.
        generator: of the adapters' first values; with several ranks it must be seeded alike on all.

    Returns:
        The names of the adapted layers.

    Raises:
        ValueError: a rank below 1, or a target that fits no layer or is no regular expression.
    """
    if rank < 1:
        raise ValueError(f"the LoRA rank must be at least 1, got {rank}")
    layers = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv1d)}
    chosen = set()
    for target in targets or DEFAULT_TARGETS:
        try:
            found = {name for name in layers if re.search(target, name)}
        except re.error as error:
            raise ValueError(f"LoRA target {target!r} is no regular expression ({error})") from error
        if not found:
            some = ", ".join(list(layers)[-3:])
            raise ValueError(f"LoRA target {target!r} fits no linear layer or convolution; names are like {some}")
        chosen |= found
    network.requires_grad_(False)
    names = [name for name in layers if name in chosen]
    for name in names:
        adapter = LowRank(layers[name].weight, rank, alpha, generator)
        parametrize.register_parametrization(layers[name], "weight", adapter)
    return names


def lora_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapters alone, `<layer>.lora_A.weight` and `<layer>.lora_B.weight`, from an adapted network's state dict."""
    return {
        f"{layer}.{name}.weight": state[f"{layer}{_ADAPTER}{name}"]
        for layer in _adapted(state)
        for name in ("lora_A", "lora_B")
    }


def merged_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An adapted network's state dict, or an average of such, as that of a plain network with the adapters added in.

    One without adapters comes back as it is.
    """
    merged = {}
    for key, tensor in state.items():
        if key.endswith(_BASE):
            layer = key.removesuffix(_BASE)
            a, b, scale = (state[f"{layer}{_ADAPTER}{name}"] for name in ("lora_A", "lora_B", "scale"))
            merged[f"{layer}.weight"] = tensor + delta(a, b, scale).to(tensor.dtype)
        elif _ADAPTER not in key:
            merged[key] = tensor
    return merged


def _adapted(state: Mapping[str, Tensor]) -> list[str]:
    return [key.removesuffix(_BASE) for key in state if key.endswith(_BASE)]


def save_adapter(path: str | os.PathLike, state: Mapping[str, Tensor], config: MMAudioConfig, variant: str) -> None:
    """Write the adapters of an adapted network's state dict as .safetensors.

    Args:
        config: of the network.
        variant: the name of the variant whose weights the adapters were trained on.

    Raises:
        WeightError: the file cannot be written.
    """
    layer = _adapted(state)[0]
    rank = len(state[f"{layer}{_ADAPTER}lora_A"])
    alpha = state[f"{layer}{_ADAPTER}scale"].item() * rank
    metadata = {
        "part": "lora",
        "variant": variant,
        "rank": str(rank),
        "alpha": f"{alpha:.6g}",
        CONFIG_KEY: json.dumps(dataclasses.asdict(config), sort_keys=True),
    }
    save_safetensors(path, lora_state(state), metadata)


def read_adapter(network: MMAudio, path: str | os.PathLike) -> dict[str, tuple[Tensor, Tensor, float]]:
    """Layer -> A, B and scale, after a check that all of it fits the network, which may be on the meta device.

    Raises:
        WeightError: no adapter, damaged, or made for another network.
    """
    metadata = read_metadata(path)
    if metadata.get("part") == "few_step":
        raise WeightError(f"{path}: is no adapter to add, but makes {metadata.get('variant')} a network for few steps")
    if metadata.get("part") != "lora":
        raise WeightError(f"{path}: is no LoRA adapter; the weights of a whole network are chosen with --variant")
    base = metadata.get("variant")
    try:
        scale = float(metadata["alpha"]) / int(metadata["rank"])
        defaults = {
            f.name: f.default for f in dataclasses.fields(MMAudioConfig) if f.default is not dataclasses.MISSING
        }
        config = defaults | json.loads(metadata[CONFIG_KEY])  # written before there was a switch: it is off
        other = {name: value for name, value in vars(network.config).items() if config[name] != value}
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise WeightError(f"{path}: its metadata cannot be used ({error!r}); write the adapter again") from error
    if other:
        name, value = next(iter(other.items()))
        raise WeightError(f"{path}: made for {base} with {name} {config[name]}, this network has {value}")
    state, layers = read_state(path), dict(network.named_modules())
    adapters = {}
    for layer in dict.fromkeys(key.rpartition(".lora_")[0] for key in state):
        wanted = getattr(layers.get(layer), "weight", None)
        a, b = take_pair(state, layer, wanted, path)
        adapters[layer] = a, b, scale
    if state:
        raise WeightError(f"{path}: unexpected entry {next(iter(state))}")
    return adapters


def take_pair(
    state: dict[str, Tensor], layer: str, wanted: Tensor | None, path: str | os.PathLike
) -> tuple[Tensor, Tensor]:
    """Take a layer's A and B out of a file's state; `wanted` is the weight that they are for.

    Raises WeightError, naming the file, if they are not there or do not fit.
    """
    a, b = (state.pop(f"{layer}.lora_{name}.weight", None) for name in "AB")
    if a is None or b is None:
        raise WeightError(f"{path}: {layer or next(iter(state), layer)} has no pair of lora_A and lora_B; damaged?")
    if wanted is None:
        raise WeightError(f"{path}: adapts {layer}, which the network does not have")
    if min(a.ndim, b.ndim) < 2 or b.flatten(1).shape != (len(wanted), len(a)) or a.shape[1:] != wanted.shape[1:]:
        got = f"A {tuple(a.shape)} and B {tuple(b.shape)}"
        raise WeightError(f"{path}: {layer} has {got}, which do not fit its weight {tuple(wanted.shape)}")
    return a, b


@torch.no_grad()
def load_adapter(network: MMAudio, path: str | os.PathLike, strength: float = 1.0) -> None:
    """Add an adapter, times `strength`, to the weights of a plain network; several can follow one another.

    Raises:
        WeightError: see `read_adapter`; the network is as it was.
    """
    layers = dict(network.named_modules())
    for name, (a, b, scale) in read_adapter(network, path).items():
        weight = layers[name].weight
        change = delta(a.float(), b.float(), strength * scale).to(weight.device)
        merged = (weight.float() + change).to(weight.dtype)  # not in place: the old values may be a file, mapped
        layers[name].weight = nn.Parameter(merged, weight.requires_grad)
