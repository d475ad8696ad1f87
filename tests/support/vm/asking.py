"""Pods that ask, and whether a node has what they asked for: by its own files and tools, and as the enforcer says."""

import json
import re
from typing import Final

from containerd import TOLERATE, Nri
from containerd.cri import Pod
from containerd.cri_pb2 import PodSandboxConfig

from noisegate.enforcement.status import PodStatus
from noisegate.isolation import keys
from vm.node import Node

REQUIRED: Final = {keys.REQUIRED_PLUGINS: '["noisegate"]'}
CGROUPS: Final = "/sys/fs/cgroup"
M: Final = 1_000_000
PICTURE: Final = r"""
ip -o link | sed 's/ state [A-Z]* / /; s/ link-netns\S* \S*//; s/ qlen [0-9]*//; s/ *\\ */ /'
tc qdisc show
for dev in $(ip -o link | sed 's/^[0-9]*: //; s/[:@].*//'); do
    case $dev in lo|eth0) continue;; esac
    echo "$dev"; tc class show dev "$dev"; tc filter show dev "$dev" ingress; tc filter show dev "$dev" egress
done
echo io.max
grep -r --include=io.max . /sys/fs/cgroup || true
"""


def nri(request: float = 30.0, *, validator: bool = True) -> Nri:
    """Return the runtime's settings as deploy/node/10-noisegate.toml has them, with an emulated machine's patience."""
    return Nri(request=request, validator=validator, tolerate=TOLERATE)


def network(ingress: str = "40M", egress: str = "20M") -> dict[str, str]:
    """Return what asks for bandwidth."""
    return {keys.NETWORK: json.dumps({"limits": {"ingress": ingress, "egress": egress}})}


def disk(wbps: str = "8Mi", volume: str = "*") -> dict[str, str]:
    """Return what asks for a volume's bandwidth, by default the writable layer's."""
    return {keys.DISK: json.dumps({volume: {"limits": {"wbps": wbps}}})}


def both(number: int = 0) -> dict[str, str]:
    """Return what a pod asks for that passed admission; another number asks for something else."""
    return network(f"{40 + number}M", f"{20 + number}M") | disk(f"{8 + number}Mi") | REQUIRED


def is_held(pod: PodStatus) -> bool:
    """Tell whether everything that a pod asked for is what the kernel has now, and nothing is amiss."""
    parts = [(one.asked, one.applied, one.observed) for one in pod.disk]
    if pod.network is not None:
        parts.append((pod.network.asked, pod.network.applied, pod.network.observed))
    return bool(parts) and not pod.trouble and all(asked == applied == observed for asked, applied, observed in parts)


def writable(node: Node, pod: Pod) -> str:
    """Return the limits of a pod's cgroup on the disk of the writable layers; empty: there are none."""
    device = node.device("/var/lib/containerd")
    lines = node.read(f"{CGROUPS}{pod.cgroup}/io.max").splitlines()
    return next((line.removeprefix(f"{device} ") for line in lines if line.startswith(f"{device} ")), "")


def remove_pods(node: Node) -> None:
    """Remove every pod, and then its cgroup, as the kubelet does."""
    for one in node.cri.pods():
        node.cri.remove_pod(Pod(one.id, one.metadata.uid, "", PodSandboxConfig()))
    node.sh("systemctl stop 'kubepods-*pod*.slice'")


def picture(node: Node) -> str:
    """Return every link, qdisc, class and filter of a node, and every limit in its cgroups, without what counts.

    Nor the length of links' queues: to one that has none, as a veth of a CNI plugin, the kernel gives 1000 with its first qdisc and
    never takes it back (qdisc_create, net/sched/sch_api.c).
    """
    told = node.sh(PICTURE)
    return re.sub(r"(refcnt|index|ref|bind|rule hit|success) \d+", r"\1", told)
