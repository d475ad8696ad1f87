"""The enforcer as a process in a node: `noisegate node run` beside a containerd, as a DaemonSet has it there.

```python
with Enforcer(containerd) as enforcer:
    pod = containerd.cri.run_pod(annotations=asking)
    enforcer.pod(pod.uid).network                  # asked, applied, observed
    enforcer.kill()                                # SIGKILL; what it made stays
    assert enforcer.cli("cleanup").code == 0
    enforcer.start()
    enforcer.metric("noisegate_node_drift_repairs_total", kind="network")
```
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from binaries import find
from containerd import Containerd, Ran
from prometheus_client.parser import text_string_to_metric_families

from noisegate.enforcement.status import SOCKET, NodeStatus, PodStatus, ask

SECONDS: Final = 20.0
"""Until something that must happen has failed to."""
PORT: Final = 8082
"""Of /metrics, in the node's own network."""
STATE: Final = "run/noisegate"


class Enforcer:
    """An enforcer of a node. It runs in the node's namespaces and ends with it.

    Args:
        containerd: Beside it.
        settings: What node.yaml says beyond where things are.

    Attributes:
        log: What it told, one line an event.
        config: Its node.yaml.
    """

    def __init__(self, containerd: Containerd, settings: Mapping[str, Any] | None = None) -> None:
        self._node: Final = containerd.node
        self._containerd: Final = containerd
        folder = containerd.node.folder
        self.log: Final = folder / "enforcer.log"
        self.config: Final = folder / "node.yaml"
        self._file: Final = folder / "enforcer.pid"
        self._process: subprocess.Popen[bytes] | None = None
        where = {
            "nri": {"socket": str(containerd.socket)},
            "runtime": {"config": str(folder / "containerd.toml"), "runc": [str(find("runc"))]},
            "health": {"address": "127.0.0.1", "port": PORT},
            "reconcileSeconds": 1,
        }
        # JSON is YAML.
        self.config.write_text(json.dumps(where | dict(settings or {})), encoding="ascii")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    @property
    def pid(self) -> int:
        """Of its process, as the node counts; `node.root / "proc" / str(pid)` is its folder."""
        return int(self._file.read_text())

    def start(self) -> None:
        """Start it, and wait until the runtime knows it."""
        self.begin()
        self.until(lambda: self.status().connected)

    def begin(self) -> None:
        """Start it."""
        script = 'echo $$ > "$1"; shift; exec "$@"'
        command = self._command("run", "--config", str(self.config))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._node.command("sh", "-c", script, "sh", str(self._file), *command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        """End it in order."""
        self._end("TERM")

    def kill(self) -> None:
        """Kill it: it does nothing any more, and what it made stays."""
        self._end("KILL")

    def cli(self, *words: str) -> Ran:
        """Run a command of `noisegate node` in the node: `cleanup`, `status`, `preflight`, `run`."""
        more = ("--config", str(self.config)) if words[0] != "status" else ()
        command = self._node.command(*self._command(*words, *more))
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return Ran(done.returncode, done.stdout, done.stderr)

    def status(self) -> NodeStatus:
        """Return all that it says of itself and its pods.

        Raises:
            OSError: It does not run.
        """
        return asyncio.run(ask(self._node.root / STATE / SOCKET))

    def pod(self, uid: str) -> PodStatus:
        """Return what it says of a pod.

        Raises:
            LookupError: It does not know the pod.
        """
        for found in self.status().pods:
            if found.uid == uid:
                return found
        raise LookupError(uid)

    def metric(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        text = self._node.run(str(self._node.busybox), "wget", "-q", "-O-", f"http://127.0.0.1:{PORT}/metrics")
        (value,) = (
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
        return value

    def until(self, true: Callable[[], bool]) -> None:
        """Wait until something has come true; while nobody answers or a pod is not known, it has not."""
        end = time.monotonic() + SECONDS
        while True:
            with suppress(OSError, LookupError):
                if true():
                    return
            assert self._process is not None
            assert self._process.poll() is None, f"the enforcer has ended\n{self.told()}"
            assert time.monotonic() < end, f"it did not come to that\n{self.told()}"
            time.sleep(0.02)

    def told(self) -> str:
        """Return its log."""
        return self.log.read_text(errors="replace")

    def _command(self, *words: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "noisegate", "node", *words)

    def _end(self, signal: str) -> None:
        assert self._process is not None
        # The process that was started waits outside the pid namespace; the enforcer is its child inside.
        self._node.run("sh", "-c", f"kill -{signal} {self.pid}")
        self._process.wait(SECONDS)
