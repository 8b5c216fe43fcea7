"""Serves a study over HTTP: pages, the answers that come back, and the videos in ranges so that players can seek.

Nothing that a client sends becomes part of a path: media are looked up by id. There are no scripts and no requests to
other hosts, and every page forbids them.
"""

import os
import re
import sys
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from urllib.parse import parse_qs

from mmaudio.study import pages
from mmaudio.study.answers import AnswersError
from mmaudio.study.methods import PLAYABLE, StudyError
from mmaudio.study.sheets import Study

COOKIE = "participant"
KEPT = 180 * 86_400  # seconds that a browser remembers its participant
MAX_FORM = 2**16  # bytes
MAX_FIELDS = 1000
PATIENCE = 30  # seconds for a client that sends or takes nothing
CHUNK = 2**18
MEDIA = re.compile(r"/media/([0-9a-f]{32})")
PARTICIPANT = re.compile(r"/p/([A-Za-z0-9_-]{22})")
RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; media-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the address of a page is its participant's key
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class StudyServer(ThreadingHTTPServer):
    """Bound at once; `serve_forever` serves. Raises OSError if the address cannot be had."""

    daemon_threads = True

    def __init__(self, study: Study, host: str, port: int):
        self.study = study
        super().__init__((host, port), Handler)

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # browsers hang up on videos all the time
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "mmaudio", ""
    timeout = PATIENCE
    server: StudyServer

    def do_GET(self) -> None:
        study, path = self.server.study, self.path.partition("?")[0]
        answers = study.answers
        try:
            if path == "/":
                self._page(pages.welcome(study, self._remembered()))
            elif path == "/study.css":
                self._send(HTTPStatus.OK, files(__package__).joinpath("study.css").read_bytes(), "text/css")
            elif (found := MEDIA.fullmatch(path)) and found[1] in study.media:
                self._media(study.media[found[1]])
            elif (found := PARTICIPANT.fullmatch(path)) and answers.knows(found[1]):
                sheet, ask = study.sheet(found[1]), pages.comparison if study.pairs else pages.questionnaire
                self._page(ask(sheet) if sheet else pages.thanks(study))
            else:
                self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")
        except AnswersError:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "The answers cannot be read now; try again later.")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        form, study, path = self._form(), self.server.study, self.path
        if form is None:
            return
        try:
            if path == "/begin":
                token = study.answers.begin()
                cookie = f"{COOKIE}={token}; Path=/; Max-Age={KEPT}; HttpOnly; SameSite=Strict"
                self._send(HTTPStatus.SEE_OTHER, b"", Location=f"/p/{token}", Set_Cookie=cookie)
            elif (found := PARTICIPANT.fullmatch(path)) and study.answers.knows(found[1]):
                study.record(found[1], form)
                self._send(HTTPStatus.SEE_OTHER, b"", Location=path)
            else:
                self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")
        except AnswersError:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "The answers cannot be kept now; try again later.")
        except StudyError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))

    def _form(self) -> dict[str, list[str]] | None:
        """The fields that were sent; None if they were refused."""
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not re.fullmatch("[0-9]{1,18}", length):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "The length of the form is missing.")
        elif int(length) > MAX_FORM:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The form is too large.")
        else:
            try:
                return parse_qs(self.rfile.read(int(length)).decode(), max_num_fields=MAX_FIELDS)
            except ValueError:
                self._refuse(HTTPStatus.BAD_REQUEST, "The form cannot be read.")
        return None

    def _remembered(self) -> str | None:
        try:
            morsel = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            return None
        known = morsel and PARTICIPANT.fullmatch(f"/p/{morsel.value}") and self.server.study.answers.knows(morsel.value)
        return morsel.value if known else None

    def _media(self, path: Path) -> None:
        try:
            file = path.open("rb")
        except OSError:
            return self._refuse(HTTPStatus.NOT_FOUND, "This video is not there any more.")
        with file:
            size = os.fstat(file.fileno()).st_size
            part = byte_range(self.headers.get("Range"), size)
            if part is None:
                return self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "", Content_Range=f"bytes */{size}")
            begin, end = part
            whole = (begin, end) == (0, size)
            headers = {} if whole else {"Content_Range": f"bytes {begin}-{end - 1}/{size}"}
            self._head(
                HTTPStatus.OK if whole else HTTPStatus.PARTIAL_CONTENT, PLAYABLE[path.suffix.lower()], end - begin,
                Accept_Ranges="bytes", **headers,
            )  # fmt: skip
            file.seek(begin)
            while self.command != "HEAD" and begin < end and (chunk := file.read(min(CHUNK, end - begin))):
                self.wfile.write(chunk)
                begin += len(chunk)
            self.close_connection = self.close_connection or begin < end  # the file became shorter

    def _page(self, text: str) -> None:
        self._send(HTTPStatus.OK, text.encode())

    def _refuse(self, status: HTTPStatus, text: str, **headers: str) -> None:
        self.close_connection = True  # what the client still sends is not read
        self._send(status, pages.refusal(text).encode(), Connection="close", **headers)

    def _send(self, status: HTTPStatus, body: bytes, kind: str = "text/html", **headers: str) -> None:
        self._head(status, f"{kind}; charset=utf-8", len(body), **headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: HTTPStatus, kind: str, length: int, **headers: str) -> None:
        self.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(length), **named}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args) -> None:
        """Silent: who took part when is nobody's business, and the answers say it all."""


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The half-open range of bytes that a Range header asks for; None if there are no such bytes.

    What is no single range of bytes is ignored, as the standard wants: that is the whole file.
    """
    found = RANGE.fullmatch(header or "")
    if not found or found[0] == "bytes=-":
        return 0, size
    first, last = found.groups()
    if not first:
        begin, end = max(0, size - int(last)), size
    else:
        begin, end = int(first), min(size, int(last) + 1) if last else size
    return (begin, end) if begin < end else None
