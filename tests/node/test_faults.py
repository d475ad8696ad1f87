"""What a real node comes to when something dies, is full, is gone or is another: the state converges, and nothing of ours stays.

Each test begins and ends with nothing of ours on the node, and what others have there (qdiscs, filters, an ifb, a cgroup with limits)
is to the byte as it was. How much was done is counted, and printed at the end.
"""

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Final, NamedTuple

import pytest
from containerd import CriError, Device, Pod
from vm import Node, asking, enforcing, podapi, podcgroups
from vm.enforcing import LOG, STATE, Enforcer
from vm.podapi import PodApi

from noisegate.isolation import keys

pytestmark = pytest.mark.node

KILLS: Final = 20
LIVES: Final = 2
"""Pods that come, change and go meanwhile."""
LONGEST: Final = 3.0
"""Seconds from a start to the kill: from before the enforcer has read anything to after it has taken over all pods."""
MANY: Final = 8
"""Pods at once. The aim is 100; emulation gives a pod two seconds of a processor to come and go, so that more would take minutes."""
AT_ONCE: Final = 4
FOREIGN: Final = f"""
mkdir {asking.CGROUPS}/foreign
echo "$(stat -c '%Hr:%Lr' /dev/vdb) rbps=1048576 wbps=max riops=max wiops=100" > {asking.CGROUPS}/foreign/io.max
ip link add foreign0 type ifb
tc qdisc add dev foreign0 root handle 6e67: tbf rate 1gbit burst 1m limit 1m
ip link add ngforeign type dummy
tc qdisc add dev ngforeign root handle 1: htb default 1
tc class add dev ngforeign parent 1: classid 1:1 htb rate 10mbit
tc qdisc add dev ngforeign clsact
tc filter add dev ngforeign ingress prio 10 protocol ip u32 match ip dst 203.0.113.9/32 action drop
tc filter add dev ngforeign egress prio 65535 protocol ip u32 match ip src 203.0.113.9/32 action pass
"""
"""What others have, some of it named as ours might be."""


@pytest.fixture(scope="module")
def tally() -> Iterator[Counter[str]]:
    """What was done, by what; printed at the end."""
    counted = Counter[str]()
    yield counted
    print(f"faults: {', '.join(f'{number} {what}' for what, number in counted.items())}")


@pytest.fixture(scope="module")
def node(machine: Node) -> Node:
    """A node on which others have limits too. The state folder is a small tmpfs of its own: a test fills it."""
    enforcing.install(machine)
    machine.sh(FOREIGN)
    machine.sh(f"mkdir -p {STATE}; mount -t tmpfs -o size=512k tmpfs {STATE}")
    machine.start_containerd(asking.nri())
    # What pods' slices are in: two threads cannot make it at once.
    podcgroups.create_slice(machine, "first", "burstable")
    return machine


@pytest.fixture(scope="module")
def api() -> Iterator[PodApi]:
    """Who tells what pods ask for now."""
    with podapi.served() as serving:
        yield serving


@pytest.fixture(scope="module")
def running(node: Node, api: PodApi) -> Iterator[Enforcer]:
    """The enforcer of all tests."""
    made = Enforcer(node, api.settings(node))
    yield made
    made.kill()


@pytest.fixture
def enforcer(node: Node, running: Enforcer) -> Iterator[Enforcer]:
    """An enforcer that runs, on a node that is, when all pods have gone, as it was before."""
    before = asking.picture(node)
    if not running.runs:
        running.start()
    yield running
    if not running.runs:
        running.start()
    asking.remove_pods(node)
    running.until(lambda: running.status().pods == [] and node.sh(f"ls -A {STATE}/pods") == "")
    # The kernel takes a network namespace down in its own time.
    running.until(lambda: asking.picture(node) == before)


def come(node: Node, number: int = 0) -> Pod:
    """Have a pod come whose container runs."""
    pod = node.run_pod(annotations=asking.both(number))
    node.cri.run(pod)
    return pod


