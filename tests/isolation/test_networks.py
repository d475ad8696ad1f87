"""The grammar of the networks annotations."""

import pytest

from noisegate.isolation import networks
from noisegate.isolation.keys import DEFAULT_NETWORK, NETWORKS
from noisegate.isolation.networks import Selection
from noisegate.isolation.problems import Findings, Problem


def selection(
    position: int, name: str, namespace: str | None = None, interface: str = "", key: str = NETWORKS
) -> Selection:
    """Return an attachment that asks for nothing but an interface's name."""
    return Selection(key, position, namespace, name, interface)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("ns1/net1@eth0", (selection(0, "net1", "ns1", "eth0"),), id="all units"),
        pytest.param("net1@eth0", (selection(0, "net1", None, "eth0"),), id="interface"),
        pytest.param("net1", (selection(0, "net1"),), id="name"),
        pytest.param("ns1/net1", (selection(0, "net1", "ns1"),), id="namespace"),
        pytest.param("ns1/net1,net2", (selection(0, "net1", "ns1"), selection(1, "net2")), id="two"),
        pytest.param("net1,net1", (selection(0, "net1"), selection(1, "net1")), id="the same twice"),
        pytest.param(" net1 ,\n ns1/net2@n2 ", (selection(0, "net1"), selection(1, "net2", "ns1", "n2")), id="blanks"),
        pytest.param("123", (selection(0, "123"),), id="a number is a name"),
        pytest.param("null,a", (selection(0, "null"), selection(1, "a")), id="null is a name in a list"),
        pytest.param("net1@" + "i" * 15, (selection(0, "net1", None, "i" * 15),), id="15 characters"),
        pytest.param("n" * 253, (selection(0, "n" * 253),), id="longest name"),
        pytest.param(
            '[{"name": "net1"},{"name": "net2", "namespace": "ns1"}]',
            (selection(0, "net1"), selection(1, "net2", "ns1")),
            id="json",
        ),
        pytest.param(
            '\n [ {"name": "net.1", "interface": "Net_1.100"} ] ',
            (selection(0, "net.1", None, "Net_1.100"),),
            id="json allows more",
        ),
        pytest.param('[{"name": "a", "cni-args": null}]', (selection(0, "a"),), id="written by Multus' own type"),
        pytest.param(
            '[{"name": "a", "cni-args": {"x": [{}]}}]', (selection(0, "a"),), id="arguments of the plugin's own"
        ),
        pytest.param(
            '[{"name": "a", "namespace": "b", "interface": "net1", "mac": "02:00:00:00:00:01", "infiniband-guid": "24:8a:07:03:00:8d:ae:2e",'
            ' "ips": ["10.0.0.3/24", "fd00::1"], "deviceID": "0000:03:00.1", "default-route": ["10.0.0.1"], "ipam-claim-reference": "claim.a",'
            ' "portMappings": [{"hostPort": 80, "containerPort": 65535, "protocol": "TCP", "hostIP": "::1"}],'
            ' "bandwidth": {"ingressRate": 1, "ingressBurst": 2, "egressRate": 0, "egressBurst": 0}}]',
            (
                Selection(
                    NETWORKS,
                    0,
                    "b",
                    "a",
                    "net1",
                    "02:00:00:00:00:01",
                    "24:8a:07:03:00:8d:ae:2e",
                    ("10.0.0.3/24", "fd00::1"),
                    "0000:03:00.1",
                ),
            ),
            id="every field",
        ),
    ],
)
def test_sound(text: str, expected: tuple[Selection, ...]) -> None:
    """What network-resources-injector and Multus both take is read as both read it."""
    found = Findings()

    assert networks.read(NETWORKS, text, found) == expected
    assert (found.problems, found.warnings) == ([], [])


NAME = "is not 1 to 253 lower-case letters, digits and hyphens, with no hyphen at the ends"
SPACE = "is not 1 to 63 lower-case letters, digits and hyphens, with no hyphen at the ends"
FORM = "allowed: [namespace/]name[@interface]"
INTERFACE = "is not 1 to 15 lower-case letters, digits and hyphens"


