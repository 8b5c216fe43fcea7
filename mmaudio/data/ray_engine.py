"""Extraction on a Ray cluster: a Ray Data pipeline of the same two functions, which writes the same parts.

Tasks prepare on every CPU of the cluster and actors encode on its GPUs; without GPUs an actor on each CPU does both, as
Ray then fuses the steps. All nodes need mmaudio, the weights and a shared file system. Units whose node dies are
done again elsewhere; since a part appears whole, under one name, every clip is in the store exactly once.
"""

import os
import pickle
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from mmaudio.console import log
from mmaudio.data.encoding import Encoders, Unit, finish_unit, prepare_unit
from mmaudio.data.parts import FAILED, ExtractionError, Parts
from mmaudio.data.preparation import Preparation

if TYPE_CHECKING:
    from mmaudio.data.extraction import Extraction

UNITS_PER_TASK = 8
PASSES = 3  # over what is missing, should Ray's own retries not do, before giving up


class Encode:
    """What an actor does, one unit at a time."""

    def __init__(self, preparation: Preparation, parts: Parts, device: str, weights_dir: str | None):
        self.parts = parts
        self.encoders = Encoders(preparation.variant, torch.device(device), weights_dir)

    def __call__(self, batch: dict) -> dict:
        [content] = batch["prepared"]
        unit, prepared = pickle.loads(content)
        reason = trouble = None
        try:
            if not self.parts.path(unit.name).exists():  # or it was done just before a node died
                reason = finish_unit(unit, prepared, self.encoders, self.parts)
        except Exception as error:  # bad weights, a full disk: Ray would try again and bury the reason
            trouble = f"{type(error).__name__}: {error}"
        return {"name": [unit.name], "reason": [reason or ""], "trouble": [trouble or ""]}


def extract_with_ray(extraction: "Extraction", todo: list[Unit]) -> Iterator[str | None]:
    """Yields once for each unit when it is done: the reason if it failed.

    Joins the cluster that `RAY_ADDRESS` names, else starts one on this machine.

    Raises:
        ExtractionError: Ray is not installed, a node cannot work, or the cluster fails again and again.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ExtractionError("engine=ray needs Ray: pip install 'mmaudio[ray]'") from error
    if not ray.is_initialized():
        ray.init()
    ray.data.DataContext.get_current().enable_progress_bars = False  # there is one already
    told: set[str] = set()
    for _ in range(PASSES):
        settled = extraction.parts.names() | extraction.parts.names(FAILED)
        missing = [unit for unit in todo if unit.name not in settled]
        try:
            for row in _pipeline(extraction, missing).iter_rows():
                if row["trouble"]:
                    raise ExtractionError(f"a Ray node stopped: {row['trouble']}; run the same command again to go on")
                if row["name"] not in told:
                    told.add(row["name"])
                    yield row["reason"] or None
            return
        except ray.exceptions.RayError as error:
            log(f"Ray: {str(error).strip().splitlines()[0]}; going on with what is missing")
    raise ExtractionError(f"the Ray cluster failed {PASSES} times; run the same command again to go on")


def _pipeline(extraction: "Extraction", units: list[Unit]):
    import ray

    preparation, config, resources = extraction.preparation, extraction.config, ray.cluster_resources()
    gpus = int(resources.get("GPU", 0)) if config.device in (None, "cuda") else 0
    device = config.device or ("cuda" if gpus else "cpu")
    weights_dir = config.weights_dir and os.path.abspath(config.weights_dir)  # actors have working folders of their own
    tasks = -(-len(units) // UNITS_PER_TASK)
    encoders = min(tasks, gpus or int(resources["CPU"]))

    def prepare(row: dict) -> dict:
        unit = pickle.loads(row["unit"])
        return {"prepared": pickle.dumps((unit, prepare_unit(unit, preparation)))}

    return (
        ray.data.from_items([{"unit": pickle.dumps(unit)} for unit in units], override_num_blocks=tasks)
        .map(prepare)
        .map_batches(
            Encode,
            fn_constructor_args=(preparation, extraction.parts, device, weights_dir),
            batch_size=1,
            num_gpus=1 if gpus else 0,
            compute=ray.data.ActorPoolStrategy(size=encoders),
        )
    )
