"""A cgroup v2 tree of plain folders and files that behaves as the kernel's io controller does.

The production class does everything but the write itself: its folders are opened, its names checked and its files read
back as on a node. A write merges one line into io.max as tg_set_limit (block/blk-throttle.c) does, and puts the new
text in place by one rename(2): a process that is killed at any moment leaves the old state or the new one. What it
needs besides stands in a folder beside the tree, never in it. Writers of several threads and processes take turns.

    tree = FakeCgroupTree(tmp_path / "cgroup", disks={Device(8, 0)})
    tree.make("/kubepods.slice/kubepods-pod1.slice")
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn
from uuid import uuid4

from noisegate.enforcement.actions import Device, IoLimits
from noisegate.enforcement.kernel.cgroup import CgroupTree
from noisegate.enforcement.kernel.iofiles import IoCounters

U64_MAX: Final = (1 << 64) - 1
UINT_MAX: Final = (1 << 32) - 1

_NUMBERS: Final = re.compile(r"\s*(\d+):(\d+)(?=\s)", re.ASCII)
_TOKEN: Final = re.compile(r"\s*(\S{1,26})", re.ASCII)


class FakeCgroupTree(CgroupTree):
    """A tree of one's own.

    Args:
        root: A folder, made where it is not there; `<root>.beside` is used too. Another instance, also in another
            process, may open the same tree.
        disks: What io.max takes. Any other device is a partition or has gone, which the kernel tells apart by nothing.
        smallest: The least limit that is taken: 2 from Linux 5.11 on, 1 before and again in newer ones.
    """

    def __init__(self, root: Path, disks: set[Device], smallest: int = 2) -> None:
        super().__init__(root)
        self.disks: Final = disks
        self.smallest: Final = smallest
        self._beside: Final = root.with_name(root.name + ".beside")
        root.mkdir(parents=True, exist_ok=True)
        (root / "cgroup.controllers").write_text("cpu io memory\n")
        self._beside.mkdir(exist_ok=True)

    def make(self, cgroup: str, *, io: bool = True) -> Path:
        """Make a cgroup and those above it, as mkdir(2) does, with the io controller on or off."""
        folder = self.root
        for name in cgroup.strip("/").split("/"):
            folder /= name
            if folder.exists():
                continue
            folder.mkdir()
            (folder / "cgroup.controllers").write_text("cpu io memory\n" if io else "cpu memory\n")
            (folder / "cgroup.procs").write_text("")
            (folder / "cgroup.events").write_text("populated 0\nfrozen 0\n")
            for file in ("io.max", "io.stat") if io else ():
                (folder / file).write_text("")
        return folder

    def remove(self, cgroup: str) -> None:
        """Remove a cgroup as rmdir(2) does. Its inode number stays taken, for the kernel's never come again."""
        self._folder(cgroup).rename(self._beside / f"removed-{uuid4()}")

    def populate(self, cgroup: str, *, populated: bool = True) -> None:
        """Let a process run in a cgroup, or none."""
        self._put(self._folder(cgroup) / "cgroup.events", f"populated {populated:d}\nfrozen 0\n")

    def unplug(self, device: Device) -> None:
        """Let a disk vanish, and with it its lines in every cgroup."""
        self.disks.discard(device)
        with self._turn():
            for file in [*self.root.rglob("io.max"), *self.root.rglob("io.stat")]:
                lines = file.read_text().splitlines(keepends=True)
                self._put(file, "".join(line for line in lines if not line.startswith(f"{device} ")))

    def charge(self, cgroup: str, counters: Mapping[Device, IoCounters]) -> None:
        """Say in io.stat what a cgroup has read and written."""
        text = "".join(
            f"{device} rbytes={rbytes} wbytes={wbytes} rios={rios} wios={wios} dbytes=0 dios=0\n"
            for device, (rbytes, wbytes, rios, wios) in counters.items()
        )
        self._put(self._folder(cgroup) / "io.stat", text)

    def foreign(self, cgroup: str, device: Device, limits: IoLimits) -> None:
        """Set limits as somebody else does, past all checks of ours."""
        values = ("max" if value is None else value for value in limits)
        rbps, wbps, riops, wiops = values
        folder = os.open(self._folder(cgroup), os.O_PATH)
        try:
            self._write(folder, "io.max", f"{device} rbps={rbps} wbps={wbps} riops={riops} wiops={wiops}".encode())
        finally:
            os.close(folder)

    def snapshot(self) -> dict[str, str]:
        """Return the text of every file, by its path below the root."""
        return {
            str(file.relative_to(self.root)): file.read_text()
            for file in sorted(self.root.rglob("*"))
            if file.is_file()
        }

    def _write(self, folder: int, name: str, data: bytes) -> None:
        # What the kernel's open(2) answers for a file that is not there, a link or a folder that has gone.
        os.close(os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder))
        file = Path(f"/proc/self/fd/{folder}").readlink() / name
        with self._turn():
            self._put(file, self._merged(file.read_text(), data.decode().strip()))

    def _merged(self, text: str, written: str) -> str:
        """Return io.max after a write.

        Raises:
            OSError: As the kernel answers; nothing is changed then.
        """
        found = _NUMBERS.match(written)
        if found is None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        device = Device(int(found[1]), int(found[2]))
        if device not in self.disks:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        lines = dict(line.split(" ", 1) for line in text.splitlines())
        values = dict(
            word.split("=") for word in lines.get(str(device), "rbps=max wbps=max riops=max wiops=max").split()
        )
        for token in _TOKEN.findall(written, found.end()):
            key, equals, value = token.partition("=")
            values[key] = self._value(key, value) if equals else self._invalid()
        if set(values.values()) == {"max"}:
            lines.pop(str(device), None)
        else:
            lines[str(device)] = " ".join(f"{key}={value}" for key, value in values.items())
        return "".join(f"{device} {rest}\n" for device, rest in lines.items())

    def _value(self, key: str, value: str) -> str:
        # sscanf("%llu"): what follows the digits is not looked at, and what is too large goes round.
        digits = re.match(r"\d+", value, re.ASCII)
        if digits is None and value != "max":
            self._invalid()
        number = int(digits[0]) & U64_MAX if digits else U64_MAX
        if number == 0:
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
        if key not in {"rbps", "wbps", "riops", "wiops"} or number < self.smallest:
            self._invalid()
        most = U64_MAX if key.endswith("bps") else UINT_MAX
        return "max" if number >= most else str(number)

    def _invalid(self) -> NoReturn:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def _folder(self, cgroup: str) -> Path:
        return self.root / cgroup.strip("/")

    def _put(self, file: Path, text: str) -> None:
        new = self._beside / f"new-{uuid4()}"
        new.write_text(text)
        new.rename(file)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        # Given up by the kernel when the process is killed.
        lock = os.open(self._beside, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
