"""Pods that ask for disk limits, what they do to their disks, and what the kernel lets them do.

fio runs in a container of the pod, so in a cgroup below the pod's, where the user's program would be. There is no API server:
each pod asks as the webhook has it ask, with `noisegate.io/volume-paths`. It is in the node's network, which spares it the CNI
plugins.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from containerd.cri import Pod
from containerd.cri_pb2 import Device, Mount
from measured import MIBS, OPERATIONS, Row, lines

from noisegate.isolation import keys
from vm import measure, podcgroups, tools
from vm.node import Node

SECONDS: Final = 10.0
"""In which a load is watched."""
RAW: Final = "/dev/raw"
"""Where a container has its block device."""
PERIOD: Final = 0.2
"""Seconds from one look at counters to the next."""
TRIES: Final = 3
KUBELET: Final = "/var/lib/kubelet/pods"

Limits = Mapping[str, str | int]
Paths = Mapping[str, Mapping[str, str]]


class Load(NamedTuple):
    """Something that a pod does to a device as fast as it may.

    Attributes:
        what: For the table.
        pod: Does it.
        device: It is done to, as `8:0`.
        counter: Of io.stat that counts it.
        asked: The limit, in a second.
        within: Share of it by which it may be off.
        short: Share by which it may fall short; None: as `within`.
    """

    what: str
    pod: Pod
    device: str
    counter: str
    asked: int
    within: float = 0.05
    short: float | None = None


def run_pod(node: Node, limits: Mapping[str, Limits], paths: Paths | None, uid: str = "") -> Pod:
    """Run a pod that asks.

    Args:
        node: Where.
        limits: By volume.
        paths: Where each container has each volume; None: nobody says so.
        uid: Of the pod; one is made up.
    """
    asked = {keys.DISK: json.dumps({volume: {"limits": limit} for volume, limit in limits.items()})}
    known = {} if paths is None else {keys.VOLUME_PATHS: json.dumps(paths)}
    return node.run_pod(uid=uid, annotations=asked | known, host_network=True)


def run(
    node: Node, pod: Pod, *jobs: Sequence[str], volumes: Mapping[str, str], name: str = "load", raw: str = ""
) -> str:
    """Run fio in a container of a pod; return the container's id.

    Args:
        node: Where.
        pod: Whose.
        jobs: All at once, each as `tools.fio` makes it: fio's path, the job's name, its settings.
        volumes: Where on the node each folder of the container is.
        name: Of the container.
        raw: A block device of the node's that the container has at `RAW`.
    """
    command = [jobs[0][0], *(word for job in jobs for word in (*job[1:], "--thread"))]
    mounts = [Mount(container_path=here, host_path=there) for here, there in volumes.items()]
    devices = [Device(container_path=RAW, host_path=raw, permissions="rwm")] if raw else []
    container = node.cri.create(pod, command, name=name, mounts=[*tools.mounts(), *mounts], devices=devices)
    node.cri.start(container)
    return container


def pod_cgroup(node: Node, uid: str) -> str:
    """Make a pod's cgroup before the pod, as the kubelet does; return its path below /sys/fs/cgroup."""
    create = podcgroups.create_slice if node.systemd_cgroup else podcgroups.create_folder
    return create(node, uid, "burstable")


def empty_dir(node: Node, uid: str, volume: str) -> str:
    """Make an emptyDir as the kubelet does, on the root disk; return its path."""
    path = f"{KUBELET}/{uid}/volumes/kubernetes.io~empty-dir/{volume}"
    node.run("mkdir", "-p", path)
    return path


def csi(node: Node, uid: str, pv: str, source: str) -> str:
    """Mount a folder where the kubelet has a CSI driver mount a volume; return that: it bears the name of the PV."""
    path = f"{KUBELET}/{uid}/volumes/kubernetes.io~csi/{pv}/mount"
    node.sh(f"mkdir -p {path}; mount --bind {source} {path}")
    return path


def sub_path(node: Node, uid: str, volume: str, source: str) -> str:
    """Mount a folder of a volume where the kubelet has it for a container's subPath; return that."""
    path = f"{KUBELET}/{uid}/volume-subpaths/{volume}/load/0"
    node.sh(f"mkdir -p {path} {source}; mount --bind {source} {path}")
    return path


def stat(pod: Pod) -> str:
    """Return the path of the counters of a pod's cgroup; what its containers do is in them."""
    return f"{measure.CGROUPS}{pod.cgroup}/io.stat"


def io_max(pod: Pod) -> str:
    """Return the path of the limits of a pod's cgroup."""
    return f"{measure.CGROUPS}{pod.cgroup}/io.max"


def count(text: str, load: Load) -> int:
    """Return what an io.stat says of a load; the kernel writes no line for a device before its first request."""
    return measure.io_stat(text).get(load.device, {}).get(load.counter, 0)


def watch(node: Node, group: str, loads: Sequence[Load], seconds: float = SECONDS) -> list[Row]:
    """Watch loads all at once, from when each has begun.

    A rate is that from one moment at which a counter grew to another: a request of several MiB, as a write-back makes them,
    is counted as a whole when it passes.
    """
    for load in loads:
        measure.await_load(node, load.pod.cgroup, load.device, load.counter)
    paths = [stat(pod) for pod in {load.pod.id: load.pod for load in loads}.values()]
    samples = [node.sample(*paths)]
    while samples[-1].at < samples[0].at + seconds:
        time.sleep(PERIOD)
        samples.append(node.sample(*paths))
    rows = []
    for load in loads:
        place = paths.index(stat(load.pod))
        rate = _rate([(sample.at, count(sample.texts[place], load)) for sample in samples])
        unit = MIBS if load.counter.endswith("bytes") else OPERATIONS
        rows.append(Row(group, load.what, unit, load.asked, rate, load.within, load.short))
    return rows


def judge(table: list[Row], watched: Callable[[], Sequence[Row]]) -> None:
    """Put what was watched into the table, and see that what was asked for was held in each row.

    A busy machine may keep a load from what it may have. So where one falls short all are watched again, and the most that
    was ever measured of each is judged: nothing may ever have been too much.
    """
    most = list(watched())
    for _ in range(TRIES - 1):
        if all(row.holds for row in most):
            break
        most = [max(pair, key=lambda row: row.measured) for pair in zip(most, watched(), strict=True)]
    table += most
    assert all(row.holds for row in most), "\n".join(lines(most))


def _rate(counts: Sequence[tuple[float, int]]) -> float:
    grew = [later for earlier, later in pairwise(counts) if later[1] > earlier[1]]
    if len(grew) < 2:
        return 0.0
    (began, before), (ended, after) = grew[0], grew[-1]
    return (after - before) / (ended - began)
