"""What the enforcer knows from a real API server and tells it, with the rights that it needs and no others."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final

import pytest
from controlplane import Api, ControlPlane

from noisegate.cluster.connection import ApiError, Connection
from noisegate.enforcement.intent.intent import Sandbox, choose
from noisegate.enforcement.intent.pods import Pods
from noisegate.enforcement.report.events import Events, Pod
from noisegate.enforcement.report.node import Node, Standing
from noisegate.enforcement.rights import ROLE
from noisegate.isolation import keys
from noisegate.service.log import Log

pytestmark = pytest.mark.apiserver

NODE: Final = "node-1"
DISK: Final = {keys.DISK: '{"data": {"limits": {"wbps": "4Mi"}}}'}
LESS: Final = {keys.DISK: '{"data": {"limits": {"wbps": "2Mi"}}}'}
RULES: Final = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]},
    {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
]
RBAC: Final = "rbac.authorization.k8s.io/v1"


def pod(name: str, node: str = NODE, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    """Return a pod that was scheduled."""
    mounts = [{"name": "data", "mountPath": "/data"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "app", "image": "registry.k8s.io/pause:3.10", "volumeMounts": mounts}],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    }


@pytest.fixture(name="connection")
async def _connection(control_plane: ControlPlane, api: Api) -> AsyncIterator[Connection]:
    """A connection of the enforcer's ServiceAccount."""
    api.made({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "noisegate-node-test"}})
    account = {"name": "noisegate-node", "namespace": "noisegate-node-test"}
    api.made({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    api.made({"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": ROLE}, "rules": RULES})
    binding = {
        "apiVersion": RBAC,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "noisegate-node-test"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
        "subjects": [{"kind": "ServiceAccount", **account}],
    }
    assert api.call("POST", f"/apis/{RBAC}/clusterrolebindings", binding).status in {201, 409}
    api.made({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": {"zone": "a"}}})
    connection = Connection(control_plane.url, control_plane.account_folder("noisegate-node-test", "noisegate-node"))
    yield connection
    await connection.close()
    api.delete(f"/api/v1/nodes/{NODE}")


class Lines:
    """A log that is kept."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.log = Log(lambda line: self.lines.append(json.loads(line)))


async def until(done: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(30):
        while not done():  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.02)


async def test_the_pods_of_one_node(connection: Connection, api: Api, namespace: str) -> None:
    """Those of other nodes are not seen; live changes are; a pod that goes is not known any more."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    made = api.call("POST", path, pod("here", annotations=DISK)).body
    api.call("POST", path, pod("there", "node-2", DISK))
    changed: list[str] = []
    pods = Pods(NODE, connection, changed.append)
    task = asyncio.ensure_future(pods.follow())
    try:
        await until(lambda: pods.filled)
        uid = made["metadata"]["uid"]
        sandbox = Sandbox(uid, namespace, "here", DISK)
        seen = pods.get(sandbox)
        assert seen is not None
        intent = choose(sandbox, seen)
        assert (intent.source, intent.kinds, intent.volumes) == ("watch", ("disk",), {"data": {"app": "/data"}})
        assert intent.resource_version == made["metadata"]["resourceVersion"]
        assert changed == [uid]
        assert len(pods._known) == 1
        # A status alone is no change; an annotation is.
        api.patch(f"{path}/here/status", {"status": {"phase": "Running"}})
        api.patch(f"{path}/here", {"metadata": {"annotations": LESS}})
        await until(lambda: len(changed) == 2)
        request = choose(sandbox, pods.get(sandbox)).asked.disk
        assert request is not None
        assert request.volumes[0].wbps.limit == 2 << 20
        api.delete(f"{path}/here")
        await until(lambda: pods.get(sandbox) is None)
        assert pods.trouble == ""
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_an_event_is_taken_and_found_by_its_pod(connection: Connection, api: Api, namespace: str) -> None:
    """The API server's own validation takes it, its longest note too; it is found as `kubectl describe pod` looks for it."""
    uid = api.call("POST", f"/api/v1/namespaces/{namespace}/pods", pod("app")).body["metadata"]["uid"]
    kept = Lines()
    events = Events(connection, NODE * 40, kept.log)
    events.tell(Pod(namespace, "app", uid), "DeviceNotThrottled", "8:1: ENODEV (name the whole disk)")
    events.tell(Pod(namespace, "app", uid), "Long" * 100, "\u20ac" * 1000)
    events.tell(Pod("no-such-namespace", "app", uid), "A", "x")
    task = asyncio.ensure_future(events.follow())
    try:
        await until(lambda: events.written + events.lost == 3)
    finally:
        task.cancel()
    assert (events.written, events.lost) == (2, 1)
    found = api.get(f"/api/v1/namespaces/{namespace}/events", fieldSelector=f"involvedObject.uid={uid}").body["items"]
    notes = {one["reason"][:18]: one["message"] for one in found}
    assert notes["DeviceNotThrottled"] == "8:1: ENODEV (name the whole disk)"
    assert len(notes["LongLongLongLongLo"].encode()) <= 1024
    assert {one["type"] for one in found} == {"Warning"}


async def test_labels_and_condition_of_a_node(connection: Connection, api: Api) -> None:
    """Set, put right, and taken away at the end; the kubelet's own conditions stay beside ours."""
    path = f"/api/v1/nodes/{NODE}"
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "as a kubelet writes it"}
    strategic = "application/strategic-merge-patch+json"
    assert api.patch(f"{path}/status", {"status": {"conditions": [ready]}}, strategic).status == 200
    node = Node(connection, NODE, Lines().log, look=0.1)
    node.say(Standing(frozenset({"disk"}), {"network": "no ifb (modprobe ifb)"}))
    task = asyncio.ensure_future(node.follow())

    def own() -> dict[str, str]:
        there = api.get(path).body["metadata"]["labels"]
        assert there["zone"] == "a"
        return {key: value for key, value in there.items() if key.startswith("noisegate.io/")}

    def conditions() -> dict[str, dict[str, Any]]:
        return {one["type"]: one for one in api.get(path).body["status"]["conditions"]}

    try:
        await until(lambda: own() == {"noisegate.io/enforces-disk": "true"})
        await until(lambda: "NoisegateReady" in conditions())
        ours = conditions()["NoisegateReady"]
        assert (ours["status"], ours["reason"]) == ("True", "PartlyEnforcing")
        assert ours["message"] == "enforced: disk; missing: network: no ifb (modprobe ifb)"
        assert conditions()["Ready"]["reason"] == "KubeletReady"
        version = api.get(path).body["metadata"]["resourceVersion"]
        await asyncio.sleep(0.5)
        assert api.get(path).body["metadata"]["resourceVersion"] == version
        api.patch(path, {"metadata": {"labels": {"noisegate.io/enforces-disk": None}}})
        await until(own)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await node.leave()
    assert own() == {}
    assert (conditions()["NoisegateReady"]["status"], conditions()["NoisegateReady"]["reason"]) == ("False", "Stopped")
    assert conditions()["Ready"]["reason"] == "KubeletReady"


@pytest.mark.parametrize(
    "path",
    ["/api/v1/secrets", "/api/v1/nodes", "/api/v1/namespaces/default/configmaps"],
)
async def test_nothing_else_is_allowed(connection: Connection, path: str) -> None:
    """Neither secrets nor other nodes' list: the rights are those that are used."""
    with pytest.raises(ApiError) as refused:
        await connection.get(path)
    assert refused.value.status == 403
