"""NetworkAttachmentDefinitions."""

import pytest

from noisegate.isolation import nad
from noisegate.isolation.catalogue import Network
from noisegate.isolation.nad import View
from noisegate.isolation.problems import Findings, Problem

PREFIX = "k8s.v1.cni.cncf.io/"
RESOURCE = PREFIX + "resourceName"
SELECTOR = PREFIX + "nodeSelector"
KURYR = "openstack.org/kuryr-config"
SUBNET = "88d0b025-2710-4f02-a348-2829853b45da"
KURYR_SRIOV = f'{{"subnetId": "{SUBNET}", "driverType": "sriov"}}'
CONFIG = '{"cniVersion": "0.3.1", "type": "sriov"}'
FORM = "an extended resource is <DNS name>/<name>"


@pytest.mark.parametrize(
    ("annotations", "config", "expected"),
    [
        pytest.param({}, "", View("", None, "", (), ()), id="configured on the nodes"),
        pytest.param(
            {RESOURCE: "intel.com/sriov_a"}, CONFIG, View("intel.com/sriov_a", None, "", (), ()), id="resource"
        ),
        pytest.param({SELECTOR: " nic = cx6 "}, "", View("", ("nic", "cx6"), "", (), ()), id="label"),
        pytest.param(
            {SELECTOR: "example.com/nic"}, "", View("", ("example.com/nic", ""), "", (), ()), id="label without value"
        ),
        pytest.param({KURYR: KURYR_SRIOV}, "", View("", None, SUBNET, (), ()), id="Kuryr"),
        pytest.param(
            {KURYR: f'{{"subnetId": "{SUBNET}"}}'},
            CONFIG.replace("sriov", "x"),
            View("", None, "", (), ()),
            id="Kuryr's other drivers",
        ),
    ],
)
def test_view(annotations: dict[str, str], config: str, expected: View) -> None:
    """A definition says which resource, which node and which subnet."""
    assert nad.view(Network(annotations, config)) == expected


def test_view_is_remembered() -> None:
    """The same texts are judged once; very long ones anew each time."""
    network = Network({RESOURCE: "intel.com/sriov_a"}, '{"type": "sriov", "name": "remembered"}')
    long = Network({}, '{"type": "bridge", "comment": "' + "x" * 20_000 + '"}')

    assert nad.view(network) is nad.view(network)
    assert nad.view(long) is not nad.view(long)
    assert nad.view(long) == View("", None, "", (), ())


def test_check() -> None:
    """All problems and warnings of a definition are found in one pass."""
    found = Findings()
    nad.check({RESOURCE: "sriov_a", SELECTOR: "a=b,c=d"}, '{"type": "sriov", "vlan": 5000, "trust": "yes"}', found)

    assert [(problem.code, problem.path) for problem in found.problems] == [
        ("NG426", f"metadata.annotations[{RESOURCE}]"),
        ("NG427", f"metadata.annotations[{SELECTOR}]"),
        ("NG422", "spec.config.vlan"),
        ("NG424", "spec.config.trust"),
    ]
    nad.check({}, CONFIG, found)
    assert [warning.code for warning in found.warnings] == ["NG471"]


@pytest.mark.parametrize(
    ("name", "told", "hint"),
    [
        pytest.param("sriov_a", "has no prefix", "write intel.com/sriov_a", id="no prefix"),
        pytest.param("", "has no prefix", "", id="empty"),
        pytest.param("Intel.com/a", 'has the prefix "Intel.com", which is no lower-case DNS name', "", id="capital"),
        pytest.param("/a", 'has the prefix "", which is no lower-case DNS name', "", id="empty prefix"),
        pytest.param(
            "kubernetes.io/a",
            'has the prefix "kubernetes.io", which Kubernetes keeps for itself',
            "",
            id="kubernetes.io",
        ),
        pytest.param(
            "x.kubernetes.io/a",
            'has the prefix "x.kubernetes.io", which Kubernetes keeps for itself',
            "",
            id="below it",
        ),
        pytest.param(
            "requests.intel.com/a",
            'has the prefix "requests.intel.com", which Kubernetes keeps for itself',
            "",
            id="quota's prefix",
        ),
        pytest.param(
            "intel.com/a/b",
            'has the name "a/b" behind the prefix, which is not 1 to 63 letters, digits, "-", "_" and "."',
            "",
            id="two slashes",
        ),
        pytest.param(
            "intel.com/" + "a" * 64,
            f'has the name "{"a" * 64}" behind the prefix, which is not 1 to 63 letters, digits, "-", "_" and "."',
            "",
            id="long",
        ),
    ],
)
def test_resource_name(name: str, told: str, hint: str) -> None:
    """What the API server would refuse in the pod is refused in the definition."""
    found = Findings()
    nad.check({RESOURCE: name}, "", found)

    assert found.problems == [
        Problem("NG426", f"metadata.annotations[{RESOURCE}]", name, f'"{name}" {told}; {FORM}', hint)
    ]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", ""),
        ("=b", ""),
        ("a=b=c", ""),
        ("a=b,c=d", "keep one label"),
        ("a b", ""),
        ("A/b/c=d", ""),
        ("/a=b", ""),
        ("a=" + "b" * 64, ""),
    ],
)
def test_node_selector(text: str, hint: str) -> None:
    """A node selector is one label."""
    found = Findings()
    nad.check({SELECTOR: text}, "", found)

    message = f'"{text}" is not one node label; allowed: key=value, or key for an empty value'
    assert found.problems == [Problem("NG427", f"metadata.annotations[{SELECTOR}]", text, message, hint)]


def test_two_owners() -> None:
    """A network of Kuryr's has neither configuration nor a resource name."""
    found = Findings()
    nad.check({KURYR: KURYR_SRIOV, RESOURCE: "intel.com/a"}, CONFIG, found)

    assert found.problems == [
        Problem(
            "NG428",
            "spec.config",
            CONFIG,
            f"a network with {KURYR} has no spec.config",
            f"leave spec.config out, or {KURYR}",
        ),
        Problem(
            "NG428",
            f"metadata.annotations[{RESOURCE}]",
            "intel.com/a",
            f"a network with {KURYR} has no {RESOURCE}",
            f"leave {RESOURCE} out, or {KURYR}",
        ),
    ]
