"""A pod's bandwidth: what is wanted, whether its interface can hold it, and what is to be done.

    host's end of the pod's eth0      htb at the root: what the pod receives
      clsact or ingress qdisc         foreign filters, then ours: u32, all frames, mirred redirect to
    ifb of the pod                    htb at the root: what the pod sends

Directions are the pod's: its ingress leaves the host's end, its egress enters there.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from noisegate.enforcement.actions import UNSHAPED, Interface, Rates, Shape
from noisegate.enforcement.refusal import Refusal
from noisegate.isolation.bounds import Bound
from noisegate.isolation.network import NetworkRequest

LAST_PRIORITY: Final = 0xFFFF
"""Of our filter: the kernel asks filters by rising priority, and this is the highest there is (16 bits)."""
LEAST_MOVED: Final = 100 * 1514
"""Bytes that an interface must have moved before a class that counted none is spoken of."""

_GOES_ON: Final = frozenset({-1, 2})
"""TC_ACT_UNSPEC asks the next filter; TC_ACT_SHOT drops, and what is dropped needs no limit (linux/pkt_cls.h)."""
_ID: Final = re.compile("[0-9a-f]{12}")
_MOST: Final = 1 << 60
"""htb reckons in 64 bits of bytes per second, but with a multiplier that loses its precision far above this."""

_LEAVE: Final = "leave the annotation out on this node, or have the CNI plugin limit: kubernetes.io/ingress-bandwidth"

Direction = Literal["ingress", "egress"]


class Filter(NamedTuple):
    """A foreign filter that the kernel asks before ours.

    Attributes:
        kind: Of the classifier: `flower`, `u32`, `bpf`.
        priority: In the order of the kernel.
        verdict: What its actions answer for a frame that matches, TC_ACT_*; None: it cannot be known from outside.
        name: What it is called, empty where it has no name.
    """

    kind: str
    priority: int
    verdict: int | None
    name: str = ""

    def __str__(self) -> str:
        """Say it as a sentence's subject: `filter flower of priority 10`."""
        return f"filter {self.kind}{f' {self.name}' if self.name else ''} of priority {self.priority}"


class Shaped(NamedTuple):
    """What stands on the host's end of a pod's eth0.

    Attributes:
        rates: What ours hold; a direction counts only where all its parts are there and right.
        loose: Parts of ours are there that hold nothing: something was interrupted, or taken away by somebody.
        root: Kind of a foreign root qdisc; empty: none, or the kernel's default.
        hook: Kind of the qdisc at the ingress hook, `clsact` or `ingress`; empty: none.
        hook_is_ours: We made it, and take it away where nobody else has filters in it.
        block: Index of the block whose filters it shares with other interfaces; 0: its own.
        filters: Foreign filters at the ingress hook, chain 0, in the order in which the kernel asks them.
        programs: eBPF programs on the interface in either direction, each as a sentence's subject.
        ifb: The pod's ifb is there.
    """

    rates: Rates = UNSHAPED
    loose: bool = False
    root: str = ""
    hook: str = ""
    hook_is_ours: bool = False
    block: int = 0
    filters: tuple[Filter, ...] = ()
    programs: tuple[str, ...] = ()
    ifb: bool = False


class Counters(NamedTuple):
    """Bytes since the parts were made; None: the direction is not limited.

    Attributes:
        ingress: Counted by the class for what the pod receives.
        egress: Counted by the class for what the pod sends.
        received: By the pod's eth0.
        sent: By the pod's eth0, dropped frames included.
    """

    ingress: int | None
    egress: int | None
    received: int
    sent: int


def ifb_name(sandbox: str) -> str:
    """Return the name of a pod's ifb: `ng` and 12 digits of the sandbox's id; a name has at most 15 bytes.

    Raises:
        ValueError: The id does not begin with 12 lower-case hexadecimal digits, as runtimes make them.
    """
    digits = sandbox[:12]
    if not _ID.fullmatch(digits):
        raise ValueError(f'"{sandbox}" is no sandbox id: 64 hexadecimal digits')
    return f"ng{digits}"


