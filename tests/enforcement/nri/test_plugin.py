"""The plugin comes, stays and goes: at a runtime that does the same, over a real unix socket."""

import asyncio
from itertools import islice
from pathlib import Path

import pytest
from nrilab import Lab, create, forever, pod, running
from nriruntime import SECONDS, Peer, Runtime

from noisegate.enforcement.nri import nri_pb2 as pb
from noisegate.enforcement.nri import plugin as plugin_module
from noisegate.enforcement.nri.plugin import LONGEST_PAUSE, Plugin, Status, backoff
from noisegate.service.log import Log


@pytest.mark.parametrize("first", ["register", "configure"])
async def test_registration(runtime: Runtime, lab: Lab, first: str) -> None:
    """It says who it is and which events it wants, whether its registration is answered before Configure or after."""
    peer = await runtime.plugin()
    if first == "register":
        await peer.register()
    assert await peer.configure() == 0b10_0000_1000_1111
    if first == "configure":
        await peer.register()
    assert (await peer.registered) == pb.RegisterPluginRequest(
        plugin_name="noisegate", plugin_idx="10", nri_version="v0.12.3"
    )
    assert not lab.plugin.status.connected
    await peer.synchronize([pod()], [pb.Container(id="c1"), pb.Container(id="c2")])
    await lab.until(lambda: lab.plugin.status.connected)
    status = lab.plugin.status
    assert (status.runtime, status.sandboxes, status.containers) == (("containerd", "v2.4.2", "v0.12.3"), 1, 2)
    assert (status.connections, status.error, status.since) == (1, "", 1000.0)
    await lab.until(lambda: bool(lab.observed))
    [(event, (sandboxes, containers))] = lab.handler.heard
    assert (event, [one.id for one in sandboxes], [one.id for one in containers]) == (
        "synchronize", ["s-web"], ["c1", "c2"],
    )  # fmt: skip
    assert lab.observed == [("Synchronize", "ok")]


@pytest.mark.usefixtures("peer")
async def test_the_runtime_goes_away_and_comes_back(runtime: Runtime, lab: Lab) -> None:
    """The plugin sees it, says it, tries again until it is connected, and takes everything over anew."""
    await runtime.stop()
    await lab.until(lambda: lab.plugin.status.attempts >= 3)
    status = lab.plugin.status
    assert (status.connected, status.runtime.name) == (False, "containerd")
    assert status.error == f"{runtime.path}: Connection refused"
    assert [line["error"] for line in lab.told("nri-disconnected")] == ["the runtime closed the connection"]
    assert len(lab.told("nri-not-connected")) == len({line["error"] for line in lab.told("nri-not-connected")})
    await runtime.start()
    again = await runtime.plugin()
    await again.ready()
    await lab.until(lambda: lab.plugin.status.connected)
    await lab.until(lambda: lab.observed.count(("Synchronize", "ok")) == 2)
    assert lab.plugin.status.connections == 2
    assert lab.plugin.status.error == ""


async def test_the_runtime_dies_in_a_call(runtime: Runtime, lab: Lab, peer: Peer) -> None:
    """The handler's work goes on to its end, its answer falls to the ground, and the next connection is served."""
    begun, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        begun.set()
        await go.wait()
        done.set()

    lab.handler.does["slow"] = slow
    unanswered = peer.send("CreateContainer", create("slow").SerializeToString(), 60.0)
    async with asyncio.timeout(SECONDS):
        await begun.wait()
        await peer.close()
        again = await runtime.plugin()
        await again.ready()
        go.set()
        await done.wait()
    await lab.until(lambda: ("CreateContainer", "ok") in lab.observed)
    assert not unanswered.done()
    assert (await again.call("CreateContainer", create())).code == 0


async def test_taking_over_ends_with_the_connection(runtime: Runtime, lab: Lab) -> None:
    """What an ended connection told is given up: two must not be taken over at the same time."""
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await forever()
        finally:
            ended.set()

    lab.handler.does["synchronize"] = wait
    peer = await runtime.plugin()
    await peer.ready()
    await lab.until(lambda: lab.plugin.status.connected)
    await peer.call("CreateContainer", create())
    assert not ended.is_set()
    await peer.close()
    async with asyncio.timeout(SECONDS):
        await ended.wait()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x00\x00\x00\x00\x00\x00\x00\x01", "the runtime sent a frame for connection 0, which is reserved"),
        (b"GET / HTTP/1.1\r\n\r\n", "the runtime sent a frame of 790644820 bytes; at most 4194314 are allowed"),
    ],
)
async def test_a_peer_that_speaks_something_else(runtime: Runtime, lab: Lab, data: bytes, told: str) -> None:
    """It is left with a clear word, and tried again later."""
    peer = await runtime.plugin()
    peer.writer.write(data)
    await lab.until(lambda: lab.plugin.status.error == told)
    async with asyncio.timeout(SECONDS):
        await peer.gone.wait()
    assert await runtime.plugin() is not peer


