"""Calls over real sockets: every one is answered, and what is wrong is said."""

import socket
import ssl
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest
from serving import SECONDS, Serving, Wire, World, allow, call, review

from noisegate.webhook import express
from noisegate.webhook.review import Answer

Serve = Callable[..., Serving]
MIB = 1 << 20
T = TypeVar("T")


def test_call_is_answered(serve: Serve) -> None:
    """An ordinary call comes back as JSON with its length, and the connection stays."""
    server = serve()
    with server.connect() as wire:
        for uid in ("a", "b", "c"):
            answer = wire.ask(call(review(uid)))
            assert (answer.status, answer.uid) == (200, uid)
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["content-length"] == str(len(answer.body))
            assert answer.headers["server"] == "noisegate"
            assert "connection" not in answer.headers
    assert server.number("noisegate_requests_total", endpoint="mutate", result="allowed") == 3


@pytest.mark.parametrize("name", ["mutate", "validate", "warn/mutate", "warn/validate"])
@pytest.mark.parametrize("query", ["", "?timeout=10s"])
def test_endpoint_is_told_to_the_decision(serve: Serve, name: str, query: str) -> None:
    """Every endpoint reaches the decision under its name, with or without a query."""
    seen: list[str] = []

    def decide(endpoint: str, body: bytes) -> Answer:
        seen.append(endpoint)
        return allow(endpoint, body)

    with serve(World(decide)).connect() as wire:
        assert wire.ask(call(review(), f"/{name}{query}")).status == 200
        assert wire.ask(call(review(), f"/{name}{query}", Expect="nothing")).status == 200
    assert seen == [name, name]


@pytest.mark.parametrize(
    ("data", "status", "reason", "sentence"),
    [
        pytest.param(
            call(review(), "/mutateABC"),
            404,
            "path",
            "nothing is here; allowed: /mutate, /validate, /warn/mutate, /warn/validate",
            id="path",
        ),
        pytest.param(
            call(review(), "/warn%2Fmutate"),
            404,
            "path",
            "nothing is here; allowed: /mutate, /validate, /warn/mutate, /warn/validate",
            id="escaped-path",
        ),
        pytest.param(
            b"GET /mutate HTTP/1.1\r\nHost: x\r\n\r\n",
            405,
            "method",
            "GET is not allowed here; allowed: POST",
            id="method",
        ),
        pytest.param(
            call(review(), Content_Type="text/yaml"),
            415,
            "media-type",
            "Content-Type text/yaml is not allowed; allowed: application/json",
            id="type",
        ),
        pytest.param(
            call(review(), Content_Type="-"),
            415,
            "media-type",
            "Content-Type none is not allowed; allowed: application/json",
            id="no-type",
        ),
        pytest.param(
            call(review(), Content_Encoding="gzip"),
            415,
            "media-type",
            "Content-Encoding gzip is not allowed; send the body as it is",
            id="compressed",
        ),
        pytest.param(call(b""), 400, "empty", "the body is empty; send an AdmissionReview as JSON", id="empty"),
        pytest.param(
            call(b"", Transfer_Encoding="chunked", Content_Length="-") + b"0\r\n\r\n",
            400,
            "empty",
            "the body is empty; send an AdmissionReview as JSON",
            id="empty-chunked",
        ),
    ],
)
def test_refusal_says_why_and_keeps_the_connection(
    serve: Serve, data: bytes, status: int, reason: str, sentence: str
) -> None:
    """What is no call for us is answered in one sentence, counted and told; the connection stays."""
    server = serve()
    with server.connect() as wire:
        answer = wire.ask(data)
        assert (answer.status, answer.body.decode()) == (status, f"{sentence}\n")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers.get("allow") == ("POST" if status == 405 else None)
        assert wire.ask(call(review("after"))).uid == "after"
    assert server.number("noisegate_refused_requests_total", reason=reason) == 1
    assert server.wait_for("refused")["detail"] == sentence


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "application/json;charset=UTF-8", "Application/JSON ; v=1"]
)
def test_media_type_may_have_parameters(serve: Serve, kind: str) -> None:
    """`application/json` is accepted in any case and with parameters."""
    with serve().connect() as wire:
        assert wire.ask(call(review(), Content_Type=kind)).status == 200


