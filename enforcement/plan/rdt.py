"""Which resctrl groups to make, change and remove, so that every class of the class file has its group; and who does it.

A node's RDT has one owner. Where the runtime has an RDT configuration it makes the groups, named like the classes, and
removes all others when it starts (containerd's pkg/rdt/rdt_linux.go: an empty prefix, `force`); this program then only
looks. Elsewhere the groups are ours and begin with `noisegate-`.
"""

from collections.abc import Collection, Mapping
from typing import Final, Literal, NamedTuple

from noisegate.enforcement.plan.partitions import PREFIX
from noisegate.enforcement.plan.schemata import Machine, Schemata, differing
from noisegate.enforcement.refusal import Refusal
from noisegate.isolation.problems import nearest
from noisegate.isolation.rdt import ROOT_CLASS, Choice


class Group(NamedTuple):
    """A group of resctrl.

    Attributes:
        schemata: What it may use.
        used: Whether tasks are in it.
        mode: `shareable`, `exclusive`, `pseudo-locksetup` or `pseudo-locked`.
    """

    schemata: Schemata
    used: bool = False
    mode: str = "shareable"


class Groups(NamedTuple):
    """All groups of resctrl.

    Attributes:
        ours: By name, with our prefix.
        foreign: Names of all others but the root.
        root: The root group's schemata.
    """

    ours: Mapping[str, Group]
    foreign: Collection[str] = ()
    root: Schemata = {}  # noqa: RUF012  (never written)


class MakeGroup(NamedTuple):
    """Make a directory: the kernel takes a CLOSID for it and gives it all that is shareable."""

    group: str


class WriteSchemata(NamedTuple):
    """Write what is not as it shall be."""

    group: str
    schemata: Schemata


class RemoveGroup(NamedTuple):
    """Remove a directory: the kernel moves what tasks are in it to the root group and frees the CLOSID."""

    group: str


RdtAction = MakeGroup | WriteSchemata | RemoveGroup


class Outcome(NamedTuple):
    """What became of a class, where that is not what the class file says.

    Attributes:
        rdt_class: Its name.
        reason: `ClassKept`, `ClosidsExhausted`, `GroupNotShareable`, `RootGroupKept`.
        told: One sentence without a full stop.
        mend: What to do next; empty where nothing is to be done.
    """

    rdt_class: str
    reason: str
    told: str
    mend: str = ""

    def refusal(self) -> Refusal:
        """Return it as the answer to a container that asks for the class."""
        return Refusal(self.reason, self.told, self.mend)


