"""What stands in io.max and io.stat of a cgroup, as text.

Sources: Documentation/admin-guide/cgroup-v2.rst, IO Interface Files; block/blk-throttle.c, block/blk-cgroup.c.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from noisegate.enforcement.actions import Device, IoLimits

_DEVICE: Final = re.compile(r"(\d+):(\d+)", re.ASCII)


class IoCounters(NamedTuple):
    """What a cgroup and those below it have done to a device since it was made.

    Attributes:
        rbytes: Bytes read.
        wbytes: Bytes written.
        rios: Read operations.
        wios: Write operations.
    """

    rbytes: int = 0
    wbytes: int = 0
    rios: int = 0
    wios: int = 0


def line(device: Device, limits: IoLimits) -> str:
    """Return what is written into io.max in one write(2): one device, all four values.

    A key that is left out keeps what it had, and a second device in one write is EINVAL.
    """
    values = ("max" if value is None else str(value) for value in limits)
    return " ".join([str(device), *map("=".join, zip(IoLimits._fields, values, strict=True))])


def parse_limits(text: str) -> dict[Device, IoLimits]:
    """Return what io.max says, by device; a device without any limit has no line.

    Raises:
        ValueError: It is no text of io.max.
    """
    return {
        device: IoLimits(*(_limit(values.get(key, "max")) for key in IoLimits._fields))
        for device, values in _lines(text)
    }


def parse_counters(text: str) -> dict[Device, IoCounters]:
    """Return what io.stat says, by device.

    Raises:
        ValueError: It is no text of io.stat.
    """
    return {
        device: IoCounters(*(int(values.get(key, "0")) for key in IoCounters._fields))
        for device, values in _lines(text)
    }


def _limit(value: str) -> int | None:
    return None if value == "max" else int(value)


def _lines(text: str) -> Iterator[tuple[Device, dict[str, str]]]:
    """Yield the keys of each device. By words, not lines: older kernels write devices that have none in one line."""
    device: Device | None = None
    values: dict[str, str] = {}
    for word in text.split():
        key, equals, value = word.partition("=")
        if equals:
            values[key] = value
            continue
        number = _DEVICE.fullmatch(word)
        if number is None:
            raise ValueError(f"not a line of a file of the io controller: {text!r}")
        if device is not None:
            yield device, values
        device, values = Device(int(number[1]), int(number[2])), {}
    if device is not None:
        yield device, values
    elif values:
        raise ValueError(f"not a line of a file of the io controller: {text!r}")
