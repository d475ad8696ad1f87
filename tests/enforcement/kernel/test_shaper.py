"""Queueing disciplines on real interfaces, in namespaces of the test's own; `tc` and `ip` are the witnesses."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ebpf
import namespaces
import pytest
from hypothesis import given
from hypothesis import strategies as st
from namespaces import Node, Pod, dump, index_of, inside, run, until

from noisegate.enforcement.actions import UNSHAPED, Interface, Rates, Shape
from noisegate.enforcement.kernel.links import GoneError
from noisegate.enforcement.kernel.rtnetlink import Rtnetlink
from noisegate.enforcement.kernel.shaper import BURST, HANDLE, IFB, IN_OURS, Shaper, Trace, htb_class
from noisegate.enforcement.kernel.tc import AT_INGRESS
from noisegate.enforcement.plan.network import LAST_PRIORITY, Counters, Filter, ifb_name, judge, plan
from noisegate.enforcement.refusal import Refusal

SHAPER = Shaper()
IFB_NAME = "ng0123456789ab"
M = 1_000_000
BOTH = Rates(20 * M, 10 * M)
SO_SNDBUFFORCE = 32
"""asm-generic/socket.h: above net.core.wmem_max, too."""
ELSEWHERE = "protocol ip u32 match ip dst 203.0.113.9/32"
"""A filter that matches nothing that a test sends."""


@pytest.fixture
def node() -> Iterator[Node]:
    """Return a node in a namespace of its own."""
    if namespaces.missing():
        pytest.skip(namespaces.missing())
    with namespaces.node() as made:
        yield made


@pytest.fixture
def pod(node: Node) -> Pod:
    """Return a pod on it."""
    return node.pod()


def apply(pod: Pod, rates: Rates) -> None:
    """Put a pod under rates."""
    SHAPER.apply(Shape(pod.host, IFB_NAME, rates))


def state() -> dict[str, Any]:
    """Return what tc and ip see in the node's namespace, without what counts."""
    links = [link["ifname"] for link in dump("ip -j link")]
    qdiscs = dump("tc -j qdisc")
    for qdisc in qdiscs:
        qdisc["options"].pop("direct_packets_stat", None)
    return {
        "links": dump("ip -j -d link"),
        "qdiscs": qdiscs,
        "classes": [run(f"tc class show dev {name}") for name in links],
        "filters": [run(f"tc filter show dev {name} {hook}") for name in links for hook in ("ingress", "egress")],
    }


def root(name: str) -> str:
    """Return the kind of the qdisc at a device's root."""
    return next(str(each["kind"]) for each in dump(f"tc -j qdisc show dev {name}") if each.get("root"))


def kinds(name: str) -> list[str]:
    """Return the kinds of all qdiscs on a device."""
    return [each["kind"] for each in dump(f"tc -j qdisc show dev {name}")]


@pytest.mark.parametrize("rates", [BOTH, Rates(20 * M), Rates(None, 10 * M)])
def test_what_is_applied_is_seen_and_taken_away_without_a_trace(pod: Pod, rates: Rates) -> None:
    """The plan of the applied state is empty, and after it tc and ip see what they saw before."""
    before = state()
    apply(pod, rates)
    seen = SHAPER.observe(pod.host, IFB_NAME)
    assert seen.rates == rates
    assert plan(pod.host, IFB_NAME, rates, seen) == ()
    assert judge(pod.host, rates, seen) is None
    assert (root(pod.host.name) == "htb") == (rates.ingress is not None)
    assert ("clsact" in kinds(pod.host.name)) == seen.hook_is_ours == seen.ifb == (rates.egress is not None)
    apply(pod, UNSHAPED)
    assert state() == before
    assert plan(pod.host, IFB_NAME, UNSHAPED, SHAPER.observe(pod.host, IFB_NAME)) == ()


