"""A pod's cgroup as the kubelet makes it, for tests without a kubelet.

Names: pkg/kubelet/cm/cgroup_manager_linux.go. With the systemd driver the kubelet asks systemd for a slice; by CRI alone nobody does,
and systemd's implicit slice loses its io.max in silence when its last scope ends.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vm.node import Node

PROPERTIES: Final = "MemoryAccounting b true CPUAccounting b true IOAccounting b true TasksAccounting b true DefaultDependencies b false"
"""What libcontainer gives every slice on cgroup v2 (opencontainers/cgroups, systemd/v2.go)."""


def create_slice(node: "Node", uid: str, qos: str) -> str:
    """Make a pod's slice and those it is in; return its path below /sys/fs/cgroup.

    Args:
        node: Where.
        uid: The pod's.
        qos: `guaranteed`, `burstable` or `besteffort`.
    """
    names = ["kubepods", *([] if qos == "guaranteed" else [qos]), f"pod{uid.replace('-', '_')}"]
    slices = ["-".join(names[: depth + 1]) + ".slice" for depth in range(len(names))]
    node.sh("\n".join(_start(name, parent) for name, parent in zip(slices, ["-.slice", *slices], strict=False)))
    return "/" + "/".join(slices)


def create_folder(node: "Node", uid: str, qos: str) -> str:
    """Make a pod's cgroup and those it is in, with every controller, as the cgroupfs driver does; return its path."""
    names = ["kubepods", *([] if qos == "guaranteed" else [qos]), f"pod{uid}"]
    paths = ["", *("/" + "/".join(names[: depth + 1]) for depth in range(len(names)))]
    lines = [
        f"mkdir -p /sys/fs/cgroup{path}; sed 's/[a-z]*/+&/g' /sys/fs/cgroup{path}/cgroup.controllers"
        f" > /sys/fs/cgroup{path}/cgroup.subtree_control"
        for path in paths
    ]
    node.sh("\n".join(lines))
    return paths[-1]


def _start(name: str, parent: str) -> str:
    # A call's answer is a job; `systemctl start` waits for it.
    wanted = f"Description s 'libcontainer container {name}' Wants as 1 {parent} {PROPERTIES}"
    manager = "org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager"
    call = f"busctl --quiet call -- {manager} StartTransientUnit 'ssa(sv)a(sa(sv))' {name} replace 7 {wanted} 0"
    return f"systemctl --quiet is-active {name} || {{ {call}; systemctl start {name}; }}"
