"""Queueing disciplines on the host's end of a pod's eth0 and on the pod's ifb, through rtnetlink.

Ours are known by what they carry: ifbs by their names, htbs by the handle 6e67: ("ng"), the filter by its priority and
the lower 12 bits of its handle, which also say whether the clsact around it is ours. Everything else is foreign and stays as it
is: the kernel itself refuses to put ours in the place of another (NLM_F_EXCL).
"""

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final, NamedTuple

from noisegate.enforcement.actions import UNSHAPED, Interface, Rates, Shape
from noisegate.enforcement.kernel import tcx
from noisegate.enforcement.kernel.errors import TC, refusal
from noisegate.enforcement.kernel.links import GoneError, here
from noisegate.enforcement.kernel.rtnetlink import Link, Rtnetlink
from noisegate.enforcement.kernel.tc import AT_EGRESS, AT_INGRESS, INGRESS, ROOT, HtbClass, Qdisc, TcFilter
from noisegate.enforcement.plan.network import LAST_PRIORITY, Counters, Filter, Shaped
from noisegate.enforcement.refusal import Refusal

HANDLE: Final = 0x6E670000
CLASS: Final = HANDLE | 1
IN_FOREIGN: Final = 0x6E6
"""Our filter in a qdisc that somebody else made."""
IN_OURS: Final = 0x6E7
"""Our filter in a clsact of our own."""
IFB: Final = re.compile("ng[0-9a-f]{12}")

QUEUE: Final = 1000
"""Frames that wait in an ifb's class, as many as in a veth's; an ifb by itself has 32."""
BURST: Final = 40_000_000
"""Nanoseconds of its rate that a class may save up: as long as a timer may be late, else the rate is missed. On a node that shares
its processors with others that is tens of milliseconds (with 10 of them classes lost a twelfth of their rate, with 40 a fiftieth);
over ten seconds it is four thousandths of what is sent."""
LEAST_BURST: Final = 2 * 1514
"""Bytes; below about 0.6 Mbit/s this is more than `BURST`."""
_TICK: Final = 64
"""Nanoseconds (PSCHED_SHIFT, net/pkt_sched.h)."""
_MOST_TICKS: Final = (1 << 32) - 1


class Trace(NamedTuple):
    """What carries our mark on this node.

    Attributes:
        interface: The host's end that ours stand on; None: no interface sends anything through this ifb.
        ifb: Name of the ifb; empty: the interface has ours at its root only.
    """

    interface: Interface | None
    ifb: str


class _Seen(NamedTuple):
    host: Link
    root: Qdisc | None
    root_class: HtbClass | None
    device: Link | None
    device_root: Qdisc | None
    device_class: HtbClass | None
    hook: Qdisc | None
    foreign: list[TcFilter]
    ours: TcFilter | None
    programs: tuple[str, ...]