def test_applied_twice_is_applied_once(pod: Pod) -> None:
    """Nothing is made anew: tc sees the same, and so does who listens to changes."""
    apply(pod, BOTH)
    before = state()
    apply(pod, BOTH)
    assert state() == before


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        (8, "8bit"), (M, "1Mbit"), (50 * M, "50Mbit"), (34_359_738_360, "34359Mbit"),
        (34_359_738_368, "34359Mbit"), (40_000 * M, "40Gbit"), (400_000 * M, "400Gbit"),
    ],
)  # fmt: skip
def test_rates_are_exact_from_a_byte_to_hundreds_of_gigabits(pod: Pod, rate: int, told: str) -> None:
    """Around 32 bits of bytes per second the kernel's message changes its form."""
    apply(pod, Rates(rate, rate))
    assert SHAPER.observe(pod.host, IFB_NAME).rates == Rates(rate, rate)
    for name in (pod.host.name, IFB_NAME):
        assert f"rate {told} ceil {told} " in run(f"tc class show dev {name}")


@given(st.integers(8, 1 << 60))
def test_what_a_class_may_save_up_hides_no_rate(rate: int) -> None:
    """It is `BURST` of its rate, or two frames; never nothing, and never more than the kernel's 32 bits of ticks."""
    made = htb_class(rate)
    assert made.rate == made.ceil == rate // 8
    assert BURST // 64 <= made.burst == made.cburst < 1 << 32
    assert made.burst == BURST // 64 or made.rate * made.burst * 64 <= 2 * 1514 * 1_000_000_000


def flood(source: int | None, target: str, rate: int, stop: threading.Event) -> None:
    """Send UDP at twice a rate, from a namespace or from the node's, until told to stop."""
    with contextlib.nullcontext() if source is None else inside(source):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        sender.setblocking(False)
        sender.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)  # so much waits that a pause hides nothing
        sent, start = 0, time.monotonic()
        while not stop.is_set():
            while sent < (time.monotonic() - start) * rate / 8 * 2:
                with contextlib.suppress(OSError):  # the queue or the socket's share of it is full
                    sender.sendto(bytes(1400), (target, 9))
                sent += 1400
            time.sleep(0.001)


def sample(counter: Callable[[], int]) -> tuple[int, float]:
    """Read a counter and when that was, within some milliseconds even on a busy machine."""
    for _ in range(100):
        before = time.monotonic()
        value = counter()
        after = time.monotonic()
        if after - before < 0.01:
            break
    return value, (before + after) / 2


def measured(counter: Callable[[], int], seconds: float) -> float:
    """Return how fast a byte counter moves, in bits per second."""
    first, start = sample(counter)
    time.sleep(seconds)
    last, end = sample(counter)
    return (last - first) * 8 / (end - start)


@pytest.mark.parametrize("rate", [M, 20 * M])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_limit_holds(pod: Pod, direction: str, rate: int) -> None:
    """Twice as much is offered; the class lets the rate pass within two per cent, by its own count of bytes."""
    apply(pod, Rates(rate, rate))
    stop = threading.Event()
    source, target = (None, pod.address) if direction == "ingress" else (pod.descriptor, pod.gateway)
    sender = threading.Thread(target=flood, args=(source, target, rate, stop))
    sender.start()
    try:
        until(lambda: (counted(pod, direction) or 0) > 3 * BURST * rate / 8e9)  # what was saved up is used up
        found = measured(lambda: counted(pod, direction) or 0, 2.5)
    finally:
        stop.set()
        sender.join()
    assert found == pytest.approx(rate, rel=0.02)


def counted(pod: Pod, direction: str) -> int | None:
    """Return the bytes of a class."""
    counters: Counters = SHAPER.counters(pod.host, IFB_NAME)
    return counters.ingress if direction == "ingress" else counters.egress


def test_counters_are_the_pods(pod: Pod) -> None:
    """What the pod sends is counted by its class and its eth0; a direction without a limit has no class."""
    apply(pod, Rates(None, 10 * M))
    before = SHAPER.counters(pod.host, IFB_NAME)
    with inside(pod.descriptor), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(10):
            sender.sendto(bytes(1000), (pod.gateway, 9))
    until(lambda: (counted(pod, "egress") or 0) >= (before.egress or 0) + 10_000)
    now = SHAPER.counters(pod.host, IFB_NAME)
    assert before.ingress is now.ingress is None
    assert now.sent - before.sent >= 10_000


