"""Following one kind: what is there equals what the API server has, whatever happens on the way."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisegate.cluster.connection import ApiError, Connection
from noisegate.cluster.reflector import ABSENT_SECONDS, Kind, Meta, Reflector


class Thing(msgspec.Struct):
    metadata: Meta
    value: int = 0


KIND: Final = Kind("things", "/api/v1/things", Thing, lambda thing: int(thing.value))


class EndedError(Exception):
    """The script is over."""


class Scripted(Connection):
    """An API server that does what a test wrote down: connections fail in ways that a real one cannot be made to."""

    def __init__(self, *steps: Any) -> None:
        super().__init__("https://nowhere", Path())
        self.steps: Final = list(steps)
        self.asked: Final[list[dict[str, str]]] = []

    async def get(self, path: str, **params: str) -> bytes:
        """Return the next list."""
        assert path == KIND.path
        self.asked.append({"list": params.get("continue", "")})
        return bytes(self._next())

    async def watch(self, path: str, **params: str) -> AsyncIterator[bytes]:
        """Yield the next watch."""
        assert path == KIND.path
        self.asked.append({"watch": params["resourceVersion"]})
        for line in self._next():
            if isinstance(line, Exception):
                raise line
            yield line

    def _next(self) -> Any:
        if not self.steps:
            raise EndedError
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


def thing(name: str, value: int = 0, version: int = 1) -> dict[str, Any]:
    """Return an object."""
    return {"metadata": {"name": name, "namespace": "n", "resourceVersion": str(version)}, "value": value}


def listed(*things: dict[str, Any], version: int = 1, more: str = "") -> bytes:
    """Return a page."""
    return json.dumps({"metadata": {"resourceVersion": str(version), "continue": more}, "items": things}).encode()


def event(kind: str, value: dict[str, Any]) -> bytes:
    """Return a line of a watch."""
    return json.dumps({"type": kind, "object": value}).encode()


GONE: Final = event("ERROR", {"code": 410, "message": "too old"})


class Run:
    """A reflector and what it told."""

    def __init__(self, *steps: Any) -> None:
        self.connection = Scripted(*steps)
        self.now = 0.0
        self.changes: list[dict[str, int]] = []
        self.notes: list[str] = []
        self.pauses: list[float] = []
        self.troubles: list[str] = []

        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)
            self.troubles.append(self.reflector.trouble)

        self.reflector = Reflector[int](
            KIND,
            self.connection,
            lambda: self.changes.append(dict(self.reflector.objects)),
            lambda result, _reason: self.notes.append(result),
            pause,
            lambda: self.now,
        )

    def end(self) -> "Run":
        """Follow to the end of the script."""
        with pytest.raises(EndedError):
            asyncio.run(self.reflector.follow())
        return self


def test_pages_are_put_in_force_together() -> None:
    """Nobody sees half a list."""
    run = Run(listed(thing("a", 1), more="x"), listed(thing("b", 2), version=7)).end()
    assert run.changes == [{"n/a": 1, "n/b": 2}]
    assert run.connection.asked == [{"list": ""}, {"list": "x"}, {"watch": "7"}]
    assert run.reflector.filled


def test_events_and_bookmarks() -> None:
    """What comes, changes and goes; a bookmark moves the version; what does not differ is no change."""
    run = Run(
        listed(thing("a", 1), version=5),
        [
            b"",
            event("ADDED", thing("b", 2, 6)),
            event("MODIFIED", thing("b", 2, 7)),
            event("MODIFIED", thing("a", 3, 8)),
            event("DELETED", thing("b", 2, 9)),
            event("DELETED", thing("never", 2, 10)),
            event("BOOKMARK", thing("", 0, 20)),
        ],
    ).end()
    assert run.changes == [{"n/a": 1}, {"n/a": 1, "n/b": 2}, {"n/a": 3, "n/b": 2}, {"n/a": 3}]
    assert run.connection.asked[-1] == {"watch": "20"}
    assert run.reflector.heard > 0


@pytest.mark.parametrize("gone", [[GONE], ApiError(410, "too old")], ids=["event", "status"])
def test_a_version_that_is_too_old_is_a_new_list(gone: Any) -> None:
    """At once; what vanished meanwhile is gone."""
    run = Run(listed(thing("a"), thing("b")), gone, listed(thing("b"), version=3)).end()
    assert run.changes[-1] == {"n/b": 0}
    assert run.notes == ["listed", "gone", "listed"]
    assert run.pauses == []
    assert run.connection.asked[-1] == {"watch": "3"}


def test_a_list_that_says_the_same_is_no_change() -> None:
    """Nothing is published."""
    run = Run(listed(thing("a")), [GONE], listed(thing("a"), version=3)).end()
    assert len(run.changes) == 1


def test_failures_are_told_and_tried_again_ever_more_slowly() -> None:
    """The version stays; after some failures in a row everything is listed anew."""
    away = ApiError(0, "does not answer")
    run = Run(listed(thing("a"), version=4), away, away, away, away, listed(thing("a"), version=1), [b""]).end()
    assert run.troubles[:4] == ["does not answer"] * 4
    assert [1.0 >= seconds / (0.2 * 2**turn) >= 0.5 for turn, seconds in enumerate(run.pauses[:4])] == [True] * 4
    assert run.connection.asked == [{"list": ""}, *[{"watch": "4"}] * 4, {"list": ""}, {"watch": "1"}, {"watch": "1"}]
    assert run.reflector.trouble == ""
    assert run.notes == ["listed", *["failed"] * 4, "listed"]


def test_pauses_have_an_end() -> None:
    """However long it lasts."""
    run = Run(*[ApiError(0, "away")] * 30).end()
    assert max(run.pauses) <= 30.0
    assert not run.reflector.filled


@pytest.mark.parametrize("step", ["list", "watch"])
def test_failing_slowly_is_failing(step: str) -> None:
    """However long a list or the beginning of a watch takes to fail, the pauses grow."""
    run = Run()

    class Slow(Scripted):
        def _next(self) -> Any:
            if step == "list" or self.asked[-1].get("watch"):
                run.now += 60.0
            return super()._next()

    failures = [ApiError(0, "away")] * 3
    run.reflector._connection = Slow(*(failures if step == "list" else [listed(), *failures]))  # type: ignore[misc]
    run.end()
    assert [1.0 >= seconds / (0.2 * 2**turn) >= 0.5 for turn, seconds in enumerate(run.pauses)] == [True] * 3


@pytest.mark.parametrize(("lasts", "pauses"), [(60.0, 0), (1.0, 1)])
def test_a_watch_that_lasts_is_no_failure(lasts: float, pauses: int) -> None:
    """Nothing is waited for after it, however many there were."""
    run = Run()

    class Lasting(Scripted):
        async def watch(self, path: str, **params: str) -> AsyncIterator[bytes]:
            async for line in super().watch(path, **params):
                yield line
                run.now += lasts

    run.reflector._connection = Lasting(listed(), [b""])  # type: ignore[misc]
    run.end()
    assert len(run.pauses) == pauses


def test_a_kind_that_is_not_there_is_empty_and_asked_for_again() -> None:
    """404 on the list: there is none, and that is known."""
    run = Run(ApiError(404, "no such kind"), listed(thing("a"))).end()
    assert run.changes == [{}, {"n/a": 0}]
    assert run.pauses == [ABSENT_SECONDS]
    assert run.troubles == [""]


@pytest.mark.parametrize("line", [b"{", b'{"type": "ADDED"}', b'\xff{"type": 1}', event("ADDED", {"metadata": 5})])
def test_garbage_is_a_new_list(line: bytes) -> None:
    """What cannot be read may have hidden anything."""
    run = Run(listed(thing("a")), [line], listed(thing("a"), version=3)).end()
    assert run.troubles[0].startswith("what the API server sent cannot be read: ")
    assert run.connection.asked[-1] == {"watch": "3"}


def test_a_watch_that_ends_at_once_is_not_asked_for_in_a_hurry() -> None:
    """A proxy may end each watch at once."""
    run = Run(listed(), *[[b""]] * 5).end()
    assert len(run.pauses) == 5


def test_what_was_asked_for_by_name_is_there_until_the_watch_knows_better() -> None:
    """It is published once; the watch's own event changes nothing."""
    run = Run()
    run.reflector.learn(Thing(Meta("a", "n"), 4))
    run.reflector.learn(Thing(Meta("a", "n"), 4))
    run.reflector.hear(event("ADDED", thing("a", 4)))
    assert run.changes == [{"n/a": 4}]
    run.reflector.hear(event("DELETED", thing("a", 4)))
    assert run.reflector.objects == {}


