"""noisegate's own programs, run as processes, as their containers run them."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml
from controlplane.plane import dies_with_us

ROOT: Final = Path(__file__).parents[2]
SECONDS: Final = 30.0
CHECKOUT: Final = (sys.executable, "-m", "noisegate")


class Program:
    """A program of noisegate that runs.

    Args:
        args: Of the command `noisegate`.
        log: Where its standard error goes: a line of JSON each.
        event: The event by which it says that it is there; its fields become `where`.
        hosts: A file that stands in the place of /etc/hosts for this program alone, in a mount namespace of its own.
        command: What is run in the place of this checkout.
    """

    def __init__(
        self, args: Sequence[str], log: Path, event: str, hosts: Path | None = None, command: Sequence[str] = CHECKOUT
    ) -> None:
        self.log: Final = log
        self._file = log.open("wb")
        self.process: Final = subprocess.Popen(
            [*_with(hosts), *command, *args],
            cwd=ROOT,
            stderr=self._file,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            preexec_fn=dies_with_us,
        )
        self.where: dict[str, Any] = self.wait_for(event)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.end()

    def lines(self) -> list[dict[str, Any]]:
        """Return what it has told so far."""
        found = []
        for line in self.log.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def told(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """Return the lines of an event."""
        return [line for line in self.lines() if line.get("event") == event and fields.items() <= line.items()]

    def wait_for(self, event: str, count: int = 1, **fields: object) -> dict[str, Any]:
        """Wait until an event was told so many times; return its last line."""
        end = time.monotonic() + SECONDS
        while len(found := self.told(event, **fields)) < count:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, (event, fields, self.log.read_text()[-3000:])
            time.sleep(0.02)
        return found[-1]

    def get(self, path: str) -> tuple[int, str]:
        """Ask its health port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.where["health_port"], timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def ready(self) -> None:
        """Wait until it is ready."""
        end = time.monotonic() + SECONDS
        while (answer := self.get("/readyz"))[0] != 200:
            assert time.monotonic() < end, answer
            time.sleep(0.02)

    def number(self, name: str) -> float:
        """Return a sample of its metrics, named with its labels as Prometheus writes them."""
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(name + " "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"there is no {name}")

    def resident(self) -> int:
        """Return its resident memory, bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def ask(self) -> None:
        """Ask it to end."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.end()

    def end(self) -> int:
        """Wait until it has ended, killing it if that takes long; return its status."""
        if self.process.poll() is None:
            self.ask()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._file.close()
        return self.process.wait()


def _with(hosts: Path | None) -> list[str]:
    if hosts is None:
        return []
    # Who is not root is root in a user namespace of its own.
    rights = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *rights, "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]


def webhook(
    folder: Path, settings: Mapping[str, Any], name: str = "webhook", port: int = 0, flags: Sequence[str] = ()
) -> Program:
    """Start an admission server on loopback.

    Args:
        folder: Where its settings and its log are written.
        settings: server.yaml; addresses and ports are filled in.
        name: Of its files.
        port: 0: any free one.
        flags: Further ones, which win over the settings.
    """
    server = {
        "binding-address": "127.0.0.1",
        "health-address": "127.0.0.1",
        "shutdown-delay": 1.0,
        "poll-seconds": 0.2,
        "log-format": "json",
        **settings.get("server", {}),
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**settings, "server": server}))
    where = ["--config", str(file), "--port", str(port), "--health-port", "0"]
    return Program(["webhook", *where, *flags], folder / f"{name}.log", "serving")


def secured(folder: Path) -> dict[str, str]:
    """Return the keys of `server:` for a pair as `installed.Certificates` writes it."""
    return {"cert": str(folder / "cert.pem"), "key": str(folder / "key.pem")}


@contextlib.contextmanager
def running(*programs: Program) -> Iterator[None]:
    """End programs after a test."""
    try:
        yield
    finally:
        for program in programs:
            program.end()
