"""From a mount to the device that is throttled."""

from pathlib import Path

import pytest

from noisegate.enforcement.actions import Device
from noisegate.enforcement.kernel.blocks import Blocks
from noisegate.enforcement.kernel.mountinfo import Mount, Mounts
from noisegate.enforcement.refusal import Refusal

SDA, SDA1, NVME, NVME_P2 = Device(8, 0), Device(8, 1), Device(259, 0), Device(259, 2)
ROOT_LV, DATA_LV, MD, LOOP = Device(253, 0), Device(253, 1), Device(9, 127), Device(7, 0)
ANONYMOUS = Device(0, 40)

DEVICES = {
    "pci0000:00/ata1/block/sda": SDA,
    "pci0000:00/ata1/block/sda/sda1": SDA1,
    "pci0000:00/nvme/nvme0/nvme0n1": NVME,
    "pci0000:00/nvme/nvme0/nvme0n1/nvme0n1p2": NVME_P2,
    "virtual/block/dm-0": ROOT_LV,
    "virtual/block/dm-1": DATA_LV,
    "virtual/block/md127": MD,
    "virtual/block/loop0": LOOP,
}
"""As a node has them: folder below /sys/devices, by the layout of Documentation/ABI/stable/sysfs-block."""


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    """Return a sysfs with those devices."""
    for name in ("dev/block", "class/block", "block", "fs/btrfs"):
        (tmp_path / name).mkdir(parents=True)
    for place, device in DEVICES.items():
        folder = tmp_path / "devices" / place
        folder.mkdir(parents=True)
        (folder / "dev").write_text(f"{device}\n")
        links = [tmp_path / "dev/block" / str(device), tmp_path / "class/block" / folder.name]
        if device in {SDA1, NVME_P2}:
            (folder / "partition").write_text(f"{device.minor}\n")
        else:
            links.append(tmp_path / "block" / folder.name)
        for link in links:
            link.symlink_to(folder)
    for dm, mapped in (("dm-0", "vg--one-root"), ("dm-1", "vg--one-my--data")):
        (tmp_path / "block" / dm / "dm").mkdir()
        (tmp_path / "block" / dm / "dm/name").write_text(mapped + "\n")
    return tmp_path


def mounted(fstype: str, source: str, device: Device = ANONYMOUS) -> Mount:
    """Return a mount of a file system."""
    return Mount(1, 0, device, "/", "/mnt", fstype, source)


@pytest.mark.parametrize(
    ("device", "throttled"),
    [(SDA, SDA), (SDA1, SDA), (NVME_P2, NVME), (ROOT_LV, ROOT_LV), (MD, MD), (LOOP, LOOP)],
    ids=str,
)
def test_the_throttled_device(sys: Path, device: Device, throttled: Device) -> None:
    """A partition's is its disk; whole disks, device-mapper, md and loop devices are their own."""
    blocks = Blocks(sys)
    assert blocks.throttled(device) == throttled
    assert blocks.of_mount(mounted("ext4", "/dev/whatever", device), "/mnt/x") == throttled


def test_a_device_that_has_vanished(sys: Path) -> None:
    """It is refused by its number: the mount outlives the disk."""
    with pytest.raises(Refusal, match=r"block device 8:16 cannot be looked up: .*\(ENOENT\)") as caught:
        Blocks(sys).of_mount(mounted("xfs", "/dev/sdb", Device(8, 16)), "/mnt/x")
    assert caught.value.reason == "DeviceGone"
    assert Blocks(sys).name(Device(8, 16)) == "8:16"


@pytest.mark.parametrize(
    ("source", "throttled"),
    [
        ("/dev/sda1", SDA),
        ("/dev/nvme0n1p2", NVME),
        ("/dev/dm-1", DATA_LV),
        ("/dev/mapper/vg--one-root", ROOT_LV),
        ("/dev/vg-one/my-data", DATA_LV),
        ("/dev/loop0", LOOP),
    ],
)
def test_an_anonymous_number_goes_by_the_source(sys: Path, source: str, throttled: Device) -> None:
    """The source of btrfs names the device, as the kernel, device-mapper or LVM calls it."""
    assert Blocks(sys).of_mount(mounted("btrfs", source), "/mnt/x") == throttled


