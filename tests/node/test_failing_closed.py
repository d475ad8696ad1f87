"""No container that asked ever runs unlimited: each way in which an enforcer can fail, beside a container of which it cannot be said.

The enforcer is the product's own; it fails by signals: SIGKILL ends it in a call, SIGSTOP has it answer nothing.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Final, NamedTuple

import pytest
from containerd import CriError, Pod
from vm import Node, asking, enforcing
from vm.enforcing import Enforcer

from noisegate.isolation import keys

pytestmark = pytest.mark.node

PATIENCE: Final = 8.0
"""Seconds that the runtime waits for an answer."""
ABSENT: Final = 'required plugin "noisegate" not present'
FAILED: Final = "validator plugin 10-noisegate failed"
RUNNING: Final = 1
CONFIG: Final = "/etc/containerd/config.toml"


class Pair(NamedTuple):
    """Two pods whose sandboxes run.

    Attributes:
        asks: Asks, as our webhook leaves it.
        plain: Does not.
    """

    asks: Pod
    plain: Pod


@pytest.fixture(scope="module")
def node(machine: Node) -> Node:
    """A node whose runtime has its validator on, and little patience."""
    enforcing.install(machine)
    machine.start_containerd(asking.nri(PATIENCE))
    return machine


@pytest.fixture
def enforcer(node: Node) -> Iterator[Enforcer]:
    """An enforcer that does not run yet; however it ended up, it is gone afterwards."""
    made = Enforcer(node)
    yield made
    made.kill()


@pytest.fixture(scope="module")
def pair(node: Node) -> Iterator[Pair]:
    """Pods for all tests: what is tried is a container's creation. No enforcer knew of their sandboxes."""
    pods = Pair(node.run_pod(annotations=asking.both()), node.run_pod())
    yield pods
    for pod in pods:
        node.cri.remove_pod(pod)


def never_unlimited(node: Node, pair: Pair) -> None:
    """See that none of the asking pod's containers runs, or that the pod has its limits."""
    runs = [one.id for one in node.cri.containers() if one.pod_sandbox_id == pair.asks.id and one.state == RUNNING]
    assert not runs or is_limited(node, pair.asks), runs


def is_limited(node: Node, pod: Pod) -> bool:
    """Tell whether the kernel holds a pod to what `asking.both` asks for, by its own files and tools."""
    shaped = node.sh("for dev in $(ls /sys/class/net); do tc class show dev $dev; done")
    rates = re.findall(r"class htb 6e67:1 root.* rate (\S+) ", shaped)
    return sorted(rates) == ["20Mbit", "40Mbit"] and "wbps=8388608 " in asking.writable(node, pod)


def refused(node: Node, pair: Pair) -> str:
    """Have a container of the asking pod be refused; return the runtime's words. The plain pod's runs all the same."""
    with pytest.raises(CriError) as error:
        node.cri.create(pair.asks)
    assert node.cri.run(pair.plain)
    never_unlimited(node, pair)
    return error.value.text


def starts(node: Node, pair: Pair) -> None:
    """Have containers of both pods start, the one that asked under its limits before its program ran."""
    container = node.cri.create(pair.asks)
    assert is_limited(node, pair.asks)
    node.cri.start(container)
    assert node.cri.run(pair.plain)
    node.cri.remove(container)


def told(case: str, asks: str, plain: str = "starts") -> None:
    """Print a line of the table."""
    print(f"{case:<34} asks: {asks.rpartition('for container: ')[2]:<130.128} does not ask: {plain}")


def sockets(node: Node) -> list[list[str]]:
    """Return the unix sockets: kind, state, bytes to be read, bytes that the other end has not read, path or *, inode, *, its inode."""
    return [line.split() for line in node.run("ss", "-xH").out.splitlines()]


def is_asked(node: Node) -> bool:
    """Tell whether what the runtime asks waits to be read at the other end of an NRI connection."""
    there = {row[5]: row for row in sockets(node)}
    others = [there.get(row[7]) for row in there.values() if row[4] == "/run/nri/nri.sock"]
    return any(other is not None and int(other[2]) > 0 for other in others)


def is_kept_waiting(node: Node) -> bool:
    """Tell whether somebody has sent something over a connection that was not accepted yet: the other end has no inode."""
    return any(int(row[3]) > 0 and row[7] == "0" for row in sockets(node))


