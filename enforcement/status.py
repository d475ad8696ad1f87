"""What an enforcer says of itself and its pods to whoever is root on the node: asked, applied, observed.

Over a unix socket of mode 0600 in the state folder: whoever connects gets one JSON document and the end of the stream.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

SOCKET: Final = "status.sock"
"""Name in the state folder."""
SECONDS: Final = 10.0
"""For one answer."""


class DeviceStatus(msgspec.Struct, omit_defaults=True):
    """Disk limits of one pod on one device; None stands for no limit. Bytes and operations per second.

    Attributes:
        device: `major:minor`.
        entries: Volumes of the pod that lie on it and are listed; `*`: the writable layers. What else of the pod lies there
            shares the limit.
        asked: By key of `io.max`: rbps, wbps, riops, wiops.
        applied: What was written.
        observed: What the kernel says now.
    """

    device: str
    entries: list[str]
    asked: dict[str, int | None]
    applied: dict[str, int | None]
    observed: dict[str, int | None]


class NetworkStatus(msgspec.Struct, omit_defaults=True):
    """Network limits of one pod in bits per second; None stands for no limit."""

    interface: str
    asked: dict[str, int | None]
    applied: dict[str, int | None]
    observed: dict[str, int | None]


class PodStatus(msgspec.Struct, omit_defaults=True):
    """One pod.

    Attributes:
        namespace: Its namespace.
        name: Its name.
        uid: Its uid.
        source: Where what it asks for was read: `watch`, `ledger` or `runtime`.
        disk: By device.
        network: Of its interface, if it asks.
        rdt: Class by container, of those that the enforcer puts into one.
        skipped: What cannot be meant and was left out, a line each.
        trouble: What could not be made true, a line each.
    """

    namespace: str
    name: str
    uid: str
    source: str
    disk: list[DeviceStatus] = msgspec.field(default_factory=list)
    network: NetworkStatus | None = None
    rdt: dict[str, str] = msgspec.field(default_factory=dict)
    skipped: list[str] = msgspec.field(default_factory=list)
    trouble: list[str] = msgspec.field(default_factory=list)


class CheckStatus(msgspec.Struct):
    """One check of the preflight: see `preflight.Check`."""

    name: str
    passed: bool
    found: str
    wanted: str
    mend: str
    kinds: list[str]


class NodeStatus(msgspec.Struct):
    """The whole answer.

    Attributes:
        node: Name of the node.
        version: Of noisegate.
        connected: Whether the runtime knows us.
        runtime: Its name and version; empty while it was never seen.
        enforces: Kinds that this node holds.
        rdt_owner: `runtime`, `enforcer` or `none`.
        checks: The preflight.
        pods: Pods that ask for something, by namespace and name.
    """

    node: str
    version: str
    connected: bool
    runtime: str
    enforces: list[str]
    rdt_owner: str
    checks: list[CheckStatus]
    pods: list[PodStatus]


class StatusServer:
    """Answers on the socket.

    Args:
        path: Of the socket.
        status: Makes an answer.
    """

    def __init__(self, path: Path, status: Callable[[], Awaitable[NodeStatus]]) -> None:
        self._path: Final = path
        self._status: Final = status
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begin to listen; what an earlier process left there makes way.

        Raises:
            OSError: The folder is not there, or cannot be written.
        """
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._answer, str(self._path))
        finally:
            os.umask(before)

    async def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(SECONDS):
                    writer.write(msgspec.json.encode(await self._status()))
                    await writer.drain()
        finally:
            # Whatever went wrong: who asks is not left waiting.
            writer.close()


async def ask(path: Path) -> NodeStatus:
    """Return what the enforcer says that listens on a socket.

    Raises:
        OSError: Nobody listens there, or one may not ask.
        TimeoutError: It does not answer.
        msgspec.MsgspecError: It is another version's answer.
    """
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            return msgspec.json.decode(await reader.read(), type=NodeStatus)
        finally:
            writer.close()
