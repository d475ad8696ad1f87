"""What is done to a node, as values: planned by `plan/`, carried out by `apply.py`, remembered by the ledger."""

from dataclasses import dataclass
from typing import NamedTuple


class Device(NamedTuple):
    """A block device by the numbers that `io.max` names it with."""

    major: int
    minor: int

    def __str__(self) -> str:
        """Write it as the kernel does: `8:0`."""
        return f"{self.major}:{self.minor}"


class IoLimits(NamedTuple):
    """What one cgroup may do to one device in a second; None: `max`, no limit.

    Attributes:
        rbps: Bytes read.
        wbps: Bytes written.
        riops: Read operations.
        wiops: Write operations.
    """

    rbps: int | None = None
    wbps: int | None = None
    riops: int | None = None
    wiops: int | None = None


UNLIMITED = IoLimits()


@dataclass(frozen=True, slots=True)
class Interface:
    """The host's end of a pod's veth pair.

    Attributes:
        index: Its ifindex in the host's network namespace; the kernel gives none twice before it has gone round.
        name: Its name there.
    """

    index: int
    name: str


class Rates(NamedTuple):
    """Bits per second, counted as frames on the wire; None: not limited.

    Attributes:
        ingress: What the pod receives.
        egress: What the pod sends.
    """

    ingress: int | None = None
    egress: int | None = None


UNSHAPED = Rates()


class SetIo(NamedTuple):
    """Write a line of `io.max`.

    Attributes:
        cgroup: Of the pod, from the root of the hierarchy: `/kubepods.slice/...-pod<uid>.slice`.
        device: Whole disk, device-mapper or md device.
        limits: All four values; `UNLIMITED` takes the line away.
    """

    cgroup: str
    device: Device
    limits: IoLimits


class Shape(NamedTuple):
    """Put a pod's interface under rates; `UNSHAPED` takes ours away.

    Attributes:
        interface: The host's end.
        ifb: Name of the ifb device for what the pod sends.
        rates: In both directions.
    """

    interface: Interface
    ifb: str
    rates: Rates


Action = SetIo | Shape
