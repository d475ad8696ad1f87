"""Kuryr's SR-IOV networks."""

import pytest

from noisegate.isolation import kuryr
from noisegate.isolation.policy import KuryrPolicy
from noisegate.isolation.problems import Findings, Problem

SUBNET = "88d0b025-2710-4f02-a348-2829853b45da"
OTHER = "11d0b025-2710-4f02-a348-2829853b45da"
PATH = "metadata.annotations[openstack.org/kuryr-config]"
SETTINGS = KuryrPolicy(
    default_physnet_subnets={"physnet1": SUBNET, "physnet2": OTHER, "physnet3": "33d0b025-2710-4f02-a348-2829853b45da"},
    physnet_resource_mappings={"physnet1": "sriov_a", "physnet3": "sriov_c"},
    resource_driver_mappings={"sriov_a": "vfio-pci"},
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(f'{{"subnetId": "{SUBNET}", "driverType": "sriov"}}', SUBNET, id="sriov"),
        pytest.param(f'{{"subnetId": "{SUBNET}"}}', "", id="no driver"),
        pytest.param(f'{{"subnetId": "{SUBNET}", "driverType": "macvlan"}}', "", id="another driver"),
        pytest.param("{}", "", id="empty"),
    ],
)
def test_read(text: str, expected: str) -> None:
    """Only networks of driver type sriov need devices."""
    found = Findings()

    assert kuryr.read(text, found) == expected
    assert (found.problems, found.warnings) == ([], [])


@pytest.mark.parametrize(
    ("text", "code", "place", "value", "message", "hint"),
    [
        pytest.param("[]", "NG004", "", "[]", "must be an object, not a list", "", id="list"),
        pytest.param(
            '{"subnetID": "x"}',
            "NG003",
            ".subnetID",
            "x",
            'unknown key "subnetID"; allowed: driverType, subnetId',
            "write subnetId",
            id="unknown key",
        ),
        pytest.param(
            '{"driverType": 5}',
            "NG004",
            ".driverType",
            "5",
            "must be a string, not a number",
            'write "5"',
            id="driver's type",
        ),
        pytest.param(
            '{"driverType": "SR-IOV"}',
            "NG431",
            ".driverType",
            "SR-IOV",
            'driverType "SR-IOV" is none of Kuryr\'s',
            "write sriov",
            id="spelling",
        ),
        pytest.param(
            '{"driverType": "sriov"}',
            "NG431",
            "",
            "",
            "driverType sriov needs the subnetId of a Neutron subnet, which is missing",
            "add subnetId",
            id="none",
        ),
        pytest.param(
            '{"driverType": "sriov", "subnetId": null}',
            "NG004",
            ".subnetId",
            "",
            "must be a string, not null",
            "",
            id="subnet's type",
        ),
        pytest.param(
            '{"driverType": "sriov", "subnetId": "a"}',
            "NG431",
            ".subnetId",
            "a",
            'subnetId "a" is not a UUID in lower case',
            "",
            id="subnet",
        ),
    ],
)
def test_wrong(text: str, *, code: str, place: str, value: str, message: str, hint: str) -> None:
    """What Kuryr could not work with is refused."""
    found = Findings()

    assert kuryr.read(text, found) == ""
    assert found.problems == [Problem(code, PATH + place, value, message, hint)]


def test_resource() -> None:
    """The settings lead from the subnet to the extended resource."""
    found = Findings()

    assert kuryr.resource_of(SUBNET, "ns/a", SETTINGS, "p", found) == "intel.com/sriov_a"
    assert (found.problems, found.warnings) == ([], [])


@pytest.mark.parametrize(
    ("subnet", "told"),
    [
        ("x", "subnet x is in no entry of default_physnet_subnets"),
        (OTHER, "physical network physnet2 is not in physnet_resource_mappings"),
        ("33d0b025-2710-4f02-a348-2829853b45da", "resource sriov_c is not in resource_driver_mappings"),
    ],
)
def test_unmapped(subnet: str, told: str) -> None:
    """Settings that lead nowhere mean that Kuryr leaves the interface out."""
    found = Findings()

    assert kuryr.resource_of(subnet, "ns/a", SETTINGS, "p", found) == ""
    message = f"no device serves network ns/a: {told}"
    assert found.problems == [
        Problem("NG432", "p", "ns/a", message, "mend policy.sriov.kuryr, or the subnetId of the network")
    ]


def test_no_settings() -> None:
    """A server that was told nothing of Kuryr checks nothing, and says so."""
    found = Findings()

    assert kuryr.resource_of(SUBNET, "ns/a", KuryrPolicy(), "p", found) == ""
    message = "network ns/a is Kuryr's, and the server does not know Kuryr's mappings; nothing is added for it"
    assert (found.problems, found.warnings) == ([], [Problem("NG481", "p", "ns/a", message, "set policy.sriov.kuryr")])
