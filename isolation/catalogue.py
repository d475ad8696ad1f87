"""What the checks know of the cluster: pure look-ups in knowledge that somebody else keeps up to date.

A look-up never waits. A mapping that is None means *we do not know this kind at all* (no source configured): the
checks then leave it unchecked and say so. An empty mapping means *we know, and there is none*.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Network(NamedTuple):
    """What the checks need of a NetworkAttachmentDefinition (k8s.cni.cncf.io/v1).

    Attributes:
        annotations: Its annotations (resourceName, nodeSelector, openstack.org/kuryr-config).
        config: Its `spec.config`, CNI JSON text; empty when absent.
    """

    annotations: Mapping[str, str]
    config: str


class Claim(NamedTuple):
    """What the checks need of a PersistentVolumeClaim.

    Attributes:
        storage_class: `spec.storageClassName`; empty when absent (the cluster's default class).
    """

    storage_class: str


class StorageClass(NamedTuple):
    """What the checks need of a StorageClass (storage.k8s.io/v1).

    Attributes:
        provisioner: Name of the driver, such as `ebs.csi.aws.com` or `nfs.csi.k8s.io`.
        default: Whether it carries `storageclass.kubernetes.io/is-default-class: "true"`.
    """

    provisioner: str
    default: bool = False


class RdtClass(NamedTuple):
    """What the checks need of a class in goresctrl's class file.

    Attributes:
        deny_pod_annotation: `kubernetes.denyPodAnnotation`: no pod-wide annotation may choose it.
        deny_container_annotation: `kubernetes.denyContainerAnnotation`: no container's annotation may choose it.
    """

    deny_pod_annotation: bool = False
    deny_container_annotation: bool = False


class Catalogue(NamedTuple):
    """Everything the checks may look up. Networks and claims are keyed by `namespace/name`, the others by name."""

    networks: Mapping[str, Network] | None = None
    claims: Mapping[str, Claim] | None = None
    storage_classes: Mapping[str, StorageClass] | None = None
    rdt_classes: Mapping[str, RdtClass] | None = None


NOTHING_KNOWN = Catalogue()
