"""The class file on one machine: partitions and classes, as goresctrl means them, into the schemata of every class.

First the partitions are given ways of the cache that no other partition has; a class then has a share of its
partition's ways, or all of them. Bandwidth is not divided: a class has its percentage of its partition's percentage.
All of it as goresctrl computes it (pkg/rdt/config.go), so that one file means the same whoever owns RDT on a node;
stricter where goresctrl says nothing: a partition beyond the cache's last way, shares of 0 % in all partitions, and a
partition's share of what the machine has not, unless `options` calls it optional.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from noisegate.enforcement.plan.schemata import UNLIMITED_MIBPS, Bandwidth, Cache, Machine, Schemata, span
from noisegate.isolation.catalogue import RdtClass
from noisegate.isolation.rdt import ROOT_CLASS
from noisegate.service import rdtclasses
from noisegate.service.faults import Lines, Wrongs
from noisegate.service.manifests import load

PREFIX: Final = "noisegate-"
"""Groups of this program begin so; nothing else in resctrl is written by it."""
LONGEST_CLASS: Final = 255 - len(PREFIX)
"""Bytes; the kernel's NAME_MAX is 255."""

Path = tuple[str | int, ...]
_LEVELS: Final = {"L2": ("l2", "l2Allocation"), "L3": ("l3", "l3Allocation")}
_BANDWIDTH: Final = "mbAllocation"
_WHOLE: Final = "100%"
_UNLIMITED: Final = (_WHOLE, f"{UNLIMITED_MIBPS}MBps")
_PERCENTS: Final = re.compile(r"(?:([0-9]+)-)?([0-9]+)%", re.ASCII)
_SUFFIXES: Final = {"%": "%", "MiBps": "MBps"}


