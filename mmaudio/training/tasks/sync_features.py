"""Features of pictures that feature stores hold: what a frozen visual half has seen it need not look at again."""

from collections.abc import Sequence

from torch import Tensor

from mmaudio.data.clips import Row
from mmaudio.data.preparation import ClipError
from mmaudio.data.store import open_store
from mmaudio.features.synchformer import SynchformerVisual
from mmaudio.training.config import DataEntry

LARGEST_DIFFERENCE = 0.1  # of features made now and stored in half precision, relative


class StoredFeatures:
    """Finds a clip's visual features by its id.

    Raises:
        StoreError: a store cannot be used.
        ValueError: it has no pictures.
    """

    def __init__(self, paths: Sequence[str], tokens: int):
        self.tokens, self.stores = tokens, [open_store(path) for path in paths]
        self.places: dict[str, tuple[int, int]] = {}  # id -> store, row
        for number, store in enumerate(self.stores):
            if not store.has_video:
                raise ValueError(f"{store.path}: has no features of pictures; leave store out for these clips")
            for row, name in enumerate(store.ids):
                self.places.setdefault(name, (number, row))

    def __call__(self, row: Row) -> Tensor:
        """(S, 8, D) float32.

        Raises:
            ClipError: they are in none of the stores.
        """
        if row.id not in self.places:
            raise ClipError(f"{row.path}: clip {row.id} is in no store of the data entries; extract its features")
        number, index = self.places[row.id]
        return self.stores[number].tensors["sync"][index].float().unflatten(0, (-1, self.tokens))

    def check(self, visual: SynchformerVisual, row: Row, frames: Tensor) -> None:
        """Raises ValueError unless this visual half makes the same of a clip's frames (T, 3, H, W)."""
        made, stored = visual.encode(frames[None])[0], self(row).flatten(0, 1)
        if made.shape != stored.shape or (made - stored).norm() > LARGEST_DIFFERENCE * stored.norm():
            path = self.stores[self.places[row.id][0]].path
            raise ValueError(f"{path}: another visual half made it (of clip {row.id}); extract the features again")


def stored_features(entries: list[DataEntry], tokens: int) -> StoredFeatures | None:
    """Of the entries that name a store beside their manifest; None if none does.

    Raises:
        ValueError: only some do.
    """
    paths = [entry.store for entry in entries if entry.store is not None]
    if paths and len(paths) < len(entries):
        raise ValueError("a batch holds frames or their features: give a store to all data entries, or to none")
    return StoredFeatures(paths, tokens) if paths else None
