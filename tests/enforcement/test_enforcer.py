"""What the enforcer answers and does: the handler's contract, order of events, races, and what it keeps in memory."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from enforcerlab import DATA_DISK, PLUGIN, ROOT_DISK, Lab, asks, container, disk, limits, network, spec
from fakenetwork import Ifb
from fakeresctrl import INTEL, FakeResctrl

from noisegate.enforcement.actions import UNLIMITED, UNSHAPED, IoLimits, Rates
from noisegate.enforcement.enforcer import Enforcer
from noisegate.enforcement.kernel.resctrl import Resctrl
from noisegate.enforcement.kernel.tcwatch import Changes
from noisegate.enforcement.ledger import Ledger
from noisegate.enforcement.nri.events import (
    UNADJUSTED,
    Adjustment,
    Container,
    Owners,
    Sandbox,
    State,
    Validation,
)
from noisegate.enforcement.plan.network import Counters
from noisegate.enforcement.plan.partitions import read
from noisegate.enforcement.rdt import NodeRdt
from noisegate.enforcement.refusal import Refusal
from noisegate.isolation import keys

MI: Final = 1 << 20
BOTH: Final = asks(disk(data="4Mi", layers="1Mi"), network(ingress="40M", egress="20M"))
RATES: Final = Rates(40_000_000, 20_000_000)
SECONDS: Final = 20.0
CLASSES: Final = "partitions: {p: {l3Allocation: '100%', classes: {gold: {l3Allocation: '50%'}}}}"


@pytest.fixture(name="lab")
def _lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture(name="enforcer")
async def _enforcer(lab: Lab) -> AsyncIterator[Enforcer]:
    one = lab.enforcer()
    yield one
    await one.close()


def app(sandbox: Sandbox, number: int = 1) -> Container:
    """Return a pod's container, with its volume on the data disk."""
    return container(sandbox, number=number, data="/data/x", more="/srv/x")


async def start(enforcer: Enforcer, sandbox: Sandbox) -> Container:
    """Run a pod with one container."""
    await enforcer.run_pod_sandbox(sandbox)
    one = app(sandbox)
    await enforcer.create_container(sandbox, one)
    return one


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


# A pod's life.


async def test_a_pod_is_held_before_each_answer(lab: Lab, enforcer: Enforcer) -> None:
    """The network when RunPodSandbox is answered, the disks when CreateContainer is; at the end all is as it was."""
    pod = lab.pod("a", BOTH)
    before = lab.snapshot()
    await enforcer.run_pod_sandbox(pod)
    assert lab.rates(pod) == RATES
    assert await enforcer.create_container(pod, app(pod)) == UNADJUSTED
    assert held(lab, pod)
    await enforcer.stop_pod_sandbox(pod)
    assert lab.rates(pod) == UNSHAPED
    await enforcer.remove_pod_sandbox(pod)
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
        await enforcer.remove_pod_sandbox(plain)
    assert threading.active_count() == threads
    assert {file: file.stat().st_mtime_ns for file in lab.folder.rglob("*")} == files
    assert (enforcer.troubles.of, enforcer.troubles.skipped, enforcer.turns.locks, enforcer._ends) == ({}, {}, {}, {})


async def test_excluded_namespaces_are_left_alone(lab: Lab) -> None:
    """Also where they ask; what was held before the namespace was excluded is given back at the next list."""
    first = lab.enforcer()
    pod = lab.pod("a", BOTH)
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
    await enforcer.remove_pod_sandbox(stays)
    assert lab.snapshot() == before


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
    await again.remove_pod_sandbox(down)
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
    await again.remove_pod_sandbox(old)
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
    await enforcer.stop_pod_sandbox(pod)
    if removed:
        await enforcer.remove_pod_sandbox(pod)
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


async def test_what_cannot_be_collected_is_told(lab: Lab, enforcer: Enforcer) -> None:
    """And nothing else is held up by it."""
    lab.shaper.fails["ours"] = errno.EPERM
    pod = lab.pod("a", BOTH)
    await enforcer.synchronize([pod], [app(pod)])
    assert held(lab, pod)
    assert "EPERM" in lab.told("not-collected")[0]["told"]


# Ends that fail, and memory.


