"""The process on the node: builds the parts, keeps them going until a signal, and leaves in good order."""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Final

from noisegate.cluster.connection import Connection, in_cluster
from noisegate.cluster.reflector import Result
from noisegate.enforcement import preflight, survey
from noisegate.enforcement.config import Settings
from noisegate.enforcement.enforcer import Enforcer
from noisegate.enforcement.holder import Holder
from noisegate.enforcement.hostlock import host_lock
from noisegate.enforcement.intent.pods import Pods
from noisegate.enforcement.kernel.tcwatch import TcWatch
from noisegate.enforcement.ledger import Ledger
from noisegate.enforcement.metrics import KINDS, Metrics
from noisegate.enforcement.nri.plugin import Plugin, Status
from noisegate.enforcement.plan import partitions
from noisegate.enforcement.preflight import Check
from noisegate.enforcement.refusal import Refusal
from noisegate.enforcement.report.events import Events
from noisegate.enforcement.report.node import Node, OwnPod, Standing
from noisegate.enforcement.status import SOCKET, CheckStatus, NodeStatus, StatusServer
from noisegate.isolation import keys
from noisegate.service.binding import bind
from noisegate.service.faults import ConfigError
from noisegate.service.health import Health
from noisegate.service.log import Log
from noisegate.service.stop import Stop

LOCK_SECONDS: Final = 10.0
"""For the enforcer before us to end: a DaemonSet's pod is replaced while its container may still be ending."""
AWAY_SECONDS: Final = 15.0
"""For so long a runtime may be away before the node's condition says so: it restarts in one or two."""
PATIENT_SECONDS: Final = 300.0
"""For so long it may be away before the labels go: a kubelet that starts without them, as when a node is upgraded, ends for good
every pod that asks. While a runtime is away nothing starts; one that has NRI off is told by the preflight."""
FIRST_LIST_SECONDS: Final = 2.0
"""For so long the first connection to the runtime waits for the API server's list of pods."""
FIRST_LIST_LOOKS: Final = 100
ALL_SECONDS: Final = 300.0
"""Between two looks at every pod, whether anything tells of a change or not."""
SETTLE_SECONDS: Final = 1.0
"""From a change of somebody's on an interface until we look: a CNI plugin makes dozens for each pod."""
PREFLIGHT_SECONDS: Final = 60.0
"""Between two looks at the node: somebody may mend it, or break it."""


async def serve(settings: Settings, node: str, log: Log, stop: Stop | None = None, pod: OwnPod | None = None) -> int:
    """Work until a signal; return the exit status.

    Args:
        settings: Of this node.
        node: Its name.
        log: Where everything is told.
        stop: Asks to end; None: SIGTERM and SIGINT do.
        pod: That we run in; None: we run on the host itself.

    Raises:
        AlreadyHeldError: Another enforcer runs on this host.
        ConfigError: The class file cannot be used.
        OSError: The state folder, the health port or the class file cannot be used.
    """
    if stop is None:
        stop = Stop()
        stop.on_signals()
    with host_lock(Path(settings.state), LOCK_SECONDS):
        return await _Daemon(settings, node, log, pod).run(stop)


