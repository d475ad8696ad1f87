"""The plain HTTP port: is the process alive, is it ready and if not why, and its numbers."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web

from noisegate.service.log import http
from noisegate.service.reply import SERVER, refusal

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The text format every Prometheus since 2014 reads."""


class Health:
    """Answers /healthz, /readyz and /metrics.

    Args:
        reasons: Why the server is not ready, a line each; empty when it is.
        notes: What an operator should know though it is ready, a line each.
        numbers: The metrics in Prometheus' text format.
    """

    def __init__(
        self, reasons: Callable[[], Sequence[str]], notes: Callable[[], Sequence[str]], numbers: Callable[[], bytes]
    ) -> None:
        self._reasons: Final = reasons
        self._notes: Final = notes
        self._pages: Final = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics}
        self._numbers: Final = numbers
        self._server: Final = web.Server(self._answer, access_log=None, logger=http, keepalive_timeout=75)
        self._listeners: Final[list[asyncio.Server]] = []

    async def open(self, sockets: Sequence[socket.socket]) -> None:
        """Begin to listen."""
        loop = asyncio.get_running_loop()
        for listener in sockets:
            self._listeners.append(await loop.create_server(self._server, sock=listener))

    async def close(self) -> None:
        """Listen no more, and end what is open."""
        for listener in self._listeners:
            listener.close()
        await self._server.shutdown(1.0)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        page = self._pages.get(request.path)
        if page is None:
            return refusal(404, f"nothing is here; allowed: {', '.join(self._pages)}")
        if request.method not in {"GET", "HEAD"}:
            return refusal(405, f"{request.method} is not allowed here; allowed: GET, HEAD", Allow="GET, HEAD")
        return page()

    def _healthz(self) -> web.Response:
        return refusal(200, "ok")

    def _readyz(self) -> web.Response:
        reasons = self._reasons()
        lines = [*(reasons or ["ready"]), *(f"note: {note}" for note in self._notes())]
        return refusal(503 if reasons else 200, "\n".join(lines))

    def _metrics(self) -> web.Response:
        return web.Response(body=self._numbers(), headers={"Content-Type": CONTENT_TYPE, "Server": SERVER})
