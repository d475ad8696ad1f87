"""The enforcer as a program in a node: `noisegate node run` beside the node's containerd, as a host without a cluster has it.

```python
enforcing.install(node)                            # once for a machine
enforcer = Enforcer(node, {"reconcileSeconds": 1})
enforcer.start()
pod = node.run_pod(annotations=asking)
enforcer.pod(pod.uid).disk                         # asked, applied, observed
enforcer.kill()                                    # SIGKILL; what it made stays
assert enforcer.cli("cleanup").code == 0
```
"""

import asyncio
import compileall
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Any, Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families

import noisegate
from noisegate.enforcement.status import SOCKET, NodeStatus, PodStatus, ask
from vm.channel import Ran
from vm.forks import Forks, Run
from vm.node import Node

PROGRAM: Final = "/opt/noisegate"
"""Where it is in a node; the libraries it stands on are in the node's root."""
CONFIG: Final = "/etc/noisegate/node.yaml"
STATE: Final = "/run/noisegate"
PORT: Final = 8082
"""Of /metrics."""
LOG: Final = "/var/log/enforcer.log"
SECONDS: Final = 120.0
"""Until something that must happen has failed to: an emulated machine is slow."""


def install(node: Node) -> None:
    """Put the checkout's program into a node."""
    with tempfile.TemporaryDirectory(prefix="noisegate-program-") as folder:
        package = Path(folder, "noisegate")
        # The package's rooms are links in a checkout. A file that is being saved by an editor may vanish meanwhile.
        unwanted = shutil.ignore_patterns("__pycache__", "examples", "*.swp", "*.tmp")
        shutil.copytree(Path(noisegate.__file__).parent, package, ignore=unwanted)
        about = Path(folder, f"noisegate-{version('noisegate')}.dist-info")
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: noisegate\nVersion: {version('noisegate')}\n")
        # Of use where this Python is of the node's version, and else not looked at.
        compileall.compile_dir(package, quiet=1, stripdir=folder, prependdir=PROGRAM)
        node.push([package, about], PROGRAM, without=())


class Enforcer:
    """An enforcer of a node.

    Args:
        node: Where `install` was called.
        settings: What node.yaml says beyond defaults.
    """

    def __init__(self, node: Node, settings: Mapping[str, Any] | None = None) -> None:
        self._node: Final = node
        self._forks: Final = Forks(node, PROGRAM)
        self._status: Final = node.socket(f"{STATE}/{SOCKET}")
        self._run: Run | None = None
        self.configure(settings or {})

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Write node.yaml; it is read at the next start."""
        usual = {"health": {"address": "127.0.0.1", "port": PORT}, "reconcileSeconds": 1}
        self._node.run("mkdir", "-p", str(Path(CONFIG).parent))
        # JSON is YAML.
        self._node.write(CONFIG, json.dumps(usual | dict(settings)))

    @property
    def pid(self) -> int:
        """Of its process; 0 when it does not run."""
        return self._run.pid if self.runs and self._run is not None else 0

    @property
    def runs(self) -> bool:
        """Whether it was begun and has not ended."""
        return self._run is not None and self._run.runs

    def start(self) -> None:
        """Start it, and wait until the runtime knows it."""
        self.begin()
        self.until(lambda: self.status().connected)

    def begin(self) -> None:
        """Start it."""
        if self._run is not None:
            self._run.forget()
        self._run = self._forks.run(*_command("run"), log=LOG)

    def stop(self) -> None:
        """End it in order, if it runs."""
        self._end(SIGTERM)

    def kill(self) -> None:
        """Kill it, if it runs: it does nothing any more, and what it made stays."""
        self._end(SIGKILL)

    def send(self, how: Signals) -> None:
        """Send it a signal; SIGSTOP has it do nothing until SIGCONT."""
        self._node.run("kill", f"-{int(how)}", str(self.pid))

    def cli(self, *words: str) -> Ran:
        """Run a command of `noisegate node`: `cleanup`, `status`, `preflight`, `run`."""
        return self._forks.run(*_command(*words)).wait()

    def status(self) -> NodeStatus:
        """Return all that it says of itself and its pods.

        Raises:
            OSError: It does not run.
        """
        try:
            return asyncio.run(ask(self._status))
        except msgspec.DecodeError as error:
            # The socket of the host is there whether or not anybody listens in the node.
            raise ConnectionRefusedError(str(error)) from error

    def pod(self, uid: str) -> PodStatus:
        """Return what it says of a pod."""
        (found,) = (one for one in self.status().pods if one.uid == uid)
        return found

    def metric(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        text = self._node.run("busybox", "wget", "-q", "-O-", f"http://127.0.0.1:{PORT}/metrics").out
        (value,) = (
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
        return value

    def until(self, true: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Wait until something has come true; while nobody answers, it has not."""
        end = time.monotonic() + seconds
        while True:
            with suppress(OSError):
                if true():
                    return
            assert self.runs, f"the enforcer has ended\n{self.told()[-3000:]}"
            assert time.monotonic() < end, f"it did not come to that\n{self.told()[-3000:]}"
            time.sleep(0.05)

    def told(self) -> str:
        """Return its log."""
        return self._node.read(LOG)

    def _end(self, how: Signals) -> None:
        if self._run is not None and self.runs:
            self.send(how)
            self._run.wait()


def _command(*words: str) -> tuple[str, ...]:
    return ("node", *words, *(("--config", CONFIG) if words[0] != "status" else ()))
