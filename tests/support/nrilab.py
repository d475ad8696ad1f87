"""The plugin in a test: a handler that keeps what it is told, and all that the plugin tells of itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from nriruntime import SECONDS

from noisegate.enforcement.nri import nri_pb2 as pb
from noisegate.enforcement.nri.events import UNADJUSTED, Adjustment, Container, Sandbox, Validation
from noisegate.enforcement.nri.plugin import Plugin, Status
from noisegate.service.log import Log
from noisegate.service.stop import Stop

Does = Callable[[], Awaitable[None]]


@dataclass
class Recorder:
    """A handler that keeps what it is told, and does on request what a handler may do."""

    heard: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    does: dict[str, Does] = field(default_factory=dict)
    adjustment: Adjustment = UNADJUSTED

    async def _hear(self, event: str, *values: Any) -> None:
        self.heard.append((event, values))
        if event in self.does:
            await self.does[event]()

    async def synchronize(self, sandboxes: Sequence[Sandbox], containers: Sequence[Container]) -> None:
        """Take over."""
        await self._hear("synchronize", sandboxes, containers)

    async def run_pod_sandbox(self, sandbox: Sandbox) -> None:
        """Hear of it."""
        await self._hear("run", sandbox)

    async def create_container(self, sandbox: Sandbox, container: Container) -> Adjustment:
        """Hear of it, and adjust."""
        await self._hear("create", sandbox, container)
        if container.name in self.does:
            await self.does[container.name]()
        return self.adjustment

    async def update_container(self, sandbox: Sandbox, container: Container) -> None:
        """Hear of it."""
        await self._hear("update", sandbox, container)

    async def stop_pod_sandbox(self, sandbox: Sandbox) -> None:
        """Hear of it."""
        await self._hear("stop", sandbox)

    async def remove_pod_sandbox(self, sandbox: Sandbox) -> None:
        """Hear of it."""
        await self._hear("remove", sandbox)

    async def validate(self, validation: Validation) -> None:
        """Hear of it."""
        await self._hear("validate", validation)


class Lab:
    """A plugin that runs, and what it told."""

    def __init__(self, path: Path) -> None:
        self.handler = Recorder()
        self.lines: list[dict[str, Any]] = []
        self.statuses: list[Status] = []
        self.observed: list[tuple[str, str]] = []
        self.took: list[float] = []
        self.stop = Stop()
        self._news = asyncio.Event()
        self.plugin = Plugin(
            self.handler, Log(self._line), path, observe=self._observe, changed=self._status, clock=lambda: 1000.0
        )

    def _line(self, line: bytes) -> None:
        self.lines.append(msgspec.json.decode(line))
        self._news.set()

    def _status(self, status: Status) -> None:
        self.statuses.append(status)
        self._news.set()

    def _observe(self, event: str, seconds: float, outcome: str) -> None:
        self.observed.append((event, outcome))
        self.took.append(seconds)
        self._news.set()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something that is told has come true."""
        async with asyncio.timeout(SECONDS):
            while not true():
                self._news.clear()
                await self._news.wait()

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return the log's lines of one event."""
        return [line for line in self.lines if line["event"] == event]


@asynccontextmanager
async def running(lab: Lab) -> AsyncIterator[None]:
    """Run a plugin for a while, and see it stop."""
    run = asyncio.ensure_future(lab.plugin.run(lab.stop))
    try:
        yield
    finally:
        lab.stop.ask()
        lab.stop.ask()
        async with asyncio.timeout(SECONDS):
            await run
    assert not lab.plugin.status.connected


def pod(name: str = "web") -> pb.PodSandbox:
    """Return a pod as the runtime tells of it."""
    return pb.PodSandbox(id=f"s-{name}", name=name, uid=f"u-{name}", namespace="shop")


def create(container: str = "app") -> pb.CreateContainerRequest:
    """Return the call that asks for a container."""
    return pb.CreateContainerRequest(pod=pod(), container=pb.Container(id=f"c-{container}", name=container))


async def forever() -> None:
    """Work without end, as a handler does that waits for a mount that hangs."""
    await asyncio.Event().wait()


def raises(error: BaseException) -> Does:
    """Return work that fails."""

    async def fail() -> None:
        raise error

    return fail
