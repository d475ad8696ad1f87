"""Events on pods, against a server over TLS that behaves as a test says."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from aiohttp import web

from noisegate.cluster.connection import Connection
from noisegate.enforcement.report import events as events_module
from noisegate.enforcement.report.events import AGAIN_SECONDS, ATTEMPTS, MOST_OF_ONE, MOST_PODS, Events, Pod
from noisegate.service.log import Log

POD: Final = Pod("default", "app-0", "uid-1")


class Lab:
    """Events, the server they go to, and what was logged.

    Attributes:
        statuses: What the next calls are answered with; then 201.
        bodies: What came, with its path.
    """

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self.lines: list[dict[str, Any]] = []
        self.pauses: list[float] = []
        self.now = 0.0
        self.events: Events
        self._task: asyncio.Task[None] | None = None

    async def handle(self, request: web.Request) -> web.Response:
        """Answer a call."""
        assert request.method == "POST"
        self.bodies.append((request.path, await request.json()))
        status = self.statuses.pop(0) if self.statuses else 201
        return web.json_response({"message": "because"}, status=status)

    async def pause(self, seconds: float) -> None:
        """Wait for no time."""
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    def make(self, connection: Connection) -> None:
        """Make the events."""
        log = Log(lambda line: self.lines.append(json.loads(line)), clock=lambda: 0.0, rate=10_000)
        self.events = Events(connection, "n1", log, lambda: self.now, self.pause)

    async def until(self, done: Callable[[], object]) -> None:
        """Write until something is so."""
        if self._task is None:
            self._task = asyncio.ensure_future(self.events.follow())
        async with asyncio.timeout(20):
            while not done():  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.005)

    def end(self) -> None:
        """Write no more."""
        if self._task is not None:
            self._task.cancel()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of one event."""
        return [line for line in self.lines if line["event"] == event]


@pytest.fixture(name="lab")
async def _lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab()
    authority = trustme.CA()
    (tmp_path / "ca.crt").write_bytes(authority.cert_pem.bytes())
    (tmp_path / "token").write_text("t")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    runner = web.ServerRunner(web.Server(lab.handle))  # type: ignore[arg-type]
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    connection = Connection(f"https://localhost:{runner.addresses[0][1]}", tmp_path)
    lab.make(connection)
    yield lab
    lab.end()
    await connection.close()
    await runner.cleanup()


async def test_an_event_says_everything(lab: Lab) -> None:
    """Which pod, by uid; reason, note, who tells it; in the pod's namespace, and in the log too."""
    lab.events.tell(POD, "DeviceNotThrottled", "8:1: ENODEV (name the whole disk)")
    await lab.until(lambda: lab.events.written == 1)
    ((path, body),) = lab.bodies
    assert path == "/apis/events.k8s.io/v1/namespaces/default/events"
    assert body["regarding"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "default",
        "name": "app-0",
        "uid": "uid-1",
    }
    assert (body["reason"], body["note"]) == ("DeviceNotThrottled", "8:1: ENODEV (name the whole disk)")
    assert (body["type"], body["reportingController"], body["reportingInstance"]) == (
        "Warning",
        "noisegate.io/enforcer",
        "n1",
    )
    assert lab.logged("event")[0]["pod"] == "default/app-0"


async def test_the_same_is_told_once_in_ten_minutes(lab: Lab) -> None:
    """Of one pod; another pod and another note are something else."""
    for _ in range(3):
        lab.events.tell(POD, "A", "one")
    lab.events.tell(POD, "A", "two")
    lab.events.tell(POD._replace(uid="uid-2"), "A", "one")
    lab.now = AGAIN_SECONDS - 1
    lab.events.tell(POD, "A", "one")
    lab.now = AGAIN_SECONDS
    lab.events.tell(POD, "A", "one")
    await lab.until(lambda: lab.events.written == 4)
    assert [body["note"] for _, body in lab.bodies] == ["one", "two", "one", "one"]


async def test_one_pod_cannot_flood(lab: Lab) -> None:
    """So many of one pod and no more; others are still told, and Events are paced."""
    for number in range(100):
        lab.events.tell(POD, "A", str(number))
    lab.events.tell(POD._replace(uid="uid-2"), "A", "x")
    await lab.until(lambda: lab.events.written == MOST_OF_ONE + 1)
    assert lab.bodies[-1][1]["regarding"]["uid"] == "uid-2"
    assert set(lab.pauses) == {events_module.PAUSE_SECONDS}


async def test_the_queue_and_the_memory_have_an_end(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing is written, `tell` returns at once; what is too much is counted and logged, and may be told again."""
    monkeypatch.setattr(events_module, "MOST_WAITING", 5)
    for number in range(MOST_PODS + 50):
        lab.events.tell(POD._replace(uid=str(number)), "A", "x")
    assert lab.events.lost == MOST_PODS + 45
    assert len(lab.events._told) == MOST_PODS
    assert lab.logged("event-not-written")[0]["why"] == "5 Events wait already"
    await lab.until(lambda: lab.events.written == 5)
    lab.events.tell(POD._replace(uid=str(MOST_PODS + 49)), "A", "x")
    await lab.until(lambda: lab.events.written == 6)


@pytest.mark.parametrize("note", ["x" * 5000, "\u00fc" * 1000, "\u20ac" * 342, "\ud800"])
async def test_a_note_fits(lab: Lab, note: str) -> None:
    """In the bytes that the API server takes, cut between characters."""
    lab.events.tell(POD, "R" * 500, note)
    await lab.until(lambda: lab.events.written == 1)
    body = lab.bodies[0][1]
    assert len(body["note"].encode()) <= 1024
    assert len(body["reason"]) == 128


async def test_an_api_server_that_stumbles_is_asked_again(lab: Lab) -> None:
    """With the same name, so that an answer that got lost makes no second Event."""
    lab.statuses = [503, 429, 409]
    lab.events.tell(POD, "A", "x")
    await lab.until(lambda: lab.events.written == 1)
    assert len({body["metadata"]["name"] for _, body in lab.bodies}) == 1
    assert len(lab.bodies) == 3
    assert lab.pauses[:2] == [1.0, 2.0]


async def test_an_api_server_that_is_away_is_given_up(lab: Lab) -> None:
    """With a line in the log; the next Event is tried anew, and this one too when it is told again."""
    lab.statuses = [500] * ATTEMPTS
    lab.events.tell(POD, "A", "x")
    await lab.until(lambda: lab.events.lost == 1)
    assert lab.logged("event-not-written")[0]["why"] == "because (500)"
    lab.events.tell(POD, "A", "x")
    await lab.until(lambda: lab.events.written == 1)
    assert len(lab.bodies) == ATTEMPTS + 1


async def test_a_refusal_is_not_tried_again(lab: Lab) -> None:
    """It would be refused again; what right is missing is said."""
    lab.statuses = [403]
    lab.events.tell(POD, "A", "x")
    await lab.until(lambda: lab.events.lost == 1)
    assert len(lab.bodies) == 1
    assert "bind the ClusterRole noisegate-node" in lab.logged("event-not-written")[0]["why"]
