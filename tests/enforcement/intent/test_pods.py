"""The watch of a node's own pods, against a server that speaks the API server's list and watch over TLS."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from aiohttp import web

from noisegate.cluster.connection import Connection
from noisegate.enforcement.intent.intent import Sandbox, choose
from noisegate.enforcement.intent.pods import Pods
from noisegate.isolation import keys

DISK: Final = {keys.DISK: '{"data": {"limits": {"wbps": "4Mi"}}}'}
LESS: Final = {keys.DISK: '{"data": {"limits": {"wbps": "2Mi"}}}'}
SECONDS: Final = 20.0


def pod(
    uid: str, annotations: dict[str, str] | None = None, name: str = "", version: int = 1, **meta: Any
) -> dict[str, Any]:
    """Return a pod as the API server sends it: with much that nobody reads."""
    return {
        "metadata": {
            "uid": uid,
            "name": name or f"pod-{uid}",
            "namespace": "default",
            "resourceVersion": str(version),
            "annotations": {"someone/else": "x" * 100, **(annotations or {})},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
            **meta,
        },
        "spec": {
            "nodeName": "n1",
            "containers": [
                {
                    "name": "app",
                    "image": "busybox",
                    "env": [{"name": "A", "value": "b"}],
                    "resources": {"limits": {"cpu": "1"}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "token", "mountPath": "/t"}],
                }
            ],
            "initContainers": [{"name": "init", "volumeDevices": [{"name": "raw", "devicePath": "/dev/xda"}]}],
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "raw", "persistentVolumeClaim": {"claimName": "c"}}],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    }  # fmt: skip


def sandbox(uid: str, name: str = "", annotations: dict[str, str] | None = None) -> Sandbox:
    """Return a pod as the runtime knows it."""
    return Sandbox(uid, "default", name or f"pod-{uid}", annotations or {})


class Server:
    """Lists what is there, and sends what it is given to whoever watches.

    Attributes:
        there: What a list shows.
        asked: Queries of all calls.
        status: What every call is answered with; 200: properly.
    """

    def __init__(self) -> None:
        self.there: list[dict[str, Any]] = []
        self.asked: list[dict[str, str]] = []
        self.status = 200
        self.events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a call."""
        assert request.path == "/api/v1/pods"
        self.asked.append(dict(request.query))
        if self.status != 200:
            return web.json_response({"kind": "Status", "message": "pods is forbidden: no"}, status=self.status)
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": self.there})
        answer = web.StreamResponse()
        await answer.prepare(request)
        while (event := await self.events.get()) is not None:
            await answer.write(json.dumps(event).encode() + b"\n")
        return answer

    def send(self, kind: str, value: dict[str, Any]) -> None:
        """Have the watch tell something."""
        self.events.put_nowait({"type": kind, "object": value})


class Following:
    """Pods that are followed.

    Attributes:
        server: Where they are.
        pods: What is known of them.
        changed: Uids that were told to ask for something else.
    """

    def __init__(self, server: Server, connection: Connection) -> None:
        self.server = server
        self.changed: list[str] = []
        self.notes: list[tuple[str, str]] = []
        self.pods = Pods(
            "n1", connection, self.changed.append, lambda result, reason: self.notes.append((result, reason))
        )

    async def until(self, done: Callable[[], object]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(SECONDS):
            while not done():  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.005)

    def watched(self, uid: str, name: str = "") -> dict[str, str] | None:
        """Return the annotations that are known of a pod."""
        found = self.pods.get(sandbox(uid, name))
        return None if found is None else dict(found.annotations)


Follow = Callable[[], Awaitable[Following]]


@pytest.fixture(name="server")
def _server() -> Server:
    return Server()


@pytest.fixture(name="follow")
async def _follow(server: Server, tmp_path: Path) -> AsyncIterator[Follow]:
    authority = trustme.CA()
    (tmp_path / "ca.crt").write_bytes(authority.cert_pem.bytes())
    (tmp_path / "token").write_text("t")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    runner = web.ServerRunner(web.Server(server.handle), shutdown_timeout=0.1)  # type: ignore[arg-type]
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    connection = Connection(f"https://localhost:{runner.addresses[0][1]}", tmp_path)
    tasks: list[asyncio.Task[None]] = []

    async def follow() -> Following:
        following = Following(server, connection)
        tasks.append(asyncio.ensure_future(following.pods.follow()))
        return following

    yield follow
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    server.events.put_nowait(None)
    await connection.close()
    await runner.cleanup()


async def test_only_this_nodes_pods_are_asked_for(server: Server, follow: Follow) -> None:
    """By the list and by the watch."""
    following = await follow()
    await following.until(lambda: len(server.asked) == 2)
    assert [query["fieldSelector"] for query in server.asked] == ["spec.nodeName=n1"] * 2
    assert server.asked[1]["watch"] == "true"
    assert (following.pods.filled, following.pods.trouble) == (True, "")


async def test_of_a_pod_that_asks_there_is_what_is_read(server: Server, follow: Follow) -> None:
    """Our annotations, volumes and mounts; of a plain pod only that it is there."""
    server.there = [pod("a", DISK, version=5), pod("b")]
    following = await follow()
    await following.until(lambda: following.pods.filled)
    assert following.changed == ["a"]
    found = following.pods.get(sandbox("a"))
    assert found is not None
    assert (found.annotations, found.resource_version, found.terminating) == (DISK, "5", False)
    intent = choose(sandbox("a", annotations=LESS), found)
    assert (intent.source, intent.volumes, intent.problems) == ("watch", {"data": {"app": "/data"}}, ())
    plain = following.pods.get(sandbox("b"))
    assert plain is not None
    assert (plain.annotations, plain.spec, plain.resource_version) == ({}, None, "")
    assert following.pods.get(sandbox("c")) is None