class RdtPlan(NamedTuple):
    """What to do, in this order, and what cannot be done."""

    actions: tuple[RdtAction, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


def group_of(rdt_class: str) -> str:
    """Return the name of a class's group."""
    return PREFIX + rdt_class


def plan(wanted: Mapping[str, Schemata], groups: Groups, machine: Machine, in_use: Collection[str] = ()) -> RdtPlan:
    """Bring the groups in step with the class file.

    Groups are removed before others are made, so that no more CLOSIDs are needed than there are, and a group is given
    its schemata right after it is made. Every step leaves the classes that are not part of it as they are.

    Args:
        wanted: Schemata by class, the first classes being served first where CLOSIDs do not suffice.
        groups: What there is.
        machine: What can be shared out.
        in_use: Classes whose containers may not have tasks in their group yet, but will.
    """
    outcomes = [*_root(wanted, groups)]
    names = {group_of(name): name for name in wanted if name != ROOT_CLASS}
    removed: list[RdtAction] = []
    for group, there in groups.ours.items():
        name = group.removeprefix(PREFIX)
        if group in names:
            continue
        if there.used or name in in_use:
            told = f"RDT class {name} is not given out any more, but containers run in it; its group stays until it is empty"
            outcomes.append(Outcome(name, "ClassKept", told))
        else:
            removed.append(RemoveGroup(group))
    free = machine.closids - 1 - len(groups.foreign) - len(groups.ours) + len(removed)
    changed: list[RdtAction] = []
    made: list[RdtAction] = []
    for group, name in names.items():
        there_now = groups.ours.get(group)
        if there_now is None and free <= 0:
            outcomes.append(_exhausted(name, groups, machine))
        elif there_now is None:
            free -= 1
            made += [MakeGroup(group), WriteSchemata(group, wanted[name])]
        elif there_now.mode.startswith("pseudo-lock"):
            told = f"the group {group} is in mode {there_now.mode}, which takes no tasks and no schemata"
            outcomes.append(Outcome(name, "GroupNotShareable", told, f"remove the group {group}; it is made anew"))
        elif rest := differing(wanted[name], there_now.schemata):
            changed.append(WriteSchemata(group, rest))
    return RdtPlan((*removed, *changed, *(action for action in made if _says_something(action))), tuple(outcomes))


def cleanup(groups: Groups) -> RdtPlan:
    """Remove every group of ours that is empty, as before this program came; what still has tasks is told."""
    return plan({}, groups, Machine({}, None, 0))


def _says_something(action: RdtAction) -> bool:
    """Tell whether an action does anything: a machine that only monitors has no schemata."""
    return not isinstance(action, WriteSchemata) or bool(action.schemata)


def _root(wanted: Mapping[str, Schemata], groups: Groups) -> list[Outcome]:
    if not differing(wanted.get(ROOT_CLASS, {}), groups.root):
        return []
    told = f"the class file gives {ROOT_CLASS} a share, but the root group is not ours and stays as it is"
    mend = "write the root's schemata when the node boots, or let the runtime own RDT (noisegate node rdt-config)"
    return [Outcome(ROOT_CLASS, "RootGroupKept", told, mend)]


def _exhausted(name: str, groups: Groups, machine: Machine) -> Outcome:
    told = (
        f"no CLOSID is left for RDT class {name}: the machine has {machine.closids}, one is the root group's, "
        f"{len(groups.foreign)} are of groups that are not ours"
    )
    return Outcome(name, "ClosidsExhausted", told, "use fewer classes, or remove groups that nobody needs")


class Facts(NamedTuple):
    """What decides who owns RDT on a node.

    Attributes:
        runtime_config: `rdt_config_file` of the runtime; empty: it has none.
        resctrl: Why resctrl cannot be used; None: it can.
        starts_in_group: Whether the OCI runtime says that it can start a container in a group, or why it could not be asked.
        class_file: Whether this program has a class file.
        enforced: Whether this program is to apply RDT classes on this node.
    """

    runtime_config: str
    resctrl: Refusal | None
    starts_in_group: bool | Refusal
    class_file: bool
    enforced: bool = True


class Owner(NamedTuple):
    """Who makes the groups of this node.

    Attributes:
        who: `runtime`, `enforcer` or `none`.
        why: In a sentence without a full stop.
        mend: What would make it possible, where nobody can.
    """

    who: Literal["runtime", "enforcer", "none"]
    why: str
    mend: str = ""


def owner_of(facts: Facts) -> Owner:
    """Decide who owns RDT on a node."""
    if facts.resctrl is not None:
        return Owner("none", facts.resctrl.told, facts.resctrl.mend)
    if facts.runtime_config:
        return Owner("runtime", f"the runtime has an RDT configuration ({facts.runtime_config})")
    if not facts.enforced:
        return Owner("none", "RDT is switched off on this node", "set rdt.enforced in node.yaml")
    if not facts.class_file:
        return Owner("none", "there is no class file", "set the node's class file")
    if isinstance(facts.starts_in_group, Refusal):
        told = (
            f"whether the OCI runtime can start a container in an RDT group is not known: {facts.starts_in_group.told}"
        )
        return Owner("none", told, facts.starts_in_group.mend)
    if not facts.starts_in_group:
        told = "the OCI runtime does not say that it can start a container in an RDT group (linux.intelRdt of its features)"
        return Owner("none", told, "use runc 1.2 or newer")
    return Owner("enforcer", "resctrl is mounted, the runtime has no RDT configuration and runc starts in groups")


class RdtAdjustment(NamedTuple):
    """What the answer to CreateContainer says of RDT; at most one is set.

    Attributes:
        clos_id: The group's name, for `linux.rdt.clos_id`.
        rdt_class: For `linux.resources.rdt_class`: the runtime finds the group.
    """

    clos_id: str = ""
    rdt_class: str = ""


NOTHING: Final = RdtAdjustment()


def adjust(
    choice: Choice | None, owner: Owner, known: frozenset[str], outcomes: Collection[Outcome] = ()
) -> RdtAdjustment:
    """Return what is to be said of a container's class.

    Args:
        choice: The container's, as its pod asks; None: it asks for none.
        owner: Of RDT on this node.
        known: Classes that have their group now.
        outcomes: Of classes that have not, and why.

    Raises:
        Refusal: The container cannot run in its class here.
    """
    # The runtime reads its own keys itself, and refuses what it cannot do. Everything runs in the root group by itself.
    if choice is None or not choice.own or choice.rdt_class == ROOT_CLASS:
        return NOTHING
    name = choice.rdt_class
    if owner.who == "none":
        raise Refusal("RdtNotAvailable", f"RDT class {name} cannot be given on this node: {owner.why}", owner.mend)
    if name not in known:
        for outcome in outcomes:
            if outcome.rdt_class == name:
                raise outcome.refusal()
        meant = nearest(name, known)
        told = f"RDT class {name} is unknown on this node; known: {', '.join(sorted(known)) or 'none'}"
        raise Refusal("RdtClassUnknown", told, f"write {meant}" if meant else "")
    return RdtAdjustment(clos_id=group_of(name)) if owner.who == "enforcer" else RdtAdjustment(rdt_class=name)
