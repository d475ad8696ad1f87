"""QEMU's machine protocol: https://www.qemu.org/docs/master/interop/qmp-spec.html."""

import json
import socket
import time
from pathlib import Path
from typing import Any, Final


class QmpError(Exception):
    """QEMU refused a command, or is gone: its words."""


class Qmp:
    """One connection to a machine's monitor.

    Args:
        path: Of its unix socket; QEMU makes it at its start.
        seconds: For that.

    Raises:
        QmpError: There is none in time.
    """

    def __init__(self, path: Path, seconds: float = 10.0) -> None:
        self._socket: Final = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + seconds
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError as error:
                if time.monotonic() > end:
                    self._socket.close()
                    raise QmpError(f"{path}: {error.strerror}") from error
                time.sleep(0.02)
        self._lines: Final = self._socket.makefile("rb")
        self._read()  # the greeting
        self.do("qmp_capabilities")

    def do(self, command: str, **arguments: Any) -> Any:
        """Give a command; return what it returns.

        Raises:
            QmpError: QEMU refuses it, or ends before it answers.
        """
        text = json.dumps({"execute": command, "arguments": arguments})
        self._socket.sendall(text.encode() + b"\n")
        while True:
            answer = self._read()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise QmpError(f"{command}: {answer['error']['desc']}")
            # Else it is an event.

    def human(self, line: str) -> str:
        """Give a command of the human monitor; return its text, which is empty when all is well."""
        return str(self.do("human-monitor-command", **{"command-line": line}))

    def close(self) -> None:
        """Close the connection."""
        self._lines.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise QmpError("QEMU closed the connection")
        value: dict[str, Any] = json.loads(line)
        return value
