"""Faults, counted: an enforcer that is killed at any moment, a ledger that is damaged or cannot be written.

A real process on files that stand for the kernel's; each time the next process must bring what runs into order, and of
what has gone nothing of ours may be left. The reuse of a PID needs no test: nothing that is kept or written names one
(the ledger has the runtime's ids, inode numbers and interface indices; the lock is the kernel's, on an open file).
"""

import random
import signal
from collections import Counter
from typing import Any, Final

import pytest
from enforcerworld import ASKED, Life, Process, World, folder

from noisegate.enforcement.ledger import MOST_DAMAGED

KILLS_BY_OPERATION: Final = 120
"""At an operation on a file, drawn from all that the calls make: between the record and the write too."""
KILLS_BY_TIME: Final = 80
"""At a moment, inside a system call too."""
DAMAGES: Final = 30
MOST_OPERATIONS: Final = 55
"""About as many as the calls of one round make; a list of everything makes twice as many."""
MOST_TURNS: Final = 600_000
"""Of an empty loop: about as long as they take."""


def begin(world: World, chance: random.Random, *, told: bool) -> None:
    """Have some of the pods run, told to an enforcer that lives on until it is killed, idle; or while there is none."""
    process = Process(world) if told else None
    for pod in world.pods:
        calls = []
        if chance.random() < 0.7:
            calls.append(world.run(pod))
        if not told or chance.random() < 0.4:
            calls += [world.create(pod, "app"), world.create(pod, "side")]
        if process is not None:
            process.do(*filter(None, calls))
    if process is not None:
        process.kill()


def events(world: World, chance: random.Random) -> list[tuple[Life, tuple[Any, ...]]]:
    """Have something happen to every pod at once; return the calls."""
    found: list[tuple[Life, tuple[Any, ...] | None]] = []
    for pod in world.pods:
        match chance.choice(["run", "create", "create", "create", "change", "stop", "remove", "stray"]):
            case "create":
                found.append((pod, world.create(pod, chance.choice(["app", "side"]))))
            case "change":
                found.append((pod, world.change(pod, chance.randrange(len(ASKED)))))
            case what:
                found.append((pod, getattr(world, what)(pod)))
    return [(pod, call) for pod, call in found if call is not None]


def undo_unanswered(
    world: World, calls: list[tuple[Life, tuple[Any, ...]]], answers: dict[int, str], chance: random.Random
) -> None:
    """Have the runtime do what it does with calls that were not answered: no container without one, a sandbox perhaps."""
    for index, (pod, call) in enumerate(calls):
        if index in answers:
            assert answers[index] == "ok", (call, answers[index])
        elif call[0] == "create_container":
            del pod.containers[call[2].name]
        elif call[0] == "run_pod_sandbox" and chance.random() < 0.5:
            world.remove(pod)  # the end of a sandbox that was never answered for is not told either


def let_go(world: World, process: Process, chance: random.Random) -> None:
    """Have all pods go; what is not told is in no list."""
    calls = [call for pod in world.pods for call in (world.stop(pod), world.remove(pod)) if call is not None]
    process.do(*(call for call in calls if chance.random() < 0.8))
    process.do(world.listed())


@pytest.mark.parametrize("how", ["operation", "moment"])
def test_killed(how: str, tally: Counter[str]) -> None:
    """Whatever was under way for three pods at once: it converges, nothing of ours is left, foreign lines are as they were."""
    chance = random.Random(how)
    kills = KILLS_BY_OPERATION if how == "operation" else KILLS_BY_TIME
    within = 0
    for number in range(kills):
        with folder() as root:
            world = World(root, 3)
            listed = number % 4 == 0
            begin(world, chance, told=not listed)
            process = Process(world, chance.randrange(1, MOST_OPERATIONS * (1 + listed)) if how == "operation" else 0)
            happening = [] if listed else events(world, chance)
            calls = [call for _, call in happening] or [world.listed()]
            process.say(calls, counted=True)
            if how == "operation":
                process.hear(len(calls))
            else:
                for _ in range(chance.randrange(MOST_TURNS)):
                    pass
            assert process.kill() == -signal.SIGKILL
            within += len(process.answers) < len(calls)
            undo_unanswered(world, happening, process.answers, chance)
            after = Process(world)
            after.do(world.listed())
            world.check_held()
            let_go(world, after, chance)
            world.check_gone()
            after.kill()
    tally[f"kills at any {how}"] += kills
    tally["of them within a call"] += within
    assert within >= kills // 4


