"""The load: raw HTTP/1.1 over TLS keep-alive, requests made beforehand, every answer compared with what it must be.

A closed loop keeps a number of connections busy; an open loop sends at a fixed rate whatever the answers do. Plain
sockets and epoll: an event loop's transports would cost this side more than the server is given to do.
"""

import gc
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from statistics import quantiles
from typing import Final, NamedTuple, Self

from bench.servers import Started

LONGEST_SILENCE: Final = 20.0
"""Seconds without any answer after which a measurement is given up."""
WARM_UP: Final = 0.15
"""Seconds of every measurement that are not counted."""
FEWEST: Final = 100
"""Answers without which percentiles say nothing."""

_READ: Final = 1 << 16
_BUFFER: Final = 1 << 18  # bytes; a request is written in one go
_END: Final = b"\r\n\r\n"


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
        f"POST {path}?timeout=10s HTTP/1.1\r\nHost: noisegate.noisegate-system.svc:443\r\n"
        f"User-Agent: kube-apiserver-admission\r\nContent-Length: {len(body)}\r\nAccept: application/json, */*\r\n"
        "Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
    )
    return head.encode() + body


def closed_loop(server: Started, exchanges: Sequence[Exchange], connections: int, *, seconds: float) -> Measured:
    """Keep `connections` busy for some seconds, each with one request at a time."""
    with _Connections(server, connections) as opened, _no_collections():
        source = cycle(exchanges)
        for connection in opened.all:
            connection.send(next(source))
        _drive(opened, source, WARM_UP, [])
        tally = _Tally(server)
        _drive(opened, source, seconds, tally.latencies)
        measured = tally.measured()
        opened.settle()
    return measured


def open_loop(
    server: Started,
    exchanges: Sequence[Exchange],
    connections: int,
    *,
    rate: int,
    seconds: float,
) -> Measured:
    """Send `rate` requests per second over at most `connections`; one that finds none idle waits, and its wait counts."""
    with _Connections(server, connections) as opened, _no_collections():
        source = cycle(exchanges)
        idle = deque(opened.all)
        waiting: deque[float] = deque()
        tally = _Tally(server)
        total = int(rate * seconds)
        begun = time.perf_counter()
        sent = 0
        while len(tally.latencies) < total:
            now = time.perf_counter()
            while sent < total and sent < (now - begun) * rate:
                waiting.append(begun + sent / rate)
                sent += 1
            while waiting and idle:
                idle.popleft().send(next(source), waiting.popleft())
            for connection in opened.ready(0):
                if connection.receive():
                    tally.latencies.append(connection.latency)
                    idle.append(connection)
        return tally.measured()


def ask(server: Started, requests: Sequence[bytes], connections: int = 8) -> list[bytes]:
    """Return the bodies of the answers to some requests, in their order."""
    answers: list[bytes] = [b""] * len(requests)
    left = iter(enumerate(requests))
    at: dict[_Connection, int] = {}
    with _Connections(server, connections) as opened:
        for connection, (index, each) in zip(opened.all, left, strict=False):
            at[connection] = index
            connection.send(Exchange(each, None))
        while at:
            for connection in opened.ready():
                if connection.receive():
                    answers[at.pop(connection)] = connection.body
                    for index, each in left:
                        at[connection] = index
                        connection.send(Exchange(each, None))
                        break
    return answers


@contextmanager
def idle_connections(server: Started, count: int, exchange: Exchange) -> Iterator[None]:
    """Hold connections open that asked once and then rest."""
    with _Connections(server, count) as opened:
        for connection in opened.all:
            connection.send(exchange)
            while not connection.receive():
                opened.ready()
        yield


class _Tally:
    """Counts answers and their latencies, from now on."""

    def __init__(self, server: Started) -> None:
        self.latencies: list[float] = []
        self._server = server
        self._server_cpu = server.cpu_seconds()
        self._own_cpu = time.process_time()
        self._begun = time.perf_counter()

    def measured(self) -> Measured:
        elapsed = time.perf_counter() - self._begun
        own_cpu = time.process_time() - self._own_cpu
        server_cpu = self._server.cpu_seconds() - self._server_cpu
        count = len(self.latencies)
        if count < FEWEST:
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


