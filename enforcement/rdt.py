"""RDT on this node: keeps the groups of the class file in step, and says what a container's class means here.

rdt = NodeRdt(resctrl, runtime_config=config.rdt_config_file, starts_in_group=features.intel_rdt)
rdt.load(read(text, "classes.yaml"))     # at the start, and when the class file changes
rdt.renew(runtime_config=..., ...)       # when the runtime may have changed
report = rdt.reconcile(in_use)           # then and again: repairs what others changed
adjustment = rdt.adjust(choice)          # in CreateContainer
"""

import threading
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final, NamedTuple

from noisegate.enforcement.kernel.resctrl import Resctrl
from noisegate.enforcement.plan.partitions import PREFIX, ClassFile, resolve
from noisegate.enforcement.plan.rdt import (
    NOTHING,
    Facts,
    MakeGroup,
    Outcome,
    Owner,
    RdtAction,
    RdtAdjustment,
    RdtPlan,
    RemoveGroup,
    WriteSchemata,
    adjust,
    cleanup,
    group_of,
    owner_of,
    plan,
)
from noisegate.enforcement.refusal import Refusal
from noisegate.isolation.rdt import ROOT_CLASS, Choice
from noisegate.service.faults import ConfigError


class RdtReport(NamedTuple):
    """What a reconciliation found and did.

    Attributes:
        owner: Of RDT on this node.
        done: What was changed, in this order.
        outcomes: Classes that are not as the class file says, and why.
        faults: Why the class file does not fit this machine, a line each; empty: it fits.
    """

    owner: Owner
    done: tuple[RdtAction, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    faults: tuple[str, ...] = ()


class NodeRdt:
    """RDT on one node. Its methods read and write files and are to be called off the event loop; threads take turns.

    Args:
        resctrl: The node's resctrl.
        runtime_config: The runtime's `rdt_config_file`; empty: it has none.
        starts_in_group: Whether the OCI runtime starts containers in a group (`linux.intelRdt.enabled`), or why it could not
            be asked.
    """

    def __init__(self, resctrl: Resctrl, *, runtime_config: str, starts_in_group: bool | Refusal) -> None:
        self._resctrl: Final = resctrl
        self._runtime_config = runtime_config
        self._starts_in_group = starts_in_group
        self._classes: ClassFile | None = None
        self._enforced = True
        self._in_use: frozenset[str] = frozenset()
        self._report = RdtReport(Owner("none", "it has not been looked at yet"))
        self._lock: Final = threading.Lock()

    @property
    def report(self) -> RdtReport:
        """What the last reconciliation found."""
        return self._report

    def load(self, classes: ClassFile | None, *, enforced: bool = True) -> None:
        """Take up a class file, with the next reconciliation.

        Args:
            classes: None: there is none, and no group of ours shall be.
            enforced: Whether RDT classes are applied on this node; if not, there shall be no group of ours either.
        """
        with self._lock:
            self._classes = classes
            self._enforced = enforced

    def renew(self, *, runtime_config: str, starts_in_group: bool | Refusal) -> None:
        """Take up what the runtime is like now, with the next reconciliation: it may have been configured otherwise since."""
        with self._lock:
            self._runtime_config = runtime_config
            self._starts_in_group = starts_in_group

    def reconcile(self, in_use: Collection[str] = ()) -> RdtReport:
        """Bring the groups in step with the class file, if they are ours to make.

        What one class cannot have does not keep the others from theirs. Where the class file does not fit this machine,
        the groups stay as they are.

        Args:
            in_use: Classes of containers that run or are about to start.
        """
        with self._lock:
            self._in_use = frozenset(in_use)
            return self._reconcile()

    def adjust(self, choice: Choice | None) -> RdtAdjustment:
        """Return what CreateContainer is to answer for a container's class.

        A group of ours that somebody removed is made again first.

        Raises:
            Refusal: The container cannot run in its class here.
        """
        if choice is None or not choice.own or choice.rdt_class == ROOT_CLASS:
            return NOTHING
        with self._lock:
            if choice.rdt_class not in self._known():
                self._reconcile()
            adjustment = adjust(choice, self._report.owner, self._known(), self._report.outcomes)
            self._in_use |= {choice.rdt_class}
            return adjustment

    def astray(self, rdt_class: str, threads: Iterable[int]) -> set[int]:
        """Return those of a class's threads that are not in its group, where groups are ours to keep and it has one.

        All of them are after somebody removed the group and it was made again, whoever asked for that.

        Raises:
            Refusal: The group cannot be read.
        """
        group = group_of(rdt_class)
        with self._lock:
            if self._report.owner.who != "enforcer" or group not in self._resctrl.names():
                return set()
            return set(threads).difference(self._resctrl.tasks(group))

    def place(self, rdt_class: str, threads: Iterable[int]) -> int:
        """Move threads into a class's group, and return how many.

        Raises:
            Refusal: A thread cannot be moved.
        """
        return self._resctrl.add(group_of(rdt_class), threads)

    def cleanup(self) -> RdtReport:
        """Remove every empty group of ours; whoever calls has stopped the containers that are in others."""
        with self._lock:
            try:
                self._resctrl.machine()
                steps = cleanup(self._resctrl.groups())
            except Refusal as refusal:
                return RdtReport(Owner("none", refusal.told, refusal.mend))
            return RdtReport(Owner("none", "groups are removed"), *self._carry_out(steps))

    def _known(self) -> frozenset[str]:
        """Return the classes of the class file whose group is as the file says; the runtime's are all groups there are."""
        if self._report.owner.who == "none":
            return frozenset()
        names = self._resctrl.names()
        if self._report.owner.who == "runtime":
            return frozenset(name for name in names if not name.startswith(PREFIX))
        failed = {outcome.rdt_class for outcome in self._report.outcomes}
        classes = self._classes.classes if self._classes else ()
        return frozenset(name for name in classes if group_of(name) in names and name not in failed)

    def _reconcile(self) -> RdtReport:
        unusable = None
        try:
            machine, groups = self._resctrl.machine(), self._resctrl.groups()
        except Refusal as refusal:
            unusable = refusal
        facts = Facts(
            self._runtime_config, unusable, self._starts_in_group, self._classes is not None, enforced=self._enforced
        )
        owner = owner_of(facts)
        if unusable is not None or owner.who == "runtime":
            self._report = RdtReport(owner)
            return self._report
        try:
            wanted = resolve(self._classes, machine) if self._classes and owner.who == "enforcer" else {}
        except ConfigError as error:
            faults = tuple(map(str, error.faults))
            told = f"the class file does not fit this machine: {faults[0]}"
            self._report = RdtReport(Owner("none", told, "mend the class file"), faults=faults)
            return self._report
        steps = plan(wanted, groups, machine, self._in_use)
        self._report = RdtReport(owner, *self._carry_out(steps))
        return self._report

    def _carry_out(self, steps: RdtPlan) -> tuple[tuple[RdtAction, ...], tuple[Outcome, ...]]:
        done: list[RdtAction] = []
        outcomes = list(steps.outcomes)
        failed: set[str] = set()
        for action in steps.actions:
            if action.group in failed:
                continue
            try:
                self._do(action)
            except Refusal as refusal:
                failed.add(action.group)
                outcomes.append(Outcome(action.group.removeprefix(PREFIX), refusal.reason, refusal.told, refusal.mend))
                if MakeGroup(action.group) in done:
                    # A group with the kernel's first schemata would let a container have all of the cache. One that
                    # cannot be removed is given to nobody: its class is among the outcomes.
                    with suppress(Refusal):
                        self._resctrl.remove(action.group)
                        done.remove(MakeGroup(action.group))
                continue
            done.append(action)
        return tuple(done), tuple(outcomes)

    def _do(self, action: RdtAction) -> None:
        match action:
            case MakeGroup(group):
                self._resctrl.make(group)
            case WriteSchemata(group, schemata):
                self._resctrl.write(group, schemata)
            case RemoveGroup(group):
                self._resctrl.remove(group)
