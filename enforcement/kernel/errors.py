"""What the kernel means by an errno, told once for each of its interfaces.

The same number says different things: `ENODEV` from `io.max` is a partition, from netlink an interface that has gone.
A row is found by (interface, errno); where an interface has none, by the errno alone.
"""

import errno
import os
from collections.abc import Mapping
from typing import Final, NamedTuple

from noisegate.enforcement.refusal import Refusal

CGROUP: Final = "cgroup"
"""A cgroup's folder in the cgroup v2 hierarchy."""
IO: Final = "io"
"""The files of the io controller in it: io.max, io.stat."""
SYSFS: Final = "sysfs"
"""Block devices under /sys."""
PROC: Final = "proc"
"""/proc/<pid>/mountinfo."""
TC: Final = "tc"
"""Links, qdiscs, classes and filters over rtnetlink, and bpf(2) for what stands beside them."""
NETNS: Final = "netns"
"""A network namespace by its path, and the devices in it."""


class Meaning(NamedTuple):
    """What an errno says.

    Attributes:
        reason: Of the Event, one CamelCase word.
        told: Why it did not go, to be read after a colon.
        mend: What to do next; empty where nothing is obvious.
    """

    reason: str
    told: str
    mend: str = ""


_ANY: Final[Mapping[int, Meaning]] = {
    errno.EACCES: Meaning(
        "NotAllowed", "we may not write it", "the enforcer runs as root, with its folders of the host"
    ),
    errno.EPERM: Meaning("NotAllowed", "we lack a capability for it", "compare the DaemonSet's capabilities"),
    errno.EROFS: Meaning("ReadOnly", "it is mounted read-only", "mount it writable into the enforcer's container"),
    errno.ENOMEM: Meaning("KernelOutOfMemory", "the kernel has no memory for it", "free memory on the node"),
}

# Documentation/admin-guide/cgroup-v2.rst; kernfs answers ENODEV to who holds a file of a cgroup that was removed.
_CGROUP: Final[Mapping[int, Meaning]] = {
    errno.ENOENT: Meaning("CgroupGone", "the cgroup does not exist", "the pod has ended, or another made it"),
    errno.ENODEV: Meaning("CgroupGone", "the cgroup was removed", "the pod has ended"),
    errno.ELOOP: Meaning(
        "CgroupForeign", "a part of the path is no folder, or a symbolic link", "cgroups have none: see who made it"
    ),
    errno.ENOTDIR: Meaning(
        "CgroupForeign", "a part of the path is no folder, or a symbolic link", "cgroups have none: see who made it"
    ),
}

# block/blk-throttle.c (tg_set_limit) and block/blk-cgroup.c (blkg_conf_open_bdev).
_IO: Final[Mapping[int, Meaning]] = {
    errno.ENOENT: Meaning(
        "IoControllerMissing",
        "the io controller is not on in this cgroup",
        "add io to cgroup.subtree_control of the cgroups above it; the kubelet does so where the kernel has it",
    ),
    errno.ENODEV: Meaning(
        "DeviceNotThrottled",
        "the device is a partition, or has gone",
        "limits stand on whole disks, device-mapper and md devices: lsblk shows them",
    ),
    errno.ERANGE: Meaning("LimitRefused", "the kernel takes no limit of 0", "raise the limit"),
    # Since Linux 5.11 (blk-throttle: treat 1 as an illegal value).
    errno.EINVAL: Meaning(
        "LimitRefused", "the kernel does not take these values", "limits below 2 are refused: raise them"
    ),
    errno.EOPNOTSUPP: Meaning(
        "DeviceNotThrottled", "the device has no block throttling", "the kernel needs CONFIG_BLK_DEV_THROTTLING"
    ),
    errno.EBUSY: Meaning("DeviceBusy", "the device is being reconfigured", "the next attempt may succeed"),
}

_SYSFS: Final[Mapping[int, Meaning]] = {
    errno.ENOENT: Meaning("DeviceGone", "the block device is not there", "lsblk shows what is"),
    errno.ENODEV: Meaning("DeviceGone", "the block device has gone", "lsblk shows what is there"),
}

_PROC: Final[Mapping[int, Meaning]] = {
    errno.ENOENT: Meaning("MountsUnknown", "the process has ended", "the enforcer needs hostPID"),
    errno.ESRCH: Meaning("MountsUnknown", "the process has ended", "the enforcer needs hostPID"),
    errno.EINVAL: Meaning("MountsUnknown", "the process has left its mount namespace", "the process is ending"),
}

# net/sched/sch_api.c and cls_api.c.
_TC: Final[Mapping[int, Meaning]] = {
    errno.EPERM: Meaning(
        "NotAllowed",
        "we lack a capability for it",
        "the enforcer needs CAP_NET_ADMIN and CAP_BPF, and a seccomp profile that lets bpf(2) pass",
    ),
    errno.EEXIST: Meaning("ForeignQdisc", "another has just put its own there", "see what: tc qdisc show, tc filter show"),
    errno.ENOENT: Meaning(
        "ShaperMissing",
        "the kernel has no such queueing discipline, or it was taken away in between",
        "the kernel needs sch_htb, sch_ingress, cls_u32, act_mirred and ifb: modprobe them",
    ),
    errno.EOPNOTSUPP: Meaning(
        "ShaperMissing", "the kernel has no such device or qdisc", "it needs sch_htb, sch_ingress, cls_u32, act_mirred, ifb"
    ),
    errno.EINVAL: Meaning("RateRefused", "the kernel does not take these values", "see the kernel's log"),
    errno.EBUSY: Meaning("DeviceBusy", "the device is being reconfigured", "the next attempt may succeed"),
    errno.ENOBUFS: Meaning("KernelOutOfMemory", "the answer of the kernel did not fit", "the next attempt may succeed"),
}  # fmt: skip

_NETNS: Final[Mapping[int, Meaning]] = {
    errno.EPERM: Meaning("NotAllowed", "we lack a capability for it", "the enforcer needs CAP_NET_ADMIN"),
    errno.EACCES: Meaning("NotAllowed", "we may not open it", "the enforcer runs as root, with the host's /run/netns"),
}

MEANINGS: Final[Mapping[str, Mapping[int, Meaning]]] = {
    "": _ANY,
    CGROUP: _CGROUP,
    IO: _IO,
    SYSFS: _SYSFS,
    PROC: _PROC,
    TC: _TC,
    NETNS: _NETNS,
}
"""By interface and errno; interface "" stands for all of them."""


def meaning(interface: str, number: int) -> Meaning:
    """Return what an errno says; where no row is known, the C library's words for it."""
    found = MEANINGS.get(interface, {}).get(number) or _ANY.get(number)
    return found or Meaning("KernelRefused", os.strerror(number))


def refusal(interface: str, number: int, undone: str) -> Refusal:
    """Return the refusal that an errno makes.

    Args:
        interface: One of the names above.
        number: The errno, positive.
        undone: What could not be done, with value and place: `8:1 rbps=1 cannot be written into /a/io.max`.
    """
    reason, told, mend = meaning(interface, number)
    return Refusal(reason, f"{undone}: {told} ({errno.errorcode.get(number, number)})", mend)