def test_a_rate_is_changed_in_its_class(pod: Pod) -> None:
    """Class, queue, filter and ifb stay as they are: counters go on, and no frame meets a gap."""
    apply(pod, BOTH)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(10):
            sender.sendto(bytes(1000), (pod.address, 9))
    until(lambda: (counted(pod, "ingress") or 0) >= 10_000)
    before, counters = state(), SHAPER.counters(pod.host, IFB_NAME)
    apply(pod, Rates(30 * M, 5 * M))
    assert SHAPER.observe(pod.host, IFB_NAME).rates == Rates(30 * M, 5 * M)
    now, after = state(), SHAPER.counters(pod.host, IFB_NAME)
    for unchanged in ("links", "qdiscs", "filters"):
        assert now[unchanged] == before[unchanged]
    assert (after.ingress or 0) >= (counters.ingress or 0) >= 10_000


def test_a_direction_comes_and_goes_alone(pod: Pod) -> None:
    """The other one stays limited all the while."""
    for rates in (Rates(20 * M), BOTH, Rates(None, 10 * M), Rates(5 * M, None)):
        apply(pod, rates)
        assert SHAPER.observe(pod.host, IFB_NAME).rates == rates
        assert not SHAPER.observe(pod.host, IFB_NAME).loose


def test_a_foreign_clsact_and_its_filters_stay(pod: Pod) -> None:
    """Ours goes behind all of theirs, also behind those that come later, and leaves alone."""
    name = pod.host.name
    run(f"tc qdisc add dev {name} clsact")
    run(f"tc filter add dev {name} ingress prio 10 {ELSEWHERE}")
    run(f"tc filter add dev {name} egress prio 11 {ELSEWHERE}")
    before = state()
    apply(pod, BOTH)
    seen = SHAPER.observe(pod.host, IFB_NAME)
    assert seen.rates == BOTH
    assert not seen.hook_is_ours
    assert seen.filters == (Filter("u32", 10, 0),)
    run(f"tc filter add dev {name} ingress prio 40000 {ELSEWHERE}")
    assert [each["pref"] for each in dump(f"tc -j filter show dev {name} ingress") if "options" not in each] == [
        10,
        40000,
        65535,
    ]
    run(f"tc filter del dev {name} ingress prio 40000")
    SHAPER.remove(pod.host, IFB_NAME)
    assert state() == before


def test_frames_pass_the_filters_of_others_before_ours(pod: Pod) -> None:
    """Both are asked: theirs counts, ours sends through the ifb."""
    name = pod.host.name
    run(f"tc qdisc add dev {name} ingress")
    run(f"tc filter add dev {name} ingress prio 10 {ELSEWHERE}")
    apply(pod, BOTH)
    assert SHAPER.observe(pod.host, IFB_NAME).hook == "ingress"
    with inside(pod.descriptor), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(bytes(1000), (pod.gateway, 9))
    until(lambda: (counted(pod, "egress") or 0) >= 1000)
    asked = run(f"tc -s filter show dev {name} ingress").split("pref 65535")[0]
    assert "(rule hit 0 " not in asked


def test_our_clsact_stays_where_others_have_come_into_it(pod: Pod) -> None:
    """Their filters would go with it."""
    name = pod.host.name
    apply(pod, BOTH)
    run(f"tc filter add dev {name} egress prio 10 {ELSEWHERE}")
    SHAPER.remove(pod.host, IFB_NAME)
    assert "clsact" in kinds(name)
    assert "203.0.113.9" in run(f"tc filter show dev {name} egress") or "cb007109" in run(
        f"tc filter show dev {name} egress"
    )
    assert "65535" not in run(f"tc filter show dev {name} ingress")


