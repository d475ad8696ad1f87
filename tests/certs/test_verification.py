from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from noisegate.certs.pair import CertificateError, Pair, PrivateKey, Purpose, write_certificates, write_key
from noisegate.certs.verification import verify_authority, verify_leaf

DAY = timedelta(days=1)
WEAK = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRONG = "allowed: ECDSA P-256, P-384 or P-521, Ed25519, RSA of 3072 bits or more"


@dataclass(frozen=True)
class Signer:
    """A certificate and its key, made by hand: with whatever fault a test wants."""

    certificate: x509.Certificate
    key: PrivateKey


def make(
    name: str,
    now: datetime,
    by: Signer | None = None,
    *,
    key: PrivateKey | None = None,
    constraints: x509.BasicConstraints | None = None,
    usage: str = "",
    purposes: tuple[x509.ObjectIdentifier, ...] = (),
    start: timedelta = -DAY,
    end: timedelta = DAY,
) -> Signer:
    """Sign a certificate for `name` with that of `by`, or with its own."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
    )
    if constraints:
        builder = builder.add_extension(constraints, critical=True)
    if usage:
        signs = usage == "signs certificates"
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=usage == "signs handshakes",
                content_commitment=False,
                key_encipherment=True,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=signs,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    signed = builder.sign((by.key if by else key), hashes.SHA256())
    return Signer(signed, key)


def pair(first: Signer, *others: Signer) -> Pair:
    """Return certificates with the key of the first."""
    return Pair(write_certificates(first.certificate, *(o.certificate for o in others)), write_key(first.key))


# Made with `openssl req -x509 -sha1`, since the library signs with nothing so weak. Valid from November 2026 to 2126.
SIGNED_WITH_SHA1 = b"""\
-----BEGIN CERTIFICATE-----
MIIBhjCCASygAwIBAgIUXOL2HUTm0aa1IINwFM5AUZDyw7gwCQYHKoZIzj0EATAP
MQ0wCwYDVQQDDARzaGExMCAXDTI2MTEyMjIxNDI1MloYDzIxMjYxMDI5MjE0MjUy
WjAPMQ0wCwYDVQQDDARzaGExMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEcWZV
VqFnL0wjUXaoF0+tZRG/Ici5Q6zaGvwpL3Npi6gYnY875p6UwSNO3p4hf/r0u7aC
3zVALRngiIKtVcZe9qNlMGMwHQYDVR0OBBYEFJZtfAsA9xcCynj2V2AYsa5nbYH7
MB8GA1UdIwQYMBaAFJZtfAsA9xcCynj2V2AYsa5nbYH7MAwGA1UdEwEB/wQCMAAw
EwYDVR0lBAwwCgYIKwYBBQUHAwEwCQYHKoZIzj0EAQNJADBGAiEA2OdjTjnw4+Ci
28dC/AYCugYzGh+TvL551yN8qODQl1ACIQDfJZks/5TVKcZQe3+Pdfcl8MIWp5o7
kykBM9uQ03cpfg==
-----END CERTIFICATE-----
"""
CA = x509.BasicConstraints(ca=True, path_length=None)
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)


def test_good_pairs(authority: Pair, server: Pair, client: Pair, rsa_authority: Pair, now: datetime) -> None:
    """What the authority made has no fault, by any of its names."""
    names = ["localhost", "LOCALHOST", "127.0.0.1", "::1", "a.example.org", "*.example.org"]
    assert verify_leaf(server, authority.certificates, Purpose.SERVER, now, names) == []
    assert verify_leaf(client, authority.certificates, Purpose.CLIENT, now, stem="client") == []
    assert verify_authority(authority, now) == []
    assert verify_authority(rsa_authority, now) == []
    assert verify_authority(Pair(authority.certificates, b""), now) == []
    bundle = rsa_authority.certificates + authority.certificates
    assert verify_leaf(server, bundle, Purpose.SERVER, now) == []


@pytest.mark.parametrize("name", ["example.org", "a.b.example.org", "127.0.0.2", "localhost.localdomain"])
def test_wrong_name(authority: Pair, server: Pair, now: datetime, name: str) -> None:
    """A name that the certificate does not hold is told, with those it holds; a star covers one label."""
    expected = [f"it is not for {name}; it is for: localhost, *.example.org, 127.0.0.1, ::1"]
    assert verify_leaf(server, authority.certificates, Purpose.SERVER, now, [name]) == expected


def test_wrong_purpose(authority: Pair, server: Pair, client: Pair, now: datetime) -> None:
    """A serving certificate is refused as a client's and the other way round."""
    as_client = verify_leaf(server, authority.certificates, Purpose.CLIENT, now)
    assert as_client == ["it is for serverAuth; extendedKeyUsage must hold clientAuth"]
    as_server = verify_leaf(client, authority.certificates, Purpose.SERVER, now)
    assert as_server == ["it is for clientAuth; extendedKeyUsage must hold serverAuth"]