@pytest.mark.parametrize("size", [1000, 20_000, 64 << 10, (64 << 10) + 1, MIB, 7 * MIB], ids=str)
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_body_up_to_the_limit_is_read(serve: Serve, size: int, chunked: bool) -> None:
    """Bodies of up to 7 MiB arrive whole, announced or in chunks."""
    seen: list[int] = []

    def decide(endpoint: str, body: bytes) -> Answer:
        seen.append(len(body))
        return allow(endpoint, body)

    body = review("large", size)
    data = _chunked(body, 100_000) if chunked else call(body)
    with serve(World(decide)).connect() as wire:
        assert wire.ask(data).uid == "large"
        assert wire.ask(call(review("small"))).uid == "small"
    assert seen == [size, len(review("small"))]


def test_body_announced_too_large_is_refused_unread(serve: Serve) -> None:
    """A body of 8 MiB is refused on its head alone, and the connection ends."""
    server = serve()
    with server.connect() as wire:
        answer = wire.ask(call(b"", Content_Length=str(8 * MIB)))
        assert answer.status == 413
        assert answer.body == b"the body is larger than 7340032 bytes, which is the most allowed\n"
        assert answer.headers["connection"] == "close"
        assert wire.ended()
    assert server.number("noisegate_refused_requests_total", reason="too-large") == 1


def test_body_that_grows_too_large_is_refused(serve: Serve) -> None:
    """A body in chunks is refused as soon as it is larger than the limit."""
    server = serve()
    with server.connect() as wire:
        wire.send(call(b"", Transfer_Encoding="chunked", Content_Length="-"))
        chunk = b"%x\r\n%b\r\n" % (MIB, b" " * MIB)
        for _ in range(7):
            wire.send(chunk)
        answer = wire.ask(b"1\r\n \r\n")
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert wire.ended()


def test_whole_large_body_gets_its_refusal(serve: Serve) -> None:
    """A client that sends all of its 8 MiB before it reads gets the refusal, not a reset."""
    with serve().connect() as wire:
        assert wire.ask(call(review("x", 8 * MIB))).status == 413


