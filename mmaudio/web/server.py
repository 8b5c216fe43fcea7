"""uvicorn with patience of our measure: for slow clients, and for what is running when it is stopped."""

import asyncio
import socket

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from mmaudio.web.jobs import Engine

HEAD_PATIENCE = 30.0  # seconds for the head of a request
PARTING = 3  # seconds for connections that stay open after the last job
MAX_CONNECTIONS = 500


class ImpatientProtocol(H11Protocol):
    """Hangs up on clients that do not get done with the head of their request."""

    waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self._expect_request()

    def connection_lost(self, exc) -> None:
        super().connection_lost(exc)
        self.waiting.cancel()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect_request()

    def _expect_request(self) -> None:
        if self.waiting is not None:
            self.waiting.cancel()
        self.waiting = self.loop.call_later(HEAD_PATIENCE, self._hang_up)

    def _hang_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class Server(uvicorn.Server):
    """Serves until a signal; then the engine finishes or hands back what it has, while results can still be fetched."""

    def __init__(self, app: FastAPI, engine: Engine):
        self.engine = engine
        config = uvicorn.Config(
            app, http=ImpatientProtocol, ws="none", log_level="warning", access_log=False,
            server_header=False, limit_concurrency=MAX_CONNECTIONS, timeout_graceful_shutdown=PARTING,
        )  # fmt: skip
        super().__init__(config)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.to_thread(self.engine.close)
        await super().shutdown(sockets)
