"""Limits in the cgroups of pods, on a tree of plain files that answers as the kernel does."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakecgroup import FakeCgroupTree

from noisegate.enforcement.actions import UNLIMITED, Device, IoLimits, SetIo
from noisegate.enforcement.kernel.cgroup import CgroupTree, ForeignCgroupError, check_own
from noisegate.enforcement.kernel.iofiles import IoCounters
from noisegate.enforcement.refusal import Refusal

UID = "0a1b2c3d-1111-4222-8333-444455556666"
SLICE = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0a1b2c3d_1111_4222_8333_444455556666.slice"
FOLDER = f"/kubepods/burstable/pod{UID}"
SDA, SDB = Device(8, 0), Device(8, 16)
LIMITS = IoLimits(8 << 20, 4 << 20, 2048, 1024)


@pytest.fixture
def tree(tmp_path: Path) -> FakeCgroupTree:
    """Return a tree with the pod's cgroup as both drivers make it."""
    tree = FakeCgroupTree(tmp_path / "cgroup", {SDA, SDB})
    tree.make(SLICE)
    tree.make(FOLDER)
    return tree


@pytest.mark.parametrize("cgroup", [SLICE, FOLDER])
def test_a_limit_is_written_and_read_back(tree: FakeCgroupTree, cgroup: str) -> None:
    """Under both drivers; a second device stands beside, and the last limit that is taken away leaves no line."""
    tree.write_io(SetIo(cgroup, SDA, LIMITS), UID)
    tree.write_io(SetIo(cgroup, SDB, IoLimits(wbps=1 << 20)), UID)
    assert tree.read_io(cgroup) == {SDA: LIMITS, SDB: IoLimits(wbps=1 << 20)}
    tree.write_io(SetIo(cgroup, SDA, IoLimits(rbps=1 << 20)), UID)
    assert tree.read_io(cgroup)[SDA] == IoLimits(rbps=1 << 20)
    tree.write_io(SetIo(cgroup, SDA, UNLIMITED), UID)
    tree.write_io(SetIo(cgroup, SDB, UNLIMITED), UID)
    assert tree.read_io(cgroup) == {}


@pytest.mark.parametrize(
    ("device", "limits", "reason", "errno_name"),
    [
        (Device(8, 1), LIMITS, "DeviceNotThrottled", "ENODEV"),
        (SDA, IoLimits(rbps=0), "LimitRefused", "ERANGE"),
        (SDA, IoLimits(riops=1), "LimitRefused", "EINVAL"),
    ],
)
def test_what_the_kernel_refuses(
    tree: FakeCgroupTree, device: Device, limits: IoLimits, reason: str, errno_name: str
) -> None:
    """A refusal with value, place and errno; nothing is changed."""
    tree.write_io(SetIo(SLICE, SDA, LIMITS), UID)
    before = tree.snapshot()
    with pytest.raises(
        Refusal, match=rf"^'{device} rbps=.*cannot be written into {SLICE}/io.max: .*\({errno_name}\)"
    ) as caught:
        tree.write_io(SetIo(SLICE, device, limits), UID)
    assert caught.value.reason == reason
    assert tree.snapshot() == before


def test_a_value_that_does_not_stand(tree: FakeCgroupTree) -> None:
    """What is read back otherwise than written is a refusal that shows both."""
    with pytest.raises(Refusal, match=r"says '8:0 rbps=max.*' after '8:0 .*riops=4294967295.*' was written") as caught:
        tree.write_io(SetIo(SLICE, SDA, IoLimits(riops=(1 << 32) - 1)), UID)
    assert caught.value.reason == "LimitNotHeld"


def test_a_cgroup_that_has_gone(tree: FakeCgroupTree) -> None:
    """Whatever is asked of it: a refusal that says so."""
    tree.remove(SLICE)
    for ask in (
        lambda: tree.read_io(SLICE),
        lambda: tree.write_io(SetIo(SLICE, SDA, LIMITS), UID),
        lambda: tree.identity(SLICE),
        lambda: tree.io_available(SLICE),
        lambda: tree.counters(SLICE),
    ):
        with pytest.raises(Refusal) as caught:
            ask()
        assert caught.value.reason == "CgroupGone"