class _Daemon:
    def __init__(self, settings: Settings, node: str, log: Log, pod: OwnPod | None) -> None:
        self.settings: Final = settings
        self.node: Final = node
        self.log: Final = log
        self.metrics: Final = Metrics()
        self.parts: Final = survey.Parts.of(settings)
        ledger = Ledger.open(Path(settings.state), survey.boot())
        for damage in ledger.damaged:
            log.warning("ledger-damaged", file=damage.file, told=damage.told)
        self.metrics.damaged.set(len(ledger.damaged))
        self.facts = survey.examine(settings, self.parts)
        self.rdt: Final = survey.rdt_of(self.facts, self.parts)
        url = settings.cluster.api_server or in_cluster(os.environ)
        self.api: Final = Connection(url, Path(settings.cluster.account)) if url else None
        self.events: Final = Events(self.api, node, log) if self.api else None
        held = frozenset(KINDS) - set(survey.switched_off(settings))
        parts = self.parts
        holder = Holder(parts.cgroups, parts.links, parts.shaper, parts.places, ledger, held)
        name = f"{settings.nri.index}-{keys.NRI_PLUGIN}"
        self.enforcer: Final = Enforcer(
            name, holder, self.rdt, settings.excluded_namespaces, self.metrics, log, self.events
        )
        if self.api is not None:
            self.enforcer.pods = Pods(node, self.api, self.enforcer.look_at, self._noted)
        self.plugin: Final = Plugin(
            self.enforcer,
            log,
            Path(settings.nri.socket),
            index=settings.nri.index,
            observe=self._observe,
            changed=self._connection_changed,
        )
        self.report: Final = Node(self.api, node, log, pod) if self.api else None
        self.checks: list[Check] = []
        self._turned: Final = asyncio.Event()
        self._connected = False
        self._left = time.monotonic()

    async def run(self, stop: Stop) -> int:
        settings = self.settings
        sockets = bind(settings.health.address, settings.health.port)
        async with AsyncExitStack() as ends:
            health = Health(self._reasons, self._notes, self.metrics.text)
            await health.open(sockets)
            ends.push_async_callback(health.close)
            status = StatusServer(Path(settings.state) / SOCKET, self.status)
            await status.open()
            ends.push_async_callback(status.close)
            if self.api is not None:
                ends.push_async_callback(self.api.close)
            self.log.info("working", node=self.node, health_port=sockets[0].getsockname()[1])
            # The runtime tells of everything at once: what the API server and the class file say must be there before.
            await self._look()
            watch = ends.enter_context(TcWatch())
            following = [self._follow_pods(), self._follow_interfaces(watch), self._reconcile(), self._survey()]
            if self.events is not None:
                following.append(self.events.follow())
            if self.report is not None:
                following.append(self.report.follow())
            tasks = [asyncio.ensure_future(one) for one in following]
            for task in tasks:
                # Without one of them we would hold less than we say: the end is seen, and a new process begins.
                task.add_done_callback(lambda done: stop.ask() if not done.cancelled() and done.exception() else None)
            await self._first_list()
            await self.plugin.run(stop)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self.enforcer.close()
            if self.report is not None:
                await self.report.leave()
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.log.fault("task-failed", cause=error)
                return 1
        self.log.info("ended", status=0)
        return 0

    async def status(self) -> NodeStatus:
        """Return everything that `noisegate node status` shows."""
        now = self.plugin.status
        runtime = f"{now.runtime.name} {now.runtime.version}".strip()
        return NodeStatus(
            node=self.node,
            version=version("noisegate"),
            connected=now.connected,
            runtime=runtime,
            enforces=sorted(self._standing().on),
            rdt_owner=self.rdt.report.owner.who,
            checks=[CheckStatus(*check[:5], list(check.kinds)) for check in self.checks],
            pods=await self.enforcer.status(),
        )

    # What is done then and again.

    async def _follow_pods(self) -> None:
        if self.enforcer.pods is not None:
            await self.enforcer.pods.follow()
        else:
            self.log.warning("no-api-server", told="limits come from what the runtime knows, and nobody is told Events")

    async def _first_list(self) -> None:
        """Wait a moment for the node's pods; the runtime's own annotations serve where the API server is away."""
        pods = self.enforcer.pods
        if pods is not None:
            for _ in range(FIRST_LIST_LOOKS):
                if pods.filled:
                    break
                await asyncio.sleep(FIRST_LIST_SECONDS / FIRST_LIST_LOOKS)

    async def _follow_interfaces(self, watch: TcWatch) -> None:
        told = asyncio.Event()

        def read() -> None:
            if watch.drain():
                told.set()

        loop = asyncio.get_running_loop()
        loop.add_reader(watch.fileno(), read)
        try:
            while True:
                await told.wait()
                await asyncio.sleep(SETTLE_SECONDS)
                told.clear()
                self.enforcer.changed(watch.take())
        finally:
            loop.remove_reader(watch.fileno())

    async def _reconcile(self) -> None:
        every = asyncio.get_running_loop().time() + ALL_SECONDS
        while True:
            await asyncio.sleep(self.settings.reconcile_seconds)
            if asyncio.get_running_loop().time() < every:
                await self._guarded(self.enforcer.look_round())
            else:
                await self._guarded(self.enforcer.look_at_all())
                every = asyncio.get_running_loop().time() + ALL_SECONDS
            self.enforcer.count()
            self.metrics.success.set(time.time())

    async def _survey(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_look()):
                    await self._turned.wait()
            self._turned.clear()
            # A runtime that was started again may have been configured otherwise.
            await self._guarded(self._look())

    def _until_look(self) -> float:
        """Return the seconds until something else is to be said, if nothing happens."""
        away = self._away()
        due = [each - away + 0.1 for each in (AWAY_SECONDS, PATIENT_SECONDS) if 0 < away < each]
        return min([PREFLIGHT_SECONDS, *due])

    async def _look(self) -> None:
        self.checks = await asyncio.to_thread(self._examine)
        self._say()

    def _examine(self) -> list[Check]:
        self._load_classes()
        self.facts = survey.examine(self.settings, self.parts, self.facts)
        # Before anything is made: the groups may be the runtime's by now.
        survey.renew(self.rdt, self.facts)
        in_use = self.enforcer.classes_in_use()
        report = self.rdt.reconcile(in_use)
        for rdt_class in sorted(in_use):
            self._put_back(rdt_class)
        for outcome in report.outcomes:
            self.log.warning("rdt-class", rdt_class=outcome.rdt_class, reason=outcome.reason, told=outcome.told)
        return survey.checks(self.settings, self.facts, report.owner)

    def _put_back(self, rdt_class: str) -> None:
        """Put threads of containers into their class's group again: somebody moved them, or removed it and the kernel did."""
        seen: set[int] = set()
        moved = 0
        try:
            # Threads that are started meanwhile begin where their parents are.
            while astray := self.rdt.astray(rdt_class, self.enforcer.holder.threads_in(rdt_class)) - seen:
                moved += self.rdt.place(rdt_class, sorted(astray))
                seen |= astray
        except Refusal as refusal:
            self.log.warning("rdt-class", rdt_class=rdt_class, reason=refusal.reason, told=str(refusal))
        if moved:
            self.metrics.repairs.labels("rdt").inc()
            self.log.warning("drift-repaired", kind="rdt", rdt_class=rdt_class, threads=moved)

    def _load_classes(self) -> None:
        path = self.settings.rdt.classes
        if not self.settings.rdt.enforced:
            # Who shares out the caches here instead needs the CLOSIDs.
            self.rdt.load(None, enforced=False)
        elif path:
            try:
                self.rdt.load(partitions.read(Path(path).read_bytes(), path))
            except (ConfigError, OSError) as error:
                # The classes before stay.
                self.log.warning("class-file-refused", told=str(error))

    def _say(self) -> None:
        standing = self._standing()
        for kind in KINDS:
            self.metrics.passed.labels(kind).set(int(kind in standing.on))
        if self.report is not None:
            self.report.say(standing, settled=not 0 < self._away() < AWAY_SECONDS)

    def _standing(self) -> Standing:
        now = self.plugin.status
        away = "" if now.connected else now.error or "it has not been reached yet"
        return preflight.standing(self.checks, away, patient=self._away() < PATIENT_SECONDS)

    def _away(self) -> float:
        """Return for how many seconds the runtime has been away; 0: it is not."""
        return 0.0 if self.plugin.status.connected else time.monotonic() - self._left

    async def _guarded(self, work: Awaitable[object]) -> None:
        """A fault of ours is told, and what comes next is done all the same."""
        try:
            await work
        except Exception as error:  # noqa: BLE001
            self.log.fault("look-failed", cause=error)

    # What others are told.

    def _reasons(self) -> Sequence[str]:
        now = self.plugin.status
        return [] if now.connected else [now.error or "not connected to the runtime yet"]

    def _notes(self) -> Sequence[str]:
        notes = [f"{kind} is not held: {why}" for kind, why in sorted(self._standing().missing.items())]
        if self.enforcer.pods is not None and self.enforcer.pods.trouble:
            notes.append(f"pods: {self.enforcer.pods.trouble}")
        if self.report is not None and self.report.trouble:
            notes.append(f"node: {self.report.trouble}")
        return notes

    def _observe(self, event: str, seconds: float, outcome: str) -> None:
        self.metrics.calls.labels(event, outcome).observe(seconds)

    def _connection_changed(self, status: Status) -> None:
        self.metrics.connected.set(int(status.connected))
        if status.connected:
            self.metrics.connections.inc()
        else:
            self.enforcer.disconnected()
        if status.connected != self._connected:
            self._connected, self._left = status.connected, time.monotonic()
            self._turned.set()

    def _noted(self, result: Result, reason: str) -> None:
        if result == "failed":
            self.log.limited("pods-not-followed", reason=reason)
