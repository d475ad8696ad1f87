from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from noisegate.certs.pair import (
    CertificateError,
    Facts,
    Pair,
    check_rsa_bits,
    facts_of,
    key_name,
    plain,
    read_certificates,
    read_key,
    span,
    utc_seconds,
    weakness_of,
    write_certificates,
)

ALLOWED = "allowed: ECDSA P-256, P-384 or P-521, Ed25519, RSA of 3072 bits or more"
NO_KEY = "holds no readable private key; allowed: one block of PEM, -----BEGIN PRIVATE KEY-----"
NO_CERTIFICATE = "holds no readable certificate; allowed: one or more blocks of PEM, -----BEGIN CERTIFICATE-----"
WEAK_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: Any, passphrase: bytes = b"") -> bytes:
    """Return any private key as PEM."""
    closed = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    written: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, closed)
    return written


@pytest.mark.parametrize(
    ("key", "name", "strong"),
    [
        pytest.param(ec.generate_private_key(ec.SECP256R1()), "ECDSA P-256", True, id="p256"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), "ECDSA P-384", True, id="p384"),
        pytest.param(ec.generate_private_key(ec.SECP521R1()), "ECDSA P-521", True, id="p521"),
        pytest.param(ec.generate_private_key(ec.SECP256K1()), "EC secp256k1", False, id="bitcoin's"),
        pytest.param(ed25519.Ed25519PrivateKey.generate(), "Ed25519", True, id="ed25519"),
        pytest.param(ed448.Ed448PrivateKey.generate(), "Ed448", False, id="ed448"),
        pytest.param(WEAK_RSA, "RSA 2048", False, id="rsa-2048"),
        pytest.param(dsa.generate_private_key(2048), "DSA", False, id="dsa"),
    ],
)
def test_kinds_of_key(key: ed25519.Ed25519PrivateKey, name: str, strong: bool) -> None:
    """Every kind of key has a name, and only those of 128 bits of security that TLS peers know are allowed."""
    weakness = "" if strong else f"the key is {name}; {ALLOWED}"
    assert (key_name(key.public_key()), weakness_of(key.public_key())) == (name, weakness)
    if strong:
        assert pem(read_key(pem(key), "tls.key")) == pem(key)
    else:
        with pytest.raises(CertificateError) as caught:
            read_key(pem(key), "tls.key")
        assert str(caught.value) == f"tls.key: {weakness}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(b"", "is missing; without the private key nothing can be signed or served", id="missing"),
        pytest.param(b"\xff\x00", NO_KEY, id="bytes"),
        pytest.param(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", NO_KEY, id="not-der"),
        pytest.param(
            pem(WEAK_RSA, b"word"),
            "is encrypted; allowed: a private key in PEM without a passphrase",
            id="encrypted",
        ),
    ],
)
def test_unreadable_key(text: bytes, reason: str) -> None:
    """A key that cannot be used is refused, and no part of it is in the message."""
    with pytest.raises(CertificateError) as caught:
        read_key(text, "tls.key")
    assert str(caught.value) == f"tls.key: {reason}"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\x00", id="bytes"),
        pytest.param(b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", id="not-a-certificate"),
        pytest.param(b"-----BEGIN CERTIFICATE-----\nMAA=\n", id="cut-off"),
    ],
)
def test_unreadable_certificate(text: bytes) -> None:
    """What holds no certificate is refused with its place."""
    with pytest.raises(CertificateError) as caught:
        read_certificates(text, "tls.crt")
    assert str(caught.value) == f"tls.crt: {NO_CERTIFICATE}"


