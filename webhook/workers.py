"""Several processes that share the TLS port: a small parent starts them, speaks for them on the health port, and ends them.

The parent decides nothing and runs no threads, so that a worker can be forked from it at any time. A worker is told to
stop over a socket, which also tells it when its parent has died: signals go to the parent alone.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Never

import msgspec
from prometheus_client.multiprocess import mark_process_dead

from noisegate.service.binding import bind
from noisegate.service.health import Health
from noisegate.service.log import Log
from noisegate.service.stop import Stop
from noisegate.webhook.metrics import Metrics
from noisegate.webhook.serverconfig import ServerConfig

FIRST_PAUSE: Final = 0.1
"""Seconds before a worker that died is started again; doubled with every death in a row."""
LONGEST_PAUSE: Final = 10.0
"""Seconds."""
HEALTHY_SECONDS: Final = 60.0
"""A worker that lived this long begins again with the first pause."""
_FAILED: Final = 70
"""Exit status of a worker that could not start (EX_SOFTWARE)."""


class _Told(msgspec.Struct):
    """What a worker says of itself, a line each time it changes."""

    reasons: list[str]
    notes: list[str]


class _Worker:
    """A place for a worker, and the worker in it."""

    def __init__(self, number: int) -> None:
        self.number: Final = number
        self.pid = 0
        self.link: socket.socket | None = None
        self.heard = b""
        self.told = _Told(["starting"], [])
        self.deaths = 0
        self.began = 0.0


class Link:
    """What a worker and its parent say to each other.

    Args:
        link: The worker's end, not blocking.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link: Final = link
        self._last = b""

    def tell(self, reasons: Sequence[str], notes: Sequence[str]) -> None:
        """Tell the parent why the worker is not ready, and what else there is to know, if that has changed."""
        # The line feed before it ends what a full socket took of the line before.
        line = b"\n" + msgspec.json.encode(_Told(list(reasons), list(notes))) + b"\n"
        if line == self._last:
            return
        try:
            sent = self._link.send(line)
        except OSError:
            sent = 0
        # What did not go out whole is told again at the next look at the files.
        self._last = line if sent == len(line) else b""

    def obey(self, stop: Stop) -> None:
        """Ask for the end when the parent says so, or has ended."""
        asyncio.get_running_loop().add_reader(self._link.fileno(), self.hear, stop)

    def hear(self, stop: Stop) -> None:
        """Read what the parent says: whatever it is, it is the wish to end."""
        with contextlib.suppress(ConnectionError):
            try:
                self._link.recv(64)
            except BlockingIOError:
                return
        asyncio.get_running_loop().remove_reader(self._link.fileno())
        if not stop.asked.is_set():
            stop.ask()


Work = Callable[[ServerConfig, Link, str], int]
"""Serves in a worker, with the link to its parent, and numbers in a folder; returns its exit status."""


