"""Who changed what on which interface, told by the kernel, in namespaces of the test's own."""

import select
import subprocess
from collections.abc import Iterator

import namespaces
import pytest
from namespaces import Node, index_of, run

from noisegate.enforcement.actions import Rates, Shape
from noisegate.enforcement.kernel.shaper import Shaper
from noisegate.enforcement.kernel.tcwatch import TcWatch

IFB = "ng0123456789ab"
CHANGES = (
    "tc qdisc del dev {host} root",
    "tc class change dev {host} parent 6e67: classid 6e67:1 htb rate 1gbit",
    "tc filter del dev {host} ingress",
    "tc qdisc del dev {host} clsact",
    "ip link set {host} down",
    "ip link del {host}",
)
OF_THE_IFB = (
    "tc qdisc del dev {ifb} root",
    "tc class change dev {ifb} parent 6e67: classid 6e67:1 htb rate 1gbit",
    "ip link set {ifb} down",
    "ip link del {ifb}",
)


@pytest.fixture
def node() -> Iterator[Node]:
    """Return a node in a namespace of its own."""
    if namespaces.missing():
        pytest.skip(namespaces.missing())
    with namespaces.node() as made:
        yield made


def shaped(node: Node, ifb: str = IFB) -> Shape:
    """Return what was done to a pod that is held both ways."""
    shape = Shape(node.pod().host, ifb, Rates(40_000_000, 20_000_000))
    Shaper().apply(shape)
    return shape


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_on_a_pod_s_interface_is_told(node: Node, change: str) -> None:
    """Whatever somebody takes away or changes is told by the interface's index, and by no other pod's."""
    pod, other = shaped(node), shaped(node, "ngffffffffffff")
    with TcWatch() as watch:
        run(change.format(host=pod.interface.name))
        assert select.select([watch], [], [], 5)[0]
        assert watch.drain()
        changes = watch.take()
    assert pod.interface.index in changes.indices
    assert other.interface.index not in changes.indices
    assert not changes.lost


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("change", OF_THE_IFB)
def test_a_change_on_an_ifb_is_told_by_its_name(node: Node, change: str, before: bool) -> None:
    """An ifb is found by the name that the ledger has, whether it was there before we listened or came since."""
    if before:
        shaped(node)
    with TcWatch() as watch:
        if not before:
            shaped(node)
            watch.drain()
            watch.take()
        run(change.format(ifb=IFB))
        assert watch.drain()
        assert IFB in watch.take().names


def test_a_look_of_ours_is_not_told(node: Node) -> None:
    """A look brings no other, else they would never end; a repair brings one at most."""
    pod = shaped(node)
    shaper = Shaper()
    with TcWatch() as watch:
        shaper.observe(pod.interface, IFB)
        shaper.counters(pod.interface, IFB)
        shaper.apply(pod._replace(rates=Rates(50_000_000, 20_000_000)))
        assert not watch.drain()
        run(f"tc qdisc del dev {pod.interface.name} root")
        watch.drain()
        shaper.apply(pod)
        watch.drain()
        watch.take()
        shaper.observe(pod.interface, IFB)
        shaper.apply(pod)
        assert not watch.drain()


def test_what_was_taken_is_not_told_again(node: Node) -> None:
    """A change is told once, and one of another interface is another one."""
    pod = shaped(node)
    with TcWatch() as watch:
        run(f"tc qdisc del dev {pod.interface.name} root")
        assert watch.drain()
        assert watch.take().indices == {pod.interface.index}
        assert not watch.drain()
        run("ip link set lo down")
        assert watch.drain()
        assert watch.take().indices == {index_of("lo")}


def test_more_than_there_is_room_for_is_lost_and_says_so(node: Node) -> None:
    """When the kernel has to drop messages it is told that any interface may have changed; what comes after is told again."""
    pod = shaped(node)
    with TcWatch() as watch:
        # Each change makes one message; the room is 4 MiB of whole buffers.
        lines = "".join(f"link set lo mtu {1000 + number % 2}\n" for number in range(6000))
        subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)  # noqa: S607
        assert watch.drain()
        assert watch.take().lost
        run(f"tc qdisc del dev {pod.interface.name} root")
        assert watch.drain()
        changes = watch.take()
        assert (changes.lost, pod.interface.index in changes.indices) == (False, True)
