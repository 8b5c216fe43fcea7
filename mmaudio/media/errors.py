"""The one error of this package, and the file handling every part of it shares."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

CHECK = "play it in a player to check, or download it again"


class MediaError(Exception):
    """A media file cannot be read or written. The message is one line: the path, what is wrong, what to do."""


def check_source(path: str | os.PathLike) -> Path:
    """`path` as a Path to a non-empty regular file; MediaError otherwise."""
    path = Path(path)
    if path.is_dir():
        raise MediaError(f"{path}: is a folder, not a media file; give the file itself")
    if not path.exists():
        raise MediaError(f"{path}: there is no such file; check the path")
    if path.is_file() and path.stat().st_size == 0:
        raise MediaError(f"{path}: the file is empty (0 bytes); download or export it again")
    return path


@contextmanager
def media_errors(path: str | os.PathLike, doing: str, remedy: str = CHECK) -> Iterator[None]:
    """Turn FFmpeg's and the system's errors inside the block into a MediaError: "<path>: cannot <doing>: ..."."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"{path}: cannot {doing}: {_reason(error, remedy)}") from error


def _reason(error: Exception, remedy: str) -> str:
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the disk is full; free some space or choose another folder"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "permission denied; choose a file or folder that you may use"
    if isinstance(error, av.InvalidDataError):
        return f"it is damaged, incomplete or not a media file; {CHECK}"
    return f"{describe(error)}; {remedy}"


def describe(error: Exception) -> str:
    """What the library or the system said, on one line and without the file name it adds."""
    return " ".join((getattr(error, "strerror", None) or str(error)).split()) or type(error).__name__


@contextmanager
def atomic_path(dest: Path, overwrite: bool = True) -> Iterator[Path]:
    """A temporary path beside `dest` that becomes `dest` when the block succeeds and is removed when it does not.

    Missing parent folders are created. The temporary name keeps the suffix and starts with a dot, so that neither a
    muxer nor a folder scan takes it for something else.
    """
    if dest.is_dir():
        raise MediaError(f"{dest}: is a folder; give a file name to write to")
    if not overwrite and dest.exists():
        raise MediaError(f"{dest}: exists already; choose another name or allow overwriting")
    with media_errors(dest, "write it", "choose another name or folder"):
        dest.parent.mkdir(parents=True, exist_ok=True)
    temporary = dest.with_name(f".{dest.stem[:80]}.{os.getpid()}-{secrets.token_hex(4)}{dest.suffix}")
    try:
        with media_errors(dest, "write it", "choose another name or folder"):
            yield temporary
            os.replace(temporary, dest)
    finally:
        temporary.unlink(missing_ok=True)  # gone already after a success; also runs on KeyboardInterrupt