class ClassFile(NamedTuple):
    """A class file that is sound for every machine.

    Attributes:
        file: Its name.
        classes: By name.
        value: What stands in it.
        lines: Where it stands.
    """

    file: str
    classes: Mapping[str, RdtClass]
    value: Mapping[str, Any]
    lines: Lines

    def partitions(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the partitions by name, in the order of their names, which is the order of their ways."""
        return {name: given or {} for name, given in sorted((self.value.get("partitions") or {}).items())}


class _Request(NamedTuple):
    """A share that a partition or class asks for, and where that stands."""

    path: Path
    share: Any


def read(text: str | bytes, file: str) -> ClassFile:
    """Read a class file.

    Raises:
        ConfigError: It is not sound (`service.rdtclasses`), or a class's name is too long for a group's.
    """
    classes = rdtclasses.load(text, file)
    value, lines = load(text, file)
    wrongs = Wrongs(file, lines)
    read_file = ClassFile(file, classes, value, lines)
    for path, name, _, _ in _classes(read_file):
        if len(name.encode()) > LONGEST_CLASS:
            wrongs.add(path, name, f"the group {PREFIX}<class> would have no room; allowed: {LONGEST_CLASS} bytes")
    wrongs.raise_if_any()
    return read_file


def resolve(classes: ClassFile, machine: Machine) -> Mapping[str, Schemata]:
    """Return the schemata of every class, in the order of the file; the root group's under `system/default`.

    Every resource of the class file that the machine has is in them, so that a group keeps nothing of an older file.

    Raises:
        ConfigError: What does not fit this machine, all of it: place, value, what is allowed and its unit.
    """
    wrongs = Wrongs(classes.file, classes.lines)
    if not classes.value.get("partitions"):
        told = "the file names classes only; groups are made from partitions, each with its classes"
        wrongs.add("classes", None, told, "write partitions: {default: {classes: {...}}}")
        raise wrongs.error()
    _find_missing(classes, machine, wrongs)
    resolved: dict[str, dict[str, dict[int, int]]] = {name: {} for _, name, _, _ in _classes(classes)}
    for resource, cache in machine.caches.items():
        level, kind = resource[:2], resource[2:].lower()
        key = _LEVELS[level][1]
        bases = {number: _divide(classes, key, kind, number, cache, wrongs) for number in cache.ids}
        for path, name, partition, given in _classes(classes):
            asked = _spread(given.get(key), (*path, key), cache.ids, _WHOLE)
            resolved[name][resource] = {
                number: _overlay(_kind(request, kind), bases[number].get(partition, cache.mask), cache, wrongs)
                for number, request in asked.items()
            }
    if machine.bandwidth is not None and machine.bandwidth.unit in _SUFFIXES:
        _share_bandwidth(classes, machine.bandwidth, resolved, wrongs)
    # A fault of a place that holds for many caches is told once, of the first.
    wrongs.faults[:] = list({fault.path: fault for fault in reversed(wrongs.faults)}.values())[::-1]
    wrongs.raise_if_any()
    return resolved


def _classes(classes: ClassFile) -> Iterator[tuple[Path, str, str, Mapping[str, Any]]]:
    """Yield path, name, partition and content of every class, in the order of the file."""
    for partition, given in (classes.value.get("partitions") or {}).items():
        for name, content in ((given or {}).get("classes") or {}).items():
            yield ("partitions", partition, "classes", name), name or ROOT_CLASS, partition, content or {}


def _find_missing(classes: ClassFile, machine: Machine, wrongs: Wrongs) -> None:
    """Add to `wrongs` what partitions share out and this machine has not, unless it is optional."""
    options = classes.value.get("options") or {}
    missing = {
        key: (option, f"this node cannot share out its {level} cache")
        for level, (option, key) in _LEVELS.items()
        if not any(resource.startswith(level) for resource in machine.caches)
    }
    if machine.bandwidth is None:
        missing[_BANDWIDTH] = ("mb", "this node cannot share out memory bandwidth")
    elif machine.bandwidth.unit not in _SUFFIXES:
        told = f"this node shares out memory bandwidth in {machine.bandwidth.unit}; allowed in a class file: % and MBps"
        missing[_BANDWIDTH] = ("mb", told)
    for name, given in classes.partitions().items():
        for key, (option, told) in missing.items():
            if given.get(key) is not None and not (options.get(option) or {}).get("optional"):
                wrongs.add(("partitions", name, key), None, told, f"set options.{option}.optional: true")


def _spread(given: Any, path: Path, ids: tuple[int, ...], default: Any) -> dict[int, _Request]:
    """Return what is asked for each cache: its own entry, else that of `all`, else the default."""
    if not isinstance(given, dict):
        return dict.fromkeys(ids, _Request(path, default if given is None else given))
    asked = dict.fromkeys(ids, _Request((*path, "all"), given.get("all", default)))
    for key, share in given.items():
        if key != "all":
            named = _numbers(key)
            asked |= {number: _Request((*path, key), share) for number in ids if named >> number & 1}
    return asked


def _kind(request: _Request, kind: str, *, strict: bool = False) -> _Request:
    """Return the share for `code`, `data` or, empty, both. `strict`: None where only the one for both is given."""
    if not isinstance(request.share, dict):
        return _Request(request.path, None) if strict and kind else request
    if kind and (kind in request.share or strict):
        return _Request((*request.path, kind), request.share.get(kind))
    return _Request((*request.path, "unified"), request.share["unified"])


def _divide(classes: ClassFile, key: str, kind: str, number: int, cache: Cache, wrongs: Wrongs) -> dict[str, int]:
    """Return the ways of one cache by partition; empty: no partition asks for any, or they cannot be had."""
    given = {name: partition.get(key) for name, partition in classes.partitions().items()}
    if all(share is None for share in given.values()):
        return {}
    lacking = [name for name, share in given.items() if share is None]
    for name in lacking:
        told = f"{key} is missing; other partitions have one, and a cache is divided among all of them"
        wrongs.add(("partitions", name, key), None, told)
    if lacking:
        return {}
    whole = {
        name: _spread(share, ("partitions", name, key), cache.ids, _WHOLE)[number] for name, share in given.items()
    }
    requests = {name: _kind(request, kind, strict=True) for name, request in whole.items()}
    lacking = [name for name, request in requests.items() if request.share is None]
    for name in lacking if len(lacking) < len(requests) else ():
        wrongs.add(whole[name].path, None, f"{kind} is missing; other partitions have one for cache {number}")
    if len(lacking) == len(requests):
        requests = {name: _kind(request, "") for name, request in whole.items()}
    elif lacking:
        return {}
    percents = {name: _PERCENTS.fullmatch(request.share) for name, request in requests.items()}
    if all(percents.values()):
        shares = {name: int(match[2]) for name, match in percents.items() if match}
        return _divide_by_share(shares, requests, number, cache, wrongs)
    for name, match in percents.items():
        if match:
            told = f"other partitions have masks for cache {number}; a cache is divided by shares or by masks"
            wrongs.add(requests[name].path, requests[name].share, told)
    if any(percents.values()):
        return {}
    return _divide_by_mask(requests, number, cache, wrongs)


def _divide_by_share(
    shares: Mapping[str, int], requests: Mapping[str, _Request], number: int, cache: Cache, wrongs: Wrongs
) -> dict[str, int]:
    total = sum(shares.values())
    fewest = max(cache.min_bits, 1)
    free = total * cache.mask.bit_length() // 100
    if total > 100 or free < fewest * len(shares):
        path = requests[max(shares, key=lambda name: shares[name])].path
        if total > 100:
            told = f"the partitions' shares of cache {number} are {total} % together; allowed: 100 %"
        else:
            told = (
                f"{total} % of cache {number} are {free} of {cache.mask.bit_length()} ways, "
                f"and {len(shares)} partitions need {fewest} each"
            )
        wrongs.add(path, None, told)
        return {}
    ways = free
    counts: dict[str, int] = {}
    # The smallest first: what they are rounded up by is taken from the larger ones, and the largest has what is left.
    *smaller, largest = sorted(shares, key=lambda each: (shares[each], each))
    for left, name in zip(range(len(smaller), 0, -1), smaller, strict=True):
        # Each that comes later has its fewest all the same.
        counts[name] = min(max(shares[name] * free // (free * total // ways), fewest), free - left * fewest)
        free -= counts[name]
    counts[largest] = free
    grants: dict[str, int] = {}
    first = 0
    for name in sorted(counts):
        grants[name] = span(first, counts[name])
        first += counts[name]
    return grants


def _divide_by_mask(requests: Mapping[str, _Request], number: int, cache: Cache, wrongs: Wrongs) -> dict[str, int]:
    grants: dict[str, int] = {}
    for name, request in requests.items():
        mask = _mask(request.share)
        others = [other for other, taken in grants.items() if taken & mask]
        if mask & ~cache.mask:
            told = f"cache {number} has the ways of {cache.mask:#x} only ({cache.mask.bit_length()} of them)"
            wrongs.add(request.path, request.share, told)
        elif mask.bit_count() < cache.min_bits:
            wrongs.add(request.path, request.share, f"cache {number} wants {cache.min_bits} ways or more in a mask")
        elif others:
            told = f"overlaps with partition {others[0]} in cache {number}; partitions share no ways"
            wrongs.add(request.path, request.share, told)
        grants[name] = mask
    return grants


def _overlay(request: _Request, base: int, cache: Cache, wrongs: Wrongs) -> int:
    """Return a class's ways, counted from the lowest way of its partition's."""
    lowest, ways = (base & -base).bit_length() - 1, base.bit_count()
    percents = _PERCENTS.fullmatch(request.share)
    if percents is None:
        asked = _mask(request.share)
        mask = asked << lowest
        if asked.bit_count() < cache.min_bits:
            wrongs.add(request.path, request.share, f"this node wants {cache.min_bits} ways or more in a mask")
        elif mask & ~base:
            told = f"counted from the partition's lowest way; the partition has {ways} ways ({base:#x})"
            wrongs.add(request.path, request.share, told)
        return mask
    if int(percents[2]) == 0:
        wrongs.add(request.path, request.share, "a class needs a way of the cache at least; allowed: 1% to 100%")
    return span(*_cut(int(percents[1] or 0), int(percents[2]), ways, max(cache.min_bits, 1), lowest))


def _cut(low: int, high: int, ways: int, fewest: int, lowest: int) -> tuple[int, int]:
    """Return first way and number of ways of a range of percents; what is too narrow grows downwards, then upwards."""
    first = (max(low, 1) - 1) * ways // 100
    count = max((max(high, 1) - 1) * ways // 100 + 1 - first, 1)
    if count < fewest:
        first = min(max(first - (fewest - count), 0), max(ways - fewest, 0))
        count = min(fewest, ways)
    return lowest + first, count


def _share_bandwidth(
    classes: ClassFile, bandwidth: Bandwidth, resolved: Mapping[str, dict[str, dict[int, int]]], wrongs: Wrongs
) -> None:
    bases: dict[str, dict[int, int | None]] = {}
    for name, given in classes.partitions().items():
        asked = _spread(given.get(_BANDWIDTH), ("partitions", name, _BANDWIDTH), bandwidth.ids, _UNLIMITED)
        bases[name] = {number: _rate(request, bandwidth, wrongs) for number, request in asked.items()}
    for path, name, partition, given in _classes(classes):
        asked = _spread(given.get(_BANDWIDTH), (*path, _BANDWIDTH), bandwidth.ids, _UNLIMITED)
        rates = {number: _rate(request, bandwidth, wrongs) for number, request in asked.items()}
        resolved[name]["MB"] = {
            number: _together(bases[partition][number] or 0, rate or 0, bandwidth) for number, rate in rates.items()
        }


def _rate(request: _Request, bandwidth: Bandwidth, wrongs: Wrongs) -> int | None:
    """Return the entry of a list such as `["50%", "1000MBps"]` that is in this node's unit."""
    suffix = _SUFFIXES[bandwidth.unit]
    for entry in request.share:
        if entry.endswith(suffix):
            return int(entry.removesuffix(suffix))
    told = f"has no entry in {suffix}, and this node shares out memory bandwidth in {bandwidth.unit}"
    wrongs.add(request.path, request.share, told, f'add one such as "{"50%" if suffix == "%" else "1000MBps"}"')
    return None


def _together(base: int, rate: int, bandwidth: Bandwidth) -> int:
    """Return what a class has of its partition's bandwidth, as the kernel rounds it (`bw_validate`)."""
    if bandwidth.unit != "%":
        return min(base, rate)
    # goresctrl raises a partition and its class to the minimum, each on its own.
    least = max(bandwidth.minimum, 1)
    value = max(rate * max(base, least) // 100, least)
    return -(-value // bandwidth.step) * bandwidth.step


def _numbers(text: str) -> int:
    """Return a list such as `0,2-3` as bits."""
    bits = 0
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        bits |= span(int(first), int(last or first) - int(first) + 1)
    return bits


def _mask(share: str) -> int:
    return int(share, 16) if share.startswith("0x") else _numbers(share)
