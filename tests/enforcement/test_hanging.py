"""A disk that hangs keeps whoever writes its limits: others' pods start, are looked at and are changed all the same."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from enforcerlab import DATA_DISK, ROOT_DISK, Lab, asks, container, disk, limits, spec

from noisegate.enforcement import enforcer as module
from noisegate.enforcement import turns
from noisegate.enforcement.actions import UNLIMITED, SetIo
from noisegate.enforcement.enforcer import Enforcer
from noisegate.enforcement.nri.events import Container, Sandbox

MI = 1 << 20
SECONDS = 20.0
MANY = 40
"""Pods on the disk that hangs."""
HUNG = asks(disk(data="4Mi"))
SOUND = asks(disk(layers="4Mi"))


class Disk:
    """The data disk: a write of its limits does not return before it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lab: Lab) -> None:
        self.answers = threading.Event()
        self.writes = 0
        self._write = lab.cgroups.write_io
        monkeypatch.setattr(lab.cgroups, "write_io", self.write_io)

    def write_io(self, action: SetIo, uid: str) -> None:
        """Write, when the disk answers."""
        if action.device == DATA_DISK:
            self.writes += 1
            assert self.answers.wait(60)
        self._write(action, uid)


@pytest.fixture(name="hung")
async def _hung(monkeypatch: pytest.MonkeyPatch, lab: Lab) -> AsyncIterator[Disk]:
    monkeypatch.setattr(module, "BEHIND_SECONDS", 0.05)
    monkeypatch.setattr(turns, "CLOSE_SECONDS", 0.5)
    one = Disk(monkeypatch, lab)
    yield one
    one.answers.set()


def app(sandbox: Sandbox, number: int = 1) -> Container:
    """Return a pod's container, with its volume on the data disk."""
    return container(sandbox, number=number, data="/data/x")


async def attempt(enforcer: Enforcer, pod: Sandbox, number: int) -> None:
    """Create a container as the runtime does: it gives up after a while."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await enforcer.create_container(pod, app(pod, number))


async def test_others_start_are_looked_at_and_changed(lab: Lab, hung: Disk) -> None:
    """Whatever is asked for on another disk is done, while more pods hang than anybody would have thought of."""
    enforcer = lab.enforcer()
    stuck = [lab.pod(f"stuck{number}", HUNG) for number in range(MANY)]
    await asyncio.gather(*(attempt(enforcer, pod, 1) for pod in stuck))
    pod = lab.pod("sound", SOUND)
    async with asyncio.timeout(SECONDS):
        await enforcer.run_pod_sandbox(pod)
        await enforcer.create_container(pod, app(pod))
        assert lab.io(pod) == {ROOT_DISK: limits(4 * MI)}
        lab.cgroups.foreign(pod.cgroup_parent, ROOT_DISK, UNLIMITED)
        await enforcer.look_round()
        assert lab.io(pod) == {ROOT_DISK: limits(4 * MI)}
        lab.watch.say(pod, asks(disk(layers="9Mi")), spec(), lab.watch.version())
        while lab.io(pod) != {ROOT_DISK: limits(9 * MI)}:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.01)
        await enforcer.synchronize([*stuck, pod], [app(one) for one in [*stuck, pod]])
        await enforcer.look_at_all()
    hung.answers.set()
    await enforcer.close()


async def test_what_nobody_waits_for_any_more_is_not_done(lab: Lab, hung: Disk) -> None:
    """The runtime tries again and again: one attempt hangs, those behind it end with their callers."""
    enforcer = lab.enforcer()
    pod = lab.pod("stuck", HUNG)
    for number in range(30):
        await attempt(enforcer, pod, number)
        enforcer.look_at(pod.uid)
        await enforcer.look_round()
        enforcer.disconnected()
        await enforcer.synchronize([pod], [app(pod, number)])
    assert hung.writes == 1
    assert enforcer.turns.waiting[pod.uid] <= 3
    hung.answers.set()
    while enforcer.turns.waiting:  # noqa: ASYNC110  (nobody tells)
        await asyncio.sleep(0.01)
    await enforcer.create_container(pod, app(pod, 99))
    assert lab.io(pod) == {DATA_DISK: limits(4 * MI)}
    await enforcer.close()


async def test_a_stop_comes_to_its_end(lab: Lab, hung: Disk) -> None:
    """Labels are taken away after it: it waits for what hangs no longer than a while."""
    enforcer = lab.enforcer()
    pod = lab.pod("stuck", HUNG)
    await attempt(enforcer, pod, 1)
    async with asyncio.timeout(SECONDS):
        await enforcer.close()
    assert hung.writes == 1