def test_a_life_that_never_starts(now: datetime) -> None:
    """A certificate without any life is refused, since no share of it can be told."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(x509.Name([]))
    builder = builder.public_key(key.public_key()).serial_number(1).not_valid_before(now).not_valid_after(now)
    with pytest.raises(CertificateError) as caught:
        read_certificates(write_certificates(builder.sign(key, hashes.SHA256())), "tls.crt")
    assert str(caught.value) == "tls.crt: holds a certificate whose life ends when it starts, or before"


def test_certificates_are_read_as_written(server: Pair, authority: Pair) -> None:
    """A bundle keeps its certificates and their order."""
    both = server.certificates + authority.certificates
    assert write_certificates(*read_certificates(both, "tls.crt")) == both


def test_a_pair_never_shows_its_key(server: Pair) -> None:
    """The private key is in neither of a pair's two texts."""
    assert b"PRIVATE" in server.key
    assert "PRIVATE" not in repr(server) + str(server)


def test_facts(server: Pair, authority: Pair, now: datetime) -> None:
    """The facts are what the certificate says."""
    leaf = read_certificates(server.certificates, "")[0]
    ca = read_certificates(authority.certificates, "")[0]
    facts = facts_of(leaf)
    expected = Facts(
        subject="CN=localhost,O=noisegate",
        issuer=ca.subject.rfc4514_string(),
        serial=f"{leaf.serial_number:x}",
        names=("localhost", "*.example.org", "127.0.0.1", "::1"),
        key="ECDSA P-256",
        purposes=("serverAuth",),
        authority=False,
        not_before=now - timedelta(minutes=5),
        not_after=now + timedelta(days=365),
        fingerprint=facts.fingerprint,
    )
    assert facts == expected
    assert len(bytes.fromhex(facts.fingerprint)) == 32
    assert facts_of(ca)._replace(serial="", fingerprint="", subject="", issuer="") == Facts(
        "", "", "", (), "ECDSA P-256", (), True, now - timedelta(minutes=5), now + timedelta(days=3650), ""
    )


LIFE = Facts("", "", "", (), "", (), False, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 31, tzinfo=UTC), "")


@pytest.mark.parametrize(
    ("now", "used", "due"),
    [
        pytest.param(datetime(2025, 12, 1, tzinfo=UTC), 0.0, False, id="before"),
        pytest.param(datetime(2026, 1, 1, tzinfo=UTC), 0.0, False, id="start"),
        pytest.param(datetime(2026, 1, 20, 23, 59, 59, tzinfo=UTC), 0.666666, False, id="just-before"),
        pytest.param(datetime(2026, 1, 21, tzinfo=UTC), 0.666667, True, id="two-thirds"),
        pytest.param(datetime(2026, 1, 31, tzinfo=UTC), 1.0, True, id="end"),
        pytest.param(datetime(2026, 3, 2, tzinfo=UTC), 2.0, True, id="long-after"),
    ],
)
def test_due_at_two_thirds(now: datetime, used: float, due: bool) -> None:
    """A certificate must be renewed from two thirds of its life on."""
    assert (round(LIFE.used(now), 6), LIFE.due(now)) == (used, due)


def test_rsa_sizes() -> None:
    """RSA keys are of 3072 to 8192 bits."""
    check_rsa_bits(3072)
    check_rsa_bits(8192)
    for bits in (-1, 0, 2048, 3071, 8193):
        with pytest.raises(CertificateError) as caught:
            check_rsa_bits(bits)
        assert str(caught.value) == f"RSA key size {bits} is not allowed; allowed: 3072 to 8192 bits"


def test_times() -> None:
    """Times are brought to UTC and whole seconds; one without a zone is refused."""
    eastern = datetime(2026, 1, 1, 0, 0, 0, 999, tzinfo=timezone(timedelta(hours=2)))
    assert plain(utc_seconds(eastern)) == "2025-12-31T22:00:00Z"
    with pytest.raises(CertificateError) as caught:
        utc_seconds(eastern.replace(tzinfo=None))
    expected = "time 2026-01-01T00:00:00.000999 has no time zone; allowed: an aware time, such as UTC"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("life", "text"),
    [(timedelta(days=3, hours=5), "3 d"), (timedelta(seconds=90), "90 s"), (timedelta(seconds=-1), "-1 s")],
)
def test_span(life: timedelta, text: str) -> None:
    """A length of time is shown in days where it has any."""
    assert span(life) == text
