"""Answers on the wire: head and body of an ordinary one in a single write, everything else by aiohttp's `web.Response`."""

from email.utils import formatdate
from http import HTTPStatus
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
        start = (
            f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nServer: {SERVER}\r\nDate: {formatdate(now, usegmt=True)}\r\n"
        )
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


def response(status: int, body: bytes, *, close: bool, **headers: str) -> web.Response:
    """Return an answer made by aiohttp, for HTTP/1.0 and whatever else is not ordinary: JSON with 200, else plain text.

    Args:
        status: HTTP status.
        body: AdmissionReview or sentence.
        close: Close the connection after it.
        headers: More header fields; `_` in a name stands for `-`.
    """
    fields = {"Server": SERVER} | {name.replace("_", "-"): value for name, value in headers.items()}
    kind, charset = (JSON, None) if status == 200 else (TEXT, "utf-8")
    made = web.Response(status=status, body=body, content_type=kind, charset=charset, headers=fields)
    if close:
        made.force_close()
        # Told also where it goes without saying: aiohttp answers what it cannot parse in HTTP/1.0.
        made.headers["Connection"] = "close"
    return made


def refusal(status: int, sentence: str, *, close: bool = False, **headers: str) -> web.Response:
    """Return an answer that says in one plain sentence why there is no other: `response` with a line of text."""
    return response(status, f"{sentence}\n".encode("utf-8", "backslashreplace"), close=close, **headers)


def plain(status: int, body: bytes, now: float, *, close: bool) -> bytes:
    """Return an answer in plain text, head and body.

    Args:
        status: HTTP status.
        body: One sentence.
        now: Seconds since the epoch.
        close: The connection is closed after it.
    """
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"Content-Type: {TEXT}; charset=utf-8",
        f"Server: {SERVER}",
        f"Date: {formatdate(now, usegmt=True)}",
        f"Content-Length: {len(body)}",
    ]
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "\r\n"]).encode() + body
