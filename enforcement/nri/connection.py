"""One connection to the runtime: its calls are heard, ours are made. Only bytes and loops; the meaning is elsewhere."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from noisegate.enforcement.nri.mux import PLUGIN, RUNTIME, Demultiplexer, ProtocolError, multiplex
from noisegate.enforcement.nri.ttrpc import Answer, Call, Client, Code, Server

CLOSED_BY_PEER: Final = "the runtime closed the connection"
FLUSH_SECONDS: Final = 1.0


class CallError(Exception):
    """The runtime refused a call of ours, or gave no answer."""


class Connection(asyncio.Protocol):
    """Both ends of ttrpc over one multiplexed socket.

    Args:
        hear: Is given every call of the runtime, in order; each must be answered with `answer`, in any order.

    Attributes:
        closed: Why the connection ended, once it has.
    """

    def __init__(self, hear: Callable[["Connection", Call], None]) -> None:
        self._hear: Final = hear
        self._frames: Final = Demultiplexer()
        self._server: Final = Server()
        self._client: Final = Client()
        self._asked: Final[dict[int, asyncio.Future[Answer]]] = {}
        self._transport: asyncio.Transport | None = None
        self._fault = ""
        self.closed: Final[asyncio.Future[str]] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (the event loop's word; for the type checker)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take apart what arrived; a peer that does not keep to the protocol is left."""
        try:
            for connection, piece in self._frames.feed(data):
                if connection == PLUGIN:
                    for heard in self._server.feed(piece):
                        if isinstance(heard, Call):
                            self._hear(self, heard)
                        else:
                            self.answer(heard)
                elif connection == RUNTIME:
                    for answer in self._client.feed(piece):
                        self._take(answer)
        except ProtocolError as error:
            self._fault = f"the runtime sent {error}"
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._transport = None
        self.closed.set_result(self._fault or (str(exc) if exc else CLOSED_BY_PEER))
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(CallError(self.closed.result()))

    def answer(self, answer: Answer) -> None:
        """Send an answer; when the connection is gone, nobody waits for it."""
        self._send(PLUGIN, self._server.send(answer))

    async def call(self, service: str, method: str, payload: bytes, seconds: float) -> bytes:
        """Call the runtime and return its answer's message.

        Raises:
            CallError: It refused, did not answer in time, or is gone.
        """
        if self._transport is None:
            raise CallError(self.closed.result())
        stream, data = self._client.call(service, method, payload, seconds)
        asked: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[stream] = asked
        self._send(RUNTIME, data)
        try:
            async with asyncio.timeout(seconds):
                answer = await asked
        except TimeoutError:
            raise CallError(f"the runtime did not answer {method} within {seconds:g} s") from None
        finally:
            del self._asked[stream]
        if answer.code != Code.OK:
            raise CallError(f"the runtime refused {method}: {answer.told}")
        return answer.payload

    async def close(self) -> None:
        """Close it once what was sent is written, or at once when the runtime reads nothing."""
        if self._transport is not None:
            self._transport.close()
            await asyncio.wait([self.closed], timeout=FLUSH_SECONDS)
        if self._transport is not None:
            self._transport.abort()

    def _take(self, answer: Answer) -> None:
        asked = self._asked.get(answer.stream)
        if asked is not None and not asked.done():
            asked.set_result(answer)

    def _send(self, connection: int, data: bytes) -> None:
        # Answers are small and each was asked for: what a slow reader lets pile up is bounded by what it asks.
        if self._transport is not None:
            self._transport.write(multiplex(connection, data))


async def connect(path: Path, hear: Callable[[Connection, Call], None]) -> Connection:
    """Connect to the runtime's socket.

    Raises:
        OSError: Nobody listens there.
    """
    _, connection = await asyncio.get_running_loop().create_unix_connection(lambda: Connection(hear), str(path))
    return connection
