"""Which interface of the host is the other end of a pod's eth0.

Nothing here enters a pod's network namespace: the kernel is asked about it from outside, by the id that our own
namespace has for it (RTM_GETNSID, then IFLA_TARGET_NETNSID of RTM_GETLINK: Linux 4.20).
"""

import errno
import os
from pathlib import Path
from typing import Final

from noisegate.enforcement.actions import Interface
from noisegate.enforcement.kernel.errors import NETNS, refusal
from noisegate.enforcement.kernel.mountinfo import Tree
from noisegate.enforcement.kernel.rtnetlink import Link, Rtnetlink
from noisegate.enforcement.plan.network import judge_device
from noisegate.enforcement.refusal import Refusal

POD_INTERFACE: Final = "eth0"
"""What a pod's own interface is called: containerd and CRI-O have the CNI plugins name it so."""
_OURS: Final = Path("/proc/thread-self/ns/net")
_NO_NAMESPACE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EINVAL})
"""A path that is not there; a file whose mount has been taken away and that is a plain file again."""


class GoneError(Exception):
    """A pod's network namespace or interface is no more: there is nothing left to limit."""


class Links:
    """Finds interfaces in the network namespace of the calling thread.

    Args:
        host: Where the paths that the runtime names lead, /run/netns or the runtime's state directory
            (`netns_mounts_under_state_dir`); mounts must arrive there when they are made. None: this process sees them itself.
    """

    def __init__(self, host: Tree | None = None) -> None:
        self._host: Final = host

    def find(self, netns: str) -> Interface:
        """Return the host's end of a pod's eth0.

        Args:
            netns: Path of the pod's network namespace as NRI tells it; empty: none is told.

        Raises:
            GoneError: The namespace is no more.
            Refusal: The pod has no interface that can be limited, or the kernel does not tell.
        """
        if not netns:
            raise _untold()
        try:
            there = self._host.seen(netns) if self._host is not None else netns
            descriptor = os.open(there, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(netns, error) from None
        try:
            if os.path.samestat(os.fstat(descriptor), _OURS.stat()):
                raise _host_network()
            with Rtnetlink() as route:
                return _host_end(route, route.namespace_id(descriptor))
        except OSError as error:
            raise _unreadable(netns, error) from None
        finally:
            os.close(descriptor)

    def gone(self, interface: Interface) -> bool:
        """Return whether no veth with both this index and this name is here any more.

        Raises:
            OSError: The kernel does not tell.
        """
        with Rtnetlink() as route:
            return here(route, interface) is None

    def belongs(self, interface: Interface, netns: str) -> bool:
        """Return whether an interface is the host's end of this pod's eth0, and not of one that took its numbers.

        Raises:
            Refusal: The kernel does not tell.
        """
        try:
            return self.find(netns) == interface
        except GoneError:
            return False


def here(route: Rtnetlink, interface: Interface) -> Link | None:
    """Return a veth of this network namespace, if both its index and its name are these."""
    found = route.link(index=interface.index)
    return found if found and (found.name, found.kind) == (interface.name, "veth") else None


def _host_end(route: Rtnetlink, namespace: int) -> Interface:
    inside = route.link(name=POD_INTERFACE, namespace=namespace)
    if inside is None:
        told = f"the pod's network namespace has no {POD_INTERFACE}"
        raise Refusal("NoInterface", told, "see what the CNI plugin made: ip -n NETNS link")
    refused = judge_device(inside.kind)
    if refused:
        raise refused
    # Two ends that name each other are one pair: indices alone mean something only within their namespace.
    outside = route.link(index=inside.peer)
    if outside is None or (outside.kind, outside.peer, outside.peer_namespace) != ("veth", inside.ifindex, namespace):
        told = f"the other end of {POD_INTERFACE} is in another network namespace than the node's"
        raise Refusal("DataPathNotShapable", told, "use a CNI plugin that leaves it in the node's (ptp, bridge)")
    return Interface(outside.ifindex, outside.name)


def _host_network() -> Refusal:
    told = "the pod is in the node's own network namespace (hostNetwork): a limit would hold the whole node"
    return Refusal("HostNetwork", told, "leave the annotation or hostNetwork out")


def _untold() -> Refusal:
    told = "the runtime does not tell which network namespace the pod has"
    mend = "see the runtime's log, and delete the pod so that it gets another sandbox; if its RuntimeClass never tells, leave the annotation out"
    return Refusal("NetworkNamespaceUntold", told, mend)


def _unreadable(netns: str, error: OSError) -> Exception:
    if error.errno in _NO_NAMESPACE:
        return GoneError(f"{netns} is no network namespace any more")
    return refusal(NETNS, error.errno or 0, f"{POD_INTERFACE} in {netns} cannot be read")
