"""What the enforcer answers and does: a pod's life, the watch, drift, what others do, ends that fail, what is kept in memory."""

import asyncio
import errno
import threading
from pathlib import Path

import pytest
from enforcercalls import BOTH, MI, RATES, Gate, app, held, refusal_of, remove, start, stop
from enforcerlab import DATA_DISK, Lab, asks, disk, limits, network, spec

from noisegate.enforcement.actions import UNLIMITED, UNSHAPED, Rates
from noisegate.enforcement.enforcer import Enforcer
from noisegate.enforcement.kernel.tcwatch import Changes
from noisegate.enforcement.ledger import Ledger
from noisegate.enforcement.nri.events import (
    UNADJUSTED,
    Owners,
    Sandbox,
    Validation,
)
from noisegate.enforcement.plan.network import Counters
from noisegate.isolation import keys

# A pod's life.


async def test_a_pod_is_held_before_each_answer(lab: Lab, enforcer: Enforcer) -> None:
    """The network when RunPodSandbox is answered, the disks when CreateContainer is; at the end all is as it was."""
    pod = lab.pod("a", BOTH)
    before = lab.snapshot()
    await enforcer.run_pod_sandbox(pod)
    assert lab.rates(pod) == RATES
    assert await enforcer.create_container(pod, app(pod)) == UNADJUSTED
    assert held(lab, pod)
    await stop(enforcer, pod)
    assert lab.rates(pod) == UNSHAPED
    await remove(enforcer, pod)
    assert lab.snapshot() == before
    assert lab.lines == []


async def test_a_plain_pod_costs_nothing(lab: Lab, enforcer: Enforcer) -> None:
    """No thread, no file, nothing in memory: whoever asks for nothing, or for what the runtime itself does."""
    threads = threading.active_count()
    files = {file: file.stat().st_mtime_ns for file in lab.folder.rglob("*")}
    for uid, annotations in (("a", {}), ("b", {keys.RDT_RUNTIME_POD: "gold"}), ("c", {keys.CNI_INGRESS: "1M"})):
        plain = Sandbox(f"s{uid}", uid, uid, "default", annotations, f"/kubepods/pod{uid}", f"/run/netns/{uid}", 1)
        one = app(plain)
        await enforcer.run_pod_sandbox(plain)
        assert await enforcer.create_container(plain, one) is UNADJUSTED
        await enforcer.validate(Validation(plain, one, UNADJUSTED, Owners()))
        await enforcer.update_container(plain, one)
        await enforcer.stop_pod_sandbox(plain)
        await remove(enforcer, plain)
    assert threading.active_count() == threads
    assert {file: file.stat().st_mtime_ns for file in lab.folder.rglob("*")} == files
    assert (enforcer.troubles.of, enforcer.troubles.skipped, enforcer.turns.locks, enforcer._ends) == ({}, {}, {}, {})


async def test_excluded_namespaces_are_left_alone(lab: Lab) -> None:
    """Also where they ask; what was held before the namespace was excluded is given back at the next list."""
    first = lab.enforcer()
    pod = lab.pod("a", BOTH)
    lab.cgroups.populate(pod.cgroup_parent)
    before = lab.snapshot()
    await start(first, pod)
    await first.close()
    enforcer = lab.enforcer(excluded=("default",))
    await enforcer.synchronize([pod], [app(pod)])
    assert lab.snapshot() == before
    assert await enforcer.create_container(pod, app(pod)) == UNADJUSTED
    assert lab.snapshot() == before
    await enforcer.close()


async def test_both_troubles_are_told_at_once(lab: Lab, enforcer: Enforcer) -> None:
    """The answer names both kinds, each with value, errno where there is one, and mend; so do Events, status and metrics."""
    pod = lab.pod("a", BOTH)
    lab.cgroups.unplug(DATA_DISK)
    lab.shaper.fails["apply"] = errno.EOPNOTSUPP
    refusal = await refusal_of(enforcer.create_container(pod, app(pod)))
    assert refusal.reason == "NotHeld"
    for part in ("disk: ", "8:16 rbps=max wbps=4194304", "ENODEV", "lsblk", "network: ", "ENOTSUP", "sch_htb"):
        assert part in str(refusal), part
    assert lab.reasons() == ["DeviceNotThrottled", "ShaperMissing"]
    (status,) = await enforcer.status()
    assert [line.partition(":")[0] for line in status.trouble] == ["disk", "network"]
    assert [lab.counted("refusals_total", kind=kind) for kind in ("disk", "network", "rdt")] == [1, 1, 0]
    assert [lab.counted("failures_total", kind=kind) for kind in ("disk", "network", "rdt")] == [1, 1, 0]
    assert {line["kind"] for line in lab.told("not-held")} == {"disk", "network"}


