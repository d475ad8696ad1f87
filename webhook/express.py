"""The short way: ordinary calls, which is nearly all there are.

A head that is byte for byte one that was seen before means what it meant before: the API server sends the same few over
and over. aiohttp's parser says once what a head means; after that it costs a look-up. The answer is written in the
callback that brought the call's last byte, so that a client that has closed its own side by then gets it too. At the
first thing that is not ordinary (a large or chunked body, HTTP/1.0, another method, a damaged head) the connection is
handed to aiohttp's `web.Server`, bytes and all, for the rest of its life.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple, cast

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError

from noisegate.service.reply import JSON
from noisegate.webhook.edge import Edge, Peer
from noisegate.webhook.metrics import Endpoint
from noisegate.webhook.tls import Tls

SMALL_BODY: Final = 64 << 10
"""Bytes of the largest body that takes the short way. Reviews of pods are 5 to 40 KB."""
KNOWN_HEADS: Final = 1024
"""Heads that are remembered. They differ in Content-Length, and between API servers."""


class Ordinary(NamedTuple):
    """What the head of an ordinary call says."""

    endpoint: Endpoint
    length: int


class Express(asyncio.Protocol):
    """The short way.

    Args:
        edge: What every call passes.
        meanings: What is known of heads; shared by all connections.
        heir: Makes the protocol that takes over what is not ordinary.
        address: IP address of the other end.
        secured: What the connection is secured with.
    """

    def __init__(
        self,
        edge: Edge,
        meanings: "Meanings",
        heir: Callable[[Peer], asyncio.Protocol],
        address: str,
        secured: Tls | None,
    ) -> None:
        self._edge: Final = edge
        self._meanings: Final = meanings
        self._heir: Final = heir
        self._address: Final = address
        self._secured: Final = secured
        self._transport: asyncio.Transport
        self._peer: Peer
        self._call: Ordinary | None = None
        self._missing = 0
        self._parts: list[bytes] = []
        self._began = 0.0
        self._held = False
        self._paused = False
        self._kept = b""
        self._waiting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take up the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._peer = self._edge.welcome(self._transport, self._address, self._secured)
        if self._peer.refused:
            self._hand_over(b"")

    def data_received(self, data: bytes) -> None:
        """Take bytes, and answer the calls they complete."""
        if self._kept:
            data, self._kept = self._kept + data, b""
        while data:
            if self._paused or self._waiting is not None:
                self._kept = data
                return
            if self._call is not None:
                data = self._more(data)
                continue
            end = data.find(b"\r\n\r\n") + 4
            call = self._meanings.ordinary(data[:end]) if end > 3 else None
            if call is None:
                self._hand_over(data)
                return
            whole = end + call.length
            if len(data) < whole:
                if not self._take():
                    self._hand_over(data)
                    return
                self._call = call
                self._began = time.perf_counter()
                self._missing = whole - len(data)
                self._parts.append(data[end:])
                self._edge.await_(self._peer, "body")
                return
            if not self._decide(call, data[end:whole], time.perf_counter()):
                self._hand_over(data)
                return
            data = data[whole:] if len(data) > whole else b""

    def connection_lost(self, _exc: Exception | None) -> None:
        """Let go."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._give_back()
        self._edge.goodbye(self._peer)

    def pause_writing(self) -> None:
        """Take no more calls from a client that does not take its answers."""
        self._paused = True
        self._edge.await_(self._peer, "reader")
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._paused = False
        self._edge.rest(self._peer)
        self._transport.resume_reading()
        self.data_received(b"")

    def _more(self, data: bytes) -> bytes:
        """Take more of a body; return what comes after it."""
        if len(data) < self._missing:
            self._missing -= len(data)
            self._parts.append(data)
            return b""
        self._parts.append(data[: self._missing])
        rest = data[self._missing :]
        call, body = cast("Ordinary", self._call), b"".join(self._parts)
        self._call = None
        self._parts = []
        self._decide(call, body, self._began)
        return rest

    def _decide(self, call: Ordinary, body: bytes, began: float) -> bool:
        """Answer a call, now or when its look-ups are done; return False if there is no place to wait for them."""
        wait = self._edge.look_up(body)
        if wait is None:
            self._give_back()
            self._answer(call, body, began)
            return True
        if not (self._held or self._take()):
            if asyncio.iscoroutine(wait):
                wait.close()
            return False
        self._transport.pause_reading()
        self._waiting = asyncio.get_running_loop().create_task(self._answer_later(wait, call, body, began))
        return True

    async def _answer_later(self, wait: Awaitable[None], call: Ordinary, body: bytes, began: float) -> None:
        await self._edge.looked_up(self._peer, wait)
        self._waiting = None
        self._give_back()
        self._answer(call, body, began)
        if not (self._paused or self._transport.is_closing()):
            self._transport.resume_reading()
            self.data_received(b"")

    def _take(self) -> bool:
        self._held = self._edge.calls.take(self._peer.client)
        return self._held

    def _give_back(self) -> None:
        if self._held:
            self._held = False
            self._edge.calls.give_back(self._peer.client)

    def _answer(self, call: Ordinary, body: bytes, began: float) -> None:
        if self._transport.is_closing():
            return
        edge, peer = self._edge, self._peer
        answer = edge.decide(call.endpoint, body, began)
        close = edge.last_answer(peer)
        edge.rest(peer)
        self._transport.write(edge.written(answer, close=close))
        if close:
            edge.close(peer)

    def _hand_over(self, data: bytes) -> None:
        heir = self._heir(self._peer)
        self._transport.set_protocol(heir)
        heir.connection_made(self._transport)
        if data:
            heir.data_received(data)


class Meanings:
    """What the heads of ordinary calls mean, as aiohttp's parser reads them.

    Args:
        endpoints: By path.
        most: Bytes of the largest body allowed.
    """

    def __init__(self, endpoints: Mapping[str, Endpoint], most: int) -> None:
        self._endpoints: Final = endpoints
        self._most: Final = min(SMALL_BODY, most)
        self._known: Final[dict[bytes, Ordinary]] = {}
        self._running: Final = asyncio.get_running_loop()
        self._nobody: Final = BaseProtocol(self._running)

    def ordinary(self, head: bytes) -> Ordinary | None:
        """Return what a head means if it is that of an ordinary call, else None."""
        known = self._known.get(head)
        if known is None:
            known = self._meaning(head)
            if known is not None:
                if len(self._known) >= KNOWN_HEADS:
                    self._known.clear()
                self._known[head] = known
        return known

    def _meaning(self, head: bytes) -> Ordinary | None:
        parser = HttpRequestParser(self._nobody, self._running, SMALL_BODY, auto_decompress=False)
        try:
            messages, upgraded, _tail = parser.feed_data(head)
        except HttpProcessingError:
            return None
        if len(messages) != 1 or upgraded:
            return None
        message, payload = messages[0]
        headers = message.headers
        endpoint = self._endpoints.get(message.path.partition("?")[0])
        length = headers.get("Content-Length", "")
        if endpoint is None:
            return None
        ordinary = (
            message.method == "POST"
            and message.version == HttpVersion11
            and not (message.should_close or message.chunked or message.upgrade or message.compression)
            and not payload.is_eof()
            and not payload.total_bytes
            and "Expect" not in headers
            and "Content-Encoding" not in headers
            and headers.get("Content-Type", "").partition(";")[0].strip().lower() == JSON
            and length.isdecimal()
            and 0 < int(length) <= self._most
        )
        return Ordinary(endpoint, int(length)) if ordinary else None
