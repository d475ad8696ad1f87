"""How fast the byte counter of a device's htb class moves. Runs in a machine: `classrate.py DEVICE SECONDS`.

Starting `tc` there takes longer than a rate may be off; here two dumps of rtnetlink are made by one process, and the clock is read
around them. Prints {"bytes": between the dumps, "seconds": the same, "unsure": by how many seconds that may be wrong, "late": for how
many seconds timers were later than a class can make up for: an emulated machine gets no processor then, and moves less}.

Format: struct tcmsg and TCA_STATS2 of linux/rtnetlink.h, struct gnet_stats_basic of linux/gen_stats.h.
"""

import json
import socket
import struct
import sys
import time
from typing import NamedTuple

from noisegate.enforcement.kernel.netlink import DUMP, HEADER, Netlink, attributes

GET_CLASS = 42
MESSAGE = struct.Struct("=BxxxiIII")
"""Family, ifindex, handle, parent, info."""
STATS2, BASIC = 7, 1
BEGUN = 100_000
"""Bytes after which a load has begun."""
OURS = 0x6E670001
NAP = 0.005
SAVED = 0.04
"""Seconds of its rate that a class of ours may save up (kernel/shaper.py)."""


class Look(NamedTuple):
    """What a class has sent, and between which seconds of the clock it was asked."""

    sent: int
    before: float
    after: float


def look(netlink: Netlink, index: int) -> Look:
    """Ask for the counter of our class."""
    before = time.monotonic()
    answers = netlink.ask(GET_CLASS, DUMP, MESSAGE.pack(0, index, 0, 0, 0))
    after = time.monotonic()
    for answer in answers:
        if MESSAGE.unpack_from(answer, HEADER.size)[2] == OURS:
            stats = dict(attributes(dict(attributes(answer[HEADER.size + MESSAGE.size :]))[STATS2]))
            return Look(int.from_bytes(stats[BASIC][:8], sys.byteorder), before, after)
    raise SystemExit("there is no class of ours")


def main(device: str, seconds: float) -> None:
    """Measure, once something is sent."""
    netlink, index = Netlink(), socket.if_nametoindex(device)
    begin = look(netlink, index)
    first = begin
    while first.sent - begin.sent < BEGUN:
        if first.after - begin.before > 10 * seconds:
            raise SystemExit("nothing was sent")
        time.sleep(0.1)
        first = look(netlink, index)
    late = 0.0
    while (now := time.monotonic()) < first.after + seconds:
        time.sleep(NAP)
        late += max(0.0, time.monotonic() - now - NAP - SAVED)
    last = look(netlink, index)
    unsure = (first.after - first.before + last.after - last.before) / 2
    took = (last.before + last.after - first.before - first.after) / 2
    print(json.dumps({"bytes": last.sent - first.sent, "seconds": took, "unsure": unsure, "late": late}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
