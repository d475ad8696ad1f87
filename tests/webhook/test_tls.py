"""Contexts from PEM, and names of clients."""

import datetime as dt
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from noisegate.webhook import tls
from noisegate.webhook.tls import TlsError, client_names, read, stranger

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8


def _chain(pair: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in pair.cert_chain_pems)


def test_pair_makes_a_context(pair: trustme.LeafCert) -> None:
    """A pair makes a context for TLS 1.2 and up, HTTP/1.1, without tickets, that asks for no client certificate."""
    made = read({"c": _chain(pair), "k": pair.private_key_pem.bytes()}, "c", "k")
    assert made.context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert made.context.num_tickets == 0
    assert made.context.options & ssl.OP_NO_TICKET
    assert made.context.options & ssl.OP_NO_RENEGOTIATION
    assert made.context.verify_mode == ssl.CERT_NONE
    assert made.client_ca is None
    assert made.expires == dt.datetime(3000, 1, 1, tzinfo=dt.UTC).timestamp()
    assert made.doubt(made.expires - 1) == ""
    assert made.doubt(made.expires) == (
        "the serving certificate expired at 3000-01-01T00:00:00Z: clients refuse it; issue a new one"
    )


def test_authorities_make_client_certificates_required(pair: trustme.LeafCert, client_authority: trustme.CA) -> None:
    """With client authorities a certificate of theirs is required."""
    bundle = client_authority.cert_pem.bytes() + trustme.CA().cert_pem.bytes()
    contents = {"c": _chain(pair), "k": pair.private_key_pem.bytes(), "a": bundle}
    made = read(contents, "c", "k", "a")
    assert made.context.verify_mode == ssl.CERT_REQUIRED
    assert len(made.context.get_ca_certs()) == 2
    assert made.client_ca == bundle


def test_rsa_pair(authority: trustme.CA) -> None:
    """An RSA pair serves as well."""
    pair = authority.issue_cert("localhost", key_type=trustme.KeyType.RSA)
    assert read({"c": _chain(pair), "k": pair.private_key_pem.bytes()}, "c", "k").expires


def _bad(name: str, pair: trustme.LeafCert, authority: trustme.CA) -> dict[str, bytes]:
    cert, key, ca = _chain(pair), pair.private_key_pem.bytes(), authority.cert_pem.bytes()
    other = authority.issue_cert("x", key_type=trustme.KeyType.ECDSA)
    loaded: Any = serialization.load_pem_private_key(key, None)
    small = rsa.generate_private_key(65537, 2048)
    changes = {
        "other-key": {"k": other.private_key_pem.bytes()},
        "other-kind-of-key": {"k": small.private_bytes(PEM, PKCS8, serialization.NoEncryption())},
        "encrypted-key": {"k": loaded.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"pw"))},
        "no-certificate": {"c": b"nonsense"},
        "empty-certificate": {"c": b""},
        "no-key": {"k": cert},
        "damaged": {"c": cert.replace(b"MII", b"MMM")},
        "large": {"c": cert + b"#" * (1 << 20)},
        "no-authority": {"a": b"nonsense"},
        "binary-authority": {"a": b"\xff"},
        "leaf-as-authority": {"a": cert},
    }
    return {"c": cert, "k": key, "a": ca} | changes[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other-key", "k: the private key does not belong to the certificate in c; write the two of one pair"),
        ("other-kind-of-key", "k: the private key does not belong to the certificate in c; write the two of one pair"),
        (
            "encrypted-key",
            "k: the private key is encrypted; write it without a password, readable for the server only",
        ),
        ("no-certificate", "c: no certificate in PEM form (-----BEGIN CERTIFICATE-----)"),
        ("empty-certificate", "c: no certificate in PEM form (-----BEGIN CERTIFICATE-----)"),
        ("no-key", "k: no private key in PEM form (-----BEGIN PRIVATE KEY-----)"),
        ("damaged", "c, k: not readable as certificate and private key (damaged PEM)"),
        ("large", "c: larger than 1 MiB; allowed: PEM files of certificates and keys"),
        ("no-authority", "a: no certificates in PEM form; write the authorities that sign clients"),
        ("binary-authority", "a: no certificates in PEM form; write the authorities that sign clients"),
        ("leaf-as-authority", "a: none of its certificates is an authority (basicConstraints CA:TRUE)"),
    ],
)
def test_bad_files_are_named(pair: trustme.LeafCert, authority: trustme.CA, name: str, message: str) -> None:
    """Every bad file is refused with its path, what is wrong, and what is allowed."""
    with pytest.raises(TlsError) as caught:
        read(_bad(name, pair, authority), "c", "k", "a")
    assert str(caught.value) == message