@pytest.mark.parametrize("rates", [Rates(20 * M), BOTH])
def test_a_foreign_root_is_never_replaced(pod: Pod, rates: Rates) -> None:
    """It is judged before, and where it comes in between, the kernel refuses: nothing of ours is left."""
    run(f"tc qdisc add dev {pod.host.name} root handle 1: tbf rate 100mbit burst 32k limit 1m")
    before = state()
    refused = judge(pod.host, rates, SHAPER.observe(pod.host, IFB_NAME))
    assert refused is not None
    assert refused.reason == "ForeignQdisc"
    with pytest.raises(Refusal) as answered:
        apply(pod, rates)
    assert answered.value.reason == "ForeignQdisc"
    assert state() == before


def test_a_foreign_htb_is_foreign(pod: Pod) -> None:
    """By its handle, and our removal leaves it."""
    run(f"tc qdisc add dev {pod.host.name} root handle 1: htb default 1")
    before = state()
    assert SHAPER.observe(pod.host, IFB_NAME).root == "htb"
    SHAPER.remove(pod.host, IFB_NAME)
    assert state() == before


def test_what_was_begun_is_undone(pod: Pod) -> None:
    """A filter that cannot be put in its place takes ifb, classes and qdiscs back with it, and the old rate returns."""
    apply(pod, Rates(20 * M))
    run(f"tc qdisc add dev {pod.host.name} clsact")
    run(f"tc filter add dev {pod.host.name} ingress prio 65535 {ELSEWHERE}")
    before = state()
    with pytest.raises(Refusal):
        apply(pod, Rates(30 * M, 10 * M))
    assert state() == before
    assert SHAPER.observe(pod.host, IFB_NAME).rates == Rates(20 * M)


def test_a_device_that_bears_the_ifbs_name_is_not_ours(pod: Pod) -> None:
    """It is neither shaped nor taken away."""
    run(f"ip link add {IFB_NAME} type veth peer name other")
    before = state()
    with pytest.raises(Refusal) as refused:
        apply(pod, Rates(None, 10 * M))
    assert refused.value.reason == "ForeignDevice"
    SHAPER.remove(pod.host, IFB_NAME)
    assert state() == before


BEFORE: dict[str, list[str]] = {
    "an ifb": ["ip link add {ifb} type ifb"],
    "an ifb with an htb": ["ip link add {ifb} type ifb", "tc qdisc add dev {ifb} root handle 6e67: htb default 1"],
    "an htb": ["tc qdisc add dev {host} root handle 6e67: htb default 1"],
    "an htb with another default": ["tc qdisc add dev {host} root handle 6e67: htb default 2"],
}
"""What a crash leaves."""
TAKEN: dict[str, str] = {
    "filter": "tc filter del dev {host} ingress prio 65535",
    "class": "tc class change dev {ifb} classid 6e67:1 htb rate 1gbit ceil 2gbit",
    "ifb": "ip link delete {ifb}",
    "ifb's flag": "ip link set {ifb} down",
    "root": "tc qdisc del dev {host} root",
    "clsact": "tc qdisc del dev {host} clsact",
}
"""What somebody takes away, or changes."""


def cut_short(pod: Pod, cut: str) -> None:
    """Leave a pod's interface half done."""
    if cut in TAKEN:
        apply(pod, BOTH)
    for command in BEFORE.get(cut) or [TAKEN[cut]]:
        run(command.format(host=pod.host.name, ifb=IFB_NAME))


@pytest.mark.parametrize("cut", [*BEFORE, *TAKEN])
def test_what_is_half_there_is_seen_and_completed(pod: Pod, cut: str) -> None:
    """After a crash in between, or when somebody took parts away; and then it goes without a trace, too."""
    before = state()
    cut_short(pod, cut)
    seen = SHAPER.observe(pod.host, IFB_NAME)
    assert seen.rates != BOTH
    assert plan(pod.host, IFB_NAME, BOTH, seen) == (Shape(pod.host, IFB_NAME, BOTH),)
    apply(pod, BOTH)
    assert plan(pod.host, IFB_NAME, BOTH, SHAPER.observe(pod.host, IFB_NAME)) == ()
    SHAPER.remove(pod.host, IFB_NAME)
    if cut == "filter":  # it said that the clsact is ours: an empty one stays, until the pod goes
        assert kinds(pod.host.name) == ["noqueue", "clsact"]
        run(f"tc qdisc del dev {pod.host.name} clsact")
    assert state() == before


