"""Who is let in: those with the token, no page of another site, nothing that fills memory, and nobody who dawdles."""

import asyncio
import base64
import binascii
import hmac
import re
import time

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmaudio.web.uploads import MAX_UPLOAD

OPEN = "/healthz"  # needs no token: whoever watches the process should not have to know one
LOCAL = ("localhost", "127.0.0.1", "[::1]")
MAX_BODY = 2**20  # bytes; what is not listed here is read into memory
UPLOAD = "/gradio_api/upload"  # of the page
LIMITS = {"/v1/generations": None, UPLOAD: MAX_UPLOAD}  # None: it is counted while it is read
PATIENCE = 30.0  # seconds for a client that sends nothing
LONGEST = 900.0  # seconds for a whole body


class Guard:
    """Middleware around everything. A token comes as `Authorization: Bearer`, or as the password of a browser.

    hosts: names by which it may be called; None is any. A name of somebody else that leads here makes his page one of
    this host for browsers (DNS rebinding), so where there is no token the name is all that tells them apart.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: tuple[str, ...] | None):
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        if self.token is not None and scope["path"] != OPEN and not self._knows(headers.get("authorization", "")):
            refusal = refused(401, "the token is missing or wrong")
            refusal.headers.append("WWW-Authenticate", "Bearer")
            refusal.headers.append("WWW-Authenticate", 'Basic realm="mmaudio: the token is the password"')
            return await refusal(scope, receive, send)
        code, detail = self._refusal(headers, scope["path"])
        if code:
            return await refused(code, detail)(scope, receive, send)
        await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """To the app a client that sends its body too slowly has hung up; the client is told so."""
        until, whole, late, answered = time.monotonic() + LONGEST, False, False, False

        async def next_part() -> Message:
            nonlocal whole, late
            if whole:  # what comes now is that it hangs up, and that may take as long as it likes
                return await receive()
            if not late:
                try:
                    message = await asyncio.wait_for(receive(), min(PATIENCE, until - time.monotonic()))
                    whole = not message.get("more_body", False)
                    return message
                except TimeoutError:
                    late = True
            return {"type": "http.disconnect"}

        async def answer(message: Message) -> None:
            nonlocal answered
            if answered or not late:
                answered = True
                await send(message)

        try:
            await self.app(scope, next_part, answer)
        except Exception:
            if not late:  # else it is about the client that has gone
                raise
        if late and not answered:
            await refused(408, "what is sent comes too slowly")(scope, receive, send)

    def _refusal(self, headers: Headers, path: str) -> tuple[int, str]:
        """(status, why) if it is refused, (0, "") if not."""
        origin, host = headers.get("origin"), headers.get("host", "").lower()
        if self.hosts is not None and re.sub(r":\d*$", "", host) not in self.hosts:
            return 421, "this server is called localhost; one with other names needs a --token"
        if origin is not None and foreign(origin, host):
            return 403, "sent by a page of another site"
        limit, length = LIMITS.get(path, MAX_BODY), headers.get("content-length", "0")
        if limit is not None and ("transfer-encoding" in headers or int(length[:20]) > limit):
            return 413, f"too large, or of unknown size: at most {limit:,} bytes are taken"
        return 0, ""

    def _knows(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode(), self.token.encode())


def refused(code: int, detail: str) -> JSONResponse:
    """What is still on its way is not read."""
    return JSONResponse({"detail": detail}, code, {"Connection": "close"})


def own_names(host: str) -> tuple[str, ...]:
    """The names of a server that listens on this machine alone, at `host`."""
    return (*LOCAL, f"[{host}]" if ":" in host else host.lower())


def foreign(origin: str, host: str) -> bool:
    """Whether a browser's page is not from this host (in lower case)."""
    return origin.partition("://")[2].lower() != host
