"""Devices: how many the containers of a pod must ask for so that every attachment gets one (pod-api.md 4)."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from noisegate.isolation import keys, quantity
from noisegate.isolation.pod import Container, PodSpec
from noisegate.isolation.policy import SriovPolicy
from noisegate.isolation.problems import Code, Findings, in_annotation, nearest, shown
from noisegate.isolation.sriov import Attachments

MOST_DEVICES: Final = 2**16
"""More than any node has; a larger number is a mistake in the unit."""

TOO_FEW: Final = Code(
    "NG416",
    "sriov-too-few-devices",
    "With policy.sriov.strict a pod that asks for devices itself must ask for as many as its attachments need.",
    "metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/networks: fast,fast\nspec:\n  containers:\n    - resources: {limits: {intel.com/sriov_a: 1}}",
    "metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/networks: fast,fast\nspec:\n  containers:\n    - resources: {limits: {intel.com/sriov_a: 2}}",
)
BAD_NUMBER: Final = Code(
    "NG417",
    "sriov-bad-number",
    "Devices are counted in whole numbers, and request and limit of an extended resource are the same.",
    "resources:\n  requests: {intel.com/sriov_a: 1}\n  limits: {intel.com/sriov_a: 2}",
    "resources:\n  limits: {intel.com/sriov_a: 2}",
)
SURPLUS: Final = Code(
    "NG418",
    "sriov-kuryr-surplus",
    "Kuryr pairs devices with attachments: a device that no attachment uses is a mistake in one of the two numbers.",
    "metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/networks: kuryr-a\nspec:\n  containers:\n    - resources: {limits: {intel.com/sriov_a: 2}}",
    "metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/networks: kuryr-a,kuryr-a\nspec:\n  containers:\n    - resources: {limits: {intel.com/sriov_a: 2}}",
)
TOPPED_UP: Final = Code(
    "NG463",
    "sriov-topped-up",
    "Warning: the pod asks for some devices, but for fewer than its attachments need; the missing ones are added.",
    "metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/networks: fast,fast\nspec:\n  containers:\n    - resources: {limits: {intel.com/sriov_a: 1}}",
    "metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/networks: fast,fast",
)
UNKNOWN_CONTAINER: Final = Code(
    "NG419",
    "sriov-unknown-container",
    "noisegate.io/devices-container names a container that the pod does not have; init containers cannot be given devices.",
    "noisegate.io/devices-container: ap",
    "noisegate.io/devices-container: app",
)
CODES: Final = (UNKNOWN_CONTAINER, TOO_FEW, BAD_NUMBER, SURPLUS, TOPPED_UP)


class Grant(NamedTuple):
    """A number of devices that a container must ask for, in `requests` and in `limits` alike.

    Attributes:
        container: Position in `containers`.
        resource: The extended resource.
        units: What both must say afterwards.
        added: By how much that is more than the container asks for now; 0: only request or limit is completed.
    """

    container: int
    resource: str
    units: int
    added: int


def target(annotations: Mapping[str, str], spec: PodSpec, found: Findings) -> int:
    """Return the position in `containers` of the container that gets the devices.

    It is the one that `noisegate.io/devices-container` names, else the one that `kubectl.kubernetes.io/default-container`
    names where that exists, else the first.
    """
    name = annotations.get(keys.DEVICES_CONTAINER)
    if name is not None:
        for index, container in enumerate(spec.containers):
            if container.name == name:
                return index
        names = [container.name for container in spec.containers]
        meant = nearest(name, tuple(names))
        found.deny(
            UNKNOWN_CONTAINER,
            in_annotation(keys.DEVICES_CONTAINER),
            name,
            f'the pod has no container "{shown(name)}"; it has {", ".join(names) or "none"}',
            f"write {meant}" if meant else "",
        )
        return 0
    name = annotations.get(keys.DEFAULT_CONTAINER)
    if name is not None:
        for index, container in enumerate(spec.containers):
            if container.name == name:
                return index
    return 0


def missing(
    attachments: Attachments, spec: PodSpec, container: int, policy: SriovPolicy, found: Findings
) -> tuple[Grant, ...]:
    """Return what must be set so that the pod asks for a device for every attachment; nothing when it does already.

    Args:
        attachments: What is needed.
        spec: What the regular containers ask for already counts; init containers give their devices back.
        container: Position of the container that gets what is missing.
        policy: Whether asking for too few is a problem rather than topped up.
        found: Problems and warnings.
    """
    if not attachments.units or not spec.containers:
        return ()
    grants: list[Grant] = []
    for resource in sorted(attachments.units):
        needed = attachments.units[resource]
        asked: dict[int, int] = {}
        sound = True
        for index, each in enumerate(spec.containers):
            resources = each.resources
            if resource in resources.limits or resource in resources.requests:
                number = _asked(each, index, resource, found)
                if number is None:
                    sound = False
                else:
                    asked[index] = number
        if not sound:
            continue
        total = sum(asked.values())
        if total > needed:
            if resource in attachments.kuryr and attachments.known:
                _report_surplus(resource, needed, total, asked, found)
        elif total < needed and asked:
            _report_shortage(resource, needed, total, asked, found, strict=policy.strict)
        for index, number in asked.items():
            if index != container or total >= needed:
                half = spec.containers[index].resources
                if number and (resource not in half.limits or resource not in half.requests):
                    grants.append(Grant(index, resource, number, 0))
        if total < needed:
            grants.append(Grant(container, resource, asked.get(container, 0) + needed - total, needed - total))
    return tuple(grants)


def _asked(container: Container, index: int, resource: str, found: Findings) -> int | None:
    """Return the number of devices a container asks for, or None where request or limit cannot be meant."""
    numbers: list[int] = []
    sound = True
    resources = container.resources
    for name, quantities in (("limits", resources.limits), ("requests", resources.requests)):
        if resource not in quantities:
            continue
        given = quantities[resource]
        number = quantity.count(given, MOST_DEVICES)
        if number is None:
            path = f"spec.containers[{index}].resources.{name}[{resource}]"
            found.deny(
                BAD_NUMBER, path, given, f"{given} is not a whole number of devices; allowed: 0 to {MOST_DEVICES}"
            )
            sound = False
        else:
            numbers.append(number)
    if not sound:
        return None
    if numbers[0] != numbers[-1]:
        limit, request = resources.limits[resource], resources.requests[resource]
        found.deny(
            BAD_NUMBER,
            f"spec.containers[{index}].resources.requests[{resource}]",
            request,
            f"request {request} and limit {limit} differ; devices cannot be overcommitted, the two are the same number",
            f"leave the request out, or write {limit}",
        )
        return None
    return numbers[0]


def _report_shortage(
    resource: str, needed: int, total: int, asked: Mapping[int, int], found: Findings, *, strict: bool
) -> None:
    path = f"spec.containers[{min(asked)}].resources.limits[{resource}]"
    told = f"the pod asks for {total} of {resource}, its attachments need {needed}"
    if strict:
        found.deny(TOO_FEW, path, total, told, f"write {needed} in all, or leave {resource} out")
    else:
        found.warn(
            TOPPED_UP,
            path,
            total,
            f"{told}; {needed - total} more will be asked for",
            f"write {needed} in all, or leave {resource} out",
        )


def _report_surplus(resource: str, needed: int, total: int, asked: Mapping[int, int], found: Findings) -> None:
    path = f"spec.containers[{min(index for index in asked if asked[index])}].resources.limits[{resource}]"
    told = f"the pod asks for {total} of {resource}, its attachments use {needed}; Kuryr pairs each device with an attachment"
    found.deny(SURPLUS, path, total, told, f"write {needed} in all, or name more networks")
