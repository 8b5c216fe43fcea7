"""Who is let in: those with the token, and no page of another site behind a user's back."""

import base64
import binascii
import hmac

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

OPEN = "/healthz"  # needs no token: whoever watches the process should not have to know one
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Middleware around everything. A token comes as `Authorization: Bearer`, or as the password of a browser."""

    def __init__(self, app: ASGIApp, token: str | None):
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if self.token is not None and scope["path"] != OPEN and not self._knows(headers.get("authorization", "")):
                refusal = JSONResponse({"detail": "the token is missing or wrong"}, 401, {"Connection": "close"})
                refusal.headers.append("WWW-Authenticate", "Bearer")
                refusal.headers.append("WWW-Authenticate", 'Basic realm="mmaudio: the token is the password"')
                return await refusal(scope, receive, send)
            origin = headers.get("origin")
            if origin is not None and scope["method"] not in SAFE_METHODS and foreign(origin, headers.get("host", "")):
                refusal = JSONResponse({"detail": "sent by a page of another site"}, 403, {"Connection": "close"})
                return await refusal(scope, receive, send)
        await self.app(scope, receive, send)

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


def foreign(origin: str, host: str) -> bool:
    """Whether a browser's page is not from this host."""
    return origin.partition("://")[2].lower() != host.lower()
