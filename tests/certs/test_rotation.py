from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from noisegate.certs.names import Names, read_names
from noisegate.certs.pair import CertificateError, Facts, Pair, facts_of, read_certificates
from noisegate.certs.rotation import CA, LEAVES, Outcome, issued, narrowed, renewed, succeeded
from noisegate.certs.verification import verify_authority, verify_leaf

LOCAL = read_names(["localhost"])
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def pairs(now: datetime) -> dict[str, Pair]:
    """An authority with a serving and a client pair."""
    return issued({}, now, server=LOCAL, client="kube-apiserver")[0]


def facts(pairs: dict[str, Pair], stem: str, index: int = 0) -> Facts:
    """Return what a certificate of a pair says."""
    return facts_of(read_certificates(pairs[stem].certificates, "")[index])


def check(pairs: dict[str, Pair], now: datetime) -> None:
    """Every pair must be good."""
    assert verify_authority(pairs[CA], now) == []
    for stem in [stem for stem in LEAVES if stem in pairs]:
        assert verify_leaf(pairs[stem], pairs[CA].certificates, LEAVES[stem], now, stem=stem) == []


def test_issue_into_nothing(now: datetime) -> None:
    """Where there is no authority, one is made, and it signs what was asked for."""
    made, outcomes = issued({}, now, server=LOCAL, client="c", life=DAY, authority_life=2 * DAY)
    check(made, now)
    ca = facts(made, CA).subject
    assert outcomes == [
        Outcome(CA, True, f"made: {ca}, ECDSA P-256, valid until 2026-03-03T12:00:00Z"),
        Outcome(
            "tls", True, "issued: CN=localhost,O=noisegate, ECDSA P-256 for localhost, valid until 2026-03-02T12:00:00Z"
        ),
        Outcome("client", True, "issued: CN=c, ECDSA P-256 for c, valid until 2026-03-02T12:00:00Z"),
    ]


def test_issue_beside_what_is_there(pairs: dict[str, Pair], now: datetime) -> None:
    """The authority that is there signs, and the other pairs stay."""
    first, _ = issued({CA: pairs[CA]}, now, server=LOCAL)
    second, outcomes = issued(first, now, client="c")
    assert (second[CA], second["tls"]) == (pairs[CA], first["tls"])
    assert [(outcome.stem, outcome.done) for outcome in outcomes] == [(CA, False), ("client", True)]
    check(second, now)


@pytest.mark.parametrize(("server", "client", "stem"), [(LOCAL, None, "tls"), (None, "c", "client")])
def test_issue_over_what_is_there(
    pairs: dict[str, Pair], now: datetime, server: Names | None, client: str | None, stem: str
) -> None:
    """A pair that is there is replaced only on request."""
    with pytest.raises(CertificateError) as caught:
        issued(pairs, now, server=server, client=client)
    assert str(caught.value) == (
        f"{stem}.crt: is there already; allowed: renewing it (noisegate certs renew), or issuing with --replace"
    )
    replaced, _ = issued(pairs, now, server=server, client=client, replace=True)
    assert [name for name in pairs if replaced[name] != pairs[name]] == [stem]


def test_renew_at_two_thirds(pairs: dict[str, Pair], now: datetime) -> None:
    """Leaves are left before two thirds of their life and renewed from then on; the authority stays."""
    due = facts(pairs, "tls").renew_at
    same, outcomes = renewed(pairs, due - timedelta(seconds=1))
    assert same == pairs
    assert outcomes == [
        Outcome("tls", False, "left: 67% of its life is over, to be renewed from 2026-10-30T19:58:20Z"),
        Outcome("client", False, "left: 67% of its life is over, to be renewed from 2026-10-30T19:58:20Z"),
        Outcome(CA, False, "left: 7% of its life is over, to be renewed from 2032-10-28T19:58:20Z"),
    ]
    new, outcomes = renewed(pairs, due)
    assert [outcome.done for outcome in outcomes] == [True, True, False]
    assert [stem for stem in pairs if new[stem] == pairs[stem]] == [CA]
    assert facts(new, "tls").not_after == due + 365 * DAY
    check(new, due)


