"""Everything of one kind that an API server has, kept up to date by list and watch; of each object only what is read.

How it is done: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

import msgspec

from noisegate.cluster.connection import ApiError, Connection

PAGE: Final = 500
"""Objects of one page of a list; client-go's default."""
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts; doubled with each failure in a row, and shortened by up to a half at random."""
GOOD_SECONDS: Final = 5.0
"""A watch that lasted so long was a good one."""
ABSENT_SECONDS: Final = 30.0
"""Between two questions for a kind that the cluster does not have."""
FAILURES_BEFORE_RELIST: Final = 4
"""An API server that was restored from a backup knows no such version, and says so with a time-out."""

Entry = TypeVar("Entry")
T = TypeVar("T")
Result = Literal["listed", "gone", "failed"]


class Meta(msgspec.Struct, rename="camel"):
    """`metadata` of an object, as far as it is needed to tell objects apart."""

    name: str = ""
    namespace: str = ""
    annotations: dict[str, str] = {}
    resource_version: str = ""


def key_of(metadata: Meta) -> str:
    """Return the key of an object."""
    return f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name


def _covers(known: str, version: str) -> bool:
    """Tell whether whoever knows everything up to one resourceVersion knows what was so at another.

    They are compared as numbers (KEP-5504; etcd's have always been); of those that are none, nothing is known.
    """
    return known.isdecimal() and version.isdecimal() and int(version) <= int(known)


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct, Generic[T]):
    metadata: _ListMeta
    items: list[T] = []


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Failure(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Bookmark(msgspec.Struct):
    metadata: Meta


class Kind(NamedTuple, Generic[Entry]):
    """What is followed, and what is kept of it.

    Attributes:
        name: Plural, for messages.
        path: Of the list over all namespaces.
        object: Struct of what is decoded; has `metadata: Meta`.
        entry: Makes what is kept.
        params: Of every list and watch, such as a `fieldSelector`.
        key: What an object is found by, made from its `metadata`.
    """

    name: str
    path: str
    object: type[Any]
    entry: Callable[[Any], Entry]
    params: Mapping[str, str] = {}
    key: Callable[[Any], str] = key_of


class Reflector(Generic[Entry]):
    """Follows one kind.

    Args:
        kind: What is followed.
        connection: To the API server.
        changed: Called after `objects` has changed.
        noted: Called with what came of a list or a watch, and why it failed.
        pause: Waits for some seconds; to be replaced by tests that cannot wait.
        clock: Seconds that never go back.

    Attributes:
        objects: What is there, by the kind's key: `namespace/name`, or the name where there are no namespaces.
        filled: Whether the first list is complete.
        trouble: Why it is not up to date; empty when it is.
        heard: When the API server last told something, in seconds since the epoch.
    """

    def __init__(
        self,
        kind: Kind[Entry],
        connection: Connection,
        changed: Callable[[], None],
        noted: Callable[[Result, str], None] = lambda _result, _reason: None,
        pause: Callable[[float], Any] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kind: Final = kind
        self.objects: dict[str, Entry] = {}
        self.filled = False
        self.trouble = "not listed yet"
        self.heard = 0.0
        self._connection: Final = connection
        self._changed: Final = changed
        self._noted: Final = noted
        self._pause: Final = pause
        self._clock: Final = clock
        self._version = ""
        self._watching: float | None = None
        self._decode_list: Final = msgspec.json.Decoder(_List[kind.object]).decode  # type: ignore[name-defined]
        self._decode_object: Final = msgspec.json.Decoder(kind.object).decode

    async def follow(self) -> None:
        """Keep `objects` up to date, for ever."""
        failures = 0
        while True:
            self._watching = None
            try:
                if not self._version:
                    await self.list()
                await self._watch()
                # One that ends at once is no watch: a proxy may do so.
                failures = 0 if self._was_good() else failures + 1
            except ApiError as error:
                if error.status == 404 and not self._version:
                    self._replace({})
                    self.trouble = ""
                    await self._pause(ABSENT_SECONDS)
                    continue
                failures = 1 if self._was_good() else failures + 1
                if error.status == 410:
                    self._version = ""
                    self._noted("gone", error.told)
                    if failures == 1:
                        continue
                else:
                    self.trouble = str(error)
                    self._noted("failed", str(error))
                    if failures >= FAILURES_BEFORE_RELIST:
                        self._version = ""
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                failures += 1
                self._version = ""
                self.trouble = f"what the API server sent cannot be read: {error}"
                self._noted("failed", self.trouble)
            if failures:
                longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 10))
                await self._pause(longest * random.uniform(0.5, 1.0))  # noqa: S311  (clients must not come all at once)

    async def list(self) -> None:
        """Take everything that is there, page by page, and put it in force at once.

        Raises:
            ApiError: A page did not come.
        """
        found: dict[str, Entry] = {}
        more = ""
        while True:
            page = {**self.kind.params, "limit": str(PAGE), **({"continue": more} if more else {})}
            listed = self._decode_list(await self._connection.get(self.kind.path, **page))
            for value in listed.items:
                found[self.kind.key(value.metadata)] = self.kind.entry(value)
            more = listed.metadata.continue_
            if not more:
                break
            # Whoever else runs in this loop must not wait for the whole list.
            await asyncio.sleep(0)
        self._replace(found)
        self._version = listed.metadata.resource_version
        self.trouble = ""
        self._noted("listed", "")

    def learn(self, value: Any) -> None:
        """Take an object that somebody asked for by name, unless what is known is newer; what the watch tells later counts."""
        if not _covers(self._version, value.metadata.resource_version):
            self._put(self.kind.key(value.metadata), self.kind.entry(value))

    def hear(self, line: bytes) -> None:
        """Take an event of the watch.

        Raises:
            ApiError: It tells of an error.
            MsgspecError: It is none.
        """
        event = _decode_event(line)
        if event.type == "ERROR":
            failure = _decode_failure(event.object)
            raise ApiError(failure.code, failure.message)
        if event.type == "BOOKMARK":
            self._version = _decode_bookmark(event.object).metadata.resource_version
        else:
            value = self._decode_object(event.object)
            key = self.kind.key(value.metadata)
            if event.type == "DELETED":
                if self.objects.pop(key, None) is not None:
                    self._changed()
            else:
                self._put(key, self.kind.entry(value))
            self._version = value.metadata.resource_version
        self.heard = time.time()

    async def _watch(self) -> None:
        lasts = str(random.randint(300, 600))  # noqa: S311  (as client-go: watches must not all end at once)
        params = {"resourceVersion": self._version, "allowWatchBookmarks": "true", "timeoutSeconds": lasts}
        lines = self._connection.watch(self.kind.path, **self.kind.params, **params)
        async for line in lines:
            if self._watching is None:
                self._watching = self._clock()
            self.trouble = ""
            if line:
                self.hear(line)

    def _was_good(self) -> bool:
        """Tell whether the watch that has ended was a good one; how long a list or a connection took does not count."""
        return self._watching is not None and self._clock() - self._watching > GOOD_SECONDS

    def _put(self, key: str, entry: Entry) -> None:
        if self.objects.get(key) != entry:
            self.objects[key] = entry
            self._changed()

    def _replace(self, found: dict[str, Entry]) -> None:
        news = found != self.objects or not self.filled
        self.filled = True
        self.heard = time.time()
        if news:
            self.objects = found
            self._changed()


_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_failure: Final = msgspec.json.Decoder(_Failure).decode
_decode_bookmark: Final = msgspec.json.Decoder(_Bookmark).decode
