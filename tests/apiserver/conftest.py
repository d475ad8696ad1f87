"""The control plane that the tests of this folder share; each test has a namespace of its own in it."""

import os
import secrets
from collections.abc import Iterator

import pytest
from controlplane import Api, ControlPlane, start
from controlplane.binaries import UnavailableError

REQUIRED = "NOISEGATE_REQUIRE_TIERS"
"""Environment: comma list of tiers that may not be skipped."""


def unavailable(error: UnavailableError) -> None:
    """Skip the tier by name, or fail where it is required."""
    if "apiserver" in os.environ.get(REQUIRED, "").split(","):
        pytest.fail(f"tier apiserver: {error}")
    pytest.skip(f"tier apiserver: {error}")


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane for all tests."""
    try:
        with start(tmp_path_factory.mktemp("control-plane"), users=("somebody",)) as plane:
            yield plane
    except UnavailableError as error:
        unavailable(error)


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