def test_calls_may_follow_each_other_unasked(serve: Serve) -> None:
    """Calls sent without waiting are answered one by one, in order, whatever way they take and wherever they are cut."""
    calls = [call(review(f"u{n}", 300 * n), "/mutate", **({"Expect": "x"} if n == 6 else {})) for n in range(1, 12)]
    data = b"".join(calls)
    server = serve()
    for cut in (1, 10, len(calls[0]) - 1, len(calls[0]), len(calls[0]) + 1, len(data) // 2):
        with server.connect() as wire:
            wire.send(data[:cut])
            wire.send(data[cut:])
            assert [wire.receive().uid for _ in calls] == [f"u{n}" for n in range(1, 12)]


def test_body_may_come_in_pieces(serve: Serve) -> None:
    """A small body that comes byte by byte is put together, and counts as in flight until it is there."""
    data = call(review("pieces"))
    server = serve()
    with server.connect() as wire, server.connect() as other:
        head = data.index(b"\r\n\r\n") + 4
        wire.send(data[: head + 1])
        for byte in data[head + 1 : -1]:
            wire.send(bytes([byte]))
        assert other.ask(call(review("other"))).uid == "other"
        assert wire.ask(data[-1:]).uid == "pieces"


@pytest.mark.parametrize("way", ["short", "long"])
def test_connection_close_is_honoured(serve: Serve, way: str) -> None:
    """A client that asks for it gets its answer and then the end of the connection."""
    body = review("last", 100 if way == "short" else 100_000)
    with serve().connect() as wire:
        answer = wire.ask(call(body, Connection="close"))
        assert (answer.uid, answer.headers["connection"]) == ("last", "close")
        assert wire.ended()


def test_http_1_0(serve: Serve) -> None:
    """HTTP/1.0 is answered, and the connection ends unless the client asked to keep it."""
    server = serve()
    old = call(review("old")).replace(b"HTTP/1.1", b"HTTP/1.0")
    with server.connect() as wire:
        assert wire.ask(old).uid == "old"
        assert wire.ended()
    with server.connect() as wire:
        kept = old.replace(b"Accept:", b"Connection: keep-alive\r\nAccept:")
        assert wire.ask(kept).headers["connection"] == "keep-alive"
        assert wire.ask(kept).uid == "old"


def test_continue_is_sent_when_waited_for(serve: Serve) -> None:
    """A client that waits for leave to send its body (`Expect: 100-continue`) gets it."""
    body = review("expected")
    data = call(body, Expect="100-continue")
    with serve().connect() as wire:
        assert wire.ask(data[: -len(body)]).status == 100
        assert wire.ask(body).uid == "expected"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x16\x03\x01\x00\x05hello\r\n\r\n", id="not-http"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http2"),
        pytest.param(call(b"{}", Content_Length="-1"), id="negative-length"),
        pytest.param(call(b"{}", Content_Length="2, 3"), id="two-lengths"),
        pytest.param(call(b"{}", Transfer_Encoding="chunked"), id="length-and-chunked"),
        pytest.param(call(b"", Transfer_Encoding="chunked", Content_Length="-") + b"zz\r\n", id="bad-chunk"),
        pytest.param(call(b"{}", Host="-"), id="no-host"),
        pytest.param(call(b"{}", X="y" * 20_000), id="long-header"),
        pytest.param(call(b"{}", **{f"X{n}": "y" for n in range(200)}), id="many-headers"),
        pytest.param(b"POST /mutate HTTP/1.1\nHost: x\n\n", id="bare-line-feeds"),
    ],
)
def test_malformed_call_is_answered_and_ends(serve: Serve, data: bytes) -> None:
    """What is not HTTP/1.1 gets 400, is counted and told, and the connection ends; never an empty close."""
    server = serve()
    with server.connect() as wire:
        answer = wire.ask(data)
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert wire.ended()
    assert server.number("noisegate_refused_requests_total", reason="malformed") == 1
    server.wait_for("refused", reason="malformed")
    assert not server.told("library")


def test_status_of_the_decision_is_kept(serve: Serve) -> None:
    """A decision of 400 is answered with its sentence in plain text, either way, and the connection stays."""
    with serve().connect() as wire:
        for body in (b"[]", b"[]".ljust(100_000)):
            answer = wire.ask(call(body))
            assert (answer.status, answer.body) == (400, b"no AdmissionReview\n")
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert wire.ask(call(review("after"))).uid == "after"


def test_failure_of_the_decision_is_ours(serve: Serve) -> None:
    """A decision that raises is answered 500, counted and told with its traceback; the connection stays."""

    def decide(endpoint: str, body: bytes) -> Answer:
        if b"boom" in body:
            raise RecursionError("too deep")
        return allow(endpoint, body)

    server = serve(World(decide))
    with server.connect() as wire:
        for body in (b"boom", b"boom".ljust(100_000)):
            answer = wire.ask(call(body))
            assert answer.status == 500
            assert answer.body == b"noisegate failed on this call by its own fault; its log says why\n"
        assert wire.ask(call(review("after"))).uid == "after"
    assert server.number("noisegate_failures_total") == 2
    assert server.number("noisegate_requests_total", endpoint="mutate", result="errored") == 2
    line = server.wait_for("failed", 2)
    assert line["error"] == "RecursionError: too deep"
    assert "in decide" in line["traceback"]


def test_log_line_and_codes_of_an_answer(serve: Serve) -> None:
    """What an answer wants told is told, and its codes are counted, also those nobody announced."""
    log: dict[str, object] = {"event": "denied", "name": "web", "problems": ["NG101 x", "NG999 y"]}

    def decide(_endpoint: str, _body: bytes) -> Answer:
        return Answer(200, b"{}", "denied", ("NG101", "NG999", "NG101"), log)

    server = serve(World(decide))
    with server.connect() as wire:
        assert wire.ask(call(review())).body == b"{}"
    line = server.wait_for("denied")
    assert {name: line[name] for name in log} == log
    assert line["level"] == "warning"
    assert server.number("noisegate_problems_total", code="NG101") == 2
    assert server.number("noisegate_problems_total", code="NG999") == 1


