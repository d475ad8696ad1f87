"""TLS from PEM: the serving pair, the authorities of clients, and which clients are let in.

A new context is built for every change and used for the connections accepted from then on; an old one lives as long as
its connections. So a removed authority is really gone (`load_verify_locations` only ever adds), and no session of an
old context can be resumed under a new one: its ticket keys are its own, and tickets are off anyway.
"""

import contextlib
import os
import ssl
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

LARGEST_PEM: Final = 1 << 20
"""Bytes of a certificate, key or bundle."""
_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL."""
_END: Final = "-----END CERTIFICATE-----"


class TlsError(ValueError):
    """Files that TLS cannot be served with: which one, what is wrong, and the mend."""


class Tls(NamedTuple):
    """What new connections are secured with.

    Attributes:
        context: For the server's side of a connection.
        expires: End of the serving certificate's validity, in seconds since the epoch.
        client_ca: The authorities of clients, as in their file; None where clients need no certificate.
    """

    context: ssl.SSLContext
    expires: float
    client_ca: bytes | None

    def doubt(self, now: float) -> str:
        """Say what is wrong with the certificate's validity, in seconds since the epoch; empty if nothing is."""
        if now < self.expires:
            return ""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.expires))
        return f"the serving certificate expired at {moment}: clients refuse it; issue a new one"


def read(contents: Mapping[str, bytes], cert: str, key: str, client_ca: str = "") -> Tls:
    """Build what connections are secured with, and prove it by a handshake in memory.

    An expired certificate is accepted (refusing it would mend nothing): see `Tls.doubt`.

    Args:
        contents: The files by path.
        cert: Path of the serving certificate, followed by its intermediates, PEM.
        key: Path of its private key, PEM, not encrypted.
        client_ca: Path of the authorities that sign client certificates, PEM; empty: clients need no certificate.

    Raises:
        TlsError: The first thing that is wrong.
    """
    for path, content in contents.items():
        if len(content) > LARGEST_PEM:
            raise TlsError(f"{path}: larger than {LARGEST_PEM >> 20} MiB; allowed: PEM files of certificates and keys")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # No renegotiation and no resumption: a client proves itself in full on every connection. Go's client, which the
    # API server uses, resumes nothing by default; without tickets a handshake is shorter by two messages.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, contents, cert, key)
    expires = _prove(context, contents[cert], cert)
    if not client_ca:
        return Tls(context, expires, None)
    try:
        context.load_verify_locations(cadata=contents[client_ca].decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(f"{client_ca}: no certificates in PEM form; write the authorities that sign clients") from error
    if not context.get_ca_certs():
        raise TlsError(f"{client_ca}: none of its certificates is an authority (basicConstraints CA:TRUE)")
    context.verify_mode = ssl.CERT_REQUIRED
    return Tls(context, expires, contents[client_ca])


def stranger(certificate: Mapping[str, object], allowed: Sequence[str]) -> str:
    """Say why a client is not let in; empty if it is.

    Args:
        certificate: As `ssl.SSLSocket.getpeercert` gives it; verified by the handshake.
        allowed: Names, one of which the certificate must bear: its common name or a subject alternative name (DNS, URI,
            e-mail). `CN:`, `DNS:`, `URI:` and `email:` before a name bind it to that kind. Compared exactly, DNS names
            and kinds without regard to case. Empty: everybody the handshake let in.
    """
    if not allowed:
        return ""
    names = client_names(certificate)
    if any(not names.isdisjoint(_spellings(name)) for name in allowed):
        return ""
    borne = ", ".join(sorted(name for name in names if ":" in name)) or "no name"
    return f"the client certificate bears {borne}; the server lets in only {', '.join(allowed)} (client-names)"


def client_names(certificate: Mapping[str, object]) -> frozenset[str]:
    """Return the names of a certificate, each bare and with its kind before it."""
    found: set[str] = set()
    for kind, value in _names(certificate):
        found.update((value, f"{kind}:{value.lower() if kind == 'DNS' else value}"))
    return frozenset(found)


def _names(certificate: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for part in _tuples(certificate.get("subject")):
        for pair in _tuples(part):
            if pair[0] == "commonName":
                yield "CN", str(pair[1])
    for pair in _tuples(certificate.get("subjectAltName")):
        if pair[0] in ("DNS", "URI", "email"):
            yield str(pair[0]), str(pair[1])


def _tuples(value: object) -> tuple[tuple[object, ...], ...]:
    return value if isinstance(value, tuple) else ()


def _spellings(name: str) -> tuple[str, ...]:
    kind, colon, rest = name.partition(":")
    kinds = {"cn": "CN", "dns": "DNS", "uri": "URI", "email": "email"}
    if not colon or kind.lower() not in kinds:
        return (name, f"DNS:{name.lower()}")
    kind = kinds[kind.lower()]
    return (f"{kind}:{rest.lower() if kind == 'DNS' else rest}",)


def _load_pair(context: ssl.SSLContext, contents: Mapping[str, bytes], cert: str, key: str) -> None:
    def no_password() -> str:
        raise TlsError(
            f"{key}: the private key is encrypted; write it without a password, readable for the server only"
        )

    with _as_file(contents[cert]) as cert_file, _as_file(contents[key]) as key_file:
        try:
            context.load_cert_chain(cert_file, key_file, no_password)
        except ssl.SSLError as error:
            raise TlsError(_why(error, contents, cert, key)) from error


def _why(error: ssl.SSLError, contents: Mapping[str, bytes], cert: str, key: str) -> str:
    # OpenSSL keeps one pair per kind of key: an RSA key beside an ECDSA certificate finds no certificate of its kind.
    if error.reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}:
        return f"{key}: the private key does not belong to the certificate in {cert}; write the two of one pair"
    if error.reason in {"EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "CA_KEY_TOO_SMALL"}:
        return f"{cert}: the certificate is too weak for TLS ({error.reason}); allowed: ECDSA P-256, RSA >= 2048 bits"
    if b"-----BEGIN CERTIFICATE-----" not in contents[cert]:
        return f"{cert}: no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
    if b"PRIVATE KEY-----" not in contents[key]:
        return f"{key}: no private key in PEM form (-----BEGIN PRIVATE KEY-----)"
    return f"{cert}, {key}: not readable as certificate and private key ({error.reason or 'damaged PEM'})"


def _prove(context: ssl.SSLContext, chain: bytes, cert: str) -> float:
    """Shake hands with ourselves, which also tells what only a peer is told: the end of the certificate's validity."""
    text = chain.decode("utf-8", "replace")
    leaf = text[text.index("-----BEGIN CERTIFICATE-----") : text.index(_END) + len(_END)]
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(cadata=leaf)
    client.verify_flags = ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
    upstream, downstream = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = context.wrap_bio(upstream, downstream, server_side=True)
    theirs = client.wrap_bio(downstream, upstream)
    try:
        for side in (theirs, ours, theirs, ours):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
        peer = theirs.getpeercert()
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(f"{cert}: TLS does not work with this certificate: {error}") from error
    return float(ssl.cert_time_to_seconds(str((peer or {})["notAfter"])))


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Give bytes a path, for OpenSSL: in memory, so that a key is never written to a disk."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("pem", os.MFD_CLOEXEC)
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{number}"
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "pem")
            path.write_bytes(content)
            yield str(path)
