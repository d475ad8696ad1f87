"""What the enforcer does when the runtime, the API server or its own clock says something: the only place that joins them.

Everything about one pod happens one after another, in a thread, and goes on there when whoever asked has stopped waiting; no
two pods wait for each other.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from noisegate.enforcement.bypass import YOUNG_ROUNDS, Bypass
from noisegate.enforcement.holder import Held, Holder, not_enforced
from noisegate.enforcement.intent import intent as intents
from noisegate.enforcement.intent.intent import Intent, asks_node, choose
from noisegate.enforcement.intent.pods import Pods
from noisegate.enforcement.kernel.links import GoneError
from noisegate.enforcement.kernel.tcwatch import Changes
from noisegate.enforcement.ledger import Record
from noisegate.enforcement.metrics import KINDS, Metrics
from noisegate.enforcement.nri.events import UNADJUSTED, Adjustment, Container, Sandbox, State, Validation
from noisegate.enforcement.plan.rdt import RdtAdjustment
from noisegate.enforcement.rdt import NodeRdt
from noisegate.enforcement.refusal import Refusal
from noisegate.enforcement.report.events import Events
from noisegate.enforcement.status import PodStatus
from noisegate.enforcement.troubles import Troubles
from noisegate.enforcement.turns import Turns
from noisegate.enforcement.validation import check
from noisegate.service.log import Log

T = TypeVar("T")

THREADS: Final = 512
"""Pods that can be worked on at the same moment, as many as a node has: each needs milliseconds, but a disk that hangs keeps
whoever writes its limits until it answers (block/blk-throttle.c waits for what is under way on it)."""
BEHIND: Final = 2
"""Of them that nobody waits for, such as a thousand of a runtime that is taken over: its calls find processors free."""
BEHIND_SECONDS: Final = 2.0
"""For one of these; if it takes longer, it goes on, and the next one begins."""
_GONE: Final = frozenset({State.STOPPED})
_WITHOUT_SANDBOX: Final = "-"
"""No sandbox has this id."""


class _News:
    """What a runtime told since it knows us and before all of its list was taken over, which is older.

    Attributes:
        begun: uids of pods.
        created: uids of pods and names of containers.
        ended: ids of sandboxes.
    """

    def __init__(self) -> None:
        self.begun: Final[set[str]] = set()
        self.created: Final[set[tuple[str, str]]] = set()
        self.ended: Final[set[str]] = set()


class Enforcer:
    """Holds the pods of a node: an `nri.events.Handler`. To be used in one event loop.

    Args:
        plugin: Our name among NRI's plugins, with the index: `10-noisegate`.
        holder: Does it.
        rdt: Of this node.
        excluded: Namespaces that are left alone.
        metrics: Where it is counted.
        log: Where it is told.
        events: Where users are told; None: there is no API server.
    """

    def __init__(
        self,
        plugin: str,
        holder: Holder,
        rdt: NodeRdt,
        excluded: Sequence[str],
        metrics: Metrics,
        log: Log,
        events: Events | None,
    ) -> None:
        self.holder: Final = holder
        self.rdt: Final = rdt
        self.pods: Pods | None = None
        self.turns: Final = Turns(THREADS, log)
        self.troubles: Final = Troubles(metrics, log, events)
        self.bypass: Final = Bypass(holder, self.turns, self.troubles)
        self._plugin: Final = plugin
        self._excluded: Final = frozenset(excluded)
        self._metrics: Final = metrics
        self._log: Final = log
        self._ends: Final[dict[str, tuple[str, Callable[[str, str], None]]]] = {}
        self._news: _News | None = _News()
        self._behind: Final = asyncio.Semaphore(BEHIND)
        self._looks: Final[set[str]] = set()
        self._unlisted: Final[set[str]] = set()

    # What the runtime says.

    async def synchronize(self, sandboxes: Sequence[Sandbox], containers: Sequence[Container]) -> None:
        """Hold every pod that asks, as it is now, and undo what is left of pods that are gone."""
        by_sandbox: dict[str, list[Container]] = defaultdict(list)
        for container in containers:
            if container.state not in _GONE:
                by_sandbox[container.sandbox].append(container)
        news = self._news = self._news or _News()
        there = {sandbox.uid for sandbox in sandboxes if sandbox.namespace not in self._excluded}
        self._unlisted.clear()
        async with asyncio.TaskGroup() as group:
            for sandbox in sandboxes:
                group.create_task(self._guarded(self._taken_over, sandbox, by_sandbox[sandbox.id], news))
            for record in self.holder.ledger.all():
                if record.uid not in there:
                    group.create_task(self._guarded(self._orphaned, record, news))
        if self._news is news:
            self._news = None
        await self.collect()

    def disconnected(self) -> None:
        """Learn that the runtime knows us no more: what it tells next is of another connection."""
        self._news = _News()

    async def run_pod_sandbox(self, sandbox: Sandbox) -> None:
        """Shape the pod's network, and put what is known of its disks in force."""
        if self._intent(sandbox) is not None:
            self._begins(sandbox)
            self.troubles.refuse(await self.turns.turn(sandbox.uid, self._taken(sandbox, ())))

    async def create_container(self, sandbox: Sandbox, container: Container) -> Adjustment:
        """Hold everything that the container asks for, before it is made."""
        intent = self._intent(sandbox)
        if intent is None:
            return UNADJUSTED
        self._begins(sandbox, container)
        held, adjustment = await self.turns.turn(intent.uid, self._created(intent, sandbox, container))
        self.troubles.refuse(held)
        return adjustment

    async def update_container(self, sandbox: Sandbox, container: Container) -> None:  # noqa: ARG002  (a handler's form)
        """Look at the pod soon: whoever changes a container's resources may change its pod's."""
        if self.holder.ledger.get(sandbox.uid) is not None:
            self.look_at(sandbox.uid)

    async def stop_pod_sandbox(self, sandbox: Sandbox) -> None:
        """Take our parts off the pod's network, soon: no other pod's start waits for devices to be deleted (tens of milliseconds)."""
        self._end_soon(sandbox, self.holder.stop)

    async def remove_pod_sandbox(self, sandbox: Sandbox) -> None:
        """Undo what is left, and forget the pod, soon."""
        self._end_soon(sandbox, self.holder.release)

    async def validate(self, validation: Validation) -> None:
        """Refuse a container that asks and would start otherwise than it was held: not asked of us, or adjusted by another."""
        intent = self._intent(validation.sandbox)
        if intent is None or not intent.kinds:
            return
        container = validation.container
        record = self.holder.ledger.get(intent.uid)
        if record is None or container.id not in {one.id for one in record.containers}:
            told = f"container {container.name} asks for limits that nobody put in force"
            raise Refusal("NotHeld", told, "create it again; if this stays, see the enforcer's log")
        wanted = _adjustment(await self.turns.off_loop(self._class_of, intent, container))
        check(intent, validation, wanted, self._plugin)

    # What the API server says, and what nobody says.

    def look_at(self, uid: str) -> None:
        """Hold a pod anew, soon: it asks for something else now, or somebody may have changed what it was held to."""
        if uid not in self._looks:
            self._looks.add(uid)
            self.turns.begin(self._guarded(self._look_behind, uid))

    async def look(self, uid: str) -> None:
        """Hold a pod anew that is held already; what had to be written without being asked for anew was drift."""
        await self.turns.kept(self.turns.turn(uid, self._looked(uid)))

    async def _look_behind(self, uid: str) -> None:
        async with self._behind:
            await self._in_time(uid, self.look(uid))

    async def _in_time(self, uid: str, work: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(BEHIND_SECONDS):
                await work
        except TimeoutError:
            self._log.limited("pod-takes-long", uid=uid, seconds=BEHIND_SECONDS)

    async def look_round(self) -> None:
        """Look at pods whose disk limits are others now, or of which something could not be made true.

        The kernel tells of interfaces by itself, see `changed`.
        """
        astray = await self.turns.off_loop(self.holder.astray)
        for uid in astray | self.troubles.of.keys() | self._ends.keys():
            await self._look_now(uid)
        await self._guarded(self.bypass.look, YOUNG_ROUNDS)

    async def look_at_all(self) -> None:
        """Look at every pod, whether anything tells of a change or not."""
        for record in self.holder.ledger.all():
            await self._look_now(record.uid)
        await self.collect()
        await self.bypass.look()

    async def _look_now(self, uid: str) -> None:
        # Of one that something is done with the next round will tell.
        if uid not in self.turns.waiting:
            await self._guarded(self._in_time, uid, self.look(uid))

    def changed(self, changes: Changes) -> None:
        """Look soon at the pods whose interfaces somebody has changed."""
        for record in self.holder.ledger.all():
            shaped = record.network
            if shaped is not None and (
                changes.lost or shaped.interface.index in changes.indices or shaped.ifb in changes.names
            ):
                self.look_at(record.uid)

    async def collect(self) -> None:
        """Take away what bears our mark on this node and belongs to no pod."""
        try:
            removed, failed = await self.turns.off_loop(self._collect)
        except (GoneError, Refusal) as error:
            removed, failed = [], [error]
        for one in failed:
            self._log.warning("not-collected", told=str(one))
        if removed:
            self._log.info("collected", ifbs=removed)

    async def close(self) -> None:
        """Wait for what is under way."""
        await self.turns.close()

    async def status(self) -> list[PodStatus]:
        """Return what each pod that is known asked for, what was applied, and what the kernel has now."""
        found = [await self.turns.off_loop(self.holder.status, record) for record in self.holder.ledger.all()]
        for one in found:
            skipped = self.troubles.skipped.get(one.uid)
            one.skipped = [str(problem) for problem in skipped.problems] if skipped is not None else []
            one.trouble = [f"{kind}: {refusal}" for kind, refusal in self.troubles.of.get(one.uid, {}).items()]
        return sorted(found, key=lambda one: (one.namespace, one.name, one.uid))

    def classes_in_use(self) -> set[str]:
        """Return the RDT classes that containers were put into."""
        return {one.rdt_class for record in self.holder.ledger.all() for one in record.containers if one.rdt_class}

    def count(self) -> None:
        """Count the pods that are held, by kind, and forget what was kept of others."""
        numbers = dict.fromkeys(KINDS, 0)
        for record in self.holder.ledger.all():
            numbers["disk"] += bool(record.io)
            numbers["network"] += record.network is not None
            numbers["rdt"] += any(one.rdt_class for one in record.containers)
        for kind, number in numbers.items():
            self._metrics.pods.labels(kind).set(number)
        known = {record.uid for record in self.holder.ledger.all()} | self.turns.waiting.keys()
        for memory in (self.troubles.of, self.troubles.skipped, self.bypass.counted, self.bypass.looks, self._ends):
            for uid in memory.keys() - known:
                del memory[uid]
        self._unlisted.intersection_update(known)

    def _intent(self, sandbox: Sandbox) -> Intent | None:
        """Return what a pod asks for; None: nothing, and it is held to nothing. Plain pods end here."""
        if sandbox.namespace in self._excluded:
            return None
        record = self.holder.ledger.get(sandbox.uid)
        known = intents.Sandbox(
            sandbox.uid, sandbox.namespace, sandbox.name, sandbox.annotations, host_network=sandbox.host_network
        )
        watched = self.pods.get(known) if self.pods is not None else None
        if record is None and not asks_node(sandbox.annotations) and (watched is None or not watched.annotations):
            return None
        return self._chosen(known, record)

    def _chosen(self, sandbox: intents.Sandbox, record: Record | None) -> Intent:
        watched = self.pods.get(sandbox) if self.pods is not None else None
        intent = choose(sandbox, watched, record.intent if record is not None else None)
        self.troubles.skip(intent)
        return intent

    def _begins(self, sandbox: Sandbox, *containers: Container) -> None:
        self._unlisted.discard(sandbox.uid)
        if self._news is not None:
            self._news.begun.add(sandbox.uid)
            self._news.created.update((sandbox.uid, container.name) for container in containers)

    def _class_of(self, intent: Intent, container: Container) -> RdtAdjustment:
        request = intent.asked.rdt
        choice = request.class_of(container.name) if request is not None else None
        if choice is not None and choice.own and "rdt" not in self.holder.enforced:
            raise not_enforced("rdt")
        return self.rdt.adjust(choice)

    async def _taken_over(self, sandbox: Sandbox, containers: Sequence[Container], news: _News) -> None:
        """Hold a pod of the runtime's list, unless more was told of it since."""
        async with self._behind:
            # Stopped sandboxes are listed until they are removed, beside the one that took the pod over.
            if not sandbox.stopped:
                await self._in_time(sandbox.uid, self.turns.turn(sandbox.uid, self._taken(sandbox, containers, news)))
                if sandbox.uid in self.turns.waiting:
                    self.look_at(sandbox.uid)
            elif self._ends_ours(sandbox):
                await self._in_time(sandbox.uid, self._end_in_turn(sandbox.uid, sandbox.id, self.holder.stop))

    async def _taken(self, sandbox: Sandbox, containers: Sequence[Container], news: _News | None = None) -> Held:
        intent = None if news is not None and sandbox.id in news.ended else self._intent(sandbox)
        if intent is None:
            return Held()
        if news is not None:
            containers = [one for one in containers if (sandbox.uid, one.name) not in news.created]
        take = partial(self.holder.take, starts=news is None)
        held = await self.turns.off_loop(take, intent, sandbox, containers)
        self._ends.pop(intent.uid, None)
        self.troubles.note(intent, held, ("disk", "network"))
        return held

    async def _created(self, intent: Intent, sandbox: Sandbox, container: Container) -> tuple[Held, Adjustment]:
        # What it asks for may be something else by now.
        intent = self._intent(sandbox) or intent
        held = await self.turns.off_loop(self.holder.take, intent, sandbox, (container,))
        adjustment = UNADJUSTED
        try:
            adjustment = _adjustment(await self.turns.off_loop(self._class_of, intent, container))
        except Refusal as refusal:
            held = Held({**held.refusals, "rdt": refusal}, held.written)
        self.troubles.note(intent, held, KINDS)
        return held, adjustment

    async def _looked(self, uid: str) -> None:
        self._looks.discard(uid)
        if uid in self._ends and not await self._ended(uid, *self._ends[uid]):
            return
        # Not before its turn: what was done until then may have changed it.
        record = self.holder.ledger.get(uid)
        if record is None:
            return
        ended = self.holder.orphan if uid in self._unlisted else self.holder.ended
        if (undo := await self.turns.off_loop(ended, record)) is not None:
            self._log.info("ended-untold", pod=f"{record.namespace}/{record.name}", uid=uid)
            self.troubles.of.pop(uid, None)
            await self._ended(uid, record.sandbox or _WITHOUT_SANDBOX, undo)
            return
        sandbox = intents.Sandbox(uid, record.namespace, record.name, record.intent.annotations, not record.netns)
        watched = self.pods.get(sandbox) if self.pods is not None else None
        intent = choose(sandbox, watched, record.intent)
        if intent.source == "watch":
            # The ledger has only what could be meant.
            self.troubles.skip(intent)
        asked_anew = intent.remembered() != record.intent
        held = await self.turns.off_loop(self.holder.renew, intent)
        self.troubles.note(intent, held, ("disk", "network"))
        for kind, number in held.written.items():
            if asked_anew:
                self._log.info("limits-changed", pod=f"{intent.namespace}/{intent.name}", uid=uid, kind=kind)
            else:
                self._metrics.repairs.labels(kind).inc(number)
                self._log.warning("drift-repaired", pod=f"{intent.namespace}/{intent.name}", uid=uid, kind=kind)

    async def _orphaned(self, record: Record, news: _News) -> None:
        """Undo what is left of a pod that is not on the runtime's list, unless it was told of since, or runs all the same."""
        async with self._behind:
            if record.uid in news.begun:
                return
            pod = f"{record.namespace}/{record.name}"
            undo: Callable[[str, str], None] | None = self.holder.release
            if record.namespace not in self._excluded:
                undo = await self.turns.off_loop(self.holder.orphan, record)
            if undo is None:
                self._unlisted.add(record.uid)
                self._log.warning("unlisted", pod=pod, uid=record.uid)
                return
            self._log.info("orphan", pod=pod, uid=record.uid)
            ended = self._end_in_turn(record.uid, record.sandbox or _WITHOUT_SANDBOX, undo)
            await self._in_time(record.uid, ended)

    def _ends_ours(self, sandbox: Sandbox) -> bool:
        """Hear that a sandbox ends; tell whether its pod is held, or is about to be by a call that we gave up waiting for."""
        if self._news is not None:
            self._news.ended.add(sandbox.id)
        return self.holder.ledger.get(sandbox.uid) is not None or sandbox.uid in self.turns.waiting

    def _end_soon(self, sandbox: Sandbox, work: Callable[[str, str], None]) -> None:
        if self._ends_ours(sandbox):
            self.turns.begin(self._end_in_turn(sandbox.uid, sandbox.id, work))

    async def _end_in_turn(self, uid: str, sandbox: str, work: Callable[[str, str], None]) -> None:
        await self.turns.kept(self.turns.turn(uid, self._ended(uid, sandbox, work)))

    async def _ended(self, uid: str, sandbox: str, work: Callable[[str, str], None]) -> bool:
        """Undo something; what fails is tried again with the next look, and holds nobody's end up."""
        try:
            await self.turns.off_loop(work, uid, sandbox)
        except Refusal as refusal:
            self._ends[uid] = (sandbox, work)
            self._log.limited("not-undone", uid=uid, reason=refusal.reason, told=str(refusal))
            return False
        self._ends.pop(uid, None)
        return True

    async def _guarded(self, work: Callable[..., Awaitable[object]], *args: object) -> None:
        """See that a fault of ours with one pod keeps no other from what it asks for."""
        try:
            await work(*args)
        except Exception as error:  # noqa: BLE001
            self._log.fault("pod-failed", cause=error)

    def _collect(self) -> tuple[list[str], list[Exception]]:
        removed: list[str] = []
        failed: list[Exception] = []
        traces = self.holder.shaper.ours()
        # Read after them: whatever is being made meanwhile was written down before it was made.
        known = {record.network.ifb for record in self.holder.ledger.all() if record.network is not None}
        for trace in traces:
            if trace.ifb in known or (trace.ifb == "" and self._is_held(trace.interface)):
                continue
            try:
                self.holder.shaper.remove(trace.interface, trace.ifb)
            except (GoneError, Refusal) as error:
                failed.append(error)
            else:
                removed.append(trace.ifb or (trace.interface.name if trace.interface else ""))
        return removed, failed

    def _is_held(self, interface: object) -> bool:
        return any(record.network and record.network.interface == interface for record in self.holder.ledger.all())


def _adjustment(rdt: RdtAdjustment) -> Adjustment:
    if rdt.clos_id:
        return Adjustment(clos_id=rdt.clos_id)
    return Adjustment(rdt_class=rdt.rdt_class) if rdt.rdt_class else UNADJUSTED