class Shaper:
    """Puts rates on interfaces of the calling thread's network namespace. It holds nothing and may be used by threads."""

    def observe(self, interface: Interface, ifb: str) -> Shaped:
        """Return what stands on an interface.

        Raises:
            GoneError: It is no more.
            Refusal: The kernel does not tell.
        """
        with _told(f"queueing disciplines of {interface.name} cannot be read"), Rtnetlink() as route:
            return _shaped(_look(route, interface, ifb))

    def apply(self, shape: Shape) -> None:
        """Make rates true. Once more changes nothing; another rate is changed in its class, without a gap.

        Raises:
            GoneError: The interface is no more.
            Refusal: The kernel refuses, or a place is taken by somebody else; what was begun is undone.
        """
        if shape.rates == UNSHAPED:
            self.remove(shape.interface, shape.ifb)
            return
        name = shape.interface.name
        with Rtnetlink() as route, ExitStack() as undo:
            with _told(f"queueing disciplines of {name} cannot be read"):
                seen = _look(route, shape.interface, shape.ifb)
            if shape.rates.ingress is not None:
                with _told(f"ingress of {shape.rates.ingress} bit/s cannot be held by {name}"):
                    _limit(route, undo, seen.host.ifindex, seen.root, seen.root_class, shape.rates.ingress)
            if shape.rates.egress is not None:
                with _told(f"egress of {shape.rates.egress} bit/s cannot be held by {name} and {shape.ifb}"):
                    _limit_sent(route, undo, seen, shape.ifb, shape.rates.egress)
            with _told(f"what is not wanted cannot be taken from {name}"):
                if shape.rates.ingress is None:
                    _free_root(route, seen.host)
                if shape.rates.egress is None:
                    _free_hook(route, seen.host)
                    _free_ifb(route, shape.ifb)
            undo.pop_all()

    def remove(self, interface: Interface | None, ifb: str) -> None:
        """Take all of ours away: from the interface if it is still the same, and the ifb. Nothing there is fine.

        Args:
            interface: The host's end; None: it is not known.
            ifb: Name of the ifb; empty: there is none.

        Raises:
            Refusal: The kernel refuses.
        """
        undone = f"{interface.name if interface else 'no interface'} and {ifb or 'no ifb'} cannot be freed"
        with _told(undone), Rtnetlink() as route:
            host = here(route, interface) if interface else None
            if host:
                _free_hook(route, host)
                _free_root(route, host)
            _free_ifb(route, ifb)

    def counters(self, interface: Interface, ifb: str) -> Counters:
        """Return what our classes and the pod's eth0 have counted.

        Raises:
            GoneError: The interface is no more.
            Refusal: The kernel does not tell.
        """
        with _told(f"counters of {interface.name} cannot be read"), Rtnetlink() as route:
            host = here(route, interface)
            inside = route.link(index=host.peer, namespace=host.peer_namespace) if host else None
            if host is None or inside is None:
                raise GoneError(f"{interface.name} is no more")
            device = route.link(name=ifb)
            ingress = route.htb_class(host.ifindex, CLASS)
            egress = route.htb_class(device.ifindex, CLASS) if device else None
            return Counters(ingress and ingress[1], egress and egress[1], inside.received, inside.sent)

    def ours(self) -> list[Trace]:
        """Return all that carries our mark.

        Raises:
            Refusal: The kernel does not tell.
        """
        with _told("our queueing disciplines cannot be listed"), Rtnetlink() as route:
            ifbs = {device.ifindex: device.name for device in route.links("ifb") if IFB.fullmatch(device.name)}
            sends: dict[int, str] = {}
            for qdisc in route.qdiscs():
                if qdisc.ifindex in ifbs:
                    continue
                if _is_ours(qdisc):
                    sends.setdefault(qdisc.ifindex, "")
                elif qdisc.parent == INGRESS:
                    with _whatever_has_gone():
                        for each in filter(_is_our_filter, route.filters(qdisc.ifindex, AT_INGRESS)):
                            sends[qdisc.ifindex] = ifbs.get(each.target, "")
            found = [Trace(None, name) for name in ifbs.values() if name not in sends.values()]
            for ifindex, name in sends.items():
                host = route.link(index=ifindex)
                if host:
                    found.append(Trace(Interface(ifindex, host.name), name))
            return found