@pytest.mark.parametrize("removed", [False, True])
async def test_an_end_that_fails_is_tried_again(lab: Lab, enforcer: Enforcer, removed: bool) -> None:
    """The runtime is not held up; the next look ends it, and holds nothing anew meanwhile."""
    pod = lab.pod("a", BOTH)
    before = lab.snapshot()
    await start(enforcer, pod)
    lab.shaper.fails["remove"] = errno.EPERM
    await enforcer.stop_pod_sandbox(pod)
    if removed:
        await enforcer.remove_pod_sandbox(pod)
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
        await enforcer.stop_pod_sandbox(pod)
        await enforcer.remove_pod_sandbox(pod)
    enforcer.count()
    kept = (enforcer.troubles.of, enforcer.troubles.skipped, enforcer._counters, enforcer._counted, enforcer._ends)
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
        await again.remove_pod_sandbox(pod)

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


# RDT and VALIDATE.


@pytest.fixture(name="rdt")
def _rdt(lab: Lab) -> NodeRdt:
    (lab.folder / "rdt").mkdir()
    fake = FakeResctrl(lab.folder / "rdt", INTEL)
    rdt = NodeRdt(Resctrl(fake.root, fake.mountinfo, fake), runtime_config="", starts_in_group=True)
    rdt.load(read(CLASSES, "classes.yaml"))
    rdt.reconcile()
    return rdt


GOLD: Final = {keys.RDT_OWN_POD: "gold"}


async def test_a_class_is_in_the_answer(lab: Lab, rdt: NodeRdt) -> None:
    """The container starts in its group, and the class counts as used."""
    enforcer = lab.enforcer(rdt=rdt)
    pod = lab.pod("a", GOLD)
    assert await enforcer.create_container(pod, app(pod)) == Adjustment(clos_id="noisegate-gold")
    assert enforcer.classes_in_use() == {"gold"}
    enforcer.count()
    assert lab.counted("pods", kind="rdt") == 1
    await enforcer.remove_pod_sandbox(pod)
    assert enforcer.classes_in_use() == set()
    await enforcer.close()


async def test_a_class_that_cannot_be_given(lab: Lab, rdt: NodeRdt) -> None:
    """It is told beside the other kinds' troubles and stays in status until a container has its class."""
    enforcer = lab.enforcer(rdt=rdt)
    pod = lab.pod("a", {**BOTH, keys.RDT_OWN_POD: "golt"}, foreign="tbf")
    refusal = await refusal_of(enforcer.create_container(pod, app(pod)))
    assert "rdt: RDT class golt is unknown on this node; known: gold (write gold)" in str(refusal)
    assert "network: veth1 has a root qdisc tbf" in str(refusal)
    await enforcer.look_round()
    assert set(enforcer.troubles.of["a"]) == {"network", "rdt"}
    assert lab.counted("failures_total", kind="rdt") == lab.counted("refusals_total", kind="rdt") == 1
    assert set(lab.reasons()) == {"RdtClassUnknown", "ForeignQdisc"}
    await enforcer.close()


async def test_rdt_that_is_switched_off(lab: Lab, rdt: NodeRdt) -> None:
    """Who asks for a class of ours is refused; the runtime's own keys are the runtime's."""
    enforcer = lab.enforcer(lab.holder(enforced=("disk", "network")), rdt)
    pod = lab.pod("a", GOLD)
    assert (await refusal_of(enforcer.create_container(pod, app(pod)))).reason == "NotEnforced"
    theirs = lab.pod("b", {**BOTH, keys.RDT_RUNTIME_POD: "gold"})
    assert await enforcer.create_container(theirs, app(theirs)) == UNADJUSTED
    await enforcer.close()


def proposal(pod: Sandbox, one: Container, **what: Any) -> Validation:
    """Return what is about to be done to a container, by us unless it is said otherwise."""
    adjustment = Adjustment(rdt_class=what.get("rdt_class"), clos_id=what.get("clos_id", "noisegate-gold"))
    owners = Owners(what.get("rdt_class_by", ""), what.get("clos_id_by", PLUGIN), what.get("schemata_by", ""))
    return Validation(pod, one, adjustment, owners, (PLUGIN, "90-other"))


