"""What the node says of itself: labels that the scheduler looks at, and a condition that a person reads."""

import asyncio
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final, Literal, NamedTuple
from urllib.parse import quote

import msgspec

from noisegate.cluster.connection import MERGE_PATCH, STRATEGIC_MERGE_PATCH, ApiError, Connection
from noisegate.enforcement.rights import mended
from noisegate.isolation import keys
from noisegate.service.log import Log

CONDITION: Final = "NoisegateReady"
LOOK_SECONDS: Final = 30.0
"""Between two looks at what others made of it."""
FIRST_PAUSE: Final = 1.0
"""After a failure; doubled with each in a row, up to `LOOK_SECONDS`."""
LEAVE_SECONDS: Final = 5.0
"""For taking the labels away at the end: a DaemonSet's pod has 30 by default."""
LONGEST_MESSAGE: Final = 1024

Enforced = Literal["disk", "network", "rdt"]
KINDS: Final[tuple[Enforced, ...]] = ("disk", "network", "rdt")


class Standing(NamedTuple):
    """What an enforcer can hold on this node.

    Attributes:
        on: Kinds that its preflight passed.
        missing: Kinds that are wanted and not on: why, and what to do.
        waiting: Those of them that only wait for the runtime: their labels stay as they are.
    """

    on: AbstractSet[Enforced]
    missing: Mapping[Enforced, str] = {}
    waiting: AbstractSet[Enforced] = frozenset()


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """An entry of a node's `status.conditions`.

    Attributes:
        type: Its key.
        status: `True`, `False` or `Unknown`.
        reason: One CamelCase word.
        message: A sentence.
        last_heartbeat_time: When it was last written.
        last_transition_time: When its status last changed.
    """

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_heartbeat_time: str | None = None
    last_transition_time: str | None = None


class _Metadata(msgspec.Struct):
    labels: dict[str, str] = {}


class _Status(msgspec.Struct):
    conditions: list[Condition] = []


class _Node(msgspec.Struct):
    metadata: _Metadata
    status: _Status = msgspec.field(default_factory=_Status)


class _PodMetadata(msgspec.Struct, rename="camel"):
    uid: str
    deletion_timestamp: str | None = None


class _Pod(msgspec.Struct):
    metadata: _PodMetadata


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Node).decode
_decode_pod: Final = msgspec.json.Decoder(_Pod).decode

STOPPED: Final = Condition(
    CONDITION, "False", "Stopped", "the enforcer was stopped; pods that ask are not scheduled here"
)
RESTARTING: Final = Condition(
    CONDITION,
    "False",
    "Restarting",
    "the enforcer was stopped and its pod stays; pods that ask wait here until it is back",
)


class OwnPod(NamedTuple):
    """The pod that an enforcer runs in.

    Attributes:
        namespace: Its namespace.
        name: Its name.
        uid: Its uid.
    """

    namespace: str
    name: str
    uid: str


def labels(standing: Standing) -> dict[str, str | None]:
    """Return the labels of a node; None: it is not there. One that is to stay as it is is not told of."""
    told = (kind for kind in KINDS if kind in standing.on or kind not in standing.waiting)
    return {keys.ENFORCES + kind: "true" if kind in standing.on else None for kind in told}


def condition(standing: Standing) -> Condition:
    """Return the condition of a node: `True` where everything that is wanted is on, or a part of it."""
    on = ", ".join(kind for kind in KINDS if kind in standing.on)
    missing = "; ".join(f"{kind}: {standing.missing[kind]}" for kind in KINDS if kind in standing.missing)
    message = f"enforced: {on or 'nothing'}" + (f"; missing: {missing}" if missing else "")
    if len(message) > LONGEST_MESSAGE:
        message = message[: LONGEST_MESSAGE - 3] + "..."
    reason = "NotEnforcing" if not on else "PartlyEnforcing" if missing else "Enforcing"
    return Condition(CONDITION, "True" if on else "False", reason, message)