class Leaving(FakeCgroupTree):
    """A tree whose pod ends just before a write: kernfs answers ENODEV for an open folder that was removed."""

    def _write(self, folder: int, name: str, data: bytes) -> None:  # noqa: ARG002  (nothing is written)
        self.remove(SLICE)
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def test_a_cgroup_that_goes_before_the_write(tmp_path: Path) -> None:
    """ENODEV is then no word about the device."""
    tree = Leaving(tmp_path / "cgroup", {SDA})
    tree.make(SLICE)
    with pytest.raises(Refusal, match=r"does not exist \(ENOENT\)") as caught:
        tree.write_io(SetIo(SLICE, SDA, LIMITS), UID)
    assert caught.value.reason == "CgroupGone"


def test_whether_anything_runs_in_it(tree: FakeCgroupTree) -> None:
    """As cgroup.events says; of a cgroup that has gone nobody knows."""
    assert not tree.populated(SLICE)
    tree.populate(SLICE)
    assert tree.populated(SLICE)
    tree.remove(SLICE)
    with pytest.raises(Refusal) as refused:
        tree.populated(SLICE)
    assert refused.value.reason == "CgroupGone"


def test_identity(tree: FakeCgroupTree) -> None:
    """It stays with the cgroup, and a cgroup made again under the same name has another."""
    before = tree.identity(SLICE)
    assert tree.identity(SLICE) == before == (tree.root / SLICE[1:]).stat().st_ino
    assert tree.identity(FOLDER) != before
    tree.remove(SLICE)
    tree.make(SLICE)
    assert tree.identity(SLICE) != before


def test_without_the_io_controller(tree: FakeCgroupTree) -> None:
    """It is told beforehand, and a limit is refused with the mend."""
    tree.make("/kubepods/podx", io=False)
    assert tree.io_available(SLICE)
    assert not tree.io_available("/kubepods/podx")
    for ask in (
        lambda: tree.read_io("/kubepods/podx"),
        lambda: tree.write_io(SetIo("/kubepods/podx", SDA, LIMITS), "x"),
    ):
        with pytest.raises(Refusal, match=r"add io to cgroup\.subtree_control") as caught:
            ask()
        assert caught.value.reason == "IoControllerMissing"


def test_counters(tree: FakeCgroupTree) -> None:
    """What io.stat says, by device."""
    assert tree.counters(SLICE) == {}
    tree.charge(SLICE, {SDA: IoCounters(1, 2, 3, 4), SDB: IoCounters(5, 6, 7, 8)})
    assert tree.counters(SLICE) == {SDA: IoCounters(1, 2, 3, 4), SDB: IoCounters(5, 6, 7, 8)}


@pytest.mark.parametrize("cgroup", [
    SLICE, FOLDER,
    f"/kubepods/pod{UID}",
    f"/kubepods/besteffort/pod{UID}",
    f"/kubelet/kubepods/burstable/pod{UID}",
    f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice",
    f"/system.slice/k.service/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID.replace('-', '_')}.slice",
])  # fmt: skip
def test_the_pods_own_cgroup(cgroup: str) -> None:
    """Both drivers, every QoS class, below a cgroup root of the kubelet's."""
    check_own(cgroup, UID)


UNDERSCORED = UID.replace("-", "_")


@pytest.mark.parametrize("cgroup", [
    "", "/", "//", ".", "/.", "kubepods/x", "/kubepods", "/kubepods/burstable", "/kubepods.slice", "/system.slice",
    "/kubepods.slice/kubepods-burstable.slice",
    FOLDER + "/", FOLDER + "/container", FOLDER + "/..", FOLDER[1:], "/" + FOLDER, FOLDER + "\0",
    f"/kubepods/../kubepods/pod{UID}", f"/kubepods/./pod{UID}",
    f"/pod{UID}", f"/kubepods/other/pod{UID}", f"/user/pod{UID}", f"/kubepods/burstable/guaranteed/pod{UID}",
    f"/kubepods/pod{UID}x", f"/kubepods/pod{UNDERSCORED}", f"/kubepods/{UID}", "/kubepods/pod",
    SLICE + "/cri-containerd-1.scope", SLICE.removesuffix(".slice"),
    f"/kubepods-burstable-pod{UNDERSCORED}.slice", f"/kubepods.slice/kubepods-burstable-pod{UNDERSCORED}.slice",
    f"/user.slice/kubepods-pod{UNDERSCORED}.slice", f"/kubepods.slice/user-pod{UNDERSCORED}.slice",
    f"/user.slice/user-pod{UNDERSCORED}.slice", f"/kubepods.slice/kubepods-pod{UID}.slice",
    f"/burstable.slice/burstable-pod{UNDERSCORED}.slice", f"/.slice/-pod{UNDERSCORED}.slice", "/kubepods.slice/kubepods-pod.slice",
    f"/kubepods.slice/kubepods-x.slice/kubepods-x-pod{UNDERSCORED}.slice",
    SLICE.replace("0a1b", "0a1c"),
])  # fmt: skip
def test_any_other_cgroup_is_refused(tree: FakeCgroupTree, cgroup: str) -> None:
    """Root, QoS groups, containers, other pods, look-alikes: refused, and no file has changed."""
    before = tree.snapshot()
    with pytest.raises(ForeignCgroupError) as caught:
        tree.write_io(SetIo(cgroup, SDA, LIMITS), UID)
    assert repr(cgroup) in caught.value.told
    assert tree.snapshot() == before