class Test_validation:  # noqa: N801  (the name is part of the sentence)
    """A container that asks starts as it was held, or not at all."""

    async def test_agrees_to_what_we_answered(self, lab: Lab, rdt: NodeRdt) -> None:
        """Ours, unchanged, by us."""
        enforcer = lab.enforcer(rdt=rdt)
        pod = lab.pod("a", {**BOTH, **GOLD})
        one = await start(enforcer, pod)
        await enforcer.validate(proposal(pod, one))
        await enforcer.close()

    @pytest.mark.parametrize(
        ("changed", "told"),
        [
            ({"clos_id": "theirs"}, "clos_id of container app would be theirs by plugin 10-noisegate instead of noisegate-gold"),
            ({"clos_id": None, "clos_id_by": ""}, "would be none by plugin nobody instead of noisegate-gold"),
            ({"clos_id_by": "90-other"}, "would be noisegate-gold by plugin 90-other instead of"),
            ({"clos_id_by": "-90-other"}, "by plugin -90-other instead of"),
            ({"schemata_by": "90-other"}, "plugin 90-other would change the schemata of noisegate-gold"),
        ],
    )  # fmt: skip
    async def test_refuses_what_another_made_of_it(
        self, lab: Lab, rdt: NodeRdt, changed: dict[str, Any], told: str
    ) -> None:
        """Value and owner must be ours; and nobody else may say what the group means."""
        enforcer = lab.enforcer(rdt=rdt)
        pod = lab.pod("a", GOLD)
        one = await start(enforcer, pod)
        refusal = await refusal_of(enforcer.validate(proposal(pod, one, **changed)))
        assert (refusal.reason, told in refusal.told) == ("AdjustmentChanged", True)
        await enforcer.close()

    async def test_where_the_runtime_owns_rdt(self, lab: Lab, rdt: NodeRdt) -> None:
        """The class itself is what must be ours."""
        theirs = NodeRdt(rdt._resctrl, runtime_config="/etc/rdt.yaml", starts_in_group=True)
        rdt._resctrl._calls.mkdir(rdt._resctrl.root / "silver")
        theirs.reconcile()
        enforcer = lab.enforcer(rdt=theirs)
        pod = lab.pod("a", {keys.RDT_OWN_POD: "silver"})
        one = app(pod)
        assert await enforcer.create_container(pod, one) == Adjustment(rdt_class="silver")
        good: dict[str, Any] = {"clos_id": None, "clos_id_by": "", "rdt_class": "silver", "rdt_class_by": PLUGIN}
        await enforcer.validate(proposal(pod, one, **good))
        refusal = await refusal_of(enforcer.validate(proposal(pod, one, **{**good, "rdt_class": "gold"})))
        assert "rdt_class of container app would be gold" in refusal.told
        await enforcer.close()

    @pytest.mark.parametrize("before", ["nothing", "another container", "its predecessor"])
    async def test_refuses_who_was_not_held(self, lab: Lab, enforcer: Enforcer, before: str) -> None:
        """CreateContainer never reached us for this very container, whatever reached us before."""
        pod = lab.pod("a", BOTH)
        if before != "nothing":
            await enforcer.create_container(pod, app(pod) if before == "its predecessor" else container(pod, "other"))
        refusal = await refusal_of(enforcer.validate(Validation(pod, app(pod, 2), UNADJUSTED, Owners())))
        assert (refusal.reason, "container app asks for limits" in refusal.told) == ("NotHeld", True)

    async def test_agrees_after_a_restart_of_ours(self, lab: Lab, enforcer: Enforcer) -> None:
        """CreateContainer was answered by the process before: the ledger knows the container."""
        pod = lab.pod("a", BOTH)
        one = await start(enforcer, pod)
        again = lab.enforcer()
        await again.validate(Validation(pod, one, UNADJUSTED, Owners()))
        await again.close()

    async def test_does_not_concern_who_asks_for_nothing_that_can_be_meant(self, lab: Lab, enforcer: Enforcer) -> None:
        """What is malformed is left out, never refused."""
        pod = lab.pod("a", asks("{"))
        await enforcer.validate(Validation(pod, app(pod), UNADJUSTED, Owners("90-other", "90-other", "90-other")))

    async def test_refuses_a_class_that_went_in_between(self, lab: Lab, rdt: NodeRdt) -> None:
        """The class file changed between CREATE and VALIDATE."""
        enforcer = lab.enforcer(rdt=rdt)
        pod = lab.pod("a", GOLD)
        one = await start(enforcer, pod)
        rdt.load(None)
        rdt.reconcile()
        assert (await refusal_of(enforcer.validate(proposal(pod, one)))).reason in {"RdtNotAvailable", "ClassKept"}
        await enforcer.close()


async def test_foreign_limits_come_back(lab: Lab, enforcer: Enforcer) -> None:
    """What others had on a device that is asked for stands again when the pod has gone."""
    pod = lab.pod("a", BOTH)
    lab.cgroups.foreign(pod.cgroup_parent, DATA_DISK, IoLimits(rbps=7777, riops=99))
    before = lab.picture()
    await start(enforcer, pod)
    assert held(lab, pod)
    await enforcer.stop_pod_sandbox(pod)
    await enforcer.remove_pod_sandbox(pod)
    assert lab.picture() == before
