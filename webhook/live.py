"""The catalogue as the cluster has it at the moment: list and watch of what the checks look up.

No call waits for the API server, but one: that which names an object that is not there yet, which may have been made a
moment before its pod. It is asked for by name, once, with a time limit.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

import msgspec

from noisegate.cluster.connection import ApiError, Connection
from noisegate.cluster.reflector import Kind, Meta, Reflector, Result
from noisegate.isolation import asked, keys, kuryr, nad
from noisegate.isolation.catalogue import Claim, Network, StorageClass
from noisegate.isolation.problems import Findings
from noisegate.service.log import Log
from noisegate.webhook import inventory, objects, review
from noisegate.webhook.metrics import Metrics
from noisegate.webhook.settings import LiveKind

MISSING_SECONDS: Final = 1.0
"""For so long what is missing is not asked for again: a controller tries a refused pod again and again."""
MOST_MISSING: Final = 1000
"""Names remembered as missing."""
MOST_AT_ONCE: Final = 8
"""Questions on their way."""
ROLE: Final = "noisegate-webhook"
"""ClusterRole of deploy/ that has the rights."""

Lookup = Literal["found", "missing", "failed"]
_MARKS: Final = tuple(key.encode() for key in (keys.NETWORKS, keys.DEFAULT_NETWORK, keys.DISK))
_NETWORK_KEYS: Final = (nad.RESOURCE_NAME, nad.NODE_SELECTOR, kuryr.CONFIG_KEY)


class _NetworkSpec(msgspec.Struct):
    config: Any = ""


class _Network(msgspec.Struct):
    metadata: Meta
    spec: _NetworkSpec = msgspec.field(default_factory=_NetworkSpec)


class _ClaimSpec(msgspec.Struct, rename="camel"):
    storage_class_name: str | None = ""


class _Claim(msgspec.Struct):
    metadata: Meta
    spec: _ClaimSpec = msgspec.field(default_factory=_ClaimSpec)


class _StorageClass(msgspec.Struct):
    metadata: Meta
    provisioner: str = ""


def _network(value: _Network) -> Network:
    given = value.metadata.annotations
    config = value.spec.config
    # A definition without a schema holds any JSON there.
    text = config if isinstance(config, str) else msgspec.json.encode(config).decode()
    return Network({key: given[key] for key in _NETWORK_KEYS if key in given}, text)


@lru_cache(maxsize=1024)
def _claim_of(storage_class: str) -> Claim:
    """Return one claim for all of a class: thousands of them say nothing else."""
    return Claim(storage_class)


def _claim(value: _Claim) -> Claim:
    return _claim_of(value.spec.storage_class_name or "")


def _storage_class(value: _StorageClass) -> StorageClass:
    given = value.metadata.annotations
    return StorageClass(value.provisioner, any(given.get(key) == "true" for key in inventory.DEFAULT_CLASS))


KINDS: Final[Mapping[LiveKind, Kind[Any]]] = {
    "networks": Kind(
        "network-attachment-definitions", "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions", _Network, _network
    ),
    "claims": Kind("persistentvolumeclaims", "/api/v1/persistentvolumeclaims", _Claim, _claim),
    "storageClasses": Kind("storageclasses", "/apis/storage.k8s.io/v1/storageclasses", _StorageClass, _storage_class),
}


class _Wanted(NamedTuple):
    kind: LiveKind
    namespace: str
    name: str


class Live:
    """Follows the kinds that the settings name, and looks up what is not there yet.

    Args:
        kinds: What is followed.
        connection: To the API server.
        publish: Takes a kind and everything of it, each time that has changed.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        kinds: tuple[LiveKind, ...],
        connection: Connection,
        publish: Callable[[LiveKind, Mapping[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection: Final = connection
        self._publish: Final = publish
        self._clock: Final = clock
        self._metrics: Metrics | None = None
        self._log: Log | None = None
        self._gate: Final = asyncio.Semaphore(MOST_AT_ONCE)
        self._asking: Final[dict[_Wanted, asyncio.Task[None]]] = {}
        self._missing: Final[dict[_Wanted, float]] = {}
        self._decoders: Final = {kind: msgspec.json.Decoder(KINDS[kind].object).decode for kind in kinds}
        self._reflectors: Final[dict[LiveKind, Reflector[Any]]] = {
            kind: Reflector(KINDS[kind], connection, self._told(kind), self._noting(kind)) for kind in kinds
        }

    async def follow(self, metrics: Metrics, log: Log) -> None:
        """Keep the catalogue up to date, for ever."""
        self._metrics, self._log = metrics, log
        metrics.follow(self._reflectors)
        try:
            async with asyncio.TaskGroup() as tasks:
                for reflector in self._reflectors.values():
                    tasks.create_task(reflector.follow())
        finally:
            for task in self._asking.values():
                task.cancel()
            await self._connection.close()

    def reasons(self) -> list[str]:
        """Return why nothing can be decided yet, a sentence for each kind whose first list is not complete."""
        return [
            f"waiting for the first list of {reflector.kind.name}: {_plain(reflector.trouble)}"
            for reflector in self._reflectors.values()
            if not reflector.filled
        ]

    def notes(self) -> list[str]:
        """Return which kinds are known from earlier only, and why."""
        return [
            f"{reflector.kind.name} as of {time.strftime('%H:%M:%S', time.gmtime(reflector.heard))} UTC: "
            f"{_plain(reflector.trouble)}"
            for reflector in self._reflectors.values()
            if reflector.filled and reflector.trouble
        ]

    def prefetch(self, body: bytes) -> Awaitable[None] | None:
        """Return what to wait for before a review is decided; None: everything it names is known."""
        for mark in _MARKS:
            if mark in body:
                break
        else:
            return None
        now = self._clock()
        wanted = [one for one in self._named(body) if self._missing.get(one, now) <= now]
        return self._look_up(wanted) if wanted else None

    def _named(self, body: bytes) -> Iterator[_Wanted]:
        """Yield the objects that a new pod names and that are not there."""
        try:
            request, _ = review.read(body)
        except review.BrokenRequestError:
            return
        pod = request.object
        if not isinstance(pod, objects.Pod) or request.operation != "CREATE":
            return
        annotations = pod.metadata.annotations
        networks, claims = self._reflectors.get("networks"), self._reflectors.get("claims")
        asks = asked.read(annotations, Findings())
        if networks is not None:
            for selection in asks.networks:
                namespace = selection.namespace or request.namespace
                if f"{namespace}/{selection.name}" not in networks.objects:
                    yield _Wanted("networks", namespace, selection.name)
        if claims is not None and asks.disk is not None:
            for volume in pod.spec.volumes:
                name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
                if isinstance(name, str) and f"{request.namespace}/{name}" not in claims.objects:
                    yield _Wanted("claims", request.namespace, name)

    async def _look_up(self, wanted: list[_Wanted]) -> None:
        tasks = []
        for one in dict.fromkeys(wanted):
            task = self._asking.get(one)
            if task is None:
                task = self._asking[one] = asyncio.get_running_loop().create_task(self._ask(one))
            tasks.append(task)
        # Whoever gives up leaves the question to the others who wait for it.
        await asyncio.shield(asyncio.gather(*tasks))

    async def _ask(self, wanted: _Wanted) -> None:
        kind, namespace, name = wanted
        reflector = self._reflectors[kind]
        base, _, plural = reflector.kind.path.rpartition("/")
        result: Lookup = "found"
        try:
            async with self._gate:
                body = await self._connection.get(
                    f"{base}/namespaces/{quote(namespace, safe='')}/{plural}/{quote(name, safe='')}"
                )
            reflector.learn(self._decoders[kind](body))
        except (ApiError, msgspec.MsgspecError) as error:
            result = "missing" if isinstance(error, ApiError) and error.status == 404 else "failed"
            if len(self._missing) >= MOST_MISSING:
                self._missing.clear()
            self._missing[wanted] = self._clock() + MISSING_SECONDS
            if result == "failed" and self._log is not None:
                self._log.limited("lookup-failed", what=plural, name=f"{namespace}/{name}", reason=_plain(str(error)))
        finally:
            del self._asking[wanted]
        if self._metrics is not None:
            self._metrics.lookups[kind, result]()

    def _told(self, kind: LiveKind) -> Callable[[], None]:
        def publish() -> None:
            found = self._reflectors[kind].objects
            self._publish(kind, found)
            if self._metrics is not None:
                self._metrics.catalogue_objects.labels(kind).set(len(found))

        return publish

    def _noting(self, kind: LiveKind) -> Callable[[Result, str], None]:
        def note(result: Result, reason: str) -> None:
            if self._metrics is not None:
                self._metrics.catalogue_updates.labels(kind, result).inc()
            if self._log is not None:
                if result == "failed":
                    self._log.limited("catalogue", what=KINDS[kind].name, result=result, reason=_plain(reason))
                else:
                    self._log.info("catalogue", what=KINDS[kind].name, result=result)

        return note


def _plain(trouble: str) -> str:
    """Say what to do about it, where that is known."""
    forbidden = trouble.endswith("(403)") or "forbidden:" in trouble
    return f"{trouble}; bind the ClusterRole {ROLE} to noisegate's ServiceAccount" if forbidden else trouble
