"""How certificates follow one another in a cluster: at every moment every API server trusts every replica."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from hypothesis import given, settings
from hypothesis import strategies as st

from noisegate.certs.authority import issue_server, make_authority
from noisegate.certs.names import read_names
from noisegate.certs.pair import Pair, Purpose, read_certificates
from noisegate.certs.succession import Seen, Settings, Step, all_switched, next_step
from noisegate.certs.verification import verify_leaf

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
NAMES: Final = read_names(["noisegate-webhook.noisegate-system.svc"])
SETTINGS: Final = Settings(NAMES, timedelta(days=90), timedelta(days=900))


@lru_cache
def old_authority() -> Pair:
    """Return an authority made now."""
    return make_authority(NOW, life=timedelta(days=900))


@lru_cache
def old_leaf() -> Pair:
    """Return what it signed now."""
    return issue_server(old_authority(), NAMES, NOW, life=timedelta(days=90))


def first(pair: Pair) -> x509.Certificate:
    """Return a pair's certificate."""
    return read_certificates(pair.certificates, "")[0]


def steady(**changes: object) -> Seen:
    """Return a cluster in good order, or with changes."""
    certificates = old_authority().certificates
    seen = Seen(
        old_authority(),
        old_leaf(),
        certificates,
        (certificates,) * 3,
        known=True,
        served=(first(old_leaf()),) * 2,
        switched=True,
    )
    return seen._replace(**changes)  # type: ignore[arg-type]


def test_good_order_needs_nothing() -> None:
    """And stays so until two thirds of a life are over."""
    assert next_step(steady(), NOW, SETTINGS) == Step()
    assert next_step(steady(), NOW + timedelta(days=59), SETTINGS) == Step()
    assert next_step(steady(), NOW + timedelta(days=61), SETTINGS).reason == "CertificateRenewed"


def test_nothing_there_at_all() -> None:
    """An authority first, then what trusts it, then what it signs."""
    made = next_step(Seen(None, None), NOW, SETTINGS)
    assert made.reason == "AuthorityMade"
    assert made.authority is not None
    there = Seen(made.authority, None, bundles=(b"",))
    written = next_step(there, NOW, SETTINGS)
    name = first(made.authority).fingerprint(hashes.SHA256())[:4].hex(":").upper()
    assert written[:3] == (
        "CaBundleWritten",
        f"caBundle of the webhook configurations was brought to the 1 authority trusted, {name}",
        None,
    )
    trusting = there._replace(bundles=(made.authority.certificates,))
    issued = next_step(trusting, NOW, SETTINGS)
    assert issued.reason == "CertificateIssued"
    assert issued.serving is not None
    assert verify_leaf(issued.serving, made.authority.certificates, Purpose.SERVER, NOW, NAMES.dns) == []
    assert next_step(trusting._replace(serving=issued.serving), NOW, SETTINGS).reason == "AuthoritiesPublished"
    whole = trusting._replace(serving=issued.serving, beside=made.authority.certificates)
    assert next_step(whole, NOW, SETTINGS) == Step()


@pytest.mark.parametrize(
    ("serving", "why"),
    [
        (None, "there was none"),
        (Pair(b"garbage", b""), "tls.crt"),
        (Pair(old_leaf().certificates, old_authority().key), "does not fit"),
        (
            issue_server(old_authority(), read_names(["other"]), NOW),
            "it is not for noisegate-webhook.noisegate-system.svc",
        ),
        (issue_server(make_authority(NOW), NAMES, NOW), "ca.crt"),
        (issue_server(old_authority(), NAMES, NOW, life=timedelta(seconds=1)), "expired"),
    ],
    ids=["absent", "garbage", "foreign key", "foreign name", "foreign authority", "expired"],
)
def test_a_serving_pair_that_cannot_be_used_is_issued_at_once(serving: Pair | None, why: str) -> None:
    """Whatever is wrong with it, and without a wait."""
    step = next_step(steady(serving=serving, known=False), NOW + timedelta(minutes=1), SETTINGS)
    assert step.reason == "CertificateIssued"
    assert why in step.note


@pytest.mark.parametrize("authority", [None, Pair(b"x", b"y"), Pair(old_authority().certificates, b"")])
def test_an_authority_that_cannot_sign_is_replaced_and_the_old_ones_stay_trusted(authority: Pair | None) -> None:
    """What replicas serve is still trusted; foreign certificates that are no authorities are not taken up."""
    foreign = old_leaf().certificates
    step = next_step(
        steady(authority=authority, bundles=(old_authority().certificates, foreign, b"\xff")), NOW, SETTINGS
    )
    assert step.reason == "AuthorityMade"
    assert step.authority is not None
    _, *rescued = read_certificates(step.authority.certificates, "")
    assert rescued == [first(old_authority())]


