"""A node and a containerd for each test of this folder, half a second each; NRI plugins connect to `containerd.socket`.

`containerd` is one with containerd's own time-outs and no validator. For others:

```python
from containerd import Nri, Start

def test_x(start: Start) -> None:
    containerd = start(Nri(request=0.5, validator=True))
```

Calls of `containerd.cri` block, and those that ask plugins wait for their answers: a test whose plugin is on its own loop
makes them as `await asyncio.to_thread(containerd.cri.run_pod)`.
"""

import contextlib
from collections.abc import Iterator

import pytest
from containerd import Containerd, Node, Nri, Start
from machine import changed, look
from tiers import UnavailableError, absent


def pytest_configure(config: pytest.Config) -> None:
    """Tell the marker of the tier."""
    config.addinivalue_line("markers", "runtime: needs root, for a containerd in namespaces (make test-runtime)")


@pytest.fixture(scope="session", autouse=True)
def untouched() -> Iterator[None]:
    """The machine's own cgroups, interfaces, mounts and sysctls are after the tests as they were before."""
    before = look()
    yield
    assert changed(before, look()) == []


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Namespaces and cgroups of the test's own; all that runs in them ends with the test."""
    try:
        with Node(tmp_path_factory.mktemp("node")) as made:
            yield made
    except UnavailableError as error:
        absent("runtime", error)


@pytest.fixture
def start(node: Node) -> Iterator[Start]:
    """Start a containerd with options of NRI, or with no NRI; one in a test."""
    with contextlib.ExitStack() as ends:

        def started(nri: Nri | None) -> Containerd:
            try:
                return ends.enter_context(Containerd(node, nri))
            except UnavailableError as error:
                absent("runtime", error)

        yield started


@pytest.fixture
def containerd(start: Start) -> Containerd:
    """A containerd whose NRI is set as by default."""
    return start(Nri())
