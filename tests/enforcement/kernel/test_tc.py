"""Filters as the kernel lists them, from bytes laid out by hand: kinds and actions that this machine's kernel may lack."""

import struct

import pytest

from noisegate.enforcement.kernel.tc import TcFilter, _Tc, read_filter

OK, SHOT, PIPE, STOLEN, GOES_ON = 0, 2, 3, 4, -1
ACT = {"flower": 3, "matchall": 2, "u32": 7}
"""TCA_FLOWER_ACT, TCA_MATCHALL_ACT, TCA_U32_ACT (linux/pkt_cls.h)."""


def attribute(kind: int, payload: bytes) -> bytes:
    """Return a struct nlattr and what it bears."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def gact(verdict: int) -> tuple[str, bytes]:
    """Return the generic action: TCA_GACT_PARMS is a struct tc_gact."""
    return "gact", attribute(2, struct.pack("=IIiii", 1, 0, verdict, 1, 1))


def mirred(verdict: int, eaction: int, ifindex: int) -> tuple[str, bytes]:
    """Return a redirect (eaction 1) or a mirror (2): TCA_MIRRED_PARMS is a struct tc_mirred."""
    return "mirred", attribute(2, struct.pack("=IIiiiiI", 1, 0, verdict, 1, 1, eaction, ifindex))


UNKNOWN = ("nobody_knows", attribute(2, bytes(20)))


def listed(kind: str, *actions: tuple[str, bytes], options: bytes = b"", chain: int = 0) -> TcFilter:
    """Return what a filter of a kind with these actions is read as."""
    acts = b"".join(
        attribute(number, attribute(1, name.encode() + b"\0") + attribute(2, payload))
        for number, (name, payload) in enumerate(actions, 1)
    )
    if actions:
        options += attribute(ACT[kind], acts)
    body = struct.pack("=BxxxiIII", 0, 7, 1, 0xFFFFFFF2, 10 << 16 | 0x0300)
    body += attribute(1, kind.encode() + b"\0") + attribute(11, struct.pack("=I", chain)) + attribute(2, options)
    message = _Tc(struct.pack("=IHHII", 16 + len(body), 44, 0, 1, 0) + body)
    message.decode()
    return read_filter(message)


@pytest.mark.parametrize("kind", ACT)
@pytest.mark.parametrize(
    ("actions", "verdict"),
    [
        ([], OK),
        ([gact(OK)], OK),
        ([gact(SHOT)], SHOT),
        ([gact(GOES_ON)], GOES_ON),
        ([gact(PIPE)], PIPE),
        ([gact(PIPE), gact(SHOT)], SHOT),
        ([gact(GOES_ON), gact(OK)], GOES_ON),
        ([mirred(PIPE, 2, 9), gact(GOES_ON)], GOES_ON),
        ([mirred(PIPE, 2, 9)], PIPE),
        ([mirred(STOLEN, 1, 9)], STOLEN),
        ([UNKNOWN], None),
        ([UNKNOWN, gact(GOES_ON)], None),
    ],
)
def test_the_first_action_that_decides(kind: str, actions: list[tuple[str, bytes]], verdict: int | None) -> None:
    """TC_ACT_PIPE asks the next one; none at all accepts; one that nobody knows may do anything."""
    assert listed(kind, *actions).verdict == verdict


def test_where_a_filter_sends_frames() -> None:
    """Only where a redirect to another's egress is all that it does."""
    assert listed("u32", mirred(STOLEN, 1, 9)).target == 9
    assert listed("u32", mirred(PIPE, 2, 9)).target == 0
    assert listed("u32", gact(PIPE), mirred(STOLEN, 1, 9)).target == 0


def test_what_a_filter_is_known_by() -> None:
    """Kind, priority, chain and handle, and the name of a program; what a kind of filter does is known for three."""
    assert listed("flower", gact(SHOT), chain=3) == TcFilter("flower", 10, 3, 1, SHOT, 0, "")
    program = attribute(7, b"cil_from_container\0") + attribute(8, struct.pack("=I", 1))
    assert listed("bpf", options=program) == TcFilter("bpf", 10, 0, 1, None, 0, "cil_from_container")
    assert listed("cgroup", options=attribute(1, bytes(4))).verdict is None
