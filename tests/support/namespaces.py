"""Network namespaces of a test's own: a node and its pods, made as the CNI plugin ptp makes them.

A network namespace belongs to a thread: the test's thread enters an empty one, and everything that it opens or starts
is there. Pods' namespaces have no name and no mount; they live as long as a file of them is open.
"""

import contextlib
import ctypes
import functools
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from noisegate.enforcement.actions import Interface

_CLONE_NEWNET: Final = 0x40000000
_OURS: Final = "/proc/thread-self/ns/net"
_GONE_SECONDS: Final = 20.0
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _enter(descriptor: int) -> None:
    _checked(_libc.setns(descriptor, _CLONE_NEWNET))


@contextlib.contextmanager
def namespace() -> Iterator[int]:
    """Make a network namespace and give an open file of it; the thread stays where it is."""
    before = os.open(_OURS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.unshare(_CLONE_NEWNET))
        try:
            made = os.open(_OURS, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            _enter(before)
    finally:
        os.close(before)
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):  # a test may have closed it
            os.close(made)


@contextlib.contextmanager
def inside(descriptor: int) -> Iterator[None]:
    """Have the thread in a network namespace."""
    before = os.open(_OURS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(descriptor)
        try:
            yield
        finally:
            _enter(before)
    finally:
        os.close(before)


def run(command: str) -> str:
    """Run `ip` or `tc` in the thread's namespace."""
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def dump(command: str) -> Any:
    """Return what `ip -j` or `tc -j` prints."""
    return json.loads(run(command) or "[]")


def until(condition: Callable[[], bool]) -> None:
    """Wait for what the kernel does in its own time, such as the end of a namespace."""
    end = time.monotonic() + _GONE_SECONDS
    while not condition():
        assert time.monotonic() < end, "the kernel did not come to it"
        time.sleep(0.01)


class Pod(NamedTuple):
    """A pod: its namespace and the host's end of its eth0."""

    descriptor: int
    host: Interface
    number: int

    @property
    def netns(self) -> str:
        """Path of the namespace, as long as it lives."""
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    @property
    def address(self) -> str:
        """Where the pod listens."""
        return f"10.77.{self.number}.2"

    @property
    def gateway(self) -> str:
        """The host's end."""
        return f"10.77.{self.number}.1"

    def end(self) -> None:
        """Close the last file of its namespace, and wait until the kernel has taken its devices away."""
        os.close(self.descriptor)
        until(lambda: not Path(f"/sys/class/net/{self.host.name}").exists() and not _exists(self.host.name))


def _exists(name: str) -> bool:
    return any(link["ifname"] == name for link in dump("ip -j link"))


class Node:
    """A node in a namespace of its own."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._pods = 0

    def pod(self, host: str = "") -> Pod:
        """Make a pod with a veth pair."""
        number, self._pods = self._pods, self._pods + 1
        name = host or f"veth{number}"
        descriptor = self._stack.enter_context(namespace())
        run(f"ip link add {name} type veth peer name eth0 netns /proc/{os.getpid()}/fd/{descriptor}")
        pod = Pod(descriptor, Interface(index_of(name), name), number)
        run(f"ip addr add {pod.gateway}/24 dev {name}")
        run(f"ip link set {name} up")
        with inside(descriptor):
            run("ip link set lo up")
            run(f"ip addr add {pod.address}/24 dev eth0")
            run("ip link set eth0 up")
        until(lambda: "NO-CARRIER" not in dump(f"ip -j link show {name}")[0]["flags"])
        return pod


def index_of(name: str) -> int:
    """Return a device's ifindex in the thread's namespace."""
    (link,) = dump(f"ip -j link show {name}")
    return int(link["ifindex"])


@contextlib.contextmanager
def node() -> Iterator[Node]:
    """Have the thread in an empty network namespace, and go back at the end."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(inside(stack.enter_context(namespace())))
        run("ip link set lo up")
        assert [link["ifname"] for link in dump("ip -j link")] == ["lo"], "this must be a namespace of our own"
        yield Node(stack)


@functools.cache
def missing() -> str:
    """Return why no interface can be shaped on this machine; empty: it can."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    absent = [each for each in ("ip", "tc") if not shutil.which(each)]
    if absent:
        return f"needs iproute2: {', '.join(absent)}"
    try:
        with node() as made:
            name = made.pod().host.name
            for needed in (
                "ip link add ifb9 type ifb",
                f"tc qdisc add dev {name} root handle 1: htb",
                f"tc qdisc add dev {name} clsact",
                f"tc filter add dev {name} ingress protocol all u32 match u32 0 0 action mirred egress redirect dev ifb9",
            ):
                run(needed)
    except (OSError, AssertionError) as error:
        return f"this kernel lacks what shaping needs: {error}"
    return ""
