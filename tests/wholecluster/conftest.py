"""A whole cluster for each module of this folder: kubelet and runtime in a machine, the control plane on the host's loopback."""

from collections.abc import Iterator
from typing import Final

import measured
import pytest
import vm
from measured import Row
from tiers import UnavailableError, absent
from vm import Cluster, Node

ROWS: Final = pytest.StashKey[list[Row]]()


def pytest_configure(config: pytest.Config) -> None:
    """Tell the marker of the tier."""
    config.addinivalue_line("markers", "cluster: needs root, QEMU and a control plane (make test-cluster)")
    config.stash[ROWS] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show what was measured beside what was asked for."""
    if rows := config.stash[ROWS]:
        terminalreporter.section("asked and measured in a cluster")
        terminalreporter.write_line("\n".join(measured.lines(rows)))


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> list[Row]:
    """Rows of the table at the end."""
    return pytestconfig.stash[ROWS]


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
