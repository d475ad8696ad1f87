"""How the certificates of a cluster follow one another, so that whoever calls always trusts whoever answers.

    authority      ca.crt: every authority that is trusted, the one that signs first; ca.key
    serving pair   tls.crt, tls.key, as the replicas have it mounted
    bundles        the caBundle of every webhook entry: what API servers trust

A change of the authority widens what is trusted, waits until every API server knows, has the new one sign, waits until
every replica serves what it signed, and narrows what is trusted. `next_step` says what to do now, from what is there now;
nothing is remembered in between, so that whoever takes over goes on from wherever the last one stopped.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from noisegate.certs.authority import AUTHORITY_LIFE, LEAF_LIFE, issue_server, make_authority
from noisegate.certs.names import Names
from noisegate.certs.pair import (
    CertificateError,
    Pair,
    Purpose,
    facts_of,
    is_authority,
    plain,
    read_certificates,
    write_certificates,
)
from noisegate.certs.rotation import CA, narrowed, succeeded
from noisegate.certs.verification import authority_reasons, verify_authority, verify_leaf

Wish = Literal["", "ca", "leaf"]
"""What an operator asks to have renewed now."""


class Settings(NamedTuple):
    """How long things live, and for whom.

    Attributes:
        names: Of the serving certificate.
        leaf_life: Of a serving certificate.
        authority_life: Of an authority.
    """

    names: Names
    leaf_life: timedelta = LEAF_LIFE
    authority_life: timedelta = AUTHORITY_LIFE


class Seen(NamedTuple):
    """What is there.

    Attributes:
        authority: None: it is not there.
        serving: None: it is not there.
        beside: What stands beside the serving pair as authorities, PEM.
        bundles: The `caBundle` of every entry; none: nobody calls.
        known: Whether the bundles have been what they shall be for so long that every API server knows them.
        served: What each replica serves, its first certificate; None: it did not answer.
        switched: Whether the replicas have served what the new authority signed for so long that every API server has
            met them so.
        wish: What an operator asks for.
    """

    authority: Pair | None
    serving: Pair | None
    beside: bytes = b""
    bundles: Sequence[bytes] = ()
    known: bool = False
    served: Sequence[x509.Certificate | None] = ()
    switched: bool = False
    wish: Wish = ""


class Step(NamedTuple):
    """What to do now, and nothing else before it is done.

    Attributes:
        reason: What happens, in one CamelCase word, for an Event; empty: there is nothing to do.
        note: What happens, in a sentence.
        authority: The authority to be written.
        serving: The serving pair to be written.
        beside: The authorities to be written beside it.
        bundle: What every `caBundle` shall be.
        waits: What is waited for; empty: nothing.
        grants: The wish that is granted by this.
    """

    reason: str = ""
    note: str = ""
    authority: Pair | None = None
    serving: Pair | None = None
    beside: bytes | None = None
    bundle: bytes | None = None
    waits: str = ""
    grants: Wish = ""


def next_step(seen: Seen, now: datetime, settings: Settings) -> Step:
    """Return what to do now.

    Raises:
        CertificateError: The settings make no certificate.
    """
    authority = seen.authority
    if authority is None or _unusable(authority, now):
        return _new_authority(seen, now, settings)
    trusted = read_certificates(authority.certificates, "ca.crt")
    due = facts_of(trusted[0]).due(now)
    if len(trusted) == 1 and (due or seen.wish == "ca"):
        widened, _ = succeeded({CA: authority}, now, force=True, life=settings.authority_life)
        note = (
            f"a new authority is trusted beside the old one, {_names(widened[CA].certificates)}; "
            "it will sign when every API server knows it"
        )
        return Step("AuthorityChangeBegun", note, authority=widened[CA], grants="ca")
    if any(bundle != authority.certificates for bundle in seen.bundles):
        names = _names(authority.certificates)
        note = f"caBundle of the webhook configurations was brought to the {_number(trusted)} trusted, {names}"
        return Step("CaBundleWritten", note, bundle=authority.certificates)
    return _serving_step(seen, authority, trusted, now, settings)


def _serving_step(
    seen: Seen, authority: Pair, trusted: list[x509.Certificate], now: datetime, settings: Settings
) -> Step:
    """Return what to do about the serving pair, once the bundles are as they shall be."""
    signer = trusted[0]
    reasons = _faults(seen.serving, authority, now, settings.names)
    if reasons or seen.serving is None:
        made = issue_server(authority, settings.names, now, life=settings.leaf_life)
        why = reasons[0] if reasons else "there was none"
        note = f"a serving certificate was issued, {_leaf(made)}: {why}"
        return Step("CertificateIssued", note, serving=made, beside=authority.certificates, grants="leaf")
    leaf = read_certificates(seen.serving.certificates, "tls.crt")[0]
    if leaf.issuer != signer.subject:
        if not seen.known:
            return Step(waits="every API server to know the new authority")
        made = issue_server(authority, settings.names, now, life=settings.leaf_life)
        note = f"the new authority signed a serving certificate, {_leaf(made)}; replicas take it up"
        return Step("AuthorityChangeSwitched", note, serving=made, beside=authority.certificates, grants="leaf")
    if facts_of(leaf).due(now) or seen.wish == "leaf":
        made = issue_server(authority, settings.names, now, life=settings.leaf_life)
        note = f"the serving certificate was renewed, {_leaf(made)}"
        return Step("CertificateRenewed", note, serving=made, beside=authority.certificates, grants="leaf")
    if len(trusted) > 1:
        behind = [one for one in seen.served if one is None or one.issuer != signer.subject]
        if behind:
            return Step(waits=f"{len(behind)} of {len(seen.served)} replicas to serve what the new authority signed")
        if not (seen.switched and seen.known):
            return Step(waits="calls under way, before the old authority is taken out")
        result, _ = narrowed({CA: authority, "tls": seen.serving})
        names = _names(result[CA].certificates)
        note = f"every replica serves what the new authority, {names}, signed; the old one is no longer trusted"
        return Step("AuthorityChangeFinished", note, authority=result[CA])
    if seen.beside != authority.certificates:
        note = f"ca.crt beside the serving pair was brought up to date, {_names(authority.certificates)}"
        return Step("AuthoritiesPublished", note, beside=authority.certificates)
    return Step()


def _new_authority(seen: Seen, now: datetime, settings: Settings) -> Step:
    """Make an authority where none can sign; what may still be served under others stays trusted until that has changed."""
    made = make_authority(now, life=settings.authority_life)
    rescued: dict[bytes, x509.Certificate] = {}
    before = b"" if seen.authority is None else seen.authority.certificates
    for text in (before, seen.beside, *seen.bundles):
        for certificate in _readable(text):
            if is_authority(certificate) and not authority_reasons(certificate, now):
                rescued[certificate.fingerprint(_SHA256)] = certificate
    kept = write_certificates(*list(rescued.values())[:MOST_RESCUED]) if rescued else b""
    still = f"; {_number(list(rescued.values()))} found is still trusted" if rescued else ""
    note = f"an authority was made, {_names(made.certificates)}{still}"
    return Step("AuthorityMade", note, authority=Pair(made.certificates + kept, made.key), grants="ca")


def all_switched(authority: Pair | None, served: Sequence[x509.Certificate | None]) -> bool:
    """Tell whether every replica answers, with what the authority that signs now has signed."""
    trusted = [] if authority is None else _readable(authority.certificates)
    return bool(trusted) and all(one is not None and one.issuer == trusted[0].subject for one in served)


MOST_RESCUED = 4
"""Authorities that are kept on trust: there is never more than one in good order."""
_SHA256 = hashes.SHA256()


def _readable(text: bytes) -> list[x509.Certificate]:
    try:
        return read_certificates(text, "") if text.strip() else []
    except CertificateError:
        return []


def _unusable(authority: Pair, now: datetime) -> bool:
    try:
        return not authority.key or bool(verify_authority(authority, now))
    except CertificateError:
        return True


def _faults(serving: Pair | None, authority: Pair, now: datetime, names: Names) -> list[str]:
    if serving is None:
        return []
    try:
        wanted = [str(name) for name in (*names.dns, *names.addresses)]
        return verify_leaf(serving, authority.certificates, Purpose.SERVER, now, wanted)
    except CertificateError as error:
        return [str(error)]


def _leaf(pair: Pair) -> str:
    end = plain(facts_of(read_certificates(pair.certificates, "")[0]).not_after)
    return f"{_names(pair.certificates)}, valid until {end}"


def _names(text: bytes) -> str:
    """Name certificates by the beginning of their SHA-256 fingerprints, as `openssl x509 -fingerprint -sha256` prints them."""
    return " and ".join(one.fingerprint(_SHA256)[:4].hex(":").upper() for one in read_certificates(text, ""))


def _number(certificates: Sequence[x509.Certificate]) -> str:
    return f"{len(certificates)} {'authority' if len(certificates) == 1 else 'authorities'}"
