"""Calls of the runtime and what is answered, over a real unix socket."""

import asyncio

import pytest
from nrilab import Lab, create, forever, pod, raises
from nriruntime import HEADER, SECONDS, Peer, Runtime

from noisegate.enforcement.nri import nri_pb2 as pb
from noisegate.enforcement.nri import service as service_module
from noisegate.enforcement.nri.events import Adjustment, Container, Sandbox
from noisegate.enforcement.refusal import Refusal


async def test_every_event(peer: Peer, lab: Lab) -> None:
    """Each call reaches its method with its pod and container, is answered with an empty message, and is observed."""
    lab.handler.heard.clear()
    lab.observed.clear()
    container = pb.Container(id="c1", name="app")
    for method, message in (
        ("RunPodSandbox", pb.RunPodSandboxRequest(pod=pod())),
        ("CreateContainer", create()),
        ("UpdateContainer", pb.UpdateContainerRequest(pod=pod(), container=container)),
        ("StopPodSandbox", pb.StopPodSandboxRequest(pod=pod())),
        ("RemovePodSandbox", pb.RemovePodSandboxRequest(pod=pod())),
        ("ValidateContainerAdjustment", pb.ValidateContainerAdjustmentRequest(pod=pod(), container=container)),
    ):
        said = await peer.call(method, message)
        assert (said.code, said.told) == (0, "")
        if method != "CreateContainer":
            assert said.payload == b""
    events = ["run", "create", "update", "stop", "remove", "validate"]
    assert [event for event, _ in lab.handler.heard] == events
    sandbox, container_ = Sandbox("s-web", "u-web", "web", "shop", namespaces_told=False), Container("c1", "", "app")
    assert lab.handler.heard[0] == ("run", (sandbox,))
    assert lab.handler.heard[2] == ("update", (sandbox, container_))
    await lab.until(lambda: len(lab.observed) == 6)
    assert {outcome for _, outcome in lab.observed} == {"ok"}
    assert all(0 <= seconds < SECONDS for seconds in lab.took)


@pytest.mark.parametrize(
    ("event", "heard"),
    [(pb.RUN_POD_SANDBOX, "run"), (pb.STOP_POD_SANDBOX, "stop"), (pb.REMOVE_POD_SANDBOX, "remove")],
)
async def test_events_of_older_runtimes(peer: Peer, lab: Lab, event: pb.Event, heard: str) -> None:
    """Before NRI 0.12 a pod's events come as StateChange; others that come so are answered and not heard."""
    lab.handler.heard.clear()
    assert (await peer.call("StateChange", pb.StateChangeEvent(event=event, pod=pod()))) == (0, "", b"")
    assert lab.handler.heard == [(heard, (Sandbox("s-web", "u-web", "web", "shop", namespaces_told=False),))]
    post_start = b"\x08\x07"
    async with asyncio.timeout(SECONDS):
        assert await peer.send("StateChange", post_start) == (0, "", b"")
    assert len(lab.handler.heard) == 1


async def test_an_adjustment(peer: Peer, lab: Lab) -> None:
    """What the handler returns is what the container is created with."""
    lab.handler.adjustment = Adjustment(clos_id="noisegate-gold")
    said = await peer.call("CreateContainer", create())
    assert pb.CreateContainerResponse.FromString(said.payload).adjust.linux.rdt.clos_id.value == "noisegate-gold"


async def test_a_large_adjustment(peer: Peer, lab: Lab) -> None:
    """More than 4096 bytes go in frames that the runtime takes (the test's runtime refuses longer ones)."""
    lab.handler.adjustment = Adjustment(unified={"io.max": "8:0 rbps=1\n" * 1000})
    said = await peer.call("CreateContainer", create())
    adjust = pb.CreateContainerResponse.FromString(said.payload).adjust
    assert dict(adjust.linux.resources.unified) == dict(lab.handler.adjustment.unified)


