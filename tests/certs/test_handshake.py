"""Certificates over real sockets: what `openssl`, through Python's `ssl`, makes of them."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from noisegate.certs.names import read_names
from noisegate.certs.rotation import issued, narrowed, renewed, succeeded
from noisegate.certs.store import Store, provide

NAMES = ["localhost", "127.0.0.1", "gate.sys.svc"]


class Met(NamedTuple):
    """What came of a handshake: the TLS version, what the server knows of the client, and the errors of both ends."""

    version: str | None
    client: object
    server_error: str
    client_error: str


def server_context(directory: Path, *, mutual: bool) -> ssl.SSLContext:
    """Serve with tls.crt and tls.key, and ask clients for certificates by ca.crt."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    if mutual:
        context.load_verify_locations(directory / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(directory: Path, stem: str = "") -> ssl.SSLContext:
    """Trust ca.crt alone, under the strict rules of RFC 5280, and show a certificate where one is named."""
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if stem:
        context.load_cert_chain(directory / f"{stem}.crt", directory / f"{stem}.key")
    return context


def meet(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> Met:
    """Let the two shake hands over loopback and exchange a word, so that both have seen all alerts."""
    answers: dict[str, object] = {"error": ""}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve() -> None:
            raw, _ = listener.accept()
            raw.settimeout(20)
            try:
                with server.wrap_socket(raw, server_side=True) as connection:
                    connection.sendall(connection.recv(16))
                    answers["client"] = dict(connection.getpeercert() or {}).get("subject")
            except OSError as error:
                answers["error"] = getattr(error, "reason", None) or type(error).__name__
            finally:
                raw.close()

        thread = threading.Thread(target=serve)
        thread.start()
        version, client_error = None, ""
        try:
            with (
                socket.create_connection(listener.getsockname(), timeout=20) as raw,
                client.wrap_socket(raw, server_hostname=name) as connection,
            ):
                connection.sendall(b"word")
                assert connection.recv(16) == b"word"
                version = connection.version()
        except ssl.SSLCertVerificationError as error:
            client_error = error.verify_message
        except OSError as error:
            client_error = getattr(error, "reason", None) or type(error).__name__
        thread.join()
    return Met(version, answers.get("client"), str(answers["error"]), client_error)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with all that mutual TLS needs, made now by the machine's clock, which OpenSSL reads too."""
    directory = tmp_path_factory.mktemp("certs")
    provide(directory, datetime.now(UTC), NAMES, client="kube-apiserver")
    return directory


@pytest.mark.parametrize("name", NAMES)
def test_tls(here: Path, name: str) -> None:
    """A client that trusts ca.crt meets the server under each of its names."""
    met = meet(server_context(here, mutual=False), client_context(here), name)
    assert met == Met("TLSv1.3", None, "", "")


def test_tls_under_another_name(here: Path) -> None:
    """A client that meant somebody else goes away."""
    met = meet(server_context(here, mutual=False), client_context(here), "example.org")
    expected = "Hostname mismatch, certificate is not valid for 'example.org'."
    assert (met.version, met.client_error) == (None, expected)


def test_mutual_tls(here: Path) -> None:
    """The server knows the client by the name in its certificate."""
    met = meet(server_context(here, mutual=True), client_context(here, "client"))
    assert met == Met("TLSv1.3", ((("commonName", "kube-apiserver"),),), "", "")


def test_mutual_tls_without_certificate(here: Path) -> None:
    """A client without a certificate is refused."""
    met = meet(server_context(here, mutual=True), client_context(here))
    assert (met.version, met.server_error) == (None, "PEER_DID_NOT_RETURN_A_CERTIFICATE")


def test_purposes_are_kept_apart(here: Path, tmp_path: Path) -> None:
    """A serving certificate does not serve as a client's, nor a client's as a server's."""
    met = meet(server_context(here, mutual=True), client_context(here, "tls"))
    assert (met.version, met.server_error) == (None, "CERTIFICATE_VERIFY_FAILED")
    swapped = server_context(here, mutual=False)
    swapped.load_cert_chain(here / "client.crt", here / "client.key")
    met = meet(swapped, client_context(here), "kube-apiserver")
    assert met.version is None
    assert met.client_error in {"unsuitable certificate purpose", "unsupported certificate purpose"}


def test_another_authority(here: Path, tmp_path: Path) -> None:
    """Neither end accepts what another authority signed, even one made by the same hand."""
    provide(tmp_path, datetime.now(UTC), NAMES, client="kube-apiserver")
    met = meet(server_context(tmp_path, mutual=False), client_context(here))
    assert (met.version, met.client_error) == (None, "unable to get local issuer certificate")
    stranger = client_context(here)
    stranger.load_cert_chain(tmp_path / "client.crt", tmp_path / "client.key")
    met = meet(server_context(here, mutual=True), stranger)
    assert (met.version, met.server_error) == (None, "CERTIFICATE_VERIFY_FAILED")


def test_expired(tmp_path: Path) -> None:
    """A certificate whose life is over is refused."""
    now = datetime.now(UTC)
    then = now - timedelta(days=30)
    Store(tmp_path).update(lambda pairs: issued(pairs, then, server=read_names(NAMES), life=timedelta(days=29)))
    met = meet(server_context(tmp_path, mutual=False), client_context(tmp_path))
    assert (met.version, met.client_error) == (None, "certificate has expired")


def test_rsa(tmp_path: Path) -> None:
    """RSA pairs shake hands too, with TLS 1.2 as well."""
    now = datetime.now(UTC)
    store = Store(tmp_path)
    store.update(lambda pairs: issued(pairs, now, server=read_names(NAMES), client="c", rsa_bits=3072))
    server = server_context(tmp_path, mutual=True)
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    met = meet(server, client_context(tmp_path, "client"))
    assert met == Met("TLSv1.2", ((("commonName", "c"),),), "", "")


def test_change_of_the_authority(tmp_path: Path) -> None:
    """At every step of a change of the authority, peers of this step and of the step before meet."""
    now = datetime.now(UTC)
    store = Store(tmp_path)
    provide(tmp_path, now, NAMES, client="c")
    server, client = server_context(tmp_path, mutual=True), client_context(tmp_path, "client")
    for change in (
        lambda pairs: succeeded(pairs, now, force=True),
        lambda pairs: renewed(pairs, now, force=True),
        narrowed,
    ):
        store.update(change)
        next_server, next_client = server_context(tmp_path, mutual=True), client_context(tmp_path, "client")
        for met in (
            meet(next_server, next_client),
            meet(server, next_client),
            meet(next_server, client),
        ):
            assert met == Met("TLSv1.3", ((("commonName", "c"),),), "", "")
        server, client = next_server, next_client
