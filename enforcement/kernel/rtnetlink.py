"""rtnetlink (man 7 rtnetlink) as values: links, namespace ids, qdiscs, classes and filters.

pyroute2's classes write the messages and read all but links; those of qdiscs, classes and filters are in tc.py.
"""

import errno
import os
import struct
import sys
from contextlib import suppress
from typing import Any, Final, NamedTuple, Self

from pyroute2.netlink.rtnl import (
    RTM_DELLINK,
    RTM_DELQDISC,
    RTM_DELTFILTER,
    RTM_GETLINK,
    RTM_GETNSID,
    RTM_GETQDISC,
    RTM_GETTCLASS,
    RTM_GETTFILTER,
    RTM_NEWLINK,
    RTM_NEWNSID,
    RTM_NEWQDISC,
    RTM_NEWTCLASS,
    RTM_NEWTFILTER,
)
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg

from noisegate.enforcement.kernel import tc
from noisegate.enforcement.kernel.netlink import CREATE, DUMP, ECHO, EXCL, HEADER, REPLACE, Netlink, attributes

_IFINFO: Final = struct.Struct("=4xiI4x")
"""struct ifinfomsg: family, type, index, flags, change."""
_IFNAME: Final = 3
_LINK: Final = 5
_LINKINFO: Final = 18
_INFO_KIND: Final = 1
_STATS64: Final = 23
_LINK_NETNSID: Final = 37
"""IFLA_* (linux/if_link.h)."""
_BYTES: Final = struct.Struct("=16xQQ")
"""struct rtnl_link_stats64: packets received and sent, bytes received and sent, ..."""
_UP: Final = 1
_NOT_ASSIGNED: Final = 0xFFFFFFFF


class Link(NamedTuple):
    """A network device.

    Attributes:
        ifindex: Its number in its network namespace.
        name: Its name.
        kind: IFLA_INFO_KIND; empty: hardware, or the loopback device.
        up: IFF_UP.
        peer: ifindex of a veth's other end; 0: none.
        peer_namespace: Id of the other end's network namespace; None: the same.
        received: Bytes.
        sent: Bytes.
    """

    ifindex: int
    name: str
    kind: str
    up: bool
    peer: int
    peer_namespace: int | None
    received: int
    sent: int


