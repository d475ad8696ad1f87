"""A server in a thread of this process, and clients that speak to it byte by byte."""

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
import trustme

from noisegate.service.log import Log
from noisegate.service.watch import Watch
from noisegate.webhook import server
from noisegate.webhook.edge import Prefetch
from noisegate.webhook.metrics import Metrics
from noisegate.webhook.review import Answer
from noisegate.webhook.server import Stop, Where
from noisegate.webhook.serverconfig import ServerConfig

SECONDS = 10.0
"""Until a test gives up waiting for something that must happen."""


def allow(endpoint: str, body: bytes) -> Answer:
    """Decide as the smallest webhook would: everything is allowed, the uid comes back."""
    try:
        uid = msgspec.json.decode(body)["request"]["uid"]
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
        return Answer(400, b"no AdmissionReview\n", "refused")
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": uid, "allowed": True}}
    return Answer(200, msgspec.json.encode(review), "allowed")


def review(uid: str = "u-1", size: int = 0) -> bytes:
    """Return an AdmissionReview of exactly `size` bytes, or as small as it gets."""
    body = json.dumps({"request": {"uid": uid, "padding": ""}}).encode()
    padding = b"x" * max(0, size - len(body))
    return body.replace(b'"padding": ""', b'"padding": "' + padding + b'"')


def call(body: bytes, path: str = "/mutate?timeout=10s", **headers: str) -> bytes:
    """Return a call as the API server writes it. Headers with the value `-` are left out."""
    fields = {
        "Host": "noisegate.test.svc",
        "User-Agent": "kube-apiserver-admission",
        "Content-Length": str(len(body)),
        "Accept": "application/json, */*",
        "Content-Type": "application/json",
        "Accept-Encoding": "gzip",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value != "-"]
    return "\r\n".join([f"POST {path} HTTP/1.1", *lines, "", ""]).encode() + body


@dataclass
class World:
    """A world of a test's own."""

    decide: Callable[[str, bytes], Answer] = allow
    prefetch: Prefetch | None = None
    watches: Sequence[Watch] = ()
    told: list[str] = field(default_factory=list)

    def reasons(self) -> list[str]:
        """Return nothing: it can always decide."""
        return []

    def notes(self) -> list[str]:
        """Return what the test wants noted."""
        return self.told

    def follow(self, _metrics: Metrics, _log: Log) -> None:
        """Follow nothing."""


class Gate:
    """Look-ups that last until the gate opens."""

    def __init__(self) -> None:
        self._waiting = threading.Semaphore(0)
        self._opened = threading.Event()
        self._lock = threading.Lock()
        self._waits: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def prefetch(self, _body: bytes) -> None:
        """Wait at the gate."""
        event = asyncio.Event()
        with self._lock:
            self._waits.append((asyncio.get_running_loop(), event))
            opened = self._opened.is_set()
        self._waiting.release()
        if not opened:
            await event.wait()

    def reached(self, calls: int) -> None:
        """Wait until so many more calls have come to the gate."""
        for _ in range(calls):
            assert self._waiting.acquire(timeout=SECONDS)

    def open(self) -> None:
        """Let everybody through, now and from now on."""
        with self._lock:
            self._opened.set()
            for loop, event in self._waits:
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(event.set)
            self._waits.clear()


class Response(NamedTuple):
    """An answer: status, header fields in lower case, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def uid(self) -> str:
        """The uid of the review."""
        return str(json.loads(self.body)["response"]["uid"])


class Wire:
    """A client's connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def receive(self) -> Response:
        """Read one answer; raise EOFError if the connection ends before its end."""
        head = self._until(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        pairs = [line.partition(": ") for line in lines if line]
        headers = {name.lower(): value for name, _, value in pairs}
        body = self._exactly(int(headers.get("content-length", "0")))
        return Response(int(status.split(" ")[1]), headers, body)

    def ask(self, data: bytes) -> Response:
        """Send a call and read its answer."""
        self.send(data)
        return self.receive()

    def ended(self) -> bool:
        """Wait until the server ends the connection; tell whether nothing more came before that."""
        try:
            return self._buffer == b"" and self.socket.recv(1) == b""
        except (ConnectionResetError, ssl.SSLEOFError):
            return True

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._more()
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"the connection ended after {self._buffer!r}")
        self._buffer += data