async def test_one_trouble_is_told_as_itself(lab: Lab, enforcer: Enforcer) -> None:
    """Its reason is the Event's."""
    pod = lab.pod("a", BOTH, foreign="tbf")
    refusal = await refusal_of(enforcer.run_pod_sandbox(pod))
    assert (refusal.reason, lab.reasons()) == ("ForeignQdisc", ["ForeignQdisc"])
    assert "veth1 has a root qdisc tbf" in lab.notes()[0]


async def test_a_mended_trouble_is_over(lab: Lab, enforcer: Enforcer) -> None:
    """A look makes it true and takes it out of status; the same words are logged and counted once."""
    pod = lab.pod("a", asks("", network(ingress="40M")))
    lab.shaper.fails["apply"] = errno.EBUSY
    await refusal_of(enforcer.run_pod_sandbox(pod))
    for _ in range(3):
        await enforcer.look_round()
    assert lab.counted("failures_total", kind="network") == 1
    assert len(lab.told("not-held")) == 1
    lab.shaper.fails.clear()
    await enforcer.look_round()
    assert (enforcer.troubles.of, lab.rates(pod)) == ({}, Rates(40_000_000, None))


async def test_what_cannot_be_meant_is_left_out(lab: Lab, enforcer: Enforcer) -> None:
    """The rest is held; it is told in an Event and in status, also after looks, and counted once."""
    pod = lab.pod("a", asks("{", network(ingress="40M", egress="20M")))
    await start(enforcer, pod)
    assert (lab.rates(pod), lab.io(pod)) == (RATES, {})
    await enforcer.look_at_all()
    await enforcer.create_container(pod, app(pod, 2))
    assert lab.counted("skipped_total", kind="disk") == 1
    assert set(lab.reasons()) == {"RequestMalformed"}
    (status,) = await enforcer.status()
    assert len(status.skipped) == 1
    assert keys.DISK in status.skipped[0]


# The watch, drift, and what others do.


async def test_limits_changed_by_the_watch(lab: Lab, enforcer: Enforcer) -> None:
    """They are put in force and logged as such, not as drift; a restart of the container or of us does not bring old ones back."""
    pod = lab.pod("a", BOTH)
    await start(enforcer, pod)
    lab.watch.say(pod, asks(disk(data="2Mi", layers="1Mi"), network(ingress="40M", egress="5M")), spec())
    await enforcer.close()
    assert lab.io_of(pod, DATA_DISK) == limits(2 * MI)
    assert lab.rates(pod) == Rates(40_000_000, 5_000_000)
    assert {line["kind"] for line in lab.told("limits-changed")} == {"disk", "network"}
    assert lab.counted("drift_repairs_total", kind="disk") == 0
    again = lab.enforcer()  # its watch knows nothing yet
    await again.synchronize([pod], [app(pod)])
    await again.create_container(pod, app(pod, 2))
    assert lab.io_of(pod, DATA_DISK) == limits(2 * MI)
    assert (await again.status())[0].source == "watch"
    await again.close()


async def test_changes_for_pods_that_are_not_here(lab: Lab, enforcer: Enforcer) -> None:
    """The API server knows a pod before the runtime does: nothing is done until its sandbox runs."""
    pod = lab.pod("a", BOTH)
    before = lab.snapshot()
    lab.watch.say(pod, BOTH, spec())
    lab.watch.forget("a")
    await asyncio.gather(*enforcer.turns.tasks)
    assert lab.snapshot() == before


