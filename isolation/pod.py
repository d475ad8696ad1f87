"""The shape of a pod, as far as the checks read it.

Protocols, so that the webhook's decoded structs and a test's plain objects serve alike and nothing is copied.
Absent lists are empty, absent maps are empty, as Kubernetes treats them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Mount(Protocol):
    """An entry of `volumeMounts`."""

    @property
    def name(self) -> str: ...
    @property
    def mount_path(self) -> str: ...


class Device(Protocol):
    """An entry of `volumeDevices`: a raw block volume."""

    @property
    def name(self) -> str: ...
    @property
    def device_path(self) -> str: ...


class Env(Protocol):
    """An entry of `env`. `value` is None where it is absent: then it is empty, or comes from `value_from`."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str | None: ...
    @property
    def value_from(self) -> object | None: ...


class Resources(Protocol):
    """`resources`: quantities by resource name, as text or, in hand-written manifests, as numbers."""

    @property
    def requests(self) -> Mapping[str, str | int | float]: ...
    @property
    def limits(self) -> Mapping[str, str | int | float]: ...


class Container(Protocol):
    """A container or init container."""

    @property
    def name(self) -> str: ...
    @property
    def env(self) -> Sequence[Env]: ...
    @property
    def resources(self) -> Resources: ...
    @property
    def volume_mounts(self) -> Sequence[Mount]: ...
    @property
    def volume_devices(self) -> Sequence[Device]: ...


class PodSpec(Protocol):
    """`spec` of a pod. Volumes stay as decoded JSON: `{"name": ..., "<source>": {...}}`."""

    @property
    def containers(self) -> Sequence[Container]: ...
    @property
    def init_containers(self) -> Sequence[Container]: ...
    @property
    def volumes(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def node_selector(self) -> Mapping[str, str]: ...
    @property
    def host_network(self) -> bool: ...
    @property
    def resources(self) -> Resources: ...
