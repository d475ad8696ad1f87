"""The two Secrets and every `caBundle`, kept as `certs.succession` says."""

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, cast

from noisegate.certs import succession
from noisegate.certs.pair import CertificateError, Pair, facts_of, read_certificates
from noisegate.certs.succession import Seen, Step, Wish
from noisegate.control import replicas
from noisegate.control.api import Api, Object
from noisegate.control.configurations import Configurations
from noisegate.control.events import Events
from noisegate.control.metrics import Metrics

AUTHORITY: Final = "noisegate-ca"
"""Secret of `ca.crt` and `ca.key`; nobody but the controller needs it."""
SERVING: Final = "noisegate-tls"
"""Secret of `tls.crt`, `tls.key` and `ca.crt`, mounted into the replicas."""
RENEW: Final = "noisegate.io/renew"
"""Annotation of the authority's Secret by which an operator asks for a renewal: `ca` or `leaf`."""
WISHES: Final = ("ca", "leaf")
MOST_STEPS: Final = 8
"""Steps of one look; a first installation takes three."""
TYPES: Final = {AUTHORITY: "Opaque", SERVING: "kubernetes.io/tls"}


class Certificates:
    """Keeps certificates.

    Args:
        api: The API server.
        namespace: Of the Secrets.
        service: Whose endpoints the replicas are.
        settings: How long things live, and for whom.
        settle: Seconds after which every API server has learnt of a `caBundle`, and calls under way have ended.
        events: Where it is told.
        metrics: Where it is counted.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        service: str,
        settings: succession.Settings,
        settle: float,
        events: Events,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._api: Final = api
        self._namespace: Final = namespace
        self._service: Final = service
        self._settings: Final = settings
        self._settle: Final = settle
        self._events: Final = events
        self._metrics: Final = metrics
        self._clock: Final = clock
        self._secrets: Final = f"/api/v1/namespaces/{namespace}/secrets"
        # Since when, for which authorities: what a leader has seen itself. Another one waits anew.
        self._known: tuple[bytes, float] | None = None
        self._switched: tuple[bytes, float] | None = None

    async def look(self, configurations: Configurations) -> list[str]:
        """Do what is to be done now; return what is wrong or waited for, a sentence each.

        Raises:
            ApiError: The API server does not answer, refuses, or somebody was faster (409): look again.
        """
        step, authority = Step(), None
        for _ in range(MOST_STEPS):
            authority = await self._api.get(f"{self._secrets}/{AUTHORITY}")
            serving = await self._api.get(f"{self._secrets}/{SERVING}")
            seen = await self._seen(authority, serving, configurations)
            step = succession.next_step(seen, datetime.now(UTC), self._settings)
            self._measure(seen)
            if not step.reason:
                break
            await self._do(step, authority, serving, configurations)
            await self._events.tell(step.reason, step.note, _secret(AUTHORITY if step.authority else SERVING))
        notes = [f"waiting for {step.waits}"] if step.waits else []
        wish = _wish(authority)
        if wish and wish not in WISHES:
            notes.append(f"annotation {RENEW} of Secret {AUTHORITY}: {wish} is not known; allowed: {', '.join(WISHES)}")
        return notes

    async def _seen(self, authority: Object | None, serving: Object | None, configurations: Configurations) -> Seen:
        pair = _pair(authority, "ca")
        certificates = b"" if pair is None else pair.certificates
        bundles = configurations.bundles()
        now = self._clock()
        if not certificates or any(bundle != certificates for bundle in bundles):
            self._known = None
        elif self._known is None or self._known[0] != certificates:
            self._known = certificates, now
        served: list[Any] = []
        if certificates.count(b"BEGIN CERTIFICATE") > 1:
            served = await replicas.served(self._api, self._namespace, self._service)
        if not succession.all_switched(pair, served):
            self._switched = None
        elif self._switched is None or self._switched[0] != certificates:
            self._switched = certificates, now
        wish = _wish(authority)
        return Seen(
            authority=pair,
            serving=_pair(serving, "tls"),
            beside=_data(serving).get("ca.crt", b""),
            bundles=bundles,
            known=self._known is not None and now - self._known[1] >= self._settle,
            served=served,
            switched=self._switched is not None and now - self._switched[1] >= self._settle,
            wish=cast("Wish", wish if wish in WISHES else ""),
        )

    async def _do(
        self, step: Step, authority: Object | None, serving: Object | None, configurations: Configurations
    ) -> None:
        if step.authority is not None:
            files = {"ca.crt": step.authority.certificates, "ca.key": step.authority.key}
            await self._write(AUTHORITY, authority, files, step.grants)
            self._metrics.writes.labels("authority").inc()
        if step.bundle is not None:
            await configurations.write_bundle(step.bundle)
        if step.beside is not None:
            pair = step.serving or _pair(serving, "tls")
            files = {"ca.crt": step.beside}
            if pair is not None:
                files |= {"tls.crt": pair.certificates, "tls.key": pair.key}
            await self._write(SERVING, serving, files)
            self._metrics.writes.labels("serving").inc()
            if step.grants and _wish(authority) == step.grants and authority is not None:
                await self._api.patch(f"{self._secrets}/{AUTHORITY}", authority, [_WISH_GRANTED])

    async def _write(self, name: str, there: Object | None, files: dict[str, bytes], grants: Wish = "") -> None:
        data = {file: base64.b64encode(content).decode() for file, content in files.items()}
        if there is None:
            labels = {"app.kubernetes.io/name": "noisegate"}
            value = {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": TYPES[name],
                "metadata": {"name": name, "labels": labels},
                "data": data,
            }
            await self._api.create(self._secrets, value)
            return
        operations: list[Object] = [{"op": "add", "path": "/data", "value": data}]
        if grants and _wish(there) == grants:
            operations.append(_WISH_GRANTED)
        await self._api.patch(f"{self._secrets}/{name}", there, operations)

    def _measure(self, seen: Seen) -> None:
        for what, pair in (("authority", seen.authority), ("serving", seen.serving)):
            try:
                found = [] if pair is None else read_certificates(pair.certificates, "")
            except CertificateError:
                found = []
            self._metrics.expiry.labels(what).set(facts_of(found[0]).not_after.timestamp() if found else 0)
            if what == "authority":
                self._metrics.trusted.set(len(found))


_WISH_GRANTED: Final[Object] = {"op": "remove", "path": f"/metadata/annotations/{RENEW.replace('/', '~1')}"}


def _wish(secret: Object | None) -> str:
    return str(((secret or {}).get("metadata", {}).get("annotations") or {}).get(RENEW, ""))


def _data(secret: Object | None) -> dict[str, bytes]:
    found = {}
    for file, text in ((secret or {}).get("data") or {}).items():
        try:
            found[file] = base64.b64decode(text, validate=True)
        except binascii.Error:
            continue
    return found


def _pair(secret: Object | None, stem: str) -> Pair | None:
    files = _data(secret)
    certificates = files.get(f"{stem}.crt")
    return None if certificates is None else Pair(certificates, files.get(f"{stem}.key", b""))


def _secret(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "name": name}
