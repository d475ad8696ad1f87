from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from noisegate.certs.authority import issue_client, issue_server, make_authority, reissue
from noisegate.certs.names import read_names
from noisegate.certs.pair import (
    CertificateError,
    Pair,
    facts_of,
    find,
    public_bytes,
    read_certificates,
    read_key,
    write_certificates,
    write_key,
)

LOCAL = read_names(["localhost"])


def first(pair: Pair) -> x509.Certificate:
    """Return the certificate whose key the pair holds, after checking that it fits."""
    certificate = read_certificates(pair.certificates, "")[0]
    assert public_bytes(read_key(pair.key, "").public_key()) == public_bytes(certificate.public_key())
    return certificate


def usages(certificate: x509.Certificate) -> set[str]:
    """Return the names of the key usages that are set; the last two have a meaning only with keyAgreement."""
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    names = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
    return {name for name in [*names, "key_cert_sign", "crl_sign"] if getattr(usage.value, name)}


def test_authority(authority: Pair, now: datetime) -> None:
    """An authority signs leaves only, names itself, and lives for ten years, backdated by five minutes."""
    certificate = first(authority)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    identifier = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(ca=True, path_length=0))
    assert usages(certificate) == {"key_cert_sign", "crl_sign"}
    assert find(certificate, x509.SubjectKeyIdentifier) == identifier
    assert find(certificate, x509.AuthorityKeyIdentifier) == (
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    )
    assert certificate.issuer == certificate.subject
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    assert certificate.not_valid_before_utc == now - timedelta(minutes=5)
    assert certificate.not_valid_after_utc == now + timedelta(days=3650)
    certificate.verify_directly_issued_by(certificate)


def test_authorities_differ_in_name(now: datetime) -> None:
    """Two authorities are never taken for each other."""
    assert first(make_authority(now)).subject != first(make_authority(now)).subject


def test_server(authority: Pair, server: Pair, now: datetime) -> None:
    """A serving certificate is for its names and for serving, and nothing else."""
    certificate, signer = first(server), first(authority)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(ca=False, path_length=None))
    assert usages(certificate) == {"digital_signature"}
    assert find(certificate, x509.ExtendedKeyUsage) == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    known = find(signer, x509.SubjectKeyIdentifier)
    assert known is not None
    assert find(certificate, x509.AuthorityKeyIdentifier) == (
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)
    )
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    assert certificate.not_valid_after_utc == now + timedelta(days=365)
    certificate.verify_directly_issued_by(signer)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        pytest.param("kube-apiserver", ("kube-apiserver",), id="dns"),
        pytest.param("10.0.0.1", ("10.0.0.1",), id="address"),
        pytest.param("system:kube-apiserver", (), id="neither"),
    ],
)
def test_client(authority: Pair, now: datetime, name: str, names: tuple[str, ...]) -> None:
    """A client certificate carries its name as CN, no group, and the name as SAN where it can be one."""
    facts = facts_of(first(issue_client(authority, name, now)))
    assert (facts.subject, facts.names, facts.purposes) == (f"CN={name}", names, ("clientAuth",))


def test_long_names_need_no_cn(authority: Pair, now: datetime) -> None:
    """A first name that is too long for a CN stands in the subject alternative names only."""
    name = ".".join(["a" * 60, "b" * 60])
    facts = facts_of(first(issue_server(authority, read_names([name]), now)))
    assert (facts.subject, facts.names) == ("O=noisegate", (name,))


def test_rsa_on_request(rsa_authority: Pair, now: datetime) -> None:
    """RSA keys of 3072 bits are made where they are asked for, and renewed as such."""
    old = issue_server(rsa_authority, LOCAL, now, rsa_bits=3072)
    new = reissue(rsa_authority, old, now)
    assert [facts_of(first(pair)).key for pair in (rsa_authority, old, new)] == ["RSA 3072"] * 3


def test_every_pair_has_its_own_key_and_serial(authority: Pair, now: datetime) -> None:
    """Nothing is used twice."""
    made = [issue_server(authority, LOCAL, now) for _ in range(3)]
    assert len({pair.key for pair in made}) == 3
    assert len({first(pair).serial_number for pair in made}) == 3


def test_a_leaf_never_outlives_its_authority(now: datetime) -> None:
    """A leaf's life lies inside that of its authority."""
    authority = make_authority(now, life=timedelta(days=30))
    facts = facts_of(first(issue_server(authority, LOCAL, now - timedelta(minutes=1))))
    assert (facts.not_before, facts.not_after) == (now - timedelta(minutes=5), now + timedelta(days=30))