@pytest.mark.parametrize(
    ("text", "code", "place", "value", "message", "hint"),
    [
        pytest.param(
            "ns1/net1/if1",
            "NG401",
            "[0]",
            "ns1/net1/if1",
            f'"ns1/net1/if1" has more than one "/"; {FORM}',
            "",
            id="two slashes",
        ),
        pytest.param(
            "net1@if1@if2",
            "NG401",
            "[0]",
            "net1@if1@if2",
            f'"net1@if1@if2" has more than one "@"; {FORM}',
            "",
            id="two ats",
        ),
        pytest.param(
            "a@b/c", "NG401", "[0]", "a@b/c", f'"a@b/c" has its "/" behind the "@"; {FORM}', "", id="slash behind at"
        ),
        pytest.param(
            "ns/net1,net3@if1@if2",
            "NG401",
            "[1]",
            "net3@if1@if2",
            f'"net3@if1@if2" has more than one "@"; {FORM}',
            "",
            id="second",
        ),
        pytest.param(
            " ", "NG401", "[0]", " ", f"an element is empty; {FORM}", "leave out the comma too many", id="blank"
        ),
        pytest.param(
            "a,,b",
            "NG401",
            "[1]",
            "",
            f"an element is empty; {FORM}",
            "leave out the comma too many",
            id="empty element",
        ),
        pytest.param(
            "a,",
            "NG401",
            "[1]",
            "",
            f"an element is empty; {FORM}",
            "leave out the comma too many",
            id="comma at the end",
        ),
        pytest.param("ns/", "NG401", "[0]", "", "the name is empty", "", id="empty name"),
        pytest.param("/a", "NG401", "[0]", "", "the namespace is empty", "", id="empty namespace"),
        pytest.param("@eth0", "NG401", "[0]", "", "the name is empty", "", id="interface alone"),
        pytest.param("a@", "NG402", "[0]", "", f'interface "" {INTERFACE}', "", id="empty interface"),
        pytest.param("Net1", "NG401", "[0]", "Net1", f'name "Net1" {NAME}', "write net1", id="capital"),
        pytest.param("net_1", "NG401", "[0]", "net_1", f'name "net_1" {NAME}', "write net-1", id="underscore"),
        pytest.param("net.1", "NG401", "[0]", "net.1", f'name "net.1" {NAME}', 'write [{"name": "net.1"}]', id="dot"),
        pytest.param("-a", "NG401", "[0]", "-a", f'name "-a" {NAME}', "", id="hyphen first"),
        pytest.param("a-", "NG401", "[0]", "a-", f'name "a-" {NAME}', "", id="hyphen last"),
        pytest.param("ns /a", "NG401", "[0]", "ns ", f'namespace "ns " {SPACE}', "write ns", id="blank at the slash"),
        pytest.param(
            "n" * 64 + "/a", "NG401", "[0]", "n" * 64, f'namespace "{"n" * 64}" {SPACE}', "", id="long namespace"
        ),
        pytest.param("n" * 254, "NG401", "[0]", "n" * 77 + "...", f'name "{"n" * 77}..." {NAME}', "", id="long name"),
        pytest.param(
            "a@Eth0",
            "NG402",
            "[0]",
            "Eth0",
            f'interface "Eth0" {INTERFACE}',
            'write [{"name": "a", "interface": "Eth0"}]',
            id="interface's capital",
        ),
        pytest.param("a@b c", "NG402", "[0]", "b c", f'interface "b c" {INTERFACE}', "", id="interface's blank"),
        pytest.param(
            "a@abcdefghijklmnop",
            "NG402",
            "[0]",
            "abcdefghijklmnop",
            f'interface "abcdefghijklmnop" {INTERFACE}',
            "write abcdefghijklmno",
            id="16",
        ),
        pytest.param(
            " null ",
            "NG405",
            "",
            " null ",
            "null is no network to some readers and a network named null to others",
            "leave the annotation out",
            id="null",
        ),
        pytest.param(
            '{"name": "net1"}',
            "NG004",
            "",
            '{"name": "net1"}',
            "must be a list of objects, or text as [namespace/]name[@interface],..., not an object",
            'write [{"name": "net1"}]',
            id="object",
        ),
        pytest.param(
            '"net1"',
            "NG004",
            "",
            "net1",
            "must be a list of objects, or text as [namespace/]name[@interface],..., not a string",
            "",
            id="string",
        ),
        pytest.param("[null]", "NG004", "[0]", "", "must be an object, not null", "", id="null in a list"),
        pytest.param(
            "[a]", "NG001", "", "[a]", "not JSON at line 1, column 2: a] is not expected here", "", id="no json"
        ),
        pytest.param(
            "net{1",
            "NG001",
            "",
            "net{1",
            "not JSON at line 1, column 1: net{1 is not expected here",
            "",
            id="json to Multus",
        ),
    ],
)
def test_wrong(text: str, *, code: str, place: str, value: str, message: str, hint: str) -> None:
    """What one of the readers refuses, or the two read differently, is refused, with what is allowed."""
    found = Findings()
    networks.read(NETWORKS, text, found)

    assert found.problems == [Problem(code, f"metadata.annotations[{NETWORKS}]{place}", value, message, hint)]
    assert found.warnings == []


