"""The io controller's files of pods' cgroups, in cgroup v2.

A limit that is written into another cgroup than the pod's own slows others, in the worst case the whole machine: so
every write proves by name that the cgroup is the pod's, and walks to it from the root through open folders, so that
nobody can put a link in the way between the look and the write.
Sources: Documentation/admin-guide/cgroup-v2.rst; the kubelet's pkg/kubelet/cm/{cgroup_manager_linux,
pod_container_manager_linux}.go and systemd.slice(5) for the names.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from noisegate.enforcement.actions import UNLIMITED, Device, IoLimits, SetIo
from noisegate.enforcement.kernel.errors import CGROUP, IO, refusal
from noisegate.enforcement.kernel.iofiles import IoCounters, line, parse_counters, parse_limits
from noisegate.enforcement.refusal import Refusal

IO_MAX: Final = "io.max"
IO_STAT: Final = "io.stat"
THREADS: Final = "cgroup.threads"
EVENTS: Final = "cgroup.events"
CONTROLLERS: Final = "cgroup.controllers"
"""The controllers that the parent has switched on for this cgroup."""

_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_NOFOLLOW | os.O_CLOEXEC

_UID: Final = re.compile(r"[0-9A-Za-z]+(-[0-9A-Za-z]+)*", re.ASCII)
_QOS: Final = frozenset({"besteffort", "burstable"})
"""The kubelet's groups of pods below kubepods; Guaranteed pods stand in kubepods itself."""


class ForeignCgroupError(Refusal):
    """A path that is not the pod's own cgroup. Nothing was touched."""

    def __init__(self, cgroup: str, why: str) -> None:
        super().__init__("CgroupForeign", f"{cgroup!r} is refused: {why}", "see the kubelet's cgroup driver and root")


def check_own(cgroup: str, uid: str) -> None:
    """Check by its name that a cgroup is a pod's own, as the kubelet names it under either cgroup driver.

    `/kubepods[/besteffort|/burstable]/pod<uid>`, or, under systemd,
    `/kubepods.slice[/kubepods-<qos>.slice]/kubepods[-<qos>]-pod<uid with _ for ->.slice`; both may stand below other
    cgroups (the kubelet's --cgroup-root).

    Raises:
        ForeignCgroupError: It is not.
    """
    parts = _parts(cgroup)
    if not _UID.fullmatch(uid):
        raise ForeignCgroupError(cgroup, f"{uid!r} is no uid of a pod")
    last = parts[-1]
    if last.endswith(".slice"):
        stem = last.removesuffix(".slice")
        group = stem.removesuffix(f"-pod{uid.replace('-', '_')}")
        words = group.split("-")
        # A slice stands in the slices that its name tells, word by word.
        above = ["-".join(words[: end + 1]) + ".slice" for end in range(len(words))]
        own = group != stem and parts[-1 - len(above) : -1] == above
    else:
        words = parts[:-1]
        own = last == f"pod{uid}"
    if words and words[-1] in _QOS:
        words = words[:-1]
    if not own or words[-1:] != ["kubepods"]:
        raise ForeignCgroupError(cgroup, f"it is not the cgroup of pod {uid}")


def _parts(cgroup: str) -> list[str]:
    """Return the names on the way from the root to a cgroup that is not the root."""
    parts = cgroup.split("/")[1:]
    if not cgroup.startswith("/") or "\0" in cgroup or not {"", ".", ".."}.isdisjoint(parts):
        raise ForeignCgroupError(cgroup, "it is not a plain path of a cgroup below the root")
    return parts


