"""Which mount a path lies on, by the text of /proc/<pid>/mountinfo alone.

Never by stat: a path on an NFS mount whose server is away would hold the caller for ever.
Sources: proc_pid_mountinfo(5); Documentation/filesystems/proc.rst, 3.5.
"""

import errno
import os
import re
import select
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from io import FileIO
from itertools import takewhile
from pathlib import Path
from typing import Final, NamedTuple

from noisegate.enforcement.actions import Device
from noisegate.enforcement.kernel.errors import PROC, refusal
from noisegate.enforcement.refusal import Refusal


class Mount(NamedTuple):
    """One line.

    Attributes:
        id: Unique while it is mounted.
        parent: The mount it stands on; for the topmost one itself, or one that is not in the table.
        device: `st_dev` of the files on it; major 0: of no block device.
        root: What of the file system is mounted: a folder in it, or a name such as `net:[4026531992]`.
        point: Where, in the process's own tree.
        fstype: With its subtype: `ext4`, `fuse.sshfs`.
        source: A device's path, a server and its folder, or any word.
    """

    id: int
    parent: int
    device: Device
    root: str
    point: str
    fstype: str
    source: str


MOST_LINKS: Final = 40
"""Symbolic links followed in one path, as the kernel does (MAXSYMLINKS)."""

_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_LINE: Final = re.compile(
    r"(?P<id>\d+) (?P<parent>\d+) (?P<major>\d+):(?P<minor>\d+) (?P<root>[^ ]+) (?P<point>[^ ]+) [^ ]+"
    r"(?: (?!- )[^ ]+)* - (?P<fstype>[^ ]+) (?P<source>[^ ]*)(?: .*)?",
    re.ASCII | re.DOTALL,
)
# File systems without a block device of their own whose folders answer without a network or another process.
_ANSWER: Final = frozenset({"bcachefs", "btrfs", "overlay", "ramfs", "rootfs", "tmpfs", "zfs"})


def parse(text: str) -> tuple[Mount, ...]:
    """Return the mounts, in the order of the text.

    Args:
        text: Of /proc/<pid>/mountinfo; names that are no UTF-8 come with surrogates (`os.fsdecode`).

    Raises:
        ValueError: A line is none of mountinfo.
    """
    # A name may hold any other character that Python takes for the end of a line.
    return tuple(_mount(line) for line in text.split("\n") if line)


# A node with hundreds of pods has thousands of mounts, and they are read anew for each container: most are as they were.
@lru_cache(maxsize=8192)
def _mount(line: str) -> Mount:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"not a line of mountinfo: {line!r}")
    device = Device(int(found["major"]), int(found["minor"]))
    words = (_unescaped(found[key]) for key in ("root", "point", "fstype", "source"))
    return Mount(int(found["id"]), int(found["parent"]), device, *words)


def _unescaped(word: str) -> str:
    # Blank, tab, line feed, backslash and, in newer kernels, # are written as three octal digits.
    return _ESCAPE.sub(lambda digits: chr(int(digits[1], 8)), word) if "\\" in word else word


class Mounts:
    """The mounts that a process sees; read anew when they have changed. May be called from several threads.

    Whoever polls an open mountinfo is told of each change since the poll before (proc_pid_mountinfo(5), mounts_poll of
    fs/proc_namespace.c), and a thousand lines take milliseconds.

    Args:
        path: Of the mountinfo.
    """

    def __init__(self, path: Path = Path("/proc/self/mountinfo")) -> None:
        self._path: Final = path
        self._lock: Final = threading.Lock()
        self._file: FileIO | None = None
        self._poll: Final = select.poll()
        self._mounts: tuple[Mount, ...] = ()

    def __call__(self) -> tuple[Mount, ...]:
        """Return them.

        Raises:
            Refusal: They cannot be read.
        """
        with self._lock:
            try:
                if self._file is None:
                    file = FileIO(self._path)
                    self._mounts = parse(os.fsdecode(file.read()))
                    self._poll.register(file, select.POLLPRI)
                    weakref.finalize(self, file.close)
                    self._file = file
                elif self._poll.poll(0):
                    self._file.seek(0)
                    self._mounts = parse(os.fsdecode(self._file.read()))
            except OSError as error:
                raise refusal(PROC, error.errno or 0, f"{self._path} cannot be read") from error
            return self._mounts


