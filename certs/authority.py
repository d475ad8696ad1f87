"""Make a certificate authority, and sign serving and client certificates with it.

A leaf is for one purpose only, never outlives its authority, and always gets a key of its own.
"""

from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import NameOID

from noisegate.certs.names import LONGEST_COMMON_NAME, Names, client_name, read_name
from noisegate.certs.pair import (
    PURPOSE_OIDS,
    SMALLEST_RSA_BITS,
    CertificateError,
    Pair,
    PrivateKey,
    Purpose,
    facts_of,
    find,
    make_key,
    plain,
    public_bytes,
    purposes_of,
    read_certificates,
    read_key,
    span,
    utc_seconds,
    write_certificates,
    write_key,
)
from noisegate.certs.verification import authority_reasons

AUTHORITY_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=365)
CLOCK_SKEW = timedelta(minutes=5)
"""How far a certificate's start lies before its making, for machines whose clocks are behind."""
LONGEST_LIFE = timedelta(days=36500)


def make_authority(now: datetime, *, life: timedelta = AUTHORITY_LIFE, rsa_bits: int | None = None) -> Pair:
    """Make a self-signed authority that signs leaves only (path length 0).

    Each has a name of its own, so that an authority and its successor are never taken for each other.

    Raises:
        CertificateError: The life is not positive or too long, the RSA size is not allowed, the time is naive.
    """
    start, end = _life(now, life)
    key = make_key(rsa_bits)
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"noisegate CA {serial & 0xFFFFFFFF:08x}")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, _digest(key))
    )
    return Pair(write_certificates(certificate), write_key(key))


def issue_server(
    authority: Pair, names: Names, now: datetime, *, life: timedelta = LEAF_LIFE, rsa_bits: int | None = None
) -> Pair:
    """Make a serving certificate for names.

    Raises:
        CertificateError: The authority cannot sign now, or as `make_authority`.
    """
    alternatives = _alternatives([*names.dns, *names.addresses])
    first = str((*names.dns, *names.addresses)[0])
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "noisegate")]
    if len(first) <= LONGEST_COMMON_NAME:
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, first))
    return _sign(authority, _Request(x509.Name(subject), alternatives, [Purpose.SERVER]), now, life, rsa_bits)


def issue_client(
    authority: Pair, name: str, now: datetime, *, life: timedelta = LEAF_LIFE, rsa_bits: int | None = None
) -> Pair:
    """Make a client certificate. The name is its CN, and its subject alternative name too where it can be one.

    It carries no organisation: Kubernetes would read that as a group.

    Raises:
        CertificateError: The name is not allowed, or as `issue_server`.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, client_name(name))])
    try:
        alternatives = _alternatives([read_name(name)])
    except CertificateError:
        alternatives = None
    return _sign(authority, _Request(subject, alternatives, [Purpose.CLIENT]), now, life, rsa_bits)


def reissue(authority: Pair, old: Pair, now: datetime, *, life: timedelta | None = None, place: str = "") -> Pair:
    """Make a certificate with the names, purpose and kind of key of an old one, with a new key.

    Args:
        authority: Who signs.
        old: The pair to be replaced; its key is not needed.
        now: The time.
        life: How long; that of the old one unless given.
        place: What the old one is called in messages, such as `tls.crt`.

    Raises:
        CertificateError: The old one is no leaf for serving or clients, or as `issue_server`.
    """
    certificate = read_certificates(old.certificates, place)[0]
    purposes = [purpose for purpose in Purpose if purpose in purposes_of(certificate)]
    if not purposes or facts_of(certificate).authority:
        raise CertificateError(place, "cannot be renewed; allowed: a certificate for serverAuth or clientAuth")
    life = life_of(certificate) if life is None else life
    alternatives = find(certificate, x509.SubjectAlternativeName)
    return _sign(authority, _Request(certificate.subject, alternatives, purposes), now, life, rsa_bits_of(certificate))


def rsa_bits_of(certificate: x509.Certificate) -> int | None:
    """Return the RSA size a successor's key must have, or None where it is ECDSA P-256."""
    key = certificate.public_key()
    return max(key.key_size, SMALLEST_RSA_BITS) if isinstance(key, rsa.RSAPublicKey) else None


def life_of(certificate: x509.Certificate) -> timedelta:
    """Return the life a certificate was made for, less what its start was put back."""
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return life - CLOCK_SKEW if life > CLOCK_SKEW else life


class _Request(NamedTuple):
    """What a leaf shall say of whom it is for."""

    subject: x509.Name
    alternatives: x509.SubjectAlternativeName | None
    purposes: list[Purpose]


def _sign(authority: Pair, request: _Request, now: datetime, life: timedelta, rsa_bits: int | None) -> Pair:
    """Make a key and sign a leaf for it."""
    start, end = _life(now, life)
    signer = read_certificates(authority.certificates, "ca.crt")[0]
    signer_key = read_key(authority.key, "ca.key")
    reasons = authority_reasons(signer, now)
    if reasons:
        raise CertificateError("ca.crt", reasons[0])
    if public_bytes(signer.public_key()) != public_bytes(signer_key.public_key()):
        raise CertificateError("ca.key", "does not fit ca.crt; allowed: the private key of its first certificate")
    key = make_key(rsa_bits)
    public = signer.public_key()
    known = find(signer, x509.SubjectKeyIdentifier)
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(signer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(start, signer.not_valid_before_utc))
        .not_valid_after(min(end, signer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([PURPOSE_OIDS[purpose] for purpose in request.purposes]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)
            if known
            else x509.AuthorityKeyIdentifier.from_issuer_public_key(public),  # type: ignore[arg-type]
            critical=False,
        )
    )
    if request.alternatives is not None:
        builder = builder.add_extension(request.alternatives, critical=False)
    return Pair(write_certificates(builder.sign(signer_key, _digest(signer_key))), write_key(key))


def _life(now: datetime, life: timedelta) -> tuple[datetime, datetime]:
    """Return start and end of a life that begins now."""
    now = utc_seconds(now)
    if not timedelta(seconds=1) <= life <= LONGEST_LIFE:
        raise CertificateError(
            "",
            f"life of {span(life)} is not allowed; allowed: 1 s to {LONGEST_LIFE.days} d, such as {LEAF_LIFE.days} d",
        )
    try:
        return now - CLOCK_SKEW, now + life
    except OverflowError:
        raise CertificateError("", f"a life of {span(life)} from {plain(now)} ends after the year 9999") from None


def _alternatives(names: list[str | IPv4Address | IPv6Address]) -> x509.SubjectAlternativeName:
    """Return names as the extension that clients check."""
    return x509.SubjectAlternativeName(
        [x509.DNSName(name) if isinstance(name, str) else x509.IPAddress(name) for name in names]
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    """Return the key usage of an authority (signs certificates and CRLs) or of a leaf (proves who it is)."""
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _digest(key: PrivateKey) -> hashes.SHA256 | None:
    """Return the digest a key signs with; Ed25519 brings its own (RFC 8032)."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
