"""Runs of `noisegate` in a node, each a fork: forker.py says why and how."""

import json
import socket
from pathlib import Path
from typing import Final

from vm import forker
from vm.channel import Ran
from vm.node import Node

SERVICE: Final = "forker"
SECONDS: Final = 120.0
"""For the imports, on a machine that is busy with other things."""


class Run:
    """One run.

    Attributes:
        pid: Of its process.
    """

    def __init__(self, forks: Path, argv: tuple[str, ...], log: str) -> None:
        self._socket: Final = socket.socket(socket.AF_UNIX)
        self._ended: Ran | None = None
        try:
            self.pid: Final = self._begin(forks, json.dumps({"argv": argv, "log": log}))
        except BaseException:
            self._socket.close()
            raise

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        if self._ended is not None:
            return False
        self._socket.setblocking(False)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

    def wait(self, seconds: float = SECONDS) -> Ran:
        """Wait for its end, and return what it came to."""
        if self._ended is None:
            self._socket.settimeout(seconds)
            with self._socket, self._socket.makefile("rb") as lines:
                end = json.loads(lines.readline() or b'{"code": -9, "out": 0, "err": 0}')  # of the whole node
                out, err = (lines.read(end[name]).decode() for name in ("out", "err"))
            self._ended = Ran(end["code"], out, err)
        return self._ended

    def forget(self) -> None:
        """Let it be: whoever begins another one does not ask what this one came to."""
        self._socket.close()

    def _begin(self, forks: Path, question: str) -> int:
        self._socket.settimeout(SECONDS)
        self._socket.connect(str(forks))
        self._socket.sendall(f"{question}\n".encode())
        line = b""
        while not line.endswith(b"\n"):  # byte by byte: `runs` looks at what follows
            piece = self._socket.recv(1)
            if not piece:
                raise ConnectionError("nobody forks in the node")
            line += piece
        return int(line)


class Forks:
    """Runs noisegate in a node.

    Args:
        node: Where the program is.
        program: Folder of the package there.
    """

    def __init__(self, node: Node, program: str) -> None:
        self._node: Final = node
        self._program: Final = program
        self._socket: Final = node.socket(forker.SOCKET)

    def run(self, *argv: str, log: str = "") -> Run:
        """Begin a run; what it writes goes to a log, or comes back with its end."""
        try:
            return Run(self._socket, argv, log)
        except ConnectionError:
            self._start()
            return Run(self._socket, argv, log)

    def _start(self) -> None:
        script = Path(forker.__file__)
        self._node.run("rm", "-f", forker.SOCKET)
        self._node.push([script], self._program)
        self._node.start(
            SERVICE, "/usr/bin/python3", f"{self._program}/{script.name}", env={"PYTHONPATH": self._program}
        )
        self._node.sh(
            f"for i in $(seq {SECONDS * 10:.0f}); do [ -S {forker.SOCKET} ] && exit; sleep 0.1; done; false",
            timeout=SECONDS,
        )
