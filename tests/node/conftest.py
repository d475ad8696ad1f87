"""A node for each module of this folder: gone on from a saved state, in a second."""

from collections.abc import Iterator
from typing import Final

import measured
import pytest
import vm
from measured import Row
from tiers import UnavailableError, absent
from vm import Node

ROWS: Final = pytest.StashKey[list[Row]]()


def pytest_configure(config: pytest.Config) -> None:
    """Tell the marker of the tier."""
    config.addinivalue_line("markers", "node: needs root and QEMU, for a machine of Debian's kernel (make test-node)")
    config.stash[ROWS] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show what was measured beside what was asked for."""
    if rows := config.stash[ROWS]:
        terminalreporter.section("asked and measured")
        terminalreporter.write_line("\n".join(measured.lines(rows)))


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> list[Row]:
    """Rows of the table at the end."""
    return pytestconfig.stash[ROWS]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node without a running container runtime."""
    try:
        with vm.start(tmp_path_factory.mktemp("machine")) as started:
            yield started
    except UnavailableError as error:
        absent("node", error)


@pytest.fixture(scope="module", params=[True, False], ids=["systemd", "cgroupfs"])
def node(machine: Node, request: pytest.FixtureRequest) -> Node:
    """The same with a runtime, once with each driver of cgroups."""
    machine.start_containerd(systemd_cgroup=request.param)
    return machine