@pytest.mark.parametrize(
    ("life", "text"),
    [
        pytest.param(timedelta(), "0 s", id="zero"),
        pytest.param(timedelta(days=-1), "-86400 s", id="negative"),
        pytest.param(timedelta(days=36501), "36501 d", id="too-long"),
    ],
)
def test_bad_life(authority: Pair, now: datetime, life: timedelta, text: str) -> None:
    """A life must be positive and at most a hundred years."""
    expected = f"life of {text} is not allowed; allowed: 1 s to 36500 d, such as 365 d"
    makers: list[Callable[[], Pair]] = [
        lambda: make_authority(now, life=life),
        lambda: issue_server(authority, LOCAL, now, life=life),
        lambda: issue_client(authority, "c", now, life=life),
    ]
    for make in makers:
        with pytest.raises(CertificateError) as caught:
            make()
        assert str(caught.value) == expected


def test_life_beyond_the_calendar() -> None:
    """A life must end before the year 10000."""
    with pytest.raises(CertificateError) as caught:
        make_authority(datetime(9999, 1, 1, tzinfo=UTC))
    assert str(caught.value) == "a life of 3650 d from 9999-01-01T00:00:00Z ends after the year 9999"


def test_bad_rsa_size(authority: Pair, now: datetime) -> None:
    """RSA keys that are too small are never made."""
    makers: list[Callable[[], Pair]] = [
        lambda: make_authority(now, rsa_bits=2048),
        lambda: issue_client(authority, "c", now, rsa_bits=2048),
    ]
    for make in makers:
        with pytest.raises(CertificateError) as caught:
            make()
        assert str(caught.value) == "RSA key size 2048 is not allowed; allowed: 3072 to 8192 bits"


def test_authorities_that_cannot_sign(authority: Pair, server: Pair, now: datetime) -> None:
    """Nothing is signed by an authority that is expired, has no key or another's, or is none."""
    other = make_authority(now)
    missing = "ca.key: is missing; without the private key nothing can be signed or served"
    table: list[tuple[Pair, datetime, str]] = [
        (Pair(authority.certificates, b""), now, missing),
        (
            Pair(authority.certificates, other.key),
            now,
            "ca.key: does not fit ca.crt; allowed: the private key of its first certificate",
        ),
        (
            authority,
            now + timedelta(days=3651),
            "ca.crt: it expired at 2036-02-27T12:00:00Z; it is now 2036-02-28T12:00:00Z",
        ),
        (server, now, "ca.crt: it is no authority: basicConstraints must say CA:TRUE"),
    ]
    for signer, moment, message in table:
        with pytest.raises(CertificateError) as caught:
            issue_server(signer, LOCAL, moment)
        assert str(caught.value) == message


def test_reissue_keeps_all_but_key_serial_and_life(authority: Pair, client: Pair, now: datetime) -> None:
    """A renewed certificate says the same of its owner, for the same length of time from now on."""
    later = now + timedelta(days=300)
    old, new = facts_of(first(client)), facts_of(first(reissue(authority, client, later)))
    assert new == old._replace(
        serial=new.serial,
        fingerprint=new.fingerprint,
        not_before=later - timedelta(minutes=5),
        not_after=later + timedelta(days=365),
    )
    assert new.serial != old.serial
    shorter = facts_of(first(reissue(authority, client, later, life=timedelta(days=1))))
    assert shorter.not_after == later + timedelta(days=1)


def test_reissue_of_an_authority(authority: Pair, now: datetime) -> None:
    """What is no leaf cannot be renewed as one."""
    with pytest.raises(CertificateError) as caught:
        reissue(authority, authority, now, place="tls.crt")
    assert str(caught.value) == "tls.crt: cannot be renewed; allowed: a certificate for serverAuth or clientAuth"


def test_foreign_authority(now: datetime) -> None:
    """An authority without a key identifier and with an Ed25519 key can sign; very short lives are kept."""
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "elsewhere")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(minutes=2))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, None)
    )
    authority = Pair(write_certificates(certificate), write_key(key))
    leaf = first(issue_server(authority, LOCAL, now))
    leaf.verify_directly_issued_by(certificate)
    assert find(leaf, x509.AuthorityKeyIdentifier) == (
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    )
    again = facts_of(first(reissue(authority, Pair(write_certificates(leaf), b""), now)))
    assert again.not_after == now + timedelta(minutes=2)
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