@pytest.mark.parametrize("how", ["truncated", "corrupted"])
def test_damaged_ledger(how: str, tally: Counter[str]) -> None:
    """A record of one pod is cut or changed anywhere while nobody runs: that pod too is held and freed, the others are spared.

    What stood before us in the cgroup of that pod is known no more; it goes with the cgroup.
    """
    chance = random.Random(how)
    for _ in range(DAMAGES):
        with folder() as root:
            world = World(root, 3)
            process = Process(world)
            for pod in world.pods:
                process.do(*filter(None, [world.run(pod), world.create(pod, "app")]))
            process.kill()
            hit = chance.choice(world.pods)
            file = root / f"state/pods/{hit.uid}.json"
            data = bytearray(file.read_bytes())
            place = chance.randrange(len(data))
            if how == "truncated":
                del data[place:]
            else:
                data[place] ^= chance.randrange(1, 256)
            file.write_bytes(data)
            process = Process(world)
            process.do(world.listed())
            world.check_held()
            let_go(world, process, chance)
            process.kill()
            assert len(list((root / "state/damaged").iterdir())) == 1 <= MOST_DAMAGED
            world.renew_cgroup(hit)
            world.check_gone()
    tally[f"ledgers {how}"] += DAMAGES


def test_a_ledger_that_is_lost(tally: Counter[str]) -> None:
    """Nothing is known of what stands: what runs is held, and what bears our mark and belongs to nobody is collected."""
    with folder() as root:
        world = World(root, 3)
        process = Process(world)
        for pod in world.pods:
            process.do(*filter(None, [world.run(pod), world.create(pod, "app")]))
        process.kill()
        for file in (root / "state/pods").iterdir():
            file.unlink()
        world.remove(world.pods[0])
        process = Process(world)
        process.do(world.listed())
        world.check_held()
        let_go(world, process, random.Random(1))
        process.kill()
        for pod in world.pods:
            world.renew_cgroup(pod)
        world.check_gone()
    tally["ledgers lost"] += 1


def test_a_full_ledger(tally: Counter[str]) -> None:
    """A real limit of the process's files: every start that asks is refused with its errno, and the kernel's files are as they were.

    What is held already stays held, a plain pod starts, and with room again all goes on.
    """
    with folder() as root:
        world = World(root, 5)
        held, *others = world.pods
        process = Process(world)
        process.do(*filter(None, [world.run(held), world.create(held, "app")]))
        process.kill()
        starts = [call for pod in others for call in (world.run(pod), world.create(pod, "app")) if call is not None]
        before = world.lab.picture()
        process = Process(world, largest=300)
        for call in starts:
            process.say([call])
            process.hear(1)
            assert "the record of the pod cannot be written: EFBIG" in process.answers[0]
            assert "make room there" in process.answers[0]
        assert world.lab.picture() == before
        process.do(("look_round",), ("look_at_all",))
        assert world.lab.picture() == before
        process.kill()
        assert [file.name for file in (root / "state/pods").iterdir()] == [f"{held.uid}.json"]
        process = Process(world)
        process.do(world.listed())
        world.check_held()
        let_go(world, process, random.Random(1))
        process.kill()
        world.check_gone()
    tally["starts refused by a full ledger"] += len(starts)


def test_a_hundred_pods(tally: Counter[str]) -> None:
    """All start at once; their enforcer is killed in the middle of it, and the next one holds and frees them all."""
    with folder() as root:
        world = World(root, 100)
        process = Process(world, 900)
        process.say([call for pod in world.pods if (call := world.run(pod)) is not None], counted=True)
        process.hear(len(world.pods))
        assert process.kill() == -signal.SIGKILL
        assert len(process.answers) < len(world.pods)
        process = Process(world)
        process.do(world.listed())
        process.say([call for pod in world.pods if (call := world.create(pod, "app")) is not None])
        process.hear(len(world.pods))
        assert set(process.answers.values()) == {"ok"}
        world.check_held()
        ends = [call for pod in world.pods if (call := world.remove(pod)) is not None]
        process.say(ends)
        process.hear(len(ends))
        world.check_gone()
        process.kill()
    tally["pods at once"] += len(world.pods)
