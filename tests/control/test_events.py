"""Events: none is lost while the API server takes none, and none is told twice."""

import asyncio
from typing import Any, Final

import pytest
from heldapi import HeldApi

from noisegate.cluster.connection import ApiError
from noisegate.control.events import AGAIN_SECONDS, MOST_UNSENT, Events
from noisegate.service.log import Log

ABOUT: Final[dict[str, Any]] = {"apiVersion": "v1", "kind": "Secret", "name": "noisegate-tls"}


class Lab:
    """Events, their API server, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.api = HeldApi()
        self.events = Events(self.api, "n", "me", Log(level="error"), lambda: self.now)

    @property
    def notes(self) -> list[str]:
        """What the API server has taken."""
        return [value["note"] for value in self.api.created]


@pytest.fixture(name="lab")
def _lab() -> Lab:
    return Lab()


@pytest.mark.parametrize("status", [0, 403, 429, 500, 503])
async def test_what_could_not_be_written_is_written_later(lab: Lab, status: int) -> None:
    """In the order in which it happened, each once."""
    lab.api.failing = lambda _method, _path: ApiError(status, "away")
    await lab.events.tell("First", "one", ABOUT)
    await lab.events.tell("Second", "two", ABOUT)
    await lab.events.tell("First", "one", ABOUT)
    assert lab.notes == []
    lab.api.failing = lambda _method, _path: None
    await lab.events.send()
    await lab.events.send()
    assert lab.notes == ["one", "two"]


async def test_what_is_cancelled_on_its_way_is_not_lost(lab: Lab) -> None:
    """A leader whose time is up gives up a call in the middle; one that was written without an answer is there once."""
    lab.api.hanging = lambda _method, _path: True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await lab.events.tell("First", "one", ABOUT)
    lab.api.hanging = lambda _method, _path: False
    await lab.events.send()
    assert lab.notes == ["one"]


async def test_what_was_written_though_the_answer_was_lost_is_there_once(lab: Lab) -> None:
    """It has a name from the beginning: the second attempt finds it."""
    answers = [ApiError(0, "no answer"), None]

    class Deaf(HeldApi):
        async def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
            value = await super()._call(method, path, body)
            if (error := answers.pop(0)) is not None:
                raise error
            return value

    api = Deaf()
    events = Events(api, "n", "me", Log(level="error"), lambda: 0.0)
    await events.tell("First", "one", ABOUT)
    await events.send()
    await events.send()
    assert [value["note"] for value in api.created] == ["one"]


async def test_what_the_api_server_will_never_take_holds_up_nothing(lab: Lab) -> None:
    """It is given up."""
    lab.api.failing = lambda _method, _path: ApiError(422, "no such kind") if not lab.now else None
    await lab.events.tell("First", "one", ABOUT)
    lab.now = 1.0
    await lab.events.tell("Second", "two", ABOUT)
    assert lab.notes == ["two"]


async def test_the_same_is_told_again_after_a_while(lab: Lab) -> None:
    """And not before."""
    await lab.events.tell("First", "one", ABOUT)
    lab.now = AGAIN_SECONDS
    await lab.events.tell("First", "one", ABOUT)
    assert lab.notes == ["one"]
    lab.now += 1
    await lab.events.tell("First", "one", ABOUT)
    assert lab.notes == ["one", "one"]


async def test_what_waits_is_bounded(lab: Lab) -> None:
    """The newest are kept."""
    lab.api.failing = lambda _method, _path: ApiError(0, "away")
    for number in range(MOST_UNSENT + 5):
        await lab.events.tell("Event", str(number), ABOUT)
    lab.api.failing = lambda _method, _path: None
    await lab.events.send()
    assert lab.notes == [str(number) for number in range(5, MOST_UNSENT + 5)]
