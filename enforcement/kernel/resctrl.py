"""resctrl: the file system through which the kernel shares out caches and memory bandwidth.

    info/L3/cbm_mask, ...       what can be shared out
    info/last_cmd_status        why the last write or mkdir failed, in words
    schemata, tasks, mode       the root group, in which everything begins
    noisegate-<class>/...       a group of ours: made and removed as a directory, filled by the kernel

Facts from Documentation/filesystems/resctrl.rst and fs/resctrl/ of Linux 6.18. Nothing but groups of ours is written.
"""

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from noisegate.enforcement.plan import schemata
from noisegate.enforcement.plan.partitions import PREFIX
from noisegate.enforcement.plan.rdt import Group, Groups
from noisegate.enforcement.plan.schemata import MASKED, Bandwidth, Cache, Machine, Schemata
from noisegate.enforcement.refusal import Refusal

PAGE: Final = 4096
"""Bytes of one write at most: kernfs answers E2BIG to more (`atomic_write_len`)."""
_NOT_GROUPS: Final = frozenset({"info", "mon_groups", "mon_data"})
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV})
"""Of a group that is being removed: kernfs answers ENODEV to whoever found a file before and opens or reads it now."""
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_MOUNT: Final = "mount it: mount -t resctrl resctrl /sys/fs/resctrl"


class Calls:
    """The three system calls that resctrl answers in its own way. A subclass may stand for the kernel in tests."""

    def mkdir(self, path: Path) -> None:
        """Make a group."""
        path.mkdir(mode=0o755)

    def rmdir(self, path: Path) -> None:
        """Remove a group; the kernel removes the files in it."""
        path.rmdir()

    def write(self, path: Path, data: bytes) -> None:
        """Hand a file all of `data` in one system call: the kernel takes each as a command."""
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, data)
        finally:
            os.close(file)


class Mount(NamedTuple):
    """How resctrl is mounted.

    Attributes:
        read_only: Here; the file system itself may be writable elsewhere.
        options: Of the file system: `cdp`, `cdpl2`, `mba_MBps`, `debug`.
    """

    read_only: bool
    options: frozenset[str]


