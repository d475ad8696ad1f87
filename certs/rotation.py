"""What a directory of certificates should hold next: issue, renew at two thirds of life, change the authority.

A directory holds pairs by stem: `ca`, `tls` (serving) and `client`. Every function takes what is there and the time,
and returns what shall be there; nothing is written here.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography import x509

from noisegate.certs.authority import (
    AUTHORITY_LIFE,
    LEAF_LIFE,
    issue_client,
    issue_server,
    life_of,
    make_authority,
    reissue,
    rsa_bits_of,
)
from noisegate.certs.names import Names
from noisegate.certs.pair import (
    CertificateError,
    Pair,
    Purpose,
    facts_of,
    plain,
    read_certificates,
    write_certificates,
)

CA = "ca"
LEAVES = {"tls": Purpose.SERVER, "client": Purpose.CLIENT}

Pairs = Mapping[str, Pair]


class Outcome(NamedTuple):
    """What became of one pair.

    Attributes:
        stem: `ca`, `tls` or `client`.
        done: Whether it was changed.
        text: What was done, or why it was left, without the stem.
    """

    stem: str
    done: bool
    text: str


def issued(
    pairs: Pairs,
    now: datetime,
    *,
    server: Names | None = None,
    client: str | None = None,
    life: timedelta = LEAF_LIFE,
    authority_life: timedelta = AUTHORITY_LIFE,
    rsa_bits: int | None = None,
    replace: bool = False,
) -> tuple[dict[str, Pair], list[Outcome]]:
    """Add a serving and a client pair, and the authority where there is none.

    Args:
        pairs: What is there.
        now: The time.
        server: Names of the serving certificate; None for no serving pair.
        client: Name of the client; None for no client pair.
        life: Of the leaves.
        authority_life: Of an authority that has to be made.
        rsa_bits: Size of RSA keys; None for ECDSA P-256.
        replace: Whether leaves that are there may be replaced.

    Raises:
        CertificateError: A pair is there already, or what `authority` raises.
    """
    result = dict(pairs)
    outcomes = []
    for stem in [stem for stem, given in (("tls", server), ("client", client)) if given is not None]:
        if stem in pairs and not replace:
            raise CertificateError(
                f"{stem}.crt",
                "is there already; allowed: renewing it (noisegate certs renew), or issuing with --replace",
            )
    if CA in pairs:
        outcomes.append(Outcome(CA, False, f"left: {_until(pairs[CA])}"))
    else:
        result[CA] = make_authority(now, life=authority_life, rsa_bits=rsa_bits)
        outcomes.append(Outcome(CA, True, f"made: {_until(result[CA])}"))
    if server is not None:
        result["tls"] = issue_server(result[CA], server, now, life=life, rsa_bits=rsa_bits)
        outcomes.append(Outcome("tls", True, f"issued: {_until(result['tls'])}"))
    if client is not None:
        result["client"] = issue_client(result[CA], client, now, life=life, rsa_bits=rsa_bits)
        outcomes.append(Outcome("client", True, f"issued: {_until(result['client'])}"))
    return result, outcomes


def renewed(
    pairs: Pairs, now: datetime, *, force: bool = False, life: timedelta | None = None
) -> tuple[dict[str, Pair], list[Outcome]]:
    """Replace the leaves that are past two thirds of their life, or all with `force`, under the same names.

    Raises:
        CertificateError: There is nothing to renew, or what `authority` raises.
    """
    authorities = _authorities(pairs)
    result = dict(pairs)
    outcomes = []
    for stem in [stem for stem in LEAVES if stem in pairs]:
        leaf = _first(pairs, stem)
        if force or facts_of(leaf).due(now):
            result[stem] = reissue(pairs[CA], pairs[stem], now, life=life, place=f"{stem}.crt")
            outcomes.append(Outcome(stem, True, f"renewed: {_until(result[stem])}"))
        else:
            earlier = "" if leaf.issuer == authorities[0].subject else ", signed by an earlier authority"
            outcomes.append(Outcome(stem, False, f"left: {_progress(leaf, now)}{earlier}"))
    due = ", must be renewed (--ca)" if facts_of(authorities[0]).due(now) else ""
    outcomes.append(Outcome(CA, False, f"left: {_progress(authorities[0], now)}{due}"))
    return result, outcomes


def succeeded(
    pairs: Pairs, now: datetime, *, force: bool = False, life: timedelta | None = None
) -> tuple[dict[str, Pair], list[Outcome]]:
    """Put a new authority before the old ones, once two thirds of its life are over or with `force`.

    The earlier authorities stay trusted until they expire or `narrowed` takes them out, and the leaves stay as they
    are: a peer that does not know the new authority yet must not meet a leaf signed by it.

    Raises:
        CertificateError: There is no authority, or what `authority` raises.
    """
    authorities = _authorities(pairs)
    current = authorities[0]
    if not force and not facts_of(current).due(now):
        return dict(pairs), [Outcome(CA, False, f"left: {_progress(current, now)}")]
    made = make_authority(now, life=life or life_of(current), rsa_bits=rsa_bits_of(current))
    trusted = [certificate for certificate in authorities if certificate.not_valid_after_utc >= now]
    widened = Pair(made.certificates + write_certificates(*trusted), made.key)
    text = f"renewed: {_until(widened)}; ca.crt holds {1 + len(trusted)} authorities, the new one first"
    return {**pairs, CA: widened}, [Outcome(CA, True, text)]


def narrowed(pairs: Pairs) -> tuple[dict[str, Pair], list[Outcome]]:
    """Take the earlier authorities out of ca.crt.

    Raises:
        CertificateError: There is no authority, or a leaf here is still signed by an earlier one.
    """
    current, *earlier = _authorities(pairs)
    if not earlier:
        return dict(pairs), [Outcome(CA, False, "left: ca.crt holds one authority")]
    for stem in [stem for stem in LEAVES if stem in pairs]:
        if _first(pairs, stem).issuer != current.subject:
            raise CertificateError(
                f"{stem}.crt",
                "is signed by an earlier authority, which must stay; renew it first (noisegate certs renew --force)",
            )
    text = f"narrowed: {len(earlier)} earlier authorities taken out of ca.crt"
    return {**pairs, CA: Pair(write_certificates(current), pairs[CA].key)}, [Outcome(CA, True, text)]


def _authorities(pairs: Pairs) -> list[x509.Certificate]:
    """Return the authorities of a directory, the one that signs now first."""
    if CA not in pairs:
        raise CertificateError(
            "", "holds no ca.crt; allowed: a directory that noisegate filled (noisegate certs issue)"
        )
    return read_certificates(pairs[CA].certificates, "ca.crt")


def _first(pairs: Pairs, stem: str) -> x509.Certificate:
    """Return the certificate whose key the pair holds."""
    return read_certificates(pairs[stem].certificates, f"{stem}.crt")[0]


def _until(pair: Pair) -> str:
    """Say what was made and how long it holds."""
    facts = facts_of(read_certificates(pair.certificates, "")[0])
    names = f" for {', '.join(facts.names)}" if facts.names else ""
    return f"{facts.subject}, {facts.key}{names}, valid until {plain(facts.not_after)}"


def _progress(certificate: x509.Certificate, now: datetime) -> str:
    """Say how much of its life is over and when it is to be renewed."""
    facts = facts_of(certificate)
    return f"{facts.used(now):.0%} of its life is over, to be renewed from {plain(facts.renew_at)}"
