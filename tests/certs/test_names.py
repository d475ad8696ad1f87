from ipaddress import ip_address

import pytest

from noisegate.certs.names import Names, client_name, read_names, service_names
from noisegate.certs.pair import CertificateError

NEITHER = (
    "is neither a DNS name nor an IP address; allowed: letters, digits and hyphens between dots, *. at the start, "
    "xn-- for other scripts, such as localhost or 127.0.0.1"
)


def test_names_are_sorted_by_kind_and_kept_once() -> None:
    """DNS names are lowered, addresses recognised, the order kept, repetitions dropped."""
    texts = ["localhost", "127.0.0.1", "Webhook.Example.org", "LOCALHOST", "::1", "0:0::1", "*.example.org"]
    expected = Names(
        ("localhost", "webhook.example.org", "*.example.org"), (ip_address("127.0.0.1"), ip_address("::1"))
    )
    assert read_names(texts) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a b", f'name "a b" {NEITHER}', id="space"),
        pytest.param("", f'name "" {NEITHER}', id="empty"),
        pytest.param("a..b", f'name "a..b" {NEITHER}', id="empty-label"),
        pytest.param("a.", f'name "a." {NEITHER}', id="trailing-dot"),
        pytest.param("-a", f'name "-a" {NEITHER}', id="hyphen-first"),
        pytest.param("a_b", f'name "a_b" {NEITHER}', id="underscore"),
        pytest.param("a\n", f'name "a\\n" {NEITHER}', id="newline"),
        pytest.param("ü.de", f'name "ü.de" {NEITHER}', id="not-ascii"),
        pytest.param("a.*.b", f'name "a.*.b" {NEITHER}', id="star-inside"),
        pytest.param("*", f'name "*" {NEITHER}', id="star-alone"),
        pytest.param("300.1.1.1", f'name "300.1.1.1" {NEITHER}', id="address-out-of-range"),
        pytest.param("10.0.0.0/8", f'name "10.0.0.0/8" {NEITHER}', id="network"),
        pytest.param(
            "fe80::1%eth0",
            'name "fe80::1%eth0" has a zone; allowed: an IPv6 address without %zone',
            id="zone",
        ),
        pytest.param(f"{'a' * 64}.b", f'name "{"a" * 64}.b" {NEITHER}', id="label-of-64"),
        pytest.param("a." * 126 + "bc", f'name "{"a." * 38}a..." {NEITHER}', id="name-of-254"),
    ],
)
def test_bad_name(text: str, message: str) -> None:
    """What no client could ask for is refused with the value and what is allowed."""
    with pytest.raises(CertificateError) as caught:
        read_names([text])
    assert str(caught.value) == message


def test_no_name() -> None:
    """A serving certificate for nobody is refused."""
    with pytest.raises(CertificateError) as caught:
        read_names([])
    assert str(caught.value) == "a serving certificate needs a name; allowed: DNS names and IP addresses"


@pytest.mark.parametrize("service", ["gate.sys", "Gate.sys.svc", "gate.sys.svc.cluster.local"])
def test_service(service: str) -> None:
    """A Service is called by four names inside the cluster, however it was written."""
    assert service_names(service) == ("gate", "gate.sys", "gate.sys.svc", "gate.sys.svc.cluster.local")


@pytest.mark.parametrize("service", ["gate", "gate.sys.example", "gate .sys", "a.b.c.d", ".sys", ""])
def test_bad_service(service: str) -> None:
    """Anything but a name and a namespace is refused."""
    with pytest.raises(CertificateError) as caught:
        service_names(service)
    expected = f'service "{service}" is not NAME.NAMESPACE; allowed: such as noisegate.noisegate-system'
    assert str(caught.value) == expected


@pytest.mark.parametrize("name", ["kube-apiserver", "system:kube-apiserver", "é", "x" * 64])
def test_client_name(name: str) -> None:
    """A client may be called anything printable without spaces."""
    assert client_name(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param("", "", id="empty"),
        pytest.param("a b", "a b", id="space"),
        pytest.param("a\x00", "a\\x00", id="unprintable"),
        pytest.param("x" * 65, "x" * 65, id="too-long"),
    ],
)
def test_bad_client_name(name: str, shown: str) -> None:
    """A client's name must fit a CN and a list in a configuration file."""
    with pytest.raises(CertificateError) as caught:
        client_name(name)
    assert str(caught.value) == (
        f'client name "{shown}" is not allowed; allowed: 1 to 64 printable characters without spaces, '
        "such as kube-apiserver"
    )