@pytest.mark.parametrize("cut", [*BEFORE, *TAKEN])
def test_what_is_half_there_can_be_taken_away(pod: Pod, cut: str) -> None:
    """Nothing of it is left, and what is left is planned to go."""
    cut_short(pod, cut)
    assert plan(pod.host, IFB_NAME, UNSHAPED, SHAPER.observe(pod.host, IFB_NAME)) == (
        Shape(pod.host, IFB_NAME, UNSHAPED),
    )
    SHAPER.remove(pod.host, IFB_NAME)
    assert SHAPER.ours() == []
    assert root(pod.host.name) == "noqueue"


def test_an_interface_that_goes_first(pod: Pod) -> None:
    """The pod's namespace ends before its sandbox is stopped: the ifb is found and goes; a second time is fine."""
    apply(pod, BOTH)
    os.close(pod.descriptor)
    until(lambda: SHAPER.ours() == [Trace(None, IFB_NAME)])
    with pytest.raises(GoneError):
        SHAPER.observe(pod.host, IFB_NAME)
    with pytest.raises(GoneError):
        apply(pod, BOTH)
    with pytest.raises(GoneError):
        SHAPER.counters(pod.host, IFB_NAME)
    for _ in range(2):
        SHAPER.remove(pod.host, IFB_NAME)
        assert [link["ifname"] for link in dump("ip -j link")] == ["lo"]


def test_an_interface_that_took_the_index_is_left_alone(pod: Pod) -> None:
    """Whoever has it now."""
    name = "another"
    run(f"ip link delete {pod.host.name}")
    run(f"ip link add {name} index {pod.host.index} type veth peer name peer")
    SHAPER.apply(Shape(Interface(pod.host.index, name), IFB_NAME, Rates(20 * M)))
    before = state()
    with pytest.raises(GoneError):
        apply(pod, BOTH)
    SHAPER.remove(pod.host, "")
    assert state() == before


def test_all_of_ours_on_a_node_is_listed(node: Node) -> None:
    """Pods with one direction, with both, in a foreign clsact, and an ifb without a pod; nothing of anybody else's."""
    pods = [node.pod() for _ in range(4)]
    run("ip link add ifb7 type ifb")
    run(f"tc qdisc add dev {pods[2].host.name} clsact")
    run(f"tc qdisc add dev {pods[3].host.name} root handle 1: htb default 1")
    names = [ifb_name(f"{number:064x}"[::-1]) for number in range(4)]
    for each, name, rates in zip(pods, names, (BOTH, Rates(M), Rates(None, M)), strict=False):
        SHAPER.apply(Shape(each.host, name, rates))
    run(f"ip link add {names[3]} type ifb")
    expected = {
        Trace(pods[0].host, names[0]),
        Trace(pods[1].host, ""),
        Trace(pods[2].host, names[2]),
        Trace(None, names[3]),
    }
    found = SHAPER.ours()
    assert set(found) == expected
    assert len(found) == 4
    for trace in found:
        SHAPER.remove(*trace)
    assert SHAPER.ours() == []
    assert {"ifb7"} == {link["ifname"] for link in dump("ip -j link show type ifb")}


def test_a_hundred_pods(node: Node) -> None:
    """Each has its own ifb and its own rates, and all can be taken away."""
    pods = [node.pod() for _ in range(100)]
    names = [ifb_name(os.urandom(32).hex()) for _ in pods]
    for each, name in zip(pods, names, strict=True):
        SHAPER.apply(Shape(each.host, name, Rates((1 + each.number) * M, (2 + each.number) * M)))
    assert set(SHAPER.ours()) == {Trace(each.host, name) for each, name in zip(pods, names, strict=True)}
    for each, name in zip(pods, names, strict=True):
        assert IFB.fullmatch(name)
        assert SHAPER.observe(each.host, name).rates == Rates((1 + each.number) * M, (2 + each.number) * M)
        SHAPER.remove(each.host, name)
    assert SHAPER.ours() == []


