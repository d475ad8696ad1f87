"""Questions to the kernel over a netlink socket, one after another (man 7 netlink): bytes out, bytes in.

A socket of our own and not pyroute2's: that one runs an event loop in each thread (2 ms to open, and a busy device is
asked again for up to nine seconds, while the runtime waits two for all that we do).
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

REQUEST: Final = 0x1
ACK: Final = 0x4
ECHO: Final = 0x8
REPLACE: Final = 0x100
EXCL: Final = 0x200
CREATE: Final = 0x400
DUMP: Final = 0x300

HEADER: Final = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port."""
OURS: Final = 0xFEED0000
"""Of our sequence numbers the upper half: what the kernel tells others of a change bears the number of its cause."""

_ATTRIBUTE: Final = struct.Struct("=HH")
_KIND: Final = 0x3FFF
"""Of an attribute's type, without what says that it is nested or in network order (NLA_TYPE_MASK)."""
_ERROR: Final = 2
_DONE: Final = 3
_DUMP_INTERRUPTED: Final = 0x10
_HAS_ATTRIBUTES: Final = 0x200
_MESSAGE_ATTRIBUTE: Final = 1
_SOL_NETLINK: Final = 270
_CAP_ACK: Final = 10
_EXT_ACK: Final = 11
_PIECE: Final = 1 << 17
"""Bytes: the kernel makes dumps in pieces of at most 32 KiB; an answer to one question is smaller."""
_ATTEMPTS: Final = 8
"""For a dump that is interrupted by changes."""


class Netlink:
    """One socket, for one thread; it belongs to the network namespace that the thread is in when it is made."""

    def __init__(self) -> None:
        self._socket: Final = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._sequence = OURS
        try:
            self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
            self._socket.bind((0, 0))
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        """Send one message and return those that answer it, whole.

        Args:
            kind: Its type.
            flags: `DUMP` alone, or others; `REQUEST` and `ACK` are added.
            body: What follows the header.

        Raises:
            OSError: The kernel refuses: its errno and, where it gives one, its own words.
        """
        flags |= REQUEST if flags == DUMP else REQUEST | ACK
        for _ in range(_ATTEMPTS):
            self._sequence = OURS | (self._sequence + 1 & 0xFFFF)
            self._socket.send(HEADER.pack(HEADER.size + len(body), kind, flags, self._sequence, 0) + body)
            whole = True
            answers: list[bytes] = []
            for answer, interrupted in self._answers():
                whole = whole and not interrupted
                answers.append(answer)
            if whole:
                return answers
        raise BlockingIOError(errno.EAGAIN, "what is listed changes faster than it can be read")

    def ask_at_once(self, *messages: tuple[int, int, bytes]) -> list[OSError | None]:
        """Send several messages, each as type, flags and body, and return why the kernel refuses each; None: it does not.

        It handles one after another, whatever came of those before, within the one call of ours (netlink_rcv_skb,
        net/netlink/af_netlink.c): no death of this process comes between them.
        """
        sent = b""
        first = self._sequence + 1
        for number, (kind, flags, body) in enumerate(messages):
            header = HEADER.pack(
                HEADER.size + len(body), kind, flags | REQUEST | ACK, OURS | (first + number & 0xFFFF), 0
            )
            sent += header + body + bytes(-len(body) % 4)
        self._socket.send(sent)
        return [self._outcome(OURS | (first + number & 0xFFFF)) for number in range(len(messages))]

    def _outcome(self, sequence: int) -> OSError | None:
        self._sequence = sequence
        try:
            for _ in self._answers():
                pass
        except OSError as error:
            return error
        return None

    def _answers(self) -> Iterator[tuple[bytes, bool]]:
        while True:
            piece = memoryview(self._socket.recv(_PIECE))
            while piece:
                length, kind, flags, sequence, _ = HEADER.unpack_from(piece)
                message, piece = bytes(piece[:length]), piece[(length + 3) & ~3 :]
                if sequence != self._sequence:
                    continue
                if kind in {_ERROR, _DONE}:
                    _raise(message, flags)
                    return
                yield message, bool(flags & _DUMP_INTERRUPTED)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the content of each attribute (struct nlattr)."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & _KIND, data[at + _ATTRIBUTE.size : at + length]
        at += max((length + 3) & ~3, _ATTRIBUTE.size)


def _raise(message: bytes, flags: int) -> None:
    """Raise what an NLMSG_ERROR or NLMSG_DONE says, if it is an error.

    struct nlmsgerr: errno, negative; the header of the question; attributes, among them the kernel's words.
    """
    (number,) = struct.unpack_from("=i", message, HEADER.size) if len(message) >= HEADER.size + 4 else (0,)
    if not number:
        return
    told = os.strerror(-number)
    if flags & _HAS_ATTRIBUTES:
        for kind, text in attributes(message[HEADER.size + 4 + HEADER.size :]):
            if kind == _MESSAGE_ATTRIBUTE:
                told = text.rstrip(b"\0").decode(errors="replace")
    raise OSError(-number, told)
