"""The admission server: its ports, the files it follows, its beginning and its end.

One process has both ports (`serve`). Of several (`workers.run`), each has the TLS port (`serve`), and their parent has
the health port.
"""

import asyncio
import gc
import socket
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from noisegate.service.binding import bind
from noisegate.service.health import Health
from noisegate.service.log import Log, take_over
from noisegate.service.stop import Stop
from noisegate.service.watch import Outcome, Watch
from noisegate.webhook import tls, workers
from noisegate.webhook.edge import Decide, Edge, Prefetch
from noisegate.webhook.listen import Listener
from noisegate.webhook.metrics import Metrics
from noisegate.webhook.serverconfig import ServerConfig
from noisegate.webhook.workers import Link

__all__ = ["CERTIFICATE", "ENDPOINTS", "Build", "Stop", "Where", "World", "in_loop", "run", "serve", "watched"]

ENDPOINTS: Final = ("mutate", "validate", "warn/mutate", "warn/validate")
CERTIFICATE: Final = "certificate"
"""What the watch of certificate, key and client authorities is called in logs and metrics."""
SWEEP_SECONDS: Final = 0.5
"""Between two looks for connections that take too long: time-outs are this much longer at most."""
_QUIET_SECONDS: Final = 0.5
"""A connection that has been at rest for this long when the server leaves is closed; another may have a call under way."""


class World(Protocol):
    """What decides, and what it depends on. Built once in every process, after the process has begun.

    Attributes:
        decide: Takes the endpoint's name (one of `ENDPOINTS`) and the body of a call. Does not wait; never raises.
        prefetch: Waits until what the body's decision looks up is known; None where nothing is ever waited for.
        watches: The files it follows. They may be loaded already; those that are not are loaded at the start.
    """

    @property
    def decide(self) -> Decide: ...  # noqa: D102
    @property
    def prefetch(self) -> Prefetch | None: ...  # noqa: D102
    @property
    def watches(self) -> Sequence[Watch]: ...  # noqa: D102
    def reasons(self) -> Sequence[str]:
        """Return why nothing can be decided yet, a line each. Called often; never raises."""
        ...

    def notes(self) -> Sequence[str]:
        """Return what an operator should know, a line each. Called often; never raises."""
        ...

    def follow(self, metrics: Metrics, log: Log) -> Coroutine[Any, Any, None] | None:
        """Return what keeps the world up to date while the server runs; None where nothing is needed beside `watches`."""
        ...


Build = Callable[[], World]


class Where(NamedTuple):
    """Where a server listens."""

    port: int
    health_port: int


def run(
    config: ServerConfig, build: Build, *, log: Log | None = None, codes: Sequence[str] = (), version: str = ""
) -> int:
    """Serve until a signal; return the exit status: 0 after an end in good order, 1 after one that was not.

    Args:
        config: How to serve.
        build: Makes the world; called once in every process that decides, before its event loop begins.
        log: Where events are told; default: JSON to stderr.
        codes: Problem codes that can occur.
        version: Of this program, for the metrics.

    Raises:
        OSError: A port cannot be listened on.
        ValueError: The certificate or another file is bad.
        Exception: Whatever `build` raises.
    """
    log = log or Log()
    take_over(log)

    def metrics_of(world: World, folder: str = "") -> Metrics:
        return Metrics(ENDPOINTS, codes, watched(config, world), version, folder)

    if config.processes == 1:
        world = build()
        return in_loop(serve(config, world, metrics=metrics_of(world), log=log))

    def work(config: ServerConfig, link: Link, folder: str) -> int:
        world = build()
        metrics = metrics_of(world, folder)

        async def main() -> int:
            stop = Stop()
            link.obey(stop)
            return await serve(config, world, metrics=metrics, log=log, stop=stop, told=link.tell)

        return in_loop(main())

    return workers.run(config, work, lambda folder: Metrics(ENDPOINTS, codes, (), version, folder), log)


SELDOM: Final = (100_000, 20, 50)
"""Thresholds of the garbage collector. Calls leave no cycles behind: by default it would look through everything that is
remembered a hundred times a second, which costs more than deciding."""


