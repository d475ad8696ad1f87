"""The node that the tests of this folder stand on: what runs in it is real, and what is outside does not feel it."""

from pathlib import Path

import pytest
from binaries import find, upstream
from containerd import (
    TOLERATE,
    Containerd,
    CriError,
    Device,
    LinuxContainerResources,
    Mount,
    Nri,
    Start,
)

pytestmark = pytest.mark.runtime


def names(folder: Path) -> set[str]:
    """Return the names in a folder."""
    return {path.name for path in folder.iterdir()}


def test_a_pod_runs_its_container(containerd: Containerd) -> None:
    """A container of a pod runs with what it was created with: environment, volume, device, resources and annotations."""
    cri, volume = containerd.cri, containerd.node.folder / "volume"
    volume.mkdir()
    (volume / "word").write_text("told by the node")
    pod = cri.run_pod("web", labels={"app": "web"}, annotations={"noisegate.io/test": "1"})
    container = cri.create(
        pod,
        name="main",
        envs={"GREETING": "hello"},
        mounts=[Mount(container_path="/data", host_path=str(volume))],
        devices=[Device(container_path="/dev/nothing", host_path="/dev/null", permissions="rw")],
        resources=LinuxContainerResources(cpuset_cpus="0", memory_limit_in_bytes=64 << 20),
        annotations={"noisegate.io/test": "2"},
    )
    cri.start(container)

    assert cri.exec(container, "sh", "-c", "echo $GREETING; cat /data/word; echo x > /dev/nothing").stdout == (
        "hello\ntold by the node"
    )
    assert cri.exec(container, "sh", "-c", "exit 3").code == 3
    assert "Cpus_allowed_list:\t0\n" in cri.exec(container, "cat", "/proc/self/status").stdout
    cgroup = containerd.node.cgroup("memory", f"{pod.cgroup}/{container}")
    limits = [path.read_text() for path in (cgroup / "memory.limit_in_bytes", cgroup / "memory.max") if path.exists()]
    assert limits == [f"{64 << 20}\n"]  # one of them, by cgroup version
    assert cri.container(container).annotations["noisegate.io/test"] == "2"
    assert [(one.metadata.name, one.labels["app"]) for one in cri.pods()] == [("web", "web")]

    cri.stop(container)
    cri.remove(container)
    cri.stop_pod(pod)
    cri.remove_pod(pod)
    assert (cri.containers(), cri.pods()) == ([], [])


def test_the_programs_are_the_pinned_ones(containerd: Containerd) -> None:
    """The runtime is the release that go.mod pins, and its runc says what it was built with."""
    assert containerd.cri.version() == upstream("containerd").version
    assert f"runc version {upstream('runc').version[1:]}" in containerd.node.run(str(find("runc")), "--version")
    assert '"seccomp"' in containerd.node.run(str(find("runc")), "features")


def test_node_and_pods_reach_each_other(containerd: Containerd) -> None:
    """A pod answers the node and another pod, through a veth pair whose end is in the node and in no other network."""
    cri, node = containerd.cri, containerd.node
    pods = [cri.run_pod() for _ in range(2)]
    addresses = [cri.pod(pod).network.ip for pod in pods]
    container = cri.run(pods[0])

    ping = ("ping", "-c", "1", "-w", "10")
    assert "1 packets received" in node.run(str(node.busybox), *ping, addresses[0])
    assert cri.exec(container, *ping, addresses[1]).code == 0
    veths = names(node.root / "sys/class/net") - {"lo"}
    assert len(veths) == 2
    assert not veths & names(Path("/sys/class/net"))
    assert len(names(node.root / "run/netns")) == 2

    for pod in pods:
        cri.stop_pod(pod)
    assert names(node.root / "sys/class/net") == {"lo"}
    assert names(node.root / "run/netns") == set()


def test_a_pod_may_be_in_the_nodes_network(containerd: Containerd) -> None:
    """A pod with the host's network sees the node's interfaces."""
    container = containerd.cri.run(containerd.cri.run_pod(host_network=True))
    assert containerd.cri.exec(container, "ls", "/sys/class/net").stdout == "lo\n"


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_containers_outlive_containerd(containerd: Containerd, how: str) -> None:
    """Whether it ends in order or is killed, containerd finds its containers as it left them, and they never stopped."""
    cri = containerd.cri
    pod = cri.run_pod()
    container = cri.run(pod, ["sh", "-c", "echo $$ > /began; exec sleep 3600"])
    begun = cri.exec(container, "stat", "-c", "%y", "/began").stdout

    if how == "restart":
        containerd.restart()
    else:
        containerd.kill()
        with pytest.raises(AssertionError, match="exit 1"):
            containerd.node.run("sh", "-c", f"kill -0 {containerd.pid}")
        containerd.start()

    assert [one.id for one in cri.containers()] == [container]
    assert cri.exec(container, "stat", "-c", "%y", "/began").stdout == begun
    cri.stop_pod(pod)


REQUIRED = "required-plugins.noderesource.dev"


def test_a_pod_can_require_a_plugin(start: Start) -> None:
    """With the validator on, a pod that requires a plugin which is not there gets no container; others do."""
    cri = start(Nri(validator=True, tolerate=TOLERATE)).cri
    asking = cri.run_pod(annotations={REQUIRED: '["enforcer"]'})
    with pytest.raises(CriError, match='required plugin "enforcer" not present'):
        cri.create(asking)
    assert cri.create(cri.run_pod())
    assert cri.create(cri.run_pod(annotations={REQUIRED: '["enforcer"]', TOLERATE: "true"}))


def test_a_node_can_require_a_plugin(start: Start) -> None:
    """A plugin that the node requires is required of every pod."""
    cri = start(Nri(validator=True, required=("enforcer",))).cri
    with pytest.raises(CriError, match='required plugin "enforcer" not present'):
        cri.create(cri.run_pod())


def test_without_a_validator_nothing_is_required(containerd: Containerd) -> None:
    """By default a pod that requires a plugin which is not there gets its container: the annotation is just text."""
    assert containerd.cri.create(containerd.cri.run_pod(annotations={REQUIRED: '["enforcer"]'}))


def test_nri_may_be_off(start: Start) -> None:
    """Without NRI there is no socket, and pods run."""
    containerd = start(None)
    assert not containerd.socket.exists()
    assert containerd.cri.run(containerd.cri.run_pod())
