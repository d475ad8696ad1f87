"""Who is let in over TLS, and how certificates change without anybody noticing."""

import contextlib
import datetime as dt
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from serving import SECONDS, Serving, call, review, trusting, until, write_pair

Serve = Callable[..., Serving]


@pytest.fixture(name="guarded")
def _guarded(serve: Serve, files: Path) -> Serve:
    """Servers that ask for client certificates."""
    return lambda **settings: serve(client_ca=str(files / "client-ca.pem"), **settings)


def test_old_versions_are_refused(serve: Serve, trust: ssl.SSLContext) -> None:
    """TLS 1.1 is refused in the handshake, counted and told; 1.2 and 1.3 work."""
    server = serve()
    trust.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        trust.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        trust.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        server.connect(trust)
    server.wait_for("handshake-failed", reason="protocol")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        trust.maximum_version = version
        trust.minimum_version = version
        with server.connect(trust) as wire:
            assert wire.ask(call(review("v"))).uid == "v"
    assert server.number("noisegate_tls_handshake_failures_total", reason="protocol") == 1


def test_client_that_does_not_trust_us_is_told(serve: Serve, client_authority: trustme.CA) -> None:
    """A client that knows another authority breaks the handshake off; that is counted and told."""
    server = serve()
    with pytest.raises(ssl.SSLCertVerificationError):
        server.connect(trusting(client_authority))
    server.wait_for("handshake-failed")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_client_certificate(
    guarded: Serve, authority: trustme.CA, client_authority: trustme.CA, version: ssl.TLSVersion
) -> None:
    """With client authorities only their certificates get in: none, foreign and expired ones end in the handshake."""
    server = guarded()
    past = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
    wrong = [
        None,
        authority.issue_cert("client.test", key_type=trustme.KeyType.ECDSA),
        client_authority.issue_cert("client.test", not_after=past, key_type=trustme.KeyType.ECDSA),
    ]
    for number, certificate in enumerate(wrong, start=1):
        context = trusting(authority, certificate)
        context.maximum_version = version
        # In TLS 1.3 the client's side of the handshake is over before the server has judged; uvloop sends no alert then.
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)), server.connect(context) as wire:
            wire.ask(call(review()))
        server.wait_for("handshake-failed", number, reason="certificate")
    right = trusting(authority, client_authority.issue_cert("client.test", key_type=trustme.KeyType.ECDSA))
    right.maximum_version = version
    with server.connect(right) as wire:
        assert wire.ask(call(review("in"))).uid == "in"
    assert server.number("noisegate_tls_handshake_failures_total", reason="certificate") == 3


@pytest.mark.parametrize("size", [100, 100_000], ids=["short-way", "long-way"])
def test_name_that_is_not_on_the_list_is_refused(
    guarded: Serve, authority: trustme.CA, client_authority: trustme.CA, size: int
) -> None:
    """A certificate of the right authority with a name that is not allowed gets 403 and a sentence; others get in."""
    server = guarded(client_names=("kube-apiserver", "DNS:api.test"))
    allowed = client_authority.issue_cert(common_name="kube-apiserver", key_type=trustme.KeyType.ECDSA)
    with server.connect(trusting(authority, allowed)) as wire:
        assert wire.ask(call(review("in", size))).uid == "in"
    kubelet = client_authority.issue_cert("node.test", common_name="kubelet", key_type=trustme.KeyType.ECDSA)
    sentence = (
        "the client certificate bears CN:kubelet, DNS:node.test; "
        "the server lets in only kube-apiserver, DNS:api.test (client-names)"
    )
    with server.connect(trusting(authority, kubelet)) as wire:
        answer = wire.ask(call(review("out", size)))
        assert (answer.status, answer.body.decode()) == (403, f"{sentence}\n")
        assert wire.ended()
    assert server.wait_for("refused", reason="client-name")["detail"] == sentence
    assert server.number("noisegate_refused_requests_total", reason="client-name") == 1


def test_names_need_authorities(serve: Serve) -> None:
    """A list of names without client authorities does not start: nobody's name would be known."""
    with pytest.raises(ValueError, match=r"^client_names: names are only known of certificates that are checked; "):
        serve(client_names=("x",))


def test_bad_certificate_stops_the_start(serve: Serve, files: Path) -> None:
    """A certificate that cannot be used stops the start with its path and the mend."""
    (files / "key.pem").write_text("nonsense")
    with pytest.raises(ValueError, match=r"key\.pem: no private key in PEM form"):
        serve()
    (files / "key.pem").unlink()
    with pytest.raises(ValueError, match=r"key\.pem: No such file or directory"):
        serve()