async def test_a_registration_that_is_refused(runtime: Runtime, lab: Lab) -> None:
    """The runtime's reason is what the status says."""
    await (await runtime.plugin()).register("invalid plugin name")
    await lab.until(lambda: "invalid plugin name" in lab.plugin.status.error)
    assert lab.plugin.status.error == "the runtime refused RegisterPlugin: invalid plugin name"


async def test_a_runtime_that_is_too_old(runtime: Runtime, lab: Lab) -> None:
    """One that knows no validation closes the connection at Configure: the status says what is needed."""
    peer = await runtime.plugin()
    await peer.register()
    await peer.configure(nri_version="")
    await peer.close()
    await lab.until(lambda: lab.plugin.status.error != "")
    assert lab.plugin.status.error == (
        "containerd v2.4.2 closed the connection after Configure; before containerd 2.2 (NRI 0.10) a runtime does so "
        "because it knows no plugin that validates"
    )


async def test_a_runtime_that_hangs_up_after_the_registration(runtime: Runtime, lab: Lab) -> None:
    """As it does when a plugin before us keeps it from going on: nothing is said of its age."""
    peer = await runtime.plugin()
    await peer.register()
    await peer.close()
    await lab.until(lambda: lab.plugin.status.error == "the runtime closed the connection")


async def test_a_runtime_that_hangs_up_at_once(runtime: Runtime, lab: Lab) -> None:
    """Even before it has said a word."""
    peer = await runtime.plugin()
    await peer.close()
    await lab.until(lambda: lab.plugin.status.error == "the runtime closed the connection")


@pytest.mark.parametrize("silent", ["registration", "synchronization"])
async def test_a_runtime_that_is_silent(
    runtime: Runtime, lab: Lab, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    """It is not waited for without end: the status says what did not come, and the next attempt begins."""
    first = await runtime.plugin()
    monkeypatch.setattr(plugin_module, "REGISTERED_SECONDS", 0.05)
    await first.close()
    peer = await runtime.plugin()
    if silent == "synchronization":
        await peer.register()
    told = {
        "registration": "the runtime did not answer RegisterPlugin within 0.05 s",
        "synchronization": "the runtime did not synchronize within 0.05 s",
    }[silent]
    await lab.until(lambda: any(status.error == told for status in lab.statuses))


async def test_a_clean_stop(runtime: Runtime) -> None:
    """A call under way is answered before the connection is closed; then nobody connects again."""
    lab = Lab(runtime.path)
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        begun.set()
        await go.wait()

    lab.handler.does["create"] = slow
    run = asyncio.ensure_future(lab.plugin.run(lab.stop))
    peer = await runtime.plugin()
    await peer.ready()
    answer = peer.send("CreateContainer", create().SerializeToString())
    async with asyncio.timeout(SECONDS):
        await begun.wait()
        lab.stop.ask()
        go.set()
        assert (await answer).code == 0
        await run
        await peer.gone.wait()
    assert runtime.arrived.empty()
    assert lab.plugin.status.error == "stopped"
    assert lab.told("nri-left")
    assert not lab.told("nri-disconnected")


async def test_a_stop_that_insists(runtime: Runtime) -> None:
    """The second wish does not wait for a call under way: its handler is cancelled."""
    lab = Lab(runtime.path)
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        begun.set()
        try:
            await forever()
        finally:
            cancelled.set()

    lab.handler.does["create"] = slow
    async with running(lab):
        peer = await runtime.plugin()
        await peer.ready()
        unanswered = peer.send("CreateContainer", create().SerializeToString(), 60.0)
        await begun.wait()
    assert cancelled.is_set()
    assert not unanswered.done()


async def test_a_stop_without_a_runtime(tmp_path: Path) -> None:
    """There is nobody to leave: it ends at once."""
    lab = Lab(tmp_path / "nobody.sock")
    async with running(lab):
        await lab.until(lambda: lab.plugin.status.attempts == 1)
    assert lab.told("nri-not-connected")[0]["error"] == f"{tmp_path / 'nobody.sock'}: No such file or directory"


async def test_the_status_is_told(runtime: Runtime, lab: Lab, peer: Peer) -> None:
    """Whoever follows the status hears of every connection and its end."""
    await peer.close()
    await runtime.plugin()
    assert [status.connected for status in lab.statuses][:2] == [True, False]


async def test_a_fault_of_its_own_ends_it(runtime: Runtime) -> None:
    """Where following the status fails, the plugin does not go on as if nothing were."""
    lab = Lab(runtime.path)

    def fail(_status: Status) -> None:
        raise ValueError("oops")

    plugin = Plugin(lab.handler, Log(lambda _line: None), runtime.path, changed=fail)
    run = asyncio.ensure_future(plugin.run(lab.stop))
    await (await runtime.plugin()).ready()
    with pytest.raises(ValueError, match="oops"):
        await run


def test_pauses() -> None:
    """They double from a tenth of a second up to five, and up to half of each is left out by chance."""
    assert list(islice(backoff(lambda: 0.0), 8)) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert list(islice(backoff(lambda: 1.0), 3)) == [0.05, 0.1, 0.2]
    assert all(0 < pause <= LONGEST_PAUSE for pause in islice(backoff(), 1000))
