"""Pods that end without the runtime's telling: containerd, started again, does so with the sandboxes of its time before."""

import errno
from dataclasses import replace

import pytest
from enforcercalls import BOTH, RATES, held, remove, start
from enforcerlab import Lab

from noisegate.enforcement.enforcer import Enforcer
from noisegate.enforcement.plan.network import ifb_name


@pytest.mark.parametrize("first", ["network", "cgroup"])
async def test_what_is_left_of_it_goes(lab: Lab, enforcer: Enforcer, first: str) -> None:
    """Its ifb with its network, its record when its cgroup has gone too; nobody is told of a trouble, and others stay held."""
    pod, other = lab.pod("a", BOTH), lab.pod("b", BOTH)
    for each in (pod, other):
        await start(enforcer, each)
    if first == "network":
        lab.end(pod)
        await enforcer.look("a")
        assert ifb_name(pod.id) not in lab.network.ifbs()
        assert lab.told("ended-untold")[0]["uid"] == "a"
        assert lab.reasons() == []
        lab.remove(pod)
    else:
        lab.remove(pod)
        lab.end(pod)
    await enforcer.look_round()
    assert [record.uid for record in enforcer.holder.ledger.all()] == ["b"]
    assert ifb_name(pod.id) not in lab.network.ifbs()
    assert enforcer.troubles.of == {}
    assert held(lab, other)
    # What the runtime tells after all finds nothing to do.
    before = lab.snapshot()
    await enforcer.stop_pod_sandbox(pod)
    await remove(enforcer, pod)
    assert lab.snapshot() == before


async def test_a_cgroup_that_cannot_be_seen_is_no_end(lab: Lab, enforcer: Enforcer) -> None:
    """Where only the cgroup is missing, as in a private view of the hierarchy, the network stays limited."""
    pod = lab.pod("a", BOTH)
    await start(enforcer, pod)
    lab.remove(pod)
    await enforcer.look_round()
    assert lab.rates(pod) == RATES
    assert enforcer.troubles.of["a"].keys() == {"disk"}


async def test_a_new_sandbox_after_it(lab: Lab, enforcer: Enforcer) -> None:
    """A pod whose sandbox ended untold is held again with its next one."""
    pod = lab.pod("a", BOTH)
    await start(enforcer, pod)
    lab.end(pod)
    await enforcer.look("a")
    second = lab.pod("a", BOTH, 2)
    await start(enforcer, second)
    await enforcer.look_round()
    assert held(lab, second)
    assert lab.network.ifbs() == [ifb_name(second.id)]


async def test_in_the_nodes_network_the_cgroup_alone_tells(lab: Lab, enforcer: Enforcer) -> None:
    """Such a pod has no network whose end could be seen."""
    pod = replace(lab.pod("a", BOTH), netns="")
    await start(enforcer, pod)
    await enforcer.look_round()
    assert [record.uid for record in enforcer.holder.ledger.all()] == ["a"]
    lab.remove(pod)
    await enforcer.look_round()
    assert enforcer.holder.ledger.all() == ()


async def test_what_cannot_be_undone_at_once(lab: Lab, enforcer: Enforcer) -> None:
    """It is tried again with the next look."""
    pod = lab.pod("a", BOTH)
    await start(enforcer, pod)
    lab.end(pod)
    lab.remove(pod)
    lab.shaper.fails["remove"] = errno.EPERM
    await enforcer.look_round()
    assert lab.told("not-undone")[0]["uid"] == "a"
    lab.shaper.fails.clear()
    await enforcer.look_round()
    assert (enforcer.holder.ledger.all(), lab.network.ifbs()) == ((), [])