class Rtnetlink:
    """One socket, for one thread and one operation; opened in the network namespace that the thread is in.

    Every method raises OSError with the kernel's errno and words.
    """

    def __init__(self) -> None:
        self._netlink: Final = Netlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._netlink.close()

    def _ask(self, message: Any, kind: int, flags: int = 0) -> list[Any]:
        answers = [type(message)(answer) for answer in self._answers(message, kind, flags)]
        for answer in answers:
            answer.decode()
        return answers

    def _answers(self, message: Any, kind: int, flags: int = 0) -> list[bytes]:
        return self._netlink.ask(kind, flags, _body(message))

    def namespace_id(self, descriptor: int) -> int:
        """Return the id by which this network namespace knows another, given an open file of it. One is made if need be.

        Raises:
            OSError: EINVAL: the file is no network namespace.
        """
        for _ in range(2):
            message = nsidmsg()
            message["attrs"] = [("NETNSA_FD", descriptor)]
            (answer,) = self._ask(message, RTM_GETNSID)
            found = answer.get_attr("NETNSA_NSID")
            if found != _NOT_ASSIGNED:
                break
            message = nsidmsg()
            message["attrs"] = [("NETNSA_NSID", _NOT_ASSIGNED), ("NETNSA_FD", descriptor)]
            with suppress(FileExistsError):  # the kernel has just made one, for a message of its own
                self._ask(message, RTM_NEWNSID)
        return int(found)

    def link(self, *, index: int = 0, name: str = "", namespace: int | None = None) -> Link | None:
        """Return a device by index or name, here or in a namespace that we have an id for; None: it is not there."""
        message = ifinfmsg()
        message["index"] = index
        if name:
            message["attrs"].append(("IFLA_IFNAME", name))
        if namespace is not None:
            message["attrs"].append(("IFLA_IF_NETNSID", namespace))
        try:
            return next(map(_link, self._answers(message, RTM_GETLINK)), None)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def links(self, kind: str) -> list[Link]:
        """Return all devices of a kind."""
        message = ifinfmsg()
        message["attrs"] = [("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]})]
        return [found for found in map(_link, self._answers(message, RTM_GETLINK, DUMP)) if found.kind == kind]

    def add_ifb(self, name: str, queue: int) -> None:
        """Make an ifb, up, whose class queues so many frames."""
        message = ifinfmsg()
        message["flags"] = message["change"] = _UP
        message["attrs"] = [
            ("IFLA_IFNAME", name),
            ("IFLA_TXQLEN", queue),
            ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "ifb")]}),
        ]
        self._ask(message, RTM_NEWLINK, CREATE | EXCL)

    def set_up(self, index: int) -> None:
        """Set a device up."""
        message = ifinfmsg()
        message["index"] = index
        message["flags"] = message["change"] = _UP
        self._ask(message, RTM_NEWLINK)

    def delete_link(self, index: int) -> None:
        """Take a device away, and all that stands on it."""
        message = ifinfmsg()
        message["index"] = index
        self._ask(message, RTM_DELLINK)

    def qdisc(self, index: int, parent: int) -> tc.Qdisc | None:
        """Return the qdisc at a device's `ROOT` or `INGRESS`; None: there is none."""
        try:
            # Without NLM_F_ECHO the answer goes only to those who listen to all changes (rtnetlink_send).
            found = self._ask(tc.message(index, parent=parent), RTM_GETQDISC, ECHO)
        except FileNotFoundError:
            return None
        return next(map(tc.read_qdisc, found), None)

    def qdiscs(self) -> list[tc.Qdisc]:
        """Return all qdiscs of all devices."""
        return [tc.read_qdisc(each) for each in self._ask(tc.message(0), RTM_GETQDISC, DUMP)]

    def add_htb(self, index: int, handle: int, default: int, *, replace: bool = False) -> None:
        """Put an htb at a device's root.

        Args:
            index: The device.
            handle: Of the qdisc.
            default: Minor number of the class for what no filter classifies.
            replace: Whether one that stands there gives way.
        """
        self._ask(tc.htb(index, handle, default), RTM_NEWQDISC, CREATE | (REPLACE if replace else EXCL))

    def delete_qdisc(self, index: int, parent: int, handle: int) -> None:
        """Take a qdisc away, if the one that stands there has this handle."""
        self._ask(tc.message(index, parent, handle), RTM_DELQDISC)

    def htb_class(self, index: int, handle: int) -> tuple[tc.HtbClass, int] | None:
        """Return a class and the bytes that it has sent; None: it is not there."""
        for each in self._ask(tc.message(index), RTM_GETTCLASS, DUMP):
            if each["handle"] == handle and each.get_attr("TCA_KIND") == "htb":
                return tc.read_htb_class(each)
        return None

    def set_htb_class(self, index: int, parent: int, handle: int, wanted: tc.HtbClass) -> None:
        """Make a class, or change it where it stands: its queue and counters stay."""
        self._ask(tc.htb_class(index, parent, handle, wanted), RTM_NEWTCLASS, CREATE)

    def filters(self, index: int, parent: int) -> list[tc.TcFilter]:
        """Return the filters at `AT_INGRESS` or `AT_EGRESS`, in the order in which the kernel asks them."""
        found = self._ask(tc.message(index, parent), RTM_GETTFILTER, DUMP)
        return [tc.read_filter(each) for each in found if tc.is_filter(each)]

    def is_filtered(self, index: int, parent: int) -> bool:
        """Return whether anything stands at `AT_INGRESS` or `AT_EGRESS`: filters, or a priority kept for some."""
        return bool(self._ask(tc.message(index, parent), RTM_GETTFILTER, DUMP))

    def redirect_all(self, index: int, priority: int, handle: int, target: int, *, replace: bool = False) -> None:
        """Have all frames that enter a device leave through another.

        Args:
            index: The device.
            priority: Of the filter.
            handle: u32: the lower 12 bits are its own; all 32, as they are dumped, where it replaces one.
            target: ifindex of the other.
            replace: Whether it stands there.
        """
        message = tc.redirecting(index, priority, handle, target)
        self._ask(message, RTM_NEWTFILTER, CREATE | (REPLACE if replace else EXCL))

    def redirect_all_by_clsact(self, index: int, priority: int, handle: int, target: int) -> None:
        """Put a clsact with a filter as `redirect_all` makes on a device: both, or neither, also when this process dies."""
        made, redirected = self._netlink.ask_at_once(
            (RTM_NEWQDISC, CREATE | EXCL, _body(tc.clsact(index))),
            (RTM_NEWTFILTER, CREATE | EXCL, _body(tc.redirecting(index, priority, handle, target))),
        )
        if made and not redirected:  # into one that somebody else has just made
            self.delete_filter(index, priority, tc.FIRST_TABLE | handle)
        if redirected and not made:
            self.delete_qdisc(index, tc.INGRESS, tc.INGRESS & 0xFFFF0000)
        for refused in (made, redirected):
            if refused:
                raise refused

    def delete_filter(self, index: int, priority: int, handle: int) -> None:
        """Take one u32 filter away at `AT_INGRESS`, or with handle 0 all of its priority."""
        self._ask(tc.u32(index, priority, handle), RTM_DELTFILTER)


def _link(answer: bytes) -> Link:
    """Read a link from its bytes: it has some sixty attributes, and pyroute2 takes a millisecond for them."""
    index, flags = _IFINFO.unpack_from(answer, HEADER.size)
    found = dict(attributes(answer[HEADER.size + _IFINFO.size :]))
    info = dict(attributes(found.get(_LINKINFO, b"")))
    received, sent = _BYTES.unpack_from(found[_STATS64]) if _STATS64 in found else (0, 0)
    return Link(
        index,
        _text(found[_IFNAME]),
        _text(info.get(_INFO_KIND, b"")),
        bool(flags & _UP),
        _number(found[_LINK]) if _LINK in found else 0,
        _number(found[_LINK_NETNSID]) if _LINK_NETNSID in found else None,
        received,
        sent,
    )


def _text(data: bytes) -> str:
    return os.fsdecode(data.rstrip(b"\0"))


def _number(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder, signed=True)


def _body(message: Any) -> bytes:
    message.encode()
    return bytes(message.data[HEADER.size :])
