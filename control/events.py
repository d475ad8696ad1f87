"""Events (events.k8s.io/v1) in our namespace: what an operator sees with `kubectl get events`."""

import secrets
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


class Events:
    """Tells events, to the log too. What cannot be written is given up: the work goes on.

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
        value = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
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
        try:
            await self._api.create(f"/apis/events.k8s.io/v1/namespaces/{self._namespace}/events", value)
        except ApiError as error:
            self._log.warning("event-not-written", reason=str(error))