def test_renew_by_force(pairs: dict[str, Pair], now: datetime) -> None:
    """With force leaves are renewed whatever their age, for another life where one is given."""
    new, _ = renewed({CA: pairs[CA], "tls": pairs["tls"]}, now, force=True, life=DAY)
    assert facts(new, "tls").not_after == now + DAY
    assert set(new) == {CA, "tls"}


def test_renew_says_when_the_authority_is_due(pairs: dict[str, Pair], now: datetime) -> None:
    """An authority past two thirds of its life is never renewed by the way, but told."""
    late = facts(pairs, CA).renew_at
    new, outcomes = renewed(pairs, late)
    assert new[CA] == pairs[CA]
    assert outcomes[-1] == Outcome(
        CA, False, "left: 67% of its life is over, to be renewed from 2032-10-28T19:58:20Z, must be renewed (--ca)"
    )


def test_change_of_the_authority(pairs: dict[str, Pair], now: datetime) -> None:
    """Widen, renew, narrow: after each step everything verifies, and peers of the step before still agree."""
    old = pairs[CA].certificates
    widened, outcomes = succeeded(pairs, now, force=True)
    check(widened, now)
    assert widened[CA].certificates.endswith(old)
    assert (widened["tls"], widened["client"]) == (pairs["tls"], pairs["client"])
    assert facts(widened, CA).not_after == now + 3650 * DAY
    assert outcomes == [
        Outcome(
            CA,
            True,
            f"renewed: {facts(widened, CA).subject}, ECDSA P-256, valid until 2036-02-27T12:00:00Z; "
            "ca.crt holds 2 authorities, the new one first",
        )
    ]

    with pytest.raises(CertificateError) as caught:
        narrowed(widened)
    assert str(caught.value) == (
        "tls.crt: is signed by an earlier authority, which must stay; renew it first (noisegate certs renew --force)"
    )

    left, outcomes = renewed(widened, now)
    assert left == widened
    assert outcomes[0].text == (
        "left: 0% of its life is over, to be renewed from 2026-10-30T19:58:20Z, signed by an earlier authority"
    )
    switched, _ = renewed(widened, now, force=True)
    check(switched, now)
    assert facts(switched, "tls").issuer == facts(widened, CA).subject

    last, outcomes = narrowed(switched)
    check(last, now)
    assert last[CA].certificates + old == switched[CA].certificates
    assert outcomes == [Outcome(CA, True, "narrowed: 1 earlier authorities taken out of ca.crt")]
    assert narrowed(last) == (last, [Outcome(CA, False, "left: ca.crt holds one authority")])


def test_authority_at_two_thirds(pairs: dict[str, Pair], now: datetime) -> None:
    """The authority is renewed from two thirds of its life on; an expired one is not trusted any longer."""
    due = facts(pairs, CA).renew_at
    same, outcomes = succeeded(pairs, due - timedelta(seconds=1))
    assert (same, outcomes[0].done) == (pairs, False)
    new, _ = succeeded(pairs, due, life=DAY)
    assert facts(new, CA).not_after == due + DAY
    after, _ = succeeded(pairs, now + 4000 * DAY)
    assert len(read_certificates(after[CA].certificates, "")) == 1


def test_rsa_stays_rsa(rsa_authority: Pair, now: datetime) -> None:
    """The successor of an authority has a key of the same kind."""
    new, _ = succeeded({CA: rsa_authority}, now, force=True)
    assert facts(new, CA).key == "RSA 3072"


def test_nothing_there(now: datetime) -> None:
    """An empty directory cannot be renewed."""
    changes: list[Callable[[], object]] = [
        lambda: renewed({}, now),
        lambda: succeeded({}, now),
        lambda: narrowed({}),
    ]
    for change in changes:
        with pytest.raises(CertificateError) as caught:
            change()
        expected = "holds no ca.crt; allowed: a directory that noisegate filled (noisegate certs issue)"
        assert str(caught.value) == expected
