"""Where weight files come from, and how they are read: bundled, local folder, download; safe and strict loading.

The way of one file: `find` looks through the folders of `search_dirs`; `download` fetches what is missing (resumable,
checksummed, visible under its final name only when whole); `read_state` turns any known file format into a flat
`dict[str, Tensor]` without ever running code from it; `load_strict` puts that into a module or says what does not fit.
Every failure is a `WeightError` of one line. Nothing here imports torch before a file is read.

As an attribute, `mmaudio.weights.download` is the function; the module of that name only serves `from` imports.
"""

from mmaudio.weights.checkpoint import (
    BARE_TENSOR,
    CONFIG_KEY,
    CONTAINERS,
    convert,
    fingerprint,
    load_strict,
    normalise_weight_norm,
    open_lazily,
    read_metadata,
    read_state,
    save_safetensors,
)
from mmaudio.weights.download import (
    CHUNK,
    DISK_ERRORS,
    RETRY_PAUSE,
    RETRY_STATUS,
    download,
    fetch,
    md5sum,
    source_url,
    verify,
)
from mmaudio.weights.files import (
    BUNDLED_DIR,
    OFFICIAL,
    SUB_FOLDERS,
    WeightError,
    WeightFile,
    cache_dir,
    download_dir,
    find,
    search_dirs,
)

__all__ = [
    "BARE_TENSOR",
    "BUNDLED_DIR",
    "CHUNK",
    "CONFIG_KEY",
    "CONTAINERS",
    "DISK_ERRORS",
    "OFFICIAL",
    "RETRY_PAUSE",
    "RETRY_STATUS",
    "SUB_FOLDERS",
    "WeightError",
    "WeightFile",
    "cache_dir",
    "convert",
    "download",
    "download_dir",
    "fetch",
    "find",
    "fingerprint",
    "load_strict",
    "md5sum",
    "normalise_weight_norm",
    "open_lazily",
    "read_metadata",
    "read_state",
    "save_safetensors",
    "search_dirs",
    "source_url",
    "verify",
]
