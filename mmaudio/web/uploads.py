"""A form that somebody sends, read as it comes: files go to disk under names of ours, and there is a limit to all."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import HTTPException, Request, status
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

FILES = ("video", "image")  # the names of parts
OPTIONS = "options"
MAX_UPLOAD = 512 * 2**20  # bytes of a whole form
MAX_OPTIONS = 64 * 2**10  # bytes


@dataclass
class Form:
    files: dict[str, Path] = field(default_factory=dict)  # by the name of their part
    options: bytes = b""


def refusal(code: int, detail: str) -> HTTPException:
    """What is still on its way is not read."""
    return HTTPException(code, detail, {"Connection": "close"})


@contextlib.asynccontextmanager
async def received(request: Request, folder: Path) -> AsyncIterator[Form]:
    """The form of a request; its files are in `folder` until the end of the block.

    Raises:
        HTTPException: 415 no multipart form, 413 too large, 400 the client has gone, 422 other parts or not whole.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not parameters.get(b"boundary"):
        raise refusal(status.HTTP_415_UNSUPPORTED_MEDIA_TYPE, "send a form as multipart/form-data")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > MAX_UPLOAD:
        raise too_large(MAX_UPLOAD)
    reader = _Reader(folder)
    try:
        await _read(request, reader, parameters[b"boundary"])
        yield reader.form
    finally:
        reader.close()
        for path in reader.form.files.values():
            path.unlink(missing_ok=True)


def too_large(limit: int) -> HTTPException:
    return refusal(status.HTTP_413_CONTENT_TOO_LARGE, f"too large: at most {limit:,} bytes are taken")


async def _read(request: Request, reader: "_Reader", boundary: bytes) -> None:
    total = 0
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        async for chunk in request.stream():  # slow ones are the guard's business
            total += len(chunk)
            if total > MAX_UPLOAD:
                raise too_large(MAX_UPLOAD)
            await asyncio.to_thread(parser.write, chunk)
    except ClientDisconnect as error:
        raise refusal(status.HTTP_400_BAD_REQUEST, "the form ends early") from error
    except FormParserError as error:
        raise refusal(status.HTTP_422_UNPROCESSABLE_CONTENT, "the form is not multipart/form-data") from error
    if not reader.whole:
        raise refusal(status.HTTP_422_UNPROCESSABLE_CONTENT, "the form ends early")


class _Reader:
    """Follows the parser; of a part only its name is used, and only if it is one of ours."""

    def __init__(self, folder: Path):
        self.folder, self.form, self.whole = folder, Form(), False
        self._header, self._disposition, self._seen, self._file = b"", b"", set(), None

    def callbacks(self) -> dict:
        return {
            "on_part_begin": self.begin,
            "on_header_begin": self.header_begin,
            "on_header_field": self.header_field,
            "on_header_value": self.header_value,
            "on_headers_finished": self.headers_finished,
            "on_part_data": self.data,
            "on_part_end": self.close,
            "on_end": self.end,
        }

    def begin(self) -> None:
        self._disposition = b""

    def header_begin(self) -> None:
        self._header = b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end].lower()

    def header_value(self, data: bytes, start: int, end: int) -> None:
        if self._header == b"content-disposition":
            self._disposition += data[start:end]

    def headers_finished(self) -> None:
        name = parse_options_header(self._disposition)[1].get(b"name", b"").decode(errors="replace")
        if name not in (*FILES, OPTIONS) or name in self._seen:
            expected = ", ".join((*FILES, OPTIONS))
            raise refusal(status.HTTP_422_UNPROCESSABLE_CONTENT, f"the parts of the form are {expected}, each once")
        self._seen.add(name)
        if name in FILES:
            self.form.files[name] = self.folder / secrets.token_hex(16)
            self._file = self.form.files[name].open("xb")

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
        else:
            self.form.options += data[start:end]
            if len(self.form.options) > MAX_OPTIONS:
                raise too_large(MAX_OPTIONS)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def end(self) -> None:
        self.whole = True
