"""The server's beginning and end: ports, readiness, draining, signals."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families
from serving import SECONDS, Gate, Serving, Wire, World, allow, call, review, trusting, until

from noisegate.service.watch import Watch
from noisegate.webhook.review import Answer

Serve = Callable[..., Serving]

PROGRAM = """
    import json, sys
    from noisegate.webhook.review import Answer
    from noisegate.webhook.server import run
    from noisegate.webhook.serverconfig import ServerConfig

    class World:
        prefetch = None
        watches = ()

        def decide(self, endpoint, body):
            if b"hang" in body:
                import time
                time.sleep(60)
            uid = json.loads(body)["request"]["uid"]
            return Answer(200, json.dumps({"response": {"uid": uid}}).encode(), "allowed")

        def reasons(self):
            return []

        def notes(self):
            return ["a note"]

        def follow(self, metrics, log):
            return None

    def build():
        if SETTINGS.pop("fail", None):
            raise ValueError("mutations.yaml:3: no such thing")
        return World()

    SETTINGS = json.loads(sys.argv[1])
    if files := SETTINGS.pop("open_files", 0):
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    fail = SETTINGS.get("fail")
    config = ServerConfig(**{name: value for name, value in SETTINGS.items() if name != "fail"})
    sys.exit(run(config, build))
"""


class Program:
    """A server as a process of its own, its log read line by line."""

    def __init__(self, files: Path, **settings: Any) -> None:
        fixed = {"binding_address": "127.0.0.1", "health_address": "127.0.0.1", "port": 0, "health_port": 0}
        pair = {"cert": str(files / "cert.pem"), "key": str(files / "key.pem"), "shutdown_delay": 0.0}
        arguments = json.dumps(fixed | pair | settings)
        self.lines: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._over = False
        # The prefix shows where the parent of several processes keeps its numbers.
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", textwrap.dedent(PROGRAM), arguments],
            stderr=subprocess.PIPE,
            env=os.environ | {"TMPDIR": str(files)},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, event: str, count: int = 1) -> dict[str, Any]:
        """Wait until the log has told an event so many times; return the last line."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines if line["event"] == event]

        with self._news:
            assert self._news.wait_for(lambda: len(found()) >= count or self._over, SECONDS), self.lines
            assert len(found()) >= count, self.lines
            return found()[-1]

    def end(self, *, seconds: float = SECONDS) -> int:
        """Wait for its end; return its exit status."""
        status = self.process.wait(seconds)
        self._reader.join(seconds)
        return status

    def close(self) -> None:
        """End it by force."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.end()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(json.loads(line) if line.startswith(b"{") else {"event": "text", "text": line})
                self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()


@pytest.fixture(name="start")
def _start(files: Path) -> Iterator[Callable[..., Program]]:
    """Starts servers as processes; ends them after the test."""
    with contextlib.ExitStack() as stack:

        def start(**settings: Any) -> Program:
            program = Program(files, **settings)
            stack.callback(program.close)
            return program

        yield start


def test_health_port(serve: Serve) -> None:
    """It tells life, readiness and numbers to GET and HEAD, and in a sentence that there is nothing else."""
    server = serve(World(told=["something to know"]))
    assert server.get("/healthz")[::2] == (200, b"ok\n")
    assert server.get("/readyz")[::2] == (200, b"ready\nnote: something to know\n")
    assert server.get("/readyz", "HEAD")[::2] == (200, b"")
    assert server.get("/x")[::2] == (404, b"nothing is here; allowed: /healthz, /readyz, /metrics\n")
    refused = server.get("/readyz", "POST")
    assert refused[::2] == (405, b"POST is not allowed here; allowed: GET, HEAD\n")
    assert refused.headers["allow"] == "GET, HEAD"


def test_numbers_can_be_read_by_prometheus(serve: Serve) -> None:
    """The page parses; every name is ours or the process's; no label grows with what clients send."""
    server = serve()
    with server.connect() as wire:
        wire.ask(call(review()))
        wire.ask(call(review(), "/some/path/of/a/client"))
    page = server.get("/metrics")
    assert page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(page.body.decode())}
    assert all(re.match("noisegate_|process_", name) for name in families)
    assert "/some/path" not in page.body.decode()
    requests = {tuple(sample.labels.values()): sample.value for sample in families["noisegate_requests"].samples}
    assert requests["mutate", "allowed"] == 1
    assert requests["warn/validate", "denied"] == 0
    (build,) = families["noisegate_build_info"].samples
    assert (build.labels["version"], build.value) == ("1.2.3", 1)