def in_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run a server in uvloop where there is one, which there is on Linux and macOS."""
    # What was built until now stays for good; no collection looks at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SELDOM)
    gc.enable()
    try:
        from uvloop import new_event_loop  # noqa: PLC0415  (absent on Windows)
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)


def watched(config: ServerConfig, world: World) -> list[str]:
    """Return the names of all watches of a server."""
    return [CERTIFICATE] * bool(config.cert) + [watch.what for watch in world.watches]


async def serve(
    config: ServerConfig,
    world: World,
    *,
    metrics: Metrics,
    log: Log,
    stop: Stop | None = None,
    ready: Callable[[Where], None] = lambda _where: None,
    told: Callable[[Sequence[str], Sequence[str]], None] | None = None,
) -> int:
    """Serve until asked to stop; return 0 if every call was finished, 1 if some had to be cut off.

    Args:
        config: How to serve. With `processes` above 1 this is one of several: the port is shared.
        world: What decides.
        metrics: Where calls are counted.
        log: Where events are told.
        stop: The wish to end; default: signals.
        ready: Called when both ports listen.
        told: Takes reasons and notes every time they may have changed; then there is no health port.

    Raises:
        OSError: A port cannot be listened on.
        ValueError: The certificate or another file is bad.
    """
    if stop is None:
        stop = Stop()
        stop.on_signals()
    return await _Service(config, world, metrics=metrics, log=log, stop=stop, told=told).run(ready)


class _Service:
    def __init__(
        self,
        config: ServerConfig,
        world: World,
        *,
        metrics: Metrics,
        log: Log,
        stop: Stop,
        told: Callable[[Sequence[str], Sequence[str]], None] | None,
    ) -> None:
        if config.client_names and not config.client_ca:
            raise ValueError("client_names: names are only known of certificates that are checked; give client_ca too")
        self.config = config
        self.world = world
        self.metrics = metrics
        self.log = log
        self.stop = stop
        self.told = told
        self.edge = Edge(config, world.decide, world.prefetch, metrics, log)
        self.watches = [*self._certificate(), *world.watches]
        self.reasons: list[str] = ["starting"]

    async def run(self, ready: Callable[[Where], None]) -> int:
        for watch in self.watches:
            if not watch.last_success:
                watch.load()
            self.metrics.reload(watch.what, "", watch.last_success, refused=False)
        sockets, health_sockets = self._bind()
        health = Health(self._reasons, self.notes, self._numbers)
        asyncio.get_running_loop().set_exception_handler(self._unexpected)
        try:
            await health.open(health_sockets)
            listener = Listener(self.edge, sockets)
            where = Where(_port(sockets), _port(health_sockets))
            listener.open()
            self.reasons = []
            self._tell()
            self.log.info(
                "serving", address=self.config.binding_address, port=where.port, health_port=where.health_port
            )
            ready(where)
            async with asyncio.TaskGroup() as tasks:
                chores = [tasks.create_task(self._sweep()), tasks.create_task(self._follow())]
                if (live := self.world.follow(self.metrics, self.log)) is not None:
                    chores.append(tasks.create_task(live))
                await self.stop.asked.wait()
                left = await self._leave(listener)
                for chore in chores:
                    chore.cancel()
        finally:
            for listening in (*sockets, *health_sockets):
                listening.close()
            await health.close()
        self.log.info("ended", calls_cut_off=left)
        return 1 if left else 0

    def notes(self) -> list[str]:
        notes = [watch.note for watch in self.watches if watch.note]
        if self.edge.tls is not None and (doubt := self.edge.tls.doubt(time.time())):
            notes.append(doubt)
        return [*notes, *self.world.notes()]

    async def _leave(self, listener: Listener) -> int:
        config, edge, stop = self.config, self.edge, self.stop
        edge.draining = True
        self.metrics.draining.set(1)
        self.reasons = ["draining"]
        self._tell()
        self.log.info("draining", delay_seconds=config.shutdown_delay, drain_seconds=config.drain_seconds)
        await stop.within(config.shutdown_delay)
        listener.close()
        loop = asyncio.get_running_loop()
        end = loop.time() + config.drain_seconds
        while (edge.peers or listener.busy) and loop.time() < end and not stop.insisted.is_set():
            edge.end_idle(_QUIET_SECONDS)
            await stop.within(0.02)
        listener.abort()
        calls = edge.abort()
        # Connections that are cut are gone one turn of the loop later.
        await asyncio.sleep(0)
        return calls

    async def _sweep(self) -> None:
        config = self.config
        limits = (config.header_seconds, config.body_seconds, config.idle_seconds, config.answer_seconds)
        every = min(SWEEP_SECONDS, min(limits) / 4)
        while True:
            await asyncio.sleep(every)
            self.edge.sweep()

    async def _follow(self) -> None:
        doubt = ""
        while True:
            now = self.edge.tls.doubt(time.time()) if self.edge.tls else ""
            if now and now != doubt:
                self.log.warning("certificate", doubt=now)
            doubt = now
            self._tell()
            await asyncio.sleep(self.config.poll_seconds)
            for watch in self.watches:
                self._note(watch, await asyncio.to_thread(watch.check))

    def _note(self, watch: Watch, outcome: Outcome) -> None:
        if outcome.result == "unchanged":
            return
        refused = outcome.result == "refused"
        self.metrics.reload(watch.what, outcome.result, watch.last_success, refused=refused)
        if refused:
            self.log.warning("reload", what=watch.what, result=outcome.result, reason=outcome.reason)
        else:
            self.log.info("reload", what=watch.what, result=outcome.result)

    def _certificate(self) -> list[Watch]:
        config = self.config
        if not config.cert:
            return []

        def put_in_force(contents: Mapping[str, bytes]) -> None:
            secured = tls.read(contents, config.cert, config.key, config.client_ca)
            self.metrics.certificate_expiry.set(secured.expires)
            self.edge.tls = secured

        return [
            Watch(CERTIFICATE, [path for path in (config.cert, config.key, config.client_ca) if path], put_in_force)
        ]

    def _bind(self) -> tuple[list[socket.socket], list[socket.socket]]:
        config = self.config
        sockets = bind(config.binding_address, config.port, shared=config.processes > 1)
        if self.told is not None:
            return sockets, []
        try:
            return sockets, bind(config.health_address, config.health_port)
        except OSError:
            for listener in sockets:
                listener.close()
            raise

    def _reasons(self) -> list[str]:
        return [*self.reasons, *self.world.reasons()]

    def _tell(self) -> None:
        if self.told is not None:
            self.told(self._reasons(), self.notes())

    def _numbers(self) -> bytes:
        self.edge.gauge()
        return self.metrics.text()

    def _unexpected(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.log.fault("unexpected", cause=context.get("exception"), detail=str(context.get("message")))


def _port(sockets: Sequence[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1]) if sockets else 0
