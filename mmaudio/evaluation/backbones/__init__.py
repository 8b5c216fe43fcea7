"""The networks behind the metrics, each with its preprocessing, behind one signature.

Light to import: what a backbone needs is imported when it is loaded, after its package and weights have been found.
"""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from mmaudio.evaluation.backbones.backbone import Backbone, Unavailable
from mmaudio.evaluation.backbones.loading import check_packages, find_files, identity_of
from mmaudio.evaluation.backbones.table import BACKBONES, BackboneInfo

__all__ = ["BACKBONES", "Backbone", "BackboneInfo", "Found", "Unavailable", "find_backbone", "load_backbone"]


@dataclass(frozen=True)
class Found:
    """A backbone that is on this machine; features that are kept are known by its identity, so it need not be loaded.

    `load` raises `Unavailable` if something is missing that only the package knows of, and WeightError.
    """

    identity: str
    load: Callable[[], Backbone]


def find_backbone(
    name: str, device: str | None = None, weights_dir: str | os.PathLike | None = None, download: bool = False
) -> Found:
    """A backbone that can be loaded.

    Args:
        device: None is the best available.
        weights_dir: searched before the other folders of `mmaudio.weights.search_dirs`.
        download: fetch weight files that are missing (they can be gigabytes); never done otherwise.

    Raises:
        ValueError: unknown name.
        Unavailable: a package or a weight file is missing, or cannot be downloaded; found out before anything heavy
            is imported.
        WeightError: a weight file is there, but damaged.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: expected one of {', '.join(BACKBONES)}")
    info = BACKBONES[name]
    check_packages(info)
    paths = find_files(info, weights_dir, download)

    def load() -> Backbone:
        import torch

        from mmaudio.pipeline import best_device

        module = importlib.import_module(f"{__name__}.{name}")
        return module.load(info, paths, torch.device(device) if device else best_device())

    return Found(identity_of(info, paths), load)


def load_backbone(
    name: str, device: str | None = None, weights_dir: str | os.PathLike | None = None, download: bool = False
) -> Backbone:
    """A backbone in evaluation mode and float32, ready to be called. Arguments and errors: see `find_backbone`.

    Raises, besides, WeightError if a weight file is another network's.
    """
    return find_backbone(name, device, weights_dir, download).load()
