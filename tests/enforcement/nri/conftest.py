"""A runtime, and the plugin connected to it."""

from collections.abc import AsyncIterator
from pathlib import Path

import nriruntime
import pytest
from nrilab import Lab, running
from nriruntime import Peer, Runtime

from noisegate.enforcement.nri import plugin as plugin_module


@pytest.fixture(name="runtime")
async def _runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with nriruntime.runtime(tmp_path / "nri.sock") as one:
        yield one


@pytest.fixture(name="lab")
async def _lab(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    monkeypatch.setattr(plugin_module, "SHORTEST_PAUSE", 0.001)
    lab = Lab(runtime.path)
    async with running(lab):
        yield lab


@pytest.fixture(name="peer")
async def _peer(runtime: Runtime, lab: Lab) -> Peer:
    peer = await runtime.plugin()
    await peer.ready()
    await lab.until(lambda: lab.plugin.status.connected)
    return peer