@pytest.mark.parametrize("uid", ["", "-", "a/b", "..", "a_b", "a--b", "a b", "é"])
def test_a_uid_that_is_none(uid: str) -> None:
    """Nothing is the cgroup of such a pod."""
    with pytest.raises(ForeignCgroupError, match="is no uid"):
        check_own(f"/kubepods/pod{uid.replace('/', '_')}", uid)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_link_on_the_way_is_not_followed(tree: FakeCgroupTree, depth: int) -> None:
    """Wherever on the way a folder was swapped for a link to another cgroup: refused, the other is untouched."""
    tree.make("/victim/burstable/" + FOLDER.rsplit("/", 1)[1])
    name = Path(*FOLDER.split("/")[1 : 1 + depth])
    (tree.root / name).rename(tree.root / "away")
    (tree.root / name).symlink_to(tree.root / Path("victim", *name.parts[1:]))
    before = tree.snapshot()
    with pytest.raises(Refusal, match="a symbolic link") as caught:
        tree.write_io(SetIo(FOLDER, SDA, LIMITS), UID)
    assert caught.value.reason == "CgroupForeign"
    assert tree.snapshot() == before


def test_a_file_that_is_a_link_is_not_followed(tree: FakeCgroupTree) -> None:
    """io.max itself neither."""
    victim = tree.make("/victim")
    file = tree.root / FOLDER[1:] / "io.max"
    file.unlink()
    file.symlink_to(victim / "io.max")
    with pytest.raises(Refusal, match="ELOOP"):
        tree.write_io(SetIo(FOLDER, SDA, LIMITS), UID)
    assert (victim / "io.max").read_text() == ""


def test_one_write_without_truncation(tmp_path: Path) -> None:
    """The production tree gives the kernel its line in one write at offset 0, and neither makes nor cuts a file."""
    tree = CgroupTree(tmp_path)
    folder = tmp_path / SLICE[1:]
    folder.mkdir(parents=True)
    with pytest.raises(Refusal) as caught:
        tree.write_io(SetIo(SLICE, SDA, LIMITS), UID)
    assert caught.value.reason == "IoControllerMissing"
    assert list(folder.iterdir()) == []
    text = "8:0 rbps=8388608 wbps=4194304 riops=2048 wiops=1024"
    (folder / "io.max").write_text("x" * len(text) + "\n8:16 rbps=1 wbps=max riops=max wiops=max\n")
    tree.write_io(SetIo(SLICE, SDA, LIMITS), UID)
    assert (folder / "io.max").read_text() == f"{text}\n8:16 rbps=1 wbps=max riops=max wiops=max\n"


def write(tree: FakeCgroupTree, text: str) -> int:
    """Write a text into the pod's io.max as somebody else does; return the errno, 0 where it went."""
    folder = os.open(tree.root / SLICE[1:], os.O_PATH)
    try:
        tree._write(folder, "io.max", text.encode())
    except OSError as error:
        return error.errno or -1
    finally:
        os.close(folder)
    return 0


