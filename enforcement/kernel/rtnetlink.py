"""rtnetlink (man 7 rtnetlink) as values: links, namespace ids, qdiscs, classes and filters.

All of pyroute2 is here: its classes write the messages and read all but links.
"""

import errno
import os
import struct
import sys
from contextlib import suppress
from socket import htons
from typing import Any, Final, NamedTuple, Self

from pyroute2.netlink import nla
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
from pyroute2.netlink.rtnl.tcmsg import cls_u32, tcmsg
from pyroute2.netlink.rtnl.tcmsg.common_act import tca_act_prio

from noisegate.enforcement.kernel.netlink import CREATE, DUMP, ECHO, EXCL, HEADER, REPLACE, Netlink, attributes

ROOT: Final = 0xFFFFFFFF
"""TC_H_ROOT."""
INGRESS: Final = 0xFFFFFFF1
"""TC_H_INGRESS, where both the clsact and the ingress qdisc stand; their handle is ffff: whatever one asks for."""
AT_INGRESS: Final = 0xFFFFFFF2
"""Parent of filters for what enters an interface, of a clsact and of an ingress qdisc alike."""
AT_EGRESS: Final = 0xFFFFFFF3
"""Parent of filters for what leaves it; of a clsact only."""

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
_ETH_P_ALL: Final = 0x0003
_NOT_ASSIGNED: Final = 0xFFFFFFFF
_ETHERNET: Final = 1
"""TC_LINKLAYER_ETHERNET: htb reckons by itself and needs no table of rates (net/sched/sch_htb.c)."""
_FIRST_TABLE: Final = 0x80000000
"""Of a u32 filter's handle the upper bits, where it went into the first hash table of its priority."""
_DIRECT_ACTION: Final = 1
_REDIRECT_TO_EGRESS: Final = 1
_PIPE: Final = 3
_STOLEN: Final = 4


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


class Qdisc(NamedTuple):
    """A queueing discipline.

    Attributes:
        ifindex: Of its device.
        parent: Where it stands.
        kind: Such as `htb`.
        handle: 32 bits, the upper 16 its own; 0: made by the kernel as a default.
        default: htb: class of what no filter classifies.
        block: Index of the block that its ingress filters share with other devices; 0: its own.
    """

    ifindex: int
    parent: int
    kind: str
    handle: int
    default: int = 0
    block: int = 0


class HtbClass(NamedTuple):
    """A class of an htb.

    Attributes:
        rate: Bytes per second that it may send.
        ceil: Bytes per second with what it borrows.
        burst: How long it may send what was saved up, in ticks of 64 ns.
        cburst: The same for ceil.
    """

    rate: int
    ceil: int
    burst: int
    cburst: int


class TcFilter(NamedTuple):
    """A filter.

    Attributes:
        kind: Of its classifier.
        priority: 16 bits.
        chain: Frames enter chain 0.
        handle: Its own among those of one priority.
        verdict: TC_ACT_* of its actions; None: not to be known from here.
        target: ifindex that its only action redirects to; 0: there is no such action, or its device has gone.
        name: Of an eBPF program.
    """

    kind: str
    priority: int
    chain: int
    handle: int
    verdict: int | None
    target: int
    name: str


class _Flower(nla):  # type: ignore[misc]
    nla_map = (("TCA_FLOWER_UNSPEC", "none"), ("TCA_FLOWER_CLASSID", "hex"), ("TCA_FLOWER_INDEV", "hex"),
               ("TCA_FLOWER_ACT", "tca_act_prio"))  # fmt: skip
    tca_act_prio = tca_act_prio


class _U32(cls_u32.options):  # type: ignore[misc]
    """Counters of keys are one for each key, pyroute2 0.9 reads exactly one and logs a traceback where there is none."""

    nla_map = tuple((name, "hex" if name == "TCA_U32_PCNT" else kind) for name, kind in cls_u32.options.nla_map)