def htb_class(rate: int) -> HtbClass:
    """Return the class that holds a rate, in bits per second."""
    octets = rate // 8
    ticks = min(max(BURST, LEAST_BURST * 1_000_000_000 // octets) // _TICK, _MOST_TICKS)
    return HtbClass(octets, octets, ticks, ticks)


@contextmanager
def _told(undone: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        if number == errno.ENODEV:
            raise GoneError(f"{undone}: an interface is no more") from None
        raise refusal(TC, number, undone) from None


@contextmanager
def _whatever_has_gone() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENODEV}:
            raise


def _is_ours(qdisc: Qdisc | None) -> bool:
    return qdisc is not None and (qdisc.kind, qdisc.handle, qdisc.parent) == ("htb", HANDLE, ROOT)


def _is_our_filter(each: TcFilter) -> bool:
    return (each.kind, each.priority) == ("u32", LAST_PRIORITY) and each.handle & 0xFFF in {IN_FOREIGN, IN_OURS}


def _class_of(route: Rtnetlink, ifindex: int, root: Qdisc | None) -> HtbClass | None:
    found = route.htb_class(ifindex, CLASS) if _is_ours(root) else None
    return found and found[0]


def _look(route: Rtnetlink, interface: Interface, ifb: str) -> _Seen:
    host = here(route, interface)
    if host is None:
        raise GoneError(f"{interface.name} is no more")
    root = route.qdisc(host.ifindex, ROOT)
    device = route.link(name=ifb)
    device_root = route.qdisc(device.ifindex, ROOT) if device else None
    hook = route.qdisc(host.ifindex, INGRESS)
    entering = route.filters(host.ifindex, AT_INGRESS) if hook else []
    leaving = route.filters(host.ifindex, AT_EGRESS) if hook and hook.kind == "clsact" else []
    programs = [
        f"eBPF filter {each.name or each.priority} ({side} of {hook.kind})"
        for side, filters in (("ingress", entering), ("egress", leaving))
        for each in filters
        if hook and each.kind == "bpf"
    ]
    for side in ("ingress", "egress"):
        programs += [f"eBPF program {number} ({side} of tcx)" for number in tcx.programs(host.ifindex, side)]
    return _Seen(
        host,
        root,
        _class_of(route, host.ifindex, root),
        device,
        device_root,
        _class_of(route, device.ifindex, device_root) if device else None,
        hook,
        [each for each in entering if not _is_our_filter(each) and each.chain == 0],
        next(filter(_is_our_filter, entering), None),
        tuple(programs),
    )


def _holds(root: Qdisc | None, found: HtbClass | None) -> int | None:
    """Return the rate, in bits per second, that an htb of ours holds; None: it does not hold any."""
    if root and found and root.default == CLASS & 0xFFFF and found == htb_class(found.rate * 8):
        return found.rate * 8
    return None


def _shaped(seen: _Seen) -> Shaped:
    ingress = _holds(seen.root, seen.root_class)
    egress = None
    if seen.device and seen.device.up and seen.ours and seen.ours.target == seen.device.ifindex:
        egress = _holds(seen.device_root, seen.device_class)
    return Shaped(
        Rates(ingress, egress),
        (ingress is None and _is_ours(seen.root)) or (egress is None and bool(seen.device or seen.ours)),
        seen.root.kind if seen.root and seen.root.handle and not _is_ours(seen.root) else "",
        seen.hook.kind if seen.hook else "",
        seen.ours is not None and seen.ours.handle & 0xFFF == IN_OURS,
        seen.hook.block if seen.hook else 0,
        tuple(Filter(each.kind, each.priority, each.verdict, each.name) for each in seen.foreign),
        seen.programs,
        seen.device is not None,
    )


def _limit(
    route: Rtnetlink, undo: ExitStack, ifindex: int, root: Qdisc | None, held: HtbClass | None, rate: int
) -> None:
    wanted = htb_class(rate)
    if not _is_ours(root):
        route.add_htb(ifindex, HANDLE, CLASS & 0xFFFF)
        undo.callback(_quietly, route.delete_qdisc, ifindex, ROOT, HANDLE)
    elif root and root.default != CLASS & 0xFFFF:  # an htb cannot be given another default
        route.delete_qdisc(ifindex, ROOT, HANDLE)
        route.add_htb(ifindex, HANDLE, CLASS & 0xFFFF)
        held = None
    if held != wanted:
        route.set_htb_class(ifindex, HANDLE, CLASS, wanted)
        if held:
            undo.callback(_quietly, route.set_htb_class, ifindex, HANDLE, CLASS, held)


def _limit_sent(route: Rtnetlink, undo: ExitStack, seen: _Seen, ifb: str, rate: int) -> None:
    """Have what the pod sends wait in its ifb; the filter comes last, so that no frame meets an ifb without a limit."""
    device, host = seen.device, seen.host.ifindex
    if not IFB.fullmatch(ifb) or (device and device.kind != "ifb"):
        raise Refusal("ForeignDevice", f"{ifb} is no ifb of ours", "see who made it: ip -d link show")
    if device is None:
        route.add_ifb(ifb, QUEUE)
        device = route.link(name=ifb)
        if device is None:
            raise GoneError(f"{ifb} is no more")
        undo.callback(_quietly, route.delete_link, device.ifindex)
    if not device.up:
        route.set_up(device.ifindex)
    _limit(route, undo, device.ifindex, seen.device_root, seen.device_class, rate)
    if seen.hook is None:
        route.redirect_all_by_clsact(host, LAST_PRIORITY, IN_OURS, device.ifindex)
        undo.callback(_quietly, route.delete_qdisc, host, INGRESS, INGRESS & 0xFFFF0000)
    elif seen.ours is None:
        route.redirect_all(host, LAST_PRIORITY, IN_FOREIGN, device.ifindex)
    elif seen.ours.target != device.ifindex:
        route.redirect_all(host, LAST_PRIORITY, seen.ours.handle, device.ifindex, replace=True)


def _free_root(route: Rtnetlink, host: Link) -> None:
    with _whatever_has_gone():
        if _is_ours(route.qdisc(host.ifindex, ROOT)):
            route.delete_qdisc(host.ifindex, ROOT, HANDLE)


def _free_hook(route: Rtnetlink, host: Link) -> None:
    with _whatever_has_gone():
        hook = route.qdisc(host.ifindex, INGRESS)
        listed = route.filters(host.ifindex, AT_INGRESS) if hook else []
        ours = next(filter(_is_our_filter, listed), None)
        if hook is None or ours is None:
            return
        # A u32 priority whose last filter goes stays behind while the block has others (net/sched/cls_u32.c,
        # u32_delete): it is taken away as a whole where nothing but ours is in it.
        alone = [each.handle for each in listed if each.priority == LAST_PRIORITY] == [ours.handle]
        route.delete_filter(host.ifindex, LAST_PRIORITY, 0 if alone else ours.handle)
        used = route.is_filtered(host.ifindex, AT_INGRESS) or route.is_filtered(host.ifindex, AT_EGRESS)
        if ours.handle & 0xFFF == IN_OURS and not used:
            route.delete_qdisc(host.ifindex, INGRESS, hook.handle)


def _free_ifb(route: Rtnetlink, ifb: str) -> None:
    with _whatever_has_gone():
        device = route.link(name=ifb) if IFB.fullmatch(ifb) else None
        if device and device.kind == "ifb":
            route.delete_link(device.ifindex)


def _quietly(undo: Callable[..., None], *arguments: object) -> None:
    """Undo one step; what keeps it from going is not why we undo, and the next attempt sees what was left."""
    with suppress(OSError):
        undo(*arguments)
