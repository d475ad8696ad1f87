"""What must be waited for before a review is decided, and what is done about it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from builders import container, pod, review

from noisegate.cluster.connection import ApiError, Connection
from noisegate.cluster.reflector import Meta
from noisegate.isolation.catalogue import Claim, Network, StorageClass
from noisegate.service.log import Log
from noisegate.webhook import live
from noisegate.webhook.live import KINDS, Live
from noisegate.webhook.metrics import Metrics

NETWORKS: Final = "k8s.v1.cni.cncf.io/networks"
DISK: Final = {"blockio.kubernetes.io/resources": '{"data": {"limits": {"rbps": "50Mi"}}}'}


class Cluster(Connection):
    """An API server whose objects can be asked for by path, as slowly as a test wants: the real one is in tests/apiserver."""

    def __init__(self) -> None:
        super().__init__("https://nowhere", Path())
        self.objects: dict[str, Any] = {}
        self.asked: list[str] = []
        self.gate: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)

    async def get(self, path: str, **params: str) -> bytes:
        """Return an object, or an empty list."""
        self.asked.append(path)
        if "limit" in params:
            return b'{"metadata": {"resourceVersion": "1"}, "items": []}'
        await self.gate()
        found = self.objects.get(path)
        if isinstance(found, Exception):
            raise found
        if found is None:
            raise ApiError(404, "not found")
        return json.dumps(found).encode()

    async def watch(self, path: str, **params: str) -> AsyncIterator[bytes]:
        """Yield nothing, for ever."""
        del path, params
        yield b""
        await asyncio.Event().wait()


class Lab:
    """A live catalogue, its cluster, and what it published."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.published: list[tuple[str, dict[str, Any]]] = []
        self.now = 100.0
        self.live = Live(
            ("networks", "claims", "storageClasses"),
            self.cluster,
            lambda kind, found: self.published.append((kind, dict(found))),
            lambda: self.now,
        )

    async def ask(self, value: Any, **request: Any) -> list[str]:
        """Wait for what a review has to wait for; return what was asked."""
        self.cluster.asked.clear()
        wait = self.live.prefetch(review(value, **request))
        if wait is not None:
            await wait
        return self.cluster.asked


@pytest.fixture(name="lab")
async def _lab() -> Lab:
    return Lab()


def path_of(name: str, namespace: str = "default") -> str:
    """Return a network's path."""
    return f"/apis/k8s.cni.cncf.io/v1/namespaces/{namespace}/network-attachment-definitions/{name}"


def on_claim(name: Any) -> dict[str, Any]:
    """Return a pod that limits a claim's disk."""
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": name}}, {"name": "e", "emptyDir": {}}]
    return pod(DISK, volumes=volumes)


@pytest.mark.parametrize(
    ("value", "request_"),
    [
        (pod(), {}),
        (pod({"networkio.kubernetes.io/resources": "{}"}), {}),
        (pod({NETWORKS: "a"}), {"operation": "UPDATE", "old": pod()}),
        (pod({NETWORKS: "not a name"}), {}),
        (pod(DISK, volumes=[{"name": "data", "emptyDir": {}}]), {}),
        (on_claim(None), {}),
        ({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"annotations": {NETWORKS: "a"}}}, {}),
        ({"kind": NETWORKS}, {"kind": ""}),
    ],
    ids=["plain", "network", "update", "bad", "emptyDir", "no name", "template", "nothing"],
)
async def test_nothing_to_wait_for(lab: Lab, value: Any, request_: Any) -> None:
    """Reviews that name nothing to be looked up are decided at once."""
    assert await lab.ask(value, **request_) == []


async def test_a_body_that_is_no_review_is_left_to_the_decision(lab: Lab) -> None:
    """It is refused there."""
    assert lab.live.prefetch(b"{" + NETWORKS.encode()) is None


async def test_what_is_named_is_asked_for_once(lab: Lab) -> None:
    """Each missing network and claim, in the namespace it is meant in; then it is known."""
    given = {NETWORKS: "a,b,other/c,a", "v1.multus-cni.io/default-network": "d"}
    lab.cluster.objects[path_of("a")] = {
        "metadata": {
            "name": "a",
            "namespace": "default",
            "annotations": {"x": "y", "k8s.v1.cni.cncf.io/resourceName": "r"},
        },
        "spec": {"config": "{}"},
    }
    asked = await lab.ask(pod(given))
    assert sorted(asked) == sorted([path_of("a"), path_of("b"), path_of("c", "other"), path_of("d")])
    assert lab.published == [("networks", {"default/a": Network({"k8s.v1.cni.cncf.io/resourceName": "r"}, "{}")})]
    assert await lab.ask(pod(given)) == []
    lab.now += 1.0
    assert sorted(await lab.ask(pod(given))) == sorted([path_of("b"), path_of("c", "other"), path_of("d")])


