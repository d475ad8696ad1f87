"""Makes true what a pod asks for: looks, plans, writes down what is about to be done and what stood there before, does it.

Blocking, one pod at a time; called in threads. Whoever dies in between leaves a record from which the next start does the
same again, or undoes it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, NamedTuple

import msgspec

from noisegate.enforcement.actions import UNLIMITED, UNSHAPED, Device, IoLimits, Rates, SetIo
from noisegate.enforcement.intent.intent import Intent
from noisegate.enforcement.kernel.cgroup import CgroupTree, check_own
from noisegate.enforcement.kernel.links import GoneError, Links
from noisegate.enforcement.kernel.shaper import Shaper
from noisegate.enforcement.ledger import IoSet, Ledger, Placed, Record, Shaped
from noisegate.enforcement.nri.events import Container, Sandbox
from noisegate.enforcement.places import Places
from noisegate.enforcement.plan import disk, network
from noisegate.enforcement.refusal import Refusal
from noisegate.enforcement.status import DeviceStatus, NetworkStatus, PodStatus
from noisegate.isolation import asked
from noisegate.isolation.asked import Kind
from noisegate.isolation.problems import Findings

_NOWHERE: Final = 0
"""No inode has this number."""


class Held(NamedTuple):
    """What came of holding one pod.

    Attributes:
        refusals: By kind, why it is not as the pod asks.
        written: By kind, what had to be written because it did not stand so already.
    """

    refusals: Mapping[Kind, Refusal] = {}
    written: Mapping[Kind, int] = {}


class Holder:
    """Holds pods to what they ask for.

    Args:
        cgroups: The node's cgroup tree.
        links: Finds the interfaces of pods.
        shaper: Shapes them.
        places: Finds the devices of volumes.
        ledger: Remembers.
        enforced: Kinds that this node holds.
    """

    def __init__(
        self,
        cgroups: CgroupTree,
        links: Links,
        shaper: Shaper,
        places: Places,
        ledger: Ledger,
        enforced: Collection[Kind],
    ) -> None:
        self.cgroups: Final = cgroups
        self.shaper: Final = shaper
        self.ledger: Final = ledger
        self.enforced: Final = enforced
        self._links: Final = links
        self._places: Final = places

    def take(
        self, intent: Intent, sandbox: Sandbox, containers: Iterable[Container] = (), *, starts: bool = True
    ) -> Held:
        """Hold a pod whose sandbox runs, with those of its containers that are there or about to be.

        Args:
            intent: What it asks for.
            sandbox: As the runtime knows it.
            containers: Each is placed anew; others of the pod stay where they are.
            starts: Whether it, or a container, does not start if something cannot be held; else as much as can be is held.
        """
        record = self._of(intent, sandbox)
        refusals: dict[Kind, Refusal] = {}
        # By name: what a container had stays limited until it is made again, or the pod goes.
        placed = {one.name: one for one in record.containers}
        for container in containers:
            try:
                places = self._places.of(intent, container)
            except Refusal as refusal:
                refusals["disk"] = refusal
                continue
            choice = intent.asked.rdt.class_of(container.name) if intent.asked.rdt else None
            rdt_class = choice.rdt_class if choice is not None and choice.own else ""
            # Behind the others: whoever was made last has a volume where it is now.
            placed.pop(container.name, None)
            placed[container.name] = Placed(container.id, container.name, places, rdt_class)
        record = msgspec.structs.replace(record, containers=tuple(placed.values()))
        return self._hold(record, intent, refusals, starts=starts)

    def renew(self, intent: Intent) -> Held:
        """Hold a pod that is held already, as far as it can be: to what it asks now, and where somebody else changed something."""
        record = self.ledger.get(intent.uid)
        if record is None or not record.sandbox:
            return Held()
        return self._hold(msgspec.structs.replace(record, intent=intent.remembered()), intent, {}, starts=False)

    def astray(self) -> set[str]:
        """Return the uids of pods whose io.max does not say what was written, or cannot be read, or whose cgroup has gone."""
        return {
            record.uid
            for record in self.ledger.all()
            if (record.sandbox and not self._stands(record)) or self._cgroup_gone(record)
        }

    def ended(self, record: Record) -> Callable[[str, str], None] | None:
        """Return what undoes that of a pod which has ended without our being told, `stop` or `release`; None: it has not.

        After its own restart containerd tells of no end of the sandboxes that were there before (2.4.2, internal/nri/nri.go:
        a sandbox that it has not run itself counts as removed).
        """
        network_gone = self._network_gone(record)
        if (network_gone or not record.netns) and self._cgroup_gone(record):
            return self.release
        return self.stop if network_gone and record.sandbox else None

    def orphan(self, record: Record) -> Callable[[str, str], None] | None:
        """Return what undoes that of a pod that the runtime does not list; None: it runs all the same.

        containerd leaves out sandboxes whose shim it could not ask when it started (2.4.2, internal/nri/nri.go and
        internal/cri/server/restart.go: StateUnknown, and those whose recovery failed).
        """
        with suppress(Refusal):
            if self._cgroup_gone(record) or not self.cgroups.populated(record.cgroup):
                return self.release
        undo = self.ended(record)
        return self.release if undo is not None and not record.io else undo

    def stop(self, uid: str, sandbox: str) -> None:
        """Take our parts of the network off a pod whose sandbox stops; until it has another one, there is nothing to hold.

        Raises:
            Refusal: Something of it could not be taken away; the record still names it.
        """
        record = self.ledger.get(uid)
        if record is not None and record.sandbox == sandbox:
            self.ledger.put(msgspec.structs.replace(self._unshape(record), sandbox=""))

    def release(self, uid: str, sandbox: str = "") -> None:
        """Undo everything that was done for a pod, and forget it.

        Args:
            uid: Of the pod.
            sandbox: Only if this is its sandbox, or it has none any more; empty: whatever its sandbox is.

        Raises:
            Refusal: Something could not be undone; the record still names it.
        """
        record = self.ledger.get(uid)
        if record is None or (sandbox and record.sandbox not in {"", sandbox}):
            return
        record = self._unshape(record)
        self._unlimit(record)
        self.ledger.forget(uid)

    def threads_in(self, rdt_class: str) -> list[int]:
        """Return the threads of all containers that were put into an RDT class."""
        found: list[int] = []
        for record in self.ledger.all():
            for one in record.containers:
                if one.rdt_class == rdt_class:
                    with suppress(Refusal):
                        found += self.cgroups.threads(record.cgroup, one.id)
        return found

    def status(self, record: Record) -> PodStatus:
        """Return what a pod asked for, what was applied, and what the kernel has now."""
        said = asked.read(record.intent.annotations, Findings())
        status = PodStatus(record.namespace, record.name, record.uid, record.intent.source)
        places = places_of(record)
        wanted = disk.wanted(said.disk, places)
        observed: Mapping[Device, IoLimits] = {}
        with suppress(Refusal):
            observed = self.cgroups.read_io(record.cgroup)
        for device in sorted({*wanted, *(one.device for one in record.io), *places.values()}):
            applied = next((one.wanted for one in record.io if one.device == device), UNLIMITED)
            entries = sorted(volume for volume, where in places.items() if where == device)
            lines = (wanted.get(device, UNLIMITED), applied, observed.get(device, UNLIMITED))
            status.disk.append(DeviceStatus(str(device), entries, *(limits._asdict() for limits in lines)))
        if said.network is not None:
            seen, name, applied_rates = UNSHAPED, "", UNSHAPED
            if record.network is not None:
                name, applied_rates = record.network.interface.name, record.network.rates
                with suppress(Refusal, GoneError):
                    seen = self.shaper.observe(record.network.interface, record.network.ifb).rates
            rates = (network.wanted(said.network), applied_rates, seen)
            status.network = NetworkStatus(name, *(each._asdict() for each in rates))
        status.rdt = {one.name: one.rdt_class for one in record.containers if one.rdt_class}
        return status

    def _of(self, intent: Intent, sandbox: Sandbox) -> Record:
        there = self.ledger.get(intent.uid)
        if there is None:
            there = Record(
                uid=intent.uid,
                namespace=intent.namespace,
                name=intent.name,
                intent=intent.remembered(),
                sandbox=sandbox.id,
                cgroup=sandbox.cgroup_parent,
                inode=_NOWHERE,
            )
        # Where the runtime tells of no namespaces, those of the same sandbox are what they were.
        untold = not sandbox.namespaces_told and there.sandbox == sandbox.id
        return msgspec.structs.replace(
            there,
            intent=intent.remembered(),
            sandbox=sandbox.id,
            cgroup=sandbox.cgroup_parent,
            inode=there.inode if there.cgroup == sandbox.cgroup_parent else _NOWHERE,
            netns=there.netns if untold else sandbox.netns,
        )

    def _hold(self, record: Record, intent: Intent, refusals: dict[Kind, Refusal], *, starts: bool) -> Held:
        try:
            # Before all else: what fails below is known, and tried again.
            self.ledger.put(record)
        except Refusal as refusal:
            return Held(dict.fromkeys(intent.kinds, refusal) | refusals)
        written: dict[Kind, int] = {}
        steps: tuple[tuple[Kind, Callable[[Record, Intent], tuple[Record, int]]], ...] = (
            ("disk", partial(self._hold_disk, starts=starts)),
            ("network", self._hold_network),
        )
        for kind, step in steps:
            if kind not in self.enforced and kind in intent.kinds:
                refusals.setdefault(kind, not_enforced(kind))
                continue
            try:
                record, written[kind] = step(record, intent)
            except Refusal as refusal:
                refusals.setdefault(kind, refusal)
                record = self.ledger.get(record.uid) or record
        return Held(refusals, {kind: number for kind, number in written.items() if number})

    def _hold_disk(self, record: Record, intent: Intent, *, starts: bool) -> tuple[Record, int]:
        request = intent.asked.disk
        if request is None and not record.io:
            return record, 0
        check_own(record.cgroup, record.uid)
        inode = self.cgroups.identity(record.cgroup)
        if inode != record.inode:
            # Another cgroup of the same name: nothing that was written into the old one stands in it.
            record = msgspec.structs.replace(record, inode=inode, io=())
        observed = self.cgroups.read_io(record.cgroup)
        before = {one.device: one.before for one in record.io}
        wanted = disk.wanted(request, places_of(record))
        actions = disk.plan(record.cgroup, wanted, observed, before)
        lines = disk.owned(wanted, observed, before, lost=record.uid in self.ledger.lost)
        record = _with_io(record, lines, wanted)
        self.ledger.put(record)
        first = {device: observed.get(device, UNLIMITED) for device in wanted.keys() - before.keys()}
        self._write(actions, first if starts else None, record.uid)
        # What is back to what stood before us is no longer ours.
        record = _with_io(record, disk.held(wanted, lines), wanted)
        self.ledger.put(record)
        return record, len(actions)

    def _write(self, actions: Iterable[SetIo], back: Mapping[Device, IoLimits] | None, uid: str) -> None:
        """Carry out all actions, or as many as can be.

        Args:
            actions: In their order.
            back: What stood on devices that are written for the first time, and stands again if any action fails; None:
                each action for itself.
            uid: Of the pod.
        """
        done: list[SetIo] = []
        refused: Refusal | None = None
        for action in actions:
            done.append(action)
            try:
                self.cgroups.write_io(action, uid)
            except Refusal as refusal:
                refused = refused or refusal
                if back is not None:
                    break
        if refused is None:
            return
        for action in reversed(done):
            before = (back or {}).get(action.device)
            if before is not None and self.cgroups.read_io(action.cgroup).get(action.device, UNLIMITED) != before:
                self.cgroups.write_io(action._replace(limits=before), uid)
        raise refused

    def _hold_network(self, record: Record, intent: Intent) -> tuple[Record, int]:
        rates = network.wanted(intent.asked.network)
        if rates == UNSHAPED:
            return self._unshape(record), int(record.network is not None)
        try:
            return self._shape(record, rates)
        except GoneError as error:
            told = f"network limits cannot be held: {error}"
            raise Refusal("NetworkGone", told, "the pod is ending, or gets another sandbox") from error

    def _shape(self, record: Record, rates: Rates) -> tuple[Record, int]:
        ifb = network.ifb_name(record.sandbox)
        if record.network is not None and record.network.ifb != ifb:
            # Of an earlier sandbox of the pod: its interface has gone, its ifb stays.
            record = self._unshape(record)
        interface = self._links.find(record.netns)
        if record.network is not None and record.network.interface != interface:
            record = self._unshape(record)
        seen = self.shaper.observe(interface, ifb)
        refused = network.judge(interface, rates, seen)
        if refused is not None:
            raise refused
        record = msgspec.structs.replace(record, network=Shaped(interface, ifb, rates))
        self.ledger.put(record)
        actions = network.plan(interface, ifb, rates, seen)
        for action in actions:
            self.shaper.apply(action)
        return record, len(actions)

    def _unshape(self, record: Record) -> Record:
        shaped = record.network
        if shaped is not None:
            self.shaper.remove(shaped.interface, shaped.ifb)
            record = msgspec.structs.replace(record, network=None)
            self.ledger.put(record)
        return record

    def _cgroup_gone(self, record: Record) -> bool:
        try:
            self.cgroups.identity(record.cgroup)
        except Refusal as refusal:
            return refusal.reason == "CgroupGone"
        return False

    def _network_gone(self, record: Record) -> bool:
        try:
            self._links.find(record.netns)
        except GoneError:
            return True
        except Refusal:
            return False
        return False

    def _stands(self, record: Record) -> bool:
        if not record.io:
            return True
        try:
            observed = self.cgroups.read_io(record.cgroup)
        except Refusal:
            return False
        return all(observed.get(one.device, UNLIMITED) == one.wanted for one in record.io)

    def _unlimit(self, record: Record) -> None:
        """Bring io.max back to what it was, if the cgroup is still the same one."""
        if not record.io:
            return
        with _without("CgroupGone"):
            if self.cgroups.identity(record.cgroup) != record.inode:
                return
            observed = self.cgroups.read_io(record.cgroup)
            before = {one.device: one.before for one in record.io}
            for action in disk.undo(record.cgroup, observed, before):
                # Of a disk that was unplugged all lines went with it.
                with _without("DeviceNotThrottled"):
                    self.cgroups.write_io(action, record.uid)


@contextmanager
def _without(reason: str) -> Iterator[None]:
    try:
        yield
    except Refusal as refusal:
        if refusal.reason != reason:
            raise


def not_enforced(kind: Kind) -> Refusal:
    """Return why a kind that is switched off on this node is refused."""
    return Refusal("NotEnforced", f"{kind} is not enforced on this node", "see noisegate node preflight")


def places_of(record: Record) -> dict[str, Device]:
    """Return the device of each volume that a container of the pod has; of one that has moved, where it is now."""
    return {volume: device for one in record.containers for volume, device in one.places.items()}


def _with_io(record: Record, before: Mapping[Device, IoLimits], wanted: Mapping[Device, IoLimits]) -> Record:
    lines = tuple(IoSet(device, before[device], wanted.get(device, before[device])) for device in sorted(before))
    return msgspec.structs.replace(record, io=lines)
