"""The load: raw HTTP/1.1 over TLS keep-alive, requests made beforehand, every answer compared with what it must be.

A closed loop keeps a number of connections busy; an open loop sends at a fixed rate whatever the answers do.
"""

import asyncio
import gc
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from statistics import quantiles
from typing import Final, NamedTuple

from bench.servers import Started

LONGEST_ANSWER: Final = 20.0
"""Seconds without any answer after which a measurement is given up."""
WARM_UP: Final = 0.15
"""Seconds of every measurement that are not counted."""


class WrongAnswerError(AssertionError):
    """A server answered with something else than it must: figures of wrong answers are worth nothing."""


class Exchange(NamedTuple):
    """A request as it goes over the wire, and the body of the only right answer (None: not known yet)."""

    request: bytes
    answer: bytes | None


class Measured(NamedTuple):
    """One measurement.

    Attributes:
        rate: Answers per second.
        p50: Milliseconds within which half of the answers came.
        p99: Milliseconds within which 99 of 100 came.
        server_micros: CPU time of the server per answer, in microseconds.
        load_micros: CPU time of this process per answer, in microseconds: 10^6 by it is the most this load can drive.
        answers: Number of answers counted.
    """

    rate: float
    p50: float
    p99: float
    server_micros: float
    load_micros: float
    answers: int


def request(path: str, body: bytes) -> bytes:
    """Return a request with the head that an API server writes."""
    head = (
        f"POST {path}?timeout=10s HTTP/1.1\r\nHost: noisegate.noisegate-system.svc:443\r\nUser-Agent: kube-apiserver-admission\r\n"
        f"Content-Length: {len(body)}\r\nAccept: application/json, */*\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
    )
    return head.encode() + body


async def closed_loop(server: Started, trust: ssl.SSLContext, exchanges: Sequence[Exchange], connections: int, seconds: float) -> Measured:
    """Keep `connections` busy for some seconds, each with one request at a time."""
    async with _connected(server, trust, connections) as opened:
        source = cycle(exchanges)
        tally = _Tally(server)
        for connection in opened:
            connection.on_idle = lambda idle: idle.send(next(source))
            connection.tally = tally
            connection.send(next(source))
        await _watch(opened, WARM_UP)
        with _no_collections():
            tally.begin()
            await _watch(opened, seconds)
            measured = tally.end()
        await _settle(opened)
    return measured


async def open_loop(server: Started, trust: ssl.SSLContext, exchanges: Sequence[Exchange], connections: int, rate: int, seconds: float) -> Measured:
    """Send `rate` requests per second over at most `connections`; one that finds none idle waits, and its wait counts."""
    async with _connected(server, trust, connections) as opened:
        source = cycle(exchanges)
        tally = _Tally(server)
        idle = deque(opened)
        waiting: deque[float] = deque()

        def on_idle(connection: _Connection) -> None:
            if waiting:
                connection.send(next(source), waiting.popleft())
            else:
                idle.append(connection)

        for connection in opened:
            connection.on_idle = on_idle
            connection.tally = tally
        with _no_collections():
            tally.begin()
            await _arrive(rate, seconds, source, idle, waiting)
            while waiting or len(idle) < len(opened):
                _raise_fault(opened)
                await asyncio.sleep(0.005)
                if time.perf_counter() - tally.latest > LONGEST_ANSWER:
                    raise WrongAnswerError(f"{server.name} gave no answer for {LONGEST_ANSWER} seconds")
            return tally.end()


async def ask(server: Started, trust: ssl.SSLContext, requests: Sequence[bytes], connections: int = 8) -> list[bytes]:
    """Return the bodies of the answers to some requests, in their order."""
    answers: list[bytes] = [b""] * len(requests)
    async with _connected(server, trust, connections) as opened:
        left = iter(enumerate(requests))
        at: dict[_Connection, int] = {}
        done = asyncio.get_running_loop().create_future()
        pending = len(requests)

        def next_one(connection: _Connection) -> None:
            nonlocal pending
            if connection in at:
                answers[at.pop(connection)] = connection.body
                pending -= 1
                if not pending and not done.done():
                    done.set_result(None)
            for index, each in left:
                at[connection] = index
                connection.send(Exchange(each, None))
                return

        for connection in opened:
            connection.on_idle = next_one
            connection.on_fault = lambda: None if done.done() else done.set_result(None)
            next_one(connection)
        async with asyncio.timeout(LONGEST_ANSWER + len(requests) / 100):
            await done
        _raise_fault(opened)
    return answers


@asynccontextmanager
async def idle_connections(server: Started, trust: ssl.SSLContext, count: int, exchange: Exchange) -> AsyncIterator[None]:
    """Hold connections open that asked once and then rest."""
    async with _connected(server, trust, count) as opened:
        for connection in opened:
            connection.on_idle = lambda _: None
            connection.send(exchange)
        await _settle(opened)
        yield
        _raise_fault(opened)