def run(config: ServerConfig, work: Work, metrics: Callable[[str], Metrics], log: Log) -> int:
    """Serve with several processes until a signal; return the exit status.

    Args:
        config: How to serve.
        work: What a worker does.
        metrics: Makes the parent's own metrics, with numbers in a folder.
        log: Where events are told.
    """
    folder = tempfile.mkdtemp(prefix="noisegate-")

    async def main() -> int:
        return await _Parent(config, work, metrics(folder), log, folder=folder).run()

    try:
        return asyncio.run(main())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Parent:
    def __init__(self, config: ServerConfig, work: Work, metrics: Metrics, log: Log, *, folder: str) -> None:
        self.config = config
        self.work = work
        self.metrics = metrics
        self.log = log
        self.folder = folder
        self.workers = [_Worker(number) for number in range(config.processes)]
        self.held: list[socket.socket] = []
        self.stop = Stop()
        self.gone = asyncio.Event()
        self.serving = False
        self.status = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        # Bound and never listening: it holds the port, and finds out here, once, that it cannot be had.
        port = bind(self.config.binding_address, self.config.port, shared=True)
        self.held += port
        try:
            self.config = replace(self.config, port=port[0].getsockname()[1])
            health_port = bind(self.config.health_address, self.config.health_port)
            self.held += health_port
            health = Health(self._reasons, self._notes, self.metrics.text)
            self.stop.on_signals()
            loop.add_signal_handler(signal.SIGCHLD, self._bury)
            for worker in self.workers:
                self._start(worker)
            await health.open(health_port)
            await self.stop.asked.wait()
            self.metrics.draining.set(1)
            await self._leave()
            await health.close()
        finally:
            for listener in self.held:
                listener.close()
        self.log.info("ended", status=self.status)
        return self.status

    def _start(self, worker: _Worker) -> None:
        if self.stop.asked.is_set():
            return
        ours, theirs = socket.socketpair()
        # A signal between the fork and the child's own set-up would be the parent's.
        signals = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        pid = os.fork()
        if pid == 0:
            self._child(worker, theirs, ours, signals)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        theirs.close()
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        worker.pid, worker.link, worker.heard, worker.began = pid, ours, b"", loop.time()
        worker.told = _Told(["starting"], [])
        loop.add_reader(ours.fileno(), self._hear, worker)

    def _child(self, worker: _Worker, link: socket.socket, ours: socket.socket, signals: set[signal.Signals]) -> Never:
        status = _FAILED
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            for foreign in (ours, *self.held, *(other.link for other in self.workers if other.link)):
                # By number: closing the object would speak to the event loop that we share with the parent.
                os.close(foreign.fileno())
            link.setblocking(False)
            status = self.work(self.config, Link(link), self.folder)
        except (ValueError, OSError) as error:
            self.log.fault("start-failed", worker=worker.number, reason=str(error))
        except BaseException as error:  # noqa: BLE001  (nothing may get back into the parent's frames)
            self.log.fault("worker-failed", cause=error, worker=worker.number)
        finally:
            os._exit(status)

    def _hear(self, worker: _Worker) -> None:
        link = worker.link
        if link is None:
            return
        try:
            data = link.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(link.fileno())
            return
        *lines, worker.heard = (worker.heard + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError):
                worker.told = msgspec.json.decode(line, type=_Told)
        if not self.serving and not self._reasons():
            self.serving = True
            port, health_port = self.config.port, self.held[-1].getsockname()[1]
            self.log.info("all-ready", processes=len(self.workers), port=port, health_port=health_port)

    def _bury(self) -> None:
        for worker in self.workers:
            if not worker.pid:
                continue
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                self._died(worker, os.waitstatus_to_exitcode(status))

    def _died(self, worker: _Worker, status: int) -> None:
        loop = asyncio.get_running_loop()
        mark_process_dead(worker.pid, self.folder)  # type: ignore[no-untyped-call]
        if worker.link is not None:
            loop.remove_reader(worker.link.fileno())
            worker.link.close()
        pid, lived = worker.pid, loop.time() - worker.began
        worker.pid, worker.link = 0, None
        self.gone.set()
        if self.stop.asked.is_set():
            self.status = max(self.status, 1 if status else 0)
            return
        if not self.serving:
            # What is wrong with the start of one is wrong with all: bad files, no rights.
            self.status = 1
            self.stop.ask()
            return
        worker.deaths = 0 if lived > HEALTHY_SECONDS else worker.deaths + 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(worker.deaths, 10) / 2)
        self.metrics.restarts.inc()
        self.log.fault("worker-died", worker=worker.number, pid=pid, status=status, again_in_seconds=pause)
        loop.call_later(pause, self._start, worker)

    async def _leave(self) -> None:
        for worker in self.workers:
            if worker.link is not None:
                with contextlib.suppress(OSError):
                    worker.link.send(b"\n")
        loop = asyncio.get_running_loop()
        end = loop.time() + self.config.shutdown_delay + self.config.drain_seconds + HEALTHY_SECONDS / 12
        while any(worker.pid for worker in self.workers):
            if loop.time() > end or self.stop.insisted.is_set():
                self.status = 1
                for worker in self.workers:
                    if worker.pid:
                        os.kill(worker.pid, signal.SIGKILL)
            await self._next_death()

    async def _next_death(self) -> None:
        self.gone.clear()
        waits = [asyncio.ensure_future(self.gone.wait())]
        if not self.stop.insisted.is_set():
            waits.append(asyncio.ensure_future(self.stop.insisted.wait()))
        await asyncio.wait(waits, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    def _reasons(self) -> list[str]:
        if self.stop.asked.is_set():
            return ["draining"]
        reasons: list[str] = []
        for worker in self.workers:
            told = worker.told.reasons if worker.pid else ["not running"]
            reasons += [f"worker {worker.number}: {reason}" for reason in told]
        return reasons

    def _notes(self) -> list[str]:
        return list(dict.fromkeys(note for worker in self.workers for note in worker.told.notes))
