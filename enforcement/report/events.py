"""Events (events.k8s.io/v1) on pods: what a user sees with `kubectl describe pod` when something could not be applied."""

import asyncio
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from noisegate.cluster.connection import ApiError, Connection
from noisegate.enforcement.rights import mended
from noisegate.service.log import Log

REPORTER: Final = "noisegate.io/enforcer"
LONGEST_NOTE: Final = 1024
"""Bytes that the API server takes of a note; 128 of a reason and of a reporting instance (Kubernetes' pkg/apis/core/validation/events.go)."""
LONGEST_WORD: Final = 128
AGAIN_SECONDS: Final = 600.0
"""The same is not told again of a pod within this time."""
MOST_OF_ONE: Final = 10
"""Events of one pod within that time."""
MOST_PODS: Final = 1024
"""Pods of which it is remembered what was told."""
MOST_WAITING: Final = 256
PAUSE_SECONDS: Final = 0.2
"""Between two Events: five a second from one node are what an API server bears from thousands of them."""
ATTEMPTS: Final = 4
RETRY_SECONDS: Final = 1.0
"""Before the second attempt; doubled with each further one."""

_encode: Final = msgspec.json.Encoder().encode


class Pod(NamedTuple):
    """The pod that an Event is about.

    Attributes:
        namespace: Its namespace.
        name: Its name.
        uid: As the runtime knows it. For a static pod that is right: kubectl looks for what its mirror's annotation names.
    """

    namespace: str
    name: str
    uid: str


class _Waiting(NamedTuple):
    pod: Pod
    reason: str
    note: str
    moment: str
    name: str


class Events:
    """Tells Events. To be used in one event loop.

    What cannot be written is given up, with a line in the log: the work goes on.

    Args:
        connection: To the API server.
        node: Who tells them.
        log: Where they are told too.
        clock: Seconds that never go back.
        pause: Waits for some seconds; to be replaced by tests that cannot wait.

    Attributes:
        written: Number of those the API server has.
        lost: Number of those that were given up, or left out because too many waited.
    """

    def __init__(
        self,
        connection: Connection,
        node: str,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.written = 0
        self.lost = 0
        self._connection: Final = connection
        self._node: Final = node
        self._log: Final = log
        self._clock: Final = clock
        self._pause: Final = pause
        self._told: Final[OrderedDict[str, dict[tuple[str, str], float]]] = OrderedDict()
        self._waiting: Final[deque[_Waiting]] = deque()
        self._more: Final = asyncio.Event()

    def tell(self, pod: Pod, reason: str, note: str) -> None:
        """Tell something that somebody should do something about. Returns at once, and writes later.

        Args:
            pod: That it is about.
            reason: One CamelCase word.
            note: A sentence: the value, the errno, and what to do.
        """
        if not self._is_new(pod.uid, (reason, note)):
            return
        self._log.limited("event", pod=f"{pod.namespace}/{pod.name}", uid=pod.uid, reason=reason, note=note)
        if len(self._waiting) >= MOST_WAITING:
            self._give_up(pod, reason, note, f"{MOST_WAITING} Events wait already")
            return
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        # The name is made once: a second attempt cannot make a second Event.
        name = f"noisegate-enforcer.{secrets.token_hex(8)}"
        self._waiting.append(_Waiting(pod, reason, note, moment, name))
        self._more.set()

    async def follow(self) -> None:
        """Write what is told, for ever."""
        while True:
            while not self._waiting:
                self._more.clear()
                await self._more.wait()
            await self._write(self._waiting.popleft())
            await self._pause(PAUSE_SECONDS)

    def _is_new(self, uid: str, what: tuple[str, str]) -> bool:
        now = self._clock()
        told = self._told.setdefault(uid, {})
        self._told.move_to_end(uid)
        if len(self._told) > MOST_PODS:
            self._told.popitem(last=False)
        for key in [key for key, when in told.items() if now - when >= AGAIN_SECONDS]:
            del told[key]
        if what in told or len(told) >= MOST_OF_ONE:
            return False
        told[what] = now
        return True

    async def _write(self, one: _Waiting) -> None:
        path = f"/apis/events.k8s.io/v1/namespaces/{one.pod.namespace}/events"
        body = _encode(_event(one, self._node))
        for attempt in range(ATTEMPTS):
            try:
                await self._connection.send("POST", path, body)
                break
            except ApiError as error:
                # 409: the attempt before was written, and its answer got lost.
                if attempt and error.status == 409:
                    break
                final = 400 <= error.status < 500 and error.status != 429
                if final or attempt == ATTEMPTS - 1:
                    self._give_up(*one[:3], mended(str(error)))
                    return
            await self._pause(RETRY_SECONDS * 2**attempt)
        self.written += 1

    def _give_up(self, pod: Pod, reason: str, note: str, why: str) -> None:
        self.lost += 1
        self._told.get(pod.uid, {}).pop((reason, note), None)
        self._log.limited("event-not-written", pod=f"{pod.namespace}/{pod.name}", reason=reason, why=why)


def _event(one: _Waiting, node: str) -> dict[str, object]:
    pod = one.pod
    reason = one.reason[:LONGEST_WORD]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": one.name, "namespace": pod.namespace},
        "eventTime": one.moment,
        "reportingController": REPORTER,
        "reportingInstance": node[:LONGEST_WORD],
        "action": reason,
        "reason": reason,
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
        },
        "note": _cut(one.note),
        "type": "Warning",
    }


def _cut(note: str) -> str:
    text = note.encode("utf-8", "replace")
    return text.decode() if len(text) <= LONGEST_NOTE else text[: LONGEST_NOTE - 3].decode(errors="ignore") + "..."
