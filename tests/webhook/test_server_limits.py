"""What the server bears, and whom it makes wait: nobody for somebody else."""

import asyncio
import contextlib
import re
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest
from serving import SECONDS, Gate, Serving, Wire, World, allow, call, review, until

from noisegate.webhook.review import Answer

Serve = Callable[..., Serving]


@pytest.fixture(name="gate")
def _gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def test_slow_handshake_is_ended(serve: Serve) -> None:
    """A client that connects and says nothing, or only half a handshake, is cut off, counted and told."""
    server = serve(handshake_seconds=0.2)
    for number, beginning in enumerate((b"", b"\x16\x03\x01\x02\x00"), start=1):
        with server.dial() as raw:
            raw.sendall(beginning)
            assert _ended(raw)
        server.wait_for("handshake-failed", number, reason="time-out")
    assert server.number("noisegate_tls_handshake_failures_total", reason="time-out") == 2


@pytest.mark.parametrize("sent", [b"P", b"POST /mutate HTTP/1.1\r\nHost: x\r\n"], ids=["byte", "half"])
def test_slow_head_is_ended(serve: Serve, sent: bytes) -> None:
    """A head that does not come to its end is answered 408, counted and told; others are served meanwhile."""
    server = serve(header_seconds=0.2)
    with server.connect() as slow, server.connect() as other:
        slow.send(sent)
        assert other.ask(call(review("meanwhile"))).uid == "meanwhile"
        answer = slow.receive()
        assert (answer.status, answer.body) == (408, b"the head of the call took longer than 0.2 seconds\n")
        assert slow.ended()
    assert server.wait_for("refused", reason="slow-head")["status"] == 408
    assert server.number("noisegate_refused_requests_total", reason="slow-head") == 1


@pytest.mark.parametrize("size", [1000, 100_000], ids=["short-way", "long-way"])
def test_slow_body_is_ended(serve: Serve, size: int) -> None:
    """A body shorter than announced is answered 408, counted and told, and gives its place back."""
    server = serve(body_seconds=0.2)
    with server.connect() as slow:
        slow.send(call(review("x", size))[:-1])
        answer = slow.receive()
        assert (answer.status, answer.body) == (408, b"the body of the call took longer than 0.2 seconds\n")
        assert slow.ended()
    server.wait_for("refused", reason="slow-body")
    assert server.number("noisegate_refused_requests_total", reason="malformed") == 0
    assert server.number("noisegate_refused_requests_total", reason="incomplete") == 0
    assert server.number("noisegate_refused_requests_total", reason="slow-body") == 1
    assert server.get("/metrics").status == 200
    assert server.number("noisegate_requests_in_flight") == 0


def test_client_that_takes_no_answers_is_cut(serve: Serve) -> None:
    """A client that sends calls and reads none of the answers is cut off; it does not fill the memory."""
    big = Answer(200, b"{" + b" " * (4 << 20) + b"}", "allowed")
    server = serve(World(lambda _endpoint, _body: big), answer_seconds=0.3)
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", server.where.port))
        assert server.trust is not None
        with server.trust.wrap_socket(raw, server_hostname="localhost") as wire:
            wire.sendall(call(review()) * 3)
            server.wait_for("refused", reason="slow-client")
    assert server.number("noisegate_refused_requests_total", reason="slow-client") == 1


@pytest.mark.parametrize("size", [100, 100_000], ids=["short-way", "long-way"])
def test_client_that_takes_its_answers_late_gets_them_all(serve: Serve, size: int) -> None:
    """Answers that a client does not take at once wait for it, in order, and so do its further calls."""

    def decide(_endpoint: str, body: bytes) -> Answer:
        uid = re.search(rb"u-[0-9]", body)
        assert uid is not None
        return Answer(200, uid[0] + b" " * (4 << 20), "allowed")

    server = serve(World(decide))
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", server.where.port))
        raw.settimeout(SECONDS)
        assert server.trust is not None
        with Wire(server.trust.wrap_socket(raw, server_hostname="localhost")) as wire:
            wire.send(b"".join(call(review(f"u-{number}", size)) for number in range(4)))
            until(lambda: bool(server.number("noisegate_requests_total", endpoint="mutate", result="allowed")))
            assert [wire.receive().body[:3] for _ in range(4)] == [b"u-0", b"u-1", b"u-2", b"u-3"]