def wanted(request: NetworkRequest | None) -> Rates:
    """Return what is to hold: the limits, in whole bytes per second as htb counts them. A request alone is no bound."""
    return Rates(_rate(request.ingress), _rate(request.egress)) if request else UNSHAPED


def _rate(bound: Bound) -> int | None:
    if bound.limit is None:
        return None
    return max(8, min(bound.limit, _MOST) // 8 * 8)


_DEVICES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "": "a physical device or a virtual function",
        "ipvlan": "an ipvlan of a device of the host",
        "macvlan": "a macvlan of a device of the host",
        "macvtap": "a macvtap of a device of the host",
        "netkit": "a netkit, whose frames go to an eBPF program instead of a queueing discipline",
    }
)


def judge_device(kind: str) -> Refusal | None:
    """Return why a pod's eth0 of some kind (IFLA_INFO_KIND; empty: hardware) cannot be limited; None: it can.

    Only a veth has an end on the host that all frames pass and the pod cannot reach.
    """
    if kind == "veth":
        return None
    told = f"eth0 is {_DEVICES.get(kind, f'a device of kind {kind}')} and no veth: it has no end on the host to limit"
    mend = "use a CNI plugin that makes veth pairs (ptp, bridge)"
    if kind == "":
        mend += ", or limit the function itself: min_tx_rate, max_tx_rate of the NetworkAttachmentDefinition"
    return Refusal("DataPathNotShapable", told, mend)


def judge(interface: Interface, rates: Rates, seen: Shaped) -> Refusal | None:
    """Return why rates cannot hold on an interface as it is; None: they can.

    Args:
        interface: The host's end.
        rates: What is wanted.
        seen: What stands there.
    """
    if rates == UNSHAPED:
        return None
    if seen.programs:
        told = f"{interface.name} carries {', '.join(seen.programs)}: frames may pass our queueing disciplines by"
        return Refusal("DataPathNotShapable", told, "let the CNI limit (Cilium: its bandwidth manager), or detach it")
    if rates.ingress is not None and seen.root:
        told = f"{interface.name} has a root qdisc {seen.root} that is not ours"
        return Refusal(
            "ForeignQdisc", told, _LEAVE.replace("or have", "or take the CNI bandwidth plugin's away; do not have")
        )
    return _judge_hook(interface, seen) if rates.egress is not None else None


def _judge_hook(interface: Interface, seen: Shaped) -> Refusal | None:
    if seen.block:
        told = (
            f"the {seen.hook} qdisc of {interface.name} shares its filters with other interfaces (block {seen.block})"
        )
        return Refusal("ForeignQdisc", told, "have whoever made it use a block for each interface")
    for each in seen.filters:
        if each.priority == LAST_PRIORITY:
            told = f"{each} on {interface.name} takes the place behind all others, where ours must stand"
            return Refusal("ForeignFilter", told, "give it a lower number")
        if each.verdict not in _GOES_ON:
            told = f"{each} on {interface.name} may end classification before our filter is asked"
            return Refusal("DataPathNotShapable", told, "have it end with `action continue`, or take it away")
    return None


def plan(interface: Interface, ifb: str, rates: Rates, seen: Shaped) -> tuple[Shape, ...]:
    """Return what is to be done; nothing where it has been done.

    Args:
        interface: The host's end.
        ifb: Name of the pod's ifb.
        rates: What is wanted.
        seen: What stands there.
    """
    if rates == seen.rates and not seen.loose:
        return ()
    return (Shape(interface, ifb, rates),)


def unreached(before: Counters, now: Counters) -> tuple[Direction, ...]:
    """Return the directions whose class counted nothing while the pod's eth0 moved frames: the limit is passed by.

    A direction that was not limited at both times, or was made anew in between, is not judged. A network policy that
    drops all that a pod sends looks the same.
    """
    found: list[Direction] = []
    if before.ingress is not None and before.ingress == now.ingress and now.received - before.received >= LEAST_MOVED:
        found.append("ingress")
    if before.egress is not None and before.egress == now.egress and now.sent - before.sent >= LEAST_MOVED:
        found.append("egress")
    return tuple(found)