class Serving:
    """A server under test.

    Args:
        config: How it serves; its ports are replaced by free ones.
        world: What decides.
        trust: What clients trust; None: plain HTTP.
    """

    def __init__(self, config: ServerConfig, world: World, trust: ssl.SSLContext | None = None) -> None:
        self.config = config
        self.world = world
        self.trust = trust
        self.lines: list[dict[str, Any]] = []
        self.where: Where
        self.status: int | None = None
        self.error: BaseException | None = None
        self.stop: Stop
        self.metrics: Metrics
        self._loop: Any = None
        self._news = threading.Condition()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="server")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(SECONDS)
        if self.error is not None:
            self._thread.join(SECONDS)
            raise self.error
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self.ask()
            self.ask()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def ask(self) -> None:
        """Ask the server to end; the second time at once."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.stop.ask)

    def end(self) -> int:
        """Wait for the server's end; return its status."""
        self._thread.join(SECONDS)
        assert self.status is not None
        return self.status

    def connect(self, trust: ssl.SSLContext | None = None, name: str | None = "localhost") -> Wire:
        """Connect; in TLS unless the server speaks plain HTTP."""
        raw = self.dial()
        trust = trust or self.trust
        return Wire(trust.wrap_socket(raw, server_hostname=name) if trust else raw)

    def dial(self) -> socket.socket:
        """Connect without TLS."""
        return socket.create_connection(("127.0.0.1", self.where.port), timeout=SECONDS)

    def get(self, path: str, method: str = "GET") -> Response:
        """Ask the health port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.where.health_port, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path)
            answer = connection.getresponse()
            return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def number(self, name: str, **labels: str) -> float | None:
        """Return a metric's value."""
        return self.metrics.registry.get_sample_value(name, labels)

    def wait_for(self, event: str, count: int = 1, **fields: object) -> dict[str, Any]:
        """Wait until the log has told an event so many times; return the last line."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.told(event) if fields.items() <= line.items()]

        with self._news:
            assert self._news.wait_for(lambda: len(found()) >= count, SECONDS), (event, fields, self.lines)
            return found()[-1]

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of an event."""
        return [line for line in list(self.lines) if line["event"] == event]

    def _run(self) -> None:
        try:
            self.metrics = Metrics(server.ENDPOINTS, ("NG101",), server.watched(self.config, self.world), "1.2.3")
            self.status = server.in_loop(self._serve())
        except BaseException as error:  # noqa: BLE001  (told to the test)
            self.error = error
        self._ready.set()

    async def _serve(self) -> int:
        self._loop = asyncio.get_running_loop()
        self.stop = Stop()

        def ready(where: Where) -> None:
            self.where = where
            self._ready.set()

        return await server.serve(
            self.config, self.world, metrics=self.metrics, log=Log(self._write), stop=self.stop, ready=ready
        )

    def _write(self, line: bytes) -> None:
        with self._news:
            self.lines.append(msgspec.json.decode(line))
            self._news.notify_all()


def trusting(authority: trustme.CA, client: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """Return a client that trusts an authority and shows a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    if client is not None:
        client.configure_cert(context)
    return context


def write_pair(folder: Path, pair: trustme.LeafCert) -> None:
    """Write certificate and key as a Secret's mount has them."""
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
    pair.private_key_pem.write_to_path(folder / "key.pem")


def until(true: Callable[[], bool]) -> None:
    """Ask again and again until something is true that nobody tells of."""
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.002)
