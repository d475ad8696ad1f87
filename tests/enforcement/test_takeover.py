"""A node with many pods is taken over: nobody who waits does so behind it, and what is told meanwhile is newer."""

import asyncio
import threading
from typing import Any, Final

import pytest
from enforcercalls import settled
from enforcerlab import DATA_DISK, Lab, asks, container, disk, limits, network

from noisegate.enforcement.actions import Rates
from noisegate.enforcement.enforcer import BEHIND, Enforcer
from noisegate.enforcement.kernel.tcwatch import Changes
from noisegate.enforcement.nri.events import Container, Sandbox

MI: Final = 1 << 20
BOTH: Final = asks(disk(data="4Mi"), network(ingress="40M"))
SECONDS: Final = 20.0
MANY: Final = 5 * BEHIND
"""More than are worked on at once."""


class Slow:
    """Work on some pods that goes on only when it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lab: Lab, pods: list[Sandbox]) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.slow = {lab.interface(pod) for pod in pods}
        self.observe = lab.shaper.observe
        monkeypatch.setattr(lab.shaper, "observe", self._observe)

    def _observe(self, interface: Any, ifb: str) -> Any:
        if interface in self.slow:
            self.begun.set()
            assert self.go.wait(SECONDS)
        return self.observe(interface, ifb)


def app(sandbox: Sandbox, source: str = "/data/x", number: int = 1) -> Container:
    """Return a pod's container, with its volume."""
    return container(sandbox, number=number, data=source)


def held(lab: Lab, sandbox: Sandbox) -> bool:
    """Tell whether the kernel has what the pod asks for."""
    return lab.io_of(sandbox, DATA_DISK) == limits(4 * MI) and lab.rates(sandbox) == Rates(40_000_000)


async def test_a_call_of_the_runtime_does_not_wait_behind_the_list(
    lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While more pods than are worked on at once are taken over and do not get on, a new pod and one of the list start."""
    pods = [lab.pod(f"old{number}", BOTH) for number in range(MANY)]
    new, listed = lab.pod("new", BOTH), lab.pod("listed", BOTH)
    slow = Slow(monkeypatch, lab, pods)
    taking = asyncio.ensure_future(enforcer.synchronize([*pods, listed], [app(pod) for pod in [*pods, listed]]))
    await asyncio.to_thread(slow.begun.wait, SECONDS)
    async with asyncio.timeout(SECONDS / 2):
        await enforcer.run_pod_sandbox(new)
        for pod in (new, listed):
            await enforcer.create_container(pod, app(pod, number=2))
    assert held(lab, new)
    assert held(lab, listed)
    assert not taking.done()
    slow.go.set()
    await taking
    assert all(held(lab, pod) for pod in pods)


async def test_a_call_does_not_wait_behind_looks(lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch) -> None:
    """When every interface may have changed at once, a new pod starts all the same."""
    pods = [lab.pod(f"old{number}", BOTH) for number in range(MANY)]
    await enforcer.synchronize(pods, [app(pod) for pod in pods])
    new = lab.pod("new", BOTH)
    slow = Slow(monkeypatch, lab, pods)
    enforcer.changed(Changes(frozenset(), frozenset(), lost=True))
    await asyncio.to_thread(slow.begun.wait, SECONDS)
    async with asyncio.timeout(SECONDS / 2):
        await enforcer.run_pod_sandbox(new)
    assert lab.rates(new) == Rates(40_000_000)
    slow.go.set()


@pytest.mark.parametrize("ends", ["stop", "remove"])
async def test_a_pod_that_ends_before_its_turn_is_not_held_again(
    lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """The list is older than the call that ended it."""
    pods = [lab.pod(f"old{number}", BOTH) for number in range(MANY)]
    last = lab.pod("last", BOTH)
    slow = Slow(monkeypatch, lab, pods)
    taking = asyncio.ensure_future(enforcer.synchronize([*pods, last], []))
    await asyncio.to_thread(slow.begun.wait, SECONDS)
    await enforcer.stop_pod_sandbox(last)
    if ends == "remove":
        await enforcer.remove_pod_sandbox(last)
    slow.go.set()
    await taking
    await settled(enforcer)
    assert enforcer.holder.ledger.get("last") is None
    assert lab.rates(last) == Rates()


async def test_a_container_that_was_created_before_its_pods_turn_counts(
    lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the list has one of the same name, the newer one says where its volume lies; other containers are as listed."""
    pods = [lab.pod(f"old{number}", BOTH) for number in range(MANY)]
    last = lab.pod("last", BOTH)
    slow = Slow(monkeypatch, lab, pods)
    taking = asyncio.ensure_future(enforcer.synchronize([*pods, last], [app(last, "/srv/x")]))
    await asyncio.to_thread(slow.begun.wait, SECONDS)
    await enforcer.create_container(last, app(last, number=2))
    slow.go.set()
    await taking
    record = enforcer.holder.ledger.get("last")
    assert record is not None
    assert [(one.id, one.places) for one in record.containers] == [("last-app-2", {"data": DATA_DISK})]
    assert held(lab, last)


async def test_a_pod_that_begins_before_its_turn_is_no_orphan(
    lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of a pod that is not on the list is kept when the pod is told of meanwhile."""
    again = lab.pod("again", BOTH)
    await enforcer.run_pod_sandbox(again)
    enforcer.disconnected()
    pods = [lab.pod(f"old{number}", BOTH) for number in range(MANY)]
    slow = Slow(monkeypatch, lab, pods)
    taking = asyncio.ensure_future(enforcer.synchronize(pods, []))
    await asyncio.to_thread(slow.begun.wait, SECONDS)
    await enforcer.create_container(again, app(again))
    slow.go.set()
    await taking
    assert held(lab, again)
    assert lab.told("orphan") == []
