"""Queueing disciplines, classes and filters as values, and as messages of rtnetlink (man 7 rtnetlink, linux/pkt_sched.h).

pyroute2's classes write and read them.
"""

from socket import htons
from typing import Any, Final, NamedTuple

from pyroute2.netlink import nla
from pyroute2.netlink.rtnl.tcmsg import cls_u32, tcmsg
from pyroute2.netlink.rtnl.tcmsg.common_act import tca_act_prio

ROOT: Final = 0xFFFFFFFF
"""TC_H_ROOT."""
INGRESS: Final = 0xFFFFFFF1
"""TC_H_INGRESS, where both the clsact and the ingress qdisc stand; their handle is ffff: whatever one asks for."""
AT_INGRESS: Final = 0xFFFFFFF2
"""Parent of filters for what enters an interface, of a clsact and of an ingress qdisc alike."""
AT_EGRESS: Final = 0xFFFFFFF3
"""Parent of filters for what leaves it; of a clsact only."""

_ETH_P_ALL: Final = 0x0003
_ETHERNET: Final = 1
"""TC_LINKLAYER_ETHERNET: htb reckons by itself and needs no table of rates (net/sched/sch_htb.c)."""
FIRST_TABLE: Final = 0x80000000
"""Of a u32 filter's handle the upper bits, where it went into the first hash table of its priority."""
_DIRECT_ACTION: Final = 1
_REDIRECT_TO_EGRESS: Final = 1
_PIPE: Final = 3
_STOLEN: Final = 4


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


def message(index: int, parent: int = 0, handle: int = 0, *, kind: str = "", options: Any = None, info: int = 0) -> Any:
    """Return a message of a device's qdisc, class or filter."""
    made = _Tc()
    made["index"], made["parent"], made["handle"], made["info"] = index, parent, handle, info
    if kind:
        made["attrs"].append(("TCA_KIND", kind))
    if options is not None:
        made["attrs"].append(("TCA_OPTIONS", options))
    return made


def htb(index: int, handle: int, default: int) -> Any:
    """Return an htb for a device's root; `default`: minor number of the class for what no filter classifies."""
    start = {"version": 3, "rate2quantum": 10, "defcls": default}
    return message(index, ROOT, handle, kind="htb", options={"attrs": [("TCA_HTB_INIT", start)]})


def htb_class(index: int, parent: int, handle: int, wanted: HtbClass) -> Any:
    """Return a class of an htb."""
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
    return message(index, parent, handle, kind="htb", options={"attrs": attributes})


def clsact(index: int) -> Any:
    """Return a clsact, for a device that has neither clsact nor ingress qdisc."""
    return message(index, INGRESS, INGRESS & 0xFFFF0000, kind="clsact")


def redirecting(index: int, priority: int, handle: int, target: int) -> Any:
    """Return the u32 filter by which all frames that enter a device leave through another, whose ifindex is `target`."""
    mirred = {
        "attrs": [
            ("TCA_MIRRED_PARMS", {"action": _STOLEN, "eaction": _REDIRECT_TO_EGRESS, "ifindex": target}),
        ]
    }
    action = {"attrs": [("TCA_ACT_KIND", "mirred"), ("TCA_ACT_OPTIONS", mirred)]}
    # A selector without keys matches every frame; with a key of mask 0, every frame that is long enough for it.
    options = {"attrs": [("TCA_U32_SEL", {"keys": []}), ("TCA_U32_ACT", {"attrs": [("TCA_ACT_PRIO_1", action)]})]}
    return u32(index, priority, handle, options)


def u32(index: int, priority: int, handle: int, options: Any = None) -> Any:
    """Return a u32 filter at `AT_INGRESS`; handle 0: all of its priority."""
    # The frames' protocol is in network order.
    return message(index, AT_INGRESS, handle, kind="u32", options=options, info=priority << 16 | htons(_ETH_P_ALL))


def is_filter(said: Any) -> bool:
    """Tell whether a dump means a filter: each priority comes once by itself, without options, and u32's hash tables by their divisors."""
    return bool(said.get_attr("TCA_OPTIONS")) and not _option(said, "TCA_U32_DIVISOR")


def read_qdisc(said: Any) -> Qdisc:
    """Return what a message says of a qdisc."""
    start = _option(said, "TCA_HTB_INIT")
    return Qdisc(
        said["index"],
        said["parent"],
        said.get_attr("TCA_KIND"),
        said["handle"],
        start["defcls"] if start else 0,
        said.get_attr("TCA_INGRESS_BLOCK") or 0,
    )


def read_htb_class(said: Any) -> tuple[HtbClass, int]:
    """Return what a message says of a class of an htb, and the bytes that it has sent."""
    values = _option(said, "TCA_HTB_PARMS")
    rate = _option(said, "TCA_HTB_RATE64") or values["rate"]
    ceil = _option(said, "TCA_HTB_CEIL64") or values["ceil"]
    sent = said.get_attr("TCA_STATS2").get_attr("TCA_STATS_BASIC")["bytes"]
    return HtbClass(rate, ceil, values["buffer"], values["cbuffer"]), sent


def read_filter(said: Any) -> TcFilter:
    """Return what a message says of a filter."""
    kind = said.get_attr("TCA_KIND")
    options = said.get_attr("TCA_OPTIONS")
    attributes = dict(options["attrs"]) if hasattr(options, "get_attr") else {}
    verdict: int | None = None
    target = 0
    if kind == "bpf" and (attributes.get("TCA_BPF_FLAGS") or 0) & _DIRECT_ACTION:
        pass  # the program answers
    elif kind in {"u32", "flower", "matchall"}:
        verdict, target = _actions(attributes.get(f"TCA_{kind.upper()}_ACT"))
    name = attributes.get("TCA_BPF_NAME") or ""
    chain = said.get_attr("TCA_CHAIN") or 0
    return TcFilter(kind, said["info"] >> 16, chain, said["handle"], verdict, target, name)


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


def _option(said: Any, name: str) -> Any:
    options = said.get_attr("TCA_OPTIONS")
    return options.get_attr(name) if hasattr(options, "get_attr") else None
