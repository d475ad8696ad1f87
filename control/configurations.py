"""The two webhook configurations as they are in the cluster, and the two fields of them that are ours to write."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Final

from noisegate.cluster.connection import ApiError
from noisegate.control.api import Api, Object
from noisegate.control.metrics import Metrics
from noisegate.webhook import registration
from noisegate.webhook.conditions import Condition

_BASE: Final = "/apis/admissionregistration.k8s.io/v1"
PATHS: Final = {
    registration.MUTATING: f"{_BASE}/mutatingwebhookconfigurations/{registration.NAME}",
    registration.VALIDATING: f"{_BASE}/validatingwebhookconfigurations/{registration.NAME}",
}
WIDER: Final = (registration.MUTATING, registration.VALIDATING)
"""In this order they are widened; what is validated must have been mutated. They are narrowed in the other."""
_INVALID: Final = 422


class Configurations:
    """Both configurations, as they were read last.

    Args:
        api: The API server.
        metrics: Where writes are counted.
    """

    def __init__(self, api: Api, metrics: Metrics) -> None:
        self._api: Final = api
        self._metrics: Final = metrics
        self._there: dict[str, Object] = {}

    async def read(self) -> list[str]:
        """Read both; return what is wrong, a sentence each.

        Raises:
            ApiError: The API server does not answer, or refuses.
        """
        self._there = {}
        wrong = []
        for kind, path in PATHS.items():
            value = await self._api.get(path)
            if value is None:
                wrong.append(f"there is no {kind} {registration.NAME}; apply deploy/base")
            else:
                self._there[kind] = value
        return wrong

    def bundles(self) -> list[bytes]:
        """Return the `caBundle` of every entry of both; of what is no base64, nothing."""
        found = []
        for value in self._there.values():
            for webhook in value.get("webhooks") or []:
                try:
                    found.append(base64.b64decode(webhook["clientConfig"].get("caBundle") or "", validate=True))
                except binascii.Error:
                    found.append(b"")
        return found

    async def write_bundle(self, bundle: bytes) -> None:
        """Give every entry a `caBundle`, and read both again.

        Raises:
            ApiError: As `read`; 409: somebody was faster.
        """
        text = base64.b64encode(bundle).decode()
        for kind, value in self._there.items():
            operations = [
                {"op": "add", "path": f"/webhooks/{place}/clientConfig/caBundle", "value": text}
                for place, webhook in enumerate(value.get("webhooks") or [])
                if webhook["clientConfig"].get("caBundle") != text
            ]
            if operations:
                await self._api.patch(PATHS[kind], value, operations)
                self._metrics.writes.labels("bundle").inc()
        await self.read()

    async def write_conditions(self, wishes: Mapping[str, Sequence[Condition]], *, widen: bool) -> list[str]:
        """Bring the conditions of our entries in step with the rules; return the names of the entries that changed.

        Args:
            wishes: Conditions by entry.
            widen: Whether what is sent now goes on being sent.

        Raises:
            ApiError: As `write_bundle`.
        """
        changed: list[str] = []
        for kind in WIDER if widen else reversed(WIDER):
            if kind in self._there:
                try:
                    changed += await self._write_conditions(kind, wishes, widen=widen)
                except ApiError as error:
                    if error.status != _INVALID or not widen:
                        raise
                    # Together they are more than the API server takes of an expression.
                    changed += await self._write_conditions(kind, wishes, widen=False)
        if changed:
            await self.read()
        return list(dict.fromkeys(changed))

    async def _write_conditions(
        self, kind: str, wishes: Mapping[str, Sequence[Condition]], *, widen: bool
    ) -> list[str]:
        value = self._there[kind]
        webhooks = value.get("webhooks") or []
        adjusted = registration.adjusted(webhooks, wishes, widen=widen)
        operations, names = [], []
        for place, (before, after) in enumerate(zip(webhooks, adjusted, strict=True)):
            if (before.get("matchConditions") or []) != (after.get("matchConditions") or []):
                wish = after["matchConditions"]
                operations.append({"op": "add", "path": f"/webhooks/{place}/matchConditions", "value": wish})
                names.append(str(before["name"]))
        if operations:
            await self._api.patch(PATHS[kind], value, operations)
            self._metrics.writes.labels("conditions").inc()
        return names

    def missing(self) -> list[str]:
        """Return which of our entries are not registered, a sentence for each configuration."""
        told = []
        for value, wanted in zip((self._there.get(kind) for kind in WIDER), registration.entry_names(), strict=True):
            there = {webhook["name"] for webhook in (value or {}).get("webhooks") or []}
            absent = [name for name in wanted if name not in there]
            if value is not None and absent:
                told.append(f"{value['kind']} {registration.NAME} lacks {', '.join(absent)}; apply deploy/base")
        return told
