"""Kubernetes objects as the webhook reads them: typed, partial, straight from the bytes.

Only what is read is decoded; every other field is skipped without being built. A field that is absent, null or empty
is one and the same thing, as in Kubernetes.
"""

from typing import Any, TypeVar

import msgspec

Quantities = dict[str, str | int | float]


class _Partial(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """A partial view of a Kubernetes type: unknown fields are skipped, absent ones are left out when it is written."""


class EnvVar(_Partial, frozen=True):
    name: str
    value: str | None = None
    value_from: dict[str, Any] | None = None


class VolumeMount(_Partial, frozen=True):
    name: str
    mount_path: str


class VolumeDevice(_Partial, frozen=True):
    name: str
    device_path: str


class ResourceRequirements(_Partial, frozen=True):
    requests: Quantities = {}
    limits: Quantities = {}


NO_RESOURCES = ResourceRequirements()


class Container(_Partial, frozen=True):
    name: str
    env: tuple[EnvVar, ...] = ()
    resources: ResourceRequirements = NO_RESOURCES
    volume_mounts: tuple[VolumeMount, ...] = ()
    volume_devices: tuple[VolumeDevice, ...] = ()


class PodSpec(_Partial, frozen=True):
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    volumes: tuple[dict[str, Any], ...] = ()
    tolerations: tuple[dict[str, Any], ...] = ()
    node_selector: dict[str, str] = {}
    service_account_name: str = ""
    host_network: bool = msgspec.field(name="hostNetwork", default=False)
    resources: ResourceRequirements = NO_RESOURCES


class ObjectMeta(_Partial, frozen=True):
    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    annotations: dict[str, str] = {}
    labels: dict[str, str] = {}
    deletion_timestamp: str | None = None


NO_METADATA = ObjectMeta()
NO_SPEC = PodSpec()


class Pod(_Partial, frozen=True):
    """A Pod (v1), and equally the `template` of a workload."""

    metadata: ObjectMeta = NO_METADATA
    spec: PodSpec = NO_SPEC


class NetworkAttachmentDefinitionSpec(_Partial, frozen=True):
    config: str = ""


class NetworkAttachmentDefinition(_Partial, frozen=True):
    """A NetworkAttachmentDefinition (k8s.cni.cncf.io/v1)."""

    metadata: ObjectMeta = NO_METADATA
    spec: NetworkAttachmentDefinitionSpec = NetworkAttachmentDefinitionSpec()


class _ClaimTemplate(_Partial, frozen=True):
    metadata: ObjectMeta = NO_METADATA


class _WorkloadSpec(_Partial, frozen=True):
    template: Pod = Pod()
    volume_claim_templates: tuple[_ClaimTemplate, ...] = ()


class Workload(_Partial, frozen=True):
    """A Deployment, StatefulSet, DaemonSet, ReplicaSet (apps/v1) or Job (batch/v1): a pod template at `spec.template`."""

    metadata: ObjectMeta = NO_METADATA
    spec: _WorkloadSpec = _WorkloadSpec()


class _JobTemplate(_Partial, frozen=True):
    spec: _WorkloadSpec = _WorkloadSpec()


class _CronJobSpec(_Partial, frozen=True):
    job_template: _JobTemplate = _JobTemplate()


class CronJob(_Partial, frozen=True):
    """A CronJob (batch/v1): a pod template at `spec.jobTemplate.spec.template`."""

    metadata: ObjectMeta = NO_METADATA
    spec: _CronJobSpec = _CronJobSpec()


T = TypeVar("T")


class NotThatObject(ValueError):  # noqa: N818  (it names what was found)
    """The bytes are not the object they should be; the text says which field has which type instead."""


def decode(decoder: "msgspec.json.Decoder[T]", raw: bytes | msgspec.Raw) -> T:
    """Decode JSON into a typed partial view.

    Raises:
        NotThatObject: A field that is read has another type, or the bytes are no JSON at all.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        # Kubernetes reads null as absent; the typed decoder does not, and only hand-made JSON holds any.
        try:
            return decoder.decode(msgspec.json.encode(_without_nulls(msgspec.json.decode(raw))))
        except (msgspec.MsgspecError, RecursionError) as error:
            raise NotThatObject(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotThatObject(str(error)) from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
