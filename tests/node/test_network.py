"""What pods may send and receive: held on a real kernel both ways, beside what others have there, and refused where it cannot be.

Loads are iperf3's, which tells its payload; limits are of frames, as the classes themselves count them. Programs through tcx are
not here: they came with Linux 6.6 and the machine has Debian's 6.1; tests/enforcement/kernel/test_shaper.py has them.
"""

import json
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from containerd import CriError, Pod
from measured import MBITS, Row
from vm import Node, asking, classrate, enforcing, podapi, tools
from vm.asking import M
from vm.enforcing import Enforcer
from vm.podapi import PodApi

from noisegate.enforcement.plan.network import ifb_name

pytestmark = pytest.mark.node

CONFLIST: Final = "/etc/cni/net.d/10-ptp.conflist"
POLICY: Final = "/run/policy.sh"
PLUGIN: Final = f"""\
#!/usr/bin/python3
# A CNI plugin in a chain: does with a pod's new interface, $HOST on the node, what a script says.
import json, os, subprocess, sys
given = json.load(sys.stdin)
if os.environ["CNI_COMMAND"] == "ADD":
    host = next(one["name"] for one in given["prevResult"]["interfaces"] if not one.get("sandbox"))
    netns = os.path.basename(os.environ["CNI_NETNS"])
    subprocess.run(["sh", "-ec", open("{POLICY}").read()], env={{**os.environ, "HOST": host, "NETNS": netns}}, check=True, stdout=2)
    json.dump(given["prevResult"], sys.stdout)
"""
GATEWAY: Final = "10.88.0.1"
"""Of the pods, on the node's end of each veth."""
NODE: Final = "10.0.2.15"
SECONDS: Final = 6.0
WITHIN: Final = 0.02
ATTEMPTS: Final = 8
"""An emulated machine that has no time for a sender or for a timer moves less than the limit, never more; for how long it had none
is measured beside, and counts."""
SHARP: Final = 0.005
"""Share by which a measurement may be unsure, else it is none."""


@pytest.fixture(scope="module")
def node(machine: Node) -> Node:
    """A node whose CNI plugins are ptp and one more, that may do something with each new interface."""
    conflist = json.loads(machine.read(CONFLIST))
    conflist["plugins"].append({"type": "policy"})
    machine.write(CONFLIST, json.dumps(conflist))
    machine.write("/opt/cni/bin/policy", PLUGIN)
    machine.run("chmod", "+x", "/opt/cni/bin/policy")
    machine.write(POLICY, "")
    enforcing.install(machine)
    machine.push([Path(classrate.__file__)], enforcing.PROGRAM)
    machine.start_containerd(asking.nri())
    return machine


@pytest.fixture(scope="module")
def api() -> Iterator[PodApi]:
    """Who tells what pods ask for now."""
    with podapi.served() as serving:
        yield serving


@pytest.fixture(scope="module")
def enforcer(node: Node, api: PodApi) -> Iterator[Enforcer]:
    """An enforcer that the runtime knows."""
    running = Enforcer(node, api.settings(node))
    running.start()
    yield running
    running.stop()
    assert "WARNING library" not in running.told()  # complaints of libraries that the enforcer stands on


@pytest.fixture(autouse=True)
def _pods_go(node: Node) -> Iterator[None]:
    yield
    asking.remove_pods(node)


def sent(node: Node, device: str) -> int:
    """Return the bytes that the class on a device has counted, by tc."""
    told = node.run("tc", "-s", "class", "show", "dev", device).out
    (counted,) = re.findall(r"class htb 6e67:1 root.*\n Sent (\d+) bytes", told)
    return int(counted)


class Measured(NamedTuple):
    """What a load came to, in bits per second.

    Attributes:
        passed: The class, by its own counter.
        payload: Of that, as iperf3 sees it.
        unsure: By which share `passed` may be wrong.
        late: For which share of the time the machine had no processor.
    """

    passed: float
    payload: float
    unsure: float
    late: float


