"""Network selection elements in JSON."""

import json
from functools import partial
from typing import Any

import pytest

from noisegate.isolation.elements import check_element, is_ip, is_mac
from noisegate.isolation.payload import Payload
from noisegate.isolation.problems import Findings, Problem, in_annotation

KEY = "k8s.v1.cni.cncf.io/networks"
NAME = "is not 1 to 253 lower-case letters, digits, hyphens and dots"
INTERFACE = 'is not 1 to 15 printable characters without blanks, "/", ":" and "%"'
HARDWARE = "is not a unicast hardware address of 6, 8 or 20 bytes other than zero"
WRITE_MAC = "write it as 02:00:5e:00:00:01"
PREFIX = "is not an IP address, alone or with a prefix length as in 10.0.0.3/24"
DIGITS = "write digits only, without quotes"
PAIR = "the two go together"
ONE_PORT = {"hostPort": 80, "containerPort": 80}


def check(element: object) -> tuple[dict[str, Any] | None, Findings]:
    """Check an element as the third of its list."""
    found = Findings()
    return check_element(element, 2, Payload(partial(in_annotation, KEY), found)), found


@pytest.mark.parametrize(
    ("fields", "code", "place", "message", "hint"),
    [
        pytest.param({"name": ""}, "NG401", "name", "the name is empty", "", id="empty name"),
        pytest.param({"name": "A_b"}, "NG401", "name", f'name "A_b" {NAME}', "write a-b", id="name"),
        pytest.param({"name": 1}, "NG004", "name", "must be a string, not a number", 'write "1"', id="name's type"),
        pytest.param(
            {"namespace": ""}, "NG401", "namespace", "the namespace is empty", "leave it out", id="empty namespace"
        ),
        pytest.param(
            {"namespace": "a.b"},
            "NG401",
            "namespace",
            'namespace "a.b" is not 1 to 63 lower-case letters, digits and hyphens',
            "",
            id="namespace",
        ),
        pytest.param(
            {"namespace": []}, "NG004", "namespace", "must be a string, not a list", "", id="namespace's type"
        ),
        pytest.param({"interface": ""}, "NG402", "interface", f'interface "" {INTERFACE}', "", id="empty interface"),
        pytest.param({"interface": "."}, "NG402", "interface", f'interface "." {INTERFACE}', "", id="dot"),
        pytest.param({"interface": ".."}, "NG402", "interface", f'interface ".." {INTERFACE}', "", id="two dots"),
        pytest.param({"interface": "a b"}, "NG402", "interface", f'interface "a b" {INTERFACE}', "", id="blank"),
        pytest.param({"interface": "a/b"}, "NG402", "interface", f'interface "a/b" {INTERFACE}', "", id="slash"),
        pytest.param({"interface": "a:b"}, "NG402", "interface", f'interface "a:b" {INTERFACE}', "", id="colon"),
        pytest.param({"interface": "net%d"}, "NG402", "interface", f'interface "net%d" {INTERFACE}', "", id="pattern"),
        pytest.param(
            {"interface": "x" * 16},
            "NG402",
            "interface",
            f'interface "{"x" * 16}" {INTERFACE}',
            f"write {'x' * 15}",
            id="16",
        ),
        pytest.param(
            {"interface": None}, "NG004", "interface", "must be a string, not null", "", id="interface's type"
        ),
        pytest.param(
            {"mac": "01:00:5e:00:00:01"}, "NG403", "mac", f'"01:00:5e:00:00:01" {HARDWARE}', WRITE_MAC, id="multicast"
        ),
        pytest.param(
            {"mac": "00:00:00:00:00:00"}, "NG403", "mac", f'"00:00:00:00:00:00" {HARDWARE}', WRITE_MAC, id="zero"
        ),
        pytest.param(
            {"mac": "02:00:00:00:00"}, "NG403", "mac", f'"02:00:00:00:00" {HARDWARE}', WRITE_MAC, id="five bytes"
        ),
        pytest.param({"mac": ""}, "NG403", "mac", f'"" {HARDWARE}', WRITE_MAC, id="empty mac"),
        pytest.param({"mac": 2}, "NG004", "mac", "must be a string, not a number", 'write "2"', id="mac's type"),
        pytest.param(
            {"infiniband-guid": "02:00:00:00:00:01"},
            "NG403",
            "infiniband-guid",
            '"02:00:00:00:00:01" is not a GUID of 8 bytes other than zero',
            "write it as 24:8a:07:03:00:8d:ae:2e",
            id="guid",
        ),
        pytest.param(
            {"infiniband-guid": {}}, "NG004", "infiniband-guid", "must be a string, not an object", "", id="guid's type"
        ),
        pytest.param(
            {"ips": ["10.0.0.3", "10.0.0.300"]}, "NG403", "ips[1]", f'"10.0.0.300" {PREFIX}', "", id="address"
        ),
        pytest.param({"ips": ["10.0.0.1/33"]}, "NG403", "ips[0]", f'"10.0.0.1/33" {PREFIX}', "", id="prefix"),
        pytest.param({"ips": ["fd00::1/129"]}, "NG403", "ips[0]", f'"fd00::1/129" {PREFIX}', "", id="prefix of IPv6"),
        pytest.param({"ips": ["10.0.0.1/"]}, "NG403", "ips[0]", f'"10.0.0.1/" {PREFIX}', "", id="no prefix"),
        pytest.param(
            {"ips": ["10.0.0.1/255.0.0.0"]}, "NG403", "ips[0]", f'"10.0.0.1/255.0.0.0" {PREFIX}', "", id="mask"
        ),
        pytest.param({"ips": ["fe80::1%eth0"]}, "NG403", "ips[0]", f'"fe80::1%eth0" {PREFIX}', "", id="zone"),
        pytest.param({"ips": ["010.0.0.1"]}, "NG403", "ips[0]", f'"010.0.0.1" {PREFIX}', "", id="leading zero"),
        pytest.param({"ips": [""]}, "NG403", "ips[0]", f'"" {PREFIX}', "", id="empty address"),
        pytest.param(
            {"ips": [3]}, "NG004", "ips[0]", "must be a string, not a number", 'write "3"', id="address's type"
        ),
        pytest.param({"ips": "10.0.0.1"}, "NG004", "ips", "must be a list, not a string", "", id="addresses' type"),
        pytest.param(
            {"default-route": ["10.0.0.1/8"]},
            "NG403",
            "default-route[0]",
            '"10.0.0.1/8" is not an IP address',
            "",
            id="route",
        ),
        pytest.param(
            {"default-route": [False]},
            "NG004",
            "default-route[0]",
            "must be a string, not true or false",
            "",
            id="route's type",
        ),
        pytest.param({"deviceID": ""}, "NG401", "deviceID", "deviceID is empty", "leave it out", id="empty device"),
        pytest.param(
            {"deviceID": " a"},
            "NG401",
            "deviceID",
            "deviceID is not free of blanks at its ends",
            "leave it out",
            id="device",
        ),
        pytest.param(
            {"deviceID": 0}, "NG004", "deviceID", "must be a string, not a number", 'write "0"', id="device's type"
        ),
        pytest.param({"cni-args": []}, "NG004", "cni-args", "must be an object, not a list", "", id="arguments"),
        pytest.param(
            {"portMappings": [None]}, "NG004", "portMappings[0]", "must be an object, not null", "", id="mapping"
        ),
        pytest.param(
            {"portMappings": [{"hostPort": 80}]},
            "NG404",
            "portMappings[0]",
            "containerPort is missing; a port mapping has hostPort and containerPort",
            "add containerPort",
            id="half a mapping",
        ),
        pytest.param(
            {"portMappings": [ONE_PORT | {"hostPort": 65536}]},
            "NG404",
            "portMappings[0].hostPort",
            "65536 is not a port; allowed: 1 to 65535",
            "",
            id="port",
        ),
        pytest.param(
            {"portMappings": [ONE_PORT | {"hostPort": "80"}]},
            "NG004",
            "portMappings[0].hostPort",
            "must be a whole number, not a string",
            DIGITS,
            id="port's type",
        ),
        pytest.param(
            {"portMappings": [ONE_PORT | {"protocol": "icmp"}]},
            "NG404",
            "portMappings[0].protocol",
            'protocol "icmp" is not tcp, udp or sctp',
            "",
            id="protocol",
        ),
        pytest.param(
            {"portMappings": [ONE_PORT | {"protocol": 6}]},
            "NG004",
            "portMappings[0].protocol",
            "must be a string, not a number",
            'write "6"',
            id="protocol's type",
        ),
        pytest.param(
            {"bandwidth": 5}, "NG004", "bandwidth", "must be an object, not a number", "", id="bandwidth's type"
        ),
        pytest.param(
            {"bandwidth": {"ingressRate": 5}},
            "NG404",
            "bandwidth.ingressRate",
            f"ingressRate without ingressBurst; {PAIR}",
            "add ingressBurst",
            id="rate without burst",
        ),
        pytest.param(
            {"bandwidth": {"egressBurst": 5, "egressRate": 0}},
            "NG404",
            "bandwidth.egressBurst",
            f"egressBurst without egressRate; {PAIR}",
            "add egressRate",
            id="burst without rate",
        ),
        pytest.param(
            {"bandwidth": {"egressRate": -1}},
            "NG404",
            "bandwidth.egressRate",
            "-1 is out of range; allowed: 0 to 34359738367, a rate in bits per second, a burst in bits",
            "",
            id="rate",
        ),
        pytest.param(
            {"bandwidth": {"egressRate": 1.5}},
            "NG004",
            "bandwidth.egressRate",
            "must be a whole number, not a number",
            DIGITS,
            id="fraction",
        ),
        pytest.param(
            {"bandwidth": {"egressRate": True}},
            "NG004",
            "bandwidth.egressRate",
            "must be a whole number, not true or false",
            DIGITS,
            id="bool",
        ),
        pytest.param(
            {"interface": "a", "interfaceRequest": "b"},
            "NG402",
            "interfaceRequest",
            "interface and its old name, interfaceRequest, differ",
            "keep interface",
            id="two interfaces",
        ),
        pytest.param(
            {"Mac": "x"},
            "NG003",
            "Mac",
            'unknown key "Mac"; allowed: bandwidth, cni-args, default-route, deviceID, infiniband-guid, interface, interfaceRequest, '
            "ipam-claim-reference, ips, mac, name, namespace, portMappings",
            "write mac",
            id="unknown key",
        ),
    ],
)
def test_wrong(fields: dict[str, object], code: str, place: str, message: str, hint: str) -> None:
    """A field that cannot be meant is reported in its place, whoever would have read it."""
    fields = {"name": "a"} | fields
    members, found = check(fields)
    head, _, tail = place.replace("]", "").partition("[")
    value: Any = fields
    for step in (head, *tail.split(".", 1)) if tail else head.split("."):
        value = value.get(step, "") if isinstance(value, dict) else value[int(step)]

    shown = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    assert found.problems == [Problem(code, f"metadata.annotations[{KEY}][2].{place}", shown, message, hint)]
    assert members is None


