"""A whole cluster of one node: the control plane on the host's loopback, the node in its machine."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import controlplane
from binaries import find
from controlplane import Api, ControlPlane
from controlplane.plane import dies_with_us

from vm import kubelet
from vm.node import Node

SECONDS: Final = 120.0
"""Until the node must be ready; on a quiet machine it takes ten."""


class Cluster(NamedTuple):
    """A cluster that runs.

    Attributes:
        plane: Its control plane.
        node: Its node, `kubelet.NAME` by name.
    """

    plane: ControlPlane
    node: Node

    @property
    def api(self) -> Api:
        """A client that may do everything."""
        return self.plane.api

    def pod(self, name: str, namespace: str = "default") -> dict[str, Any]:
        """Return a pod; empty where there is none."""
        reply = self.api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
        return reply.body if reply.status == 200 else {}

    def await_ready(self) -> None:
        """Wait until the node is ready and pods are scheduled to it."""
        self._wait("the node is ready", self._is_ready, SECONDS)

    def await_phase(self, name: str, phase: str = "Running", namespace: str = "default", seconds: float = 60.0) -> None:
        """Wait until a pod is in a phase; empty: until it is gone."""
        self._wait(f"pod {name} is {phase or 'gone'}", lambda: _phase(self.pod(name, namespace)) == phase, seconds)

    def await_restarted(self, name: str, namespace: str = "default", times: int = 1, seconds: float = SECONDS) -> None:
        """Wait until every container of a pod has been started again so many times, and runs."""

        def is_back() -> bool:
            states = self.pod(name, namespace)["status"].get("containerStatuses", [])
            return bool(states) and all(one["restartCount"] >= times and "running" in one["state"] for one in states)

        self._wait(f"pod {name} was started again", is_back, seconds)

    def _is_ready(self) -> bool:
        reply = self.api.get(f"/api/v1/nodes/{kubelet.NAME}")
        if reply.status != 200:  # it makes itself known a moment after its kubelet has started
            return False
        conditions = reply.body["status"].get("conditions", [])
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        return ready and not reply.body["spec"].get("taints")

    def _wait(self, what: str, done: Callable[[], bool], seconds: float) -> None:
        try:
            self.plane.wait(what, done, seconds)
        except AssertionError as error:
            log = "\n".join(self.node.kubelet.log().splitlines()[-40:])
            raise AssertionError(f"{error}; the kubelet said:\n{log}") from None


@contextlib.contextmanager
def join(folder: Path, node: Node, *, users: Sequence[str] = (), flags: Sequence[str] = ()) -> Iterator[Cluster]:
    """Run a control plane with all its controllers and a scheduler, and join a node to it.

    Args:
        folder: An empty one, for the control plane's files.
        node: Its runtime runs already; the kubelet has the same driver of cgroups.
        users: Names of users without any right, besides `admin`.
        flags: Further flags of the API server.

    Raises:
        UnavailableError: The control plane's programs are not there.
    """
    given = kubelet.credentials()
    keys, files = folder / "keys", folder / "plane"
    keys.mkdir()
    files.mkdir()
    ours = [*kubelet.flags(keys, given), *flags]
    with controlplane.start(files, users=users, flags=ours, controller_manager=True) as plane, _scheduler(plane):
        plane.api.apply(kubelet.RIGHTS)
        port = node.machine.forward()
        read = kubelet.files(given, plane.ca_file.read_bytes(), plane.port, port, systemd_cgroup=node.systemd_cgroup)
        for path, text in read.items():
            node.write(path, text)
        node.run("mkdir", "-p", kubelet.STATIC_PODS)
        # What is enabled comes back after a reboot.
        node.sh("systemctl --quiet enable containerd kubelet kubernetes-api.socket")
        node.sh("systemctl start kubernetes-api.socket")
        node.kubelet.restart()
        cluster = Cluster(plane, node)
        cluster.await_ready()
        yield cluster
        node.kubelet.stop()


@contextlib.contextmanager
def _scheduler(plane: ControlPlane) -> Iterator[None]:
    command = [
        str(find("kube-scheduler")),
        f"--kubeconfig={plane.kubeconfig()}",
        "--leader-elect=false",
        "--secure-port=0",
    ]
    with (plane.folder / "kube-scheduler.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=dies_with_us)  # noqa: PLW1509
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _phase(pod: dict[str, Any]) -> str:
    phase: str = pod.get("status", {}).get("phase", "")
    return phase
