"""An enforcer that is called as the runtime calls it, for its tests: pods and containers that ask, and work that is held up."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Final

import pytest
from enforcerlab import DATA_DISK, ROOT_DISK, Lab, asks, container, disk, limits, network

from noisegate.enforcement.actions import Rates
from noisegate.enforcement.enforcer import Enforcer
from noisegate.enforcement.nri.events import Container, Sandbox
from noisegate.enforcement.refusal import Refusal

MI: Final = 1 << 20
BOTH: Final = asks(disk(data="4Mi", layers="1Mi"), network(ingress="40M", egress="20M"))
RATES: Final = Rates(40_000_000, 20_000_000)
SECONDS: Final = 20.0
CLASSES: Final = "partitions: {p: {l3Allocation: '100%', classes: {gold: {l3Allocation: '50%'}}}}"


def app(sandbox: Sandbox, number: int = 1) -> Container:
    """Return a pod's container, with its volume on the data disk."""
    return container(sandbox, number=number, data="/data/x", more="/srv/x")


async def start(enforcer: Enforcer, sandbox: Sandbox) -> Container:
    """Run a pod with one container."""
    await enforcer.run_pod_sandbox(sandbox)
    one = app(sandbox)
    await enforcer.create_container(sandbox, one)
    return one


async def stop(enforcer: Enforcer, sandbox: Sandbox) -> None:
    """Stop a pod, and wait until what was begun for it is done."""
    await enforcer.stop_pod_sandbox(sandbox)
    await settled(enforcer)


async def remove(enforcer: Enforcer, sandbox: Sandbox) -> None:
    """Remove a pod, and wait until what was begun for it is done."""
    await enforcer.remove_pod_sandbox(sandbox)
    await settled(enforcer)


async def settled(enforcer: Enforcer) -> None:
    """Wait until nothing is under way."""
    while enforcer.turns.tasks:
        await asyncio.wait(enforcer.turns.tasks)


def held(lab: Lab, sandbox: Sandbox) -> bool:
    """Tell whether everything that `BOTH` asks for stands."""
    return lab.io(sandbox) == {DATA_DISK: limits(4 * MI), ROOT_DISK: limits(MI)} and lab.rates(sandbox) == RATES


async def refusal_of(work: Any) -> Refusal:
    """Return the refusal that a call is answered with."""
    with pytest.raises(Refusal) as error:
        await work
    return error.value


class Gate:
    """Holds work up in its thread until it is opened, as a kernel that does not answer."""

    def __init__(
        self, patch: pytest.MonkeyPatch, owner: object, name: str, only: Callable[..., bool] = lambda *_: True
    ) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()
        work = getattr(owner, name)

        def held_up(*args: Any) -> Any:
            if only(*args):
                self.entered.set()
                assert self._open.wait(SECONDS), "nobody opened"
            return work(*args)

        patch.setattr(owner, name, held_up)

    async def wait(self) -> None:
        """Wait until work is held up."""
        assert await asyncio.to_thread(self.entered.wait, SECONDS)

    def open(self) -> None:
        """Let it go on."""
        self._open.set()
