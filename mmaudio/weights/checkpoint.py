"""Reading and writing weights: any known file format into a flat `dict[str, Tensor]`, without running code from it.

Nothing here imports torch before a file is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mmaudio.weights.files import WeightError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CONTAINERS = ("weights", "state_dict", "generator", "model")  # training checkpoint, common habit, BigVGAN, PANNs
BARE_TENSOR = "tensor"  # the key under which read_state returns a file that holds one tensor and no dict
CONFIG_KEY = "mmaudio_config"  # safetensors metadata: the network's configuration as JSON


# ---- reading ------------------------------------------------------------------------------------------------------


def read_state(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read a `.safetensors`, `.pth`, `.pt` or `.bin` file (recognised by content) into a flat state dict on the CPU.

    Tensors are memory-mapped where the format allows. The containers `{"weights": sd}` (training checkpoint),
    `{"state_dict": sd}`, `{"generator": sd}` and `{"model": sd}` are opened; a file of one bare tensor comes back as
    `{"tensor": tensor}`. No code from the file is ever run.

    Raises:
        WeightError: not there, not a weight file, damaged, unsafe, or holding anything but tensors.
    """
    path = Path(path)
    kind = _sniff(path)
    if kind == "safetensors":
        from safetensors.torch import load_file

        with _one_line(path, kind):
            return load_file(path)
    return _unwrap(_read_torch(path, kind), path)


def open_lazily(path: str | os.PathLike) -> dict[str, Callable[[], object]]:
    """Entries of a file of one dict, each with the function that reads it: for many files too large to hold at once.

    The values of a torch file are memory-mapped and may be anything that is no code.

    Raises:
        WeightError: see `read_state`.
    """
    path = Path(path)
    kind = _sniff(path)
    if kind == "safetensors":
        from safetensors import safe_open

        with _one_line(path, kind):
            opened = safe_open(path, framework="pt")
            return {name: partial(opened.get_tensor, name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    content = _read_torch(path, kind)
    if not isinstance(content, Mapping):
        raise WeightError(f"{path}: got {type(content).__name__}, expected a dict")
    return {str(name): partial(lambda value: value, value) for name, value in content.items()}


def _read_torch(path: Path, kind: str) -> object:
    import torch

    with _one_line(path, kind), torch.serialization.safe_globals(_numpy_values()):
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=kind == "zip")


def _numpy_values() -> list:
    """What numbers and arrays of numpy are made by: older checkpoints keep scores and states beside the weights.

    These functions only fill memory with bytes of the file. Files name them by the module of numpy 1 or of numpy 2.
    """
    import numpy as np

    made_by = (np._core.multiarray.scalar, np._core.multiarray._reconstruct)
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    names = [(function, f"{module}.{function.__name__}") for function in made_by for module in modules]
    return [*names, np.ndarray, np.dtype, *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}]


@contextlib.contextmanager
def _one_line(path: Path, kind: str):
    """The readers raise a dozen types on damaged input; all of them mean the same here."""
    try:
        yield
    except Exception as error:
        # torch's own text is not passed on: it advises to switch the protection off
        refused = re.search(r"GLOBAL (\S+)|unrecognized function (.+)", str(error))
        if refused:
            doubt = " (a truncated file of the old format can look like this, too)" if kind == "pickle" else ""
            name = refused[1] or refused[2]
            raise WeightError(f"{path}: unsafe, it asks for {name}, only tensors are loaded{doubt}") from error
        reason = re.search(r"WeightsUnpickler error:\s*(.+)", str(error)) or re.search(r"(.+)", str(error))
        reason = reason[1].strip()[:160] if reason else type(error).__name__
        raise WeightError(
            f"{path}: truncated, damaged or no weight file ({reason}); delete it and download again"
        ) from error


