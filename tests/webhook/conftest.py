"""Servers, authorities and clients for the tests of the server."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from serving import Serving, World, trusting, write_pair

from noisegate.webhook.serverconfig import ServerConfig

Serve = Callable[..., Serving]


@pytest.fixture(name="authority", scope="session")
def _authority() -> trustme.CA:
    return trustme.CA(organization_name="servers", key_type=trustme.KeyType.ECDSA)


@pytest.fixture(name="client_authority", scope="session")
def _client_authority() -> trustme.CA:
    return trustme.CA(organization_name="clients", key_type=trustme.KeyType.ECDSA)


@pytest.fixture(name="pair", scope="session")
def _pair(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType.ECDSA)


@pytest.fixture(name="trust")
def _trust(authority: trustme.CA) -> ssl.SSLContext:
    return trusting(authority)


@pytest.fixture(name="files")
def _files(tmp_path: Path, pair: trustme.LeafCert, client_authority: trustme.CA) -> Path:
    write_pair(tmp_path, pair)
    client_authority.cert_pem.write_to_path(tmp_path / "client-ca.pem")
    return tmp_path


@pytest.fixture(name="serve")
def _serve(files: Path, trust: ssl.SSLContext) -> Iterator[Serve]:
    """Starts servers; ends them after the test."""
    with ExitStack() as stack:

        def start(world: World | None = None, *, plain: bool = False, **settings: Any) -> Serving:
            addresses: dict[str, Any] = {
                "binding_address": "127.0.0.1",
                "health_address": "127.0.0.1",
                "port": 0,
                "health_port": 0,
            }
            pair = {} if plain else {"cert": str(files / "cert.pem"), "key": str(files / "key.pem")}
            times = {"shutdown_delay": 0.0, "drain_seconds": 5.0}
            config = ServerConfig(**(addresses | pair | times | settings))
            return stack.enter_context(Serving(config, world or World(), None if plain else trust))

        yield start
