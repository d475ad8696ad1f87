"""What the enforcer does when things come late, at once, or not at all: deadlines, and the runtime's list of everything."""

import asyncio
import errno
from dataclasses import replace
from typing import Any

import pytest
from enforcercalls import BOTH, RATES, Gate, app, held, refusal_of, remove, start, stop
from enforcerlab import ROOT_DISK, Lab, asks, container, network, spec
from fakenetwork import Ifb

from noisegate.enforcement.actions import Rates
from noisegate.enforcement.enforcer import Enforcer
from noisegate.enforcement.ledger import Ledger
from noisegate.enforcement.nri.events import Sandbox, State
from noisegate.enforcement.refusal import Refusal
from noisegate.isolation import keys

# Deadlines: the runtime stops waiting, the work goes on.


async def test_a_call_that_is_cancelled_goes_on(lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call of that pod waits for it, another pod is not delayed, and what came of it is told all the same."""
    pod, other = lab.pod("a", BOTH), lab.pod("b", BOTH)
    gate = Gate(monkeypatch, lab.shaper, "observe", lambda interface, _ifb: interface == lab.interface(pod))
    lab.cgroups.unplug(ROOT_DISK)
    late = asyncio.ensure_future(enforcer.create_container(pod, app(pod)))
    await gate.wait()
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    assert enforcer.troubles.of == {}
    again = asyncio.ensure_future(enforcer.create_container(pod, app(pod)))
    refusal = await refusal_of(enforcer.create_container(other, app(other)))
    assert (refusal.reason, lab.rates(other)) == ("DeviceNotThrottled", RATES)
    assert not again.done()
    lab.cgroups.disks.add(ROOT_DISK)
    gate.open()
    await again
    assert held(lab, pod)
    assert "DeviceNotThrottled" in lab.reasons()


async def test_a_sandbox_removed_while_its_call_goes_on(
    lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RunPodSandbox was late, the runtime undoes it: the work that still went on leaves nothing."""
    pod = lab.pod("a", BOTH)
    before = lab.snapshot()
    gate = Gate(monkeypatch, Ledger, "put")
    late = asyncio.ensure_future(enforcer.run_pod_sandbox(pod))
    await gate.wait()
    late.cancel()
    stopping = asyncio.ensure_future(enforcer.stop_pod_sandbox(pod))
    removing = asyncio.ensure_future(enforcer.remove_pod_sandbox(pod))
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(stopping, removing)
    await asyncio.gather(*enforcer.turns.tasks)
    assert lab.snapshot() == before
    assert enforcer.holder.ledger.all() == ()


async def test_nobody_waits_for_a_stop(lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices are deleted behind the answer; another sandbox of the pod comes after that."""
    pod = lab.pod("a", BOTH)
    await start(enforcer, pod)
    gate = Gate(monkeypatch, lab.shaper, "remove")
    await enforcer.stop_pod_sandbox(pod)
    await gate.wait()
    assert lab.rates(pod) == RATES
    lab.end(pod)
    again = lab.pod("a", BOTH, 2)
    starting = asyncio.ensure_future(enforcer.run_pod_sandbox(again))
    await asyncio.sleep(0.05)
    assert not starting.done()
    gate.open()
    await starting
    assert lab.rates(again) == RATES
    assert len(lab.network.ifbs()) == 1


async def test_a_fault_after_the_caller_has_gone_is_told(
    lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody hears it otherwise."""
    pod = replace(lab.pod("a", BOTH), id="no sandbox id")
    gate = Gate(monkeypatch, lab.cgroups, "read_io")
    late = asyncio.ensure_future(enforcer.create_container(pod, app(pod)))
    await gate.wait()
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    gate.open()
    await asyncio.gather(*enforcer.turns.tasks, return_exceptions=True)
    assert "no sandbox id" in lab.told("pod-failed")[0]["error"]


# The runtime's list of everything.


async def test_synchronize_holds_what_runs(lab: Lab, enforcer: Enforcer) -> None:
    """Pods that started without us are held as they are found; containers that have stopped are not asked for their places."""
    pods = [lab.pod(uid, BOTH) for uid in ("a", "b")]
    stopped = container(pods[0], "app", 7, State.STOPPED, data="/nfs/gone")
    await enforcer.synchronize(pods, [stopped, *map(app, pods)])
    assert all(held(lab, pod) for pod in pods)


async def test_synchronize_undoes_what_has_gone(lab: Lab, enforcer: Enforcer) -> None:
    """Whatever happened while nobody told: pods that are not listed are released, and what bears our mark is collected."""
    pod, stays = lab.pod("a", BOTH), lab.pod("b", BOTH)
    before = lab.snapshot()
    await start(enforcer, pod)
    await start(enforcer, stays)
    lab.shaper.remove(lab.interface(pod), "")
    lab.network.put_ifb("ng0123456789ab", Ifb())
    enforcer.disconnected()
    await enforcer.synchronize([stays], [app(stays)])
    assert held(lab, stays)
    assert enforcer.holder.ledger.get("a") is None
    assert lab.told("collected")[0]["ifbs"] == ["ng0123456789ab"]
    await enforcer.stop_pod_sandbox(stays)
    await remove(enforcer, stays)
    assert lab.snapshot() == before


async def unlisted(lab: Lab, enforcer: Enforcer) -> Sandbox:
    """Have a pod that runs, is held, and is not on the runtime's list."""
    pod = lab.pod("a", BOTH)
    await start(enforcer, pod)
    lab.cgroups.populate(pod.cgroup_parent)
    enforcer.disconnected()
    await enforcer.synchronize([], [])
    assert held(lab, pod)
    return pod


async def test_a_pod_that_runs_and_is_not_listed(lab: Lab, enforcer: Enforcer) -> None:
    """A runtime that started again leaves out what it could not ask: the pod stays held until nothing of it runs."""
    pod = await unlisted(lab, enforcer)
    assert [line["uid"] for line in lab.told("unlisted")] == ["a"]
    lab.end(pod)
    await enforcer.look_at_all()
    assert lab.network.ifbs() == []
    assert enforcer.holder.ledger.get("a") is not None
    lab.remove(pod)
    await enforcer.look_round()
    assert enforcer.holder.ledger.all() == ()


async def test_a_pod_that_is_not_listed_and_whose_network_leaks(lab: Lab, enforcer: Enforcer) -> None:
    """Nobody took its network namespace down; with its cgroup it has ended all the same."""
    pod = await unlisted(lab, enforcer)
    lab.remove(pod)
    await enforcer.look_round()
    assert (enforcer.holder.ledger.all(), lab.network.ifbs(), lab.reasons()) == ((), [], [])


async def test_a_change_that_comes_while_a_container_waits_for_its_turn(
    lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked for last is held, not what was known when the container asked for its turn."""
    pod = lab.pod("a", BOTH)
    await start(enforcer, pod)
    gate = Gate(monkeypatch, lab.shaper, "observe")
    enforcer.look_at("a")
    await gate.wait()
    enforcer.look_at("a")
    await asyncio.sleep(0)
    creating = asyncio.ensure_future(enforcer.create_container(pod, app(pod, 2)))
    await asyncio.sleep(0.05)
    lab.watch.say(pod, {**BOTH, keys.NETWORK: network(ingress="70M")}, spec(), lab.watch.version())
    gate.open()
    await creating
    await asyncio.gather(*enforcer.turns.tasks)
    assert lab.rates(pod) == Rates(70_000_000, None)


async def test_an_orphan_on_a_node_without_cgroup_v2(
    lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell whether anything runs in its cgroup, and nothing was written there: it went with its network."""
    pod = lab.pod("a", asks("", network(ingress="40M")))
    await start(enforcer, pod)
    lab.end(pod)

    def unknown(cgroup: str) -> bool:
        raise Refusal("NoCgroupV2", f"{cgroup} is not there", "mount it")

    monkeypatch.setattr(lab.cgroups, "populated", unknown)
    monkeypatch.setattr(lab.cgroups, "identity", unknown)
    enforcer.disconnected()
    await enforcer.synchronize([], [])
    assert (enforcer.holder.ledger.all(), lab.network.ifbs()) == ((), [])


async def test_a_stopped_sandbox_in_the_list(lab: Lab, enforcer: Enforcer) -> None:
    """The runtime lists it until it is removed: its network is freed, its pod is not asked for a network that has gone."""
    pod = lab.pod("a", BOTH)
    await start(enforcer, pod)
    lab.end(pod)
    down = replace(pod, netns="", pid=0)
    again = lab.enforcer()
    await again.synchronize([down], [])
    await again.look_at_all()
    assert (lab.network.ifbs(), lab.reasons(), again.troubles.of) == ([], [], {})
    await remove(again, down)
    assert again.holder.ledger.all() == ()
    await again.close()


@pytest.mark.parametrize("order", [1, -1])
async def test_an_old_sandbox_beside_the_one_that_runs(lab: Lab, enforcer: Enforcer, order: int) -> None:
    """In whatever order they are listed, the pod is held where it runs."""
    old = replace(lab.pod("a", BOTH), netns="", pid=0)
    now = lab.pod("a", BOTH, 2)
    await enforcer.synchronize([old, now][::order], [app(now)])
    assert held(lab, now)
    again = lab.enforcer()
    await again.synchronize([old, now][::order], [app(now)])
    await remove(again, old)
    assert held(lab, now)
    await again.close()


async def test_a_pod_that_starts_before_the_list_is_heard(lab: Lab, enforcer: Enforcer) -> None:
    """The list is older than it: it is no orphan. After the next connection it would be one."""
    pod = lab.pod("a", BOTH)
    before = lab.snapshot()
    enforcer.disconnected()
    await start(enforcer, pod)
    await enforcer.synchronize([], [])
    assert held(lab, pod)
    enforcer.disconnected()
    await enforcer.synchronize([], [])
    assert lab.snapshot() == before


@pytest.mark.parametrize("removed", [False, True])
async def test_a_pod_that_ends_before_the_list_is_heard(lab: Lab, enforcer: Enforcer, removed: bool) -> None:
    """The list is older than its end: it is not held anew."""
    pod = lab.pod("a", BOTH)
    await start(enforcer, pod)
    enforcer.disconnected()
    await stop(enforcer, pod)
    if removed:
        await remove(enforcer, pod)
    lab.end(pod)
    await enforcer.synchronize([pod], [app(pod)])
    assert (lab.network.ifbs(), enforcer.troubles.of, lab.reasons()) == ([], {}, [])
    assert (enforcer.holder.ledger.get("a") is None) == removed


async def test_synchronize_is_given_up_with_its_connection(
    lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it began goes on; the next list begins behind it."""
    pod = lab.pod("a", BOTH)
    gate = Gate(monkeypatch, lab.shaper, "observe")
    handing = asyncio.ensure_future(enforcer.synchronize([pod], [app(pod)]))
    await gate.wait()
    handing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handing
    enforcer.disconnected()
    again = asyncio.ensure_future(enforcer.synchronize([pod], [app(pod)]))
    await asyncio.sleep(0)
    gate.open()
    await again
    assert held(lab, pod)


async def test_a_fault_with_one_pod_spares_the_others(lab: Lab, enforcer: Enforcer) -> None:
    """It is told with a traceback, and everybody else is held."""
    bad, good = replace(lab.pod("a", BOTH), id="no sandbox id"), lab.pod("b", BOTH)
    await enforcer.synchronize([bad, good], [app(bad), app(good)])
    assert held(lab, good)
    assert "ValueError" in lab.told("pod-failed")[0]["traceback"]


async def test_nothing_is_collected_that_is_being_made(
    lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod that is shaped between the look at the node and the look at the ledger keeps its ifb."""
    pod = lab.pod("a", BOTH)
    ours = lab.shaper.ours

    def meanwhile() -> Any:
        lab.holder(ledger=enforcer.holder.ledger).take(enforcer._intent(pod), pod, (app(pod),))  # type: ignore[arg-type]
        return ours()

    monkeypatch.setattr(lab.shaper, "ours", meanwhile)
    await enforcer.collect()
    assert held(lab, pod)


async def test_one_that_cannot_be_collected_keeps_no_other(
    lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and goes with a later look at everything."""
    names = [f"ng{number:012x}" for number in range(3)]
    for name in names:
        lab.network.put_ifb(name, Ifb())
    remove = lab.shaper.remove

    def remove_others(interface: Any, ifb: str) -> None:
        if ifb == names[0]:
            raise Refusal("ShaperRefused", f"{ifb} cannot be freed: EAGAIN", "try again")
        remove(interface, ifb)

    with monkeypatch.context() as now:
        now.setattr(lab.shaper, "remove", remove_others)
        await enforcer.collect()
    assert lab.network.ifbs() == names[:1]
    assert "EAGAIN" in lab.told("not-collected")[0]["told"]
    await enforcer.look_at_all()
    assert lab.network.ifbs() == []


async def test_what_cannot_be_collected_is_told(lab: Lab, enforcer: Enforcer) -> None:
    """And nothing else is held up by it."""
    lab.shaper.fails["ours"] = errno.EPERM
    pod = lab.pod("a", BOTH)
    await enforcer.synchronize([pod], [app(pod)])
    assert held(lab, pod)
    assert "EPERM" in lab.told("not-collected")[0]["told"]