def test_weak_certificate_is_named(authority: trustme.CA) -> None:
    """A key too small for TLS is refused with the sizes that are allowed."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

    key = rsa.generate_private_key(65537, 1024)  # noqa: S505  (that is the point)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "weak")])
    now = dt.datetime.now(dt.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(1))
        .sign(key, hashes.SHA256())
    )
    contents = {"c": cert.public_bytes(PEM), "k": key.private_bytes(PEM, PKCS8, serialization.NoEncryption())}
    with pytest.raises(
        TlsError, match=r"^c: the certificate is too weak for TLS \(EE_KEY_TOO_SMALL\); allowed: ECDSA P-256,"
    ):
        read(contents, "c", "k")


def test_without_memory_files(pair: trustme.LeafCert, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no files in memory, a private directory serves, and is gone afterwards."""
    monkeypatch.delattr("os.memfd_create", raising=False)
    seen: list[Path] = []
    original = Path.write_bytes

    def write(path: Path, content: bytes) -> int:
        seen.append(path)
        assert path.parent.stat().st_mode & 0o777 == 0o700
        return original(path, content)

    monkeypatch.setattr(Path, "write_bytes", write)
    assert read({"c": _chain(pair), "k": pair.private_key_pem.bytes()}, "c", "k").expires
    assert len(seen) == 2
    assert not any(path.parent.exists() for path in seen)


CERTIFICATE = {
    "subject": ((("organizationName", "system:masters"),), (("commonName", "kube-apiserver"),)),
    "subjectAltName": (
        ("DNS", "API.Test"),
        ("URI", "spiffe://cluster.test/ns/a"),
        ("email", "ops@cluster.test"),
        ("IP Address", "10.0.0.1"),
    ),
}


def test_names_of_a_certificate() -> None:
    """Common name, DNS, URI and e-mail names count; organizations and addresses do not."""
    assert client_names(CERTIFICATE) == {
        "kube-apiserver",
        "CN:kube-apiserver",
        "API.Test",
        "DNS:api.test",
        "spiffe://cluster.test/ns/a",
        "URI:spiffe://cluster.test/ns/a",
        "ops@cluster.test",
        "email:ops@cluster.test",
    }
    assert client_names({}) == frozenset()


@pytest.mark.parametrize(
    ("allowed", "let_in"),
    [
        pytest.param((), True, id="everybody"),
        pytest.param(("kube-apiserver",), True, id="common-name"),
        pytest.param(("other", "api.test"), True, id="dns"),
        pytest.param(("dns:API.TEST",), True, id="dns-of-its-kind"),
        pytest.param(("CN:kube-apiserver",), True, id="cn-of-its-kind"),
        pytest.param(("spiffe://cluster.test/ns/a",), True, id="uri"),
        pytest.param(("URI:spiffe://cluster.test/ns/a",), True, id="uri-of-its-kind"),
        pytest.param(("email:ops@cluster.test",), True, id="email"),
        pytest.param(("DNS:kube-apiserver",), False, id="wrong-kind"),
        pytest.param(("CN:api.test",), False, id="other-kind"),
        pytest.param(("KUBE-APISERVER",), False, id="common-name-has-case"),
        pytest.param(("system:masters",), False, id="organization"),
        pytest.param(("10.0.0.1",), False, id="address"),
        pytest.param(("spiffe://cluster.test/ns/b",), False, id="other-uri"),
        pytest.param(("test",), False, id="part"),
    ],
)
def test_who_is_let_in(allowed: tuple[str, ...], let_in: bool) -> None:
    """A certificate is let in by any of its names, written bare or with the kind."""
    assert (stranger(CERTIFICATE, allowed) == "") is let_in


def test_stranger_is_told_what_it_bears() -> None:
    """The refusal names what the certificate bears and what is allowed."""
    assert stranger({"subject": ((("commonName", "x"),),)}, ("a", "b")) == (
        "the client certificate bears CN:x; the server lets in only a, b (client-names)"
    )
    assert stranger({}, ("a",)) == "the client certificate bears no name; the server lets in only a (client-names)"


def test_certificate_that_cannot_shake_hands(pair: trustme.LeafCert, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair that loads and yet does not work is refused; no such pair is at hand, so OpenSSL is made to refuse."""
    monkeypatch.setattr(tls, "_NO_CHECK_TIME", 0)
    past = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
    old = trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert("x", not_after=past, key_type=trustme.KeyType.ECDSA)
    with pytest.raises(TlsError, match=r"^c: TLS does not work with this certificate: .*certificate has expired"):
        read({"c": _chain(old), "k": old.private_key_pem.bytes()}, "c", "k")
