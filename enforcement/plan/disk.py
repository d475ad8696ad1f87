"""Which lines of io.max hold what a pod asks for: per pod and device, as the kernel does it (pod-api.md 1)."""

from collections.abc import Iterable, Mapping
from typing import Final

from noisegate.enforcement.actions import UNLIMITED, Device, IoLimits, SetIo
from noisegate.isolation.disk import DiskRequest

MOST_BYTES: Final = (1 << 64) - 1
"""Stands for no limit in the kernel (U64_MAX)."""
MOST_OPERATIONS: Final = (1 << 32) - 1
"""The same for operations (UINT_MAX): whatever is larger is made this, and read back as `max`."""

_MOST: Final = (MOST_BYTES, MOST_BYTES, MOST_OPERATIONS, MOST_OPERATIONS)

Lines = Mapping[Device, IoLimits]
"""Limits by device; a device that is not there is unlimited."""


def wanted(request: DiskRequest | None, places: Mapping[str, Device]) -> dict[Device, IoLimits]:
    """Return the limits of each device: the sum over the entries that live on it.

    An entry without an upper bound in one direction makes that direction of its device unbounded. What the kernel does
    not tell from no limit is none here, so that what is read back equals what was asked for.

    Args:
        request: What the pod asks for; None: nothing.
        places: The device of each entry, by its name. An entry that is not there is mounted by no container yet.
    """
    shares: dict[Device, list[IoLimits]] = {}
    for name, *bounds in request.volumes if request else ():
        if name in places:
            shares.setdefault(places[name], []).append(IoLimits(*(bound.limit for bound in bounds)))
    sums = {device: _sum(shares[device]) for device in sorted(shares)}
    return {device: limits for device, limits in sums.items() if limits != UNLIMITED}


def plan(cgroup: str, wanted: Lines, observed: Lines, ours: Lines) -> tuple[SetIo, ...]:
    """Return what is to be written, and nothing that stands already: first what limits, then what is taken back.

    Args:
        cgroup: Of the pod.
        wanted: By `wanted`.
        observed: What io.max says.
        ours: What stood, before we first wrote, on each device that we have written: it comes back when the device is
            no longer wanted. Lines of other devices are others' and stay.
    """
    due = [(device, wanted[device]) for device in sorted(wanted)]
    due += [(device, ours[device]) for device in sorted(ours.keys() - wanted.keys())]
    return tuple(SetIo(cgroup, device, limits) for device, limits in due if observed.get(device, UNLIMITED) != limits)


def undo(cgroup: str, observed: Lines, ours: Lines) -> tuple[SetIo, ...]:
    """Return what brings every device that we have written back to what stood there before us."""
    return plan(cgroup, {}, observed, ours)


def owned(wanted: Lines, observed: Lines, ours: Lines, *, lost: bool = False) -> dict[Device, IoLimits]:
    """Return `ours` as it is recorded before a plan is carried out: what stood before us, once for each device.

    What is wanted is ours even where it stands already, and is to be kept.

    Args:
        wanted: By `wanted`.
        observed: What io.max says.
        ours: As for `plan`.
        lost: Whether the pod had a record that is lost: what stands as it is wanted was then written by us.
    """
    stood = {device: observed.get(device, UNLIMITED) for device in wanted}
    if lost:
        stood = {device: UNLIMITED if limits == wanted[device] else limits for device, limits in stood.items()}
    return {**stood, **ours}


def held(wanted: Lines, ours: Lines) -> dict[Device, IoLimits]:
    """Return `ours` as it is recorded after a plan is carried out: what was taken back is others' again."""
    return {device: limits for device, limits in ours.items() if device in wanted}


def _sum(shares: Iterable[IoLimits]) -> IoLimits:
    return IoLimits(*(_added(values, most) for values, most in zip(zip(*shares, strict=True), _MOST, strict=True)))


def _added(values: Iterable[int | None], most: int) -> int | None:
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total if total < most else None
