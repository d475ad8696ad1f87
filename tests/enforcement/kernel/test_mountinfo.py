"""Which mount a path lies on, by the text of mountinfo."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisegate.enforcement.actions import Device
from noisegate.enforcement.kernel.mountinfo import (
    MOST_LINKS,
    Mount,
    Mounts,
    Tree,
    below,
    holding,
    links,
    parse,
    resolved,
)
from noisegate.enforcement.refusal import Refusal

NODE = r"""22 27 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
60 27 253:0 / /var/lib/kubelet rw,relatime shared:20 - xfs /dev/mapper/vg-kubelet rw
71 60 8:17 / /var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/pv-1/mount rw shared:3 master:9 - ext4 /dev/sdb1 rw
72 60 0:52 / /var/lib/kubelet/pods/u/volumes/kubernetes.io~nfs/n rw - nfs4 server:/export\040one rw,addr=10.0.0.2
73 60 0:53 /sub /srv/with\040blank\134and\011tab ro unbindable - tmpfs  rw
"""
# Made by mount(8), in a namespace of its own: two mounts at one point, and one that was covered afterwards.
STACKED = """
set -e
cd "$1"; mkdir -p a/b 'blank tab	x'
mount -t tmpfs inner a/b
mount -t tmpfs first a; mkdir a/b
mount -t tmpfs second a; mkdir a/b
mount -t tmpfs odd 'blank tab	x'
cat /proc/self/mountinfo
"""


def at(path: str, text: str = NODE) -> str:
    """Return the source of the mount that a path lies on."""
    mount = holding(parse(text), path)
    assert mount is not None
    return mount.source


def test_a_line_is_read_whole() -> None:
    """Fields by their places, escapes taken back, any number of optional fields, an empty source."""
    mounts = parse(NODE)
    assert len(mounts) == 6
    assert mounts[1] == Mount(27, 1, Device(8, 1), "/", "/", "ext4", "/dev/sda1")
    assert mounts[4].source == "server:/export one"
    assert mounts[5] == Mount(73, 60, Device(0, 53), "/sub", "/srv/with blank\\and\ttab", "tmpfs", "")


@pytest.mark.parametrize(
    "line", ["x", "1 2 3 / / rw - ext4 /dev/sda rw", "1 2 8:1 / / rw shared:1 ext4 /dev/sda rw", "- " * 9]
)
def test_another_text(line: str) -> None:
    """A line that is none of mountinfo is refused and shown."""
    with pytest.raises(ValueError, match="not a line of mountinfo"):
        parse(line)


def test_the_nearest_mount_below() -> None:
    """A path lies on the deepest mount that covers it by whole names."""
    pods = "/var/lib/kubelet/pods/u/volumes"
    assert at("/") == at("/var/lib/kubelet2/x") == at("/var/lib") == "/dev/sda1"
    assert at("/var/lib/kubelet") == at(f"{pods}/kubernetes.io~empty-dir/scratch") == "/dev/mapper/vg-kubelet"
    assert at(f"{pods}/kubernetes.io~csi/pv-1/mount/sub/path") == "/dev/sdb1"
    assert at(f"{pods}/kubernetes.io~csi/pv-1/mountain") == "/dev/mapper/vg-kubelet"


def test_what_is_mounted_over_covers_what_was_there() -> None:
    """The last mount at a point counts, and one whose point was covered later is not reached any more."""
    stacked = (
        "27 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 27 8:2 / /a/b rw - ext4 hidden rw\n31 27 8:3 / /a rw - ext4 first rw\n"
        "32 31 8:4 / /a rw - ext4 second rw\n33 31 8:5 / /a/c rw - ext4 hiddentoo rw\n"
    )
    assert at("/a/b", stacked) == at("/a/c", stacked) == at("/a", stacked) == "second"
    assert at("/b", stacked) == "/dev/sda1"
    beside = "27 1 8:1 / / rw - ext4 root rw\n31 27 8:3 / /a rw - ext4 first rw\n32 27 8:4 / /a rw - ext4 second rw\n"
    assert at("/a/b", beside) == "second"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_stacked_mounts_of_this_kernel(tmp_path: Path) -> None:
    """What the kernel lists after mounting over mounts is read as it acts: only the topmost one is reached."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", STACKED, "sh", str(tmp_path)]
    text = os.fsdecode(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)  # noqa: S603
    assert at(f"{tmp_path}/a/b/file", text) == at(f"{tmp_path}/a", text) == "second"
    assert at(f"{tmp_path}/blank tab\tx/file", text) == "odd"
    assert at(str(tmp_path), text) not in {"first", "second", "inner", "odd"}