def test_sound() -> None:
    """An element may use every field; arguments of the plugin's own may be null, as Multus' own type writes them."""
    fields = {
        "name": "a.b",
        "namespace": "c",
        "interface": "Net_1.100",
        "mac": "02:00:00:00:00:01",
        "infiniband-guid": "24:8a:07:03:00:8d:ae:2e",
        "ips": ["10.0.0.3", "fd00::1/64"],
        "default-route": ["10.0.0.1"],
        "deviceID": "0000:03:00.1",
        "ipam-claim-reference": "claim.a",
        "portMappings": [ONE_PORT | {"protocol": "SCTP", "hostIP": "::1"}],
        "bandwidth": {"ingressRate": 1, "ingressBurst": 2, "egressRate": 0},
    }
    for arguments in (None, {"x": [1]}):
        members, found = check(fields | {"cni-args": arguments})
        assert (members, found.problems, found.warnings) == (fields | {"cni-args": arguments}, [], [])


def test_no_object() -> None:
    """An element is an object."""
    expected = Problem("NG004", f"metadata.annotations[{KEY}][2]", "", "must be an object, not null")

    assert check(None)[1].problems == [expected]


def test_no_name() -> None:
    """An element names a network."""
    assert check({})[1].problems == [
        Problem(
            "NG401",
            f"metadata.annotations[{KEY}][2]",
            "",
            "the element names no network: name is missing",
            'add "name"',
        )
    ]


