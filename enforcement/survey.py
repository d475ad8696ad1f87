"""The parts of a node's enforcer, as its settings say, and a look at the node with them."""

import os
from pathlib import Path
from typing import NamedTuple, Self

from noisegate.enforcement import preflight
from noisegate.enforcement.actions import Device
from noisegate.enforcement.config import Settings
from noisegate.enforcement.kernel import probe
from noisegate.enforcement.kernel.blocks import Blocks
from noisegate.enforcement.kernel.cgroup import CgroupTree
from noisegate.enforcement.kernel.links import Links
from noisegate.enforcement.kernel.mountinfo import Mounts, Tree, holding
from noisegate.enforcement.kernel.probe import Facts
from noisegate.enforcement.kernel.resctrl import Resctrl
from noisegate.enforcement.kernel.shaper import Shaper
from noisegate.enforcement.places import Places
from noisegate.enforcement.plan.rdt import Facts as RdtFacts
from noisegate.enforcement.plan.rdt import Owner, owner_of
from noisegate.enforcement.preflight import Check
from noisegate.enforcement.rdt import NodeRdt
from noisegate.enforcement.refusal import Refusal
from noisegate.enforcement.report.node import Enforced


class Parts(NamedTuple):
    """What touches the node.

    Attributes:
        cgroups: Its cgroup tree.
        links: Finds pods' interfaces.
        shaper: Shapes them.
        mounts: Its mounts.
        places: Finds volumes' devices.
        resctrl: Its resctrl.
    """

    cgroups: CgroupTree
    links: Links
    shaper: Shaper
    mounts: Mounts
    places: Places
    resctrl: Resctrl

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the parts as settings say."""
        mounts, host = Mounts(), Path(settings.host)
        links = Links(Tree(mounts, host))
        places = Places(Blocks(Path(settings.sys)), mounts, host, settings.disk.store)
        return cls(CgroupTree(Path(settings.cgroup)), links, Shaper(), mounts, places, Resctrl(Path(settings.resctrl)))


def switched_off(settings: Settings) -> tuple[Enforced, ...]:
    """Return the kinds that are not to be held on this node."""
    enforced: dict[Enforced, bool] = {
        "disk": settings.disk.enforced,
        "network": settings.network.enforced,
        "rdt": settings.rdt.enforced,
    }
    return tuple(kind for kind, on in enforced.items() if not on)


def examine(settings: Settings, parts: Parts, before: Facts | None = None) -> Facts:
    """Look at the node. What was good `before` and costs something to look at is not looked at again."""
    mounts = parts.mounts()
    hierarchy, controllers, driver, below = probe.cgroup_facts(parts.cgroups.root, mounts)
    state = holding(mounts, settings.state)
    ifb = probe.ifb_facts() if before is None or before.ifb else ""
    good = before is not None and _starts_in_group(before) is True
    runc = before.runc if before is not None and good else probe.runc_facts(_in_host(settings))
    return Facts(
        kernel=os.uname().release,
        hierarchy=hierarchy,
        controllers=controllers,
        driver=driver,
        pods_controllers=below,
        config=probe.config_facts(settings.runtime.config, Path(settings.host)),
        nri_socket=settings.nri.socket,
        socket=Path(settings.nri.socket).is_socket(),
        store_folder=settings.disk.store,
        store=_store(parts.places),
        ifb=ifb,
        runc=runc,
        resctrl=probe.resctrl_facts(parts.resctrl),
        state=state.fstype if state is not None else "",
    )


def rdt_of(facts: Facts, parts: Parts) -> NodeRdt:
    """Return RDT of this node."""
    return NodeRdt(parts.resctrl, runtime_config=_runtime_rdt(facts), starts_in_group=_starts_in_group(facts))


def renew(rdt: NodeRdt, facts: Facts) -> None:
    """Tell RDT of this node what a later look has found."""
    rdt.renew(runtime_config=_runtime_rdt(facts), starts_in_group=_starts_in_group(facts))


def checks(settings: Settings, facts: Facts, owner: Owner) -> list[Check]:
    """Return the preflight of this node."""
    return preflight.judge(facts, owner, switched_off(settings))


def boot() -> str:
    """Return what identifies this boot of the machine (proc_sys_kernel(5))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def owner(settings: Settings, facts: Facts) -> Owner:
    """Return who will own RDT on this node."""
    classes, enforced = bool(settings.rdt.classes), settings.rdt.enforced
    return owner_of(RdtFacts(_runtime_rdt(facts), facts.resctrl, _starts_in_group(facts), classes, enforced))


def _runtime_rdt(facts: Facts) -> str:
    """Return the runtime's RDT configuration. One that cannot be read may have one: then nothing is taken from it."""
    return "unknown" if isinstance(facts.config, Refusal) else facts.config.rdt_config_file


def _starts_in_group(facts: Facts) -> bool | Refusal:
    return facts.runc if isinstance(facts.runc, Refusal) else bool(facts.runc.intel_rdt)


def _store(places: Places) -> Device | Refusal:
    try:
        return places.of_store()
    except Refusal as refusal:
        return refusal


def _in_host(settings: Settings) -> tuple[str, ...]:
    """Return the command that runs the host's runc; its libraries are the host's too."""
    command = settings.runtime.runc
    return command if settings.host == "/" else ("chroot", settings.host, *command)