async def test_claims_are_asked_for_where_a_disk_is_limited(lab: Lab) -> None:
    """And thousands of one class are one object."""
    path = "/api/v1/namespaces/default/persistentvolumeclaims/data"
    lab.cluster.objects[path] = {
        "metadata": {"name": "data", "namespace": "default"},
        "spec": {"storageClassName": "fast"},
    }
    assert await lab.ask(on_claim("data")) == [path]
    assert lab.published == [("claims", {"default/data": Claim("fast")})]
    assert lab.published[0][1]["default/data"] is live._claim_of("fast")


async def test_calls_that_wait_for_the_same_share_the_question(lab: Lab) -> None:
    """And one that gives up leaves it to the others."""
    gate = asyncio.Event()
    lab.cluster.gate = gate.wait
    body = review(pod({NETWORKS: "a"}))
    waits = [asyncio.ensure_future(_awaited(lab.live.prefetch(body))) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waits[0].cancel()
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*waits[1:])
    assert lab.cluster.asked == [path_of("a")]
    assert waits[0].cancelled()


async def _awaited(wait: Awaitable[None] | None) -> None:
    assert wait is not None
    await wait


async def test_what_is_missing_is_forgotten_in_bulk(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that clients make up do not fill the memory."""
    monkeypatch.setattr(live, "MOST_MISSING", 3)
    for number in range(10):
        await lab.ask(pod({NETWORKS: f"n{number}"}))
    assert len(lab.live._missing) <= 3


async def test_follow_counts_and_tells(lab: Lab) -> None:
    """Lists, look-ups and their failures are numbers and log lines; readiness waits for the first list of each kind."""
    assert [reason.partition(": ")[0] for reason in lab.live.reasons()] == [
        "waiting for the first list of network-attachment-definitions",
        "waiting for the first list of persistentvolumeclaims",
        "waiting for the first list of storageclasses",
    ]
    lines: list[dict[str, Any]] = []
    metrics = Metrics(["mutate"])
    follow = asyncio.ensure_future(lab.live.follow(metrics, Log(lambda line: lines.append(msgspec.json.decode(line)))))
    while lab.live.reasons():  # noqa: ASYNC110  (nobody tells of it)
        await asyncio.sleep(0)
    lab.cluster.objects[path_of("a")] = ApiError(403, "networks is forbidden: User x cannot get")
    await lab.ask(pod({NETWORKS: "a"}))
    await lab.ask(pod({NETWORKS: "b"}))

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert value("noisegate_lookups_total", kind="networks", result="failed") == 1
    assert value("noisegate_lookups_total", kind="networks", result="missing") == 1
    assert value("noisegate_catalogue_updates_total", kind="claims", result="listed") == 1
    assert value("noisegate_catalogue_objects", kind="storageClasses") == 0
    failed = next(line for line in lines if line["event"] == "lookup-failed")
    assert failed["reason"].endswith("(403); bind the ClusterRole noisegate-webhook to noisegate's ServiceAccount")
    lab.live._noting("claims")("failed", "away")
    assert lines[-1] | {"time": ""} == {
        "time": "",
        "level": "warning",
        "event": "catalogue",
        "what": "persistentvolumeclaims",
        "result": "failed",
        "reason": "away",
    }
    lab.live._reflectors["claims"].trouble = "away"
    assert [note.partition(" as of ")[0] for note in lab.live.notes()] == ["persistentvolumeclaims"]
    assert lab.live.notes()[0].endswith(" UTC: away")
    follow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await follow


@pytest.mark.parametrize(
    ("kind", "value", "entry"),
    [
        ("networks", {"spec": {"config": {"type": "sriov"}}}, Network({}, '{"type":"sriov"}')),
        ("networks", {}, Network({}, "")),
        ("claims", {"spec": {"storageClassName": None}}, Claim("")),
        ("claims", {}, Claim("")),
        ("storageClasses", {"provisioner": "p"}, StorageClass("p")),
        (
            "storageClasses",
            {"provisioner": "p", "metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}},
            StorageClass("p", default=True),
        ),
    ],
)
def test_what_is_kept_of_an_object(kind: Any, value: dict[str, Any], entry: object) -> None:
    """What the checks read, whatever else is there or absent."""
    read = msgspec.json.decode(json.dumps({"metadata": {}, **value}), type=KINDS[kind].object)
    assert KINDS[kind].entry(read) == entry
    assert isinstance(read.metadata, Meta)


def test_containers_are_not_needed(lab: Lab) -> None:
    """A pod without volumes asks for no claim."""
    assert lab.live.prefetch(review(pod(DISK, containers=[container()]))) is None
