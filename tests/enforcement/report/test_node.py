"""Labels and condition of a node, against a server over TLS that keeps one node."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from noisegate.cluster.connection import MERGE_PATCH, STRATEGIC_MERGE_PATCH, Connection
from noisegate.enforcement.report.node import (
    KINDS,
    LONGEST_MESSAGE,
    Enforced,
    Node,
    OwnPod,
    Standing,
    condition,
    labels,
)
from noisegate.service.log import Log

BOTH: Final = Standing(frozenset({"disk", "network"}), {"rdt": "no resctrl (mount it)"})
DISK: Final = "noisegate.io/enforces-disk"
NETWORK: Final = "noisegate.io/enforces-network"


class Lab:
    """A node, and the server that has it.

    Attributes:
        labels: Of the node.
        conditions: Of the node, by type.
        writes: Path and body of each patch.
        status: What every call is answered with; 200: properly.
        pods: Their metadata, by path.
    """

    def __init__(self) -> None:
        self.labels = {"kubernetes.io/hostname": "n1"}
        self.conditions: dict[str, dict[str, Any]] = {
            "Ready": {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        }
        self.writes: list[tuple[str, Any]] = []
        self.lines: list[dict[str, Any]] = []
        self.status = 200
        self.looks = 0
        self.pods: dict[str, dict[str, Any]] = {}
        self.connection: Connection
        self.node: Node

    def says(self, pod: OwnPod | None = None) -> Node:
        """Return what says something of the node: on the host itself, or in a pod."""
        return Node(self.connection, "n1", Log(lambda line: self.lines.append(json.loads(line))), pod, look=0.02)

    async def handle(self, request: web.Request) -> web.Response:
        """Answer a call, as far as patches of labels and conditions go."""
        if self.status != 200:
            return web.json_response({"message": "no"}, status=self.status)
        if "/pods/" in request.path:
            pod = self.pods.get(request.path)
            return web.json_response({"metadata": pod} if pod else {"message": "no"}, status=200 if pod else 404)
        if request.method == "GET":
            self.looks += 1
            status = {"conditions": list(self.conditions.values()), "images": [{"names": ["x"]}]}
            return web.json_response({"metadata": {"name": "n1", "labels": self.labels}, "status": status})
        patch = await request.json()
        self.writes.append((request.path, patch))
        if request.path.endswith("/status"):
            assert request.content_type == STRATEGIC_MERGE_PATCH
            for one in patch["status"]["conditions"]:
                self.conditions[one["type"]] = self.conditions.get(one["type"], {}) | one
        else:
            assert request.content_type == MERGE_PATCH
            for key, value in patch["metadata"]["labels"].items():
                self.labels.pop(key, None)
                if value is not None:
                    self.labels[key] = value
        return web.json_response({})

    @property
    def own(self) -> dict[str, str]:
        """Our labels."""
        return {key: value for key, value in self.labels.items() if key.startswith("noisegate.io/")}

    async def while_following(self, done: Callable[[], object]) -> None:
        """Follow until something is so."""
        task = asyncio.ensure_future(self.node.follow())
        try:
            async with asyncio.timeout(20):
                while not done():  # noqa: ASYNC110  (nobody tells)
                    await asyncio.sleep(0.005)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


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
    lab.connection = Connection(f"https://localhost:{runner.addresses[0][1]}", tmp_path)
    lab.node = lab.says()
    yield lab
    await lab.connection.close()
    await runner.cleanup()


async def test_labels_and_condition_say_what_is_on(lab: Lab) -> None:
    """And what is missing; what others wrote stays."""
    lab.node.say(BOTH)
    await lab.node.write()
    assert lab.own == {DISK: "true", NETWORK: "true"}
    assert lab.labels["kubernetes.io/hostname"] == "n1"
    ours = lab.conditions["NoisegateReady"]
    assert (ours["status"], ours["reason"]) == ("True", "PartlyEnforcing")
    assert ours["message"] == "enforced: disk, network; missing: rdt: no resctrl (mount it)"
    assert lab.conditions["Ready"] == {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    assert lab.node.trouble == ""


async def test_what_waits_for_the_runtime_keeps_its_label(lab: Lab) -> None:
    """It is not given one either; what must go goes, and the condition stays as it is until it is settled."""
    lab.labels[DISK] = "true"
    lab.labels["noisegate.io/enforces-rdt"] = "true"
    waits = Standing(frozenset(), dict.fromkeys(KINDS, "away"), frozenset({"disk", "network"}))
    lab.node.say(waits, settled=False)
    await lab.while_following(lambda: lab.own == {DISK: "true"})
    assert "NoisegateReady" not in lab.conditions
    lab.node.say(waits)
    await lab.node.write()
    assert (lab.own, lab.conditions["NoisegateReady"]["reason"]) == ({DISK: "true"}, "NotEnforcing")
    lab.node.say(waits._replace(waiting=frozenset()))
    await lab.node.write()
    assert lab.own == {}


async def test_nothing_is_written_where_nothing_differs(lab: Lab) -> None:
    """Looks cost an API server little, writes cost it more; there is no heartbeat for its own sake."""
    lab.node.say(BOTH)
    await lab.while_following(lambda: lab.looks > 5)
    assert [path for path, _ in lab.writes] == ["/api/v1/nodes/n1", "/api/v1/nodes/n1/status"]


async def test_only_what_differs_is_written(lab: Lab) -> None:
    """A label that is right already is not sent."""
    lab.labels[DISK] = "true"
    lab.labels["noisegate.io/enforces-rdt"] = "true"
    lab.node.say(BOTH)
    await lab.node.write()
    assert lab.writes[0][1] == {"metadata": {"labels": {NETWORK: "true", "noisegate.io/enforces-rdt": None}}}


async def test_what_others_change_is_put_right(lab: Lab) -> None:
    """A label that was taken away or changed, and a condition that somebody else wrote."""
    lab.node.say(BOTH)
    # The condition is written after the labels.
    await lab.while_following(lambda: "NoisegateReady" in lab.conditions)
    del lab.labels[DISK]
    lab.labels[NETWORK] = "false"
    lab.conditions["NoisegateReady"]["status"] = "Unknown"
    await lab.while_following(lambda: lab.conditions["NoisegateReady"]["status"] == "True")
    assert lab.own == {DISK: "true", NETWORK: "true"}


async def test_a_transition_is_when_the_status_changes(lab: Lab) -> None:
    """Another message is a heartbeat; another status is a transition."""
    lab.node.say(BOTH)
    await lab.node.write()
    lab.conditions["NoisegateReady"]["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    lab.node.say(Standing(frozenset(KINDS)))
    await lab.node.write()
    assert lab.conditions["NoisegateReady"]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert lab.conditions["NoisegateReady"]["reason"] == "Enforcing"
    lab.node.say(Standing(frozenset(), {"disk": "cgroup v1"}))
    await lab.node.write()
    assert lab.conditions["NoisegateReady"]["lastTransitionTime"] > "2026-01-01T00:00:00Z"
    assert (lab.conditions["NoisegateReady"]["status"], lab.own) == ("False", {})


async def test_nothing_is_said_before_something_is_known(lab: Lab) -> None:
    """Labels of an enforcer that died stay until the preflight is over."""
    lab.labels[DISK] = "true"
    task = asyncio.ensure_future(lab.node.follow())
    await asyncio.sleep(0.1)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert (lab.looks, lab.writes, lab.own) == (0, [], {DISK: "true"})


async def test_a_clean_stop_takes_the_labels_away(lab: Lab) -> None:
    """All of them, whoever set them, and the condition says why; without a look before."""
    lab.node.say(BOTH)
    await lab.node.write()
    lab.labels["noisegate.io/enforces-rdt"] = "true"
    looks = lab.looks
    await lab.node.leave()
    assert lab.own == {}
    assert (lab.conditions["NoisegateReady"]["status"], lab.conditions["NoisegateReady"]["reason"]) == (
        "False",
        "Stopped",
    )
    assert lab.looks == looks


@pytest.mark.parametrize(
    ("metadata", "leaves"),
    [
        ({"uid": "u1", "deletionTimestamp": "2026-01-01T00:00:00Z"}, True),
        ({"uid": "u2"}, True),
        (None, True),
        ({"uid": "u1"}, False),
    ],
    ids=["deleted", "another", "gone", "stays"],
)
async def test_labels_stay_with_our_pod(lab: Lab, metadata: dict[str, Any] | None, leaves: bool) -> None:
    """A reboot stops the enforcer too: without labels the kubelet would then end every pod that asks."""
    if metadata is not None:
        lab.pods["/api/v1/namespaces/ns/pods/enforcer-x"] = metadata
    node = lab.says(OwnPod("ns", "enforcer-x", "u1"))
    node.say(BOTH)
    await node.write()
    await node.leave()
    assert lab.own == ({} if leaves else {DISK: "true", NETWORK: "true"})
    ours = lab.conditions["NoisegateReady"]
    assert (ours["status"], ours["reason"]) == ("False", "Stopped" if leaves else "Restarting")


async def test_labels_stay_where_nobody_says_whether_our_pod_does(lab: Lab) -> None:
    """Without them pods that run could end; with them new ones wait, and say for what."""
    node = lab.says(OwnPod("ns", "enforcer-x", "u1"))
    node.say(BOTH)
    await node.write()
    lab.status = 403
    await node.leave()
    assert lab.own == {DISK: "true", NETWORK: "true"}
    assert "ClusterRole noisegate-node" in lab.lines[-1]["reason"]


async def test_an_api_server_that_is_away_ends_no_stop_and_is_tried_again(lab: Lab) -> None:
    """What right is missing is said; when it is given, everything is written."""
    lab.status = 403
    lab.node.say(BOTH)
    await lab.while_following(lambda: lab.node.trouble != "not written yet")
    assert lab.node.trouble == "no (403); bind the ClusterRole noisegate-node to noisegate's ServiceAccount"
    await lab.node.leave()
    assert [line["event"] for line in lab.lines] == ["node-not-written", "node-not-written"]
    lab.status = 200
    await lab.while_following(lambda: lab.node.trouble == "")
    assert lab.own == {DISK: "true", NETWORK: "true"}


@given(
    st.sets(st.sampled_from(KINDS)),
    st.dictionaries(st.sampled_from(KINDS), st.text(st.characters(exclude_categories=["Cs"]), max_size=600)),
)
def test_labels_and_condition_agree(on: set[Enforced], missing: dict[Enforced, str]) -> None:
    """A label for each kind that is on; the condition is true where there is one, and its message has an end."""
    standing = Standing(on, missing)
    said = labels(standing)
    assert said.keys() == {f"noisegate.io/enforces-{kind}" for kind in KINDS}
    assert {key for key, value in said.items() if value == "true"} == {f"noisegate.io/enforces-{kind}" for kind in on}
    assert set(said.values()) <= {"true", None}
    told = condition(standing)
    assert (told.status == "True") is bool(on)
    assert len(told.message) <= LONGEST_MESSAGE