def measure(node: Node, device: str, address: str, *, reverse: bool) -> Measured:
    """Load a pod's network, and look at its class meanwhile; the processor is the looker's first."""
    log = "/var/log/load.json"
    more = ["--reverse"] if reverse else []
    node.run("rm", "-f", log)
    service = node.start("load", "iperf3", "--json", "--logfile", log, "--client", address, "--time", "600", *more)
    looking = ["python3", f"{enforcing.PROGRAM}/classrate.py", device, f"{SECONDS:g}"]
    told = json.loads(node.run("env", f"PYTHONPATH={enforcing.PROGRAM}", "chrt", "-f", "50", *looking, timeout=120).out)
    service.kill(signal.SIGTERM)
    service.await_end()
    passed, unsure, late = (told[name] / told["seconds"] for name in ("bytes", "unsure", "late"))
    return Measured(8 * passed, payload(node.read(log)), unsure, late)


def payload(told: str) -> float:
    """Return the mean of iperf3's whole seconds but the first."""
    rates: list[float] = [one["sum"]["bits_per_second"] for one in json.loads(told)["intervals"]][1:]
    return sum(rates) / max(1, len(rates))


def host_end(enforcer: Enforcer, pod: Pod) -> str:
    """Return the node's end of a pod's eth0."""
    network = enforcer.pod(pod.uid).network
    assert network is not None
    return network.interface


def has(enforcer: Enforcer, pod: Pod, ingress: int, egress: int) -> bool:
    """Tell whether the kernel has these limits, and the pod asks for them."""
    status = enforcer.pod(pod.uid)
    rates = {"ingress": ingress, "egress": egress}
    return asking.is_held(status) and status.network is not None and status.network.observed == rates


def test_both_ways_hold_at_every_rate(node: Node, api: PodApi, enforcer: Enforcer, table: list[Row]) -> None:
    """What passes the classes is within 2 % of the limit both ways; another limit comes live, and nothing stays of the pod."""
    before = asking.picture(node)
    annotations = asking.network("5M", "5M") | asking.REQUIRED
    pod = node.run_pod(annotations=annotations)
    api.say(pod, annotations)
    server = node.cri.create(pod, ["/usr/bin/iperf3", "--server"], mounts=tools.mounts())
    node.cri.start(server)
    address = node.cri.pod(pod).network.ip
    enforcer.until(lambda: node.run("iperf3", "--client", address, "--bytes", "1K", check=False).code == 0)
    devices = {"receives": host_end(enforcer, pod), "sends": ifb_name(pod.id)}
    for rate in (5, 40, 200):
        counted = {name: sent(node, device) for name, device in devices.items()}
        api.say(pod, asking.network(f"{rate}M", f"{rate}M") | asking.REQUIRED)
        enforcer.until(partial(has, enforcer, pod, rate * M, rate * M))
        for name, device in devices.items():
            # The class is the same one: what it has counted goes on.
            assert sent(node, device) >= counted[name] > 0
            for _ in range(ATTEMPTS):
                found = measure(node, device, address, reverse=name == "sends")
                if found.unsure > SHARP:
                    continue
                assert found.passed <= rate * M * (1 + WITHIN)
                if found.passed >= rate * M * (1 - WITHIN):
                    break
            told = f"iperf3 {found.payload / M:.2f}" + (f", late {found.late:.1%}" if found.late else "")
            row = Row("network", f"pod {name}", MBITS, rate * M, found.passed, WITHIN, WITHIN + found.late, told)
            table.append(row)
            assert row.holds, row
    node.cri.stop_pod(pod)
    enforcer.until(lambda: asking.picture(node) == before)
    node.cri.remove_pod(pod)
    api.forget(pod)
    enforcer.until(lambda: enforcer.status().pods == [])


def test_a_policy_of_others_stays_in_force(node: Node, enforcer: Enforcer) -> None:
    """Filters that were there before us drop what they dropped, the rest passes our class, and all is there afterwards."""
    before = asking.picture(node)
    node.write(
        POLICY,
        f"""
        tc qdisc add dev $HOST clsact
        tc filter add dev $HOST ingress prio 10 protocol ip flower dst_ip {GATEWAY} ip_proto icmp action drop
        tc filter add dev $HOST ingress prio 11 protocol ip u32 match ip dst 203.0.113.9/32 action continue
        tc filter add dev $HOST egress prio 12 protocol ip u32 match ip src 203.0.113.9/32 action drop
        """,
    )
    plain = node.run_pod()
    asks = node.run_pod(annotations=asking.network() | asking.REQUIRED)
    container = node.cri.run(asks)
    host = host_end(enforcer, asks)
    ours = sent(node, ifb_name(asks.id))
    ping = ("ping", "-c1", "-W1", "-s1000")
    assert node.cri.exec(container, *ping, NODE).code == 0
    passed = sent(node, ifb_name(asks.id))
    assert passed - ours > 1000
    assert node.cri.exec(container, *ping, GATEWAY).code == 1
    assert sent(node, ifb_name(asks.id)) - passed < 1000  # ARP
    dropped = node.sh(f"tc -s filter show dev {host} ingress prio 10")
    assert re.search(r"dropped 1,", dropped), dropped

    # The same policy, untouched by us, is what is left when ours goes.
    shaped, untouched = (policy(node, name) for name in (host, host_ends(node, {host})))
    assert shaped == untouched
    node.cri.remove_pod(asks)
    node.cri.remove_pod(plain)
    node.write(POLICY, "")
    enforcer.until(lambda: asking.picture(node) == before)


