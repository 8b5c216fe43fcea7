"""Where weight files come from, and how they are read: bundled, local folder, download; safe and strict loading.

The way of one file: `find` looks through the folders of `search_dirs`; `download` fetches what is missing (resumable,
checksummed, visible under its final name only when whole); `read_state` turns any known file format into a flat
`dict[str, Tensor]` without ever running code from it; `load_strict` puts that into a module or says what does not fit.
Every failure is a `WeightError` of one line. Nothing here imports torch before a file is read.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger(__name__)

BUNDLED_DIR = Path(__file__).parent / "bundled"
SUB_FOLDERS = ("", "weights", "ext_weights")  # the official layout keeps networks and codecs apart
CONTAINERS = ("weights", "state_dict", "generator")  # training checkpoint, common habit, BigVGAN
BARE_TENSOR = "tensor"  # the key under which read_state returns a file that holds one tensor and no dict
CONFIG_KEY = "mmaudio_config"  # safetensors metadata: the network's configuration as JSON
RETRY_PAUSE = 1.0  # seconds before the first retry, doubled each time
CHUNK = 1 << 18
RETRY_STATUS = {408, 425, 429, 500, 502, 503, 504}
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EISDIR}


class WeightError(Exception):
    """A weight file is missing, damaged, unsafe or of another shape. One line: file, got, expected, remedy."""


@dataclass(frozen=True)
class WeightFile:
    """One file that a variant needs, and every name under which people keep it."""

    name: str  # final name in a weights folder
    url: str | None  # None: comes with the package
    md5: str | None = None
    size: str | None = None  # as published or computed from the parameter count: "601M", powers of 1024
    licence: str = ""
    aliases: tuple[str, ...] = ()  # other relative paths with the same tensors; only looked for, never written
    hub_repos: tuple[str, ...] = ()  # repositories (a renamed one has two) whose local cache may hold it
    hub_file: str | None = None

    @property
    def approx_bytes(self) -> int | None:
        """`size` as a number; it is rounded, so good for a plausibility check only."""
        if self.size is None:
            return None
        return int(float(self.size[:-1]) * 1024 ** ("BKMG".index(self.size[-1])))

    @property
    def local_names(self) -> tuple[str, ...]:
        """Names to look for, best first: a converted file loads faster than the official one."""
        return (str(Path(self.name).with_suffix(".safetensors")), self.name, *self.aliases)


# ---- the official files -------------------------------------------------------------------------------------------

_HUB = "https://huggingface.co"
_MMAUDIO_HUB = "hkchengrex/MMAudio"
_RELEASE = "https://github.com/hkchengrex/MMAudio/releases/download/v0.1"
_BY_NC = "CC-BY-NC-4.0 (checkpoint licence stated by the authors)"


def _network(name: str, md5: str, size: str) -> WeightFile:
    stem, hub_file = name.removesuffix(".pth"), f"weights/{name}"
    return WeightFile(
        name, f"{_HUB}/{_MMAUDIO_HUB}/resolve/main/{hub_file}", md5, size, _BY_NC,
        aliases=(f"{stem}_fp32.safetensors", f"{stem}_fp16.safetensors"),
        hub_repos=(_MMAUDIO_HUB,), hub_file=hub_file,
    )  # fmt: skip


def _external(name: str, md5: str | None, size: str, licence: str) -> WeightFile:
    return WeightFile(
        name, f"{_RELEASE}/{name}", md5, size, licence, hub_repos=(_MMAUDIO_HUB,), hub_file=f"ext_weights/{name}"
    )


OFFICIAL: dict[str, WeightFile] = {
    file.name: file
    for file in (
        _network("mmaudio_small_16k.pth", "af93cde404179f58e3919ac085b8033b", "601M"),
        _network("mmaudio_small_44k.pth", "babd74c884783d13701ea2820a5f5b6d", "601M"),
        _network("mmaudio_medium_44k.pth", "5a56b6665e45a1e65ada534defa903d0", "2.4G"),
        _network("mmaudio_large_44k.pth", "fed96c325a6785b85ce75ae1aafd2673", "3.9G"),
        _network("mmaudio_large_44k_v2.pth", "01ad4464f049b2d7efdaa4c1a59b8dfe", "3.9G"),
        _external("v1-16.pth", "69f56803f59a549a1a507c93859fd4d7", "655M", _BY_NC),
        _external("v1-44.pth", "fab020275fa44c6589820ce025191600", "1.2G", _BY_NC),
        _external(
            "best_netG.pt", "eeaf372a38a9c31c362120aba2dde292", "429M",
            "redistributed from Make-An-Audio 2; licence of the original weights not stated in the MMAudio docs",
        ),
        _external(
            "synchformer_state_dict.pth", "5b2f5594b0730f70e41e549b7c94390c", "907M",
            "from Synchformer (MIT code); redistributed with the release",
        ),
        _external("empty_string.pth", None, "308K", _BY_NC),  # one tensor (1, 77, 1024); training only
        WeightFile(
            "bigvgan_v2_44khz_128band_512x.pt",
            f"{_HUB}/nvidia/bigvgan_v2_44khz_128band_512x/resolve/main/bigvgan_generator.pt",
            None, "466M", "MIT",
            aliases=("bigvgan_v2_44khz_128band_512x/bigvgan_generator.pt", "bigvgan_generator.pt"),
            hub_repos=("nvidia/bigvgan_v2_44khz_128band_512x",), hub_file="bigvgan_generator.pt",
        ),
        WeightFile(
            "DFN5B-CLIP-ViT-H-14-384.bin",
            f"{_HUB}/apple/DFN5B-CLIP-ViT-H-14-384/resolve/main/open_clip_pytorch_model.bin",
            None, "3.7G", "apple-sample-code-license (per its model page)",
            aliases=tuple(f"DFN5B-CLIP-ViT-H-14-{n}/open_clip_pytorch_model.bin" for n in (384, 378)),
            # the repository was renamed to -378; caches from before and after carry different names
            hub_repos=("apple/DFN5B-CLIP-ViT-H-14-384", "apple/DFN5B-CLIP-ViT-H-14-378"),
            hub_file="open_clip_pytorch_model.bin",
        ),
    )
}  # fmt: skip


# ---- finding ------------------------------------------------------------------------------------------------------


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/mmaudio`, else `~/.cache/mmaudio`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mmaudio"


def download_dir(weights_dir: str | os.PathLike | None = None) -> Path:
    """Where a download goes: the given folder, else `$MMAUDIO_WEIGHTS`, else the cache."""
    chosen = weights_dir or os.environ.get("MMAUDIO_WEIGHTS")
    return Path(chosen).expanduser() if chosen else cache_dir()


def search_dirs(weights_dir: str | os.PathLike | None = None) -> list[Path]:
    """Folders in the order in which they win: given, bundled, `$MMAUDIO_WEIGHTS`, cache.

    A folder that somebody names explicitly comes before the bundled one, so that one's own training of a bundled
    variant can take its place.
    """
    given = [Path(weights_dir).expanduser()] if weights_dir else []
    return list(dict.fromkeys([*given, BUNDLED_DIR, download_dir(), cache_dir()]))


def find(file: WeightFile, weights_dir: str | os.PathLike | None = None) -> Path | None:
    """The first local copy of `file`, or None. Files already in the Hugging Face cache count, too, as the last resort.

    Nothing is hashed here (seconds per gigabyte): `verify` does that, and `read_state` notices a damaged file.
    """
    for folder in search_dirs(weights_dir):
        for sub_folder in SUB_FOLDERS:
            for name in file.local_names:
                path = folder / sub_folder / name
                if path.is_file():
                    return path
    if file.hub_repos and file.hub_file:
        from huggingface_hub import try_to_load_from_cache

        for repo in file.hub_repos:
            cached = try_to_load_from_cache(repo, file.hub_file)
            if isinstance(cached, str):  # else None, or a marker for "known not to exist"
                return Path(cached)
    return None


def _remedy(file: WeightFile, folder: Path) -> str:
    if file.url is None:
        return f"it comes with the package: reinstall mmaudio, or put the file into {folder}"
    return f"download {file.url} ({file.size or 'size unknown'}) and save it as {(folder / file.name).absolute()}"


# ---- downloading --------------------------------------------------------------------------------------------------


def md5sum(path: str | os.PathLike) -> str:
    """MD5 of a whole file as hexadecimal digits."""
    with open(path, "rb") as source:
        return hashlib.file_digest(source, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def verify(path: str | os.PathLike, file: WeightFile) -> None:
    """Compare with the published checksum, if there is one (never for a converted or renamed precision).

    Raises:
        WeightError: the checksum differs.
    """
    if file.md5 and (got := md5sum(path)) != file.md5:
        raise WeightError(f"{path}: wrong checksum (MD5 got {got}, expected {file.md5}); delete it and download again")


def source_url(file: WeightFile) -> str:
    """The URL that a download uses: `$MMAUDIO_MIRROR/<name>`, or the official one (`$HF_ENDPOINT` honoured).

    Raises:
        WeightError: the file has no URL, or the mirror is not an http(s) address.
    """
    if file.url is None:
        raise WeightError(f"{file.name} cannot be downloaded; {_remedy(file, download_dir())}")
    if mirror := os.environ.get("MMAUDIO_MIRROR"):
        if not mirror.startswith(("http://", "https://")):
            raise WeightError(f"MMAUDIO_MIRROR={mirror}: expected http(s)://...; a local folder is MMAUDIO_WEIGHTS")
        return f"{mirror.rstrip('/')}/{urllib.parse.quote(file.name)}"
    if file.url.startswith(_HUB) and (endpoint := os.environ.get("HF_ENDPOINT")):
        return endpoint.rstrip("/") + file.url.removeprefix(_HUB)
    return file.url


def download(
    file: WeightFile,
    dest_dir: str | os.PathLike | None = None,
    *,
    progress: bool = True,
    retries: int = 5,
    timeout: float = 30.0,
) -> Path:
    """Fetch `file` into `dest_dir` (default: `download_dir()`); a complete one that is there is checked and returned.

    Bytes collect in `<name>.part`, which survives interruptions and is continued by the next call; the final name
    appears only for the whole, checked file. Two processes may ask for the same file: the second waits for the first.
    `retries` counts attempts in a row that bring nothing new; `timeout` is for one answer of the network, not the file.

    Raises:
        WeightError: no connection, refused by the server, interrupted too often, wrong size or checksum, disk full.
    """
    from filelock import FileLock, Timeout

    folder = download_dir(dest_dir)
    target, part = folder / file.name, folder / f"{file.name}.part"
    url = source_url(file)
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    if offline and url.startswith((_HUB, os.environ.get("HF_ENDPOINT") or _HUB)) and not target.exists():
        raise WeightError(f"{file.name}: HF_HUB_OFFLINE forbids the download; {_remedy(file, folder)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{file.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("another process is downloading %s into %s: waiting for it", file.name, folder)
            lock.acquire()
    except OSError as error:
        raise WeightError(f"{folder}: cannot write here ({error.strerror or error}); choose another folder") from error
    try:
        if target.exists():
            verify(target, file)
            return target
        log.info("%s: licence %s", file.name, file.licence)
        _collect(file, url, part, progress, retries, timeout)
        if file.md5 and (got := md5sum(part)) != file.md5:
            _discard(part)
            raise WeightError(
                f"{file.name}: {url} sent another file (MD5 got {got}, expected {file.md5}), which was deleted; "
                f"run the same command again, or {_remedy(file, folder)}"
            )
        os.replace(part, target)
        _discard(part)
    finally:
        lock.release()
    return target


_download = download  # `fetch` has an argument of that name


def fetch(file: WeightFile, weights_dir: str | os.PathLike | None = None, download: bool = True) -> Path:
    """Find `file`, or download it into `download_dir(weights_dir)`.

    Raises:
        WeightError: not on this machine, and either `download` is False or the download failed.
    """
    path = find(file, weights_dir)
    if path is not None:
        return path
    if not download or file.url is None:
        raise WeightError(f"{file.name} is not on this machine; {_remedy(file, download_dir(weights_dir))}")
    return _download(file, download_dir(weights_dir))


def _collect(file: WeightFile, url: str, part: Path, progress: bool, retries: int, timeout: float) -> None:
    """Repeat `_receive` until `part` is whole."""
    failures, began = 0, _size(part)
    furthest = began
    while True:
        try:
            return _receive(file, url, part, progress, timeout)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise WeightError(
                    f"{part}: cannot write ({error.strerror}) after {_size(part)} bytes; {file.name} needs "
                    f"{file.size or 'more space'}: make room in {part.parent}, then run the same command again"
                ) from error
            have, reason = _size(part), getattr(error, "reason", None) or error
            refused = isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError)
            if refused and have == began:  # offline from the start: waiting will not help
                remedy = _remedy(file, part.parent)
                raise WeightError(f"{file.name}: cannot reach {url} ({reason}); {remedy}") from error
            failures = 0 if have > furthest else failures + 1
            furthest = max(furthest, have)
            if failures > retries:
                raise WeightError(
                    f"{file.name}: {url} broke off {failures} times in a row ({reason}); {have} bytes are kept in "
                    f"{part}: run the same command again to resume"
                ) from error
            time.sleep(RETRY_PAUSE * 2**failures)


def _receive(file: WeightFile, url: str, part: Path, progress: bool, timeout: float) -> None:
    """One connection: continue `part` where it ends. Network trouble leaves as OSError or HTTPException."""
    from tqdm import tqdm

    start, etag_file = _size(part), _etag_file(part)
    etag = etag_file.read_text() if etag_file.exists() else ""
    if not etag and not file.md5:
        start = 0  # nothing could prove that the two halves belong to the same file
    headers = {"User-Agent": "mmaudio"}
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": etag} if etag else {})
    try:  # a fresh opener each time: urllib's default one remembers the proxies of its first use
        opener = urllib.request.build_opener()
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after `start`: whole already, or longer than the file
            if error.headers.get("Content-Range", "").endswith(f"/{start}"):
                return
            _discard(part)
            raise ConnectionError("the partial file did not fit, starting over") from error
        if error.code in RETRY_STATUS:
            raise
        raise WeightError(
            f"{file.name}: {url} answered {error.code} {error.reason}; {_remedy(file, part.parent)}"
        ) from error
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            _discard(part)
            raise ConnectionError("the server sent another range than asked for, starting over")
        if response.headers.get_content_type() == "text/html":
            raise WeightError(
                f"{file.name}: {url} sent a web page instead of the file (a login or proxy page?); "
                f"{_remedy(file, part.parent)}"
            )
        start = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        _check_plausible(file, url, total)
        _check_space(file, part, start, total)
        if not resumed:
            part.unlink(missing_ok=True)  # before the new tag is written, or an interruption here could mix two files
            new_tag = response.headers.get("ETag", "")
            etag_file.write_text("" if new_tag.startswith("W/") else new_tag)
        bar = tqdm(
            desc=file.name, initial=start, total=total, unit="B", unit_scale=True, unit_divisor=1024,
            disable=None if progress else True,
        )  # fmt: skip
        with bar, open(part, "ab") as out:
            while chunk := response.read(CHUNK):
                out.write(chunk)
                bar.update(len(chunk))
    got = _size(part)
    if total is not None and got < total:
        raise ConnectionError(f"connection closed after {got} of {total} bytes")
    _check_plausible(file, url, got)


def _check_plausible(file: WeightFile, url: str, got: int | None) -> None:
    expected = file.approx_bytes
    if expected and got is not None and not expected / 2 < got < expected * 2:
        raise WeightError(f"{file.name}: {url} offers {got} bytes, expected about {file.size}: this is another file")


def _check_space(file: WeightFile, part: Path, start: int, total: int | None) -> None:
    needed = (total or file.approx_bytes or 0) - start
    free = shutil.disk_usage(part.parent).free + (_size(part) if start == 0 else 0)  # a restart frees the old part
    if needed > free:
        raise WeightError(
            f"{file.name}: {needed >> 20} MiB more needed in {part.parent}, {free >> 20} MiB free; "
            "make room or choose another folder"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _etag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _etag_file(part).unlink(missing_ok=True)


# ---- reading ------------------------------------------------------------------------------------------------------


def read_state(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read a `.safetensors`, `.pth`, `.pt` or `.bin` file (recognised by content) into a flat state dict on the CPU.

    Tensors are memory-mapped where the format allows. The containers `{"weights": sd}` (training checkpoint),
    `{"state_dict": sd}` and `{"generator": sd}` are opened; a file of one bare tensor comes back as
    `{"tensor": tensor}`. No code from the file is ever run.

    Raises:
        WeightError: not there, not a weight file, damaged, unsafe, or holding anything but tensors.
    """
    import torch

    path = Path(path)
    kind = _sniff(path)
    try:
        if kind == "safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=kind == "zip")
    except Exception as error:  # the readers raise a dozen types on damaged input; all of them mean the same here
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
    return _unwrap(content, path)


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
