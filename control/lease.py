"""Who leads: coordination.k8s.io/v1 Lease, held by renewing it.

A Lease elects, it does not fence: whoever believes to lead may be late, so every write has a precondition of its own.
How old a Lease is, is measured by our own clock since we saw it change; clocks of others are not trusted.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from noisegate.cluster.connection import ApiError
from noisegate.control.api import Api

MOST_FOREIGN: Final = 10
"""For so many times as long as our own Lease a foreign one is believed to hold, whatever it says: a mistake locks nobody out."""


class Lease:
    """One candidate's view of the Lease.

    Args:
        api: The API server.
        namespace: Of the Lease.
        name: Of the Lease.
        identity: Who we are; unique.
        seconds: For so long a Lease holds that is not renewed.
        clock: Seconds that never go back.
    """

    def __init__(
        self, api: Api, namespace: str, name: str, identity: str, seconds: float, clock: Callable[[], float]
    ) -> None:
        self._api: Final = api
        self._list: Final = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path: Final = f"{self._list}/{name}"
        self._name: Final = name
        self._identity: Final = identity
        self._seconds: Final = seconds
        self._clock: Final = clock
        self._seen = ""
        self._since = 0.0

    async def hold(self) -> bool:
        """Renew the Lease, or take it if nobody holds it; tell whether it is ours.

        Raises:
            ApiError: The API server does not answer, or refuses.
        """
        lease = await self._api.get(self._path)
        try:
            if lease is None:
                value = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self._name}}
                await self._api.create(self._list, {**value, "spec": self._spec({}, taken=True)})
                return True
            spec: dict[str, Any] = lease.get("spec") or {}
            holder = spec.get("holderIdentity") or ""
            version = lease["metadata"]["resourceVersion"]
            if version != self._seen:
                self._seen, self._since = version, self._clock()
            lasts = min(float(spec.get("leaseDurationSeconds") or self._seconds), MOST_FOREIGN * self._seconds)
            if holder not in {"", self._identity} and self._clock() - self._since < lasts:
                return False
            await self._write(lease, self._spec(spec, taken=holder != self._identity))
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        return True

    async def release(self) -> None:
        """Let go of the Lease if it is ours, so that another need not wait.

        Raises:
            ApiError: As `hold`.
        """
        lease = await self._api.get(self._path)
        spec = (lease or {}).get("spec") or {}
        if lease is not None and spec.get("holderIdentity") == self._identity:
            await self._write(lease, {**spec, "holderIdentity": "", "leaseDurationSeconds": 1})

    async def _write(self, lease: dict[str, Any], spec: dict[str, Any]) -> None:
        await self._api.patch(self._path, lease, [{"op": "add", "path": "/spec", "value": spec}])

    def _spec(self, spec: dict[str, Any], *, taken: bool) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        changed = {"acquireTime": now, "leaseTransitions": spec.get("leaseTransitions", -1) + 1} if taken else {}
        return {
            **spec,
            **changed,
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._seconds)),
            "renewTime": now,
        }
