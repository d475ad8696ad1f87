"""The class file: the RDT classes that containers may be put into, as goresctrl reads it (pkg/rdt/config.go).

    options: {l3: {optional: true}}
    partitions:
      shared:
        l3Allocation: "100%"
        mbAllocation: ["100%", "10000MBps"]
        classes:
          gold: {}
          bronze: {l3Allocation: "40%", kubernetes: {denyPodAnnotation: true}}

The fixed-class file of the older system (`classes: [guaranteed, burstable, besteffort]`) gives names only; what it
says of adjustments is not read. Only what is wrong on every machine is refused here: whether masks and shares fit the
hardware is found out on the node. goresctrl takes keys in any case (Go's JSON does); here they are as documented.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field

from noisegate.isolation.catalogue import RdtClass
from noisegate.isolation.policy import Setting
from noisegate.isolation.rdt import ROOT_CLASS
from noisegate.service.faults import Wrongs
from noisegate.service.manifests import load_model

# A class becomes a directory beside the kernel's own entries of resctrl; goresctrl refuses "/", newlines, "." and "..".
# A name with blanks could stand there, but no pod may ask for it (noisegate.isolation.rdt).
_NAME: Final = re.compile(r"(?!\.{1,2}$)[^\s/\x00-\x1f]{1,255}")
_KERNEL_ENTRIES: Final = frozenset(
    {"info", "mon_groups", "mon_data", "schemata", "tasks", "cpus", "cpus_list", "mode", "size"}
)
_PERCENTS: Final = re.compile(r"(?:([0-9]{1,3})-)?([0-9]{1,3})%", re.ASCII)
_MASK: Final = re.compile(r"0x([0-9a-fA-F]{1,16})")
_PIECE: Final = re.compile(r"([0-9]{1,3})(?:-([0-9]{1,3}))?")
_BANDWIDTH: Final = re.compile(r"([0-9]{1,10})(%|MBps)")

_CACHE_FORMS: Final = 'allowed: a share "60%", bits "0-3" or a mask "0xf0", of one unbroken block'
_CLASS_CACHE_FORMS: Final = (
    'allowed: a share "60%", a range of shares "20-60%", bits "0-3" or a mask "0xf0", of one unbroken block'
)
_BANDWIDTH_FORMS: Final = 'allowed: a list of "1%" to "100%" and, for mba_MBps, a number such as "1000MBps"'
_ALL: Final = "all"
_PARTS: Final = {"unified": None, "code": None, "data": None}.keys()
_SHARES: Final = {"l2_allocation": "l2Allocation", "l3_allocation": "l3Allocation", "mb_allocation": "mbAllocation"}

Path = tuple[str | int, ...]


class _Optional(Setting):
    optional: bool = False


class _Options(Setting):
    l2: _Optional = _Optional()
    l3: _Optional = _Optional()
    mb: _Optional = _Optional()


class _Kubernetes(Setting):
    deny_pod_annotation: bool = Field(default=False, alias="denyPodAnnotation")
    deny_container_annotation: bool = Field(default=False, alias="denyContainerAnnotation")


class _Allocations(Setting):
    l2_allocation: Any = Field(default=None, alias="l2Allocation")
    l3_allocation: Any = Field(default=None, alias="l3Allocation")
    mb_allocation: Any = Field(default=None, alias="mbAllocation")


class _Class(_Allocations):
    kubernetes: _Kubernetes = _Kubernetes()


class _Partition(_Allocations):
    classes: dict[str, _Class] = Field(default_factory=dict)


class _File(Setting):
    options: _Options = _Options()
    partitions: dict[str, _Partition] = Field(default_factory=dict)
    classes: list[str] = Field(default_factory=list)
    update_interval: Any = Field(default=None, alias="updateInterval")
    adjustments: Any = None


def load(text: str | bytes, file: str) -> Mapping[str, RdtClass]:
    """Read a class file into classes by name. The root group is there under `system/default` only if the file says so.

    Raises:
        ConfigError: Everything that is wrong with it, each with line, key, value and what is allowed.
    """
    content, lines = load_model(_File, text, file)
    wrongs = Wrongs(file, lines)
    classes: dict[str, RdtClass] = {}
    if content.classes and content.partitions:
        wrongs.add("classes", None, "the file has partitions too; classes stand below the partitions then")
    for index, name in enumerate(content.classes):
        _add(classes, name, RdtClass(), ("classes", index), wrongs)
    for partition_name, partition in content.partitions.items():
        place = ("partitions", partition_name)
        _check_allocations(partition, place, None, wrongs)
        for name, one in partition.classes.items():
            entry = RdtClass(one.kubernetes.deny_pod_annotation, one.kubernetes.deny_container_annotation)
            _add(classes, name or ROOT_CLASS, entry, (*place, "classes", name), wrongs)
            _check_allocations(one, (*place, "classes", name), partition, wrongs)
    if not content.classes and not content.partitions:
        wrongs.add("", None, "the file has no classes; allowed: partitions, each with classes")
    wrongs.raise_if_any()
    return classes


def _add(classes: dict[str, RdtClass], name: str, entry: RdtClass, place: Path, wrongs: Wrongs) -> None:
    if name != ROOT_CLASS and (not _NAME.fullmatch(name) or len(name.encode()) > 255):
        told = f"a class name is 1 to 255 bytes without blanks and slashes and neither . nor .., or {ROOT_CLASS}"
        wrongs.add(place, name, told)
    elif name in _KERNEL_ENTRIES:
        wrongs.add(place, name, "resctrl has an entry of this name itself; choose another")
    elif name in classes:
        wrongs.add(place, name, "the class is defined above already; a class stands in one partition")
    classes[name] = entry


def _check_allocations(given: _Allocations, place: Path, partition: _Partition | None, wrongs: Wrongs) -> None:
    for field, key in _SHARES.items():
        value, path = getattr(given, field), (*place, key)
        if value is None:
            continue
        if partition is not None and getattr(partition, field) is None:
            wrongs.add(path, None, "the class has a share of what its partition has not", f"add {key} to the partition")
        check = (
            _check_bandwidth if field == "mb_allocation" else _check_cache if partition is None else _check_class_cache
        )
        if not isinstance(value, dict):
            check(value, path, wrongs)
            continue
        for ids, share in value.items():
            if ids != _ALL and _bits(ids, 127) is None:
                wrongs.add((*path, ids), ids, 'cache ids are "all" or numbers from 0 to 127, such as "0,2-3"')
            check(share, (*path, ids), wrongs)


def _check_class_cache(share: Any, path: Path, wrongs: Wrongs) -> None:
    _check_cache(share, path, wrongs, ranges=True)


def _check_cache(share: Any, path: Path, wrongs: Wrongs, *, ranges: bool = False) -> None:
    if isinstance(share, dict):
        for part in sorted(share.keys() - _PARTS):
            wrongs.add((*path, part), None, f"unknown key; allowed: {', '.join(_PARTS)}")
        if "unified" not in share:
            wrongs.add(path, None, "unified is missing; code and data come on top of it")
        if ("code" in share) != ("data" in share):
            wrongs.add(path, None, "code and data go together")
        for part in _PARTS & share.keys():
            _check_share(share[part], (*path, part), wrongs, ranges=ranges)
    else:
        _check_share(share, path, wrongs, ranges=ranges)


def _check_share(share: Any, path: Path, wrongs: Wrongs, *, ranges: bool) -> None:
    forms = _CLASS_CACHE_FORMS if ranges else _CACHE_FORMS
    if not isinstance(share, str):
        wrongs.add(path, share, forms)
        return
    low_and_high = _PERCENTS.fullmatch(share)
    if low_and_high:
        low, high = int(low_and_high[1] or 0), int(low_and_high[2])
        good = low <= high <= 100 and (ranges or low_and_high[1] is None)
    else:
        mask = _MASK.fullmatch(share)
        bits = int(mask[1], 16) if mask else _bits(share, 63)
        # One unbroken block of ones: adding the lowest of them leaves a power of two.
        good = bool(bits) and bits is not None and ((bits + (bits & -bits)) & bits) == 0
    if not good:
        wrongs.add(path, share, forms)


def _check_bandwidth(shares: Any, path: Path, wrongs: Wrongs) -> None:
    if not isinstance(shares, list):
        wrongs.add(path, shares, _BANDWIDTH_FORMS, f'write ["{shares}"]' if isinstance(shares, str) else "")
        return
    if not shares:
        wrongs.add(path, shares, _BANDWIDTH_FORMS)
    for index, share in enumerate(shares):
        match = _BANDWIDTH.fullmatch(share) if isinstance(share, str) else None
        # The kernel refuses more than 100 %; goresctrl reads MBps as 32 bits.
        if match is None or int(match[1]) > (100 if match[2] == "%" else 0xFFFFFFFF):
            wrongs.add((*path, index), share, _BANDWIDTH_FORMS)


def _bits(text: str, highest: int) -> int | None:
    """Return the numbers of a list such as `0,2-3` as bits, or None where it is none."""
    bits = 0
    for piece in text.split(","):
        match = _PIECE.fullmatch(piece)
        if match is None:
            return None
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last > highest or (match[2] and last <= first):
            return None
        bits |= (1 << last + 1) - (1 << first)
    return bits