class _Tc(tcmsg):  # type: ignore[misc]
    """What pyroute2 0.9 leaves out of linux/rtnetlink.h: chains, shared blocks, the actions of flower."""

    nla_map = (*tcmsg.nla_map, ("TCA_PAD", "none"), ("TCA_DUMP_INVISIBLE", "none"), ("TCA_CHAIN", "uint32"),
               ("TCA_HW_OFFLOAD", "uint8"), ("TCA_INGRESS_BLOCK", "uint32"), ("TCA_EGRESS_BLOCK", "uint32"))  # fmt: skip

    @staticmethod
    def get_options(message: Any, *_: Any, **__: Any) -> Any:
        """Return the class that decodes TCA_OPTIONS."""
        own = {"flower": _Flower, "u32": _U32}.get(message.get_attr("TCA_KIND"))
        return own or message.get_plugin("options")


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

    def qdisc(self, index: int, parent: int) -> Qdisc | None:
        """Return the qdisc at a device's `ROOT` or `INGRESS`; None: there is none."""
        try:
            # Without NLM_F_ECHO the answer goes only to those who listen to all changes (rtnetlink_send).
            found = self._ask(_tc(index, parent=parent), RTM_GETQDISC, ECHO)
        except FileNotFoundError:
            return None
        return next(map(_qdisc, found), None)

    def qdiscs(self) -> list[Qdisc]:
        """Return all qdiscs of all devices."""
        return [_qdisc(each) for each in self._ask(_tc(0), RTM_GETQDISC, DUMP)]

    def add_htb(self, index: int, handle: int, default: int, *, replace: bool = False) -> None:
        """Put an htb at a device's root.

        Args:
            index: The device.
            handle: Of the qdisc.
            default: Minor number of the class for what no filter classifies.
            replace: Whether one that stands there gives way.
        """
        start = {"version": 3, "rate2quantum": 10, "defcls": default}
        options = {"attrs": [("TCA_HTB_INIT", start)]}
        flags = REPLACE if replace else EXCL
        message = _tc(index, ROOT, handle, kind="htb", options=options)
        self._ask(message, RTM_NEWQDISC, CREATE | flags)

    def add_clsact(self, index: int) -> None:
        """Put a clsact on a device that has neither clsact nor ingress qdisc."""
        self._ask(_clsact(index), RTM_NEWQDISC, CREATE | EXCL)

    def delete_qdisc(self, index: int, parent: int, handle: int) -> None:
        """Take a qdisc away, if the one that stands there has this handle."""
        self._ask(_tc(index, parent, handle), RTM_DELQDISC)

    def htb_class(self, index: int, handle: int) -> tuple[HtbClass, int] | None:
        """Return a class and the bytes that it has sent; None: it is not there."""
        for each in self._ask(_tc(index), RTM_GETTCLASS, DUMP):
            if each["handle"] == handle and each.get_attr("TCA_KIND") == "htb":
                return _htb_class(each)
        return None

    def set_htb_class(self, index: int, parent: int, handle: int, wanted: HtbClass) -> None:
        """Make a class, or change it where it stands: its queue and counters stay."""
        most = (1 << 32) - 1
        values = {
            "rate": min(wanted.rate, most),
            "ceil": min(wanted.ceil, most),
            "buffer": wanted.burst,
            "cbuffer": wanted.cburst,
            "rate___reserved": _ETHERNET,
            "ceil___reserved": _ETHERNET,
            "quantum": 1514,  # among classes; without one the kernel reckons it from the rate and warns of large ones
        }
        attributes: list[tuple[str, Any]] = [("TCA_HTB_PARMS", values)]
        if wanted.rate >= most:
            attributes.append(("TCA_HTB_RATE64", wanted.rate))
        if wanted.ceil >= most:
            attributes.append(("TCA_HTB_CEIL64", wanted.ceil))
        message = _tc(index, parent, handle, kind="htb", options={"attrs": attributes})
        self._ask(message, RTM_NEWTCLASS, CREATE)

    def filters(self, index: int, parent: int) -> list[TcFilter]:
        """Return the filters at `AT_INGRESS` or `AT_EGRESS`, in the order in which the kernel asks them."""
        found = self._ask(_tc(index, parent), RTM_GETTFILTER, DUMP)
        # Each priority comes once by itself, without options; u32 also lists its hash tables, by their divisors.
        return [
            _filter(each) for each in found if each.get_attr("TCA_OPTIONS") and not _option(each, "TCA_U32_DIVISOR")
        ]

    def is_filtered(self, index: int, parent: int) -> bool:
        """Return whether anything stands at `AT_INGRESS` or `AT_EGRESS`: filters, or a priority kept for some."""
        return bool(self._ask(_tc(index, parent), RTM_GETTFILTER, DUMP))

    def redirect_all(self, index: int, priority: int, handle: int, target: int, *, replace: bool = False) -> None:
        """Have all frames that enter a device leave through another.

        Args:
            index: The device.
            priority: Of the filter.
            handle: u32: the lower 12 bits are its own; all 32, as they are dumped, where it replaces one.
            target: ifindex of the other.
            replace: Whether it stands there.
        """
        message = _redirecting(index, priority, handle, target)
        self._ask(message, RTM_NEWTFILTER, CREATE | (REPLACE if replace else EXCL))

    def redirect_all_by_clsact(self, index: int, priority: int, handle: int, target: int) -> None:
        """Put a clsact with a filter as `redirect_all` makes on a device: both, or neither, also when this process dies."""
        made, redirected = self._netlink.ask_at_once(
            (RTM_NEWQDISC, CREATE | EXCL, _body(_clsact(index))),
            (RTM_NEWTFILTER, CREATE | EXCL, _body(_redirecting(index, priority, handle, target))),
        )
        if made and not redirected:  # into one that somebody else has just made
            self.delete_filter(index, priority, _FIRST_TABLE | handle)
        if redirected and not made:
            self.delete_qdisc(index, INGRESS, INGRESS & 0xFFFF0000)
        for refused in (made, redirected):
            if refused:
                raise refused

    def delete_filter(self, index: int, priority: int, handle: int) -> None:
        """Take one u32 filter away at `AT_INGRESS`, or with handle 0 all of its priority."""
        message = _tc(index, AT_INGRESS, handle, kind="u32", info=_info(priority))
        self._ask(message, RTM_DELTFILTER)


