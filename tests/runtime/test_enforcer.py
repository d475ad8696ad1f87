"""The enforcer as a process beside a real containerd: what pods ask of the network holds, whoever dies, restarts or interferes.

Limits are compared with the bytes that the classes themselves count. The machine has cgroup v1 (or v2, it does not matter
here): disk limits are shown in tests/node, in a machine of its own; here a pod that asks for them is refused where it must be.
"""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from containerd import TOLERATE, Containerd, CriError, Node, Nri, Pod, Start
from enforcing import STATE, Enforcer
from namespaces import inside

from noisegate.enforcement.actions import Interface
from noisegate.enforcement.kernel.shaper import Shaper
from noisegate.enforcement.plan.network import ifb_name
from noisegate.enforcement.status import NetworkStatus
from noisegate.isolation import keys

pytestmark = pytest.mark.runtime

INGRESS, EGRESS = 40_000_000, 20_000_000
ASKED: Final = {"ingress": INGRESS, "egress": EGRESS}
NOTHING: Final = {"ingress": None, "egress": None}
NETWORK: Final = {keys.NETWORK: json.dumps({"limits": {"ingress": "40M", "egress": "20M"}})}
DISK: Final = {keys.DISK: json.dumps({"*": {"limits": {"rbps": "10Mi"}}})}
REQUIRED: Final = {keys.REQUIRED_PLUGINS: '["noisegate"]'}
ASKING: Final = NETWORK | REQUIRED
"""As our webhook leaves a pod that asks."""
ABSENT: Final = 'required plugin "noisegate" not present'
SECONDS: Final = 20.0

LOAD_SECONDS: Final = 2.5
WITHIN: Final = 0.02
ATTEMPTS: Final = 4
"""A machine that has no time for a sender or a timer moves less than the limit, never more."""

ELSEWHERE: Final = "protocol ip u32 match ip dst 203.0.113.9/32"
OTHERS: Final = (
    "tc qdisc add dev {host} clsact",
    f"tc filter add dev {{host}} ingress prio 10 {ELSEWHERE} action mirred egress mirror dev lo continue",
    f"tc filter add dev {{host}} egress prio 11 {ELSEWHERE}",
)
"""What a CNI plugin's network policy may look like."""


@pytest.fixture
def containerd(start: Start) -> Containerd:
    """A containerd as deploy/node/10-noisegate.toml makes it."""
    return start(Nri(validator=True, tolerate=TOLERATE))


@pytest.fixture
def enforcer(containerd: Containerd) -> Iterator[Enforcer]:
    """An enforcer that is connected to it."""
    with Enforcer(containerd) as running:
        yield running


