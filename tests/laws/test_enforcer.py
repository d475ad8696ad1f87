"""Whatever happens to pods, in whatever order, heard or not: in the end they are held, and when they have gone all is as it was."""

import asyncio
from typing import Any

from enforcerworld import ASKED, World, folder, named, tell
from hypothesis import given, settings
from hypothesis import strategies as st

from noisegate.enforcement.enforcer import Enforcer
from noisegate.enforcement.nri.events import Sandbox

_STEPS = ("run", "create-app", "create-side", "change", "stop", "remove", "stray", "renew_cgroup", "restart", "list")
_step = st.tuples(
    st.sampled_from(_STEPS), st.integers(0, 2), st.integers(0, len(ASKED) - 1), st.sampled_from([True, True, True, False])
)  # fmt: skip


class _Told:
    """An enforcer in this process, made anew at a restart; what it was told of pods outlives it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pods: dict[str, Sandbox] = {}
        self.enforcer: Enforcer = world.lab.enforcer()

    async def __call__(self, call: tuple[Any, ...] | None) -> None:
        if call is None:
            return
        self.pods |= named(call)
        answer = await tell(self.world.lab, self.enforcer, list(self.pods.items()), call)
        assert answer == "ok", (call, answer)

    async def restart(self, *, watched: bool) -> None:
        """Let another process take over; its watch may not have brought anything yet."""
        await self.enforcer.close()
        self.enforcer = self.world.lab.enforcer()
        if watched:
            for pod in self.world.pods:
                await self(("say", pod.uid, pod.choice))

    async def list(self) -> None:
        """Tell of everything, as a runtime does at each connection."""
        await self(self.world.listed())


async def _happens(world: World, told: _Told, step: str, index: int, choice: int) -> tuple[Any, ...] | None:
    pod = world.pods[index]
    match step:
        case "create-app" | "create-side":
            return world.create(pod, step.removeprefix("create-"))
        case "change":
            return world.change(pod, choice)
        case "restart":
            await told.restart(watched=bool(choice % 2))
            return world.listed()
        case "list":
            await told.list()
            return None
        case _:
            return getattr(world, step)(pod)  # type: ignore[no-any-return]


@settings(deadline=None, max_examples=60)
@given(st.lists(_step, max_size=25))
def test_any_order_of_events(steps: list[tuple[str, int, int, bool]]) -> None:
    """Events that are heard and that are lost, strangers, restarts: a list brings everything into order."""

    async def live() -> None:
        with folder() as root:
            world = World(root, 3)
            told = _Told(world)
            for step, index, choice, heard in steps:
                call = await _happens(world, told, step, index, choice)
                if heard:
                    await told(call)
                elif call is not None:
                    # What was missed is missed for as long as a connection lasts.
                    await told.list()
            await told.restart(watched=True)
            await told.list()
            await told.enforcer.look_at_all()
            world.check_held()
            assert told.enforcer.troubles.of == {}
            for pod in world.pods:
                await told(world.stop(pod))
                await told(world.remove(pod))
            told.enforcer.count()
            world.check_gone()
            assert (told.enforcer.troubles.skipped, told.enforcer._ends, dict(told.enforcer.turns.locks)) == (
                {},
                {},
                {},
            )
            await told.enforcer.close()

    asyncio.run(live())
