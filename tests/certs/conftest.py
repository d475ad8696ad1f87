from datetime import UTC, datetime

import pytest

from noisegate.certs.authority import issue_client, issue_server, make_authority
from noisegate.certs.names import read_names
from noisegate.certs.pair import Pair

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def now() -> datetime:
    """The moment at which the pairs below are made."""
    return NOW


@pytest.fixture(scope="session")
def authority() -> Pair:
    """An authority."""
    return make_authority(NOW)


@pytest.fixture(scope="session")
def server(authority: Pair) -> Pair:
    """A serving pair for this machine, signed by `authority`."""
    return issue_server(authority, read_names(["localhost", "*.example.org", "127.0.0.1", "::1"]), NOW)


@pytest.fixture(scope="session")
def client(authority: Pair) -> Pair:
    """A client pair, signed by `authority`."""
    return issue_client(authority, "kube-apiserver", NOW)


@pytest.fixture(scope="session")
def rsa_authority() -> Pair:
    """An authority with the smallest RSA key that is allowed."""
    return make_authority(NOW, rsa_bits=3072)
