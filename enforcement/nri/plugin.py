"""The plugin: connected to the runtime whenever there is one, registered, served; for ever, until it is asked to stop."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from noisegate.enforcement.nri import nri_pb2 as pb
from noisegate.enforcement.nri.connection import CallError, Connection, connect
from noisegate.enforcement.nri.events import Handler
from noisegate.enforcement.nri.messages import RUNTIME_SERVICE
from noisegate.enforcement.nri.service import NOBODY, Observe, Runtime, Service
from noisegate.enforcement.nri.ttrpc import Answer, Call
from noisegate.service.log import Log
from noisegate.service.stop import Stop

SOCKET: Final = Path("/var/run/nri/nri.sock")
"""Where containerd listens unless its configuration says otherwise."""
NRI_VERSION: Final = "v0.12.3"
"""Of the messages we speak, told to the runtime for its log."""
REGISTERED_SECONDS: Final = 30.0
"""From connecting to the end of Synchronize: the runtime takes plugins one after another, each for 5 + 2 + 2 s at most."""
SHORTEST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
"""Seconds between attempts: a pod that needs us is refused until the next one."""
DRAIN_SECONDS: Final = 2.0
"""For calls under way at a stop: longer than any of them may take."""
STOPPED: Final = "stopped"
TOO_OLD: Final = "before containerd 2.2 (NRI 0.10) a runtime does so because it knows no plugin that validates"


@dataclass(frozen=True, slots=True)
class Status:
    """How the plugin stands with the runtime.

    Attributes:
        connected: Whether it is registered and has been told of everything there is.
        since: When that last changed, seconds since the epoch.
        error: Why it is not connected; empty when it is, or before the first attempt has ended.
        runtime: Whom it is, or was last, connected to.
        connections: How often it has been connected.
        attempts: Attempts since the last connection.
        sandboxes: Told of at the last connection.
        containers: Told of at the last connection.
    """

    connected: bool = False
    since: float = 0.0
    error: str = ""
    runtime: Runtime = NOBODY
    connections: int = 0
    attempts: int = 0
    sandboxes: int = 0
    containers: int = 0


class Plugin:
    """Keeps a handler connected.

    Args:
        handler: Is told of everything.
        log: Where connections, refusals and faults are told.
        socket: The runtime's.
        name: What the runtime calls us; pods name it in their `required-plugins` annotation.
        index: Two digits: plugins are called in this order.
        observe: Is told of every finished call: event, seconds, outcome (`ok`, `refused`, `late`, `failed`).
        changed: Is told of every new status.
        clock: Seconds since the epoch.

    Attributes:
        status: How we stand.
    """

    def __init__(
        self,
        handler: Handler,
        log: Log,
        socket: Path = SOCKET,
        *,
        name: str = "noisegate",
        index: str = "10",
        observe: Observe = lambda _event, _seconds, _outcome: None,
        changed: Callable[[Status], None] = lambda _status: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._handler: Final = handler
        self._log: Final = log
        self._socket: Final = socket
        self._register: Final = pb.RegisterPluginRequest(plugin_name=name, plugin_idx=index, nri_version=NRI_VERSION)
        self._observe: Final = observe
        self._changed: Final = changed
        self._clock: Final = clock
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self.status = Status(since=clock())

    async def run(self, stop: Stop) -> None:
        """Be connected until asked to stop; then answer what is under way, and leave."""
        keeping = asyncio.get_running_loop().create_task(self._keep())
        try:
            await _first(None, keeping, stop.asked.wait())
            if keeping.done():
                keeping.result()
            await _first(DRAIN_SECONDS, self._idle(), stop.insisted.wait())
        finally:
            left = [keeping, *self._tasks]
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=DRAIN_SECONDS)

    async def _keep(self) -> None:
        pauses = backoff()
        while True:
            connections = self.status.connections
            await self._connect()
            if self.status.connections > connections:
                pauses = backoff()
            await asyncio.sleep(next(pauses))

    async def _connect(self) -> None:
        """Connect, and stay for as long as it lasts."""
        service = Service(self._handler, self._log, self._observe, self._spawn)
        connection: Connection | None = None
        error = STOPPED
        try:
            connection = await connect(self._socket, lambda one, call: self._hear(service, one, call))
            await self._registered(connection, service)
            error = await asyncio.shield(connection.closed)
        except CallError as refused:
            error = str(refused)
        except OSError as failed:
            error = f"{self._socket}: {failed.strerror or failed}"
        finally:
            service.close()
            if connection is not None:
                await connection.close()
            self._lost(error)

    async def _registered(self, connection: Connection, service: Service) -> None:
        """Register, and wait until the runtime has told everything.

        Raises:
            CallError: It did not come to that.
        """
        until = asyncio.get_running_loop().time() + REGISTERED_SECONDS
        await connection.call(RUNTIME_SERVICE, "RegisterPlugin", self._register.SerializeToString(), REGISTERED_SECONDS)
        await _first(until - asyncio.get_running_loop().time(), service.synchronized, connection.closed)
        runtime = service.runtime or NOBODY
        if service.synchronized.done():
            sandboxes, containers = service.synchronized.result()
            self._log.info("nri-connected", **runtime._asdict(), sandboxes=sandboxes, containers=containers)
            connections = self.status.connections + 1
            self._change(Status(True, self._clock(), "", runtime, connections, 0, sandboxes, containers))
        elif not connection.closed.done():
            raise CallError(f"the runtime did not synchronize within {REGISTERED_SECONDS:g} s")
        elif service.runtime is not None:
            raise CallError(f"{runtime.name} {runtime.version} closed the connection after Configure; {TOO_OLD}")
        else:
            raise CallError(connection.closed.result())

    def _lost(self, error: str) -> None:
        status = self.status
        if error == STOPPED:
            self._log.info("nri-left")
        elif status.connected:
            self._log.warning("nri-disconnected", error=error)
        elif status.error != error:
            # The same words every few seconds would say nothing new.
            self._log.warning("nri-not-connected", error=error, socket=str(self._socket))
        since = self._clock() if status.connected else status.since
        self._change(replace(status, connected=False, since=since, error=error, attempts=status.attempts + 1))

    def _change(self, status: Status) -> None:
        self.status = status
        self._changed(status)

    def _hear(self, service: Service, connection: Connection, call: Call) -> None:
        heard = service.hear(call)
        if isinstance(heard, Answer):
            connection.answer(heard)
        else:
            self._spawn(_answer(connection, heard))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _idle(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)


def backoff(jitter: Callable[[], float] = random.random) -> Iterator[float]:
    """Yield the seconds to wait before each further attempt, for ever: doubled, capped, and up to half of it by chance."""
    pause = SHORTEST_PAUSE
    while True:
        yield pause * (1 - jitter() / 2)
        pause = min(2 * pause, LONGEST_PAUSE)


async def _answer(connection: Connection, work: Coroutine[Any, Any, Answer]) -> None:
    connection.answer(await work)


async def _first(seconds: float | None, *awaited: Awaitable[object]) -> None:
    """Wait for the first of several, at most for a time; futures among them are left as they are."""
    waits = [asyncio.ensure_future(one) for one in awaited]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one, wait in zip(awaited, waits, strict=True):
            if wait is not one:
                wait.cancel()