@contextmanager
def network_of(node: Node, pid: int) -> Iterator[None]:
    """Have the thread in the network of a process, or of the node: 0."""
    descriptor = os.open(f"/proc/{pid or node.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with inside(descriptor):
            yield
    finally:
        os.close(descriptor)


def pid_of(node: Node, pod: Pod, container: str) -> int:
    """Return a process of a container, as this process counts."""
    return int((node.cgroup("cpuset", f"{pod.cgroup}/{container}") / "cgroup.procs").read_text().split()[0])


def pause_of(node: Node, pod: Pod) -> int:
    """Return the pause process of a pod."""
    return pid_of(node, pod, pod.id)


def host_end(node: Node, pod: Pod) -> Interface:
    """Return the node's end of a pod's eth0, as the pod itself names it."""
    with network_of(node, pause_of(node, pod)):
        index = socket_link()
    with network_of(node, 0):
        return Interface(index, socket.if_indextoname(index))


def socket_link() -> int:
    """Return the index of the other end of eth0 of this thread's network."""
    from noisegate.enforcement.kernel.rtnetlink import Rtnetlink  # noqa: PLC0415

    with Rtnetlink() as route:
        link = route.link(name="eth0")
        assert link is not None
        return link.peer


def picture(node: Node) -> str:
    """Return every link, qdisc, class and filter of the node's network, without counters.

    Without queue lengths too: the kernel gives a device that has none one with its first qdisc, and keeps it.
    """
    script = r"""
    ip -o link | sed 's/ state [A-Z]* / /; s/ link-netns\S* \S*//; s/ *qlen [0-9]*//; s/ *\\/ /'
    tc qdisc show
    for dev in $(ip -o link | sed 's/^[0-9]*: //; s/[:@].*//'); do
        echo "$dev"; tc class show dev "$dev"
        for hook in ingress egress; do tc filter show dev "$dev" $hook; done
    done
    """
    return re.sub(r"(refcnt|index|ref|bind|direct_packets_stat) \d+", r"\1", node.run("sh", "-c", script))


def counted(node: Node, pod: Pod) -> tuple[int, int]:
    """Return the bytes that the classes have counted that hold what a pod receives and what it sends."""
    with network_of(node, 0):
        counters = Shaper().counters(host_end(node, pod), ifb_name(pod.id))
    assert counters.ingress is not None
    assert counters.egress is not None
    return counters.ingress, counters.egress


def ping(containerd: Containerd, pod: Pod) -> None:
    """Have some bytes counted both ways."""
    node = containerd.node
    node.run(str(node.busybox), "ping", "-c1", "-s1000", "-w10", containerd.cri.pod(pod).network.ip)


def held(enforcer: Enforcer, pod: Pod) -> bool:
    """Tell whether the kernel has what a pod asked for, as the enforcer sees it."""
    return network_status(enforcer, pod).observed == ASKED


def network_status(enforcer: Enforcer, pod: Pod) -> NetworkStatus:
    """Return what the enforcer says of a pod's network."""
    status = enforcer.pod(pod.uid).network
    assert status is not None
    return status


# What holds.


class Flow(NamedTuple):
    """A load in one direction: who sends, how, and who throws away.

    Attributes:
        send: Sends a piece.
        receive: Takes what comes; None: the kernel throws it away.
        pause: Seconds between pieces.
    """

    send: Callable[[], object]
    receive: Callable[[], object] | None
    pause: float


def flow(node: Node, ends: tuple[int, int], to: str, kind: str, rate: int, stack: ExitStack) -> Flow:
    """Return a load above a rate.

    Args:
        node: Where.
        ends: Processes in whose networks the sender and the receiver are.
        to: The receiver's address.
        kind: `udp` or `tcp`.
        rate: Bits per second.
        stack: Closes its sockets.
    """
    family = socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
    made = []
    for pid in ends:
        with network_of(node, pid):
            made.append(stack.enter_context(closing(socket.socket(socket.AF_INET, family))))
    sender, receiver = made
    receiver.bind((to, 0))
    if kind == "udp":
        sender.connect(receiver.getsockname())
        datagram = bytes(1472)
        # What a pod sends is dropped in its ifb and does not hold the sender up: twice the limit is enough.
        return Flow(partial(sender.send, datagram), None, len(datagram) * 8 / (2 * rate))
    receiver.listen()
    sender.connect(receiver.getsockname())
    accepted = stack.enter_context(closing(receiver.accept()[0]))
    for end in (sender, accepted):
        end.settimeout(0.2)
    return Flow(partial(sender.send, bytes(1 << 16)), partial(accepted.recv, 1 << 16), 0.0)


@contextmanager
def under_load(load: Sequence[Flow]) -> Iterator[None]:
    """Have flows run."""
    over = threading.Event()

    def send(flow: Flow) -> None:
        due = time.monotonic()
        while not over.is_set():
            with suppress(OSError):
                flow.send()
            due = max(due + flow.pause, time.monotonic() - 0.02)
            time.sleep(max(0.0, due - time.monotonic()))

    def receive(flow: Flow) -> None:
        while flow.receive is not None and not over.is_set():
            with suppress(OSError):
                flow.receive()

    with ThreadPoolExecutor(2 * len(load)) as threads:
        for one in load:
            threads.submit(send, one)
            threads.submit(receive, one)
        try:
            yield
        finally:
            over.set()


def measured(node: Node, pod: Pod, seconds: float) -> dict[str, float]:
    """Return the bits per second that pass both classes, over some seconds."""
    time.sleep(0.5)
    began, before = time.monotonic(), counted(node, pod)
    time.sleep(seconds)
    ended, after = time.monotonic(), counted(node, pod)
    passed = zip(("ingress", "egress"), before, after, strict=True)
    return {name: 8 * (now - then) / (ended - began) for name, then, now in passed}


@pytest.mark.parametrize(
    ("kind", "directions"), [("udp", ("ingress", "egress")), ("tcp", ("ingress",)), ("tcp", ("egress",))]
)
def test_limits_hold(containerd: Containerd, enforcer: Enforcer, kind: str, directions: tuple[str, ...]) -> None:
    """Under more than a pod asked for, what passes the classes is within 2 % of it; for UDP both ways at the same time.

    Both ways at once TCP does not reach its limits: what confirms one direction waits behind what is sent in the other.
    """
    node = containerd.node
    pod = containerd.cri.run_pod(annotations=ASKING)
    inner = pid_of(node, pod, containerd.cri.run(pod))
    assert network_status(enforcer, pod).applied == ASKED
    ends = {"ingress": (0, inner), "egress": (inner, 0)}
    to = {"ingress": containerd.cri.pod(pod).network.ip, "egress": "10.88.0.1"}
    most = dict.fromkeys(directions, 0.0)
    with ExitStack() as stack:
        load = [flow(node, ends[name], to[name], kind, ASKED[name], stack) for name in directions]
        stack.enter_context(under_load(load))
        for _ in range(ATTEMPTS):
            rates = measured(node, pod, LOAD_SECONDS)
            for name in directions:
                print(f"{kind} {name}: asked {ASKED[name] / 1e6:.1f}, measured {rates[name] / 1e6:.2f} Mbit/s")
                assert rates[name] <= ASKED[name] * (1 + WITHIN)
                most[name] = max(most[name], rates[name])
            if all(most[name] >= ASKED[name] * (1 - WITHIN) for name in directions):
                return
    pytest.fail(f"never as much as was asked for: {most}")


def test_what_others_have_there_stays(containerd: Containerd, enforcer: Enforcer) -> None:
    """A policy's clsact and filters stand before, with and after ours, also when a pod is taken over at a start."""
    node, cri = containerd.node, containerd.cri
    enforcer.stop()
    pod = cri.run_pod(annotations=NETWORK)
    host = host_end(node, pod)
    for command in OTHERS:
        node.run(*command.format(host=host.name).split())
    before = picture(node)
    enforcer.start()
    enforcer.until(lambda: held(enforcer, pod))
    filters = node.run("tc", "filter", "show", "dev", host.name, "ingress")
    assert [int(number) for number in dict.fromkeys(re.findall(r"pref (\d+)", filters))] == [10, 65535]
    enforcer.kill()
    assert enforcer.cli("cleanup").code == 0
    assert picture(node) == before


def test_a_root_qdisc_of_others_is_left_and_said(containerd: Containerd, enforcer: Enforcer) -> None:
    """What stands in our place is not replaced: the pod's trouble names it, and when it goes the limits come."""
    node = containerd.node
    enforcer.stop()
    pod = containerd.cri.run_pod(annotations=NETWORK)
    host = host_end(node, pod)
    node.run("tc", "qdisc", "add", "dev", host.name, "root", "tbf", "rate", "1gbit", "burst", "1m", "limit", "1m")
    enforcer.start()
    enforcer.until(lambda: any("root qdisc tbf" in told for told in enforcer.pod(pod.uid).trouble))
    assert "tbf" in node.run("tc", "qdisc", "show", "dev", host.name)
    node.run("tc", "qdisc", "del", "dev", host.name, "root")
    enforcer.until(lambda: held(enforcer, pod) and not enforcer.pod(pod.uid).trouble)


def test_nothing_is_left_of_a_pod(containerd: Containerd, enforcer: Enforcer) -> None:
    """With the sandbox's stop its limits go, with its removal the record; a stopped one is held to nothing meanwhile."""
    node, cri = containerd.node, containerd.cri
    before = picture(node)
    pod = cri.run_pod(annotations=ASKING)
    cri.run(pod)
    assert picture(node) != before
    cri.stop_pod(pod)
    enforcer.until(lambda: picture(node) == before)
    rounds = enforcer.metric("noisegate_node_last_reconcile_timestamp_seconds")
    enforcer.until(lambda: enforcer.metric("noisegate_node_last_reconcile_timestamp_seconds") > rounds + 1)
    assert network_status(enforcer, pod).observed == NOTHING
    assert enforcer.pod(pod.uid).trouble == []
    enforcer.kill()
    enforcer.start()
    assert network_status(enforcer, pod).observed == NOTHING
    assert enforcer.pod(pod.uid).trouble == []
    cri.remove_pod(pod)
    enforcer.until(lambda: enforcer.status().pods == [])
    assert list((node.root / STATE / "pods").iterdir()) == []
    assert "not-held" not in enforcer.told()


# Who dies.


def test_the_enforcer_is_killed(containerd: Containerd, enforcer: Enforcer) -> None:
    """Limits stay without it; who asks is refused with a reason, who does not starts; it comes back without a gap."""
    node, cri = containerd.node, containerd.cri
    pod = cri.run_pod(annotations=ASKING)
    cri.run(pod)
    ping(containerd, pod)
    before, bytes_before = picture(node), counted(node, pod)
    assert min(bytes_before) > 1000

    enforcer.kill()
    assert picture(node) == before
    # The runtime may learn of it by this very call.
    with pytest.raises(CriError, match=f"{ABSENT}|validator plugin 10-noisegate failed"):
        cri.create(pod)
    new = cri.run_pod(annotations=ASKING)
    with pytest.raises(CriError, match=ABSENT):
        cri.create(new)
    cri.stop_pod(new)
    cri.remove_pod(new)
    plain = cri.run_pod()
    assert cri.run(plain)
    cri.stop_pod(plain)
    cri.remove_pod(plain)
    ping(containerd, pod)

    enforcer.start()
    enforcer.until(lambda: held(enforcer, pod))
    assert picture(node) == before
    # A class that is made anew counts from nothing.
    assert all(now > then for now, then in zip(counted(node, pod), bytes_before, strict=True))
    assert cri.run(pod)
    new = cri.run_pod(annotations=ASKING)
    assert cri.run(new)
    assert held(enforcer, new)


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_containerd_dies(containerd: Containerd, enforcer: Enforcer, how: str) -> None:
    """Limits stay while it is away, the enforcer finds it again, and pods that ask start."""
    node, cri = containerd.node, containerd.cri
    pod = cri.run_pod(annotations=ASKING)
    cri.run(pod)
    ping(containerd, pod)
    before, bytes_before = picture(node), counted(node, pod)
    if how == "restart":
        containerd.restart()
    else:
        containerd.kill()
        enforcer.until(lambda: not enforcer.status().connected)
        assert picture(node) == before
        ping_without(node, pod)
        containerd.start()
    enforcer.until(lambda: enforcer.status().connected)
    assert enforcer.metric("noisegate_node_runtime_connections_total") == 2
    assert picture(node) == before
    assert all(now >= then > 0 for now, then in zip(counted(node, pod), bytes_before, strict=True))
    assert held(enforcer, pod)
    assert cri.run(pod)
    assert held(enforcer, second := cri.run_pod(annotations=ASKING))
    assert cri.run(second)


def ping_without(node: Node, pod: Pod) -> None:
    """Have bytes counted while nobody can be asked for the pod's address."""
    with network_of(node, pause_of(node, pod)), closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        sender.sendto(bytes(1000), ("10.88.0.1", 9))


def test_a_second_enforcer_is_refused(containerd: Containerd, enforcer: Enforcer) -> None:
    """It ends and names the first by its pid; the first goes on."""
    second = enforcer.cli("run")
    assert second.code == 2
    assert re.search(rf"another enforcer runs on this host: pid {enforcer.pid} on ", second.stderr)
    pod = containerd.cri.run_pod(annotations=ASKING)
    assert containerd.cri.run(pod)
    assert held(enforcer, pod)


@pytest.mark.parametrize("away", [False, True])
def test_a_pod_gets_another_sandbox(containerd: Containerd, enforcer: Enforcer, away: bool) -> None:
    """When pause was killed the pod's new sandbox is held, the old one's ifb is gone, and its removal changes nothing."""
    node, cri = containerd.node, containerd.cri
    old = cri.run_pod("web", annotations=ASKING)
    cri.run(old)
    os.kill(pause_of(node, old), 9)
    wait_until(lambda: cri.pod(old).state == 1)
    cri.stop_pod(old)
    new = cri.run_pod("web", uid=old.uid, annotations=ASKING, attempt=1)
    cri.run(new)
    if away:
        enforcer.kill()
        enforcer.start()
        enforcer.until(lambda: held(enforcer, new))
    assert network_status(enforcer, new).interface == host_end(node, new).name
    before = picture(node)
    assert (ifb_name(new.id) in before, ifb_name(old.id) in before) == (True, False)
    cri.remove_pod(old)
    enforcer.until(lambda: picture(node) == before)
    assert held(enforcer, new)
    assert "not-held" not in enforcer.told()


def test_a_network_that_goes_before_its_pod(containerd: Containerd, enforcer: Enforcer) -> None:
    """A network namespace that somebody took away takes nothing along; the pod's end leaves nothing behind."""
    node, cri = containerd.node, containerd.cri
    before = picture(node)
    pod = cri.run_pod(annotations=ASKING)
    (name,) = [path.name for path in (node.root / "run/netns").iterdir()]
    os.kill(pause_of(node, pod), 9)
    node.run("umount", f"/run/netns/{name}")
    wait_until(lambda: "veth" not in node.run("ip", "-o", "link"))
    cri.stop_pod(pod)
    cri.remove_pod(pod)
    enforcer.until(lambda: picture(node) == before)
    enforcer.until(lambda: enforcer.status().pods == [])


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for what the kernel or the runtime does in its own time."""
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


# Who interferes.


def test_drift_is_repaired(containerd: Containerd) -> None:
    """Whatever of ours somebody changes or takes away is put back at once, without waiting for a round, and counted."""
    node = containerd.node
    with Enforcer(containerd, {"reconcileSeconds": 3600}) as enforcer:
        pod, other = (containerd.cri.run_pod(annotations=ASKING) for _ in range(2))
        host, ifb = host_end(node, pod).name, ifb_name(pod.id)
        ping(containerd, other)
        before, others = picture_of_ours(node, host, ifb), counted(node, other)
        drifts = (
            f"tc qdisc del dev {host} root",
            f"tc class change dev {host} parent 6e67: classid 6e67:1 htb rate 1gbit",
            f"tc filter del dev {host} ingress",
            f"tc qdisc del dev {host} clsact",
            f"tc qdisc del dev {ifb} root",
            f"tc class change dev {ifb} parent 6e67: classid 6e67:1 htb rate 1gbit",
            f"ip link set {ifb} down",
            f"ip link del {ifb}",
        )
        for number, drift in enumerate(drifts, 1):
            node.run(*drift.split())
            assert picture_of_ours(node, host, ifb) != before, drift
            enforcer.until(lambda: picture_of_ours(node, host, ifb) == before)
            enforcer.until(partial(repaired, enforcer, number))
        assert enforcer.told().count("drift-repaired") == len(drifts)
        assert held(enforcer, pod)
        assert all(now >= then > 0 for now, then in zip(counted(node, other), others, strict=True))


def repaired(enforcer: Enforcer, number: int) -> bool:
    """Tell whether so much was repaired."""
    return enforcer.metric("noisegate_node_drift_repairs_total", kind="network") == number


def picture_of_ours(node: Node, host: str, ifb: str) -> str:
    """Return what stands on a pod's interface and ifb, without the number that each new ifb gets."""
    script = (
        f"tc qdisc show dev {host}; tc class show dev {host}; tc filter show dev {host} ingress;"
        f"ip -o link show {ifb} 2>&1; tc qdisc show dev {ifb} 2>&1; tc class show dev {ifb} 2>&1"
    )
    told = node.run("sh", "-c", f"({script}) || true")
    return re.sub(
        r"(refcnt|index|ref|bind|direct_packets_stat) \d+|^\d+: |link/ether \S+|ht \S+|fh \S+|order \d+",
        "",
        told,
        flags=re.MULTILINE,
    )


@pytest.mark.parametrize("ledger", ["kept", "lost"])
def test_cleanup_returns_the_node(containerd: Containerd, enforcer: Enforcer, ledger: str) -> None:
    """While pods run, also without a ledger, all of ours goes and nothing else; while the enforcer runs it is refused."""
    node, cri = containerd.node, containerd.cri
    enforcer.stop()
    pods = [cri.run_pod(annotations=NETWORK) for _ in range(3)]
    for command in OTHERS:
        node.run(*command.format(host=host_end(node, pods[0]).name).split())
    before = picture(node)
    enforcer.start()
    for pod in pods:
        enforcer.until(partial(held, enforcer, pod))
    shaped = picture(node)
    refused = enforcer.cli("cleanup")
    assert (refused.code, picture(node)) == (2, shaped)
    assert f"another enforcer runs on this host: pid {enforcer.pid}" in refused.stderr

    enforcer.kill()
    if ledger == "lost":
        for path in (node.root / STATE / "pods").iterdir():
            path.unlink()
    cleaned = enforcer.cli("cleanup")
    assert cleaned.code == 0, cleaned
    assert len(cleaned.stdout.splitlines()) == len(pods)
    assert picture(node) == before
    again = enforcer.cli("cleanup")
    assert (again.code, again.stdout) == (0, "")

    enforcer.start()
    for pod in pods:
        enforcer.until(partial(held, enforcer, pod))


@pytest.mark.parametrize("ledger", ["kept", "lost"])
def test_orphans_are_collected(containerd: Containerd, enforcer: Enforcer, ledger: str) -> None:
    """What is left of pods that ended while nobody looked goes at the next start, also when the ledger is lost."""
    node, cri = containerd.node, containerd.cri
    staying = cri.run_pod(annotations=ASKING)
    ping(containerd, staying)
    before, bytes_before = picture(node), counted(node, staying)
    leaving = cri.run_pod(annotations=ASKING)
    enforcer.kill()
    cri.stop_pod(leaving)
    cri.remove_pod(leaving)
    assert ifb_name(leaving.id) in picture(node)
    if ledger == "lost":
        for path in (node.root / STATE / "pods").iterdir():
            path.unlink()
    enforcer.start()
    enforcer.until(lambda: picture(node) == before)
    enforcer.until(lambda: [one.uid for one in enforcer.status().pods] == [staying.uid])
    assert all(now >= then > 0 for now, then in zip(counted(node, staying), bytes_before, strict=True))


# What is refused, and what is left out.


def test_a_node_that_cannot_refuses_only_who_asks(containerd: Containerd, enforcer: Enforcer) -> None:
    """On cgroup v1 a pod that asks for disk gets the reason from the runtime; nothing of it stays, others start."""
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("the machine has cgroup v2: it can")
    node, cri = containerd.node, containerd.cri
    before = picture(node)
    for asked in (DISK, DISK | NETWORK):
        with pytest.raises(CriError) as refused:
            cri.run_pod(annotations=asked | REQUIRED)
        assert "noisegate: disk limits are cgroup v2's, and /sys/fs/cgroup is none" in refused.value.text
        assert "boot with systemd.unified_cgroup_hierarchy=1" in refused.value.text
    enforcer.until(lambda: picture(node) == before)
    enforcer.until(lambda: enforcer.status().pods == [])
    assert enforcer.metric("noisegate_node_refusals_total", kind="disk") == 2
    assert enforcer.status().enforces == ["network"]
    for asked in (ASKING, {}):
        assert cri.run(cri.run_pod(annotations=asked))


@pytest.mark.parametrize("bad", ["{", '{"*": {"limits": {"rbps": "fast"}}}'])
def test_what_cannot_be_meant_is_left_out(containerd: Containerd, enforcer: Enforcer, bad: str) -> None:
    """A pod past admission with a malformed request of one kind starts, is held to the other, and it is said."""
    pod = containerd.cri.run_pod(annotations=ASKING | {keys.DISK: bad})
    assert containerd.cri.run(pod)
    assert held(enforcer, pod)
    assert any(keys.DISK in told for told in enforcer.pod(pod.uid).skipped)
    assert enforcer.metric("noisegate_node_skipped_total", kind="disk") == 1


def test_a_pod_in_the_node_s_network(containerd: Containerd, enforcer: Enforcer) -> None:
    """A limit of its network would be the node's: it is left out, and said, and the node is as it was."""
    before = picture(containerd.node)
    pod = containerd.cri.run_pod(annotations=ASKING, host_network=True)
    assert containerd.cri.run(pod)
    assert picture(containerd.node) == before
    assert "hostNetwork" in " ".join(enforcer.pod(pod.uid).skipped) if enforcer.status().pods else True


def test_a_namespace_that_is_left_alone(containerd: Containerd) -> None:
    """In it nothing is held or refused, whatever is asked for."""
    with Enforcer(containerd, {"excludedNamespaces": ["default"]}) as enforcer:
        pods = [containerd.cri.run_pod(annotations=asked | REQUIRED) for asked in (NETWORK, DISK)]
        for pod in pods:
            assert containerd.cri.run(pod)
        assert enforcer.status().pods == []
        assert "6e67" not in picture(containerd.node)


# Many.


def test_many_pods_are_taken_over(start: Start) -> None:
    """With less patience than it takes to hold them all, the runtime has our answer, and then every pod has its limits.

    60 containers in 20 pods; a thousand are told to the plugin alone in test_protocol.py, and to the handlers in bench/node.py.
    """
    containerd = start(Nri(request=0.5, validator=True, tolerate=TOLERATE))
    cri = containerd.cri
    pods = [cri.run_pod(annotations=NETWORK) for _ in range(20)]
    for pod in pods:
        for _ in range(3):
            cri.create(pod)
    with Enforcer(containerd) as enforcer:
        enforcer.until(lambda: all(held(enforcer, pod) for pod in pods))
        assert re.search(r"nri-connected .*sandboxes=20 containers=60", enforcer.told())
        assert cri.run(cri.run_pod(annotations=ASKING))


def test_many_pods_come_and_go_at_once(containerd: Containerd, enforcer: Enforcer) -> None:
    """Each is held when its sandbox is there, and nothing is left of any."""
    node, cri = containerd.node, containerd.cri
    before = picture(node)

    def come(_: int) -> Pod:
        pod = cri.run_pod(annotations=ASKING)
        cri.run(pod)
        return pod

    def go(pod: Pod) -> None:
        cri.stop_pod(pod)
        cri.remove_pod(pod)

    with ThreadPoolExecutor(8) as threads:
        pods = list(threads.map(come, range(24)))
        assert {one.uid for one in enforcer.status().pods if one.network and one.network.observed == ASKED} == {
            pod.uid for pod in pods
        }
        list(threads.map(go, pods))
    enforcer.until(lambda: picture(node) == before)
    enforcer.until(lambda: enforcer.status().pods == [])
    assert "not-held" not in enforcer.told()