def go(node: Node, pod: Pod) -> None:
    """Have a pod go, and then its cgroup, as the kubelet does."""
    node.cri.stop_pod(pod)
    node.cri.remove_pod(pod)
    node.run("systemctl", "stop", pod.cgroup.rpartition("/")[2])


def converges(enforcer: Enforcer, *pods: Pod) -> None:
    """Wait until these pods, and no others, are held to what they ask for."""
    wanted = {pod.uid for pod in pods}

    def so() -> bool:
        there = enforcer.status().pods
        return {one.uid for one in there} == wanted and all(map(asking.is_held, there))

    enforcer.until(so)


def until(true: Callable[[], bool]) -> None:
    """Wait for what the node does in its own time."""
    end = time.monotonic() + enforcing.SECONDS
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


class Lived(NamedTuple):
    """A pod that is there at the end.

    Attributes:
        pod: Itself.
        number: What it asks for, see `asking.both`.
        starts: Whether it has a container.
    """

    pod: Pod
    number: int
    starts: bool


def life(node: Node, api: PodApi, over: Event, tally: Counter[str]) -> list[Lived]:
    """Have pods come, change and go, one after another; return those that are there at the end."""
    there: list[Lived] = []
    number = 0
    while not over.is_set():
        number += 2
        try:
            pod = node.run_pod(annotations=asking.both(number))
        except CriError:
            tally["pods refused meanwhile"] += 1
            continue
        api.say(pod, asking.both(number))
        starts = False
        while not (starts or over.is_set()):
            try:
                node.cri.run(pod)
            except CriError:
                tally["containers refused meanwhile"] += 1
                continue
            starts = True
            # Whether or not an enforcer lives at this moment.
            assert "wbps=" in asking.writable(node, pod)
            tally["pods came"] += 1
        api.say(pod, asking.both(number + 1))
        tally["changes"] += 1
        there.append(Lived(pod, number + 1, starts))
        if not over.is_set() and len(there) > 1:
            leaving = there.pop(0)
            go(node, leaving.pod)
            api.forget(leaving.pod)
            tally["pods went"] += 1
    return there


def test_killed_at_points_chosen_at_random(node: Node, api: PodApi, enforcer: Enforcer, tally: Counter[str]) -> None:
    """While pods come, change and go it is killed again and again: in the end each pod has what it asked for last."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    over = Event()
    with ThreadPoolExecutor(LIVES) as threads:
        lives = [threads.submit(life, node, api, over, tally) for _ in range(LIVES)]
        try:
            for _ in range(KILLS):
                time.sleep(chance.uniform(0, LONGEST))
                enforcer.kill()
                tally["enforcers killed"] += 1
                enforcer.begin()
        finally:
            over.set()
        there = [lived for one in lives for lived in one.result()]
    enforcer.until(lambda: enforcer.status().connected)
    for pod in (lived.pod for lived in there if not lived.starts):
        node.cri.run(pod)
    converges(enforcer, *(lived.pod for lived in there))
    for pod, number, _ in there:
        status = enforcer.pod(pod.uid).network
        assert status is not None
        assert status.observed == {"ingress": (40 + number) * asking.M, "egress": (20 + number) * asking.M}
        assert f"wbps={8 + number << 20} " in asking.writable(node, pod)
        api.forget(pod)


def test_many_at_once(node: Node, enforcer: Enforcer, tally: Counter[str]) -> None:
    """Each is held, and of none is anything left."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        pods = list(threads.map(partial(come, node), range(MANY)))
        converges(enforcer, *pods)
        list(threads.map(partial(go, node), pods))
    tally["pods at once"] += len(pods)


