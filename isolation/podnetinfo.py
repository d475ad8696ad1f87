"""/etc/podnetinfo: what a pod's programs can read about its networks, labels and huge pages (pod-api.md 4).

Programs that use SR-IOV interfaces (app-netutil, DPDK applications) find the addresses of their devices in the pod's
annotations, and the number of huge pages per container, in files that the downward API fills.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from noisegate.isolation.pod import Container, PodSpec
from noisegate.isolation.problems import Code, Findings
from noisegate.isolation.quantity import parse as quantity_of

VOLUME: Final = "podnetinfo"
MOUNT_PATH: Final = "/etc/podnetinfo"
ENV: Final = "CONTAINER_NAME"
"""Tells the container's programs which of the huge page files are theirs."""

VOLUME_TAKEN: Final = Code(
    "NG441",
    "podnetinfo-volume-taken",
    "The name podnetinfo belongs to the downward API volume that pods with SR-IOV devices get.",
    "metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/networks: fast\nspec:\n  volumes:\n    - {name: podnetinfo, emptyDir: {}}",
    "metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/networks: fast\nspec:\n  volumes:\n    - {name: cache, emptyDir: {}}",
)
ENV_KEPT: Final = Code(
    "NG491",
    "podnetinfo-env-kept",
    "Warning: CONTAINER_NAME has a value of the user's own, which is kept; programs that look for their huge page files by it will not find them.",
    "containers:\n  - name: app\n    env: [{name: CONTAINER_NAME, value: web}]\n    resources: {limits: {hugepages-1Gi: 1Gi}}",
    "containers:\n  - name: app\n    resources: {limits: {hugepages-1Gi: 1Gi}}",
)
CODES: Final = (VOLUME_TAKEN, ENV_KEPT)

_HUGEPAGES: Final = "hugepages-"


class PodNetInfo(NamedTuple):
    """What a pod must be given.

    Attributes:
        volume: The volume to add, or None where the pod has it already or no container would mount it.
        mounts: Positions in `containers` of those that must mount it (`mount`).
        env: Position and name of the containers that must be told their name (`CONTAINER_NAME`).
    """

    volume: Mapping[str, Any] | None
    mounts: tuple[int, ...]
    env: tuple[tuple[int, str], ...]


def mount() -> dict[str, Any]:
    """Return the entry for `volumeMounts`."""
    return {"name": VOLUME, "readOnly": True, "mountPath": MOUNT_PATH}


def podnetinfo(labels: bool, annotations: bool, spec: PodSpec, found: Findings) -> PodNetInfo:
    """Return what a pod whose attachments take devices must be given so that /etc/podnetinfo is there.

    A container that has something else at the path is left alone; a downward API volume of the same name is taken for
    ours. `labels`, `annotations`: whether the pod has any: a file is made only of what is there.
    """
    items: dict[str, dict[str, Any]] = {}
    env: list[tuple[int, str]] = []
    mounts: list[int] = []
    mounted = False
    for index, container in enumerate(spec.containers):
        for each in container.volume_mounts:
            if each.mount_path.rstrip("/") == MOUNT_PATH:
                mounted = mounted or each.name == VOLUME
                break
        else:
            mounts.append(index)
        of_container = _hugepages(container)
        if of_container:
            items.update(of_container)
            if _lacks_name(container, index, found):
                env.append((index, container.name))
    if not (mounts or (mounted and all(volume.get("name") != VOLUME for volume in spec.volumes))):
        return PodNetInfo(None, (), tuple(env))
    for position, volume in enumerate(spec.volumes):
        if volume.get("name") == VOLUME:
            if volume.get("downwardAPI") is None:
                kind = next((key for key in volume if key != "name"), "emptyDir")
                found.deny(
                    VOLUME_TAKEN,
                    f"spec.volumes[{position}]",
                    VOLUME,
                    f'the volume "{VOLUME}" is of type {kind}; pods with SR-IOV devices get a downwardAPI volume of that name',
                    "give the volume another name",
                )
            return PodNetInfo(None, tuple(mounts), tuple(env))
    files = [_of_metadata(name) for name, present in (("labels", labels), ("annotations", annotations)) if present]
    return PodNetInfo({"name": VOLUME, "downwardAPI": {"items": [*files, *items.values()]}}, tuple(mounts), tuple(env))


def _of_metadata(name: str) -> dict[str, Any]:
    return {"path": name, "fieldRef": {"fieldPath": f"metadata.{name}"}}


def _hugepages(container: Container) -> dict[str, dict[str, Any]]:
    """Return the downward API items for the huge pages of a container, by path, in MiB.

    A size is requested as much as it is limited: Kubernetes fills in a request that is absent.
    """
    limits, requests = container.resources.limits, container.resources.requests
    pages = {name for name in (*limits, *requests) if name.startswith(_HUGEPAGES) and name != _HUGEPAGES}
    items: dict[str, dict[str, Any]] = {}
    if not pages:
        return items
    both = {**limits, **requests}
    for side, quantities in (("request", both), ("limit", limits)):
        for name in sorted(pages):
            if name in quantities and not _is_zero(quantities[name]):
                path = f"hugepages_{name.removeprefix(_HUGEPAGES).replace('i', '')}_{side}_{container.name}"
                reference = {"containerName": container.name, "resource": f"{side}s.{name}", "divisor": "1Mi"}
                items[path] = {"path": path, "resourceFieldRef": reference}
    return items


def _is_zero(quantity: str | float) -> bool:
    try:
        return quantity_of(str(quantity)) == 0
    except ValueError:
        return False


def _lacks_name(container: Container, index: int, found: Findings) -> bool:
    for position, variable in enumerate(container.env):
        if variable.name == ENV:
            if variable.value != container.name:
                value = variable.value or ""
                comes = f'is "{value}"' if variable.value_from is None else "comes from a valueFrom"
                told = f'{ENV} {comes} and is kept; the huge page files carry the container\'s name, "{container.name}"'
                found.warn(ENV_KEPT, f"spec.containers[{index}].env[{position}]", value, told, "leave the variable out")
            return False
    return True