def test_all_files_change_under_load_without_one_failed_call(
    guarded: Serve, files: Path, authority: trustme.CA, client_authority: trustme.CA
) -> None:
    """While eight clients call, new certificates, keys and authorities come into force: every call is answered."""
    server = guarded(poll_seconds=0.02)
    client = trusting(authority, client_authority.issue_cert("client.test", key_type=trustme.KeyType.ECDSA))
    other = trustme.CA(key_type=trustme.KeyType.ECDSA)
    done = threading.Event()
    answered = [0] * 8
    failed: list[object] = []
    serials: set[object] = set()

    def calls(number: int) -> None:
        wire = server.connect(client)
        try:
            while not done.is_set():
                uid = f"{number}-{answered[number]}"
                answer = wire.ask(call(review(uid, 7000)))
                if (answer.status, answer.uid) != (200, uid):
                    failed.append(answer)
                answered[number] += 1
                # The API server keeps connections, and dials anew when it is told to or has none at rest.
                if "connection" in answer.headers or answered[number] % 10 == 0:
                    wire.socket.close()
                    wire = server.connect(client)
                    assert isinstance(wire.socket, ssl.SSLSocket)
                    serials.add((wire.socket.getpeercert() or {}).get("serialNumber"))
        except (OSError, EOFError) as error:
            failed.append(error)
        finally:
            wire.socket.close()

    threads = [threading.Thread(target=calls, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for turn in range(1, 6):
        seen = len(serials)
        write_pair(files, authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA))
        extra = other.cert_pem.bytes() if turn % 2 else b""
        (files / "client-ca.pem").write_bytes(client_authority.cert_pem.bytes() + extra)
        server.wait_for("reload", turn, what="certificate", result="reloaded")
        until(lambda seen=seen: len(serials) > seen or bool(failed))  # type: ignore[misc]
    done.set()
    for thread in threads:
        thread.join(SECONDS)
    assert failed == []
    assert len(serials) >= 5
    assert server.number("noisegate_requests_total", endpoint="mutate", result="allowed") == sum(answered)
    reloads = server.number("noisegate_reloads_total", what="certificate", result="reloaded")
    assert reloads is not None
    assert reloads >= 5


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"], ids=["named", "by-address"])
def test_new_connections_see_the_new_certificate(serve: Serve, files: Path, authority: trustme.CA, name: str) -> None:
    """A changed pair is used from the next connection on, also for clients that name no server; open ones live on."""
    server = serve(poll_seconds=0.02)
    with server.connect(name=name) as old:
        before = _serial(old.socket)
        write_pair(files, authority.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType.ECDSA))
        server.wait_for("reload", result="reloaded")
        with server.connect(name=name) as new:
            assert _serial(new.socket) != before
            assert new.ask(call(review("new"))).uid == "new"
        answer = old.ask(call(review("old")))
        assert (answer.uid, answer.headers.get("connection")) == ("old", None)


def test_bad_pair_is_refused_and_the_last_good_one_kept(serve: Serve, files: Path, authority: trustme.CA) -> None:
    """A key that does not fit is refused: readiness notes it, metrics count it, the log tells it; it can be mended."""
    server = serve(poll_seconds=0.02)
    good = (files / "key.pem").read_bytes()
    assert server.get("/readyz").body == b"ready\n"
    other = authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
    other.private_key_pem.write_to_path(files / "key.pem")
    reason = (
        f"{files}/key.pem: the private key does not belong to the certificate in {files}/cert.pem; "
        "write the two of one pair"
    )
    assert server.wait_for("reload", result="refused")["reason"] == reason
    ready = server.get("/readyz")
    assert ready.status == 200
    first, note = ready.body.decode().splitlines()
    assert first == "ready"
    assert note.startswith("note: certificate: the new contents are refused, those of ")
    assert note.endswith(f" stay in force: {reason}")
    assert server.number("noisegate_reload_refused", what="certificate") == 1
    with server.connect() as wire:
        assert wire.ask(call(review("kept"))).uid == "kept"
    (files / "key.pem").write_bytes(good)
    server.wait_for("reload", result="recovered")
    assert server.get("/readyz").body == b"ready\n"
    assert server.number("noisegate_reload_refused", what="certificate") == 0


def test_expired_certificate_is_served_with_a_warning(serve: Serve, files: Path, authority: trustme.CA) -> None:
    """An expired certificate is put into force, and readiness, metrics and log say loudly that it is expired."""
    past = dt.datetime(2001, 2, 3, tzinfo=dt.UTC)
    write_pair(files, authority.issue_cert("localhost", not_after=past, key_type=trustme.KeyType.ECDSA))
    server = serve()
    doubt = "the serving certificate expired at 2001-02-03T00:00:00Z: clients refuse it; issue a new one"
    assert server.wait_for("certificate")["doubt"] == doubt
    assert server.get("/readyz").body.decode() == f"ready\nnote: {doubt}\n"
    assert server.number("noisegate_certificate_expiry_timestamp_seconds") == past.timestamp()


def test_removed_authority_is_gone(
    guarded: Serve, files: Path, authority: trustme.CA, client_authority: trustme.CA
) -> None:
    """After a change of client authorities the old one's clients get one last answer, and no new connection."""
    server = guarded(poll_seconds=0.02)
    old = trusting(authority, client_authority.issue_cert("old.test", key_type=trustme.KeyType.ECDSA))
    second = trustme.CA(key_type=trustme.KeyType.ECDSA)
    new = trusting(authority, second.issue_cert("new.test", key_type=trustme.KeyType.ECDSA))
    with server.connect(old) as wire:
        assert wire.ask(call(review("before"))).uid == "before"
        assert isinstance(wire.socket, ssl.SSLSocket)
        session = wire.socket.session
        second.cert_pem.write_to_path(files / "client-ca.pem")
        server.wait_for("reload", result="reloaded")
        answer = wire.ask(call(review("last")))
        assert (answer.uid, answer.headers["connection"]) == ("last", "close")
        assert wire.ended()
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError)), server.connect(old) as wire:
        wire.ask(call(review()))
    # Not even by resuming a session that the old authority's certificate began.
    received = b""
    with (
        contextlib.suppress(OSError),
        old.wrap_socket(server.dial(), server_hostname="localhost", session=session) as tls,
    ):
        tls.sendall(call(review()))
        received = tls.recv(1)
    assert received == b""
    with server.connect(new) as wire:
        assert wire.ask(call(review("new"))).uid == "new"


def _serial(connection: object) -> object:
    assert isinstance(connection, ssl.SSLSocket)
    return (connection.getpeercert() or {}).get("serialNumber")