class CgroupTree:
    """A cgroup v2 hierarchy.

    Args:
        root: Where it is mounted, such as /sys/fs/cgroup.
    """

    def __init__(self, root: Path) -> None:
        self.root: Final = root

    def read_io(self, cgroup: str) -> dict[Device, IoLimits]:
        """Return the limits that stand in a cgroup.

        Raises:
            Refusal: The cgroup has gone, or has no io controller.
        """
        with self._opened(cgroup) as folder:
            return parse_limits(self._read(folder, cgroup, IO_MAX))

    def write_io(self, action: SetIo, uid: str) -> None:
        """Set the limits of a pod's cgroup on a device, and see that they stand.

        Args:
            action: What is to be written.
            uid: Of the pod, as the kubelet names its cgroup (a static pod's is not its mirror's).

        Raises:
            ForeignCgroupError: The cgroup is not the pod's; nothing was written.
            Refusal: The kernel refuses, or says something else when it is asked again.
        """
        cgroup, device, limits = action
        check_own(cgroup, uid)
        text = line(device, limits)
        with self._opened(cgroup) as folder:
            try:
                self._write(folder, IO_MAX, text.encode())
            except OSError as error:
                if error.errno == errno.ENODEV:
                    # The device's, or the cgroup's: was it removed, it is not found any more.
                    self.identity(cgroup)
                raise refusal(IO, error.errno or 0, f"{text!r} cannot be written into {cgroup}/{IO_MAX}") from error
            stands = parse_limits(self._read(folder, cgroup, IO_MAX)).get(device, UNLIMITED)
        if stands != limits:
            told = f"{cgroup}/{IO_MAX} says {line(device, stands)!r} after {text!r} was written"
            raise Refusal(
                "LimitNotHeld", told, "see what else writes there: systemd's IO*Max properties, another agent"
            )

    def identity(self, cgroup: str) -> int:
        """Return the inode number of a cgroup, which the kernel gives no other cgroup.

        Raises:
            Refusal: The cgroup has gone.
        """
        with self._opened(cgroup) as folder:
            return os.fstat(folder).st_ino

    def populated(self, cgroup: str) -> bool:
        """Tell whether any process is in a cgroup or below it.

        Raises:
            Refusal: The cgroup has gone.
        """
        with self._opened(cgroup) as folder:
            return "populated 1" in self._read(folder, cgroup, EVENTS, CGROUP).splitlines()

    def io_available(self, cgroup: str) -> bool:
        """Tell whether the io controller is on in a cgroup.

        Raises:
            Refusal: The cgroup has gone.
        """
        with self._opened(cgroup) as folder:
            return "io" in self._read(folder, cgroup, CONTROLLERS, CGROUP).split()

    def counters(self, cgroup: str) -> dict[Device, IoCounters]:
        """Return what the processes of a cgroup have read and written, by device.

        Raises:
            Refusal: The cgroup has gone, or has no io controller.
        """
        with self._opened(cgroup) as folder:
            return parse_counters(self._read(folder, cgroup, IO_STAT))

    def threads(self, cgroup: str, container: str) -> list[int]:
        """Return the threads of a container of a pod, in whatever groups below the pod's they are.

        Runtimes name a container's group by its id: `<id>`, `cri-containerd-<id>.scope`, `crio-<id>.scope`.

        Raises:
            Refusal: The pod's cgroup has gone.
        """
        with self._opened(cgroup) as folder:
            top = f"/proc/self/fd/{folder}"
            found: set[int] = set()
            # A group may go while it is looked through; os.walk passes it by.
            for path, _, _ in os.walk(top):
                if container in path.removeprefix(top):
                    with suppress(OSError):
                        found.update(map(int, Path(path, THREADS).read_text().split()))
            return sorted(found)

    def _write(self, folder: int, name: str, data: bytes) -> None:
        """Give a file of the kernel's one write(2). A fake tree, whose files are plain ones, does here what the kernel does."""
        file = os.open(name, os.O_WRONLY | _FILE, dir_fd=folder)
        try:
            os.write(file, data)
        finally:
            os.close(file)

    def _read(self, folder: int, cgroup: str, name: str, interface: str = IO) -> str:
        try:
            with open(os.open(name, os.O_RDONLY | _FILE, dir_fd=folder), encoding="ascii") as file:  # noqa: PTH123  (a descriptor)
                return file.read()
        except OSError as error:
            # To read needs no device: it is the cgroup that has gone.
            said_by = CGROUP if error.errno == errno.ENODEV else interface
            raise refusal(said_by, error.errno or 0, f"{cgroup}/{name} cannot be read") from error

    @contextmanager
    def _opened(self, cgroup: str) -> Iterator[int]:
        """Open the folder of a cgroup, name by name: a link on the way is an error, whenever it was put there."""
        parts = _parts(cgroup)
        try:
            folder = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            for name in parts:
                above = folder
                try:
                    folder = os.open(name, _FOLDER, dir_fd=above)
                finally:
                    os.close(above)
        except OSError as error:
            if not (self.root / CONTROLLERS).exists():
                told = f"disk limits are cgroup v2's, and {self.root} is none of its hierarchies"
                raise Refusal("NoCgroupV2", told, "boot with systemd.unified_cgroup_hierarchy=1") from error
            raise refusal(CGROUP, error.errno or 0, f"cgroup {cgroup} cannot be opened") from error
        try:
            yield folder
        finally:
            os.close(folder)