class Tree:
    """A tree of files with its mounts, such as the host's, of which a process in a container sees all below one folder.

    Args:
        mounts: Reads the mounts that this process sees.
        root: Where it sees the tree.
    """

    def __init__(self, mounts: Callable[[], Sequence[Mount]], root: Path = Path("/")) -> None:
        self._read: Final = mounts
        self._root: Final = str(root)
        self._readlink: Final = links(root)
        self._seen: tuple[Sequence[Mount], Sequence[Mount]] = ((), ())

    def holding(self, path: str) -> Mount | None:
        """Return the mount that a path of the tree lies on, wherever its symbolic links lead; None: on none that is seen.

        Raises:
            ValueError: The path is not absolute.
            Refusal: It cannot be read, or its links go round in a circle.
        """
        mounts = self._mounts()
        return holding(mounts, resolved(mounts, path, self._readlink))

    def seen(self, path: str) -> str:
        """Return where this process sees what a path of the tree leads to: links go from the tree's own root.

        Raises:
            ValueError: The path is not absolute.
            Refusal: It cannot be read, or its links go round in a circle.
        """
        return f"{self._root.rstrip('/')}{resolved(self._mounts(), path, self._readlink)}"

    def _mounts(self) -> Sequence[Mount]:
        """Return the mounts as the tree has them; of those that were read before, what was made of them."""
        read = tuple(self._read())
        seen, made = self._seen
        if read != seen:
            made = below(read, self._root)
            self._seen = (read, made)
        return made


def below(mounts: Iterable[Mount], root: str) -> tuple[Mount, ...]:
    """Return the mounts of a tree that is seen below a folder, as that tree itself has them."""
    if root == "/":
        return tuple(mounts)
    inside = [mount for mount in mounts if mount.point == root or mount.point.startswith(f"{root}/")]
    return tuple(mount._replace(point=mount.point[len(root) :] or "/") for mount in inside)


def holding(mounts: Iterable[Mount], path: str) -> Mount | None:
    """Return the mount that a path lies on; None: on none of these.

    The path is taken as it is written, see `resolved`. The walk goes as the kernel's: from the root, at each step onto
    the mount that stands nearest below, so that what is mounted over covers all that was mounted there before.

    Raises:
        ValueError: The path is not absolute and plain.
    """
    if not path.startswith("/") or not {".", ".."}.isdisjoint(path.split("/")):
        raise ValueError(f"not an absolute, plain path: {path!r}")
    # Whatever is passed on the way covers the path.
    there = [mount for mount in mounts if _covers(mount.point, path)]
    known = {mount.id for mount in there}
    step = [mount for mount in there if mount.parent == mount.id or mount.parent not in known]
    reached: Mount | None = None
    left = there
    while step:
        nearest = min(len(mount.point) for mount in step)
        reached = [mount for mount in step if len(mount.point) == nearest][-1]
        left = [mount for mount in left if mount is not reached]
        step = [mount for mount in left if mount.parent == reached.id and mount.parent != mount.id]
    return reached


def _covers(point: str, path: str) -> bool:
    return path.startswith(point) and (len(path) == len(point) or point.endswith("/") or path[len(point)] == "/")


def resolved(mounts: Sequence[Mount], path: str, readlink: Callable[[str], str | None]) -> str:
    """Return a path without symbolic links: mount points have none, but /var/lib/kubelet may be one.

    What lies on a file system that may hang (network, FUSE) is never asked for: it stays as it is written, and lies on
    that mount whatever it says.

    Args:
        mounts: All that the tree has.
        path: Absolute.
        readlink: Where a symbolic link of that tree leads; None: it is none, or not there.

    Raises:
        ValueError: The path is not absolute.
        Refusal: Its links go round in a circle.
    """
    if not path.startswith("/"):
        raise ValueError(f"not an absolute path: {path!r}")
    done, followed = "", 0
    ahead = _names(path)
    along = _along(mounts, done, ahead)
    while ahead:
        name = ahead.pop()
        if name == "..":
            done = done.rpartition("/")[0]
            along = _along(mounts, done, ahead)
            continue
        here = f"{done}/{name}"
        mount = holding(along, here)
        target = None
        if mount is not None and mount.point != here and (mount.device.major or mount.fstype in _ANSWER):
            target = readlink(here)
        if target is None:
            done = here
            continue
        followed += 1
        if followed > MOST_LINKS:
            raise Refusal("PathUnreadable", f"{path}: its symbolic links go round in a circle (ELOOP)")
        if target.startswith("/"):
            done = ""
        ahead += _names(target)
        along = _along(mounts, done, ahead)
    return done or "/"


def _names(path: str) -> list[str]:
    """Return the names in a path, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in {"", "."}]


def _along(mounts: Iterable[Mount], done: str, ahead: Sequence[str]) -> list[Mount]:
    """Return the mounts that any part of a path can lie on, as far as the path is plain."""
    path = "/".join((done, *takewhile(lambda name: name != "..", reversed(ahead)))) or "/"
    return [mount for mount in mounts if _covers(mount.point, path)]


def links(root: Path) -> Callable[[str], str | None]:
    """Return the reader of symbolic links, for `resolved`, of a tree.

    Args:
        root: Where the tree can be seen, such as /proc/1/root.
    """

    def readlink(path: str) -> str | None:
        try:
            return str(Path(f"{root}{path}").readlink())
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.ENOENT, errno.ENOTDIR}:
                return None
            raise refusal(PROC, error.errno or 0, f"{path} cannot be read") from error

    return readlink
