"""Answers on the wire: head and body of an ordinary one in a single write, everything else by aiohttp's `web.Response`."""

from email.utils import formatdate
from typing import Final

from aiohttp import web

JSON: Final = "application/json"
TEXT: Final = "text/plain"
SERVER: Final = "noisegate"
"""`Server:` of every answer: which libraries stand behind it is nobody's business."""


class Heads:
    """The heads of ordinary answers (HTTP/1.1, 200, JSON), made anew once a second because of `Date`."""

    __slots__ = ("closing", "keeping")

    def __init__(self) -> None:
        self.keeping = b""
        """Up to the value of Content-Length; the connection stays open."""
        self.closing = b""
        """The same, and the connection is closed after the answer."""

    def date(self, now: float) -> None:
        """Make the heads for a moment, in seconds since the epoch."""
        start = f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nServer: {SERVER}\r\nDate: {formatdate(now, usegmt=True)}\r\n"
        self.keeping = f"{start}Content-Length: ".encode()
        self.closing = f"{start}Connection: close\r\nContent-Length: ".encode()

    def whole(self, body: bytes, *, close: bool) -> bytes:
        """Return an ordinary answer, head and body."""
        return b"%b%d\r\n\r\n%b" % (self.closing if close else self.keeping, len(body), body)


class Reply(web.StreamResponse):
    """An ordinary answer that is already made, written at once.

    `web.Server` asks of an answer that it can be prepared, ended and asked whether the connection stays; that is all
    there is here.
    """

    def __init__(self, whole: bytes, *, close: bool) -> None:
        self._whole: Final = whole
        self._keep_alive = not close
        self._request: web.BaseRequest

    async def prepare(self, request: web.BaseRequest) -> None:
        """Remember where the answer goes."""
        self._request = request

    async def write_eof(self, data: bytes = b"") -> None:
        """Write everything, and wait while the client is slow to read it."""
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has left before its answer")
        transport.write(self._whole + data)
        await self._request.writer.drain()


def refusal(status: int, sentence: str, *, close: bool = False, **headers: str) -> web.Response:
    """Return an answer that says in one plain sentence why there is no other.

    Args:
        status: HTTP status.
        sentence: What is wrong, what is allowed, and the mend.
        close: Close the connection after it.
        headers: More header fields; `_` in a name stands for `-`.
    """
    fields = {"Server": SERVER} | {name.replace("_", "-"): value for name, value in headers.items()}
    response = web.Response(status=status, text=f"{sentence}\n", content_type=TEXT, headers=fields)
    if close:
        response.force_close()
    return response


def farewell(status: str, sentence: str, now: float) -> bytes:
    """Return an answer for a call that never arrived whole, after which the connection is closed.

    Args:
        status: Code and reason: `408 Request Timeout`.
        sentence: Why.
        now: Seconds since the epoch.
    """
    body = f"{sentence}\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {TEXT}; charset=utf-8\r\nServer: {SERVER}\r\nDate: {formatdate(now, usegmt=True)}\r\n"
    return f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
