"""What is allowed here, and what holds where nothing is said."""

from typing import Any

import pytest
from pydantic import ValidationError

from noisegate.isolation.policy import DEFAULT_POLICY, Policy


def test_the_defaults_are_the_promised_ones() -> None:
    """The docs and pod-api promise these values; a change is a change of the contract."""
    assert DEFAULT_POLICY.model_dump(by_alias=True) == {
        "disk": {"minimumBytesPerSecond": 1048576, "minimumOperationsPerSecond": 10},
        "sriov": {
            "strict": False,
            "missingNetwork": "deny",
            "kuryr": {
                "default_physnet_subnets": {},
                "physnet_resource_mappings": {},
                "device_plugin_resource_prefix": "intel.com",
                "resource_driver_mappings": {},
            },
        },
        "cpu": {"optOut": False},
        "rdt": {"classes": ""},
        "excludeNamespaces": (),
        "enforcement": "off",
    }


def test_a_block_without_a_value_stands_for_its_defaults() -> None:
    """`disk:` with nothing behind it is as good as no `disk:`."""
    assert Policy.model_validate(dict.fromkeys(("disk", "sriov", "cpu", "rdt"))) == DEFAULT_POLICY


@pytest.mark.parametrize(
    ("given", "amount"),
    [("1Mi", 1048576), ("1.5k", 1500), ("5e3", 5000), (7, 7)],
)
def test_amounts_may_be_quantities(given: Any, amount: int) -> None:
    """A quantity and a number mean the same."""
    policy = Policy.model_validate({"disk": {"minimumBytesPerSecond": given, "minimumOperationsPerSecond": given}})
    assert policy.disk.minimum_bytes_per_second == amount
    assert policy.disk.minimum_operations_per_second == amount


def test_each_subnet_leads_to_one_physical_network() -> None:
    """Kuryr's mapping is taken as it is where no subnet stands twice."""
    subnets = {"physnet1": "s", "physnet2": "t"}
    policy = Policy.model_validate({"sriov": {"kuryr": {"default_physnet_subnets": subnets}}})
    assert policy.sriov.kuryr.default_physnet_subnets == subnets


def test_an_unquoted_off_means_off() -> None:
    """YAML reads `enforcement: off` as false; it still means off."""
    assert Policy.model_validate({"enforcement": False}).enforcement == "off"
    assert Policy.model_validate({"enforcement": "required"}).enforcement == "required"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param({"disk": {"minimumBytesPerSecond": "50MB"}}, "; write 50M", id="misspelt"),
        pytest.param({"disk": {"minimumBytesPerSecond": "0"}}, "is not a whole, positive number", id="zero"),
        pytest.param({"disk": {"minimumBytesPerSecond": "max"}}, "is not a quantity", id="word"),
        pytest.param({"disk": {"minimumBytesPerSecond": 0}}, "greater than or equal to 1", id="number-zero"),
        pytest.param({"disk": {"minimumBytesPerSecond": True}}, "valid integer", id="boolean"),
        pytest.param({"enforcement": True}, "Input should be 'off' or 'required'", id="on"),
        pytest.param({"excludeNamespaces": "a"}, "valid tuple", id="not-a-list"),
        pytest.param({"rdt": {"classes": ""}}, "at least 1 character", id="empty-path"),
        pytest.param({"sriov": {"strict": "true"}}, "valid boolean", id="text-for-boolean"),
        pytest.param({"sriov": {"kuryr": {"physnet": {}}}}, "Extra inputs are not permitted", id="unknown"),
        pytest.param(
            {"sriov": {"kuryr": {"default_physnet_subnets": {"a": "s", "b": "t", "c": "s"}}}},
            "a and c have the same subnet s; each subnet leads to one physical network",
            id="subnet-twice",
        ),
    ],
)
def test_wrong_values_are_refused(given: Any, told: str) -> None:
    """Nothing is coerced, nothing is ignored."""
    with pytest.raises(ValidationError) as error:
        Policy.model_validate(given)
    assert told in str(error.value)


def test_settings_cannot_be_changed() -> None:
    """A policy is handed around freely because nobody can alter it."""
    with pytest.raises(ValidationError, match="frozen"):
        DEFAULT_POLICY.enforcement = "required"
