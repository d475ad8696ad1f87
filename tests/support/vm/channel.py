"""Speaks with the agent inside a machine: guest/usr/local/lib/node/agent.py says how."""

import json
import os
import socket
from contextlib import suppress
from typing import Any, BinaryIO, Final, NamedTuple


class Ran(NamedTuple):
    """What a command came to.

    Attributes:
        code: Exit code; below zero: the signal that ended it; 127: there is no such program.
        out: Its stdout.
        err: Its stderr.
        late: Whether it was killed for being late.
    """

    code: int
    out: str
    err: str
    late: bool = False


class Sample(NamedTuple):
    """What files said at one moment.

    Attributes:
        at: Seconds of the machine's monotonic clock.
        texts: Of each file; empty where it cannot be read.
        errors: errno of each file, 0 where it could be read.
    """

    at: float
    texts: tuple[str, ...]
    errors: tuple[int, ...]


class Channel:
    """Connections to one machine's agent, used by any number of threads.

    Args:
        port: Of the agent on the host's loopback.
    """

    def __init__(self, port: int) -> None:
        self._port: Final = port
        self._idle: Final[list[tuple[socket.socket, BinaryIO]]] = []

    def run(self, argv: tuple[str, ...], timeout: float, given: bytes = b"") -> Ran:
        """Run a command."""
        question = {"ask": "run", "argv": argv, "timeout": timeout, "size": len(given)}
        answer, out, err = self._ask(question, given, timeout + 30)
        return Ran(answer["code"], _text(out), _text(err), answer["late"])

    def read(self, *paths: str) -> Sample:
        """Read files."""
        answer, *_ = self._ask({"ask": "read", "paths": paths}, b"", 30)
        return Sample(answer["at"], tuple(answer["texts"]), tuple(answer["errors"]))

    def write(self, path: str, text: str) -> int:
        """Write a text in one call; return the errno."""
        answer, *_ = self._ask({"ask": "write", "path": path, "text": text}, b"", 30)
        return int(answer["error"])

    def connect(self, path: str) -> socket.socket:
        """Return a connection to one of the machine's unix sockets.

        Raises:
            OSError: Nobody listens there.
        """
        connection = socket.create_connection(("127.0.0.1", self._port), 30)
        try:
            connection.sendall(json.dumps({"ask": "connect", "path": path}).encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):  # byte by byte: what follows is not ours to read
                answer += connection.recv(1) or b'{"error": 104}\n'
            error = json.loads(answer)["error"]
            if error:
                raise OSError(error, os.strerror(error), path)
        except BaseException:
            connection.close()
            raise
        connection.settimeout(None)
        return connection

    def close(self) -> None:
        """Close the connections."""
        while self._idle:
            connection, lines = self._idle.pop()
            lines.close()
            connection.close()

    def _ask(self, question: dict[str, Any], given: bytes, seconds: float) -> tuple[dict[str, Any], bytes, bytes]:
        try:
            connection, lines = self._idle.pop()
        except IndexError:
            connection = socket.create_connection(("127.0.0.1", self._port), 30)
            lines = connection.makefile("rb")
        try:
            connection.settimeout(seconds)
            connection.sendall(json.dumps(question).encode() + b"\n" + given)
            line = lines.readline()
            if not line:
                raise ConnectionError("the machine's agent closed the connection")
            answer = json.loads(line)
            out, err = (lines.read(answer.get(name, 0)) for name in ("out", "err"))
        except BaseException:
            with suppress(OSError):
                lines.close()
            connection.close()
            raise
        self._idle.append((connection, lines))
        return answer, out, err


def _text(content: bytes) -> str:
    return content.decode(errors="surrogateescape")