def host_ends(node: Node, known: set[str]) -> str:
    """Return the only other end of a pod's eth0."""
    (other,) = set(re.findall(r"veth\w+", node.sh("ip -o link show type veth"))) - known
    return str(other)


def policy(node: Node, device: str) -> list[str]:
    """Return the filters on a device that are not ours, both ways, without what counts."""
    told = node.sh(f"tc filter show dev {device} ingress; echo; tc filter show dev {device} egress")
    blocks = re.split(r"\n(?=filter)", told)
    return [re.sub(r"(index|ref|bind) \d+", r"\1", one).strip() for one in blocks if "pref 65535" not in one]


CBPF: Final = (
    "tc qdisc add dev $HOST clsact; tc filter add dev $HOST ingress prio 1 bpf da bytecode '1,6 0 0 {verdict},'"
)
REFUSED: Final = {
    "bpf says OK": (CBPF.format(verdict=0), r"carries eBPF filter \S+ \(ingress of clsact\): frames may pass our"),
    "bpf says UNSPEC": (CBPF.format(verdict=0xFFFFFFFF), r"carries eBPF filter \S+ \(ingress of clsact\)"),
    "a filter that ends": (
        "tc qdisc add dev $HOST clsact; tc filter add dev $HOST ingress prio 7 protocol ip u32 match u32 0 0 action pass",
        "filter u32 of priority 7 on .* may end classification before our filter is asked",
    ),
    "root tbf": (
        "tc qdisc add dev $HOST root tbf rate 1gbit burst 1m limit 1m",
        r"has a root qdisc tbf that is not ours \(leave the annotation out",
    ),
    "macvlan": (
        "ip -n $NETNS link del eth0; ip link add mv0 link eth0 type macvlan mode bridge; ip link set mv0 netns $NETNS name eth0",
        "eth0 is a macvlan of a device of the host and no veth",
    ),
}
"""What is on the pod's interface before we come, and what the runtime says then."""


@pytest.mark.parametrize("case", REFUSED)
def test_where_it_cannot_hold_it_is_refused(node: Node, enforcer: Enforcer, case: str) -> None:
    """The runtime's error has the reason, nothing of ours is left; a pod there that does not ask starts."""
    before = asking.picture(node)
    script, reason = REFUSED[case]
    node.write(POLICY, script)
    try:
        with pytest.raises(CriError) as refused:
            node.run_pod(annotations=asking.network() | asking.REQUIRED)
        assert re.search(f"noisegate: .*{reason}", refused.value.text), refused.value.text
        # The kernel takes a network namespace down in its own time.
        enforcer.until(lambda: asking.picture(node) == before)
        enforcer.until(lambda: enforcer.status().pods == [])
        plain = node.run_pod()
        assert node.cri.run(plain)
        node.cri.remove_pod(plain)
    finally:
        node.write(POLICY, "")
    print(f"{case}: refused: {refused.value.text.partition('noisegate: ')[2]}")


def test_a_pod_in_the_node_s_network(node: Node, enforcer: Enforcer) -> None:
    """Its limit would be the node's: it is left out and said, as admission would have; the node's interface is as it was."""
    before = asking.picture(node), node.sh("tc qdisc show dev eth0")
    pod = node.run_pod(annotations=asking.both(), host_network=True)
    node.cri.run(pod)
    status = enforcer.pod(pod.uid)
    assert "hostNetwork" in " ".join(status.skipped)
    assert status.network is None
    assert asking.writable(node, pod)
    node.cri.remove_pod(pod)
    enforcer.until(lambda: (asking.picture(node), node.sh("tc qdisc show dev eth0")) == before)
