"""Disk bandwidth of a pod's volumes: annotation `blockio.kubernetes.io/resources` (pod-api.md 1).

`{"<volume>": {"requests": {"rbps": Q, "wbps": Q}, "limits": {...}}}` with Q `<bytes per second>[/<block size>]`; besides,
`riops` and `wiops` in operations per second. `"*"` is the writable layers of all containers.
"""

from collections.abc import Container
from functools import lru_cache, partial
from typing import Final, NamedTuple

from noisegate.isolation import keys, storage
from noisegate.isolation.bounds import (
    UNSET,
    Bound,
    Change,
    QosClass,
    Steps,
    amount,
    bound,
    changes,
    explain,
    groups,
    meant,
    qos_class,
    warn_unlimited,
)
from noisegate.isolation.catalogue import Catalogue
from noisegate.isolation.payload import ASKS_NOTHING, MOST_REPORTED, Payload
from noisegate.isolation.pod import PodSpec
from noisegate.isolation.policy import DiskPolicy
from noisegate.isolation.problems import Code, Findings, in_annotation, nearest, shown
from noisegate.isolation.quantity import LARGEST, NOT_WHOLE, parse, whole
from noisegate.isolation.quantity import format as write

BLOCK_SIZE: Final = Code(
    "NG101",
    "disk-block-size",
    "What stands behind the slash is the block size that the limit in operations is derived from; it is one of a fixed list, always a power of two.",
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi/3k"}}}\'',
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi/4k"}}}\'',
)
TWO_BLOCK_SIZES: Final = Code(
    "NG102",
    "disk-two-block-sizes",
    "The entries of a pod on one device are added up, so they count operations in one block size. Where none is written it is 4k.",
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi/4k", "wbps": "50Mi/8k"}}}\'',
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi/4k", "wbps": "50Mi/4k"}}}\'',
)
TWO_QOS_CLASSES: Final = Code(
    "NG103",
    "disk-two-qos-classes",
    "The volumes of a pod are all guaranteed (every request has a limit that equals it) or all burstable.",
    'blockio.kubernetes.io/resources: \'{"a": {"limits": {"rbps": "50Mi"}}, "b": {"requests": {"rbps": "50Mi"}, "limits": {"rbps": "60Mi"}}}\'',
    'blockio.kubernetes.io/resources: \'{"a": {"limits": {"rbps": "50Mi"}}, "b": {"limits": {"rbps": "60Mi"}}}\'',
)
NO_OPERATION: Final = Code(
    "NG104",
    "disk-less-than-one-operation",
    "The limit in operations is derived as bytes per second divided by the block size, and the kernel's io.max takes no 0.",
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "100/4k"}}}\'',
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi/4k"}}}\'',
)
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
TOO_SMALL: Final = Code(
    "NG107",
    "disk-limit-too-small",
    "The limit is below policy.disk.minimumBytesPerSecond or minimumOperationsPerSecond: a tiny io.max stalls the file system for everyone on it.",
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50k"}}}\'',
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50M"}}}\'',
)
NOT_MOUNTED: Final = Code(
    "NG151",
    "disk-volume-not-mounted",
    "Warning: no container mounts the volume, so there is nothing to limit.",
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi"}}}\'\nvolumes: [{name: data, emptyDir: {}}]',
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi"}}}\'\nvolumes: [{name: data, emptyDir: {}}]\nvolumeMounts: [{name: data, mountPath: /data}]',
)
CODES: Final = (
    BLOCK_SIZE,
    TWO_BLOCK_SIZES,
    TWO_QOS_CLASSES,
    NO_OPERATION,
    UNKNOWN_VOLUME,
    VOLUME_TYPE,
    TOO_SMALL,
    NOT_MOUNTED,
)

BYTES: Final = "bytes per second"
OPERATIONS: Final = "operations per second"

WRITABLE_LAYERS: Final = "*"
"""Stands where a volume's name stands, for the writable layers of all containers of the pod."""

# Powers of two whatever the suffix says: block sizes have never been counted in thousands.
_BLOCK_NAMES: Final = {size: f"{size >> 10}k" if size >= 1024 else str(size) for size in (1 << n for n in range(9, 20))} | {1 << 20: "1M"}
BLOCK_SIZES: Final = {
    f"{name}{binary}{byte}": size
    for size, name in _BLOCK_NAMES.items()
    for binary in (("", "i") if size >= 1024 else ("",))
    for byte in ("", "B")
}
BLOCK_SIZES.update({spelling.replace("ki", "Ki"): size for spelling, size in BLOCK_SIZES.items()})
"""Every spelling of a block size, in bytes: `4k`, `4Ki`, `4kB` and `4KiB` are one."""
