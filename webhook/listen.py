"""The TLS port: takes connections, shakes hands, and knows why a handshake failed.

Every connection is accepted here and secured with what `Edge.tls` is at that moment. So a new certificate is used from
the next connection on, whether the client names a server (SNI) or an address, and the listening socket is never closed.
"""

import asyncio
import errno
import socket
import ssl
from typing import Final

from noisegate.webhook.connection import Server
from noisegate.webhook.edge import CLOSING_SECONDS, Edge
from noisegate.webhook.express import Express, Meanings

BACKLOG: Final = 1024
"""Connections that the kernel keeps for us; it cuts this to net.core.somaxconn."""
_AT_ONCE: Final = 64
"""Connections taken before other work gets its turn."""
_OUT_OF_SOMETHING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE_SECONDS: Final = 0.5


class Listener:
    """Takes connections from bound sockets.

    Args:
        edge: What their calls pass.
        sockets: Bound, not blocking.
    """

    def __init__(self, edge: Edge, sockets: list[socket.socket]) -> None:
        self._edge: Final = edge
        self._sockets: Final = sockets
        self._loop: Final = asyncio.get_running_loop()
        self._server: Final = Server(edge)
        self._meanings: Final = Meanings(edge.endpoints, edge.config.max_body_bytes)
        self._welcomes: Final[set[asyncio.Task[None]]] = set()

    @property
    def busy(self) -> bool:
        """Whether handshakes are under way."""
        return bool(self._welcomes)

    def open(self) -> None:
        """Begin to listen."""
        for listener in self._sockets:
            listener.listen(BACKLOG)
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def close(self) -> None:
        """Take what the kernel still keeps for us, then listen no more."""
        for listener in self._sockets:
            self._loop.remove_reader(listener.fileno())
            while self._accept(listener) == _AT_ONCE:
                pass
            listener.close()
        self._sockets.clear()

    def abort(self) -> None:
        """Give up the handshakes that are under way."""
        for task in self._welcomes:
            task.cancel()

    def _accept(self, listener: socket.socket) -> int:
        for taken in range(_AT_ONCE):
            try:
                connection, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return taken
            except OSError as error:
                if error.errno in _OUT_OF_SOMETHING:
                    self._pause(listener, error)
                    return taken
                # The client has gone between its connect and our accept (ECONNABORTED and its kin).
                continue
            self._take(connection, str(address[0]))
        return _AT_ONCE

    def _take(self, connection: socket.socket, address: str) -> None:
        if not self._edge.connections.take(address):
            connection.close()
            self._edge.metrics.refused["connections"]()
            most = self._edge.config.max_connections
            self._edge.log.limited(
                "refused", reason="connections", client=address, detail=f"{most} connections are open"
            )
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._welcome(connection, address))
        self._welcomes.add(task)
        task.add_done_callback(self._welcomes.discard)

    def _pause(self, listener: socket.socket, error: OSError) -> None:
        self._edge.log.limited("accept-failed", error=str(error))
        self._loop.remove_reader(listener.fileno())

        def go_on() -> None:
            if listener.fileno() >= 0:
                self._loop.add_reader(listener.fileno(), self._accept, listener)

        self._loop.call_later(_PAUSE_SECONDS, go_on)

    async def _welcome(self, connection: socket.socket, address: str) -> None:
        edge = self._edge
        secured = edge.tls

        def protocol() -> Express:
            return Express(edge, self._meanings, self._server.heir, address, secured)

        try:
            if secured is None:
                await self._loop.connect_accepted_socket(protocol, connection)
            else:
                await self._loop.connect_accepted_socket(
                    protocol,
                    connection,
                    ssl=secured.context,
                    ssl_handshake_timeout=edge.config.handshake_seconds,
                    ssl_shutdown_timeout=CLOSING_SECONDS,
                )
        except (OSError, asyncio.CancelledError) as error:
            connection.close()
            edge.connections.give_back(address)
            reason = failure(error)
            edge.metrics.handshakes[reason]()
            edge.log.limited("handshake-failed", reason=reason, client=address, detail=str(error))
            if isinstance(error, asyncio.CancelledError):
                raise


def failure(error: BaseException) -> str:
    """Name why a handshake failed: one of `metrics.HANDSHAKE_FAILURES`."""
    if isinstance(error, ssl.SSLError):
        return "certificate" if "CERTIFICATE" in (error.reason or "") else "protocol"
    # asyncio gives up a slow handshake with ConnectionAbortedError; a client that left shows as ConnectionResetError.
    return "time-out" if isinstance(error, ConnectionAbortedError) else "closed"