def test_wrong_key(authority: Pair, server: Pair, client: Pair, now: datetime) -> None:
    """A key that is missing, unreadable or another's is told."""
    mixed = Pair(server.certificates, client.key)
    fits = "tls.key does not fit tls.crt; allowed: the private key of its first certificate"
    assert verify_leaf(mixed, authority.certificates, Purpose.SERVER, now) == [fits]
    missing = "tls.key: is missing; without the private key nothing can be signed or served"
    assert verify_leaf(Pair(server.certificates, b""), authority.certificates, Purpose.SERVER, now) == [missing]
    other = "ca.key does not fit ca.crt; allowed: the private key of its first certificate"
    assert verify_authority(Pair(authority.certificates, client.key), now) == [other]


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        pytest.param(-timedelta(minutes=5), "", id="first-second"),
        pytest.param(
            -timedelta(minutes=6),
            "it is not valid before 2026-03-01T11:55:00Z; it is now 2026-03-01T11:54:00Z",
            id="too-early",
        ),
        pytest.param(365 * DAY, "", id="last-second"),
        pytest.param(366 * DAY, "it expired at 2027-03-01T12:00:00Z; it is now 2027-03-02T12:00:00Z", id="expired"),
    ],
)
def test_validity(authority: Pair, server: Pair, now: datetime, moment: timedelta, reason: str) -> None:
    """A certificate is good from its first second to its last."""
    reasons = verify_leaf(server, authority.certificates, Purpose.SERVER, now + moment)
    assert [r for r in reasons if not r.startswith("its authority")] == ([reason] if reason else [])


def test_wrong_authority(server: Pair, rsa_authority: Pair, authority: Pair, now: datetime) -> None:
    """A leaf that no trusted authority signed is told with the name of who did, intermediates or not."""
    issuer = verify_leaf(server, rsa_authority.certificates, Purpose.SERVER, now)
    assert len(issuer) == 1
    assert issuer[0].startswith("no authority in ca.crt signed it; it was signed by CN=noisegate CA ")
    chained = Pair(server.certificates + authority.certificates, server.key)
    reasons = verify_leaf(chained, rsa_authority.certificates, Purpose.SERVER, now)
    assert reasons == issuer


def test_intermediates(now: datetime) -> None:
    """A path over intermediates is good, in any order, if each may sign and allows so many below itself."""
    root = make("root", now, constraints=CA, usage="signs certificates")
    middle = make("middle", now, root, constraints=x509.BasicConstraints(ca=True, path_length=0))
    lower = make("lower", now, middle, constraints=CA)
    good = make("leaf", now, middle, purposes=SERVER)
    trusted = write_certificates(root.certificate)
    assert verify_leaf(pair(good, lower, middle), trusted, Purpose.SERVER, now) == []
    deep = make("leaf", now, lower, purposes=SERVER)
    reasons = ["its authority CN=middle allows 0 authorities below itself; there are 1"]
    assert verify_leaf(pair(deep, lower, middle), trusted, Purpose.SERVER, now) == reasons


def test_faults_of_the_path(now: datetime) -> None:
    """Whatever is wrong with the authority that signed is told."""
    ends = timedelta(hours=-1)
    root = make("root", now, key=WEAK, usage="signs handshakes", end=ends)
    leaf = make("leaf", now, root, purposes=SERVER)
    reasons = [
        f"the key is RSA 2048; {STRONG}",
        "it expired at 2026-03-01T11:00:00Z; it is now 2026-03-01T12:00:00Z",
        "it is no authority: basicConstraints must say CA:TRUE",
        "it may not sign certificates: keyUsage must hold keyCertSign",
    ]
    trusted = write_certificates(root.certificate)
    expected = [f"its authority CN=root: {reason}" for reason in reasons]
    assert verify_leaf(pair(leaf), trusted, Purpose.SERVER, now) == expected
    key = f"ca.key: the key is RSA 2048; {STRONG}"
    assert verify_authority(pair(root), now) == [key, *reasons]


def test_faults_of_the_leaf(now: datetime) -> None:
    """All faults of a leaf are told at once."""
    root = make("root", now, constraints=CA)
    odd = make("leaf", now, root, key=WEAK, constraints=CA, usage="signs certificates")
    expected = [
        f"tls.key: the key is RSA 2048; {STRONG}",
        f"the key is RSA 2048; {STRONG}",
        "it is an authority; allowed: a leaf, basicConstraints CA:FALSE",
        "it may not sign handshakes: keyUsage must hold digitalSignature",
        "it is for no purpose; extendedKeyUsage must hold serverAuth",
        "it is not for a.b; it is for: no name at all",
    ]
    trusted = write_certificates(root.certificate)
    assert verify_leaf(pair(odd), trusted, Purpose.SERVER, now, ["a.b"]) == expected


def test_weak_digest(now: datetime) -> None:
    """A certificate signed with SHA-1 is refused, and so is the signature, by itself too."""
    later = now.replace(year=2027)
    issuer = "no authority in ca.crt signed it; it was signed by CN=sha1"
    reasons = verify_leaf(Pair(SIGNED_WITH_SHA1, b""), SIGNED_WITH_SHA1, Purpose.SERVER, later)
    assert reasons == [
        "tls.key: is missing; without the private key nothing can be signed or served",
        "it is signed with SHA1; allowed: SHA-256 or stronger",
        issuer,
    ]


def test_other_purposes(now: datetime) -> None:
    """A purpose that is not known is told by its number."""
    root = make("root", now, constraints=CA)
    odd = make("leaf", now, root, purposes=(ExtendedKeyUsageOID.CODE_SIGNING,))
    reasons = verify_leaf(pair(odd), write_certificates(root.certificate), Purpose.SERVER, now)
    assert reasons == ["it is for 1.3.6.1.5.5.7.3.3; extendedKeyUsage must hold serverAuth"]


def test_unreadable_input(server: Pair, authority: Pair, now: datetime) -> None:
    """What cannot be read at all is an error, told with its file."""
    reason = "holds no readable certificate; allowed: one or more blocks of PEM, -----BEGIN CERTIFICATE-----"
    table = [
        (Pair(b"nothing", b""), authority.certificates, f"tls.crt: {reason}"),
        (server, b"nothing", f"ca.crt: {reason}"),
    ]
    for leaf, trusted, message in table:
        with pytest.raises(CertificateError) as caught:
            verify_leaf(leaf, trusted, Purpose.SERVER, now)
        assert str(caught.value) == message
