"""Disk bandwidth of a pod's volumes: annotation `blockio.kubernetes.io/resources` (pod-api.md 1).

`{"<volume>": {"requests": {"rbps": Q, "wbps": Q}, "limits": {...}}}` with Q `<bytes per second>[/<block size>]`; besides,
`riops` and `wiops` in operations per second. `"*"` is the writable layers of all containers.
"""

import posixpath
from collections.abc import Container
from functools import partial
from typing import Final, NamedTuple

from noisegate.isolation import keys, speed, storage
from noisegate.isolation.bounds import (
    UNSET,
    Bound,
    Change,
    QosClass,
    Steps,
    amount,
    bound,
    changes,
    groups,
    qos_class,
    warn_unlimited,
)
from noisegate.isolation.catalogue import Catalogue
from noisegate.isolation.payload import ASKS_NOTHING, Payload
from noisegate.isolation.pod import PodSpec
from noisegate.isolation.policy import DiskPolicy
from noisegate.isolation.problems import Code, Findings, in_annotation, shown
from noisegate.isolation.quantity import LARGEST, NOT_WHOLE
from noisegate.isolation.quantity import format as write
from noisegate.isolation.speed import BLOCK_NAMES

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
TOO_SMALL: Final = Code(
    "NG107",
    "disk-limit-too-small",
    "The limit is below policy.disk.minimumBytesPerSecond or minimumOperationsPerSecond: a tiny io.max stalls the file system for everyone on it.",
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50k"}}}\'',
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50M"}}}\'',
)
TOO_MANY: Final = Code(
    "NG108",
    "disk-too-many-volumes",
    "No pod has so many volumes; the annotation is refused unread.",
    "blockio.kubernetes.io/resources: '{...}'  # 257 volumes",
    "blockio.kubernetes.io/resources: '{...}'  # 256 at most",
)
CODES: Final = (
    TWO_BLOCK_SIZES,
    TWO_QOS_CLASSES,
    NO_OPERATION,
    TOO_SMALL,
    TOO_MANY,
)

MOST_VOLUMES: Final = 256
"""Volumes that may be listed. A text of the 256 KiB that Kubernetes allows could list tens of thousands."""

OPERATIONS: Final = "operations per second"

WRITABLE_LAYERS: Final = "*"
"""Stands where a volume's name stands, for the writable layers of all containers of the pod."""

_KEYS: Final = ("rbps", "wbps", "riops", "wiops")
_KNOWN: Final = frozenset(_KEYS)
_PLACE: Final = partial(in_annotation, keys.DISK)


class VolumeRequest(NamedTuple):
    """What is asked for one volume, or for `WRITABLE_LAYERS`.

    Attributes:
        volume: Name of the volume.
        rbps: Bytes per second read.
        wbps: Bytes per second written.
        riops: Read operations per second; a limit without a request is derived from `rbps`.
        wiops: Write operations per second; a limit without a request is derived from `wbps`.
    """

    volume: str
    rbps: Bound = UNSET
    wbps: Bound = UNSET
    riops: Bound = UNSET
    wiops: Bound = UNSET

    @property
    def qos(self) -> QosClass:
        """Guaranteed where every request has a limit that equals it."""
        return qos_class(self[1:])


class DiskRequest(NamedTuple):
    """What a pod asks for.

    Attributes:
        volumes: By volume, in order of their names, each at most once.
        block_size: Bytes that one operation was counted as.
        qos: The one class of all its volumes.
    """

    volumes: tuple[VolumeRequest, ...]
    block_size: int = speed.DEFAULT
    qos: QosClass = "guaranteed"


def read(text: str, found: Findings) -> DiskRequest | None:
    """Return what the annotation's value means, or None where it asks for nothing.

    What comes back beside problems is as much as could be understood: enough to look for further problems, never to
    be enforced.
    """
    reading = _Reading(Payload(_PLACE, found))
    payload = reading.payload
    listed = payload.decode_object(text)
    if listed is None:
        return None
    if not listed:
        payload.warn(ASKS_NOTHING, text, "it asks for nothing", hint="leave the annotation out")
        return None
    if len(listed) > MOST_VOLUMES:
        payload.deny(TOO_MANY, len(listed), f"{len(listed)} volumes are listed; allowed: {MOST_VOLUMES}")
        return None
    volumes: list[VolumeRequest] = []
    classes: dict[QosClass, str] = {}
    for name in sorted(listed):
        before = len(found.problems)
        request = reading.volume(name, listed[name])
        if len(found.problems) == before:
            if request[1:] == _NOTHING:
                told = f"volume {shown(name)} asks for nothing and counts as not listed"
                payload.warn(ASKS_NOTHING, listed[name], told, name, hint="leave it out")
                continue
            classes.setdefault(request.qos, name)
        volumes.append(request)
    reading.check_block_sizes()
    if len(classes) > 1:
        told = f"volume {shown(classes['burstable'])} is burstable and volume {shown(classes['guaranteed'])} is guaranteed; a pod has one class for its volumes"
        hint = "give all of them limits equal to their requests, or none of them"
        payload.deny(TWO_QOS_CLASSES, "", told, classes["burstable"], hint=hint)
    if reading.unlimited:
        warn_unlimited(payload, reading.unlimited)
    if not volumes:
        return None
    return DiskRequest(
        tuple(volumes), reading.block_size or speed.DEFAULT, "burstable" if "burstable" in classes else "guaranteed"
    )


