"""A balancer on loopback, as a Service is one: new connections go to the ready backends in turn, others stay where they are."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

POLL: Final = 0.1
"""Seconds between two looks at whether a backend is ready; a kubelet and the endpoints are slower."""


class Balancer:
    """Passes bytes on to backends, by their ports on 127.0.0.1.

    Attributes:
        port: Where it listens.
        dropped: Ports that did not take a connection, in the order in which they were dropped.
    """

    def __init__(self) -> None:
        self.port = 0
        self.dropped: Final[list[int]] = []
        self._backends: Final[dict[int, Callable[[], bool]]] = {}
        self._turn = 0
        self._loop = asyncio.new_event_loop()
        self._started: Final = threading.Event()
        self._stopped: asyncio.Event
        self._thread: Final = threading.Thread(target=self._run, name="balancer")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    def add(self, port: int, ready: Callable[[], bool]) -> None:
        """Add a backend.

        Args:
            port: Where it listens.
            ready: Tells whether it takes new connections; called in a thread.
        """
        self._backends[port] = ready

    def remove(self, port: int) -> None:
        """Forget a backend."""
        self._backends.pop(port, None)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stopped = asyncio.Event()
        self._ready: dict[int, bool] = {}
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        looks = asyncio.ensure_future(self._look())
        self._started.set()
        await self._stopped.wait()
        looks.cancel()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            for port, ready in list(self._backends.items()):
                try:
                    self._ready[port] = await asyncio.to_thread(ready)
                except (OSError, AssertionError):
                    self._ready[port] = False
            await asyncio.sleep(POLL)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            for _ in range(8):
                ports = [port for port in self._backends if self._ready.get(port)]
                if not ports:
                    return
                self._turn += 1
                port = ports[self._turn % len(ports)]
                try:
                    back, forth = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    # At the first connection that is refused, a dead backend is out.
                    self.dropped.append(port)
                    self._ready[port] = False
                    continue
                with contextlib.closing(forth):
                    await asyncio.gather(_copy(reader, forth), _copy(back, writer))
                return


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    # Each direction ends by itself, as on a real network.
    with contextlib.suppress(OSError, RuntimeError):
        if target.can_write_eof():
            target.write_eof()
