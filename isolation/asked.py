"""All five kinds together: what a pod asks for, read once."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeVar

from noisegate.isolation import disk, keys, network, networks, rdt
from noisegate.isolation.disk import DiskRequest
from noisegate.isolation.network import NetworkRequest
from noisegate.isolation.networks import Selection
from noisegate.isolation.problems import Findings, Problem
from noisegate.isolation.rdt import RdtRequest

Kind = Literal["disk", "network", "rdt", "sriov", "cpu"]

LONGEST_REMEMBERED: Final = 2048
"""Characters. Longer values are read anew each time, so that what is remembered stays small."""


class Asked(NamedTuple):
    """What the annotations of a pod ask for. A kind that is absent, or cannot be read at all, is None (or empty).

    Attributes:
        disk: Disk bandwidth by volume.
        network: Network bandwidth of the pod.
        rdt: RDT classes.
        networks: Attachments, the default network first where the pod names one.
        bad: The kinds whose annotations cannot be meant. What could be read of them is there to be checked further,
            so that all problems are told at once; nobody may act on it.
    """

    disk: DiskRequest | None = None
    network: NetworkRequest | None = None
    rdt: RdtRequest | None = None
    networks: tuple[Selection, ...] = ()
    bad: frozenset[Kind] = frozenset()


_SCANNED: Final = (keys.RDT_RUNTIME, keys.OWN_PREFIX)


def kind_of(annotation: str) -> Kind | None:
    """Return the kind that an annotation key asks for, or None."""
    if annotation.startswith((keys.RDT_RUNTIME_POD, keys.RDT_RUNTIME_CONTAINER, keys.RDT_OWN_POD)):
        return "rdt"
    return _KIND_OF.get(annotation)


_KIND_OF: Final[Mapping[str, Kind]] = {
    keys.DISK: "disk",
    keys.NETWORK: "network",
    keys.NETWORKS: "sriov",
    keys.DEFAULT_NETWORK: "sriov",
    keys.DEVICES_CONTAINER: "sriov",
}


def asks(annotations: Mapping[str, str]) -> bool:
    """Tell whether any annotation asks for one of the kinds."""
    for key in annotations:  # noqa: SIM110  (a generator would cost as much as the rest)
        if key in _KIND_OF or key.startswith(_SCANNED):
            return True
    return False


def read(annotations: Mapping[str, str], found: Findings) -> Asked:
    """Read all annotations of a pod: needs no spec, no policy and no catalogue, so the node enforcer reads the same."""
    bad: set[Kind] = set()
    text = annotations.get(keys.DISK)
    disk_request = None if text is None else _take(_read_disk, text, "disk", bad, found)
    text = annotations.get(keys.NETWORK)
    network_request = None if text is None else _take(_read_network, text, "network", bad, found)
    before = len(found.problems)
    rdt_request = rdt.read(annotations, found)
    if len(found.problems) > before:
        bad.add("rdt")
    selections: tuple[Selection, ...] = ()
    for key, reader in ((keys.DEFAULT_NETWORK, _read_default_network), (keys.NETWORKS, _read_networks)):
        text = annotations.get(key)
        if text is not None:
            selections += _take(reader, text, "sriov", bad, found) or ()
    return Asked(disk_request, network_request, rdt_request, selections, frozenset(bad))


def enforced(asked: Asked, bad: AbstractSet[Kind]) -> tuple[Kind, ...]:
    """Return the kinds that only an enforcer can hold."""
    kinds: list[Kind] = []
    if asked.disk is not None and "disk" not in bad:
        kinds.append("disk")
    if asked.network is not None and "network" not in bad:
        kinds.append("network")
    if asked.rdt is not None and "rdt" not in bad and asked.rdt.asks_enforcer():
        kinds.append("rdt")
    return tuple(kinds)


T = TypeVar("T")
_Reading = tuple[T, tuple[Problem, ...], tuple[Problem, ...]]


def _take(reader: "Callable[[str], _Reading[T]]", text: str, kind: Kind, bad: set[Kind], found: Findings) -> T | None:
    """Read a value, from memory where the same text was read before: replicas of a workload carry the same bytes."""
    value, problems, warnings = reader(text)
    if warnings:
        found.warnings += warnings
    if problems:
        found.problems += problems
        bad.add(kind)
    return value


def _remembered(read_text: Callable[[str, Findings], T]) -> "Callable[[str], _Reading[T]]":
    def reading(text: str) -> _Reading[T]:
        found = Findings()
        value = read_text(text, found)
        return value, tuple(found.problems), tuple(found.warnings)

    remembered = lru_cache(maxsize=256)(reading)

    def read_or_remember(text: str) -> _Reading[T]:
        return remembered(text) if len(text) <= LONGEST_REMEMBERED else reading(text)

    return read_or_remember


_read_disk = _remembered(disk.read)
_read_network = _remembered(network.read)
_read_networks = _remembered(lambda text, found: networks.read(keys.NETWORKS, text, found))
_read_default_network = _remembered(lambda text, found: networks.read(keys.DEFAULT_NETWORK, text, found))