def test_idle_connection_is_ended(serve: Serve) -> None:
    """A connection that rests for too long is ended without a word, on either way."""
    server = serve(idle_seconds=0.2)
    with server.connect() as unused, server.connect() as short, server.connect() as long:
        assert short.ask(call(review("a"))).uid == "a"
        assert long.ask(call(review("b", 100_000))).uid == "b"
        assert unused.ended()
        assert short.ended()
        assert long.ended()
    assert server.number("noisegate_refused_requests_total", reason="slow-head") == 0


def test_calls_above_the_cap_are_refused_at_once(serve: Serve, gate: Gate) -> None:
    """With four places, four of six waiting calls are served and two get 429 at once; the places come back."""
    server = serve(World(prefetch=gate.prefetch), max_in_flight=4)
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(server.connect()) for _ in range(4)]
        for number, wire in enumerate(waiting):
            wire.send(call(review(f"w{number}")))
        gate.reached(4)
        for _ in range(2):
            with server.connect() as wire:
                answer = wire.ask(call(review("late")))
                assert answer.status == 429
                assert answer.body == b"4 calls are in flight, as many as may be; call again\n"
                assert answer.headers["retry-after"] == "1"
        assert server.get("/metrics").body.count(b"noisegate_requests_in_flight 4.0") == 1
        gate.open()
        assert [wire.receive().uid for wire in waiting] == ["w0", "w1", "w2", "w3"]
        assert waiting[0].ask(call(review("again"))).uid == "again"
    assert server.number("noisegate_refused_requests_total", reason="busy") == 2
    assert server.number("noisegate_requests_total", endpoint="mutate", result="refused") == 2
    assert server.number("noisegate_requests_total", endpoint="mutate", result="allowed") == 5


def test_call_that_need_not_wait_is_never_refused(serve: Serve) -> None:
    """When all places are taken by bodies on their way, whole calls are answered, and late bodies are refused."""
    server = serve(max_in_flight=2)
    body = call(review("slow"))
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(2)]
        for wire in slow:
            wire.send(body[:-1])
        with server.connect() as whole, server.connect() as third:
            _until_in_flight(server, 2)
            assert whole.ask(call(review("whole"))).uid == "whole"
            third.send(body[:-1])
            assert third.receive().status == 429
        for wire in slow:
            assert wire.ask(body[-1:]).uid == "slow"


def test_client_with_little_is_served_when_another_holds_all(serve: Serve, gate: Gate) -> None:
    """A client that holds all places does not shut out another address; only its own next call is refused."""
    server = serve(World(prefetch=gate.prefetch), max_in_flight=4)
    with contextlib.ExitStack() as stack:
        greedy = [stack.enter_context(server.connect()) for _ in range(5)]
        for wire in greedy[:4]:
            wire.send(call(review("greedy")))
        gate.reached(4)
        raw = socket.create_connection(("127.0.0.1", server.where.port), SECONDS, ("127.0.0.2", 0))
        assert server.trust is not None
        with Wire(server.trust.wrap_socket(raw, server_hostname="localhost")) as modest:
            modest.send(call(review("modest")))
            gate.reached(1)
            assert greedy[4].ask(call(review("more"))).status == 429
            gate.open()
            assert modest.receive().uid == "modest"


def test_large_bodies_have_a_bound_together(serve: Serve) -> None:
    """When the memory for large bodies is taken, further large ones get 429; small ones are served."""
    server = serve(max_buffered_bytes=1 << 20)
    large = call(review("large", 1 << 20))
    with server.connect() as first, server.connect() as second, server.connect() as small:
        first.send(large[:-1])
        until(lambda: b"noisegate_buffered_bytes 983040.0" in server.get("/metrics").body)
        with contextlib.suppress(OSError):
            second.send(large[:-1])
        assert second.receive().status == 429
        assert small.ask(call(review("small", 60_000))).uid == "small"
        assert first.ask(large[-1:]).uid == "large"
    assert server.number("noisegate_refused_requests_total", reason="memory") == 1


