"""A certificate with its private key, as PEM text, and what the certificate says."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, TypeAlias, TypeVar, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

SMALLEST_RSA_BITS = 3072
"""Bits. NIST SP 800-57 part 1: 128 bits of security, as ECDSA P-256 has; smaller ones are not for use after 2030."""
LARGEST_RSA_BITS = 8192
"""Bits. Larger ones take minutes to make and slow every handshake."""

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class CertificateError(Exception):
    """Something that cannot be read, made or kept, in one sentence. Never holds a part of a private key.

    Attributes:
        place: The file, directory or value it is about, such as `ca.key`; may be empty.
        reason: What is wrong and what is allowed.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(place, reason)
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}" if self.place else self.reason


class Purpose(StrEnum):
    """What a leaf certificate is for, by its name in `extendedKeyUsage` (RFC 5280, 4.2.1.12)."""

    SERVER = "serverAuth"
    CLIENT = "clientAuth"


PURPOSE_OIDS = {Purpose.SERVER: ExtendedKeyUsageOID.SERVER_AUTH, Purpose.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True)
class Pair:
    """Certificates and the key of the first of them, both PEM.

    Attributes:
        certificates: For a leaf, the leaf and then its intermediates. For an authority, the authority that signs
            now and then the earlier ones that are still to be trusted.
        key: The private key (PKCS 8, not encrypted); empty where it is kept elsewhere.
    """

    certificates: bytes
    key: bytes = field(repr=False)


class Facts(NamedTuple):
    """What a certificate says.

    Attributes:
        subject: Distinguished name (RFC 4514), such as `CN=noisegate.noisegate-system.svc`.
        issuer: The same of whoever signed it.
        serial: Serial number, hexadecimal.
        names: Subject alternative names: DNS names, then IP addresses.
        key: Kind and size of the key: `ECDSA P-256`, `RSA 3072`.
        purposes: Names out of `extendedKeyUsage`, in dotted form where `Purpose` does not know them.
        authority: Whether it may sign certificates.
        not_before: Start of its life, UTC.
        not_after: End of its life, UTC.
        fingerprint: SHA-256 over the DER form, hexadecimal.
    """

    subject: str
    issuer: str
    serial: str
    names: tuple[str, ...]
    key: str
    purposes: tuple[str, ...]
    authority: bool
    not_before: datetime
    not_after: datetime
    fingerprint: str

    @property
    def renew_at(self) -> datetime:
        """The moment at which two thirds of its life are over."""
        return self.not_before + (self.not_after - self.not_before) * 2 / 3

    def due(self, now: datetime) -> bool:
        """Tell whether it must be renewed."""
        return now >= self.renew_at

    def used(self, now: datetime) -> float:
        """Return the share of its life that is over: 0 at its start, 1 at its end, more once it has expired."""
        return max(0.0, (now - self.not_before) / (self.not_after - self.not_before))


def read_certificates(pem: bytes, place: str) -> list[x509.Certificate]:
    """Return the certificates of a PEM text, at least one.

    Raises:
        CertificateError: No certificate in it, or one that cannot be read.
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        for certificate in certificates:
            _ = certificate.extensions
            _ = certificate.public_key()
            _ = certificate.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise CertificateError(
            place, "holds no readable certificate; allowed: one or more blocks of PEM, -----BEGIN CERTIFICATE-----"
        ) from None
    for certificate in certificates:
        if certificate.not_valid_after_utc <= certificate.not_valid_before_utc:
            raise CertificateError(place, "holds a certificate whose life ends when it starts, or before")
    return certificates


def read_key(pem: bytes, place: str) -> PrivateKey:
    """Return the private key of a PEM text.

    Raises:
        CertificateError: There is none, it is encrypted, or it is of another kind or smaller than allowed.
    """
    if not pem:
        raise CertificateError(place, "is missing; without the private key nothing can be signed or served")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise CertificateError(place, "is encrypted; allowed: a private key in PEM without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(
            place, "holds no readable private key; allowed: one block of PEM, -----BEGIN PRIVATE KEY-----"
        ) from None
    weakness = weakness_of(key.public_key())
    if weakness:
        raise CertificateError(place, weakness)
    return cast("PrivateKey", key)


def write_key(key: PrivateKey) -> bytes:
    """Return a private key as PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_certificates(*certificates: x509.Certificate) -> bytes:
    """Return certificates as PEM."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def make_key(rsa_bits: int | None) -> PrivateKey:
    """Make a new private key: ECDSA P-256, or RSA of so many bits.

    Raises:
        CertificateError: The number of bits is not allowed.
    """
    if rsa_bits is None:
        return ec.generate_private_key(ec.SECP256R1())
    check_rsa_bits(rsa_bits)
    return rsa.generate_private_key(public_exponent=65537, key_size=rsa_bits)


def check_rsa_bits(bits: int) -> None:
    """Refuse an RSA key size that is too small to be safe or too large to be of use.

    Raises:
        CertificateError: It is.
    """
    if not SMALLEST_RSA_BITS <= bits <= LARGEST_RSA_BITS:
        raise CertificateError(
            "", f"RSA key size {bits} is not allowed; allowed: {SMALLEST_RSA_BITS} to {LARGEST_RSA_BITS} bits"
        )


def key_name(key: object) -> str:
    """Return kind and size of a public key for display."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        # secp256r1, secp384r1 and secp521r1 are the SEC names of NIST's P-256, P-384 and P-521.
        curve = key.curve.name
        return f"ECDSA P-{key.curve.key_size}" if curve.startswith("secp") and curve.endswith("r1") else f"EC {curve}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    return type(key).__name__.removesuffix("PublicKey")