async def test_a_look_sees_what_was_done_before_its_turn(
    lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that waited behind another sandbox with other annotations does not bring the old ones back."""
    first = lab.pod("a", BOTH)
    await start(enforcer, first)
    less = asks(disk(data="2Mi"), network(ingress="5M", egress="5M"))
    second = lab.pod("a", less, 2)
    gate = Gate(monkeypatch, lab.shaper, "observe")
    running = asyncio.ensure_future(enforcer.run_pod_sandbox(second))
    await gate.wait()
    look = asyncio.ensure_future(enforcer.look("a"))
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(running, look)
    assert lab.rates(second) == Rates(5_000_000, 5_000_000)
    assert enforcer.holder.ledger.all()[0].intent.annotations[keys.NETWORK] == less[keys.NETWORK]


@pytest.mark.parametrize("which", ["disk", "network"])
async def test_drift_is_repaired_and_counted(lab: Lab, enforcer: Enforcer, which: str) -> None:
    """Whoever wrote there, it is told and put back; a second look finds nothing."""
    pod = lab.pod("a", BOTH)
    await start(enforcer, pod)
    interface = lab.interface(pod)
    if which == "disk":
        lab.cgroups.foreign(pod.cgroup_parent, DATA_DISK, UNLIMITED)
    else:
        lab.network.unlimit(interface)
        enforcer.changed(Changes(frozenset({interface.index}), frozenset(), lost=False))
        await asyncio.gather(*enforcer.turns.tasks)
    await enforcer.look_round()
    await enforcer.look_at_all()
    assert held(lab, pod)
    assert lab.counted("drift_repairs_total", kind=which) == 1
    assert [line["kind"] for line in lab.told("drift-repaired")] == [which]


async def test_limits_that_stand_already_are_kept(lab: Lab, enforcer: Enforcer) -> None:
    """The record of a pod was lost while its limits stood: it is told as held, and what somebody changes is put back."""
    pod = lab.pod("a", BOTH)
    await start(enforcer, pod)
    for path in (lab.folder / "state" / "pods").iterdir():
        path.unlink()
    anew = lab.enforcer()
    await start(anew, pod)
    (status,) = await anew.status()
    assert status.disk
    assert all(one.asked == one.applied == one.observed for one in status.disk)
    lab.cgroups.foreign(pod.cgroup_parent, DATA_DISK, UNLIMITED)
    await anew.look_round()
    assert held(lab, pod)
    assert lab.counted("drift_repairs_total", kind="disk") == 1
    await anew.close()


async def test_a_pod_s_update_is_looked_at(lab: Lab, enforcer: Enforcer) -> None:
    """Whoever resizes a container may have changed the pod's cgroup."""
    pod = lab.pod("a", BOTH)
    one = await start(enforcer, pod)
    lab.cgroups.foreign(pod.cgroup_parent, DATA_DISK, UNLIMITED)
    await enforcer.update_container(pod, one)
    await asyncio.gather(*enforcer.turns.tasks)
    assert held(lab, pod)


async def test_frames_that_pass_the_class_are_told(
    lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pod moves frames and the class counts none: an Event says so; a pod that has gone is not spoken of."""
    pod = lab.pod("a", BOTH)
    await start(enforcer, pod)
    sent = iter([0, 10 << 20, 10 << 20])
    monkeypatch.setattr(lab.shaper, "counters", lambda *_: Counters(5, 7, 0, next(sent)))
    for _ in range(3):
        await enforcer.look_round()
    assert lab.reasons() == ["NetworkLimitPassedBy"]
    assert "what the pod sends passes the class that holds its egress" in lab.notes()[0]


# Ends that fail, and memory.


@pytest.mark.parametrize("removed", [False, True])
async def test_an_end_that_fails_is_tried_again(lab: Lab, enforcer: Enforcer, removed: bool) -> None:
    """The runtime is not held up; the next look ends it, and holds nothing anew meanwhile."""
    pod = lab.pod("a", BOTH)
    before = lab.snapshot()
    await start(enforcer, pod)
    lab.shaper.fails["remove"] = errno.EPERM
    await stop(enforcer, pod)
    if removed:
        await remove(enforcer, pod)
    assert lab.told("not-undone")[0]["reason"] == "NotAllowed"
    applied = lab.shaper.applied
    await enforcer.look_round()
    assert lab.shaper.applied == applied
    lab.shaper.fails.clear()
    await enforcer.look_round()
    assert lab.rates(pod) == UNSHAPED
    if removed:
        assert lab.snapshot() == before
        assert enforcer.holder.ledger.all() == ()
    assert enforcer._ends == {}


async def test_an_end_that_failed_is_over_when_the_pod_runs_again(lab: Lab, enforcer: Enforcer) -> None:
    """A static pod of the same uid, for one: what was to be undone of the old sandbox does not reach the new one."""
    pod = lab.pod("a", BOTH)
    await start(enforcer, pod)
    lab.shaper.fails["remove"] = errno.EPERM
    enforcer.disconnected()
    await enforcer.synchronize([], [])
    assert "a" in enforcer._ends
    lab.shaper.fails.clear()
    lab.end(pod)
    second = lab.pod("a", BOTH, 2)
    await start(enforcer, second)
    await enforcer.look_round()
    assert held(lab, second)


async def test_nothing_is_kept_of_pods_that_have_gone(
    lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Troubles, what was left out, counters, turns: also of pods that never had a record."""
    for number in range(5):
        pod = lab.pod(f"a{number}", {**asks("{", network(ingress="40M"))}, foreign="tbf" if number % 2 else "")
        with pytest.MonkeyPatch.context() as patch:
            if number == 4:
                patch.setattr(Ledger, "_replace", _full)
            for work in (enforcer.run_pod_sandbox(pod), enforcer.create_container(pod, app(pod))):
                await asyncio.gather(work, return_exceptions=True)
        await enforcer.look_round()
        await enforcer.look_round()
        await stop(enforcer, pod)
        await remove(enforcer, pod)
    enforcer.count()
    kept = (
        enforcer.troubles.of,
        enforcer.troubles.skipped,
        enforcer.bypass.counted,
        enforcer.bypass.looks,
        enforcer._ends,
    )
    assert [dict(one) for one in kept] == [{}] * 5
    assert (dict(enforcer.turns.locks), dict(enforcer.turns.waiting), enforcer.turns.tasks) == ({}, {}, set())
    assert [lab.counted("pods", kind=kind) for kind in ("disk", "network", "rdt")] == [0, 0, 0]


def _full(_ledger: Ledger, _path: Path, _data: bytes) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_pod_whose_record_cannot_be_written(
    lab: Lab, enforcer: Enforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its start is refused and nothing is done; a container that slips through is refused by VALIDATE."""
    pod = lab.pod("a", BOTH)
    before = lab.snapshot()
    monkeypatch.setattr(Ledger, "_replace", _full)
    refusal = await refusal_of(enforcer.create_container(pod, app(pod)))
    assert (refusal.reason, str(refusal).count("ENOSPC")) == ("NotHeld", 2)
    assert lab.snapshot() == before
    assert (await refusal_of(enforcer.validate(Validation(pod, app(pod), UNADJUSTED, Owners())))).reason == "NotHeld"


async def test_a_hundred_pods_at_once(lab: Lab, enforcer: Enforcer) -> None:
    """All are held, each as it asks; when all have gone, all is as it was."""
    pods = [lab.pod(f"p{number}", asks(disk(data=f"{number + 1}Mi"), network(ingress=f"{number + 1}M"))) for number in range(100)]  # fmt: skip
    before = lab.snapshot()
    await asyncio.gather(*(start(enforcer, pod) for pod in pods))
    for number, pod in enumerate(pods):
        assert lab.io(pod) == {DATA_DISK: limits((number + 1) * MI)}
        assert lab.rates(pod) == Rates((number + 1) * 1_000_000, None)
    enforcer.count()
    assert lab.counted("pods", kind="disk") == lab.counted("pods", kind="network") == 100
    again = lab.enforcer()
    await asyncio.gather(again.synchronize(pods, [app(pod) for pod in pods]), again.look_at_all())

    async def end(pod: Sandbox) -> None:
        await again.stop_pod_sandbox(pod)
        await remove(again, pod)

    await asyncio.gather(*map(end, pods))
    await again.close()
    assert lab.snapshot() == before


async def test_close_waits_for_what_is_under_way(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that is half set is set when the process ends."""
    enforcer = lab.enforcer()
    pod = lab.pod("a", BOTH)
    gate = Gate(monkeypatch, lab.shaper, "apply")
    late = asyncio.ensure_future(enforcer.create_container(pod, app(pod)))
    await gate.wait()
    late.cancel()
    closing = asyncio.ensure_future(enforcer.close())
    await asyncio.sleep(0)
    assert not closing.done()
    gate.open()
    await closing
    assert held(lab, pod)