@pytest.mark.parametrize("source", ["/dev/sdz", "/dev/sdz1"])
def test_a_source_that_has_vanished(sys: Path, source: str) -> None:
    """The message names source and path."""
    with pytest.raises(Refusal, match=f"{source}, where /mnt/x is, cannot be looked up") as caught:
        Blocks(sys).of_mount(mounted("btrfs", source), "/mnt/x")
    assert caught.value.reason == "DeviceGone"


@pytest.mark.parametrize(
    "source", ["none", "", "/dev/root/a/b", "/dev/mapper/no-such", "/dev/vg/none", "server:/x", "UUID=1"]
)
def test_a_source_that_names_no_device(sys: Path, source: str) -> None:
    """It is refused with what stands there."""
    with pytest.raises(Refusal, match="without a local block device") as caught:
        Blocks(sys).of_mount(mounted("btrfs", source), "/mnt/x")
    assert repr(source) in caught.value.told
    assert caught.value.reason == "VolumeNotThrottled"


@pytest.mark.parametrize(
    ("fstype", "source", "device"),
    [
        ("nfs4", "server:/export", Device(0, 50)),
        ("nfs", "server:/export", Device(0, 50)),
        ("ceph", "10.0.0.1:6789:/", Device(0, 51)),
        ("cifs", "//server/share", Device(0, 52)),
        ("fuse.glusterfs", "server:volume", Device(0, 53)),
        ("fuse.sshfs", "host:/", Device(0, 54)),
        ("fuseblk", "/dev/sda1", SDA1),
        ("tmpfs", "tmpfs", Device(0, 55)),
        ("hugetlbfs", "none", Device(0, 56)),
        ("9p", "share", Device(0, 57)),
        ("virtiofs", "share", Device(0, 58)),
        ("zfs", "tank/data", Device(0, 59)),
        ("overlay", "overlay", Device(0, 60)),
    ],
)
def test_what_cannot_be_limited(sys: Path, fstype: str, source: str, device: Device) -> None:
    """Path, type, reason and mend are told; FUSE on a disk too, where the daemon uses the disk."""
    with pytest.raises(Refusal, match=f"^/mnt/x is on {fstype} and cannot be limited: ") as caught:
        Blocks(sys).of_mount(mounted(fstype, source, device), "/mnt/x")
    assert caught.value.reason == "VolumeNotThrottled"
    assert "local disk" in caught.value.mend


def test_btrfs_over_one_device_and_over_two(sys: Path) -> None:
    """Two devices have no limit together; another file system's devices do not matter."""
    for uuid, names in (("1111", ["sda1"]), ("2222", ["dm-1", "nvme0n1p2"])):
        (sys / "fs/btrfs" / uuid / "devices").mkdir(parents=True)
        for name in names:
            (sys / "fs/btrfs" / uuid / "devices" / name).symlink_to(sys / "class/block" / name)
    (sys / "fs/btrfs/features").mkdir()
    blocks = Blocks(sys)
    assert blocks.of_mount(mounted("btrfs", "/dev/sda1"), "/mnt/x") == SDA
    with pytest.raises(Refusal, match=r"btrfs over 2 devices \(dm-1, nvme0n1p2\)"):
        blocks.of_mount(mounted("btrfs", "/dev/nvme0n1p2"), "/mnt/x")


def test_the_disks_of_this_machine() -> None:
    """Whatever block devices the running kernel shows: a disk is its own, a partition's is not itself."""
    blocks = Blocks(Path("/sys"))
    for entry in Path("/sys/dev/block").iterdir():
        major, minor = map(int, entry.name.split(":"))
        device = Device(major, minor)
        assert (blocks.throttled(device) == device) is not (entry / "partition").exists()
        assert blocks.name(device) == entry.resolve().name


def test_the_mounts_of_this_machine() -> None:
    """Every mount that the running kernel shows has a device that it shows too, or is refused with a sentence."""
    blocks = Blocks(Path("/sys"))
    told = []
    for mount in Mounts()():
        try:
            device = blocks.of_mount(mount, mount.point)
        except Refusal as refusal:
            told.append((mount, refusal.told))
        else:
            assert (Path("/sys/dev/block") / str(device)).exists()
    assert told
    assert all(mount.point in text or str(mount.device) in text for mount, text in told)