@pytest.mark.parametrize(
    ("version", "there"),
    [("9", {"n/b": 0}), ("10", {"n/b": 0}), ("11", {"n/a": 4, "n/b": 0}), ("x", {"n/a": 4, "n/b": 0})],
)
def test_an_answer_that_comes_late_is_not_taken(version: str, there: dict[str, int]) -> None:
    """What was deleted since stays so; versions that are no numbers cannot be compared, and count as new."""
    run = Run(listed(thing("a", 1), thing("b"), version=5), [b"", event("DELETED", thing("a", 4, 10))]).end()
    run.reflector.learn(Thing(Meta("a", "n", resource_version=version), 4))
    assert run.reflector.objects == there


def test_objects_without_a_namespace() -> None:
    """Their key is their name."""
    run = Run()
    run.reflector.learn(Thing(Meta("a")))
    assert run.reflector.objects == {"a": 0}


def test_a_part_of_a_kind_under_a_key_of_its_own() -> None:
    """The kind's parameters go with every page and every watch; what is kept is found by the kind's key."""
    asked: list[dict[str, str]] = []

    class Selecting(Scripted):
        async def get(self, path: str, **params: str) -> bytes:
            asked.append(params)
            return await super().get(path, **params)

        async def watch(self, path: str, **params: str) -> AsyncIterator[bytes]:
            asked.append(params)
            async for line in super().watch(path, **params):
                yield line

    server = Selecting(listed(thing("a"), more="x"), listed(thing("b")), [event("DELETED", thing("a"))])
    kind = KIND._replace(params={"fieldSelector": "spec.nodeName=n1"}, key=lambda metadata: f"of {metadata.name}")
    reflector = Reflector[int](kind, server, lambda: None)
    with pytest.raises(EndedError):
        asyncio.run(reflector.follow())
    assert [params["fieldSelector"] for params in asked] == ["spec.nodeName=n1"] * 4
    assert [params.get("continue") for params in asked] == [None, "x", None, None]
    assert reflector.objects == {"of b": 0}


STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(0, 2)),
        st.tuples(st.just("drop"), st.sampled_from("abc")),
        st.tuples(st.just("bookmark")),
        st.tuples(st.just("break")),
        st.tuples(st.just("gone")),
        st.tuples(st.just("twice")),
        st.tuples(st.just("late"), st.sampled_from("abc"), st.sampled_from(["put", "drop"])),
    ),
    max_size=25,
)


class Model(Scripted):
    """An API server with a history: it replays what a watch missed, and forgets it when it is told to."""

    def __init__(self, steps: Sequence[tuple[Any, ...]], learn: Callable[[Thing], None]) -> None:
        super().__init__(*steps)
        self.learn: Final = learn
        self.there: Final[dict[str, tuple[int, int]]] = {}
        self.history: list[tuple[int, bytes]] = []
        self.version = 1

    async def get(self, path: str, **params: str) -> bytes:
        """Return everything that is there."""
        del path, params
        things = (thing(name, value, version) for name, (value, version) in self.there.items())
        return listed(*things, version=self.version)

    async def watch(self, path: str, **params: str) -> AsyncIterator[bytes]:
        """Replay, then do what is written down next."""
        del path
        yield b""
        since = int(params["resourceVersion"])
        for version, line in list(self.history):
            if version > since:
                yield line
        while True:
            kind, *rest = self._next()
            if kind in {"put", "drop"}:
                if self.change(kind, *rest):
                    yield self.history[-1][1]
            elif kind == "bookmark":
                self.version += 1
                yield event("BOOKMARK", thing("", 0, self.version))
            elif kind == "twice" and self.history:
                yield self.history[-1][1]
            elif kind == "late" and rest[0] in self.there:
                # Somebody asks for it; it changes and the watch tells so; then comes the answer.
                name, change = rest
                value, version = self.there[name]
                self.change(change, name, value + 1)
                yield self.history[-1][1]
                self.learn(Thing(Meta(name, "n", resource_version=str(version)), value))
            elif kind == "break":
                raise ApiError(0, "away")
            elif kind == "gone":
                # This happens while nobody watches, and is in no history.
                self.change("put", "a", 2)
                self.change("drop", "b")
                self.history.clear()
                yield GONE

    def change(self, kind: str, name: str, value: int = 0) -> bool:
        """Change what is there; tell whether there was anything to change."""
        known = name in self.there
        if kind == "drop" and not known:
            return False
        self.version += 1
        if kind == "drop":
            del self.there[name]
        else:
            self.there[name] = value, self.version
        what = "DELETED" if kind == "drop" else "MODIFIED" if known else "ADDED"
        self.history.append((self.version, event(what, thing(name, value, self.version))))
        return True


@given(STEPS)
def test_in_the_end_it_has_what_the_api_server_has(steps: Sequence[tuple[Any, ...]]) -> None:
    """After any sequence of changes, seen or missed, broken off, repeated, forgotten, with bookmarks and late answers."""
    run = Run()
    model = Model(steps, run.reflector.learn)
    run.reflector._connection = model  # type: ignore[misc]
    run.end()
    assert run.reflector.objects == {f"n/{name}": value for name, (value, _) in model.there.items()}
    assert all(before != after for before, after in pairwise(run.changes))