def test_taken_port_is_told(serve: Serve) -> None:
    """A port that is taken stops the start with address and port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name in ("port", "health_port"):
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
                serve(**{name: port})


def test_unknown_name_is_told(serve: Serve) -> None:
    """A name that means nothing stops the start."""
    with pytest.raises(OSError, match=r"cannot listen on no\.such\.name\.invalid port 0: "):
        serve(binding_address="no.such.name.invalid")


def test_all_addresses_of_a_name(serve: Serve) -> None:
    """A host name is listened on at every address it has, on one port."""
    server = serve(binding_address="localhost")
    with server.connect() as wire:
        assert wire.ask(call(review("named"))).uid == "named"


def test_files_of_the_world_are_followed(serve: Serve, tmp_path: Path) -> None:
    """What the world watches is loaded at the start, followed, refused when bad, and told."""
    file = tmp_path / "rules.yaml"
    file.write_text("one")
    held: list[bytes] = []

    def take(contents: Any) -> None:
        (content,) = contents.values()
        if b"bad" in content:
            raise ValueError("line 1: bad")
        held.append(content)

    server = serve(World(watches=[Watch("mutations", [file], take)]), poll_seconds=0.02)
    assert held == [b"one"]
    file.write_text("two")
    server.wait_for("reload", result="reloaded")
    file.write_text("bad")
    assert server.wait_for("reload", result="refused")["reason"] == "line 1: bad"
    assert held == [b"one", b"two"]
    assert b"note: mutations: the new contents are refused" in server.get("/readyz").body
    assert server.number("noisegate_reloads_total", what="mutations", result="refused") == 1


def test_drain_under_load_loses_no_call(serve: Serve) -> None:
    """While sixteen clients call, the server leaves: every call that it took is answered, and it ends with 0."""
    server = serve(shutdown_delay=0.3)
    lost: list[object] = []
    answered = [0] * 16

    def calls(number: int) -> None:
        while True:
            try:
                wire = server.connect()
            except OSError:
                return  # No longer listening: the API server goes to another replica.
            with wire:
                while True:
                    try:
                        answer = wire.ask(call(review("x", 7000)))
                    except (OSError, EOFError) as error:
                        lost.append(error)
                        return
                    answered[number] += 1
                    if "connection" in answer.headers:
                        break

    threads = [threading.Thread(target=calls, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    until(lambda: all(answered))
    before = sum(answered)
    server.ask()
    server.wait_for("draining")
    assert server.get("/readyz")[::2] == (503, b"draining\n")
    assert server.end() == 0
    for thread in threads:
        thread.join(SECONDS)
    assert lost == []
    assert sum(answered) > before
    assert server.number("noisegate_requests_total", endpoint="mutate", result="allowed") == sum(answered)
    assert server.wait_for("ended")["calls_cut_off"] == 0


@pytest.mark.parametrize("size", [100, 100_000], ids=["short-way", "long-way"])
def test_call_in_flight_is_finished(serve: Serve, size: int) -> None:
    """A call whose body is on its way when the server leaves is answered, and its connection then ends."""
    server = serve()
    data = call(review("late", size))
    with server.connect() as idle, server.connect() as wire:
        assert idle.ask(call(review("idle"))).uid == "idle"
        wire.send(data[:-1])
        until(lambda: b"noisegate_requests_in_flight 1.0" in server.get("/metrics").body)
        server.ask()
        assert idle.ended()
        with pytest.raises(OSError, match="refused"):
            server.dial()
        answer = wire.ask(data[-1:])
        assert (answer.uid, answer.headers["connection"]) == ("late", "close")
        assert wire.ended()
    assert server.end() == 0


def test_call_that_never_ends_is_cut_off(serve: Serve) -> None:
    """After the time for draining what is left is cut off, and the end says how much that was."""
    server = serve(drain_seconds=0.2)
    with server.connect() as wire:
        wire.send(call(review("never"))[:-1])
        until(lambda: b"noisegate_requests_in_flight 1.0" in server.get("/metrics").body)
        server.ask()
        assert server.end() == 1
        assert wire.ended()
    assert server.wait_for("ended")["calls_cut_off"] == 1


def test_second_wish_ends_at_once(serve: Serve) -> None:
    """Whoever asks twice does not wait for the delay, nor for calls in flight."""
    server = serve(shutdown_delay=3600.0, drain_seconds=3600.0)
    with server.connect() as wire:
        wire.send(call(review("never"))[:-1])
        until(lambda: b"noisegate_requests_in_flight 1.0" in server.get("/metrics").body)
        server.ask()
        server.wait_for("draining")
        server.ask()
        assert server.end() == 1


def test_look_up_in_flight_is_finished(serve: Serve) -> None:
    """A call that waits for a look-up when the server leaves is answered."""
    gate = Gate()
    server = serve(World(allow, gate.prefetch))
    with server.connect() as wire:
        wire.send(call(review("looked-up")))
        gate.reached(1)
        server.ask()
        server.wait_for("draining")
        gate.open()
        answer = wire.receive()
        assert (answer.uid, answer.headers["connection"]) == ("looked-up", "close")
    assert server.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_process(start: Callable[..., Program], authority: trustme.CA, number: int) -> None:
    """One signal ends a server in good order, with status 0."""
    program = start()
    serving = program.wait_for("serving")
    assert _asked(serving["port"], authority, "x") == "x"
    program.process.send_signal(number)
    assert program.end() == 0
    assert [line["event"] for line in program.lines] == ["serving", "draining", "ended"]


def test_second_signal_ends_the_process_at_once(start: Callable[..., Program]) -> None:
    """A second signal does not wait for the delay."""
    program = start(shutdown_delay=3600.0)
    program.wait_for("serving")
    program.process.send_signal(signal.SIGTERM)
    program.wait_for("draining")
    program.process.send_signal(signal.SIGINT)
    assert program.end() == 0


def test_server_out_of_file_descriptors_recovers(start: Callable[..., Program], authority: trustme.CA) -> None:
    """When no more files may be open, connections wait; the server does not spin, and takes them when it can."""
    program = start(open_files=40)
    port = program.wait_for("serving")["port"]
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), SECONDS))
        assert program.wait_for("accept-failed")["error"] == "[Errno 24] Too many open files"
    assert _asked(port, authority, "again") == "again"


def test_handshake_under_way_does_not_hold_up_the_end(serve: Serve) -> None:
    """A client that connects and says nothing is given up when the time for draining is over."""
    server = serve(drain_seconds=0.1, handshake_seconds=3600.0)
    with server.dial() as raw:
        until(lambda: server.number("noisegate_draining") == 0)
        server.ask()
        assert server.end() == 0
        assert raw.recv(1) == b""


def test_memory_of_a_process(start: Callable[..., Program], authority: trustme.CA) -> None:
    """A process that has answered calls and has fifty connections open needs at most 60 MB."""
    program = start()
    port = program.wait_for("serving")["port"]
    trust = trusting(authority)
    with contextlib.ExitStack() as stack:
        for number in range(50):
            raw = socket.create_connection(("127.0.0.1", port), SECONDS)
            wire = stack.enter_context(Wire(trust.wrap_socket(raw, server_hostname="localhost")))
            assert json.loads(wire.ask(call(review(str(number), 20_000))).body)["response"]["uid"] == str(number)
        status = Path(f"/proc/{program.process.pid}/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert resident is not None
    assert int(resident[1]) < 60 * 1024


def test_several_processes_answer_on_one_port(
    start: Callable[..., Program], authority: trustme.CA, files: Path
) -> None:
    """Two workers share the port; one health port speaks for both and counts what both did; a signal ends them all."""
    program = start(processes=2)
    ready = program.wait_for("all-ready")
    for number in range(40):
        assert _asked(ready["port"], authority, str(number)) == str(number)
    assert _page(ready["health_port"], "/readyz") == b"ready\nnote: a note\n"
    assert b'noisegate_requests_total{endpoint="mutate",result="allowed"} 40.0' in _page(
        ready["health_port"], "/metrics"
    )
    (folder,) = files.glob("noisegate-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    program.process.send_signal(signal.SIGTERM)
    assert program.end() == 0
    assert list(files.glob("noisegate-*")) == []


def test_worker_that_was_killed_is_started_again(start: Callable[..., Program], authority: trustme.CA) -> None:
    """After `kill -9` of one worker the port keeps answering, the death is told and counted, and a new one serves."""
    program = start(processes=2)
    ready = program.wait_for("all-ready")
    port, health = ready["port"], ready["health_port"]
    before = _children(program)
    victim = before[0]
    os.kill(victim, signal.SIGKILL)
    died = program.wait_for("worker-died")
    assert (died["pid"], died["status"]) == (victim, -signal.SIGKILL)
    for number in range(20):
        assert _asked(port, authority, str(number)) == str(number)
    program.wait_for("serving", 3)
    until(lambda: _page(health, "/readyz").startswith(b"ready\n"))
    after = _children(program)
    assert len(after) == 2
    assert victim not in after
    assert b"noisegate_worker_restarts_total 1.0" in _page(health, "/metrics")
    program.process.send_signal(signal.SIGTERM)
    assert program.end() == 0


def test_workers_end_with_their_parent(start: Callable[..., Program]) -> None:
    """When the parent is killed, its workers notice and end."""
    program = start(processes=2)
    program.wait_for("all-ready")
    program.process.kill()
    program.end()  # Its log ends when the last worker has.
    assert [line["event"] for line in program.lines].count("ended") == 2


def test_bad_start_of_workers_is_a_bad_start(start: Callable[..., Program], files: Path) -> None:
    """What stops one worker's start stops the whole start, is told, and leaves nothing behind."""
    program = start(processes=2, fail=True)
    assert program.end() == 1
    assert program.wait_for("start-failed")["reason"] == "mutations.yaml:3: no such thing"
    assert list(files.glob("noisegate-*")) == []