def test_an_operator_may_ask() -> None:
    """For the leaf, or for a change of the authority; what is asked for during a change waits until that has ended."""
    renewed = next_step(steady(wish="leaf"), NOW, SETTINGS)
    assert (renewed.reason, renewed.grants) == ("CertificateRenewed", "leaf")
    begun = next_step(steady(wish="ca"), NOW, SETTINGS)
    assert (begun.reason, begun.grants) == ("AuthorityChangeBegun", "ca")
    assert begun.authority is not None
    seen = steady(wish="ca", authority=begun.authority)
    assert next_step(seen, NOW, SETTINGS).reason == "CaBundleWritten"
    seen = seen._replace(bundles=(begun.authority.certificates,))
    switched = next_step(seen, NOW, SETTINGS)
    assert (switched.reason, switched.grants) == ("AuthorityChangeSwitched", "leaf")
    assert switched.serving is not None
    seen = seen._replace(
        serving=switched.serving, beside=begun.authority.certificates, served=(first(switched.serving),)
    )
    finished = next_step(seen, NOW, SETTINGS)
    assert (finished.reason, finished.grants) == ("AuthorityChangeFinished", "")
    assert next_step(seen._replace(authority=finished.authority), NOW, SETTINGS).reason == "AuthorityChangeBegun"


def test_each_change_is_told_in_words_of_its_own() -> None:
    """Of two changes in a row no note is the same: an Event is not told twice."""
    model, notes = Model(), []
    for _ in range(2):
        model.wish = "ca"
        for _ in range(60):
            notes.append(model.act().note)
            model.pass_time()
            model.refresh(0)
            model.refresh(1)
    told = [note for note in notes if note]
    assert len(told) == len(set(told)) == 2 * len(["begun", "bundles", "switched", "finished", "bundles", "beside"])


def test_a_change_of_the_authority_step_by_step() -> None:
    """Wider, wait, switch, wait for each replica, wait, narrower."""
    late = NOW + timedelta(days=601)
    # Of a life that an old authority's end does not cut short.
    leaf = issue_server(old_authority(), NAMES, late, life=timedelta(days=90))
    seen = steady(serving=leaf, served=(first(leaf),) * 2, known=False, switched=False)
    begun = next_step(seen, late, SETTINGS)
    assert begun.reason == "AuthorityChangeBegun"
    assert begun.authority is not None
    bundle = begun.authority.certificates
    assert len(read_certificates(bundle, "")) == 2
    seen = seen._replace(authority=begun.authority)
    assert next_step(seen, late, SETTINGS).bundle == bundle
    seen = seen._replace(bundles=(bundle,) * 3)
    assert next_step(seen, late, SETTINGS) == Step(waits="every API server to know the new authority")
    switched = next_step(seen._replace(known=True), late, SETTINGS)
    assert (switched.reason, switched.beside) == ("AuthorityChangeSwitched", bundle)
    assert switched.serving is not None
    seen = seen._replace(serving=switched.serving, beside=bundle, known=True)
    new = first(switched.serving)
    for served in ((None, new), (first(leaf), new)):
        waits = "1 of 2 replicas to serve what the new authority signed"
        assert next_step(seen._replace(served=served), late, SETTINGS) == Step(waits=waits)
    seen = seen._replace(served=(new, new))
    assert next_step(seen, late, SETTINGS) == Step(waits="calls under way, before the old authority is taken out")
    finished = next_step(seen._replace(switched=True), late, SETTINGS)
    assert finished.reason == "AuthorityChangeFinished"
    assert finished.authority is not None
    assert read_certificates(finished.authority.certificates, "") == [first(begun.authority)]
    seen = seen._replace(authority=finished.authority, switched=True)
    assert next_step(seen, late, SETTINGS).bundle == finished.authority.certificates
    seen = seen._replace(bundles=(finished.authority.certificates,) * 3)
    assert next_step(seen, late, SETTINGS).reason == "AuthoritiesPublished"
    assert next_step(seen._replace(beside=finished.authority.certificates), late, SETTINGS) == Step()


