"""Cgroups of a node's own: one folder at the root of each hierarchy of the machine, and nothing outside it is written."""

import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

SECONDS: Final = 20.0
"""Until processes that were killed must be gone."""
DAEMONS: Final = "runtime"
"""The node's daemons, beside the pods: on v2 a cgroup with children that are limited may hold no process itself (cgroups(7))."""
PREFIX: Final = "noisegate-test-"


class Hierarchy(NamedTuple):
    """One cgroup file system.

    Attributes:
        kind: `cgroup` (v1) or `cgroup2`.
        option: The mount option that names it: its controllers or `name=...` on v1, `rw` on v2.
        mount: Where it is mounted.
    """

    kind: str
    option: str
    mount: Path


def hierarchies(mountinfo: str) -> list[Hierarchy]:
    """Return the cgroup file systems in the text of a /proc/PID/mountinfo (proc(5))."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in {"cgroup", "cgroup2"}:
            # `xattr` and so on are said of a mount; the rest of a v1 mount's options are its controllers, or its name.
            named = [option for option in options.split(",") if option not in {"rw", "ro", "xattr", "clone_children"}]
            option = ",".join(named) if kind == "cgroup" else "rw"
            found.append(Hierarchy(kind, option, Path(before.split(" ")[4])))
    return found


class Cgroups:
    """The cgroups of one node, in every hierarchy.

    Attributes:
        name: Of the folder in each of them.
        hierarchies: Of the machine.
    """

    def __init__(self) -> None:
        self.name: Final = f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        self.hierarchies: Final = hierarchies(Path("/proc/self/mountinfo").read_text())

    def create(self) -> None:
        """Make them, and remove those that a test left which was killed.

        Raises:
            OSError: This user may not.
        """
        self._sweep()
        for folder in self._roots():
            for made in (folder, folder / DAEMONS):
                made.mkdir()
                # A new cpuset of v1 is empty, and no process can be put into an empty one (cpuset(7)).
                for file in ("cpuset.cpus", "cpuset.mems"):
                    if (made / file).exists() and (made.parent / file).exists():
                        (made / file).write_text((made.parent / file).read_text())

    def delegate(self) -> None:
        """Move processes aside and switch on every controller, where that is v2's business."""
        for hierarchy, folder in zip(self.hierarchies, self._roots(), strict=True):
            for pid in (folder / "cgroup.procs").read_text().split():
                (folder / DAEMONS / "cgroup.procs").write_text(pid)
            if hierarchy.kind == "cgroup2":
                wanted = (folder / "cgroup.controllers").read_text().split()
                (folder / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in wanted))

    def processes(self) -> set[int]:
        """Return the processes in them, as pids of the caller's."""
        found = set()
        for folder in self._all():
            with suppress(OSError):
                found |= {int(pid) for pid in (folder / "cgroup.procs").read_text().split()}
        return found - {0}

    def remove(self) -> None:
        """Kill what is left in them, and remove them from the leaves up."""
        end = time.monotonic() + SECONDS
        while left := self.processes():
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert time.monotonic() < end, f"processes that do not die: {left}"
            time.sleep(0.01)
        for folder in self._all():
            folder.rmdir()

    def _sweep(self) -> None:
        for hierarchy in self.hierarchies:
            for left in hierarchy.mount.glob(f"{PREFIX}*"):
                pid = left.name.removeprefix(PREFIX).partition("-")[0]
                if not Path("/proc", pid).exists():
                    for folder, _, _ in os.walk(left, topdown=False):
                        with suppress(OSError):  # another one swept it; or one that ends has processes yet
                            Path(folder).rmdir()

    def _roots(self) -> list[Path]:
        return [hierarchy.mount / self.name for hierarchy in self.hierarchies]

    def _all(self) -> Iterator[Path]:
        for root in self._roots():
            for folder, _, _ in os.walk(root, topdown=False):
                yield Path(folder)