def test_a_root_that_is_no_mount() -> None:
    """In a chroot that is no mount point, the mounts above are not listed: a path may lie on none."""
    mounts = parse("40 27 8:2 / /data rw - ext4 /dev/sdb rw\n41 40 8:3 / /data/x rw - ext4 /dev/sdc rw\n")
    assert holding(mounts, "/etc") is None
    assert (
        at("/data/x/y", "40 27 8:2 / /data rw - ext4 /dev/sdb rw\n41 40 8:3 / /data/x rw - ext4 /dev/sdc rw\n")
        == "/dev/sdc"
    )


@pytest.mark.parametrize("path", ["", "a", "/a/../b", "/./a", "../a"])
def test_only_absolute_plain_paths(path: str) -> None:
    """A path that means another place than it says is the caller's fault."""
    with pytest.raises(ValueError, match="not an absolute"):
        holding((), path)
    if not path.startswith("/"):
        with pytest.raises(ValueError, match="not an absolute"):
            resolved((), path, lambda _: None)


def test_the_own_table() -> None:
    """The running kernel's table is read; / lies on a mount at /."""
    mount = holding(Mounts()(), "/")
    assert mount is not None
    assert mount.point == "/"


def test_a_process_that_has_ended(tmp_path: Path) -> None:
    """Without its table, it is a refusal that names the file."""
    with pytest.raises(Refusal, match=r"17/mountinfo cannot be read: .*\(ENOENT\)"):
        Mounts(tmp_path / "17/mountinfo")()


def test_symbolic_links_of_the_tree(tmp_path: Path) -> None:
    """Relative and absolute links are followed within the tree, `..` included; what is not there stays as written."""
    (tmp_path / "data/kubelet").mkdir(parents=True)
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/kubelet").symlink_to("/data/kubelet")
    (tmp_path / "data/up").symlink_to("../var/./lib")
    mounts = parse(NODE)[:2]
    for path, meant in (
        ("/var/lib/kubelet/pods/x", "/data/kubelet/pods/x"),
        ("/data/up/kubelet//pods", "/data/kubelet/pods"),
        ("/nowhere/../a/./b/", "/a/b"),
        ("/../..", "/"),
    ):
        assert resolved(mounts, path, links(tmp_path)) == meant


def test_mounts_below_a_folder() -> None:
    """They are seen as the tree below it has them; a folder of a similar name is another."""
    points = ["/", "/host", "/host/a", "/hosts"]
    mounts = [Mount(number, 0, Device(8, 0), "/", point, "ext4", "x") for number, point in enumerate(points)]
    assert [one.point for one in below(mounts, "/host")] == ["/", "/a"]
    assert [one.point for one in below(mounts, "/")] == points


def test_a_tree_is_seen_below_its_root(tmp_path: Path) -> None:
    """What lies where is told by its own links and mounts, also those that come later."""
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("/run")
    mounts = [Mount(1, 0, Device(8, 0), "/", str(tmp_path), "ext4", "root")]
    tree = Tree(lambda: mounts, tmp_path)
    assert (tree.seen("/var/run/x"), tree.holding("/var/run/x")) == (f"{tmp_path}/run/x", mounts[0]._replace(point="/"))
    mounts.append(Mount(2, 1, Device(0, 9), "/", f"{tmp_path}/run", "tmpfs", "run"))
    assert tree.holding("/var/run/x") == mounts[1]._replace(point="/run")
    assert Tree(lambda: parse(NODE)).seen("/nowhere/./x") == "/nowhere/x"