def test_client_that_closed_its_side_gets_its_answer(serve: Serve, trust: ssl.SSLContext) -> None:
    """A whole call followed by the end of the client's side is answered."""
    server = serve()
    with _Half(server.dial(), trust) as half:
        half.send(call(review("warm")))
        assert b'"uid":"warm"' in half.receive(b"}}")
        half.send(call(review("half", 3000)), end=True)
        assert b'"uid":"half"' in half.receive(b"}}")


def test_client_that_leaves_within_a_call_is_told(serve: Serve) -> None:
    """A call that its client breaks off is counted and told, on either way, and nobody else notices."""
    server = serve()
    for number, size in enumerate((100, 100_000), start=1):
        with server.connect() as wire:
            wire.send(call(review("x", size))[:-5])
        server.wait_for("refused", number, reason="incomplete")
    assert server.number("noisegate_refused_requests_total", reason="incomplete") == 2
    assert server.number("noisegate_refused_requests_total", reason="malformed") == 0
    with server.connect() as wire:
        assert wire.ask(call(review("after"))).uid == "after"
    assert server.number("noisegate_failures_total") == 0


def test_heads_are_forgotten_when_there_are_too_many(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many different heads come, all mean what they say and only so many are remembered."""
    monkeypatch.setattr(express, "KNOWN_HEADS", 3)
    with serve().connect() as wire:
        for size in [*range(100, 120), *range(100, 120)]:
            assert wire.ask(call(review(f"u{size}", size))).uid == f"u{size}"


def test_plain_http_without_a_certificate(serve: Serve) -> None:
    """Without a certificate the server speaks plain HTTP."""
    with serve(plain=True).connect() as wire:
        assert wire.ask(call(review("plain"))).uid == "plain"


def test_deciding_in_several_threads_of_clients(serve: Serve) -> None:
    """Many clients at once get their own answers, and every call is counted once."""
    server = serve()
    wrong: list[str] = []

    def client(number: int) -> None:
        with server.connect() as wire:
            for turn in range(25):
                uid = f"{number}-{turn}"
                answer = wire.ask(call(review(uid, 7000 if turn % 5 else 70_000)))
                if answer.status != 200 or answer.uid != uid:
                    wrong.append(uid)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert wrong == []
    assert server.number("noisegate_requests_total", endpoint="mutate", result="allowed") == 400
    assert server.number("noisegate_request_duration_seconds_count", endpoint="mutate") == 400


def _chunked(body: bytes, size: int) -> bytes:
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return call(b"", Transfer_Encoding="chunked", Content_Length="-") + coded + b"0\r\n\r\n"


class _Half(Wire):
    """A TLS client that can end its side of the TCP connection and still read, which `ssl.SSLSocket` cannot."""

    def __init__(self, raw: socket.socket, trust: ssl.SSLContext) -> None:
        super().__init__(raw)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = trust.wrap_bio(self._in, self._out, server_hostname="localhost")
        self._turn(self._tls.do_handshake)
        self.socket.sendall(self._out.read())

    def send(self, data: bytes, *, end: bool = False) -> None:
        self._tls.write(data)
        self.socket.sendall(self._out.read())
        if end:
            self.socket.shutdown(socket.SHUT_WR)

    def receive(self, mark: bytes) -> bytes:  # type: ignore[override]
        data = b""
        while mark not in data:
            data += self._turn(lambda: self._tls.read(65536))
        return data

    def _turn(self, step: Callable[[], T]) -> T:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                if self._out.pending:
                    self.socket.sendall(self._out.read())
                received = self.socket.recv(65536)
                assert received, "the server ended the connection without an answer"
                self._in.write(received)
