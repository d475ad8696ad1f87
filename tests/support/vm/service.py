"""A program that goes on in a node: a unit of its systemd."""

import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vm.node import Node


class Service:
    """One unit.

    Args:
        node: Where it is.
        name: Of the unit, without `.service`.
        log: File that its output goes to.
    """

    def __init__(self, node: "Node", name: str, log: str) -> None:
        self.name: Final = name
        self._node: Final = node
        self._log: Final = log

    @property
    def pid(self) -> int:
        """Its main process; 0 when it does not run."""
        return int(self._show("MainPID"))

    @property
    def runs(self) -> bool:
        """Whether it has started and not ended."""
        return self._show("ActiveState") == "active"

    @property
    def exit_code(self) -> int:
        """What its main process ended with last."""
        return int(self._show("ExecMainStatus"))

    def log(self) -> str:
        """Return all that it has written."""
        return self._node.read(self._log)

    def start(self) -> None:
        """Start it and wait until it says it is ready, if it does."""
        self._do("start")

    def restart(self) -> None:
        """Stop it if it runs, and start it."""
        self._do("restart")

    def stop(self) -> None:
        """Stop it as systemd does, with SIGTERM, and wait for its end."""
        self._do("stop")

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Send its main process a signal."""
        self._node.run("kill", f"-{int(how)}", str(self.pid))

    def await_log(self, text: str, seconds: float = 30.0) -> None:
        """Wait until it has written something."""
        end = time.monotonic() + seconds
        while text not in (log := self.log()):
            assert time.monotonic() < end, f"{self.name} never wrote {text!r}:\n{log[-3000:]}"
            time.sleep(0.1)

    def await_end(self, seconds: float = 30.0) -> None:
        """Wait until it does not run."""
        self.await_pid(lambda pid: pid == 0, seconds)

    def await_pid(self, right: Callable[[int], bool], seconds: float = 30.0) -> None:
        """Wait until its main process, 0 for none, is the right one."""
        end = time.monotonic() + seconds
        while not right(pid := self.pid):
            assert time.monotonic() < end, f"{self.name}: pid {pid} after {seconds:g} s:\n{self.log()[-3000:]}"
            time.sleep(0.1)

    def _do(self, verb: str) -> None:
        done = self._node.run("systemctl", verb, f"{self.name}.service", check=False, timeout=120)
        assert done.code == 0, f"{verb} {self.name}: {done.err}\n{self.log()[-3000:]}"

    def _show(self, name: str) -> str:
        return self._node.run("systemctl", "show", "--value", f"--property={name}", f"{self.name}.service").out.strip()
