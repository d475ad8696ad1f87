"""Which block device a mount's reads and writes are throttled on.

io.max knows whole disks, device-mapper, md and loop devices by their own number and refuses partitions with ENODEV
(block/blk-cgroup.c). A limit stands on the topmost device, the one that the file system is on.
Sources: Documentation/ABI/stable/sysfs-block; /sys/dev/block/<major>:<minor>, /sys/class/block/<name>, /sys/fs/btrfs.
"""

from pathlib import Path
from typing import Final

from noisegate.enforcement.actions import Device
from noisegate.enforcement.kernel.errors import SYSFS, refusal
from noisegate.enforcement.kernel.mountinfo import Mount
from noisegate.enforcement.refusal import Refusal

_NETWORK: Final = "its reads and writes go over a network"
_PROCESS: Final = "a process reads and writes for it, and the kernel charges that process"
_MEMORY: Final = "it is kept in memory"
_HOST: Final = "its reads and writes go to the machine that this one runs on"

# Looked for before the device number: fuseblk has a disk's, but it is the FUSE daemon that uses the disk.
_UNTHROTTLED: Final = {
    "9p": _HOST,
    "afs": _NETWORK,
    "beegfs": _NETWORK,
    "ceph": _NETWORK,
    "cifs": _NETWORK,
    "fuse": _PROCESS,
    "fuseblk": _PROCESS,
    "gpfs": _NETWORK,
    "hugetlbfs": _MEMORY,
    "lustre": _NETWORK,
    "nfs": _NETWORK,
    "nfs4": _NETWORK,
    "overlay": "it is layers of other file systems",
    "ramfs": _MEMORY,
    "smb3": _NETWORK,
    "tmpfs": _MEMORY,
    "vboxsf": _HOST,
    "virtiofs": _HOST,
    "zfs": "ZFS reads and writes from threads of its own, and the kernel charges those",
}
_MEND: Final = "leave the volume out of blockio.kubernetes.io/resources, or take one on a local disk"


class Blocks:
    """The block devices of a node, as sysfs shows them.

    Args:
        sys: Where sysfs is mounted.
    """

    def __init__(self, sys: Path) -> None:
        self._sys: Final = sys

    def of_mount(self, mount: Mount, path: str) -> Device:
        """Return the device that is throttled for what lies on a mount.

        Args:
            mount: That the path lies on.
            path: For the message.

        Raises:
            Refusal: It has no local block device, more than one, or one that is not there.
        """
        why = _UNTHROTTLED.get(mount.fstype) or _UNTHROTTLED.get(mount.fstype.partition(".")[0])
        if why is not None:
            raise Refusal("VolumeNotThrottled", f"{path} is on {mount.fstype} and cannot be limited: {why}", _MEND)
        try:
            # Major 0 is an anonymous number, such as btrfs gives each subvolume: the source has to say it.
            device = mount.device if mount.device.major else self._of_source(mount, path)
            if mount.fstype == "btrfs":
                self._check_alone(device, path)
        except OSError as error:
            raise refusal(SYSFS, error.errno or 0, f"{mount.source}, where {path} is, cannot be looked up") from error
        return self.throttled(device)

    def throttled(self, device: Device) -> Device:
        """Return the device that is throttled for another: a partition's disk, any other itself.

        Raises:
            Refusal: It is not there.
        """
        entry = self._sys / "dev/block" / str(device)
        try:
            # The entry is a link to the device's folder; a partition's stands in its disk's.
            found = _number(entry / "../dev") if (entry / "partition").exists() else _number(entry / "dev")
        except OSError as error:
            raise refusal(SYSFS, error.errno or 0, f"block device {device} cannot be looked up") from error
        return found

    def name(self, device: Device) -> str:
        """Return the kernel's name of a device, such as `sda` or `dm-0`; its number where it is not there."""
        entry = self._sys / "dev/block" / str(device)
        return entry.resolve().name

    def _of_source(self, mount: Mount, path: str) -> Device:
        names = mount.source.split("/")[2:] if mount.source.startswith("/dev/") else []
        folder: Path | None = None
        if len(names) == 1:
            folder = self._sys / "class/block" / names[0]
        elif len(names) == 2:
            group, volume = names
            # LVM names its volumes for device-mapper so: a hyphen in a name is doubled (lvm(8), "Valid names").
            name = volume if group == "mapper" else "-".join(part.replace("-", "--") for part in names)
            folder = self._mapped(name)
        if folder is None:
            told = f"{path} is on {mount.fstype} without a local block device: its source is {mount.source!r}"
            raise Refusal("VolumeNotThrottled", told, _MEND)
        return _number(folder / "dev")

    def _mapped(self, name: str) -> Path | None:
        for entry in sorted((self._sys / "block").glob("dm-*/dm/name")):
            if entry.read_text().rstrip("\n") == name:
                return entry.parent.parent
        return None

    def _check_alone(self, device: Device, path: str) -> None:
        name = self.name(device)
        for devices in sorted((self._sys / "fs/btrfs").glob("*/devices")):
            names = sorted(entry.name for entry in devices.iterdir())
            if name in names and len(names) > 1:
                told = f"{path} is on btrfs over {len(names)} devices ({', '.join(names)}), and a limit stands on one"
                raise Refusal("VolumeNotThrottled", told, _MEND)


def _number(file: Path) -> Device:
    major, _, minor = file.read_text().strip().partition(":")
    return Device(int(major), int(minor))