def test_the_fake_answers_as_the_kernel(tree: FakeCgroupTree) -> None:
    """Row by row what tg_set_limit does with a text."""
    io_max = tree.root / SLICE[1:] / "io.max"
    for text, number, stands in (
        ("8:0 rbps=1048576 wiops=120", 0, "8:0 rbps=1048576 wbps=max riops=max wiops=120\n"),
        ("8:0 wbps=2097152\n", 0, "8:0 rbps=1048576 wbps=2097152 riops=max wiops=120\n"),
        ("8:0 rbps=0 wbps=5", errno.ERANGE, None),
        ("8:0 rbps=1", errno.EINVAL, None),
        ("8:0 rbps=5 8:16 rbps=5", errno.EINVAL, None),
        ("8:0 rbps=5\n8:16 rbps=5", errno.EINVAL, None),
        ("8:0 idle=5", errno.EINVAL, None),
        ("8:0 rbps=fast", errno.EINVAL, None),
        ("8:0 rbps=", errno.EINVAL, None),
        ("8:0", errno.EINVAL, None),
        ("", errno.EINVAL, None),
        ("sda rbps=5", errno.EINVAL, None),
        ("8:0rbps=5", errno.EINVAL, None),
        ("8:1 rbps=5", errno.ENODEV, None),
        ("8:1 junk", errno.ENODEV, None),
        ("8:0 rbps=1M", errno.EINVAL, None),
        ("8:0 rbps=7M", 0, "8:0 rbps=7 wbps=2097152 riops=max wiops=120\n"),
        ("8:0 rbps=18446744073709551615 riops=4294967294", 0, "8:0 rbps=max wbps=2097152 riops=4294967294 wiops=120\n"),
        ("8:0 rbps=18446744073709551616", errno.ERANGE, None),
        ("8:0 rbps=max wbps=max riops=99999999999 wiops=max", 0, ""),
    ):
        before = io_max.read_text()
        assert write(tree, text) == number, text
        assert io_max.read_text() == (before if stands is None else stands), text
    FakeCgroupTree(tree.root, {SDA}, smallest=1).foreign(SLICE, SDA, IoLimits(rbps=1))
    tree.foreign(SLICE, SDB, IoLimits(rbps=9))
    tree.unplug(SDA)
    assert tree.read_io(SLICE) == {SDB: IoLimits(rbps=9)}
    assert write(tree, "8:0 rbps=5") == errno.ENODEV


KILLED = """
    from pathlib import Path
    from fakecgroup import FakeCgroupTree
    from noisegate.enforcement.actions import Device, IoLimits, SetIo
    tree = FakeCgroupTree(Path({root!r}), {{Device(8, 0), Device(8, 16)}})
    print(flush=True)
    for value in range(10, 10**9):
        for minor in (0, 16):
            tree.write_io(SetIo({cgroup!r}, Device(8, minor), IoLimits(value, value, value, value)), {uid!r})
"""


def test_a_killed_writer_leaves_a_state_that_the_kernel_could_have(tree: FakeCgroupTree) -> None:
    """After kill -9 in the midst of writes: each line is the old one or the new one, and the tree has no other file."""
    files = tree.snapshot().keys()
    program = textwrap.dedent(KILLED.format(root=str(tree.root), cgroup=SLICE, uid=UID))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE) as writer:  # noqa: S603
            assert writer.stdout is not None
            writer.stdout.readline()
            while not tree.read_io(SLICE):
                assert writer.poll() is None
            writer.send_signal(signal.SIGKILL)
        assert tree.snapshot().keys() == files
        stands = tree.read_io(SLICE)
        first, second = (stands.get(device, UNLIMITED) for device in (SDA, SDB))
        assert len(set(first)) == 1
        assert len(set(second)) == 1
        assert (first.rbps or 0) - (second.rbps or 9) in {0, 1}
        tree.write_io(SetIo(SLICE, SDA, UNLIMITED), UID)
        tree.write_io(SetIo(SLICE, SDB, UNLIMITED), UID)


@pytest.mark.parametrize("name", ["{}", "cri-containerd-{}.scope", "crio-{}.scope"])
def test_the_threads_of_a_container(tree: FakeCgroupTree, name: str) -> None:
    """Its group's and those of groups below, each once, under every name that runtimes give it; not its neighbour's."""
    mine, other = "a" * 64, "b" * 64
    groups = {name.format(mine): "7\n5\n", f"{name.format(mine)}/init.scope": "6\n5\n", name.format(other): "8\n"}
    for group, threads in groups.items():
        (tree.root / SLICE[1:] / group).mkdir()
        (tree.root / SLICE[1:] / group / "cgroup.threads").write_text(threads)
    assert tree.threads(SLICE, mine) == [5, 6, 7]
    assert tree.threads(SLICE, "c" * 64) == []


def test_the_threads_of_a_container_that_ends(tree: FakeCgroupTree) -> None:
    """Its groups go while they are looked through: nothing is raised, whichever of them were there."""
    group = tree.root / SLICE[1:] / ("a" * 64)

    def come_and_go() -> None:
        for _ in range(300):
            (group / "init.scope" / "below").mkdir(parents=True)
            shutil.rmtree(group)

    with ThreadPoolExecutor(1) as other:
        done = other.submit(come_and_go)
        while not done.done():
            assert tree.threads(SLICE, "a" * 64) == []
        done.result()