def test_idle_connections_block_nobody(serve: Serve) -> None:
    """With a thousand TCP connections that say nothing and fifty idle TLS ones, calls are answered."""
    server = serve()
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(server.dial())
        for _ in range(50):
            stack.enter_context(server.connect())
        with server.connect() as wire:
            for number in range(20):
                assert wire.ask(call(review(str(number)))).uid == str(number)


def test_connections_above_the_cap_are_closed(serve: Serve) -> None:
    """With three connections open a fourth of the same client is closed, counted and told; a place comes back."""
    server = serve(max_connections=3, handshake_seconds=SECONDS)
    with server.connect() as first, server.connect(), server.connect():
        assert first.ask(call(review("first"))).uid == "first"
        with server.dial() as raw:
            assert _ended(raw)
        assert server.wait_for("refused", reason="connections")["detail"] == "3 connections are open"
        assert first.ask(call(review("still"))).uid == "still"
        first.socket.close()
        until(lambda: server.get("/metrics").body.count(b"noisegate_connections 2.0") == 1)
        with server.connect() as again:
            assert again.ask(call(review("again"))).uid == "again"
    assert server.number("noisegate_refused_requests_total", reason="connections") == 1


@pytest.mark.parametrize("size", [100, 100_000], ids=["short-way", "long-way"])
def test_lookups_that_fail_or_take_long_do_not_stop_a_decision(serve: Serve, size: int) -> None:
    """What cannot be looked up, or not in time, is for the decision to live without; it is counted and told."""

    async def late(body: bytes) -> None:
        if b"slow" in body:
            await asyncio.sleep(SECONDS)
        raise LookupError("no API server")

    def prefetch(body: bytes) -> Awaitable[None] | None:
        if b"known" in body:
            return None
        if b"odd" in body:
            raise ValueError("odd")
        return late(body)

    server = serve(World(allow, prefetch), prefetch_seconds=0.05)
    with server.connect() as wire:
        for uid in ("slow", "broken", "known", "odd"):
            assert wire.ask(call(review(uid, size))).uid == uid
        wire.send(call(review("known-1", size)) + call(review("broken-2", size)) + call(review("known-3", size)))
        assert [wire.receive().uid for _ in range(3)] == ["known-1", "broken-2", "known-3"]
        data = call(review("broken-in-pieces", size))
        wire.send(data[:-10])
        assert wire.ask(data[-10:]).uid == "broken-in-pieces"
    assert [line["error"] for line in server.told("prefetch-failed")] == [
        "TimeoutError: ",
        "LookupError: no API server",
        "ValueError: odd",
        "LookupError: no API server",
        "LookupError: no API server",
    ]
    assert server.number("noisegate_prefetch_failures_total") == 5
    assert b"noisegate_requests_in_flight 0.0" in server.get("/metrics").body


def test_client_that_leaves_while_its_call_waits_is_forgotten(serve: Serve, gate: Gate) -> None:
    """The place of a call whose client has left comes back, and nothing is told of it as a fault."""
    server = serve(World(prefetch=gate.prefetch), max_in_flight=1)
    with server.connect() as wire:
        wire.send(call(review("left")))
        gate.reached(1)
    gate.open()
    until(lambda: b"noisegate_requests_in_flight 0.0" in server.get("/metrics").body)
    with server.connect() as wire:
        assert wire.ask(call(review("next"))).uid == "next"
    assert server.told("unexpected") == []


def _ended(raw: socket.socket) -> bool:
    try:
        return raw.recv(1) == b""
    except ConnectionResetError:
        return True


def _until_in_flight(server: Serving, calls: int) -> None:
    until(lambda: b"noisegate_requests_in_flight %d.0" % calls in server.get("/metrics").body)
