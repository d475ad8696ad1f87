"""What tests of a node's parts must leave as it was: the cgroups, interfaces, mounts and sysctls of the machine itself."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from containerd.cgroups import PREFIX, hierarchies

LIMITS: Final = (
    "blkio.throttle.*_device",
    "cgroup.subtree_control",
    "cpu.cfs_quota_us",
    "cpu.max",
    "cpu.shares",
    "cpu.weight",
    "cpuset.cpus",
    "cpuset.mems",
    "devices.list",
    "io.max",
    "memory.high",
    "memory.limit_in_bytes",
    "memory.max",
    "pids.max",
)
"""Files of a cgroup, of v1 and of v2, that say what is set and not what is used."""
MOVING: Final = (
    "kernel/ns_last_pid",
    "kernel/perf_event_max_sample_rate",
    "kernel/pty/nr",
    "kernel/random",
    "nf_conntrack_count",
)
"""Sysctls that the kernel changes by itself."""


def look() -> dict[str, str]:
    """Return what is set, by name: `cgroup /cpu/x/cpu.shares`, `interface lo/mtu`, `mount ...`, `qdisc ...`, `sysctl net/...`."""
    return dict((*_cgroups(), *_interfaces(), *_mounts(), *_qdiscs(), *_sysctls()))


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return what differs; a cgroup that came or went is the machine's own doing, tests' cgroups have names of their own."""
    return [
        f"{name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
        and (not name.startswith("cgroup ") or (name in before and name in after))
    ]


def _cgroups() -> Iterator[tuple[str, str]]:
    for hierarchy in hierarchies(Path("/proc/self/mountinfo").read_text()):
        for pattern in LIMITS:
            for path in hierarchy.mount.rglob(pattern):
                if not any(part.startswith(PREFIX) for part in path.parts):
                    with suppress(OSError):
                        yield f"cgroup {path}", path.read_text()


def _interfaces() -> Iterator[tuple[str, str]]:
    for interface in Path("/sys/class/net").iterdir():
        for name in ("address", "flags", "ifindex", "mtu"):
            if (interface / name).exists():
                yield f"interface {interface.name}/{name}", (interface / name).read_text()


def _mounts() -> Iterator[tuple[str, str]]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        yield f"mount {line}", ""


def _qdiscs() -> Iterator[tuple[str, str]]:
    tc = shutil.which("tc", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if tc:
        done = subprocess.run([tc, "qdisc", "show"], capture_output=True, text=True, check=True)
        for line in done.stdout.splitlines():
            yield f"qdisc {line}", ""


def _sysctls() -> Iterator[tuple[str, str]]:
    for folder in ("kernel", "net", "vm"):
        for path in Path("/proc/sys", folder).rglob("*"):
            name = str(path.relative_to("/proc/sys"))
            if not any(moving in name for moving in MOVING):
                with suppress(OSError, UnicodeDecodeError):  # folders, and files that are only written
                    yield f"sysctl {name}", path.read_text()