def test_a_circle_of_links(tmp_path: Path) -> None:
    """It is refused as the kernel refuses it."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(Refusal, match="ELOOP"):
        resolved(parse(NODE), "/a/x", links(tmp_path))


def test_a_file_system_that_may_hang_is_not_touched() -> None:
    """No name below a network mount is asked for, nor any mount point; those above are."""
    asked: list[str] = []
    volume = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~nfs/n"
    assert resolved(parse(NODE), f"{volume}/sub/dir/../x", asked.append) == f"{volume}/sub/x"
    assert "/var/lib" in asked
    assert "/var/lib/kubelet" not in asked
    assert not [path for path in asked if path.startswith(volume)]


def test_a_link_that_may_not_be_read(tmp_path: Path) -> None:
    """Another error than that there is no link is a refusal: the path's disk is unknown then."""
    with pytest.raises(Refusal, match="ENAMETOOLONG"):
        links(tmp_path)("/" + "a" * 300)


names = st.sampled_from(["a", "b", "c"])
paths = st.lists(names, max_size=4).map(lambda parts: "/" + "/".join(parts))
tables = st.lists(
    st.builds(
        Mount,
        st.integers(1, 6),
        st.integers(1, 6),
        st.builds(Device, st.integers(0, 2), st.integers(0, 2)),
        st.just("/"),
        paths,
        st.sampled_from(["ext4", "nfs", "overlay"]),
        st.just("x"),
    ),
    max_size=8,
)


@given(tables, paths)
def test_any_table_gives_a_mount_that_covers(mounts: list[Mount], path: str) -> None:
    """Whatever the table says, circles included, the answer is one of its mounts that covers the path, or none."""
    mount = holding(mounts, path)
    if mount is not None:
        assert mount in mounts
        assert f"{path}/".startswith(mount.point.rstrip("/") + "/")


@given(tables, paths, st.dictionaries(paths, st.lists(st.sampled_from(["a", "b", "..", ".", ""])).map("/".join)))
def test_any_links_end(mounts: list[Mount], path: str, targets: dict[str, str]) -> None:
    """Whatever links there are, a path is resolved to a plain one, or refused; after at most 40 links."""
    followed: list[str] = []

    def readlink(path: str) -> str | None:
        followed.extend([path] * (path in targets))
        return targets.get(path)

    try:
        result = resolved(mounts, path, readlink)
    except Refusal:
        assert len(followed) == MOST_LINKS + 1
    else:
        assert resolved(mounts, result, lambda _: None) == result
        assert len(followed) <= MOST_LINKS


@given(st.text(alphabet=st.characters(exclude_characters="\0/"), min_size=1, max_size=6))
def test_any_name_is_read_back(name: str) -> None:
    """A name written as the kernel writes it is read as it was."""
    written = "".join(f"\\{ord(char):03o}" if char in " \t\n\\#" else char for char in name)
    (mount,) = parse(f"1 0 8:1 /{written} /{written} rw - ext4 /dev/{written} rw\n")
    assert (mount.root, mount.point, mount.source) == (f"/{name}", f"/{name}", f"/dev/{name}")


CHANGING = """
import subprocess, sys
from noisegate.enforcement.kernel.mountinfo import Mounts

mounts, folder = Mounts(), sys.argv[1]
before = mounts()
assert mounts() is before, "nothing has changed"
for turn in range(3):
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    there = mounts()
    assert any(mount.point == folder for mount in there), turn
    assert mounts() is there, turn
    subprocess.run(["umount", folder], check=True)
    assert mounts() == before, turn
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace")
def test_mounts_are_read_anew_when_they_have_changed(tmp_path: Path) -> None:
    """Each mount and each end of one is seen at once, and while there is none nothing is read."""
    unshare = shutil.which("unshare") or pytest.skip("needs unshare")
    command = [unshare, "--mount", "--propagation", "private", sys.executable, "-c", CHANGING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])  # noqa: S603
    assert done.returncode == 0, done.stderr
