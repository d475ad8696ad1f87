"""Several connections over one socket, as NRI multiplexes them: bytes in, pieces of connections out.

    frame     connection id u32, length u32, both big-endian; then `length` bytes of that connection

Frames have nothing to do with the messages within: a message may be spread over frames, a frame may hold several.
"""

import struct
from typing import Final

PLUGIN: Final = 1
"""The connection on which the plugin serves and the runtime calls."""
RUNTIME: Final = 2
"""The connection on which the runtime serves and the plugin calls."""
LONGEST_SENT: Final = 4096
"""Bytes of one frame to the runtime: it reads a connection into a buffer of 4096 and drops the plugin when a frame is longer."""
LONGEST: Final = 10 + (4 << 20)
"""Bytes of one frame from the runtime: it cuts at the longest ttrpc message and its header."""

_HEADER: Final = struct.Struct(">II")


class ProtocolError(Exception):
    """The peer sent what the protocol does not allow; nothing after it can be understood."""


class Demultiplexer:
    """Takes the bytes of the socket apart."""

    __slots__ = ("_connection", "_left", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._connection = 0
        self._left = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return what arrived, in order, as connection and bytes; the bytes of a frame come as soon as they are there.

        Raises:
            ProtocolError: A frame is longer than any message, or belongs to the reserved connection 0.
        """
        pieces: list[tuple[int, bytes]] = []
        data, at = self._rest + data, 0
        while True:
            if self._left:
                piece = data[at : at + self._left]
                if piece:
                    pieces.append((self._connection, piece))
                    self._left -= len(piece)
                    at += len(piece)
            if self._left or len(data) - at < _HEADER.size:
                self._rest = data[at:]
                return pieces
            self._connection, self._left = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            if self._connection == 0:
                raise ProtocolError("a frame for connection 0, which is reserved")
            if self._left > LONGEST:
                raise ProtocolError(f"a frame of {self._left} bytes; at most {LONGEST} are allowed")


def multiplex(connection: int, data: bytes) -> bytes:
    """Return the frames that carry `data`, each short enough for the runtime."""
    frames = bytearray()
    for at in range(0, len(data), LONGEST_SENT):
        piece = data[at : at + LONGEST_SENT]
        frames += _HEADER.pack(connection, len(piece)) + piece
    return bytes(frames)