def test_the_runtime_is_killed(node: Node, enforcer: Enforcer, tally: Counter[str]) -> None:
    """Limits stay while it is away; the enforcer finds the new one, which knows the pods, and holds those that come.

    The new one tells of no end of those that were there before: what is left of them goes all the same.
    """
    pod = come(node)
    limits, before = asking.writable(node, pod), asking.picture(node)
    pid = node.containerd.pid
    node.containerd.kill()
    assert asking.picture(node) == before
    node.containerd.await_pid(lambda now: now not in {0, pid})
    node.await_runtime()
    enforcer.until(lambda: enforcer.status().connected)
    converges(enforcer, pod)
    assert (asking.writable(node, pod), asking.picture(node)) == (limits, before)
    converges(enforcer, pod, come(node, 1))
    tally["runtimes killed"] += 1


def test_a_second_one(node: Node, enforcer: Enforcer, tally: Counter[str]) -> None:
    """It is refused with the first one's pid, and so is a cleanup; the first goes on."""
    for words in (("run",), ("cleanup",)):
        second = enforcer.cli(*words)
        assert second.code == 2
        assert f"another enforcer runs on this host: pid {enforcer.pid} on " in second.err + second.out
        tally["second ones refused"] += 1
    converges(enforcer, come(node))


def test_a_ledger_that_cannot_be_read(node: Node, enforcer: Enforcer, tally: Counter[str]) -> None:
    """Records that were cut short or changed while it was away are set aside and told, and their pods are held all the same."""
    pods = [come(node, number) for number in range(3)]
    enforcer.kill()
    cut, changed, _ = (f"{STATE}/pods/{pod.uid}.json" for pod in pods)
    before = asking.picture(node)
    node.sh(
        f"truncate -s 100 {cut}; printf garbage | dd of={changed} bs=1 seek=200 conv=notrunc status=none; touch {STATE}/pods/.x.tmp"
    )
    enforcer.start()
    converges(enforcer, *pods)
    assert asking.picture(node) == before
    assert set(node.sh(f"ls {STATE}/damaged").split()) == {f"{pod.uid}.json" for pod in pods[:2]}
    assert enforcer.metric("noisegate_node_ledger_damaged") == 2
    node.sh(f"rm {STATE}/damaged/*")
    tally["ledger files cut or changed"] += 2


def test_a_full_state_folder(node: Node, enforcer: Enforcer, tally: Counter[str]) -> None:
    """What cannot be written down is not done: who asks is refused with the reason; what goes is undone when there is room again."""
    stays, leaves = come(node), come(node, 1)
    node.sh(f"dd if=/dev/zero of={STATE}/fill bs=4k status=none || true")
    with pytest.raises(CriError, match=r"the record of the pod cannot be written: ENOSPC .*make room there"):
        node.run_pod(annotations=asking.both())
    plain = node.run_pod()
    assert node.cri.run(plain)
    go(node, leaves)
    node.sh(f"rm {STATE}/fill")
    converges(enforcer, stays)
    converges(enforcer, stays, come(node, 2))
    tally["full state folders"] += 1


def test_a_device_that_vanishes(node: Node, enforcer: Enforcer, tally: Counter[str]) -> None:
    """Its limit goes with it, and that is said of the pod; when it is there again so is the limit, and others never notice."""
    make = "dmsetup create doomed --table '0 20480 zero'; dmsetup mknodes doomed"
    node.sh(make)
    number = node.sh("lsblk --noheadings --output MAJ:MIN /dev/mapper/doomed").strip()
    paths = {keys.VOLUME_PATHS: json.dumps({"data": {"app": "/dev/data"}})}
    pod = node.run_pod(annotations=asking.disk(volume="data") | paths | asking.REQUIRED)
    device = Device(container_path="/dev/data", host_path="/dev/mapper/doomed", permissions="rw")
    node.cri.start(node.cri.create(pod, name="app", devices=[device]))
    other = come(node, 1)
    converges(enforcer, pod, other)
    assert number in node.read(f"{asking.CGROUPS}{pod.cgroup}/io.max")
    node.sh("dmsetup remove doomed")
    assert number not in node.read(f"{asking.CGROUPS}{pod.cgroup}/io.max")
    enforcer.until(lambda: number in " ".join(enforcer.pod(pod.uid).trouble))
    print(f"device vanished: {enforcer.pod(pod.uid).trouble[0]}")
    assert asking.is_held(enforcer.pod(other.uid))
    node.sh(make)
    converges(enforcer, pod, other)
    node.sh("dmsetup remove doomed")
    go(node, pod)
    converges(enforcer, other)
    tally["devices vanished"] += 2