_NOTHING: Final = (UNSET, UNSET, UNSET, UNSET)


class _Reading:
    """One annotation on its way to a `DiskRequest`, with what is seen of all its volumes."""

    __slots__ = ("block_size", "block_sizes", "payload", "unlimited")

    def __init__(self, payload: Payload) -> None:
        self.payload = payload
        # The block size that stands first, in order of the volumes' names; and where each stands first.
        self.block_size = 0
        self.block_sizes: dict[int, Steps] = {}
        self.unlimited: list[str] = []

    def volume(self, name: str, value: object) -> VolumeRequest:
        """Read what is asked for one volume; what is wrong is reported and stays unset."""
        steps = (name,)
        before = len(self.payload.found.problems)
        requests, limits = asked = groups(self.payload, value, _KNOWN, steps)
        rbps = bound(self.payload, asked, "rbps", self._bytes, steps)
        wbps = bound(self.payload, asked, "wbps", self._bytes, steps)
        if "riops" in requests or "riops" in limits:
            riops = bound(self.payload, asked, "riops", self._operations, steps)
        else:
            riops = self._derived(rbps, name, "rbps")
        if "wiops" in requests or "wiops" in limits:
            wiops = bound(self.payload, asked, "wiops", self._operations, steps)
        else:
            wiops = self._derived(wbps, name, "wbps")
        if not requests.keys() <= limits.keys() and len(self.payload.found.problems) == before:
            self.unlimited += [f"{shown(name)}.{key}" for key in _KEYS if key in requests and key not in limits]
        return VolumeRequest(name, rbps, wbps, riops, wiops)

    def check_block_sizes(self) -> None:
        """Report every block size that is not the first one."""
        if len(self.block_sizes) <= 1:
            return
        first = BLOCK_NAMES[self.block_size]
        there = ".".join(map(shown, self.block_sizes.pop(self.block_size)))
        for size, steps in self.block_sizes.items():
            name = BLOCK_NAMES[size]
            told = f"block size {name} here and {first} in {there}; a pod has one (4k where none is written)"
            self.payload.deny(TWO_BLOCK_SIZES, name, told, *steps, hint=f"write /{first} in all of them")

    def _bytes(self, value: object, steps: Steps, group: str, key: str) -> int | None:
        if type(value) is str:
            try:
                number, block_size = speed.parse(value)
            except (KeyError, ValueError):
                speed.explain(self.payload, value, (*steps, group, key))
                return None
            if block_size != self.block_size:
                self.block_size = self.block_size or block_size
                self.block_sizes.setdefault(block_size, (*steps, group, key))
            return number
        self.payload.string(value, *steps, group, key)
        return None

    def _operations(self, value: object, steps: Steps, group: str, key: str) -> int | None:
        if type(value) is str:
            return amount(self.payload, value, OPERATIONS, (*steps, group, key))
        if type(value) is int and 0 < value <= LARGEST:
            return value
        if type(value) in (int, float):
            told = f"{shown(value)} is not a whole, positive number of {OPERATIONS} up to 2^63-1"
            self.payload.deny(NOT_WHOLE, value, told, *steps, group, key)
        else:
            self.payload.wrong_type(value, "a number or a string", *steps, group, key)
        return None

    def _derived(self, asked: Bound, volume: str, key: str) -> Bound:
        """Return the bound in operations that follows from one in bytes per second."""
        if asked.limit is None:
            return UNSET
        operations = asked.limit // self.block_size
        if operations:
            return Bound(None, operations)
        told = f"{asked.limit} {speed.UNIT} is less than one operation of {BLOCK_NAMES[self.block_size]} per second"
        hint = "raise the limit or name a smaller block size"
        self.payload.deny(NO_OPERATION, write(asked.limit), told, volume, "limits", key, hint=hint)
        return UNSET


def fit(request: DiskRequest, spec: PodSpec, found: Findings, *, claim_templates: Container[str] = ()) -> None:
    """Report volumes that the pod does not have, that cannot be limited, or that nobody mounts.

    Args:
        request: What the pod asks for.
        spec: The pod's.
        found: Problems and warnings.
        claim_templates: Names of the StatefulSet's volumeClaimTemplates: they are volumes of each of its pods.
    """
    names = [entry.volume for entry in request.volumes if entry.volume != WRITABLE_LAYERS]
    storage.check_volumes(names, spec, claim_templates, _PLACE, found)


