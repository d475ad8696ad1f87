"""A pod's `spec`, as far as the node reads it."""

from typing import Any

import msgspec


class _Partial(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A partial view of a Kubernetes type: every other field is skipped without being built."""


class Mount(_Partial, frozen=True):
    """An entry of `volumeMounts`."""

    name: str
    mount_path: str


class BlockDevice(_Partial, frozen=True):
    """An entry of `volumeDevices`."""

    name: str
    device_path: str


class _NoResources(_Partial, frozen=True):
    requests: dict[str, str | int | float] = {}
    limits: dict[str, str | int | float] = {}


_NO_RESOURCES = _NoResources()


class Container(_Partial, frozen=True):
    """A container or init container; its environment and resources are the kubelet's business."""

    name: str
    volume_mounts: tuple[Mount, ...] = ()
    volume_devices: tuple[BlockDevice, ...] = ()

    @property
    def env(self) -> tuple[()]:
        """Not read."""
        return ()

    @property
    def resources(self) -> _NoResources:
        """Not read."""
        return _NO_RESOURCES


class Spec(_Partial, frozen=True):
    """`spec` of a pod: an `isolation.pod.PodSpec`."""

    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    volumes: tuple[dict[str, Any], ...] = ()
    host_network: bool = False

    @property
    def node_selector(self) -> dict[str, str]:
        """Not read."""
        return {}

    @property
    def resources(self) -> _NoResources:
        """Not read."""
        return _NO_RESOURCES
