"""A whole cluster for each module of this folder: kubelet and runtime in a machine, the control plane on the host's loopback."""

from collections.abc import Iterator

import pytest
import vm
from tiers import UnavailableError, absent
from vm import Cluster, Node


def pytest_configure(config: pytest.Config) -> None:
    """Tell the marker of the tier."""
    config.addinivalue_line("markers", "cluster: needs root, QEMU and a control plane (make test-cluster)")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with a runtime, and without a kubelet."""
    try:
        with vm.start(tmp_path_factory.mktemp("machine")) as started:
            started.start_containerd()
            yield started
    except UnavailableError as error:
        absent("cluster", error)


@pytest.fixture(scope="module")
def cluster(machine: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose one node is ready."""
    try:
        with vm.join(tmp_path_factory.mktemp("cluster"), machine) as joined:
            yield joined
    except UnavailableError as error:
        absent("cluster", error)