def until(true: Callable[[], bool]) -> None:
    """Wait for what the machine does in its own time."""
    end = time.monotonic() + enforcing.SECONDS
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def test_absent(node: Node, pair: Pair, enforcer: Enforcer) -> None:
    """Without an enforcer an asking pod gets no container; as soon as one runs it does, and is limited."""
    text = refused(node, pair)
    assert ABSENT in text
    told("absent", text)
    enforcer.start()
    starts(node, pair)
    enforcer.kill()
    # The runtime may learn only by asking that it has gone.
    text = refused(node, pair)
    assert ABSENT in text or FAILED in text
    # What was made stays in force.
    assert is_limited(node, pair.asks)


def in_a_call(node: Node, pair: Pair, enforcer: Enforcer, then: Callable[[], None]) -> str:
    """Have the enforcer do nothing, ask it for a container, and do something when the question is with it."""
    enforcer.start()
    enforcer.until(lambda: asking.is_held(enforcer.pod(pair.asks.uid)))
    enforcer.send(SIGSTOP)
    with ThreadPoolExecutor(1) as thread:
        creating: Future[str] = thread.submit(node.cri.create, pair.asks)
        until(lambda: is_asked(node))
        then()
        with pytest.raises(CriError) as error:
            creating.result()
    never_unlimited(node, pair)
    return error.value.text


def test_dying_in_a_call(node: Node, pair: Pair, enforcer: Enforcer) -> None:
    """Killed while a container is asked about, it takes that one's start along, and no plain one's."""
    text = in_a_call(node, pair, enforcer, lambda: enforcer.send(SIGKILL))
    assert FAILED in text
    told("dies in CreateContainer", text)
    assert ABSENT in refused(node, pair)
    enforcer.kill()
    enforcer.start()
    starts(node, pair)


def test_slow_in_a_call(node: Node, pair: Pair, enforcer: Enforcer) -> None:
    """When the runtime's patience ends the container is refused; the enforcer is asked no more, comes again, and serves."""
    text = in_a_call(node, pair, enforcer, lambda: None)
    assert FAILED in text
    told(f"slower than {PATIENCE:g} s in CreateContainer", text)
    assert ABSENT in refused(node, pair)
    connections = "noisegate_node_runtime_connections_total"
    enforcer.send(SIGCONT)
    enforcer.until(lambda: enforcer.status().connected and enforcer.metric(connections) == 2)
    starts(node, pair)


def test_slow_while_it_registers(node: Node, pair: Pair, enforcer: Enforcer) -> None:
    """One that does not answer when the runtime configures and synchronises it lets nobody start who asks, and serves when it goes on."""
    runtime = node.containerd
    runtime.kill(SIGSTOP)
    enforcer.begin()
    # It says who it is, and waits for a runtime that cannot answer.
    until(lambda: is_kept_waiting(node))
    enforcer.send(SIGSTOP)
    runtime.kill(SIGCONT)
    node.await_runtime()
    text = refused(node, pair)
    assert ABSENT in text or FAILED in text
    told("slow in Configure and Synchronize", text)
    enforcer.send(SIGCONT)
    enforcer.until(lambda: enforcer.status().connected)
    starts(node, pair)


def restart(node: Node, config: str) -> None:
    """Start the runtime again with this configuration."""
    node.write(CONFIG, config)
    node.containerd.restart()
    node.await_runtime()


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("NRI validator", ("enable = true", "enable = false")),
        ("NRI", ("disable = false", "disable = true")),
    ],
    ids=["validator", "nri"],
)
def test_a_node_that_would_let_them_start(
    node: Node, pair: Pair, enforcer: Enforcer, check: str, change: tuple[str, str]
) -> None:
    """With the validator or NRI off an asking container does start unlimited: so such a node says it enforces nothing."""
    enforcer.start()
    assert set(enforcer.status().enforces) == {"disk", "network"}
    enforcer.stop()
    config = node.read(CONFIG)
    try:
        restart(node, config.replace(*change))
        assert enforcer.cli("cleanup").code == 0
        container = node.cri.run(pair.asks)
        assert not is_limited(node, pair.asks)
        node.cri.remove(container)
        preflight = enforcer.cli("preflight", "-o", "json")
        found = {one["name"]: one for one in json.loads(preflight.out)}
        assert (preflight.code, found[check]["passed"], found[check]["found"]) == (1, False, "off")
        assert set(found[check]["kinds"]) == {"disk", "network", "rdt"}
        assert "deploy/node/10-noisegate.toml" in found[check]["mend"]
        enforcer.begin()
        enforcer.until(lambda: bool(enforcer.status().checks))
        assert enforcer.status().enforces == []
        told(f"{check} off", "starts unlimited: the node's labels are taken (enforces nothing)")
    finally:
        restart(node, config)
    assert keys.TOLERATE_MISSING_PLUGINS in config
