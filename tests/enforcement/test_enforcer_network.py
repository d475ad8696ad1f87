"""Whose network is held: a pod of its own namespace, none of the host's, and none that is not told."""

from dataclasses import replace

import pytest
from enforcercalls import BOTH, MI, RATES, app, held, refusal_of, remove, start, stop
from enforcerlab import DATA_DISK, ROOT_DISK, Lab, limits

from noisegate.enforcement.actions import UNSHAPED
from noisegate.enforcement.enforcer import Enforcer
from noisegate.enforcement.nri.events import UNADJUSTED, Sandbox

DISKS = {DATA_DISK: limits(4 * MI), ROOT_DISK: limits(MI)}


def untold(sandbox: Sandbox) -> Sandbox:
    """Return a pod as containerd tells it where it has no OCI spec of the sandbox, or cannot read it."""
    return replace(sandbox, netns="", namespaces_told=False)


async def test_a_pod_on_the_host_network_is_held_otherwise(lab: Lab, enforcer: Enforcer) -> None:
    """The runtime tells its other namespaces: its network limit cannot be meant, and the rest is held."""
    pod = replace(lab.pod("a", BOTH), netns="")
    await enforcer.run_pod_sandbox(pod)
    assert await enforcer.create_container(pod, app(pod)) == UNADJUSTED
    assert lab.io(pod) == DISKS
    assert set(lab.reasons()) == {"RequestMalformed"}


@pytest.mark.parametrize("watched", [True, False])
async def test_a_pod_of_which_no_namespace_is_told_is_refused(lab: Lab, enforcer: Enforcer, watched: bool) -> None:
    """Nobody knows that it is on the host's network: it does not start unlimited, now or later."""
    pod = lab.pod("a", BOTH)
    if watched:
        lab.watch.say(pod, BOTH, {"containers": [{"name": "app"}], "volumes": [{"name": "data", "emptyDir": {}}]})
    for work in (enforcer.run_pod_sandbox(untold(pod)), enforcer.create_container(untold(pod), app(pod))):
        assert (await refusal_of(work)).reason == "NetworkNamespaceUntold"
    await enforcer.look_round()
    again = await refusal_of(enforcer.create_container(untold(pod), app(pod, 2)))
    assert again.reason == "NetworkNamespaceUntold"
    assert set(lab.reasons()) == {"NetworkNamespaceUntold"}
    await enforcer.create_container(pod, app(pod, 3))
    assert lab.rates(pod) == RATES


async def test_what_is_not_told_any_more_takes_nothing_away(lab: Lab, enforcer: Enforcer) -> None:
    """A running pod whose sandbox the runtime can read no more stays held, and is repaired, until it ends."""
    pod = lab.pod("a", BOTH)
    before = lab.snapshot()
    await start(enforcer, pod)
    enforcer.disconnected()
    await enforcer.synchronize([untold(pod)], [app(pod)])
    await enforcer.look_at_all()
    assert held(lab, pod)
    lab.shaper.remove(lab.interface(pod), "")
    assert not held(lab, pod)
    await enforcer.look_at_all()
    assert held(lab, pod)
    await enforcer.create_container(untold(pod), app(pod, 2))
    assert held(lab, pod)
    await stop(enforcer, untold(pod))
    assert lab.rates(pod) == UNSHAPED
    await remove(enforcer, untold(pod))
    assert lab.snapshot() == before
