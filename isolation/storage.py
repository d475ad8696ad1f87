"""What a pod's volumes are made of, as far as that decides whether they can have a disk to limit (pod-api.md 1).

A bandwidth limit holds on a block device of the node. A volume in memory, or one that comes over the network as a file
system, has none.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from noisegate.isolation.catalogue import Catalogue, StorageClass
from noisegate.isolation.payload import MOST_REPORTED
from noisegate.isolation.pod import PodSpec
from noisegate.isolation.problems import Code, Findings, nearest, shown

UNKNOWN_VOLUME: Final = Code(
    "NG105",
    "disk-unknown-volume",
    "The annotation names a volume that the pod does not have.",
    'blockio.kubernetes.io/resources: \'{"vol1": {"limits": {"rbps": "50Mi"}}}\'\nvolumes: [{name: volume1, emptyDir: {}}]',
    'blockio.kubernetes.io/resources: \'{"volume1": {"limits": {"rbps": "50Mi"}}}\'\nvolumes: [{name: volume1, emptyDir: {}}]',
)
VOLUME_TYPE: Final = Code(
    "NG106",
    "disk-volume-type",
    "Only an emptyDir on disk, a persistentVolumeClaim or an ephemeral volume can have a disk of its own to limit.",
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi"}}}\'\nvolumes: [{name: data, emptyDir: {medium: Memory}}]',
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi"}}}\'\nvolumes: [{name: data, emptyDir: {}}]',
)
NOT_MOUNTED: Final = Code(
    "NG151",
    "disk-volume-not-mounted",
    "Warning: no container mounts the volume, so there is nothing to limit.",
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi"}}}\'\nvolumes: [{name: data, emptyDir: {}}]',
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi"}}}\'\nvolumes: [{name: data, emptyDir: {}}]\nvolumeMounts: [{name: data, mountPath: /data}]',
)
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
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi"}}}\'\n# StorageClass of data\'s claim: {provisioner: nfs.csi.k8s.io}',
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi"}}}\'\n# StorageClass of data\'s claim: {provisioner: ebs.csi.aws.com}',
)
UNCHECKED: Final = Code(
    "NG154",
    "disk-unchecked",
    "Warning: nothing is known of the cluster's claims or of their StorageClasses, so whether the volume has a disk is not checked.",
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi"}}}\'\nvolumes: [{name: data, persistentVolumeClaim: {claimName: data}}]',
    "(give noisegate a catalogue with PersistentVolumeClaims and StorageClasses)",
)
CODES: Final = (UNKNOWN_VOLUME, VOLUME_TYPE, NOT_MOUNTED, NO_CLAIM, NO_LOCAL_DEVICE, UNCHECKED)

ALLOWED: Final = "emptyDir (on disk), persistentVolumeClaim and ephemeral volumes"

# A name is compared with every other of its namespace: bounded, for a namespace may hold thousands of claims.
_MOST_CANDIDATES: Final = 500
_MOST_SUGGESTIONS: Final = 8

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


def source(volume: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the field that says where a volume comes from, such as `emptyDir`, and what stands there.

    A volume that does not say it is an emptyDir: so the API server fills it in.
    """
    for kind, fields in volume.items():
        if kind != "name" and fields is not None:
            return kind, fields if isinstance(fields, dict) else {}
    return "emptyDir", {}


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


@lru_cache(maxsize=256)
def is_remote(provisioner: str) -> bool:
    """Tell whether a driver is known to serve file systems that have no block device on the node."""
    if provisioner in _REMOTE_DRIVERS:
        return True
    return not _REMOTE_PARTS.isdisjoint(provisioner.replace("/", ".").replace("-", ".").split("."))


def check_volumes(
    names: Sequence[str], spec: PodSpec, claim_templates: Container[str], place: Callable[[str], str], found: Findings
) -> None:
    """Report volumes that the pod does not have or that cannot have a disk; warn of those that nobody mounts.

    Args:
        names: Of the volumes that ask.
        spec: The pod's.
        claim_templates: Names that are volumes without standing in the spec.
        place: Returns the path of what a volume asks for.
        found: Problems and warnings.
    """
    volumes = {volume.get("name"): volume for volume in spec.volumes}
    there = []
    for name in names:
        if name not in claim_templates:
            volume = volumes.get(name)
            if volume is None:
                _explain_unknown(name, [shown(known) for known in volumes if known], place, found)
                continue
            kind = why_no_disk(volume)
            if kind:
                told = f"volume {shown(name)} ({shown(kind)}) cannot be limited; allowed: {ALLOWED}"
                found.deny(VOLUME_TYPE, place(name), kind, told, "leave the volume out of the annotation")
                continue
        there.append(name)
    for name in _unmounted(spec, there):
        told = f"no container mounts volume {shown(name)}: there is nothing to limit"
        found.warn(NOT_MOUNTED, place(name), name, told)


