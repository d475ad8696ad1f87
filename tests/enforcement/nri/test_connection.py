"""What a connection does when the other end is not as it should be."""

import asyncio
from pathlib import Path

import pytest
from nrilab import Lab, create, running
from nriruntime import HEADER, SECONDS, Peer, Runtime

from noisegate.enforcement.nri import connection as connection_module
from noisegate.enforcement.nri.connection import CallError, Connection, connect
from noisegate.enforcement.nri.events import Adjustment
from noisegate.enforcement.nri.ttrpc import Call

SERVICE = "nri.pkg.api.v1alpha1.Runtime"


def ignore(_connection: Connection, _call: Call) -> None:
    """Hear nothing."""


async def both(runtime: Runtime) -> tuple[Connection, Peer]:
    """Return both ends of a connection."""
    return await connect(runtime.path, ignore), await runtime.plugin()


async def test_nobody_listens(tmp_path: Path) -> None:
    """The system's own error tells why."""
    with pytest.raises(FileNotFoundError):
        await connect(tmp_path / "nobody.sock", ignore)


async def test_a_call_that_cannot_be_taken_is_answered(peer: Peer) -> None:
    """One with an even number is refused on its own stream, and the connection goes on."""
    peer.asked[4] = answer = asyncio.get_running_loop().create_future()
    peer.frames(1, HEADER.pack(0, 4, 1, 0))
    async with asyncio.timeout(SECONDS):
        assert (await answer)[:2] == (3, "stream 4: a caller's numbers are odd")
    assert (await peer.call("CreateContainer", create())).code == 0


async def test_the_runtime_hangs_up_in_a_call_of_ours(runtime: Runtime) -> None:
    """Whoever waits for an answer is told, and so is whoever calls later."""
    connection, peer = await both(runtime)
    calling = asyncio.ensure_future(connection.call(SERVICE, "RegisterPlugin", b"", SECONDS))
    async with asyncio.timeout(SECONDS):
        await peer.registered
        await peer.close()
        for call in (calling, connection.call(SERVICE, "RegisterPlugin", b"", SECONDS)):
            with pytest.raises(CallError, match=r"^the runtime closed the connection$"):
                await call
    await connection.close()


async def test_answers_that_nobody_waits_for(runtime: Runtime) -> None:
    """An answer to no call, and one that comes too late, are no harm."""
    connection, peer = await both(runtime)
    with pytest.raises(CallError, match=r"^the runtime did not answer RegisterPlugin within 0\.01 s$"):
        await connection.call(SERVICE, "RegisterPlugin", b"", 0.01)
    await peer.register()
    peer.frames(2, HEADER.pack(0, 99, 2, 0))
    second = asyncio.ensure_future(connection.call(SERVICE, "RegisterPlugin", b"", SECONDS))
    peer.registered = asyncio.get_running_loop().create_future()
    await peer.register()
    assert await second == b""
    await connection.close()


async def test_a_runtime_that_reads_nothing(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not read cannot keep us: after a while the connection is cut."""
    monkeypatch.setattr(connection_module, "FLUSH_SECONDS", 0.01)
    lab = Lab(runtime.path)
    lab.handler.adjustment = Adjustment(unified={"io.max": "x" * (3 << 20)})
    async with running(lab):
        peer = await runtime.plugin()
        await peer.ready()
        peer.reading.cancel()
        unanswered = peer.send("CreateContainer", create().SerializeToString())
        await lab.until(lambda: ("CreateContainer", "ok") in lab.observed)
    assert not unanswered.done()
