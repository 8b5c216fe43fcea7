"""The feature store: what training reads instead of media, as memory-mapped tensors in a folder.

    NAME/  meta.json        tensordict's: name, dtype and shape of every tensor; TensorDict.load_memmap reads it
           mean.memmap      (N, L, C) fp16   posterior means of the latents, unnormalised
           std.memmap       (N, L, C) fp16   their standard deviations
           clip.memmap      (N, T, clip_dim) bf16   L2-normalised CLIP frames; only where there is video
           sync.memmap      (N, S, sync_dim) bf16   Synchformer tokens; only where there is video
           text.memmap      (K, 77, text_dim) bf16  L2-normalised CLIP tokens of each distinct caption
           captions.json    the K captions
           rows.tsv         id, row of the tensors and number of the caption (-1: none), N lines in any order
           store.json       variant, sequence spec, checksums of the encoders, statistics of the latents

What belongs together is found by id, never by its place in a list. The reference's own layout, whose table of ids
goes by place, is read as well (`ReferenceStore`).

`open_store` reads either layout, `write_store` writes ours, `verify` reads everything and says what is wrong.
"""

from mmaudio.data.store.layout import FIELDS, FORMAT, FeatureBatch, StoreError, StoreMeta, StoreRow
from mmaudio.data.store.reading import FeatureStore, ReferenceStore, open_store
from mmaudio.data.store.statistics import LatentStatistics
from mmaudio.data.store.verification import verify
from mmaudio.data.store.writing import write_store

__all__ = [
    "FIELDS",
    "FORMAT",
    "FeatureBatch",
    "FeatureStore",
    "LatentStatistics",
    "ReferenceStore",
    "StoreError",
    "StoreMeta",
    "StoreRow",
    "open_store",
    "verify",
    "write_store",
]