def judge(
    request: DiskRequest, spec: PodSpec, namespace: str, policy: DiskPolicy, catalogue: Catalogue, found: Findings
) -> None:
    """Report limits below the policy's minimum, and warn of volumes that are known to have no disk.

    Volumes that the pod's spec does not have are passed by: `fit` tells of them, and those of a StatefulSet's
    volumeClaimTemplates have no claim yet.
    """
    bytes_minimum, operations_minimum = policy.minimum_bytes_per_second, policy.minimum_operations_per_second
    for _, rbps, wbps, riops, wiops in request.volumes:
        if (
            (rbps.limit is not None and rbps.limit < bytes_minimum)
            or (wbps.limit is not None and wbps.limit < bytes_minimum)
            or (riops.limit is not None and riops.limit < operations_minimum)
            or (wiops.limit is not None and wiops.limit < operations_minimum)
        ):
            _explain_too_small(request, policy, found)
            break
    names = {entry.volume for entry in request.volumes}
    storage.check_claims(names, spec.volumes, namespace, catalogue, _PLACE, found)


def _explain_too_small(request: DiskRequest, policy: DiskPolicy, found: Findings) -> None:
    """Report every limit that is below the policy's minimum."""
    least_bytes, least_operations = policy.minimum_bytes_per_second, policy.minimum_operations_per_second
    for entry in request.volumes:
        for key, asked, operations_key, operations in (
            ("rbps", entry.rbps, "riops", entry.riops),
            ("wbps", entry.wbps, "wiops", entry.wiops),
        ):
            small = asked.limit is not None and asked.limit < least_bytes
            if asked.limit is not None and small:
                told = f"{write(asked.limit)} {speed.UNIT} is below the minimum of {write(least_bytes)}"
                found.deny(
                    TOO_SMALL,
                    _PLACE(entry.volume, "limits", key),
                    write(asked.limit),
                    told,
                    f"write at least {write(least_bytes)}",
                )
            if operations.limit is None or operations.limit >= least_operations:
                continue
            told = f"{operations.limit} {OPERATIONS} is below the minimum of {least_operations}"
            if operations.request is not None:
                place = _PLACE(entry.volume, "limits", operations_key)
                found.deny(TOO_SMALL, place, operations.limit, told, f"write at least {least_operations}")
            elif asked.limit is not None and not small:
                block = BLOCK_NAMES[request.block_size]
                told = f"{write(asked.limit)}/{block} makes {operations.limit} {OPERATIONS}, below the minimum of {least_operations}"
                hint = f"write at least {write(least_operations * request.block_size)}/{block}, name a smaller block size, or give {operations_key}"
                found.deny(TOO_SMALL, _PLACE(entry.volume, "limits", key), f"{write(asked.limit)}/{block}", told, hint)


def mounts_of(request: DiskRequest, spec: PodSpec) -> dict[str, dict[str, str]]:
    """Return volume -> container -> path of the volumes that ask: the value of `noisegate.io/volume-paths`.

    Of several mounts of one volume in a container (by subPath), the first says where its disk is. Paths are as `in_container`
    has them. Volumes come in order of their names, containers in order of the spec, init containers first.
    """
    paths: dict[str, dict[str, str]] = {
        entry.volume: {} for entry in request.volumes if entry.volume != WRITABLE_LAYERS
    }
    if paths:
        for container in (*spec.init_containers, *spec.containers):
            for mount in container.volume_mounts:
                if mount.name in paths:
                    paths[mount.name].setdefault(container.name, in_container(mount.mount_path))
            for device in container.volume_devices:
                if device.name in paths:
                    paths[device.name].setdefault(container.name, in_container(device.device_path))
    return {volume: containers for volume, containers in paths.items() if containers}


def in_container(path: str) -> str:
    """Return a mountPath or devicePath as it is found in the container, so that two can be compared.

    Kubernetes takes `data` and `/data/` too. The kubelet puts a / before a relative mountPath (makeMounts in
    pkg/kubelet/kubelet_pods.go); what is absolute reaches the runtime as it is written.
    """
    # normpath leaves two slashes at the start.
    return posixpath.normpath("/" + path.lstrip("/"))


def changed(old: DiskRequest | None, new: DiskRequest | None) -> list[Change]:
    """Return what differs between two requests of a running pod and may not: everything but the value of a limit."""
    before = {entry.volume: entry for entry in old.volumes} if old else {}
    after = {entry.volume: entry for entry in new.volumes} if new else {}
    found: list[Change] = []
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            found.append(Change(_PLACE(name), name, f"volume {shown(name)} may not be added on a running pod"))
        elif name not in after:
            found.append(Change(_PLACE(name), "", f"volume {shown(name)} may not be removed on a running pod"))
        else:
            for key, was, now in zip(_KEYS, before[name][1:], after[name][1:], strict=True):
                for group, told in changes(was, now):
                    value = now.request if group == "requests" else now.limit
                    found.append(Change(_PLACE(name, group, key), "" if value is None else write(value), told))
    return found
