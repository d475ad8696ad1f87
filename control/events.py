"""Events (events.k8s.io/v1) in our namespace: what an operator sees with `kubectl get events`."""

import secrets
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from noisegate.cluster.connection import ApiError
from noisegate.control.api import Api, Object
from noisegate.service.log import Log

REPORTER: Final = "noisegate-controller"
LONGEST_NOTE: Final = 1024
"""Bytes that the API server takes of a note."""
AGAIN_SECONDS: Final = 600.0
"""The same is not told again within this time."""
MOST_UNSENT: Final = 100
"""Events kept until the API server takes them; the oldest give way."""
_PASSING: Final = frozenset({0, 401, 403, 429})
"""Statuses, besides those from 500 on, after which it is tried again; 0: there was no answer."""


class Events:
    """Tells events, to the log too. What cannot be written now is kept for the next look: the work goes on.

    Args:
        api: The API server.
        namespace: Where the events are.
        identity: Which replica tells them.
        log: Where they are told too.
        clock: Seconds that never go back.
    """

    def __init__(self, api: Api, namespace: str, identity: str, log: Log, clock: Callable[[], float]) -> None:
        self._api: Final = api
        self._namespace: Final = namespace
        self._identity: Final = identity
        self._log: Final = log
        self._clock: Final = clock
        self._told: Final[dict[tuple[str, str], float]] = {}
        self._unsent: Final[deque[Object]] = deque(maxlen=MOST_UNSENT)
        self._trouble = ""

    async def tell(self, reason: str, note: str, about: Object, *, warning: bool = False) -> None:
        """Tell something.

        Args:
            reason: One CamelCase word.
            note: A sentence.
            about: `apiVersion`, `kind` and `name` of an object of our namespace.
            warning: Whether somebody should do something about it.
        """
        now = self._clock()
        for key in [key for key, when in self._told.items() if now - when > AGAIN_SECONDS]:
            del self._told[key]
        if (reason, note) in self._told:
            return
        self._told[reason, note] = now
        (self._log.warning if warning else self._log.info)("event", reason=reason, note=note)
        self._unsent.append(
            {
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                # Made once: what was written though its answer was lost is there already when it is tried again.
                "metadata": {"name": f"{REPORTER}.{secrets.token_hex(8)}", "namespace": self._namespace},
                "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "reportingController": REPORTER,
                "reportingInstance": self._identity[:128],
                "action": reason,
                "reason": reason,
                "regarding": {**about, "namespace": self._namespace},
                "note": note.encode()[:LONGEST_NOTE].decode(errors="ignore"),
                "type": "Warning" if warning else "Normal",
            }
        )
        await self.send()

    async def send(self) -> None:
        """Write what could not be written before."""
        while self._unsent:
            try:
                await self._api.create(f"/apis/events.k8s.io/v1/namespaces/{self._namespace}/events", self._unsent[0])
            except ApiError as error:
                if str(error) != self._trouble and error.status != 409:
                    self._log.warning("event-not-written", reason=str(error))
                    self._trouble = str(error)
                if error.status in _PASSING or error.status >= 500:
                    return
            self._unsent.popleft()
        self._trouble = ""
