"""One pod after another, in threads, and on when whoever asked has stopped waiting."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar

from noisegate.service.log import Log

T = TypeVar("T")

CLOSE_SECONDS: Final = 5.0
"""For what is under way at a stop, of the 15 that a DaemonSet's pod has: what a disk that hangs keeps may never end."""


class Turns:
    """Gives each pod its turns. To be used in one event loop.

    Args:
        threads: Pods that can be worked on at the same moment. Each that is in use more is one more thread.
        log: Where faults are told that nobody waits for.

    Attributes:
        waiting: By pod, how many wait for a turn or have one.
        locks: By pod, of those alone.
        tasks: What is under way.
    """

    def __init__(self, threads: int, log: Log) -> None:
        self.waiting: Final[Counter[str]] = Counter()
        self.locks: Final[defaultdict[str, asyncio.Lock]] = defaultdict(asyncio.Lock)
        self.tasks: Final[set[asyncio.Future[Any]]] = set()
        self._threads: Final = ThreadPoolExecutor(threads, thread_name_prefix="pod")
        self._log: Final = log

    async def turn(self, uid: str, work: Coroutine[Any, Any, T]) -> T:
        """Do something of a pod when nothing else of it is done; who comes first goes first.

        A caller that is cancelled before the turn has come did not ask; later on the work goes on without it.
        """
        self.waiting[uid] += 1
        try:
            await self.locks[uid].acquire()
        except BaseException:
            work.close()
            self._left(uid)
            raise
        return await self.kept(self._taken(uid, work))

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin something that nobody waits for."""
        self._keep(asyncio.get_running_loop().create_task(work))

    async def kept(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something that goes on when its caller is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._keep(task)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._abandoned)
            raise

    async def off_loop(self, work: Callable[..., T], *args: object) -> T:
        """Do blocking work in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    async def close(self) -> None:
        """Wait for what is under way, but not for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while self.tasks:
                    await asyncio.wait(self.tasks)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _taken(self, uid: str, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        finally:
            self.locks[uid].release()
            self._left(uid)

    def _left(self, uid: str) -> None:
        self.waiting[uid] -= 1
        if not self.waiting[uid]:
            del self.waiting[uid], self.locks[uid]

    def _keep(self, task: "asyncio.Task[Any]") -> None:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _abandoned(self, task: "asyncio.Future[Any]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.fault("pod-failed", cause=error)
