"""The `schemata` files of resctrl: what a group may use of each cache and of each memory controller.

    L3:0=fffff;1=3ff        masks of cache ways, hexadecimal, for the caches 0 and 1
    MB:0=100;1=50           bandwidth, decimal

The kernel pads names and numbers with blanks, shows a line for each resource that the machine has, and takes lines that
name only some resources and some caches (Documentation/filesystems/resctrl.rst, "Schemata files - general concepts").
With code and data prioritization (mount options cdp, cdpl2), L3 is shown as L3CODE and L3DATA, L2 likewise.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

Schemata = Mapping[str, Mapping[int, int]]
"""Mask or bandwidth by resource (`L3`, `L2CODE`, `MB`) and id of the cache."""

MASKED: Final = ("L2", "L2CODE", "L2DATA", "L3", "L3CODE", "L3DATA")
MEASURED: Final = ("MB", "SMBA")
"""MB: memory bandwidth; SMBA: that of CXL memory, on AMD."""

UNLIMITED_MIBPS: Final = 0xFFFFFFFF
"""What the kernel gives a new group under mba_MBps (MBA_MAX_MBPS)."""


class Cache(NamedTuple):
    """A cache as `info/L3` and its kin describe it.

    Attributes:
        ids: Ids of the caches of this level, from the root's schemata; there may be gaps.
        mask: `cbm_mask`: all ways.
        min_bits: `min_cbm_bits`: fewest ways of a group; 0 on AMD.
        sparse: `sparse_masks`: a mask may have gaps.
        closids: `num_closids`: how many groups this resource knows, the root among them.
        shareable: `shareable_bits`: ways that devices may write into as well.
    """

    ids: tuple[int, ...]
    mask: int
    min_bits: int
    sparse: bool
    closids: int
    shareable: int = 0


class Bandwidth(NamedTuple):
    """Memory bandwidth as `info/MB` describes it.

    Attributes:
        ids: Ids of the L3 caches in front of it.
        minimum: `min_bandwidth`.
        step: `bandwidth_gran`: the kernel rounds up to its multiples.
        unit: `%`; `MiBps` where resctrl is mounted with mba_MBps; `GBps/8` on AMD.
        closids: `num_closids`.
    """

    ids: tuple[int, ...]
    minimum: int
    step: int
    unit: str
    closids: int


class Machine(NamedTuple):
    """What of caches and memory bandwidth this machine can share out.

    Attributes:
        caches: By resource name; with code and data prioritization `L3CODE` and `L3DATA` in the place of `L3`.
        bandwidth: Memory bandwidth; None: it cannot be shared out.
        closids: How many groups there can be, the root among them: the least of all resources' `num_closids`.
    """

    caches: Mapping[str, Cache]
    bandwidth: Bandwidth | None
    closids: int


def parse(text: str) -> Schemata:
    """Read a schemata file. Resources that this program does not know, and lines without values, are left out.

    Raises:
        ValueError: A line of a known resource is not of the kernel's form.
    """
    schemata: dict[str, dict[int, int]] = {}
    for line in text.splitlines():
        name, _, values = line.strip().partition(":")
        # A group in pseudo-locksetup mode has no values yet.
        if name in MASKED + MEASURED and values != "uninitialized":
            base = 16 if name in MASKED else 10
            pairs = (pair.partition("=") for pair in values.split(";") if pair.strip())
            schemata[name] = {int(cache): int(value, base) for cache, _, value in pairs}
    return schemata


def write(schemata: Schemata) -> list[str]:
    """Write schemata as lines that the kernel takes, without line ends."""
    return [
        f"{name}:" + ";".join(f"{cache}={values[cache]:{'x' if name in MASKED else 'd'}}" for cache in sorted(values))
        for name, values in sorted(schemata.items())
        if values
    ]


def differing(wanted: Schemata, observed: Schemata) -> Schemata:
    """Return the part of `wanted` that is not so in `observed`."""
    rest = {
        name: {cache: value for cache, value in values.items() if observed.get(name, {}).get(cache) != value}
        for name, values in wanted.items()
    }
    return {name: values for name, values in rest.items() if values}


def span(first: int, count: int) -> int:
    """Return a mask of `count` ones, the lowest at bit `first`."""
    return ((1 << count) - 1) << first
