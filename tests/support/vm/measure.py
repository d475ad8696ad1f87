"""What the kernel's own counters say of a load."""

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vm.node import Node

SECONDS: Final = 30.0
"""Until a load must have begun."""
CGROUPS: Final = "/sys/fs/cgroup"


def io_stat(text: str) -> dict[str, dict[str, int]]:
    """Read an io.stat (cgroup-v2.rst): for each device, as `8:0`, its counters rbytes, wbytes, rios, wios."""
    lines = (line.split() for line in text.splitlines())
    return {
        device: {key: int(value) for key, _, value in (field.partition("=") for field in fields)}
        for device, *fields in lines
    }


def io_rate(node: "Node", cgroup: str, device: str, counter: str, seconds: float = 10.0) -> float:
    """Return by how much a counter of a cgroup's io.stat grows in a second, by the node's own clock.

    Args:
        node: Where.
        cgroup: Its path below /sys/fs/cgroup.
        device: As `8:0`.
        counter: `rbytes`, `wbytes`, `rios` or `wios`.
        seconds: How long it is watched.
    """
    path = f"{CGROUPS}{cgroup}/io.stat"
    first = node.sample(path)
    time.sleep(seconds)
    last = node.sample(path)
    began, ended = (io_stat(sample.texts[0]).get(device, {}).get(counter, 0) for sample in (first, last))
    return (ended - began) / (last.at - first.at)


def await_load(node: "Node", cgroup: str, device: str, counter: str) -> None:
    """Wait until a counter grows: a program is loaded, its file laid out, before it does what it is measured by."""
    path = f"{CGROUPS}{cgroup}/io.stat"
    end = time.monotonic() + SECONDS
    while not io_stat(node.read(path)).get(device, {}).get(counter):
        assert time.monotonic() < end, f"{path}: {counter} of {device} never grew:\n{node.read(path)}"
        time.sleep(0.1)