class _Connection:
    """One keep-alive connection with at most one request on its way."""

    def __init__(self, server: Started) -> None:
        plain = socket.create_connection(("127.0.0.1", server.port), LONGEST_SILENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self.stream = server.trust.wrap_socket(plain, server_hostname="127.0.0.1")
        self.stream.setblocking(False)
        self.body = b""
        self.busy = False
        self.latency = 0.0
        self._part = b""
        self._expected: bytes | None = None
        self._sent = 0.0

    def send(self, exchange: Exchange, since: float = 0.0) -> None:
        """Send a request; its latency counts from `since`, or from now."""
        self.busy = True
        self._expected = exchange.answer
        self._sent = since or time.perf_counter()
        message = exchange.request
        while True:
            try:
                written = self.stream.write(message)
            except ssl.SSLWantWriteError:
                select.select([], [self.stream], [], LONGEST_SILENCE)
                continue
            if written == len(message):
                return
            message = message[written:]

    def receive(self) -> bool:
        """Take what has come; return whether the answer is there, whole and right."""
        try:
            data = self.stream.read(_READ)
        except ssl.SSLWantReadError:
            return False  # session tickets are records without data
        if not data:
            raise WrongAnswerError("the server closed a connection")
        if self._part:
            data = self._part + data
        end = data.find(_END) + len(_END)
        expected = self._expected
        if end < len(_END) or len(data) < end + (_content_length(data, end) if expected is None else len(expected)):
            self._part = data
            if end >= len(_END) and expected is not None and _content_length(data, end) != len(expected):
                raise _wrong(data, expected)
            return False
        self.latency = time.perf_counter() - self._sent
        self._part = b""
        self.body = data[end:]
        if not data.startswith(b"HTTP/1.1 200 ") or (expected is not None and self.body != expected):
            raise _wrong(data, expected)
        self.busy = False
        return True


class _Connections:
    """Connections to one server, and which of them have something to read."""

    def __init__(self, server: Started, count: int) -> None:
        self._epoll = select.epoll()
        self.all: list[_Connection] = []
        self._at: dict[int, _Connection] = {}
        self._server, self._count = server, count

    def __enter__(self) -> Self:
        for _ in range(self._count):
            connection = _Connection(self._server)
            self.all.append(connection)
            self._at[connection.stream.fileno()] = connection
            self._epoll.register(connection.stream.fileno(), select.EPOLLIN)
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self.all:
            connection.stream.close()
        self._epoll.close()

    def ready(self, timeout: float = LONGEST_SILENCE) -> list[_Connection]:
        """Return the connections that have something to read.

        Raises:
            WrongAnswerError: None has, for as long as a server may be silent.
        """
        at = self._at
        found = [at[number] for number, _ in self._epoll.poll(timeout)]
        if not found and timeout == LONGEST_SILENCE:
            raise WrongAnswerError(f"{self._server.name} was silent for {LONGEST_SILENCE:g} seconds")
        return found

    def settle(self) -> None:
        """Wait for the answers that are still on their way."""
        pending = {connection for connection in self.all if connection.busy}
        while pending:
            pending -= {connection for connection in self.ready() if connection.receive()}


def _drive(opened: _Connections, source: Iterator[Exchange], seconds: float, latencies: list[float]) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for connection in opened.ready():
            if connection.receive():
                latencies.append(connection.latency)
                connection.send(next(source))


def _content_length(data: bytes, end: int) -> int:
    head = data[:end].lower()
    _, found, rest = head.partition(b"\r\ncontent-length:")
    if not found:
        raise WrongAnswerError(f"an answer without Content-Length: {head.decode(errors='replace')}")
    return int(rest.partition(b"\r\n")[0])


def _wrong(data: bytes, expected: bytes | None) -> WrongAnswerError:
    right = "an answer with status 200" if expected is None else expected.decode(errors="replace")[:1500]
    return WrongAnswerError(f"wrong answer: {data[:1500].decode(errors='replace')}\nright: {right}")


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep this process' garbage collector out of the figures."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