class _Tally:
    """Counts answers and their latencies."""

    def __init__(self, server: Started) -> None:
        self.latencies: list[float] = []
        self.latest = time.perf_counter()
        self._server = server

    def begin(self) -> None:
        self.latencies.clear()
        self._server_cpu = self._server.cpu_seconds()
        self._own_cpu = time.process_time()
        self._begun = self.latest = time.perf_counter()

    def end(self) -> Measured:
        elapsed = time.perf_counter() - self._begun
        own_cpu = time.process_time() - self._own_cpu
        server_cpu = self._server.cpu_seconds() - self._server_cpu
        count = len(self.latencies)
        if count < 100:
            raise WrongAnswerError(f"{self._server.name} gave only {count} answers in {elapsed:.1f} seconds")
        percentiles = quantiles(self.latencies, n=100)
        return Measured(
            rate=count / elapsed,
            p50=percentiles[49] * 1e3,
            p99=percentiles[98] * 1e3,
            server_micros=server_cpu / count * 1e6,
            load_micros=own_cpu / count * 1e6,
            answers=count,
        )


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on its way."""

    on_idle: "Callable[[_Connection], None]"
    tally: _Tally | None = None

    def __init__(self) -> None:
        self.body = b""
        self.busy = False
        self.closing = False
        self.fault: Exception | None = None
        self.on_fault: Callable[[], None] = lambda: None
        self._part = b""
        self._expected: bytes | None = None
        self._sent = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def send(self, exchange: Exchange, since: float = 0.0) -> None:
        """Send a request; its latency counts from `since`, or from now."""
        if self.closing:
            return
        self.busy = True
        self._expected = exchange.answer
        self._sent = since or time.perf_counter()
        self._transport.write(exchange.request)

    def data_received(self, data: bytes) -> None:
        if self._part:
            data = self._part + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._part = data
            return
        expected = self._expected
        length = _content_length(data, end) if expected is None else len(expected)
        if len(data) < end + 4 + length:
            self._part = data
            if expected is not None and _content_length(data, end) != length:
                self._fail(data)
            return
        self._part = b""
        now = time.perf_counter()
        body = data[end + 4 :]
        if not data.startswith(b"HTTP/1.1 200 ") or (body != expected if expected is not None else len(body) != length):
            self._fail(data)
            return
        self.busy = False
        self.body = body
        tally = self.tally
        if tally is not None:
            tally.latencies.append(now - self._sent)
            tally.latest = now
        self.on_idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closing:
            self.fault = self.fault or WrongAnswerError(f"the server closed a connection: {exc}")
            self.on_fault()

    def close(self) -> None:
        self.closing = True
        self._transport.abort()

    def _fail(self, data: bytes) -> None:
        expected = "an answer with status 200" if self._expected is None else self._expected.decode(errors="replace")[:1000]
        self.fault = WrongAnswerError(f"wrong answer: {data[:1500].decode(errors='replace')}\nright: {expected}")
        self.close()
        self.on_fault()


def _content_length(data: bytes, end: int) -> int:
    head = data[:end].lower()
    start = head.find(b"\r\ncontent-length:")
    if start < 0:
        raise WrongAnswerError(f"an answer without Content-Length: {head.decode(errors='replace')}")
    return int(head[start + 17 :].split(b"\r\n", 1)[0])


@asynccontextmanager
async def _connected(server: Started, trust: ssl.SSLContext, count: int) -> AsyncIterator[list[_Connection]]:
    loop = asyncio.get_running_loop()
    opened: list[_Connection] = []
    try:
        while len(opened) < count:
            # As many as any server's backlog takes.
            step = min(32, count - len(opened))
            dialled = await asyncio.gather(
                *(loop.create_connection(_Connection, "127.0.0.1", server.port, ssl=trust) for _ in range(step))
            )
            opened += [connection for _, connection in dialled]
        yield opened
    finally:
        for connection in opened:
            connection.close()
        await asyncio.sleep(0.01)


async def _watch(opened: Sequence[_Connection], seconds: float) -> None:
    until = time.perf_counter() + seconds
    while (left := until - time.perf_counter()) > 0:
        await asyncio.sleep(min(left, 0.25))
        _raise_fault(opened)


async def _settle(opened: Sequence[_Connection]) -> None:
    """Wait for the answers that are still on their way."""
    for connection in opened:
        connection.on_idle = lambda _: None
    until = time.perf_counter() + LONGEST_ANSWER
    while any(connection.busy for connection in opened):
        _raise_fault(opened)
        if time.perf_counter() > until:
            raise WrongAnswerError(f"an answer did not come within {LONGEST_ANSWER} seconds")
        await asyncio.sleep(0.001)
    _raise_fault(opened)


async def _arrive(
    rate: int, seconds: float, source: Iterator[Exchange], idle: "deque[_Connection]", waiting: deque[float]
) -> None:
    begun = time.perf_counter()
    sent = 0
    while sent < rate * seconds:
        now = time.perf_counter()
        # uvloop's timers have a resolution of 1 ms: a late arrival counts from when it was noticed, its wait in full.
        while sent < (now - begun) * rate:
            sent += 1
            if idle:
                idle.popleft().send(next(source))
            else:
                waiting.append(now)
        await asyncio.sleep(0.001)


def _raise_fault(opened: Sequence[_Connection]) -> None:
    for connection in opened:
        if connection.fault is not None:
            raise connection.fault


class _no_collections:  # noqa: N801  (reads as a statement)
    """Keep this process' garbage collector out of the figures."""

    def __enter__(self) -> None:
        gc.collect()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        gc.enable()
