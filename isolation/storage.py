"""What a pod's volumes are made of, as far as that decides whether they can have a disk to limit (pod-api.md 1).

A bandwidth limit holds on a block device of the node. A volume in memory, or one that comes over the network as a file
system, has none.
"""

from collections.abc import Container, Mapping, Sequence
from typing import Any, Final, NamedTuple

from noisegate.isolation.catalogue import Catalogue
from noisegate.isolation.problems import Code, Findings, nearest

NO_CLAIM: Final = Code(
    "NG152",
    "disk-claim-does-not-exist",
    "Warning: the PersistentVolumeClaim does not exist yet; the pod waits for it.",
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi"}}}\'\nvolumes: [{name: data, persistentVolumeClaim: {claimName: daat}}]',
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi"}}}\'\nvolumes: [{name: data, persistentVolumeClaim: {claimName: data}}]',
)
NO_LOCAL_DEVICE: Final = Code(
    "NG153",
    "disk-no-local-device",
    "Warning: volumes of this StorageClass are network or FUSE file systems, which have no block device on the node; the container will not start.",
    "blockio.kubernetes.io/resources: '{\"data\": {\"limits\": {\"rbps\": \"50Mi\"}}}'\n# StorageClass of data's claim: {provisioner: nfs.csi.k8s.io}",
    "blockio.kubernetes.io/resources: '{\"data\": {\"limits\": {\"rbps\": \"50Mi\"}}}'\n# StorageClass of data's claim: {provisioner: ebs.csi.aws.com}",
)
UNCHECKED: Final = Code(
    "NG154",
    "disk-unchecked",
    "Warning: nothing is known of the cluster's claims or of their StorageClasses, so whether the volume has a disk is not checked.",
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi"}}}\'\nvolumes: [{name: data, persistentVolumeClaim: {claimName: data}}]',
    "(give noisegate a catalogue with PersistentVolumeClaims and StorageClasses)",
)
CODES: Final = (NO_CLAIM, NO_LOCAL_DEVICE, UNCHECKED)

ALLOWED: Final = "emptyDir (on disk), persistentVolumeClaim and ephemeral volumes"

_ALLOWED_SOURCES: Final = frozenset({"emptyDir", "persistentVolumeClaim", "ephemeral"})

# Names that drivers of network and FUSE file systems carry as a part of their own: nfs.csi.k8s.io,
# rook-ceph.cephfs.csi.ceph.com, k8s-sigs.io/nfs-subdir-external-provisioner, gcsfuse.csi.storage.gke.io, ...
_REMOTE_PARTS: Final = frozenset(
    {
        "nfs", "cephfs", "efs", "smb", "cifs", "azurefile", "glusterfs", "gluster", "juicefs", "lustre", "beegfs", "fsx", "filestore",
        "manila", "gcsfuse", "fuse", "blobfuse", "blob", "s3", "nasplugin", "ossplugin", "seaweedfs", "cvmfs", "quobyte",
    }
)  # fmt: skip
_REMOTE_DRIVERS: Final = frozenset({"file.csi.azure.com", "kubernetes.io/azure-file"})


class Source(NamedTuple):
    """Where a volume comes from.

    Attributes:
        kind: Field of the volume that says it, such as `emptyDir`.
        fields: What stands there.
    """

    kind: str
    fields: Mapping[str, Any]


def source(volume: Mapping[str, Any]) -> Source:
    """Return where a volume comes from. One that does not say is an emptyDir, as the API server fills it in."""
    for kind, fields in volume.items():
        if kind != "name" and fields is not None:
            return Source(kind, fields if isinstance(fields, dict) else {})
    return Source("emptyDir", {})


def why_no_disk(volume: Mapping[str, Any]) -> str:
    """Return what a volume is, as `emptyDir with medium Memory`, if it cannot have a disk; else an empty string."""
    kind, fields = source(volume)
    if kind not in _ALLOWED_SOURCES:
        return kind
    if kind == "emptyDir":
        medium = fields.get("medium")
        if medium:
            return f"emptyDir with medium {medium}"
    return ""


def is_remote(provisioner: str) -> bool:
    """Tell whether a driver is known to serve file systems that have no block device on the node."""
    if provisioner in _REMOTE_DRIVERS:
        return True
    return not _REMOTE_PARTS.isdisjoint(provisioner.replace("/", ".").replace("-", ".").split("."))
