"""Which interfaces somebody has changed, as rtnetlink's multicast groups tell it (man 7 rtnetlink).

A look at the queueing disciplines of one pod takes milliseconds, and a node has hundreds of pods: those that nobody
touches need none.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple, Self

from noisegate.enforcement.kernel.netlink import HEADER, OURS, attributes
from noisegate.enforcement.kernel.rtnetlink import Rtnetlink

_GROUPS: Final = 1 << (1 - 1) | 1 << (4 - 1)
"""RTNLGRP_LINK: links; RTNLGRP_TC: qdiscs, classes, filters (linux/rtnetlink.h)."""
_NEW_LINK: Final = 16
_DEL_LINK: Final = 17
_OF_INTERFACES: Final = frozenset({_NEW_LINK, _DEL_LINK, 36, 37, 40, 41, 44, 45, 100, 101})
"""RTM_{NEW,DEL}{LINK,QDISC,TCLASS,TFILTER,CHAIN}; actions belong to no interface."""
_NAME: Final = 3
"""IFLA_IFNAME."""
_INDEX: Final = struct.Struct("=4xi")
"""Both struct ifinfomsg and struct tcmsg have the interface's index behind their first four bytes."""
_LINK_BODY: Final = 16
_UPPER: Final = 0xFFFF0000
_LARGEST: Final = 1 << 16
_ROOM: Final = 4 << 20
"""Bytes that may wait for us: a hundred pods that come at once make thousands of messages."""
_SO_RCVBUFFORCE: Final = 33


class Changes(NamedTuple):
    """What changed.

    Attributes:
        indices: Of the interfaces that came, went, or have something on them that was made, changed or taken away.
        names: Of those among them that came or changed since we listen, and of ifbs.
        lost: More changed than could be told.
    """

    indices: frozenset[int]
    names: frozenset[str]
    lost: bool


class TcWatch:
    """Listens in the network namespace that the calling thread is in. What this process does itself is not told.

    Raises:
        OSError: The kernel gives no socket, or does not list its ifbs.
    """

    def __init__(self) -> None:
        self._socket: Final = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            with suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
            self._socket.setblocking(False)
            self._socket.bind((0, _GROUPS))
            with Rtnetlink() as route:
                self._names: Final = {link.ifindex: link.name for link in route.links("ifb")}
        except OSError:
            self._socket.close()
            raise
        self._indices: Final[set[int]] = set()
        self._gone: Final[set[int]] = set()
        self._lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when something has changed."""
        return self._socket.fileno()

    def drain(self) -> bool:
        """Read all that was told, and keep it; return whether there is anything to take."""
        while True:
            try:
                data = self._socket.recv(_LARGEST)
            except BlockingIOError:
                return bool(self._indices) or self._lost
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._lost = True
                continue
            for kind, sequence, body in _messages(data):
                self._hear(kind, sequence, body)

    def take(self) -> Changes:
        """Return what was read since it was last taken."""
        names = {self._names[index] for index in self._indices if index in self._names}
        changes = Changes(frozenset(self._indices), frozenset(names), self._lost)
        for index in self._gone:
            self._names.pop(index, None)
        self._indices.clear()
        self._gone.clear()
        self._lost = False
        return changes

    def _hear(self, kind: int, sequence: int, body: bytes) -> None:
        if kind not in _OF_INTERFACES:
            return
        (index,) = _INDEX.unpack_from(body)
        if kind == _NEW_LINK:
            self._names[index] = os.fsdecode(dict(attributes(body[_LINK_BODY:]))[_NAME].rstrip(b"\0"))
        elif kind == _DEL_LINK:
            # Its name is known until it has been told.
            self._gone.add(index)
        # Older kernels tell everybody also what is only asked for (RTM_GETQDISC): a look would bring the next one.
        if sequence & _UPPER != OURS:
            self._indices.add(index)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    while len(data) >= HEADER.size:
        length, kind, _, sequence, _ = HEADER.unpack_from(data)
        yield kind, sequence, data[HEADER.size : length]
        data = data[(length + 3) & ~3 :]