@pytest.mark.parametrize("text", [",".join(["A"] * 257), "[" + ",".join(["1"] * 257) + "]"], ids=["list", "json"])
def test_too_many(text: str) -> None:
    """A list longer than any pod needs is refused as a whole."""
    found = Findings()

    assert networks.read(NETWORKS, text, found) == ()
    message = "257 networks are named; allowed: at most 256"
    assert found.problems == [Problem("NG407", f"metadata.annotations[{NETWORKS}]", f"{text[:77]}...", message)]
    assert len(networks.read(NETWORKS, ",".join(["a"] * 256), found)) == 256


def test_all_problems_are_found() -> None:
    """Every element is looked at, and what is right of them is returned."""
    found = Findings()

    assert networks.read(NETWORKS, "A/B@C,ok,,x@", found) == (selection(1, "ok"),)
    assert [(problem.code, problem.path[-3:]) for problem in found.problems] == [
        ("NG401", "[0]"),
        ("NG401", "[0]"),
        ("NG402", "[0]"),
        ("NG401", "[2]"),
        ("NG402", "[3]"),
    ]


@pytest.mark.parametrize("text", ["", "[]"])
def test_no_network(text: str) -> None:
    """An annotation that both readers take for no network is a warning."""
    found = Findings()

    assert networks.read(NETWORKS, text, found) == ()
    path = f"metadata.annotations[{NETWORKS}]"
    assert (found.problems, found.warnings) == (
        [],
        [Problem("NG051", path, text, "the annotation names no network", "leave the annotation out")],
    )


def test_default_network() -> None:
    """The default network is one element, in either form."""
    found = Findings()

    assert networks.read(DEFAULT_NETWORK, "kube-system/a", found) == (
        selection(0, "a", "kube-system", key=DEFAULT_NETWORK),
    )
    read = networks.read(DEFAULT_NETWORK, '[{"name": "a"}]', found)
    assert read == (selection(0, "a", key=DEFAULT_NETWORK),)
    assert (read[0].default, read[0].path) == (True, f"metadata.annotations[{DEFAULT_NETWORK}][0]")
    assert (found.problems, found.warnings) == ([], [])


@pytest.mark.parametrize(
    ("text", "number", "hint"),
    [
        ("", 0, "leave the annotation out"),
        ("[]", 0, "leave the annotation out"),
        ("a,b", 2, ""),
        ('[{"name": "a"}, {"name": "b"}]', 2, ""),
    ],
)
def test_not_one_default_network(text: str, number: int, hint: str) -> None:
    """No default network, or more than one, fails in Multus."""
    found = Findings()
    networks.read(DEFAULT_NETWORK, text, found)

    message = f"{number} networks are named; a pod has exactly one default network"
    assert found.problems == [Problem("NG406", f"metadata.annotations[{DEFAULT_NETWORK}]", text, message, hint)]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a", id="name"),
        pytest.param("b/a@net1,c", id="list"),
        pytest.param("[]", id="nothing"),
        pytest.param('[{"name":"null"}]', id="a network named null"),
        pytest.param('[{"name":"a.b"},{"name":"c","namespace":"d","interface":"X"}]', id="names for JSON only"),
        pytest.param('[{"name":"a","mac":"02:00:00:00:00:01","ips":["::1"],"deviceID":"x"}]', id="addresses"),
    ],
)
def test_write(text: str) -> None:
    """Attachments are written as a comma list where it can say them, else as JSON."""
    assert networks.write(networks.read(NETWORKS, text, Findings())) == text