STRONG_CURVES = ("secp256r1", "secp384r1", "secp521r1")


def weakness_of(key: object) -> str:
    """Return why a public key is not allowed, or an empty string."""
    if isinstance(key, rsa.RSAPublicKey):
        strong = key.key_size >= SMALLEST_RSA_BITS
    elif isinstance(key, ec.EllipticCurvePublicKey):
        strong = key.curve.name in STRONG_CURVES
    else:
        strong = isinstance(key, ed25519.Ed25519PublicKey)
    if strong:
        return ""
    return (
        f"the key is {key_name(key)}; allowed: ECDSA P-256, P-384 or P-521, Ed25519, "
        f"RSA of {SMALLEST_RSA_BITS} bits or more"
    )


def public_bytes(key: object) -> bytes:
    """Return a public key in the form in which two can be compared (SubjectPublicKeyInfo, DER)."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, form)  # type: ignore[attr-defined]
    return encoded


def facts_of(certificate: x509.Certificate) -> Facts:
    """Return what a certificate says."""
    return Facts(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        serial=f"{certificate.serial_number:x}",
        names=alternative_names(certificate),
        key=key_name(certificate.public_key()),
        purposes=purposes_of(certificate),
        authority=is_authority(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint=hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest(),
    )


def alternative_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names and then the IP addresses a certificate is for."""
    extension = find(certificate, x509.SubjectAlternativeName)
    if extension is None:
        return ()
    addresses = extension.get_values_for_type(x509.IPAddress)
    return (*extension.get_values_for_type(x509.DNSName), *(str(address) for address in addresses))


def purposes_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the names of a certificate's extended key usages."""
    known = {oid: str(purpose) for purpose, oid in PURPOSE_OIDS.items()}
    extension = find(certificate, x509.ExtendedKeyUsage)
    return () if extension is None else tuple(known.get(oid, oid.dotted_string) for oid in extension)


def is_authority(certificate: x509.Certificate) -> bool:
    """Tell whether a certificate may sign others (basicConstraints CA:TRUE)."""
    constraints = find(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


Extension = TypeVar("Extension", bound=x509.ExtensionType)


def find(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    """Return an extension of a certificate, or None."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def utc_seconds(moment: datetime) -> datetime:
    """Return a moment in UTC and whole seconds, as certificates write it (RFC 5280, 4.1.2.5).

    Raises:
        CertificateError: The moment carries no time zone.
    """
    if moment.tzinfo is None:
        raise CertificateError("", f"time {moment.isoformat()} has no time zone; allowed: an aware time, such as UTC")
    return moment.astimezone(UTC).replace(microsecond=0)


def plain(moment: datetime) -> str:
    """Return a moment for display and JSON (RFC 3339, UTC, whole seconds)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def span(life: timedelta) -> str:
    """Return a length of time for display, in days, or in seconds where it is shorter than a day."""
    days = life // timedelta(days=1)
    return f"{days} d" if days > 0 else f"{life.total_seconds():g} s"