class Node:
    """Keeps the labels and the condition of one node. To be used in one event loop.

    Args:
        connection: To the API server.
        name: Of the node.
        log: Where failures are told.
        pod: That we run in; None: we run on the host itself.
        look: Seconds between two looks.

    Attributes:
        trouble: Why the node does not say what it should; empty when it does.
    """

    def __init__(
        self, connection: Connection, name: str, log: Log, pod: OwnPod | None = None, look: float = LOOK_SECONDS
    ) -> None:
        self.trouble = "not written yet"
        self._connection: Final = connection
        self._path: Final = f"/api/v1/nodes/{quote(name, safe='')}"
        self._log: Final = log
        self._pod: Final = pod
        self._look: Final = look
        self._labels: dict[str, str | None] | None = None
        self._condition: Condition | None = None
        self._changed: Final = asyncio.Event()

    def say(self, standing: Standing, *, settled: bool = True) -> None:
        """Have the node say this from now on. Returns at once; `follow` writes it.

        Args:
            standing: What it can hold.
            settled: Whether it is to be told; else the condition stays as it is, and only labels go that must.
        """
        wanted = labels(standing), condition(standing) if settled else self._condition
        if wanted != (self._labels, self._condition):
            self._labels, self._condition = wanted
            self._changed.set()

    async def follow(self) -> None:
        """Write what is to be said, and again when somebody else changed it, for ever."""
        pause = FIRST_PAUSE
        while True:
            self._changed.clear()
            if self._labels is not None:
                try:
                    await self.write()
                    pause = FIRST_PAUSE
                except (ApiError, msgspec.MsgspecError) as error:
                    self.trouble = mended(str(error))
                    self._log.limited("node-not-written", reason=self.trouble)
                    pause = min(self._look, pause * 2)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause if self.trouble else self._look):
                    await self._changed.wait()

    async def leave(self) -> None:
        """Say that the enforcer has stopped, and take the labels away if it leaves the node; when `follow` has ended.

        Where its pod stays, because the node reboots or its container is started again, the labels stay too: a kubelet that
        starts ends for good each pod that its node's labels do not select, those that ran before included (`Predicate
        NodeAffinity failed`, pkg/kubelet/lifecycle/predicate.go). The node's own labels are not looked at: a cache may not
        have them yet. What cannot be written in time is told in the log.
        """
        gone = labels(Standing(frozenset()))
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                if await self._stays():
                    await self._tell(RESTARTING, None)
                else:
                    await self._label(gone)
                    await self._tell(STOPPED, None)
        except (ApiError, msgspec.MsgspecError, TimeoutError) as error:
            reason = mended(str(error)) or f"no answer within {LEAVE_SECONDS:g} s"
            self._log.warning("node-not-written", reason=reason, labels=list(gone))

    async def _stays(self) -> bool:
        """Return whether our pod is to go on; one that is being deleted, or has gone, is not."""
        if self._pod is None:
            return False
        path = f"/api/v1/namespaces/{quote(self._pod.namespace, safe='')}/pods/{quote(self._pod.name, safe='')}"
        try:
            found = _decode_pod(await self._connection.get(path)).metadata
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return False
            raise
        return found.uid == self._pod.uid and found.deletion_timestamp is None

    async def write(self) -> None:
        """Look at the node, and write what differs; nothing where nothing does.

        Raises:
            ApiError: The API server does not answer, or refuses.
            MsgspecError: What it sent is no node.
        """
        # "0": from the API server's cache, without a question to etcd.
        node = _decode(await self._connection.get(self._path, resourceVersion="0"))
        there = node.metadata.labels
        differing = {key: value for key, value in (self._labels or {}).items() if there.get(key) != value}
        if differing:
            await self._label(differing)
        if self._condition is not None:
            found = next((one for one in node.status.conditions if one.type == CONDITION), None)
            await self._tell(self._condition, found)
        self.trouble = ""

    async def _label(self, changes: Mapping[str, str | None]) -> None:
        patch = {"metadata": {"labels": changes}}
        await self._connection.send("PATCH", self._path, _encode(patch), MERGE_PATCH)
        self._log.info("node-labels", **changes)

    async def _tell(self, wanted: Condition, found: Condition | None) -> None:
        if found is not None and _said(found) == _said(wanted):
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        since = now if found is None or found.status != wanted.status else found.last_transition_time or now
        written = msgspec.structs.replace(wanted, last_heartbeat_time=now, last_transition_time=since)
        # Conditions are merged by their type, so those of others stay, also when they change meanwhile.
        patch = {"status": {"conditions": [written]}}
        await self._connection.send("PATCH", f"{self._path}/status", _encode(patch), STRATEGIC_MERGE_PATCH)
        self._log.info("node-condition", status=wanted.status, reason=wanted.reason, message=wanted.message)


def _said(one: Condition) -> tuple[str, str, str]:
    return one.status, one.reason, one.message
