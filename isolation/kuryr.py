"""Kuryr's SR-IOV networks: from a subnet to the extended resource that serves it (pod-api.md 4).

A NetworkAttachmentDefinition of Kuryr's carries no CNI configuration. Its annotation names a Neutron subnet, and the
cluster's settings lead from there to devices: subnet -> physical network -> resource -> driver. Kuryr itself had no
admission step: a pod without the right device requests started with fewer interfaces than it named.
"""

import re
from functools import partial
from typing import Final

from noisegate.isolation.payload import Payload
from noisegate.isolation.policy import KuryrPolicy
from noisegate.isolation.problems import Code, Findings, in_annotation, shown

CONFIG_KEY: Final = "openstack.org/kuryr-config"
"""Annotation of a NetworkAttachmentDefinition: JSON `{"subnetId": "<uuid>", "driverType": "sriov"}`."""

_SRIOV: Final = "sriov"
_FIELDS: Final = frozenset({"subnetId", "driverType"})
_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")

BAD_CONFIG: Final = Code(
    "NG431",
    "kuryr-bad-config",
    "The annotation is a JSON object with the UUID of a Neutron subnet and, for SR-IOV, driverType sriov.",
    'openstack.org/kuryr-config: \'{"driverType": "sriov"}\'',
    'openstack.org/kuryr-config: \'{"subnetId": "88d0b025-2710-4f02-a348-2829853b45da", "driverType": "sriov"}\'',
)
UNMAPPED: Final = Code(
    "NG432",
    "kuryr-unmapped",
    "Kuryr's settings do not lead from the network's subnet to a device, so Kuryr would leave the interface out.",
    'openstack.org/kuryr-config: \'{"subnetId": "00000000-2710-4f02-a348-2829853b45da", "driverType": "sriov"}\'',
    'openstack.org/kuryr-config: \'{"subnetId": "88d0b025-2710-4f02-a348-2829853b45da", "driverType": "sriov"}\'',
)
UNCHECKED: Final = Code(
    "NG481",
    "kuryr-unchecked",
    "Warning: the server does not know Kuryr's mappings, so no device is added for networks of Kuryr's.",
    "policy: {}",
    "policy:\n  sriov:\n    kuryr:\n      default_physnet_subnets: {physnet1: 88d0b025-2710-4f02-a348-2829853b45da}\n"
    "      physnet_resource_mappings: {physnet1: sriov_a}\n      resource_driver_mappings: {sriov_a: vfio-pci}",
)
CODES: Final = (BAD_CONFIG, UNMAPPED, UNCHECKED)


def read(text: str, found: Findings) -> str:
    """Return the subnet of a network that Kuryr serves by SR-IOV; empty where it is of another driver, or wrong.

    `text`: the value of `openstack.org/kuryr-config`. Without a driverType Kuryr plugs the pod into Neutron's own way.
    """
    payload = Payload(partial(in_annotation, CONFIG_KEY), found)
    config = payload.decode_object(text)
    members = None if config is None else payload.members(config, _FIELDS)
    if not members or "driverType" not in members:
        return ""
    driver = payload.string(members["driverType"], "driverType")
    if driver is None:
        return ""
    if driver != _SRIOV:
        if re.sub(r"[^a-z]", "", driver.lower()) == _SRIOV:
            payload.deny(
                BAD_CONFIG,
                driver,
                f'driverType "{shown(driver)}" is none of Kuryr\'s',
                "driverType",
                hint="write sriov",
            )
        return ""
    if "subnetId" not in members:
        payload.deny(
            BAD_CONFIG,
            "",
            "driverType sriov needs the subnetId of a Neutron subnet, which is missing",
            hint="add subnetId",
        )
        return ""
    subnet = payload.string(members["subnetId"], "subnetId")
    if subnet is None:
        return ""
    if not _UUID.fullmatch(subnet):
        payload.deny(BAD_CONFIG, subnet, f'subnetId "{shown(subnet)}" is not a UUID in lower case', "subnetId")
        return ""
    return subnet


def resource_of(subnet: str, network: str, settings: KuryrPolicy, path: str, found: Findings) -> str:
    """Return the extended resource that serves a subnet; empty where Kuryr's settings lead to none.

    Args:
        subnet: UUID of the Neutron subnet.
        network: The NetworkAttachmentDefinition, `namespace/name`, for messages.
        settings: Kuryr's own mappings.
        path: Where the pod names the network.
        found: Problems and warnings.
    """
    if not settings.default_physnet_subnets:
        found.warn(
            UNCHECKED,
            path,
            network,
            f"network {network} is Kuryr's, and the server does not know Kuryr's mappings; nothing is added for it",
            "set policy.sriov.kuryr",
        )
        return ""
    physical = next((name for name, served in settings.default_physnet_subnets.items() if served == subnet), None)
    # Kuryr's CNI side looks in all three mappings and knows no defaults.
    if physical is None:
        _report(f"subnet {subnet} is in no entry of default_physnet_subnets", network, path, found)
        return ""
    resource = settings.physnet_resource_mappings.get(physical)
    if resource is None:
        _report(f"physical network {physical} is not in physnet_resource_mappings", network, path, found)
        return ""
    if resource not in settings.resource_driver_mappings:
        _report(f"resource {resource} is not in resource_driver_mappings", network, path, found)
        return ""
    return f"{settings.device_plugin_resource_prefix}/{resource}"


def _report(told: str, network: str, path: str, found: Findings) -> None:
    found.deny(
        UNMAPPED,
        path,
        network,
        f"no device serves network {network}: {told}",
        "mend policy.sriov.kuryr, or the subnetId of the network",
    )
