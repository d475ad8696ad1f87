"""A node's namespaces: what runs in them cannot touch the machine, and ends with them however a test ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from containerd import Containerd, Node
from containerd.cgroups import Cgroups, hierarchies
from machine import changed, look

pytestmark = pytest.mark.runtime

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("containerd")
def test_nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A node that is left with a pod running takes every process and cgroup with it, and the machine is as before."""
    before = look()
    with Node(tmp_path_factory.mktemp("node")) as node:
        with Containerd(node) as containerd:
            pod = containerd.cri.run_pod()
            containerd.cri.run(pod)
        folders = [one.mount / node.cgroups.name for one in node.cgroups.hierarchies]
        assert folders
        assert all(folder.is_dir() for folder in folders)
        # containerd is gone; shim, pause and the container are not.
        processes = node.cgroups.processes()
        assert len(processes) >= 3
    assert not [folder for folder in folders if folder.exists()]
    assert not [pid for pid in processes if Path("/proc", str(pid)).exists()]
    assert changed(before, look()) == []


KILLED = """
import sys, time
from pathlib import Path
from containerd import Containerd, Node
with Node(Path(sys.argv[1])) as node, Containerd(node) as containerd:
    containerd.cri.run(containerd.cri.run_pod())
    print(node.cgroups.name, flush=True)
    time.sleep(600)
"""


@pytest.mark.usefixtures("containerd")
def test_a_killed_test_leaves_no_process(tmp_path_factory: pytest.TempPathFactory) -> None:
    """When the process that made a node is killed, all that ran in it ends; its empty cgroups go when the next node comes."""
    victim = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path_factory.mktemp("node"))],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests/support")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert victim.stdout is not None
    name = victim.stdout.readline().strip()
    folders = [one.mount / name for one in hierarchies(Path("/proc/self/mountinfo").read_text())]
    lived = [path for folder in folders for path in folder.rglob("cgroup.procs") if path.read_text()]
    victim.send_signal(signal.SIGKILL)
    victim.communicate()

    assert lived
    end = time.monotonic() + 20
    while any(path.exists() and path.read_text() for path in lived):
        assert time.monotonic() < end, "processes go on running"
        time.sleep(0.02)
    with Node(tmp_path_factory.mktemp("node")):
        assert not [folder for folder in folders if folder.exists()]


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("without", "why"),
    [
        (["unshare", "--user"], "tier runtime: root is needed"),
        (["setpriv", "--bounding-set=-sys_admin"], "tier runtime: namespaces of our own cannot be made: unshare: "),
    ],
)
@pytest.mark.parametrize(("required", "outcome"), [("", "1 skipped"), ("apiserver,runtime", "1 error")])
def test_where_it_cannot_be_had(tmp_path: Path, without: list[str], why: str, required: str, outcome: str) -> None:
    """Without root, and without the right to make namespaces, the tier is skipped by name, or fails where it is required."""
    before = look()
    one = "tests/runtime/test_containerd.py::test_a_pod_runs_its_container"
    pytest_ = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'base'}", one]
    done = subprocess.run(
        [*without, *pytest_],
        cwd=ROOT,
        env={**os.environ, "NOISEGATE_REQUIRE_TIERS": required, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout.splitlines()[-1], done.stdout
    assert why in done.stdout
    assert changed(before, look()) == []


def test_a_node_is_alone(node: Node) -> None:
    """In a node there is no process of the machine, no interface but `lo`, and its own cgroup is the root of all."""
    processes = node.run("sh", "-c", "ls /proc | grep '^[0-9]'").split()
    assert 1 in map(int, processes)
    assert len(processes) < 6
    assert node.run("ls", "/sys/class/net") == "lo\n"
    assert "/../" not in node.run("cat", "/proc/1/cgroup")
    made = node.root / "sys/fs/cgroup" / node.cgroups.hierarchies[0].mount.relative_to("/sys/fs/cgroup") / "mine"
    made.mkdir()
    assert (node.cgroups.hierarchies[0].mount / node.cgroups.name / "mine").is_dir()


def test_cgroups_of_a_test_that_runs_are_not_swept(node: Node) -> None:
    """Cgroups that are made and removed leave those of another node as they are."""
    other = Cgroups()
    other.create()
    other.remove()
    assert all((one.mount / node.cgroups.name).is_dir() for one in node.cgroups.hierarchies)


CHANGE = """
import subprocess, sys
from pathlib import Path
from machine import changed, look
before = look()
Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
subprocess.run([sys.argv[1], "ip", "link", "set", "lo", "mtu", "1400"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=True)
for path in Path("/sys/fs/cgroup").rglob("runtime/pids.max"):
    path.write_text("1000")
print("\\n".join(changed(before, look())))
"""


def test_what_is_changed_is_seen(node: Node) -> None:
    """A sysctl, an interface, a mount and a limit that are changed, in a node's own, are found."""
    support = f"PYTHONPATH={ROOT / 'tests/support'}"
    found = node.run("env", support, sys.executable, "-c", CHANGE, str(node.busybox)).splitlines()
    for told in ("/runtime/pids.max: max", "interface lo/mtu: 65536", "/mnt rw", "sysctl net/ipv4/ip_forward: 0"):
        assert [line for line in found if told in line], (told, found)


def test_what_changed_is_told() -> None:
    """A sysctl, an interface or a limit that differs is named with both values; a cgroup that came or went is not ours."""
    before = {"sysctl net/x": "0", "cgroup /a/cpu.max": "1", "cgroup /gone/cpu.max": "1", "interface lo/mtu": "1"}
    after = {
        "sysctl net/x": "1",
        "cgroup /a/cpu.max": "2",
        "cgroup /new/cpu.max": "1",
        "interface lo/mtu": "1",
        "qdisc q": "",
    }
    assert changed(before, after) == [
        "cgroup /a/cpu.max: 1 -> 2",
        "qdisc q: absent -> ",
        "sysctl net/x: 0 -> 1",
    ]


def test_hierarchies_are_read() -> None:
    """Controllers, names, and v2 are told apart by the text of mountinfo, with and without optional fields."""
    text = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime shared:1 - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:2 master:1 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""
    assert [(one.kind, one.option, str(one.mount)) for one in hierarchies(text)] == [
        ("cgroup", "cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct"),
        ("cgroup", "name=systemd", "/sys/fs/cgroup/systemd"),
        ("cgroup2", "rw", "/sys/fs/cgroup/unified"),
    ]
