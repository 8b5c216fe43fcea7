"""What the tasks' `build` functions share: options, variant, media, the weights to start from, the file's metadata."""

import dataclasses
import json
from typing import Any, TypeVar

import torch.distributed as dist
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from mmaudio.data.clips import MediaClips, ReadClip
from mmaudio.data.sampler import TensorBatch
from mmaudio.training.config import DataEntry, TrainConfig
from mmaudio.variants import VARIANTS, Variant, get_variant
from mmaudio.weights import CONFIG_KEY, fetch, read_state

Options = TypeVar("Options")


def task_options(schema: type[Options], config: TrainConfig) -> Options:
    """`config.task` as the task's own dataclass.

    Raises:
        ValueError: a key that the task does not know, or a value of another type.
    """
    given = {name: value for name, value in config.task.items() if name != "name"}
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), given))
    except OmegaConfBaseException as error:
        known = ", ".join(field.name for field in dataclasses.fields(schema))
        reason = str(error).splitlines()[0].removesuffix(f" in '{schema.__name__}'")
        raise ValueError(f"task {config.task['name']}: {reason}; its options are {known}") from error


def positive(**options: float) -> None:
    """Raises ValueError naming an option that is not above zero."""
    for name, value in options.items():
        if not value > 0:
            raise ValueError(f"task.{name} must be above zero, got {value:g}")


def chosen_variant(config: TrainConfig) -> Variant:
    """Raises ValueError if neither `variant` nor `weights` names one."""
    name = config.variant or (config.weights if config.weights in VARIANTS else None)
    if name is None:
        raise ValueError(f"task {config.task['name']} needs variant=NAME, one of {', '.join(VARIANTS)}")
    return get_variant(name)


def media_clips(entries: list[DataEntry], read: ReadClip, batch: type[TensorBatch]) -> MediaClips:
    """The source over the manifests of `data.train` or `data.validation`.

    Raises:
        ValueError: an entry is no manifest, or has a presence flag: these are for feature stores.
        ManifestError: a manifest cannot be used.
    """
    if not entries:
        raise ValueError("data.train is empty: this task needs a list of {manifest: FILE.tsv, weight: 1}")
    for entry in entries:
        if entry.manifest is None:
            raise ValueError(f"data entry {entry.store}: this task learns from media, give manifest: FILE.tsv instead")
        if entry.store is not None or not (entry.video and entry.text):
            raise ValueError(f"data entry {entry.manifest}: store, video and text are for task=flow, leave them out")
    return MediaClips([(entry.manifest, entry.weight) for entry in entries], read, batch)


def start_weights(config: TrainConfig, part: str) -> tuple[dict[str, Tensor], str] | None:
    """The state that training starts from and the file it is of; None: from nothing. `part` names it in `Files`.

    Raises:
        WeightError: the file is missing or damaged.
        ValueError: the variant named has no such file.
    """
    if config.weights is None:
        return None
    path = config.weights
    if path in VARIANTS:
        file = getattr(VARIANTS[path].files, part)
        if file is None:
            raise ValueError(f"variant {path} has no trained {part}: leave weights empty, or name another or a file")
        path = fetch(file, config.weights_dir)
    return read_state(path), str(path)


def metadata(variant: Variant, part: str, network: Any) -> dict[str, str]:
    """Of the weight file; `network` is the dataclass that its sizes come from."""
    return {"variant": variant.base, "part": part, CONFIG_KEY: json.dumps(dataclasses.asdict(network), sort_keys=True)}


def rank_and_world() -> tuple[int, int]:
    """This process's number among all, and how many these are; (0, 1) without a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