class Resctrl:
    """One mount of resctrl.

    Args:
        root: Where it is mounted, such as `/sys/fs/resctrl`.
        mountinfo: The mounts of the namespace that `root` is in (proc_pid_mountinfo(5)).
        calls: Makes the calls that change something.
    """

    def __init__(self, root: Path, mountinfo: Path = Path("/proc/self/mountinfo"), calls: Calls | None = None) -> None:
        self.root: Final = root
        self._mountinfo: Final = mountinfo
        self._calls: Final = calls or Calls()

    def machine(self) -> Machine:
        """Return what this machine can share out.

        Raises:
            Refusal: resctrl is not mounted here, or only for reading, or cannot be read, or cannot share out anything.
        """
        with self._reading():
            mount = self._mount()
        if mount is None:
            raise Refusal("ResctrlNotMounted", f"resctrl is not mounted at {self.root}", _MOUNT)
        if mount.read_only:
            told = f"resctrl is mounted read-only at {self.root}"
            raise Refusal("ResctrlReadOnly", told, "mount it writable into the enforcer's container")
        ids = {name: tuple(sorted(values)) for name, values in self.root_schemata().items()}
        with self._reading():
            caches: dict[str, Cache] = {name: self._cache(name, ids[name]) for name in MASKED if name in ids}
            bandwidth = self._bandwidth(ids["MB"], mount) if "MB" in ids else None
        closids = [cache.closids for cache in caches.values()] + ([bandwidth.closids] if bandwidth else [])
        if not closids:
            told = "this machine can share out neither caches nor memory bandwidth, it only measures them"
            raise Refusal("ResctrlMonitorsOnly", told)
        return Machine(caches, bandwidth, min(closids))

    def groups(self) -> Groups:
        """Return all groups there are now.

        Raises:
            Refusal: They cannot be read.
        """
        ours: dict[str, Group] = {}
        names = self.names()
        for name in (each for each in names if each.startswith(PREFIX)):
            try:
                ours[name] = Group(self.read(name), bool(self.tasks(name)), self.mode(name))
            except Refusal as refusal:
                if refusal.reason != "GroupGone":
                    raise
        return Groups(ours, tuple(name for name in names if not name.startswith(PREFIX)), self.root_schemata())

    def names(self) -> list[str]:
        """Return the names of all groups but the root, whoever made them.

        Raises:
            Refusal: They cannot be read.
        """
        with self._reading(), os.scandir(self.root) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and entry.name not in _NOT_GROUPS)

    def root_schemata(self) -> Schemata:
        """Return the root group's schemata: a line for each resource, an entry for each cache.

        Raises:
            Refusal: They cannot be read.
        """
        with self._reading():
            return schemata.parse((self.root / "schemata").read_text())

    def read(self, group: str) -> Schemata:
        """Return the schemata of a group of ours.

        Raises:
            Refusal: `GroupGone`, or they cannot be read.
        """
        path = self._ours(group)
        with self._reading(group):
            return schemata.parse((path / "schemata").read_text())

    def mode(self, group: str) -> str:
        """Return the mode of a group of ours.

        Raises:
            Refusal: `GroupGone`, or it cannot be read.
        """
        path = self._ours(group)
        with self._reading(group):
            return (path / "mode").read_text().strip()

    def tasks(self, group: str) -> list[int]:
        """Return the threads in a group of ours; the kernel leaves out those that our PID namespace does not have.

        Raises:
            Refusal: `GroupGone`, or they cannot be read.
        """
        path = self._ours(group)
        with self._reading(group):
            return [int(line) for line in (path / "tasks").read_text().split()]

    def make(self, group: str) -> None:
        """Make a group of ours; nothing happens if it is there.

        Raises:
            Refusal: `ClosidsExhausted`, `RmidsExhausted`, `CacheExhausted` or `GroupNotMade`.
        """
        path = self._ours(group)
        try:
            self._calls.mkdir(path)
        except FileExistsError:
            return
        except OSError as error:
            raise self._not_made(group, error) from error

    def write(self, group: str, wanted: Schemata) -> None:
        """Write schemata of a group of ours and read them back.

        The kernel reads all lines of a write before any takes effect (`rdtgroup_schemata_write`), so a refused write
        changes nothing, but for MB under mba_MBps. Lines that do not fit into a page are written in several.

        Raises:
            Refusal: `SchemataRefused`: the kernel does not take them; `SchemataDiffer`: it took them and shows others;
                `GroupGone`: it took them and shows none any more.
        """
        path = self._ours(group) / "schemata"
        for text in _pages(schemata.write(wanted)):
            try:
                self._calls.write(path, text.encode())
            except OSError as error:
                told = f"the kernel refused {' '.join(text.split())} for the group {group}: {self._why(error)}"
                raise Refusal("SchemataRefused", told) from error
        if differ := schemata.differing(wanted, self.read(group)):
            told = f"the kernel shows other schemata of the group {group} than {' '.join(schemata.write(differ))}"
            raise Refusal("SchemataDiffer", told)

    def add(self, group: str, threads: Iterable[int]) -> int:
        """Move threads into a group of ours, and return how many; a thread that has ended is passed by.

        A thread that is made meanwhile begins in its maker's group: repeat until no other one is found.

        Raises:
            Refusal: `TaskNotMoved`.
        """
        path = self._ours(group) / "tasks"
        moved = 0
        for thread in threads:
            if thread == 0:
                # cgroup.threads shows so what our PID namespace does not have; to resctrl 0 is whoever writes it.
                told = f"a thread of another PID namespace cannot be moved into the group {group}"
                raise Refusal("TaskNotMoved", told, "the enforcer needs hostPID")
            try:
                self._calls.write(path, b"%d\n" % thread)
            except ProcessLookupError:
                continue
            except OSError as error:
                told = f"thread {thread} cannot be moved into the group {group}: {self._why(error)}"
                raise Refusal("TaskNotMoved", told) from error
            moved += 1
        return moved

    def remove(self, group: str) -> None:
        """Remove a group of ours; nothing happens if it is gone. The kernel moves its tasks to the root group.

        Raises:
            Refusal: `GroupNotRemoved`.
        """
        path = self._ours(group)
        try:
            self._calls.rmdir(path)
        except OSError as error:
            if error.errno not in _GONE:
                raise Refusal("GroupNotRemoved", f"the group {group} cannot be removed: {self._why(error)}") from error

    def _ours(self, group: str) -> Path:
        if not group.startswith(PREFIX) or "/" in group or "\n" in group or "\0" in group:
            raise ValueError(f"{group!r} is no group of ours")
        return self.root / group

    @contextmanager
    def _reading(self, group: str = "") -> Iterator[None]:
        """Refuse what cannot be read."""
        try:
            yield
        except (OSError, ValueError) as error:
            if group and isinstance(error, OSError) and error.errno in _GONE:
                raise Refusal("GroupGone", f"the group {group} has been removed") from error
            raise Refusal("ResctrlUnreadable", f"resctrl at {self.root} cannot be read: {error}") from error

    def _mount(self) -> Mount | None:
        """Return the last mount at `root`: that is the one that is seen."""
        found = None
        for line in self._mountinfo.read_text().splitlines():
            # 43 25 0:38 / /sys/fs/resctrl rw,relatime shared:19 - resctrl resctrl rw,cdp
            here, _, behind = line.partition(" - ")
            before, (kind, _, options) = here.split(), behind.split(" ", 2)
            if _ESCAPE.sub(lambda match: chr(int(match[1], 8)), before[4]) == str(self.root):
                flags = frozenset(options.split(","))
                found = Mount("ro" in before[5].split(",") or "ro" in flags, flags) if kind == "resctrl" else None
        return found

    def _cache(self, name: str, ids: tuple[int, ...]) -> Cache:
        # sparse_masks is there since Linux 6.7; older kernels allow gaps on AMD alone.
        sparse = self._info(name, "sparse_masks", "0") != "0"
        mask, shareable = int(self._info(name, "cbm_mask"), 16), int(self._info(name, "shareable_bits", "0"), 16)
        fewest, closids = int(self._info(name, "min_cbm_bits")), int(self._info(name, "num_closids"))
        return Cache(ids, mask, fewest, sparse, closids, shareable)

    def _bandwidth(self, ids: tuple[int, ...], mount: Mount) -> Bandwidth:
        least, step = int(self._info("MB", "min_bandwidth")), int(self._info("MB", "bandwidth_gran"))
        # Intel's are percents and never 0; AMD counts eighths of GB/s from 0 (resctrl.rst, "on AMD systems").
        unit = "MiBps" if "mba_MBps" in mount.options else "%" if least else "GBps/8"
        return Bandwidth(ids, least, max(step, 1), unit, int(self._info("MB", "num_closids")))

    def _info(self, resource: str, name: str, default: str | None = None) -> str:
        path = self.root / "info" / resource / name
        return default if default is not None and not path.exists() else path.read_text().strip()

    def _why(self, error: OSError) -> str:
        """Return the kernel's own words on the last command, and the errno's name."""
        name = errno.errorcode.get(error.errno or 0, "")
        try:
            status = " ".join((self.root / "info" / "last_cmd_status").read_text().split())
        except OSError:
            status = ""
        return f"{status} ({name})" if status not in ("", "ok") else f"{os.strerror(error.errno or 0)} ({name})"

    def _not_made(self, group: str, error: OSError) -> Refusal:
        why = self._why(error)
        told = f"the group {group} cannot be made: {why}"
        if error.errno in (errno.ENOSPC, errno.EBUSY) and "RMID" in why:
            # Freed RMIDs rest until their cache lines are gone (resctrl.rst, max_threshold_occupancy).
            return Refusal("RmidsExhausted", told, "wait a minute, or remove monitoring groups that nobody needs")
        if error.errno == errno.ENOSPC and "No space on" in why:
            return Refusal("CacheExhausted", told, "make the groups shareable that have the cache for themselves")
        if error.errno == errno.ENOSPC:
            return Refusal("ClosidsExhausted", told, "use fewer RDT classes, or remove groups that nobody needs")
        return Refusal("GroupNotMade", told)


def sees_all_tasks(namespace: Path = Path("/proc/self/ns/pid")) -> bool:
    """Tell whether this process sees every thread of the machine, so that a group without tasks is empty.

    True in the initial PID namespace, whose inode is PROC_PID_INIT_INO (include/linux/proc_ns.h): `hostPID: true`.
    """
    return namespace.stat().st_ino == 0xEFFFFFFC


def _pages(lines: list[str]) -> Iterable[str]:
    """Join lines into as few texts of a page at most as it takes."""
    text = ""
    for line in lines:
        if text and len(text) + len(line) + 1 > PAGE:
            yield text
            text = ""
        text += f"{line}\n"
    if text:
        yield text
