"""The control plane that the tests of this folder share; each test has a namespace of its own in it."""

import secrets
from collections.abc import Iterator

import pytest
from binaries import CONTROL_PLANE, find
from controlplane import Api, ControlPlane, start
from tiers import UnavailableError, absent


@pytest.fixture(scope="session", autouse=True)
def _programs() -> None:
    """Without the programs of a control plane the whole tier is skipped, by its name."""
    try:
        for program in CONTROL_PLANE:
            find(program)
    except UnavailableError as error:
        absent("apiserver", error)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane for all tests."""
    with start(tmp_path_factory.mktemp("control-plane"), users=("somebody",)) as plane:
        yield plane


@pytest.fixture
def api(control_plane: ControlPlane) -> Api:
    """A client that may do everything."""
    return control_plane.api


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"test-{secrets.token_hex(4)}"
    api.made({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    api.delete(f"/api/v1/namespaces/{name}/pods")
    api.delete(f"/api/v1/namespaces/{name}")
