"""Who is let in: those with the token, no page of another site behind a user's back, and nothing that fills memory."""

import base64
import binascii
import hmac
import re

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mmaudio.web.uploads import MAX_UPLOAD

OPEN = "/healthz"  # needs no token: whoever watches the process should not have to know one
LOCAL = ("localhost", "127.0.0.1", "[::1]")
MAX_BODY = 2**20  # bytes; what is not listed here is read into memory
LIMITS = {"/v1/generations": None, "/gradio_api/upload": MAX_UPLOAD}  # None: it is counted while it is read


class Guard:
    """Middleware around everything. A token comes as `Authorization: Bearer`, or as the password of a browser.

    hosts: names by which it may be called; None is any. A name of somebody else that leads here makes his page one of
    this host for browsers (DNS rebinding), so where there is no token the name is all that tells them apart.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: tuple[str, ...] | None):
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if self.token is not None and scope["path"] != OPEN and not self._knows(headers.get("authorization", "")):
                refusal = JSONResponse({"detail": "the token is missing or wrong"}, 401, {"Connection": "close"})
                refusal.headers.append("WWW-Authenticate", "Bearer")
                refusal.headers.append("WWW-Authenticate", 'Basic realm="mmaudio: the token is the password"')
                return await refusal(scope, receive, send)
            code, detail = self._refusal(headers, scope["path"])
            if code:
                return await JSONResponse({"detail": detail}, code, {"Connection": "close"})(scope, receive, send)
        await self.app(scope, receive, send)

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


def own_names(host: str) -> tuple[str, ...]:
    """The names of a server that listens on this machine alone, at `host`."""
    return (*LOCAL, f"[{host}]" if ":" in host else host.lower())


def foreign(origin: str, host: str) -> bool:
    """Whether a browser's page is not from this host (in lower case)."""
    return origin.partition("://")[2].lower() != host