def test_a_network_that_goes_before_its_pod(node: Node, enforcer: Enforcer, tally: Counter[str]) -> None:
    """A namespace that somebody took away before StopPodSandbox takes nothing along, and leaves nothing."""
    pod = come(node)
    names = node.sh("ls /run/netns").split()
    node.sh(f"kill -9 $(cat {asking.CGROUPS}{pod.cgroup}/*/cgroup.procs)")
    for name in names:
        node.sh(f"ip netns delete {name}")
    until(lambda: "veth" not in node.sh("ip -o link"))
    go(node, pod)
    enforcer.until(lambda: not re.search(r"\bng[0-9a-f]{12}\b", node.sh("ip -o link")))
    tally["networks gone first"] += 1


def test_a_cgroup_of_the_same_path(node: Node, enforcer: Enforcer, tally: Counter[str]) -> None:
    """A pod that came back while the enforcer was away has a new cgroup: nothing that the ledger says of the old one counts."""
    old = come(node)
    where = f"{asking.CGROUPS}{old.cgroup}"
    inode = node.sh(f"stat -c %i {where}")
    enforcer.kill()
    go(node, old)
    assert node.run("ls", where, check=False).code
    new = node.run_pod(uid=old.uid, annotations=asking.both(3))
    assert new.cgroup == old.cgroup
    assert node.sh(f"stat -c %i {where}") != inode
    assert not asking.writable(node, new)
    enforcer.start()
    node.cri.run(new)
    converges(enforcer, new)
    record = json.loads(node.read(f"{STATE}/pods/{new.uid}.json"))["record"]
    assert str(record["inode"]) == node.sh(f"stat -c %i {where}")
    tally["cgroup paths used again"] += 1


def test_cleanup_returns_the_node(node: Node, enforcer: Enforcer, tally: Counter[str]) -> None:
    """While pods run, all of ours goes and nothing else; a second cleanup finds nothing, a new enforcer holds them again."""
    enforcer.stop()
    pods = [node.run_pod(annotations=asking.network() | asking.disk()) for _ in range(2)]
    for pod in pods:
        node.cri.run(pod)
    before = asking.picture(node)
    enforcer.start()
    converges(enforcer, *pods)
    assert asking.picture(node) != before
    enforcer.kill()
    cleaned = enforcer.cli("cleanup")
    assert cleaned.code == 0, cleaned
    assert [line.partition(": ")[2] for line in cleaned.out.splitlines()] == ["its limits are undone"] * len(pods)
    assert asking.picture(node) == before
    again = enforcer.cli("cleanup")
    assert (again.code, again.out) == (0, "")
    enforcer.start()
    converges(enforcer, *pods)
    tally["cleanups"] += 2


def test_the_node_reboots(node: Node, running: Enforcer, api: PodApi, tally: Counter[str]) -> None:
    """Nothing of ours is there after it; the enforcer begins with nothing, forgets what was, and holds what comes."""
    if not running.runs:
        running.start()
    pod = come(node)
    converges(running, pod)
    node.reboot()
    assert not re.search(r"6e67|\bng[0-9a-f]{12}\b|[wr][bi]\w*ps=", asking.picture(node))
    assert node.run("ls", STATE, check=False).code
    node.sh(f": > {LOG}")
    node.start_containerd(asking.nri())
    running.configure(api.settings(node))
    running.start()
    assert running.status().pods == []
    assert "ledger-damaged" not in running.told()
    asking.remove_pods(node)
    new = come(node, 1)
    converges(running, new)
    go(node, new)
    running.until(lambda: running.status().pods == [])
    assert "6e67" not in asking.picture(node)
    tally["reboots"] += 1
