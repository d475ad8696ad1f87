"""What is wrong with a pair of certificate and key: every reason at once, as sentences."""

from collections.abc import Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from noisegate.certs.names import read_name
from noisegate.certs.pair import (
    CertificateError,
    Pair,
    Purpose,
    alternative_names,
    find,
    is_authority,
    plain,
    public_bytes,
    purposes_of,
    read_certificates,
    read_key,
    utc_seconds,
    weakness_of,
)

WEAK_DIGESTS = (hashes.MD5, hashes.SHA1)


def verify_leaf(
    pair: Pair,
    authorities: bytes,
    purpose: Purpose,
    now: datetime,
    names: Sequence[str] = (),
    *,
    stem: str = "tls",
) -> list[str]:
    """Return why a peer would refuse a serving or client pair; empty when it is good.

    Args:
        pair: The leaf, its intermediates and its key.
        authorities: The certificates to trust, PEM.
        purpose: What the leaf must be for.
        now: The time.
        names: DNS names and IP addresses by which it must be callable.
        stem: What the files are called in messages: `tls` for tls.crt and tls.key.

    Raises:
        CertificateError: Something cannot be read at all.
    """
    leaf, *intermediates = read_certificates(pair.certificates, f"{stem}.crt")
    trusted = read_certificates(authorities, "ca.crt")
    wanted = [read_name(name) for name in names]
    reasons = [
        *_fits(leaf, pair.key, stem),
        *_strength(leaf),
        *_validity(leaf, now),
        *_purpose(leaf, purpose),
        *_path(leaf, intermediates, trusted, now),
    ]
    own = alternative_names(leaf)
    reasons += [
        f"it is not for {name}; it is for: {', '.join(own) or 'no name at all'}"
        for name in wanted
        if not any(_matches(name, candidate) for candidate in own)
    ]
    return reasons


def verify_authority(pair: Pair, now: datetime) -> list[str]:
    """Return why an authority cannot be used; empty when it is good. A key that is kept elsewhere is no fault.

    Raises:
        CertificateError: Something cannot be read at all.
    """
    authority = read_certificates(pair.certificates, "ca.crt")[0]
    return (_fits(authority, pair.key, "ca") if pair.key else []) + authority_reasons(authority, now)


def authority_reasons(authority: x509.Certificate, now: datetime) -> list[str]:
    """Return why a certificate cannot sign others now; empty when it can."""
    reasons = [*_strength(authority), *_validity(authority, now)]
    usage = find(authority, x509.KeyUsage)
    if not is_authority(authority):
        reasons.append("it is no authority: basicConstraints must say CA:TRUE")
    if usage is not None and not usage.key_cert_sign:
        reasons.append("it may not sign certificates: keyUsage must hold keyCertSign")
    return reasons


def _fits(certificate: x509.Certificate, key: bytes, stem: str) -> list[str]:
    """Check that the private key is the certificate's and is strong enough."""
    try:
        public = read_key(key, f"{stem}.key").public_key()
    except CertificateError as error:
        return [str(error)]
    if public_bytes(public) == public_bytes(certificate.public_key()):
        return []
    return [f"{stem}.key does not fit {stem}.crt; allowed: the private key of its first certificate"]


def _strength(certificate: x509.Certificate) -> list[str]:
    """Check kind and size of the key, and the digest it was signed with."""
    weakness = weakness_of(certificate.public_key())
    reasons = [weakness] if weakness else []
    digest = certificate.signature_hash_algorithm
    if isinstance(digest, WEAK_DIGESTS):
        reasons.append(f"it is signed with {digest.name.upper()}; allowed: SHA-256 or stronger")
    return reasons


def _validity(certificate: x509.Certificate, now: datetime) -> list[str]:
    """Check that now lies in the certificate's life."""
    now = utc_seconds(now)
    if now < certificate.not_valid_before_utc:
        return [f"it is not valid before {plain(certificate.not_valid_before_utc)}; it is now {plain(now)}"]
    if now > certificate.not_valid_after_utc:
        return [f"it expired at {plain(certificate.not_valid_after_utc)}; it is now {plain(now)}"]
    return []


def _purpose(leaf: x509.Certificate, purpose: Purpose) -> list[str]:
    """Check what the leaf is for."""
    reasons = []
    usage = find(leaf, x509.KeyUsage)
    purposes = purposes_of(leaf)
    if is_authority(leaf):
        reasons.append("it is an authority; allowed: a leaf, basicConstraints CA:FALSE")
    if usage is not None and not usage.digital_signature:
        reasons.append("it may not sign handshakes: keyUsage must hold digitalSignature")
    if purpose not in purposes:
        reasons.append(f"it is for {', '.join(purposes) or 'no purpose'}; extendedKeyUsage must hold {purpose}")
    return reasons


def _path(
    leaf: x509.Certificate, intermediates: list[x509.Certificate], trusted: list[x509.Certificate], now: datetime
) -> list[str]:
    """Walk from the leaf to a trusted authority, and check every authority on the way."""
    below = 0  # authorities between the leaf and the one in hand: what pathLenConstraint limits
    child = leaf
    left = list(intermediates)
    while True:
        anchor = next((candidate for candidate in trusted if _signed(child, candidate)), None)
        issuer = anchor or next((candidate for candidate in left if _signed(child, candidate)), None)
        if issuer is None:
            return [f"no authority in ca.crt signed it; it was signed by {child.issuer.rfc4514_string()}"]
        reasons = [f"its authority {issuer.subject.rfc4514_string()}: {r}" for r in authority_reasons(issuer, now)]
        constraints = find(issuer, x509.BasicConstraints)
        if constraints is not None and constraints.path_length is not None and below > constraints.path_length:
            reasons.append(
                f"its authority {issuer.subject.rfc4514_string()} allows {constraints.path_length} authorities below "
                f"itself; there are {below}"
            )
        if reasons or anchor is not None:
            return reasons
        left.remove(issuer)
        child = issuer
        below += 1


def _signed(child: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether one certificate was signed with the key of another."""
    try:
        child.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _matches(name: str | IPv4Address | IPv6Address, candidate: str) -> bool:
    """Tell whether a name is covered by one in the certificate; `*` covers one label (RFC 6125, 6.4.3)."""
    if not isinstance(name, str):
        return candidate == str(name)
    candidate = candidate.lower()
    if candidate.startswith("*."):
        return name == candidate or name.partition(".")[2] == candidate[2:]
    return name == candidate