def test_old_name_of_interface() -> None:
    """The field interfaceRequest is read as interface, with a warning."""
    members, found = check({"name": "a", "interfaceRequest": "net1"})

    assert members == {"name": "a", "interfaceRequest": "net1", "interface": "net1"}
    path = f"metadata.annotations[{KEY}][2].interfaceRequest"
    assert (found.problems, found.warnings) == (
        [],
        [Problem("NG451", path, "net1", "interfaceRequest is the old name of interface", 'write "interface"')],
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("02:00:5e:00:00:01", True),
        ("02-00-5E-00-00-01", True),
        ("0200.5e00.0001", True),
        ("02:00-5e:00:00:01", False),
        ("02005e000001", False),
        ("02:00:5e:00:00:0g", False),
        ("02:00:5e:00:00:01:02:03", False),
        ("03:00:5e:00:00:01", False),
        ("ff:ff:ff:ff:ff:ff", False),
        ("00:00:00:00:00:00", False),
    ],
)
def test_is_mac(text: str, expected: bool) -> None:
    """Ethernet addresses come in the three forms of net.ParseMAC, and can be an interface's."""
    assert is_mac(text, 6) is expected


def test_longer_hardware_addresses() -> None:
    """InfiniBand addresses have 8 or 20 bytes, and no multicast bit."""
    assert is_mac("01:00:5e:00:00:01:02:03", 6, 8, 20)
    assert is_mac(":".join(["01"] * 20), 6, 8, 20)


@pytest.mark.parametrize(
    ("text", "expected"), [("10.0.0.1", True), ("::ffff:10.0.0.1", True), ("10.0.1", False), ("fe80::1%1", False)]
)
def test_is_ip(text: str, expected: bool) -> None:
    """Addresses are what net.ParseIP takes."""
    assert is_ip(text) is expected
