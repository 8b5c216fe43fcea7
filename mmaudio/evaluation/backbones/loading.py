"""What loading a backbone takes: its packages, its files, and a network filled from them."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from mmaudio.console import log
from mmaudio.evaluation.backbones.backbone import Unavailable
from mmaudio.evaluation.backbones.table import BackboneInfo
from mmaudio.evaluation.checksums import checksum
from mmaudio.weights import WeightError, download_dir, fetch, find, load_strict, read_state
from mmaudio.weights.files import remedy_for


class Loaded:
    """What every loaded backbone says of itself; the methods of its modalities are the subclass's."""

    def __init__(self, info: BackboneInfo, paths: Sequence[Path], device: torch.device):
        self.name, self.modalities, self.licence = info.name, info.modalities, info.licence
        self.device = device
        self.identity = identity_of(info, paths)


def identity_of(info: BackboneInfo, paths: Sequence[Path]) -> str:
    """Of weights and preprocessing. Raises WeightError if a file is damaged."""
    return "+".join([f"{info.name}-{info.preprocessing}", *map(checksum, paths)])


def check_packages(info: BackboneInfo) -> None:
    """Raises `Unavailable` if a package is missing; nothing is imported."""
    missing = [package for package in info.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise Unavailable(f"the package {', '.join(missing)} is not installed", info.install)


def find_files(info: BackboneInfo, weights_dir: str | os.PathLike | None, download: bool) -> list[Path]:
    """Paths of the weight files, in the table's order.

    Raises:
        Unavailable: one is not here, and is not to be or cannot be downloaded.
    """
    missing = [file for file in info.files if find(file, weights_dir) is None]
    if missing and not download:
        folder = download_dir(weights_dir)
        names = ", ".join(file.name for file in missing)
        raise Unavailable(
            f"{names} {'is' if len(missing) == 1 else 'are'} not on this machine",
            f"mmaudio download {info.name}, or " + "; ".join(remedy_for(file, folder) for file in missing),
        )
    for file in missing:
        log(f"{file.name}: licence {file.licence}")
    try:
        return [fetch(file, weights_dir) for file in info.files]
    except WeightError as error:
        reason, _, remedy = str(error).partition("; ")
        raise Unavailable(reason, remedy or "try again later") from error


def fill(build: Callable[[], nn.Module], path: Path, device: torch.device, **options) -> nn.Module:
    """A network built without memory and filled from a file, in float32; `options` are those of `load_strict`."""
    with torch.device("meta"):
        network = build()
    load_strict(network, read_state(path), source=path, **options)
    return network.eval().requires_grad_(False).to(device)