def _explain_unknown(name: str, known: list[str], place: Callable[[str], str], found: Findings) -> None:
    meant = nearest(name, known) if len(found.problems) < MOST_REPORTED else ""
    told = f"the pod has no volume {shown(name)}; it has {', '.join(known[:10]) or 'none'}{', ...' if len(known) > 10 else ''}"
    found.deny(UNKNOWN_VOLUME, place(name), name, told, f"write {meant}" if meant else "")


def _unmounted(spec: PodSpec, names: Sequence[str]) -> list[str]:
    """Return the volumes that no container mounts, neither as a file system nor as a block device."""
    waiting = dict.fromkeys(names)
    for containers in (spec.containers, spec.init_containers):
        for container in containers:
            for mount in container.volume_mounts:
                if mount.name in waiting:
                    del waiting[mount.name]
            for device in container.volume_devices:
                if device.name in waiting:
                    del waiting[device.name]
    return list(waiting)


def check_claims(
    names: Container[str],
    volumes: Sequence[Mapping[str, Any]],
    namespace: str,
    catalogue: Catalogue,
    place: Callable[[str], str],
    found: Findings,
) -> None:
    """Warn where a volume's claim does not exist, or gives no disk.

    Args:
        names: Of the volumes that ask.
        volumes: The pod's.
        namespace: The pod's.
        catalogue: What is known of the cluster.
        place: Returns the path of what a volume asks for.
        found: Where warnings go.
    """
    claims, classes = catalogue.claims, catalogue.storage_classes
    unchecked: list[str] = []
    for volume in volumes:
        name = volume.get("name", "")
        if name not in names:
            continue
        kind, fields = source(volume)
        if kind == "persistentVolumeClaim":
            if claims is None:
                unchecked.append(name)
                continue
            claim_name = fields.get("claimName", "")
            claim = claims.get(f"{namespace}/{claim_name}")
            if claim is None:
                near = _similar(claim_name, namespace, claims) if len(found.warnings) < _MOST_SUGGESTIONS else ""
                told = f'PersistentVolumeClaim "{shown(claim_name)}" of volume {shown(name)} does not exist (yet)'
                found.warn(NO_CLAIM, place(name), claim_name, told, f"or is {near} meant" if near else "")
                continue
            class_name = claim.storage_class
        elif kind == "ephemeral":
            class_name = _class_of_template(fields)
        else:
            continue
        if classes is None:
            unchecked.append(name)
        else:
            _check_class(name, class_name, classes, place, found)
    if unchecked:
        names = ", ".join(shown(name) for name in unchecked[:5]) + (", ..." if len(unchecked) > 5 else "")
        told = (
            f"whether {names} can have a disk is unchecked: the cluster's claims or StorageClasses are not known here"
        )
        found.warn(UNCHECKED, place(unchecked[0]), names, told)


def _similar(claim_name: object, namespace: str, claims: Iterable[str]) -> str:
    """Return the claim of this namespace that was probably meant."""
    prefix = f"{namespace}/"
    beside = [known.removeprefix(prefix) for known in claims if known.startswith(prefix)]
    return nearest(str(claim_name), beside) if len(beside) <= _MOST_CANDIDATES else ""


def _check_class(
    name: str, class_name: str, classes: Mapping[str, StorageClass], place: Callable[[str], str], found: Findings
) -> None:
    if not class_name:
        class_name = next((known for known in sorted(classes) if classes[known].default), "")
    storage_class = classes.get(class_name)
    if storage_class is not None:
        if is_remote(storage_class.provisioner):
            told = f"volume {shown(name)} (StorageClass {class_name}, {storage_class.provisioner}) has no block device on the node; the container will not start"
            found.warn(
                NO_LOCAL_DEVICE,
                place(name),
                class_name,
                told,
                "leave the volume out or use a class with local or block storage",
            )
    elif class_name:
        # Legal and usual where a PersistentVolume was made by hand: nobody needs the class then.
        told = (
            f'whether {shown(name)} can have a disk is unchecked: its StorageClass "{shown(class_name)}" does not exist'
        )
        found.warn(UNCHECKED, place(name), class_name, told)


def _class_of_template(ephemeral: Mapping[str, Any]) -> str:
    """Return the StorageClass of `ephemeral.volumeClaimTemplate`; empty: the cluster's default."""
    fields: Any = ephemeral
    for key in ("volumeClaimTemplate", "spec", "storageClassName"):
        fields = fields.get(key) if isinstance(fields, dict) else None
    return fields if isinstance(fields, str) else ""