async def test_a_refusal(peer: Peer, lab: Lab) -> None:
    """The runtime is told why, the log too, and the plugin stays connected."""
    lab.handler.does["create"] = raises(Refusal("DeviceNotThrottled", "/dev/sda1 is a partition", "name the disk"))
    said = await peer.call("CreateContainer", create())
    assert said == (9, "noisegate: /dev/sda1 is a partition (name the disk)", b"")
    [line] = lab.told("nri-refused")
    assert (line["reason"], line["pod"], line["container"]) == ("DeviceNotThrottled", "shop/web", "app")
    assert lab.observed[-1] == ("CreateContainer", "refused")
    del lab.handler.does["create"]
    assert (await peer.call("CreateContainer", create())).code == 0


async def test_a_validation_that_is_refused(peer: Peer, lab: Lab) -> None:
    """It is answered as NRI wants it: the call succeeds, and its answer says no and why."""
    lab.handler.does["validate"] = raises(Refusal("GroupTaken", "20-rdt set the group"))
    said = await peer.call("ValidateContainerAdjustment", pb.ValidateContainerAdjustmentRequest(pod=pod()))
    assert said.code == 0
    answer = pb.ValidateContainerAdjustmentResponse.FromString(said.payload)
    assert (answer.reject, answer.reason) == (True, "20-rdt set the group")
    assert lab.observed[-1] == ("ValidateContainerAdjustment", "refused")


@pytest.mark.parametrize("error", [ValueError("oops"), asyncio.CancelledError("oops")], ids=["error", "cancelled"])
async def test_a_fault_of_the_handler(peer: Peer, lab: Lab, error: BaseException) -> None:
    """Any exception is an explicit error to the runtime and a traceback in the log; the plugin stays connected."""
    lab.handler.does["create"] = raises(error)
    said = await peer.call("CreateContainer", create())
    assert said == (13, f"noisegate: CreateContainer failed: {type(error).__name__}: oops", b"")
    [line] = lab.told("nri-failed")
    assert "in fail\n" in line["traceback"] or isinstance(error, asyncio.CancelledError)
    assert line["container_id"] == "c-app"
    assert lab.observed[-1] == ("CreateContainer", "failed")
    assert lab.plugin.status.connected


async def test_the_deadline(peer: Peer, lab: Lab) -> None:
    """A handler that is too slow is answered for before the runtime gives up, and cancelled; others go on."""
    cancelled = asyncio.Event()

    async def slow() -> None:
        try:
            await forever()
        finally:
            cancelled.set()

    lab.handler.does["slow"] = slow
    said = await peer.call("CreateContainer", create("slow"), seconds=0.04)
    assert said == (14, "noisegate: not done within 0.03 s", b"")
    async with asyncio.timeout(SECONDS):
        await cancelled.wait()
    assert lab.observed[-1] == ("CreateContainer", "late")
    [line] = lab.told("nri-late")
    assert (line["container"], line["seconds"]) == ("slow", 0.03)
    assert (await peer.call("CreateContainer", create())).code == 0


async def test_the_deadline_that_configure_gives(runtime: Runtime, lab: Lab) -> None:
    """Without a time in the call, 75 % of what Configure told counts; the shorter of both counts where both are told."""
    peer = await runtime.plugin()
    await peer.ready(request_timeout=40)
    lab.handler.does["create"] = forever
    for seconds in (0.0, 60.0):
        assert (await peer.call("CreateContainer", create(), seconds)).told == "noisegate: not done within 0.03 s"


