"""Fetching files: resumable, checksummed, and visible under the final name only when whole."""

from __future__ import annotations

import errno
import hashlib
import http.client
import logging
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from mmaudio.weights.files import HUB, WeightError, WeightFile, download_dir, find, remedy_for

log = logging.getLogger(__name__)

RETRY_PAUSE = 1.0  # seconds before the first retry, doubled each time
CHUNK = 1 << 18
RETRY_STATUS = {408, 425, 429, 500, 502, 503, 504}
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EISDIR}


def md5sum(path: str | os.PathLike) -> str:
    """MD5 of a whole file as hexadecimal digits."""
    with open(path, "rb") as source:
        return hashlib.file_digest(source, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def verify(path: str | os.PathLike, file: WeightFile) -> None:
    """Compare with the published checksum, if there is one (never for a converted or renamed precision).

    Raises:
        WeightError: the checksum differs.
    """
    if wrong := _wrong_checksum(path, file):
        raise WeightError(f"{path}: wrong checksum ({wrong}); delete it and download again")


def _wrong_checksum(path: str | os.PathLike, file: WeightFile) -> str | None:
    """What differs: "MD5 got ..., expected ..."; None if nothing does or nothing is published."""
    if file.md5:
        got = md5sum(path)
        return None if got == file.md5 else f"MD5 got {got}, expected {file.md5}"
    if file.sha256:
        with open(path, "rb") as source:
            got = hashlib.file_digest(source, "sha256").hexdigest()
        return None if got.startswith(file.sha256) else f"SHA-256 got {got}, expected {file.sha256}"
    return None


def source_url(file: WeightFile) -> str:
    """The URL that a download uses: `$MMAUDIO_MIRROR/<name>`, or the official one (`$HF_ENDPOINT` honoured).

    Raises:
        WeightError: the file has no URL, or the mirror is not an http(s) address.
    """
    if file.url is None:
        raise WeightError(f"{file.name} cannot be downloaded; {remedy_for(file, download_dir())}")
    if mirror := os.environ.get("MMAUDIO_MIRROR"):
        if not mirror.startswith(("http://", "https://")):
            raise WeightError(f"MMAUDIO_MIRROR={mirror}: expected http(s)://...; a local folder is MMAUDIO_WEIGHTS")
        return f"{mirror.rstrip('/')}/{urllib.parse.quote(file.name)}"
    if file.url.startswith(HUB) and (endpoint := os.environ.get("HF_ENDPOINT")):
        return endpoint.rstrip("/") + file.url.removeprefix(HUB)
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
    if offline and url.startswith((HUB, os.environ.get("HF_ENDPOINT") or HUB)) and not target.exists():
        raise WeightError(f"{file.name}: HF_HUB_OFFLINE forbids the download; {remedy_for(file, folder)}")
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
        if wrong := _wrong_checksum(part, file):
            _discard(part)
            raise WeightError(
                f"{file.name}: {url} sent another file ({wrong}), which was deleted; "
                f"run the same command again, or {remedy_for(file, folder)}"
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
        raise WeightError(f"{file.name} is not on this machine; {remedy_for(file, download_dir(weights_dir))}")
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
                remedy = remedy_for(file, part.parent)
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
    if not etag and not (file.md5 or file.sha256):
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
            f"{file.name}: {url} answered {error.code} {error.reason}; {remedy_for(file, part.parent)}"
        ) from error
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            _discard(part)
            raise ConnectionError("the server sent another range than asked for, starting over")
        if response.headers.get_content_type() == "text/html":
            raise WeightError(
                f"{file.name}: {url} sent a web page instead of the file (a login or proxy page?); "
                f"{remedy_for(file, part.parent)}"
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
