"""The machine that the tests of this folder stand on: what is said of it elsewhere is so."""

import re
import time
from pathlib import Path

import pytest
import vm
from containerd import CriError, Mount
from vm import Node, measure, tools

pytestmark = pytest.mark.node

LIMIT = 8 << 20
"""Bytes in a second."""


def test_what_it_is(machine: Node) -> None:
    """Linux of Debian with systemd as the first process, one hierarchy of cgroups with the io controller, and no other."""
    assert "Debian" in machine.read("/proc/version")
    assert machine.read("/proc/1/comm") == "systemd\n"
    assert machine.sh("systemctl is-system-running") == "running"
    assert {"cpuset", "cpu", "io", "memory", "pids"} <= set(machine.read("/sys/fs/cgroup/cgroup.controllers").split())
    assert machine.sh("findmnt --noheadings --output FSTYPE /sys/fs/cgroup") == "cgroup2"
    assert not re.search(r" cgroup ", machine.read("/proc/mounts"))


def test_its_clock_is_the_hosts(machine: Node) -> None:
    """A state that was saved long ago goes on at today's time."""
    assert abs(float(machine.sh("date +%s.%N")) - time.time()) < 5


def test_commands(machine: Node) -> None:
    """A command's exit code, both its outputs, its stdin, and its end when it is late come back."""
    assert machine.run("sh", "-c", "cat; echo err >&2; exit 3", given=b"in", check=False)[:3] == (3, "in", "err\n")
    assert machine.run("no-such-program", check=False).code == 127
    late = machine.run("sh", "-c", "sleep 600 & sleep 600", timeout=0.5, check=False)
    assert (late.late, late.code) == (True, -9)
    with pytest.raises(vm.CommandError, match="exit code 1"):
        machine.run("false")
    with pytest.raises(OSError, match="No such file"):
        machine.write("/sys/fs/cgroup/absent/io.max", "")


def test_files_and_services(machine: Node, tmp_path: Path) -> None:
    """Trees of the host are there after a push; a program started by name writes a log, dies by its pid, and says how."""
    (tmp_path / "tree" / "__pycache__").mkdir(parents=True)
    (tmp_path / "tree" / "loop.sh").write_text('echo "$WORD"; while :; do sleep 1; done\n')
    machine.push([tmp_path / "tree"], "/opt/pushed")
    assert machine.sh("ls /opt/pushed/tree") == "loop.sh"

    service = machine.start("loop", "sh", "/opt/pushed/tree/loop.sh", env={"WORD": "well"})
    service.await_log("well")
    assert (service.runs, service.pid > 0) == (True, True)
    service.kill()
    service.await_end()
    assert (service.runs, service.exit_code) == (False, 9)


def test_kinds_of_disks(machine: Node) -> None:
    """Below /srv are file systems on a whole disk, a partition, a logical volume and a device-mapper target, each its own device."""
    kinds = {
        name: machine.sh(f"lsblk --noheadings --nodeps --output TYPE $(findmnt -no SOURCE {name})") for name in vm.DISKS
    }
    assert kinds == {"/srv/whole": "disk", "/srv/partition": "part", "/srv/logical": "lvm", "/srv/linear": "dm"}
    assert len({machine.device(name) for name in vm.DISKS}) == len(vm.DISKS)


def test_a_pod_is_held_to_its_cgroups_limit(node: Node) -> None:
    """A pod runs in the cgroup that was made for it, and its io.max holds what a container writes with O_DIRECT."""
    pod = node.run_pod()
    device = node.device("/srv/whole")
    node.write(f"/sys/fs/cgroup{pod.cgroup}/io.max", f"{device} wbps={LIMIT}")
    mounts = [*tools.mounts(), Mount(container_path="/data", host_path="/srv/whole")]
    container = node.cri.create(pod, tools.fio("/data/file", "write"), mounts=mounts)
    node.cri.start(container)

    assert node.read(f"/sys/fs/cgroup{pod.cgroup}/io.max").split()[:3] == [device, "rbps=max", f"wbps={LIMIT}"]
    measure.await_load(node, pod.cgroup, device, "wbytes")
    rate = measure.io_rate(node, pod.cgroup, device, "wbytes", 10)
    assert rate == pytest.approx(LIMIT, rel=0.05), node.cri.container(container)

    node.cri.remove_pod(pod)


def test_containers_outlive_their_runtime(node: Node) -> None:
    """A runtime that is killed comes back, and finds the container that it left running."""
    pod = node.run_pod()
    container = node.cri.run(pod)
    before = node.containerd.pid
    node.containerd.kill()
    node.containerd.await_pid(lambda pid: pid not in {0, before})
    node.await_runtime()
    assert node.cri.exec(container, "true").code == 0
    node.cri.remove_pod(pod)


def test_without_its_plugin_a_pod_that_requires_it_does_not_start(node: Node) -> None:
    """The validator of NRI is on: a container whose pod requires a plugin that is absent is refused."""
    pod = node.run_pod(annotations={"required-plugins.noderesource.dev": '["noisegate"]'})
    with pytest.raises(CriError, match="required plugin"):
        node.cri.create(pod)
    node.cri.remove_pod(pod)


def test_it_boots_again(machine: Node) -> None:
    """After a reboot its disks are as they were, and it answers."""
    machine.write("/srv/whole/kept", "well")
    machine.reboot()
    assert machine.read("/srv/whole/kept") == "well"
    assert machine.sh("systemctl is-system-running --wait") == "running"


def test_it_ends_clean(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Shut down as an operator does it, the machine powers itself off."""
    with vm.start(tmp_path_factory.mktemp("machine")) as started:
        assert started.power_off() == 0
