"""Batches from one or several feature stores."""

import functools
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from mmaudio.data.sampler import Item, weighted_order
from mmaudio.data.store import FeatureBatch, FeatureStore, LatentStatistics, StoreError, open_store
from mmaudio.sequence import SequenceSpec

if TYPE_CHECKING:
    from mmaudio.variants import Variant

ENCODERS = {"vae": "codec", "clip": "CLIP encoder", "sync": "Synchformer"}  # part -> what a message calls it


class Entry(Protocol):
    """`mmaudio.training.config.DataEntry`, as far as it is needed here."""

    store: str | None
    weight: float
    video: bool
    text: bool


@dataclass(frozen=True)
class Member:
    store: FeatureStore
    first: int  # its rows are first, first + 1, ... of the mixture
    weight: float
    video: bool
    text: bool

    @property
    def has_video(self) -> bool:
        return self.video and self.store.has_video


class Mixture:
    """A `Source` over feature stores, for training and for validation.

    Row numbers run through the entries in their order. A weight is how often an epoch sees each row of a store; a
    fraction is a random part of it, another one in every epoch. What a row lacks is zero, with its exist flag False.

    Raises:
        StoreError: an entry names no store, has a bad weight, or cannot be opened; two stores cannot be mixed.
    """

    def __init__(self, entries: Sequence[Entry]):
        opened: dict[Path, FeatureStore] = {}
        self.members: list[Member] = []
        for number, entry in enumerate(entries, start=1):
            if entry.store is None:
                raise StoreError(f"entry {number} of the data names no store; give it as {{store: FOLDER, weight: 1}}")
            if not (math.isfinite(entry.weight) and entry.weight >= 0):
                raise StoreError(f"{entry.store}: weight must be zero or more, got {entry.weight}")
            path = Path(os.path.realpath(entry.store))
            if path not in opened:
                opened[path] = open_store(entry.store)
            self.members.append(Member(opened[path], len(self), entry.weight, entry.video, entry.text))
        if not self.members:
            raise StoreError("the data lists no feature stores; give at least one {store: FOLDER, weight: 1}")
        self.stores = list(opened.values())
        for one, other in itertools.combinations(self.stores, 2):
            _check_alike(one, other)
        found = [store.dtypes for store in self.stores]
        self.shapes = {name: shape for store in self.stores for name, shape in store.shapes.items()}
        self.dtypes = {
            name: functools.reduce(torch.promote_types, [dtypes[name] for dtypes in found if name in dtypes])
            for name in self.shapes
        }
        self.identity = {part: checksum for store in self.stores for part, checksum in store.meta.identity.items()}

    def __len__(self) -> int:
        return sum(len(member.store) for member in self.members)

    def order(self, epoch: int, seed: int) -> Tensor:
        return weighted_order([(m.first, len(m.store), m.weight) for m in self.members], epoch, seed)

    def __getitems__(self, items: list[Item]) -> FeatureBatch:
        batch = FeatureBatch.empty(len(items), self.shapes, self.dtypes)
        for m in self.members:
            places = [place for place, item in enumerate(items) if m.first <= item.row < m.first + len(m.store)]
            rows = [items[place].row - m.first for place in places]
            m.store.fill(batch, places, rows, video=m.video, text=m.text)
        return batch

    def check_variant(self, variant: "Variant", identity: Mapping[str, str] | None = None) -> None:
        """See that the stores suit a variant; the sizes of modalities that no store has are taken from it.

        Args:
            identity: checksums of the weights, "vae", "clip", "sync" (`mmaudio.weights.fingerprint`), that the
                features must come from; parts that are not named may be any.

        Raises:
            StoreError: other lengths or channels than the variant's, or other encoders.
        """
        expected = row_shapes(variant)
        remedy = f"extract features for variant={variant.name}, or train a variant that fits"
        for store in self.stores:
            origin = f" (extracted for {store.meta.variant})" if store.meta.variant else ""
            for name, shape in store.shapes.items():
                if shape != expected[name]:
                    raise StoreError(
                        f"{store.path}: {name} is {_times(shape)} per row{origin}, "
                        f"{variant.name} needs {_times(expected[name])}; {remedy}"
                    )
            if store.meta.spec not in (None, variant.spec):
                raise StoreError(
                    f"{store.path}{origin}: {_difference(store.meta.spec, variant.spec, variant.name)}; {remedy}"
                )
            for part, what in ENCODERS.items():
                got, wanted = store.meta.identity.get(part), (identity or {}).get(part)
                if got and wanted and got != wanted:
                    raise StoreError(
                        f"{store.path}: extracted with another {what}: checksum {got}, expected {wanted} "
                        f"for {variant.name}; extract the features again, or use the weights they were made with"
                    )
        self.shapes = expected

    def latent_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and std of each latent channel, (C,) float32, over all rows of the stores with video, each once.

        Weights do not count. Without any video, over all stores.

        Raises:
            StoreError: a value that is not finite, or a channel that never varies: nothing could be normalised by it.
        """
        members = [m for m in self.members if m.has_video] or self.members
        stores = list({id(m.store): m.store for m in members}.values())
        pooled = LatentStatistics.pooled(store.latent_statistics() for store in stores)
        if not (pooled.mean.isfinite().all() and pooled.std.isfinite().all() and (pooled.std > 0).all()):
            raise StoreError(
                f"{stores[0].path}: the latents hold values that are not finite, or channels that never vary; "
                "`mmaudio store verify` tells which"
            )
        return pooled.mean.float(), pooled.std.float()

    def empty_text(self) -> Tensor | None:
        """(77, text_dim) features of the empty string, float32, if a store has them."""
        found = (store.text_of("") for store in self.stores)
        return next((features.float() for features in found if features is not None), None)


def row_shapes(variant: "Variant") -> dict[str, tuple[int, int]]:
    """(length, channels) of a row's fields."""
    spec, network = variant.spec, variant.network
    latent = (spec.latent_len, network.latent_dim)
    return {
        "mean": latent, "std": latent, "clip": (spec.clip_len, network.clip_dim),
        "sync": (spec.sync_len, network.sync_dim), "text": (network.text_len, network.text_dim),
    }  # fmt: skip


def _check_alike(one: FeatureStore, other: FeatureStore) -> None:
    remedy = "only stores of the same extractors can be mixed"
    for name, expected in one.shapes.items():
        if (got := other.shapes.get(name, expected)) != expected:
            raise StoreError(
                f"{other.path}: {name} is {_times(got)} per row, that of {one.path} {_times(expected)}; {remedy}"
            )
    if None not in (one.meta.spec, other.meta.spec) and one.meta.spec != other.meta.spec:
        raise StoreError(f"{other.path}: {_difference(other.meta.spec, one.meta.spec, str(one.path))}; {remedy}")
    for part, what in ENCODERS.items():
        got, expected = other.meta.identity.get(part), one.meta.identity.get(part)
        if got and expected and got != expected:
            raise StoreError(
                f"{other.path}: extracted with another {what} than {one.path}: "
                f"checksum {got}, expected {expected}; {remedy}"
            )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _difference(got: SequenceSpec, expected: SequenceSpec, whose: str) -> str:
    odd = [name for name, value in vars(got).items() if value != getattr(expected, name)]
    return ", ".join(f"{name} is {getattr(got, name):g}, {whose} has {getattr(expected, name):g}" for name in odd)
