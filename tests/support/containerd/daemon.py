"""Starts and ends containerd in a node."""

import subprocess
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from binaries import RUNTIME, find

from containerd import config, images
from containerd.config import Nri
from containerd.cri import Cri, CriError
from containerd.node import Node

SECONDS: Final = 30.0
"""Until a start has failed; it takes a tenth of one on a quiet machine."""

Start = Callable[[Nri | None], "Containerd"]
"""Starts one with or without NRI."""


class Containerd:
    """A containerd that runs in a node, with its images, a network for its pods, and NRI.

    Args:
        node: Where.
        nri: How plugins are treated, or None for no NRI at all.

    Attributes:
        node: Where.
        cri: A client of it.
        socket: Of NRI.
        log: What it told.
    """

    def __init__(self, node: Node, nri: Nri | None = Nri()) -> None:  # noqa: B008
        self.node: Final = node
        self.socket: Final = node.folder / "nri.sock"
        self.log: Final = node.folder / "containerd.log"
        self._programs: Final = {name: find(name) for name in RUNTIME}
        self._address: Final = node.folder / "containerd.sock"
        self._config: Final = node.folder / "containerd.toml"
        self._file: Final = node.folder / "containerd.pid"
        # A socket's path fits into 108 bytes (unix(7)).
        assert len(f"{self._address}.ttrpc") < 108, f"{node.folder}: too long for sockets"
        text = config.toml(node.folder, self._programs["runc"], self._programs["ptp"].parent, nri)
        self._config.write_text(text, encoding="ascii")
        for name in ("cdi", "net.d", "nri/plugins", "nri/conf.d", "opt"):
            (node.folder / name).mkdir(parents=True)
        (node.folder / "net.d" / "10-pods.conflist").write_text(config.network(), encoding="ascii")
        self.cri: Final = Cri(self._address)
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        try:
            self.start()
            self._import()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """End it for good; the containers end with their node."""
        self.cri.close()
        self.kill()

    @property
    def pid(self) -> int:
        """Of its process, as the node counts."""
        return int(self._file.read_text())

    def start(self) -> None:
        """Start it, and wait until pods can be run."""
        program = str(self._programs["containerd"])
        script = 'echo $$ > "$1"; shift; exec "$@"'
        command = self.node.command("sh", "-c", script, "sh", str(self._file), program, f"--config={self._config}")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._wait("containerd", self._ready)

    def stop(self) -> None:
        """End it in order; containers go on running."""
        self._end("TERM")

    def kill(self) -> None:
        """Kill it; containers go on running."""
        self._end("KILL")

    def restart(self) -> None:
        """End it in order and start it again."""
        self.stop()
        self.start()

    def _import(self) -> None:
        archive = self.node.folder / "images.tar"
        images.write(archive)
        ctr = str(self._programs["ctr"])
        self.node.run(ctr, f"--address={self._address}", "--namespace=k8s.io", "images", "import", str(archive))
        # The part of containerd that makes pods learns of images by events.
        self._wait("images", lambda: {images.BUSYBOX, images.PAUSE} <= self.cri.images())

    def _end(self, signal: str) -> None:
        if self._process.poll() is None:
            # The process that was started waits outside the pid namespace; the daemon is its child inside.
            self.node.run("sh", "-c", f"kill -{signal} {self.pid}")
            self._process.wait(SECONDS)

    def _ready(self) -> bool:
        # Beside these two there is a condition that only warns, of cgroup v1 for one.
        return self._address.exists() and not self.cri.not_ready().keys() & {"RuntimeReady", "NetworkReady"}

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        end = time.monotonic() + SECONDS
        while True:
            try:
                if done():
                    return
            except CriError:
                pass
            if self._process.poll() is not None or time.monotonic() > end:
                told = self.log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{what}: not ready\n{told}")
            time.sleep(0.02)