def test_second_signal_kills_workers_that_hang(start: Callable[..., Program], authority: trustme.CA) -> None:
    """A worker that hangs in a decision does not hold up the end for longer than a second signal."""
    program = start(processes=2, drain_seconds=3600.0)
    port = program.wait_for("all-ready")["port"]
    raw = socket.create_connection(("127.0.0.1", port), SECONDS)
    with Wire(trusting(authority).wrap_socket(raw, server_hostname="localhost")) as wire:
        wire.send(call(review("hang")))
        program.process.send_signal(signal.SIGTERM)
        program.wait_for("ended")
        program.process.send_signal(signal.SIGTERM)
        assert program.end() == 1


def test_unexpected_errors_of_the_loop_are_told(serve: Serve) -> None:
    """What fails in a callback that nobody waits for is told with its traceback, and the server goes on."""

    def fail() -> None:
        raise RuntimeError("lost callback")

    def decide(endpoint: str, body: bytes) -> Answer:
        asyncio.get_running_loop().call_soon(fail)
        return allow(endpoint, body)

    server = serve(World(decide))
    with server.connect() as wire:
        assert wire.ask(call(review("a"))).uid == "a"
        assert server.wait_for("unexpected")["error"] == "RuntimeError: lost callback"
        assert wire.ask(call(review("b"))).uid == "b"


def _asked(port: int, authority: trustme.CA, uid: str) -> str:
    raw = socket.create_connection(("127.0.0.1", port), SECONDS)
    with Wire(trusting(authority).wrap_socket(raw, server_hostname="localhost")) as wire:
        return str(json.loads(wire.ask(call(review(uid))).body)["response"]["uid"])


def _page(port: int, path: str) -> bytes:
    with Wire(socket.create_connection(("127.0.0.1", port), SECONDS)) as wire:
        return wire.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).body


def _children(program: Program) -> list[int]:
    pid = program.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