@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_programs_through_tcx_are_seen(pod: Pod, hook: Any) -> None:
    """In both directions, on a kernel that has them; and they are not of our making, so nothing holds."""
    try:
        link = ebpf.attach(ebpf.classifier(-1), pod.host.index, hook)
    except OSError as error:
        pytest.skip(f"this kernel has no tcx: {error}")
    seen = SHAPER.observe(pod.host, IFB_NAME)
    assert len(seen.programs) == 1
    assert f"({hook} of tcx)" in seen.programs[0]
    refused = judge(pod.host, BOTH, seen)
    assert refused is not None
    assert refused.reason == "DataPathNotShapable"
    assert seen.programs[0] in refused.told
    os.close(link)
    assert SHAPER.observe(pod.host, IFB_NAME).programs == ()


@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_programs_in_a_clsact_are_seen(pod: Pod, hook: str) -> None:
    """By the names that their filters bear."""
    run(f"tc qdisc add dev {pod.host.name} clsact")
    try:
        run(f"tc filter add dev {pod.host.name} {hook} bpf bytecode '1,6 0 0 0,'")
    except AssertionError as error:
        pytest.skip(f"this kernel has no cls_bpf: {error}")
    (program,) = SHAPER.observe(pod.host, IFB_NAME).programs
    assert f"({hook} of clsact)" in program


def test_a_shared_block_is_seen(node: Node) -> None:
    """Its filters hold for several interfaces; adding ours would limit them all."""
    first, second = node.pod(), node.pod()
    for each in (first, second):
        run(f"tc qdisc add dev {each.host.name} ingress_block 5 clsact")
    seen = SHAPER.observe(first.host, IFB_NAME)
    assert seen.block == 5
    assert judge(first.host, BOTH, seen) is not None
    before = state()
    with pytest.raises(Refusal):
        apply(first, BOTH)
    assert state() == before


def test_worker_threads_share_nothing(node: Node) -> None:
    """Eight pods at once, each by a thread of its own."""
    pods = [node.pod() for _ in range(8)]
    failed: list[Exception] = []

    def work(each: Pod) -> None:
        try:
            for rate in range(1, 6):
                SHAPER.apply(Shape(each.host, ifb_name(f"{each.number:012x}"), Rates(rate * M, rate * M)))
        except Exception as error:  # noqa: BLE001 - told by the test's thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(each,)) for each in pods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for each in pods:
        assert SHAPER.observe(each.host, ifb_name(f"{each.number:012x}")).rates == Rates(5 * M, 5 * M)


def test_the_kernels_own_words_are_kept(pod: Pod) -> None:
    """Where it gives some beside the errno."""
    with Rtnetlink() as route:
        with pytest.raises(FileNotFoundError):
            route.set_htb_class(pod.host.index, HANDLE, HANDLE | 1, htb_class(M))
        route.add_htb(pod.host.index, HANDLE, 1)
        with pytest.raises(OSError, match="Exclusivity flag on, cannot modify") as refused:
            route.add_htb(pod.host.index, HANDLE, 1)
        assert refused.value.errno == 17
        assert route.link(name="absent") is None
        assert index_of(pod.host.name) == pod.host.index


def test_a_clsact_and_its_filter_come_together(node: Node) -> None:
    """Where somebody else was faster, or the filter cannot be made, none of the two is left."""
    taken, free = node.pod(), node.pod()
    run(f"tc qdisc add dev {taken.host.name} clsact")
    before = state()
    with Rtnetlink() as route:
        with pytest.raises(FileExistsError):
            route.redirect_all_by_clsact(taken.host.index, LAST_PRIORITY, IN_OURS, free.host.index)
        with pytest.raises(OSError, match=r"\w"):
            route.redirect_all_by_clsact(free.host.index, LAST_PRIORITY, IN_OURS, target=1 << 30)
        assert state() == before
        route.redirect_all_by_clsact(free.host.index, LAST_PRIORITY, IN_OURS, taken.host.index)
        (ours,) = route.filters(free.host.index, AT_INGRESS)
        assert (ours.target, ours.handle & 0xFFF) == (taken.host.index, IN_OURS)