async def test_a_change_is_told_once(server: Server, follow: Follow) -> None:
    """What a pod asks for, that it is being deleted; not what becomes of its status, nor a plain pod."""
    server.there = [pod("a", DISK)]
    following = await follow()
    await following.until(lambda: following.pods.filled)
    server.send("MODIFIED", pod("a", DISK, version=2))
    server.send("MODIFIED", pod("a", LESS, version=3))
    server.send("MODIFIED", pod("a", LESS, version=4))
    server.send("ADDED", pod("b", version=5))
    server.send("MODIFIED", pod("b", {"other": "y"}, version=6))
    server.send("ADDED", pod("c", DISK, version=7))
    await following.until(lambda: following.watched("c"))
    assert following.changed == ["a", "a", "c"]
    assert following.watched("a") == LESS
    seen = following.pods.get(sandbox("a"))
    assert seen is not None
    assert seen.resource_version == "3"
    server.send("MODIFIED", pod("a", LESS, version=8, deletionTimestamp="2026-01-01T00:00:00Z"))
    await following.until(lambda: len(following.changed) == 4)
    server.send("MODIFIED", pod("c", version=9))
    await following.until(lambda: following.watched("c") == {})
    assert following.changed[3:] == ["a", "c"]


async def test_a_pod_that_is_gone_is_not_known(server: Server, follow: Follow) -> None:
    """Its successor of the same name is another pod."""
    server.there = [pod("a", DISK, "app-0")]
    following = await follow()
    await following.until(lambda: following.pods.filled)
    server.send("DELETED", pod("a", DISK, "app-0", version=2))
    server.send("ADDED", pod("b", LESS, "app-0", version=3))
    await following.until(lambda: following.watched("b", "app-0"))
    assert following.watched("a", "app-0") is None
    assert following.changed == ["a", "b"]


async def test_a_static_pod_is_found_by_its_image(server: Server, follow: Follow) -> None:
    """The image names the uid that the runtime knows; it must bear the same name, and a pod of that uid goes first."""
    server.there = [
        pod("m1", {**DISK, keys.MIRROR: "hash"}, "static-n1"),
        pod("m2", {**LESS, keys.MIRROR: "hash"}, "forged"),
        pod("m3", {**LESS, keys.MIRROR: "real"}, "pod-real"),
        pod("real", DISK, "pod-real-2"),
    ]
    following = await follow()
    await following.until(lambda: following.pods.filled)
    found = following.pods.get(sandbox("hash", "static-n1"))
    assert found is not None
    assert (found.uid, found.mirror, found.annotations) == ("hash", True, DISK)
    assert following.pods.get(sandbox("hash", "another")) is None
    assert following.pods.get(sandbox("m1", "static-n1")) is None
    real = following.pods.get(sandbox("real", "pod-real"))
    assert real is not None
    assert (real.mirror, real.annotations) == (False, DISK)


async def test_a_static_pod_of_a_new_file_is_another_pod(server: Server, follow: Follow) -> None:
    """It has a new hash; its image asks for the same."""
    server.there = [pod("m1", {**DISK, keys.MIRROR: "one"}, "static-n1")]
    following = await follow()
    await following.until(lambda: following.pods.filled)
    server.send("MODIFIED", pod("m2", {**DISK, keys.MIRROR: "two"}, "static-n1", version=2))
    await following.until(lambda: following.watched("two", "static-n1"))
    assert following.watched("one", "static-n1") is None
    assert following.changed == ["one", "two"]


async def test_without_rights_it_says_what_to_do(server: Server, follow: Follow) -> None:
    """Nothing is known, nothing fails, and as soon as it may, it knows."""
    server.status = 403
    server.there = [pod("a", DISK)]
    following = await follow()
    await following.until(lambda: following.notes)
    assert following.notes[0] == (
        "failed",
        "pods is forbidden: no (403); bind the ClusterRole noisegate-node to noisegate's ServiceAccount",
    )
    assert following.pods.trouble == following.notes[0][1]
    assert (following.pods.filled, following.watched("a"), following.pods.heard) == (False, None, 0.0)
    server.status = 200
    await following.until(lambda: following.watched("a"))
    assert following.pods.trouble == ""
    assert following.pods.heard > 0


async def test_while_the_api_server_is_away_it_keeps_what_it_knows(server: Server, follow: Follow) -> None:
    """And says that it is away; what changed meanwhile is told afterwards."""
    server.there = [pod("a", DISK), pod("b", DISK)]
    following = await follow()
    await following.until(lambda: len(server.asked) == 2)
    server.status = 503
    server.events.put_nowait(None)
    await following.until(lambda: following.pods.trouble)
    assert following.watched("a") == DISK
    server.there = [pod("a", LESS, version=9)]
    server.status = 200
    server.send("ERROR", {"code": 410, "message": "too old"})
    await following.until(lambda: following.watched("a") == LESS)
    assert following.watched("b") is None
    assert following.changed == ["a", "b", "a"]