def _body(message: Any) -> bytes:
    message.encode()
    return bytes(message.data[HEADER.size :])


def _clsact(index: int) -> Any:
    return _tc(index, INGRESS, INGRESS & 0xFFFF0000, kind="clsact")


def _redirecting(index: int, priority: int, handle: int, target: int) -> Any:
    mirred = {
        "attrs": [
            ("TCA_MIRRED_PARMS", {"action": _STOLEN, "eaction": _REDIRECT_TO_EGRESS, "ifindex": target}),
        ]
    }
    action = {"attrs": [("TCA_ACT_KIND", "mirred"), ("TCA_ACT_OPTIONS", mirred)]}
    # A selector without keys matches every frame; with a key of mask 0, every frame that is long enough for it.
    options = {"attrs": [("TCA_U32_SEL", {"keys": []}), ("TCA_U32_ACT", {"attrs": [("TCA_ACT_PRIO_1", action)]})]}
    return _tc(index, AT_INGRESS, handle, kind="u32", options=options, info=_info(priority))


def _info(priority: int) -> int:
    return priority << 16 | htons(_ETH_P_ALL)


def _tc(index: int, parent: int = 0, handle: int = 0, *, kind: str = "", options: Any = None, info: int = 0) -> Any:
    message = _Tc()
    message["index"], message["parent"], message["handle"], message["info"] = index, parent, handle, info
    if kind:
        message["attrs"].append(("TCA_KIND", kind))
    if options is not None:
        message["attrs"].append(("TCA_OPTIONS", options))
    return message


def _option(message: Any, name: str) -> Any:
    options = message.get_attr("TCA_OPTIONS")
    return options.get_attr(name) if hasattr(options, "get_attr") else None


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


def _qdisc(message: Any) -> Qdisc:
    start = _option(message, "TCA_HTB_INIT")
    return Qdisc(
        message["index"],
        message["parent"],
        message.get_attr("TCA_KIND"),
        message["handle"],
        start["defcls"] if start else 0,
        message.get_attr("TCA_INGRESS_BLOCK") or 0,
    )


def _htb_class(message: Any) -> tuple[HtbClass, int]:
    values = _option(message, "TCA_HTB_PARMS")
    rate = _option(message, "TCA_HTB_RATE64") or values["rate"]
    ceil = _option(message, "TCA_HTB_CEIL64") or values["ceil"]
    sent = message.get_attr("TCA_STATS2").get_attr("TCA_STATS_BASIC")["bytes"]
    return HtbClass(rate, ceil, values["buffer"], values["cbuffer"]), sent


def _filter(message: Any) -> TcFilter:
    kind = message.get_attr("TCA_KIND")
    options = message.get_attr("TCA_OPTIONS")
    attributes = dict(options["attrs"]) if hasattr(options, "get_attr") else {}
    verdict: int | None = None
    target = 0
    if kind == "bpf" and (attributes.get("TCA_BPF_FLAGS") or 0) & _DIRECT_ACTION:
        pass  # the program answers
    elif kind in {"u32", "flower", "matchall"}:
        verdict, target = _actions(attributes.get(f"TCA_{kind.upper()}_ACT"))
    name = attributes.get("TCA_BPF_NAME") or ""
    chain = message.get_attr("TCA_CHAIN") or 0
    return TcFilter(kind, message["info"] >> 16, chain, message["handle"], verdict, target, name)


def _actions(listed: Any) -> tuple[int | None, int]:
    """Return the verdict of a list of actions, and where its only one redirects to.

    The first that answers anything but TC_ACT_PIPE decides. A list that ends with TC_ACT_PIPE, and none at all (0,
    TC_ACT_OK), end classification too (net/sched/act_api.c, include/net/pkt_cls.h).
    """
    if listed is None:
        return 0, 0
    verdict: int | None = _PIPE
    target = 0
    for _, action in listed["attrs"]:
        kind, options = action.get_attr("TCA_ACT_KIND"), action.get_attr("TCA_ACT_OPTIONS")
        values = options.get_attr(f"TCA_{kind.upper()}_PARMS") if hasattr(options, "get_attr") else None
        if values is None:
            return None, 0
        if kind == "mirred" and values["eaction"] == _REDIRECT_TO_EGRESS and len(listed["attrs"]) == 1:
            target = values["ifindex"]
        verdict = values["action"]
        if verdict != _PIPE:
            break
    return verdict, target
