from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given, settings
from hypothesis import strategies as st

from noisegate.certs.authority import issue_server, make_authority
from noisegate.certs.names import client_name, read_names, service_names
from noisegate.certs.pair import CertificateError, Purpose, facts_of, read_certificates, read_key
from noisegate.certs.verification import verify_leaf

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AUTHORITY = make_authority(NOW)

labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
dns_names = st.lists(labels, min_size=1, max_size=4).map(lambda parts: ".".join([*parts, "org"]))
stars = st.booleans().flatmap(lambda star: dns_names.map(lambda name: f"*.{name}" if star else name))
addresses = st.ip_addresses().filter(lambda address: getattr(address, "scope_id", None) is None)
given_names = st.lists(stars | addresses.map(str), min_size=1, max_size=8)


@settings(deadline=None, max_examples=50)
@given(given_names, st.integers(min_value=1, max_value=365 * 24))
def test_a_certificate_is_for_what_it_was_asked_for(texts: list[str], hours: int) -> None:
    """Issue, then inspect: the same names and the same life; and it is good by each of its names."""
    names = read_names(texts)
    pair = issue_server(AUTHORITY, names, NOW, life=timedelta(hours=hours))
    facts = facts_of(read_certificates(pair.certificates, "tls.crt")[0])
    assert facts.names == (*names.dns, *map(str, names.addresses))
    assert set(facts.names) == set(texts)
    assert (facts.not_after - NOW) == timedelta(hours=hours)
    assert facts.not_before <= facts.renew_at <= facts.not_after
    assert facts.due(facts.renew_at)
    assert verify_leaf(pair, AUTHORITY.certificates, Purpose.SERVER, NOW, texts) == []


@given(given_names)
def test_reading_names_twice_is_reading_them_once(texts: list[str]) -> None:
    """Names, written out, are read as the same names."""
    names = read_names(texts)
    assert read_names([*names.dns, *map(str, names.addresses)]) == names
    assert all(isinstance(address, IPv4Address | IPv6Address) for address in names.addresses)


def answer(read: Callable[[], object]) -> str:
    """Return the message with which something is refused, or an empty string. Any other error is the test's."""
    try:
        read()
    except CertificateError as error:
        return str(error)
    return ""


@given(st.text(max_size=300))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    """Any text is read, or refused with one sentence on one line."""
    for read in (lambda: read_names([text]), lambda: service_names(text), lambda: client_name(text)):
        assert answer(read).isprintable()


@given(st.binary(max_size=400))
def test_any_bytes_are_refused(content: bytes) -> None:
    """Bytes that are no PEM are refused with their place, never met with another error."""
    head = b"-----BEGIN CERTIFICATE-----\n"
    for pem in (content, head + content + head.replace(b"BEGIN", b"END")):
        assert answer(partial(read_certificates, pem, "place")).startswith("place: ")
        assert answer(partial(read_key, pem, "place")).startswith("place: ")
