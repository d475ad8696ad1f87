"""What a node has for holding limits, looked at once: kernel, cgroups, runtime, devices. Judged in `preflight.py`."""

import os
from pathlib import Path
from typing import Final, NamedTuple

from noisegate.enforcement.actions import Device
from noisegate.enforcement.kernel import runc
from noisegate.enforcement.kernel.containerd_config import ContainerdConfig, load
from noisegate.enforcement.kernel.mountinfo import Mount
from noisegate.enforcement.kernel.resctrl import Resctrl
from noisegate.enforcement.kernel.rtnetlink import Rtnetlink
from noisegate.enforcement.kernel.runc import RuncFeatures
from noisegate.enforcement.kernel.shaper import CLASS, HANDLE
from noisegate.enforcement.kernel.tc import ROOT
from noisegate.enforcement.refusal import Refusal

PROBE: Final = "ng-preflight"
"""An ifb of this name stands for the moment of the look."""
KUBEPODS: Final = {"systemd": "kubepods.slice", "cgroupfs": "kubepods"}
"""The kubelet's group of all pods, by its cgroup driver."""


class Facts(NamedTuple):
    """What was found.

    Attributes:
        kernel: Its release.
        hierarchy: Type of the file system at the cgroup root: `cgroup2`; empty: nothing is mounted there.
        controllers: That the kernel has in cgroup v2.
        driver: The kubelet's cgroup driver, `systemd` or `cgroupfs`; empty: it has made no pods' group yet.
        pods_controllers: Switched on for the groups below the kubelet's group of all pods.
        config: The runtime's configuration, or why it is not known.
        nri_socket: Where NRI's socket was looked for.
        socket: Whether it is there.
        store_folder: Where the container store was looked for.
        store: Device of the container store, or why it has none that can be throttled.
        ifb: Why an ifb with an htb cannot be made; empty: it can.
        runc: The OCI runtime's features, or why they are not known.
        resctrl: Why resctrl cannot be used; None: it can.
        state: Type of the file system of the state folder.
    """

    kernel: str
    hierarchy: str
    controllers: frozenset[str]
    driver: str
    pods_controllers: frozenset[str]
    config: ContainerdConfig | Refusal
    nri_socket: str
    socket: bool
    store_folder: str
    store: Device | Refusal
    ifb: str
    runc: RuncFeatures | Refusal
    resctrl: Refusal | None
    state: str


def cgroup_facts(root: Path, mounts: tuple[Mount, ...]) -> tuple[str, frozenset[str], str, frozenset[str]]:
    """Return the type of the hierarchy, its controllers, the kubelet's driver and what is on below its group of pods."""
    found = [mount.fstype for mount in mounts if mount.point == str(root)]
    driver = next((name for name, group in KUBEPODS.items() if (root / group).is_dir()), "")
    below = _words(root / KUBEPODS[driver] / "cgroup.subtree_control") if driver else frozenset()
    return found[-1] if found else "", _words(root / "cgroup.controllers"), driver, below


def config_facts(path: str, host: Path) -> ContainerdConfig | Refusal:
    """Return the runtime's configuration, or why it is not known."""
    try:
        return load(path, host)
    except Refusal as refusal:
        return refusal


def runc_facts(command: tuple[str, ...]) -> RuncFeatures | Refusal:
    """Return the OCI runtime's features, or why they are not known."""
    try:
        return runc.ask(command)
    except Refusal as refusal:
        return refusal


def resctrl_facts(resctrl: Resctrl) -> Refusal | None:
    """Return why resctrl cannot be used."""
    try:
        resctrl.machine()
    except Refusal as refusal:
        return refusal
    return None


def ifb_facts() -> str:
    """Make an ifb with an htb, take both away, and return why that did not go; empty: it went."""
    try:
        with Rtnetlink() as route:
            there = route.link(name=PROBE)
            if there is not None:
                route.delete_link(there.ifindex)
            route.add_ifb(PROBE, 32)
            made = route.link(name=PROBE)
            if made is None:
                return "the ifb that was made is not there"
            try:
                route.add_htb(made.ifindex, HANDLE, CLASS & 0xFFFF)
                return "" if route.qdisc(made.ifindex, ROOT) is not None else "the htb that was made is not there"
            finally:
                route.delete_link(made.ifindex)
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)


def _words(file: Path) -> frozenset[str]:
    try:
        return frozenset(file.read_text().split())
    except OSError:
        return frozenset()