def fingerprint(path: str | os.PathLike) -> str:
    """Checksum of a weight file's content: the same for a `.pth` and what `convert` made of it, another in fp16.

    Keys in sorted order, shapes and float32 values count, read tensor by tensor; about a second per gigabyte.

    Raises:
        WeightError: see `read_state`.
    """
    import torch

    digest, state = hashlib.blake2b(digest_size=16), read_state(path)
    for key in sorted(state):
        tensor = state[key].to(torch.float32).contiguous()
        digest.update(f"{key} {tuple(tensor.shape)}\n".encode())
        digest.update(memoryview(tensor.view(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


def _sniff(path: Path) -> str:
    """Kind of file by its first bytes: "safetensors", "zip" or "pickle" (torch before 1.6)."""
    try:
        with open(path, "rb") as source:
            head = source.read(512)
    except OSError as error:
        raise WeightError(f"{path}: cannot read ({error.strerror})") from error
    again = "delete it and download again"
    if not head:
        raise WeightError(f"{path}: empty file (0 bytes); {again}")
    if head.startswith(b"version https://git-lfs"):
        raise WeightError(f"{path}: a Git LFS pointer, not the file itself; run `git lfs pull`")
    if head.lstrip()[:15].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightError(f"{path}: a web page instead of weights, typical for a failed download; {again}")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000:  # the format's limit on its header
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(b"\x80"):
        return "pickle"
    shown = "text" if not set(head) - set(b"\t\r\n" + bytes(range(32, 127))) else f"starts with {head[:8].hex(' ')}"
    raise WeightError(f"{path}: not a weight file ({shown}), expected safetensors or a torch file")


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    import torch

    if isinstance(content, torch.Tensor):
        return {BARE_TENSOR: content}
    if isinstance(content, Mapping):
        for container in CONTAINERS:
            if isinstance(content.get(container), Mapping):
                content = content[container]
                break
    if not isinstance(content, Mapping) or not content:
        raise WeightError(f"{path}: got {type(content).__name__}, expected a non-empty dict of tensors")
    odd = [f"{k}: {type(v).__name__}" for k, v in content.items() if not isinstance(v, torch.Tensor)]
    if odd:
        raise WeightError(f"{path}: values that are not tensors ({_some(odd)}), expected a plain state dict")
    return {str(key): value.detach() for key, value in content.items()}


def _some(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f", ... {len(names) - limit} more" if len(names) > limit else "")


# ---- loading into a module ----------------------------------------------------------------------------------------


def normalise_weight_norm(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Bring the spellings of weight norm to one: `X.parametrizations.weight.original0/1` -> `X.weight_g/weight_v`.

    The second value is "weight_norm", or "folded" when the file holds plain weights only: call the module's
    `remove_weight_norm()` *before* loading those.
    """
    spelling = re.compile(r"\.parametrizations\.weight\.original([01])$")
    renamed = {spelling.sub(lambda m: (".weight_g", ".weight_v")[int(m[1])], key): t for key, t in state.items()}
    return renamed, "weight_norm" if any(key.endswith(".weight_g") for key in renamed) else "folded"


def load_strict(
    module: torch.nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str | os.PathLike,
    drop: Iterable[str] = (),
    rename: Callable[[str], str | None] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Load `state` into `module`; every key and shape must fit. `source` names the file in messages.

    `drop` lists legacy keys that are ignored if present. `rename` maps a file's key to the module's key, or to None
    for a part that is not wanted. A module on the meta device takes the tensors over, floating ones cast to `dtype`
    (default float32: files may be half precision), without a second copy where nothing is cast; it must build its
    non-persistent buffers afterwards. Any other module keeps its own dtype and device and gets the values.

    Raises:
        WeightError: missing or unexpected keys, or other shapes.
    """
    import torch

    drop = set(drop)
    state = {key: tensor.detach() for key, tensor in state.items() if key not in drop}
    if rename is not None:
        state = {new: tensor for key, tensor in state.items() if (new := rename(key)) is not None}
    wanted = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    shapes = [
        f"{key}: got {tuple(state[key].shape)}, expected {shape}"
        for key, shape in wanted.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    problems = [
        f"{len(found)} {what} ({_some(found)})"
        for what, found in (("keys missing", missing), ("keys unexpected", unexpected), ("other shapes", shapes))
        if found
    ]
    if problems:
        fits = len(wanted) - len(missing) - len(shapes)
        hint = "a checkpoint of another size?" if fits or shapes else "a checkpoint of another kind of model?"
        raise WeightError(f"{source}: does not fit {type(module).__name__}: {'; '.join(problems)}; {hint}")
    on_meta = any(tensor.is_meta for tensor in module.state_dict().values())
    if on_meta:
        dtype = dtype or torch.float32
        state = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    module.load_state_dict(state, strict=True, assign=on_meta)


# ---- writing ------------------------------------------------------------------------------------------------------


def save_safetensors(
    path: str | os.PathLike, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `state` atomically: a reader sees the old file or the whole new one, never half of it.

    Raises:
        WeightError: the disk is full or the folder cannot be written; nothing half-written remains.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path, seen, plain = Path(path), set(), {}
    for key, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        plain[key] = tensor.clone() if storage in seen else tensor  # the format has no shared tensors
        seen.add(storage)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(plain, temporary, metadata=dict(metadata or {}))
        temporary.chmod(mode)  # safetensors makes files private; in a shared folder the user's umask should decide
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())  # or a power cut could leave the final name on an empty file
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        size = sum(tensor.nbytes for tensor in plain.values())
        raise WeightError(f"{path}: cannot write {(size >> 20) + 1} MiB ({error}); make room there") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Metadata of a `.safetensors` file; torch files carry none: `{}`.

    Raises:
        WeightError: not a weight file, or damaged.
    """
    path = Path(path)
    if _sniff(path) != "safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as opened:
            return dict(opened.metadata() or {})
    except SafetensorError as error:
        raise WeightError(f"{path}: truncated or damaged ({error}); delete it and download again") from error


def convert(
    src: str | os.PathLike,
    dst: str | os.PathLike,
    metadata: Mapping[str, str] | None = None,
    *,
    config: Mapping | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Rewrite any readable file as `.safetensors`; `config` is kept as JSON in the metadata, `dtype` casts floats.

    Raises:
        WeightError: see `read_state` and `save_safetensors`.
    """
    state = read_state(src)
    if dtype is not None:
        state = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    merged = {"format": "pt", "source": Path(src).name} | read_metadata(src) | dict(metadata or {})
    if config is not None:
        merged[CONFIG_KEY] = json.dumps(config, sort_keys=True)
    save_safetensors(dst, state, merged)
