"""Which interface is the host's end of a pod's eth0, in namespaces of the test's own."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import namespaces
import pytest
from namespaces import Node, index_of, inside, namespace, run, until

from noisegate.enforcement.actions import Interface
from noisegate.enforcement.kernel.links import GoneError, Links
from noisegate.enforcement.refusal import Refusal

LINKS = Links()


@pytest.fixture
def node() -> Iterator[Node]:
    """Return a node in a namespace of its own."""
    if namespaces.missing():
        pytest.skip(namespaces.missing())
    with namespaces.node() as made:
        yield made


def reason(netns: str) -> str:
    """Return why it is refused."""
    with pytest.raises(Refusal) as refused:
        LINKS.find(netns)
    assert refused.value.told
    assert refused.value.mend
    return refused.value.reason


def test_each_pod_has_its_own(node: Node) -> None:
    """All of a hundred pods are told apart, from outside, though each calls its interface eth0."""
    pods = [node.pod() for _ in range(100)]
    found = [LINKS.find(pod.netns) for pod in pods]
    assert found == [pod.host for pod in pods]
    assert len(set(found)) == 100


def place_and_files() -> tuple[Path, list[Path]]:
    """Return the thread's network namespace and the process's open files."""
    return Path("/proc/thread-self/ns/net").readlink(), sorted(Path("/proc/self/fd").iterdir())


def test_our_own_namespace_is_not_left(node: Node) -> None:
    """Finding a pod's interface neither enters its namespace nor keeps a file open."""
    pod = node.pod()
    before = place_and_files()
    LINKS.find(pod.netns)
    assert place_and_files() == before


def test_further_interfaces_of_the_pod_are_not_taken_for_eth0(node: Node) -> None:
    """Multus adds net1, net2: the one that is limited is eth0, whichever was made first."""
    with namespace() as descriptor:
        there = f"/proc/{os.getpid()}/fd/{descriptor}"
        for host, name in (("vethnet1", "net1"), ("vethpod", "eth0"), ("vethnet2", "net2")):
            run(f"ip link add {host} type veth peer name {name} netns {there}")
        assert LINKS.find(there) == Interface(index_of("vethpod"), "vethpod")


def test_a_pod_in_the_nodes_own_namespace_is_refused(node: Node) -> None:
    """A limit would hold the whole node."""
    assert reason("/proc/thread-self/ns/net") == "HostNetwork"


def test_a_pod_without_a_known_namespace_is_refused() -> None:
    """The runtime could not tell it: the pod may be anywhere."""
    assert reason("") == "NetworkNamespaceUntold"


def test_a_pod_without_eth0_is_refused(node: Node) -> None:
    """Its CNI plugin made nothing, or calls it by another name."""
    with namespace() as descriptor:
        assert reason(f"/proc/{os.getpid()}/fd/{descriptor}") == "NoInterface"


@pytest.mark.parametrize("kind", ["macvlan", "ipvlan", "dummy", "ifb"])
def test_what_is_no_veth_is_refused(node: Node, kind: str) -> None:
    """It has no end on the host that all frames pass."""
    with namespace() as descriptor:
        there = f"/proc/{os.getpid()}/fd/{descriptor}"
        below = f"link {node.pod().host.name} " if kind in {"macvlan", "ipvlan"} else ""
        try:
            run(f"ip link add {below}name eth0x type {kind}")
        except AssertionError as error:
            pytest.skip(f"this kernel has no {kind}: {error}")
        run(f"ip link set eth0x netns {there} name eth0")
        assert reason(there) == "DataPathNotShapable"


def test_a_veth_whose_other_end_is_elsewhere_is_refused(node: Node) -> None:
    """Also where the node has an interface of the same index as that end: two ends must name each other."""
    with namespace() as pod, namespace() as third:
        there = f"/proc/{os.getpid()}/fd/{pod}"
        with inside(third):
            run(f"ip link add far index 4000 type veth peer name eth0 netns {there}")
        assert reason(there) == "DataPathNotShapable"
        run("ip link add decoy index 4000 type veth peer name decoy1")
        assert reason(there) == "DataPathNotShapable"


def test_a_namespace_that_is_no_more(tmp_path: Path, node: Node) -> None:
    """No path, and a path whose mount was taken away (the runtime leaves an empty file), are told apart from refusals."""
    with pytest.raises(GoneError):
        LINKS.find(str(tmp_path / "absent"))
    (tmp_path / "left").touch()
    with pytest.raises(GoneError):
        LINKS.find(str(tmp_path / "left"))


def test_an_interface_is_its_index_and_its_name(node: Node) -> None:
    """One alone is another interface: renamed, or made anew after the index went round."""
    pod = node.pod()
    assert not LINKS.gone(pod.host)
    assert LINKS.gone(replace(pod.host, index=pod.host.index + 1000))
    assert LINKS.gone(replace(pod.host, name="veth-other"))
    run(f"ip link set {pod.host.name} down")
    run(f"ip link set {pod.host.name} name renamed")
    assert LINKS.gone(pod.host)


def test_an_index_and_a_name_that_another_pod_has_now(node: Node) -> None:
    """Both may come again with another pod behind; which one it is, its namespace tells."""
    pod, other = node.pod(), node.pod()
    assert LINKS.belongs(pod.host, pod.netns)
    assert not LINKS.belongs(pod.host, other.netns)
    run(f"ip link delete {pod.host.name}")
    there = other.netns
    with inside(other.descriptor):
        run("ip link set eth0 down")
        run("ip link set eth0 name net1")
    run(f"ip link add {pod.host.name} index {pod.host.index} type veth peer name eth0 netns {there}")
    assert not LINKS.gone(pod.host)
    assert LINKS.belongs(pod.host, other.netns)
    with pytest.raises(Refusal, match="no eth0"):
        LINKS.belongs(pod.host, pod.netns)


def test_an_interface_goes_with_its_pods_namespace(node: Node) -> None:
    """The kernel takes both ends away, in its own time."""
    pod = node.pod()
    netns = pod.netns
    os.close(pod.descriptor)
    until(lambda: LINKS.gone(pod.host))
    assert not LINKS.belongs(pod.host, netns)
