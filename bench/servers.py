"""The servers under measurement: each a process of its own, held to one core, watched from outside."""

import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import trustme

from bench import cluster

REPOSITORY: Final = Path(__file__).resolve().parent.parent
LONGEST_START: Final = 20.0
"""Seconds after which a server that is not ready is given up."""

_PROCESS_CLOCK: Final = 2  # CPUCLOCK_SCHED (linux/posix-timers.h)


class Cores(NamedTuple):
    """Who runs where. On a machine with one core both share it, and the figures mean little."""

    server: int
    load: int

    @property
    def shared(self) -> bool:
        """Whether server and load take time from each other."""
        return self.server == self.load


class Site(NamedTuple):
    """What servers are started with: a folder for their files, cores, and what clients trust their certificate with."""

    folder: Path
    cores: Cores
    trust: ssl.SSLContext


class Started(NamedTuple):
    """A running server.

    Attributes:
        name: `no-op` or `noisegate`.
        process: Its first process.
        port: TLS port on 127.0.0.1.
        trust: What its certificate is checked with.
        ready: Seconds from exec until it said that it was ready.
    """

    name: str
    process: "subprocess.Popen[bytes]"
    port: int
    trust: ssl.SSLContext
    ready: float

    def workers(self) -> list[int]:
        """Return the ids of the processes that answer: the children where there are any, else the process itself."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children] or [pid]

    def cpu_seconds(self) -> float:
        """Return the CPU time that the workers have used, user and system."""
        return sum(time.clock_gettime(~pid << 3 | _PROCESS_CLOCK) for pid in self.workers())

    def resident_bytes(self) -> int:
        """Return the resident set of the largest worker."""
        return max(_status(pid, "VmRSS") for pid in self.workers())

    def peak_bytes(self) -> int:
        """Return the largest resident set that a worker ever had."""
        return max(_status(pid, "VmHWM") for pid in self.workers())


class ServerFailedError(RuntimeError):
    """A server did not start; the text holds what it said."""


def take_cores() -> Cores:
    """Hold this process, the load, to one core and choose another for the servers."""
    allowed = sorted(os.sched_getaffinity(0))
    cores = Cores(server=allowed[0], load=allowed[-1])
    os.sched_setaffinity(0, {cores.load})
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return cores


def site(folder: Path, cores: Cores) -> Site:
    """Make a folder ready: write a serving certificate (ECDSA P-256) into it."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    certificate = authority.issue_cert("127.0.0.1", "localhost", key_type=trustme.KeyType.ECDSA)
    folder.joinpath("tls.crt").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    folder.joinpath("tls.key").write_bytes(certificate.private_key_pem.bytes())
    folder.joinpath("tls.key").chmod(0o600)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return Site(folder, cores, context)


@contextmanager
def noop(site: Site) -> Iterator[Started]:
    """Run no-op A."""
    port = _free_port()
    command = [
        sys.executable,
        "-m",
        "bench.noop",
        str(port),
        str(site.folder / "tls.crt"),
        str(site.folder / "tls.key"),
    ]
    with _running("no-op", command, port, site, lambda: _listens(port)) as started:
        yield started


@contextmanager
def noisegate(site: Site) -> Iterator[Started]:
    """Run the real admission server with everything that it checks against."""
    port, health_port = _free_port(), _free_port()
    settings = cluster.write(site.folder, port, health_port)
    command = [sys.executable, "-m", "noisegate", "webhook", "--config", str(settings)]
    with _running("noisegate", command, port, site, lambda: _says_ready(health_port)) as started:
        yield started


def start_times(site: Site, count: int) -> list[float]:
    """Return the seconds from exec to ready of several starts, one after the other."""
    times: list[float] = []
    for _ in range(count):
        with noisegate(site) as started:
            times.append(started.ready)
    return times


@contextmanager
def _running(name: str, command: Sequence[str], port: int, site: Site, ready: Callable[[], bool]) -> Iterator[Started]:
    log = site.folder / f"{name}.log"
    os.sched_setaffinity(0, {site.cores.server})  # inherited by the child
    with log.open("wb") as output:
        begun = time.perf_counter()
        process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    os.sched_setaffinity(0, {site.cores.load})
    try:
        while not ready():
            if process.poll() is not None or time.perf_counter() - begun > LONGEST_START:
                raise ServerFailedError(f"{name} did not become ready:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.002)
        yield Started(name, process, port, site.trust, time.perf_counter() - begun)
        if process.poll() is not None:
            raise ServerFailedError(f"{name} ended under load:\n{log.read_text(errors='replace')[-4000:]}")
    finally:
        _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _says_ready(health_port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", health_port), 1) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    raise ValueError(f"/proc/{pid}/status has no {field}")