class Model:
    """A cluster with API servers that learn late and replicas that refresh their mounts late.

    Time is counted in ticks. An API server knows a bundle at most `SETTLE` ticks after it was written.
    """

    SETTLE: Final = 3

    def __init__(self) -> None:
        self.authority: Pair | None = old_authority()
        self.serving: Pair | None = old_leaf()
        self.beside = old_authority().certificates
        self.bundles = [old_authority().certificates] * 2
        self.trusted = [[old_authority().certificates] * 2 for _ in range(2)]  # by API server and entry
        self.served = [old_leaf(), old_leaf()]
        self.changed = [-99, -99]  # when each bundle was written
        self.tick = 0
        self.known_since: tuple[bytes, int] | None = None
        self.switched_since: tuple[bytes, int] | None = None
        self.wish = ""
        self.writes = 0

    def crash(self) -> None:
        """Forget what a leader remembers."""
        self.known_since = self.switched_since = None

    def pass_time(self) -> None:
        """Let a tick pass: who is later than allowed learns now."""
        self.tick += 1
        for entry, written in enumerate(self.changed):
            if self.tick - written >= self.SETTLE:
                for server in self.trusted:
                    server[entry] = self.bundles[entry]

    def learn(self, server: int, entry: int) -> None:
        """Let an API server learn of a bundle."""
        self.trusted[server][entry] = self.bundles[entry]

    def refresh(self, replica: int) -> None:
        """Let a replica take up what it has mounted; it refuses what cannot be served with."""
        if self.serving is not None and self.serving.certificates != b"x":
            self.served[replica] = self.serving

    def look(self) -> Seen:
        """Return what a leader sees."""
        certificates = b"" if self.authority is None else self.authority.certificates
        if not certificates or any(bundle != certificates for bundle in self.bundles):
            self.known_since = None
        elif self.known_since is None or self.known_since[0] != certificates:
            self.known_since = (certificates, self.tick)
        served = [first(pair) for pair in self.served]
        if not all_switched(self.authority, served):
            self.switched_since = None
        elif self.switched_since is None or self.switched_since[0] != certificates:
            self.switched_since = (certificates, self.tick)
        return Seen(
            self.authority,
            self.serving,
            self.beside,
            tuple(self.bundles),
            known=self.known_since is not None and self.tick - self.known_since[1] >= self.SETTLE,
            served=tuple(served),
            switched=self.switched_since is not None and self.tick - self.switched_since[1] >= self.SETTLE,
            wish=self.wish,  # type: ignore[arg-type]
        )

    def act(self, partly: int = 9) -> Step:
        """Do the next step; `partly`: how many entries are written before the leader dies."""
        step = next_step(self.look(), NOW, SETTINGS)
        if step.authority is not None:
            self.authority = step.authority
        if step.grants == self.wish:
            self.wish = ""
        if step.bundle is not None:
            for entry in range(min(partly, len(self.bundles))):
                if self.bundles[entry] != step.bundle:
                    self.bundles[entry], self.changed[entry] = step.bundle, self.tick
        if step.serving is not None:
            self.serving = step.serving
        if step.beside is not None:
            self.beside = step.beside
        self.writes += bool(step.reason)
        return step

    def trusts(self) -> bool:
        """Tell whether every API server trusts every replica through every entry."""
        return all(
            verify_leaf(pair, bundle, Purpose.SERVER, NOW) == []
            for pair in self.served
            for server in self.trusted
            for bundle in server
        )


EVENTS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("act"), st.integers(0, 3)),
        st.tuples(st.just("act"), st.just(9)),
        st.tuples(st.just("pass"), st.integers(1, 4)),
        st.tuples(st.just("learn"), st.integers(0, 3)),
        st.tuples(st.just("refresh"), st.integers(0, 1)),
        st.tuples(st.just("crash"), st.just(0)),
        st.tuples(st.just("wish"), st.integers(0, 1)),
    ),
    max_size=40,
)


def run(model: Model, events: list[tuple[str, int]]) -> None:
    """Let things happen."""
    for what, number in events:
        if what == "act":
            model.act(number)
        elif what == "pass":
            for _ in range(number):
                model.pass_time()
        elif what == "learn":
            model.learn(number // 2, number % 2)
        elif what == "refresh":
            model.refresh(number)
        elif what == "crash":
            model.crash()
        else:
            model.wish = ("ca", "leaf")[number]


@settings(deadline=None, max_examples=60)
@given(EVENTS)
def test_whoever_calls_always_trusts_whoever_answers(events: list[tuple[str, int]]) -> None:
    """However late API servers and replicas are, and wherever leaders crash."""
    model = Model()
    for event in events:
        run(model, [event])
        assert model.trusts(), event


FOREIGN: Final = st.lists(
    st.sampled_from(["no authority", "no serving", "bundle", "beside", "garbage authority", "garbage serving"]),
    max_size=4,
)


@settings(deadline=None, max_examples=40)
@given(EVENTS, FOREIGN, EVENTS)
def test_after_foreign_hands_it_comes_to_rest(
    before: list[tuple[str, int]], foreign: list[str], after: list[tuple[str, int]]
) -> None:
    """Whatever was deleted or overwritten: in the end all is in good order, and nothing is written any more."""
    model = Model()
    run(model, before)
    for what in foreign:
        if what == "no authority":
            model.authority = None
        elif what == "no serving":
            model.serving = None
        elif what == "bundle":
            model.bundles[0] = b"x"
        elif what == "beside":
            model.beside = b"x"
        elif what == "garbage authority":
            model.authority = Pair(b"x", b"x")
        else:
            model.serving = Pair(b"x", b"x")
    run(model, after)
    for _ in range(120):
        model.act()
        model.pass_time()
        model.refresh(0)
        model.refresh(1)
    assert model.wish == ""
    model.writes = 0
    assert model.act() == Step()
    assert model.writes == 0
    assert model.trusts()
    assert model.authority is not None
    assert len(read_certificates(model.authority.certificates, "")) == 1