async def test_the_deadline_that_nobody_gives(runtime: Runtime, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that tells no time-out has NRI's default one."""
    assert service_module.REQUEST_SECONDS == 2.0
    first = await runtime.plugin()
    monkeypatch.setattr(service_module, "REQUEST_SECONDS", 0.04)
    await first.close()
    peer = await runtime.plugin()
    await peer.ready(request_timeout=0)
    lab.handler.does["create"] = forever
    assert (await peer.call("CreateContainer", create(), 0.0)).told == "noisegate: not done within 0.03 s"


async def test_a_handler_that_does_not_end(peer: Peer, lab: Lab) -> None:
    """The runtime is answered in time even when the handler holds on after it was cancelled; its end is told."""
    go = asyncio.Event()

    async def stubborn() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            await go.wait()
            raise ValueError("too late") from None

    lab.handler.does["create"] = stubborn
    assert (await peer.call("CreateContainer", create(), seconds=0.04)).code == 14
    go.set()
    await lab.until(lambda: bool(lab.told("nri-failed-late")))
    assert lab.told("nri-failed-late")[0]["error"] == "ValueError: too late"


async def test_calls_are_served_at_the_same_time(peer: Peer, lab: Lab) -> None:
    """Each of several calls in one packet has its own answer: a slow one and a faulty one delay nobody."""
    go = asyncio.Event()

    async def slow() -> None:
        await go.wait()

    lab.handler.does = {"slow": slow, "faulty": raises(ValueError("oops"))}
    names = ["slow", "a", "faulty", "b"]
    answers = [peer.send("CreateContainer", create(name).SerializeToString()) for name in names]
    garbage = peer.send("CreateContainer", b"\xff")
    async with asyncio.timeout(SECONDS):
        assert [(await answer).code for answer in (*answers[1:], garbage)] == [0, 13, 0, 3]
        assert not answers[0].done()
        go.set()
        assert (await answers[0]).code == 0


async def test_what_it_does_not_serve(peer: Peer) -> None:
    """Methods and services that it does not know are refused as such, and a call without sense as such."""
    assert (await peer.call("PostCreateContainer", create())).code == 12
    assert (await peer.call("Shutdown", pb.Empty())).code == 0
    body = b"\x0a\x01x\x12\x01y"
    peer.asked[peer.stream] = answer = asyncio.get_running_loop().create_future()
    peer.frames(1, HEADER.pack(len(body), peer.stream, 1, 0) + body)
    async with asyncio.timeout(SECONDS):
        assert (await answer)[:2] == (12, "service x is not served here")


async def test_a_torn_call(peer: Peer) -> None:
    """A call may come in frames of one byte, and frames for connections that nobody opened are skipped."""
    peer.frames(7, b"for somebody else")
    assert (await peer.call("CreateContainer", create(), piece=1)).code == 0


async def test_a_thousand_containers(runtime: Runtime, lab: Lab) -> None:
    """Synchronize in parts, and everything is handed over once, while the runtime has long been answered."""
    peer = await runtime.plugin()
    await peer.register()
    await peer.configure()
    containers = []
    for number in range(1000):
        container = pb.Container(id=f"c{number}", pod_sandbox_id=f"s{number // 4}", name="app")
        for mount in range(20):
            container.mounts.add(destination=f"/m{mount}", source=f"/var/lib/kubelet/pods/{number}/volumes/{mount}")
        containers.append(container)
    go = asyncio.Event()

    async def wait() -> None:
        await go.wait()

    lab.handler.does["synchronize"] = wait
    await peer.synchronize([pod(f"p{number}") for number in range(250)], containers, parts=3)
    await lab.until(lambda: lab.plugin.status.connected)
    assert (lab.plugin.status.sandboxes, lab.plugin.status.containers) == (250, 1000)
    # Events come while everything is still being taken over.
    assert (await peer.call("CreateContainer", create())).code == 0
    assert lab.observed == [("CreateContainer", "ok")]
    go.set()
    await lab.until(lambda: len(lab.observed) == 2)
    (_, (sandboxes, taken)), *_ = (one for one in lab.handler.heard if one[0] == "synchronize")
    assert sorted(one.id for one in taken) == sorted(f"c{number}" for number in range(1000))
    assert all(len(one.mounts) == 20 for one in taken)
    assert len(sandboxes) == 250


@pytest.mark.parametrize(
    ("error", "outcome"), [(ValueError("oops"), "failed"), (Refusal("NoDisk", "no disk"), "refused")]
)
async def test_taking_over_fails(runtime: Runtime, lab: Lab, error: Exception, outcome: str) -> None:
    """It is told; the plugin is registered all the same, since refusing every container would mend nothing."""
    lab.handler.does["synchronize"] = raises(error)
    peer = await runtime.plugin()
    await peer.ready()
    await lab.until(lambda: lab.observed == [("Synchronize", outcome)])
    assert lab.told(f"nri-{outcome}")
    assert (await peer.call("CreateContainer", create())).code == 0
