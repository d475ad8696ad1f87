"""One pod held: taken, renewed, changed, stopped, released; what fails leaves what stood, and is told."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from enforcerlab import DATA_DISK, ROOT_DISK, Lab, asks, container, disk, limits, network
from hypothesis import given, settings
from hypothesis import strategies as st

from noisegate.enforcement.actions import UNLIMITED, UNSHAPED, Device, IoLimits, Rates, SetIo
from noisegate.enforcement.holder import Held, Holder
from noisegate.enforcement.intent import intent as intents
from noisegate.enforcement.intent.intent import Intent, choose
from noisegate.enforcement.ledger import Ledger
from noisegate.enforcement.nri.events import Sandbox
from noisegate.enforcement.refusal import Refusal
from noisegate.isolation import keys

BOTH: Final = asks(disk(data="4Mi", more="2Mi", layers="1Mi"), network(ingress="40M", egress="20M"))
MI: Final = 1 << 20


@pytest.fixture(name="holder")
def _holder(lab: Lab) -> Holder:
    return lab.holder()


def intent(sandbox: Sandbox, annotations: dict[str, str] | None = None) -> Intent:
    """Return what a pod asks for, as the runtime says it."""
    said = dict(sandbox.annotations) if annotations is None else annotations
    return choose(intents.Sandbox(sandbox.uid, sandbox.namespace, sandbox.name, said, not sandbox.netns))


def take(holder: Holder, sandbox: Sandbox, annotations: dict[str, str] | None = None) -> Held:
    """Take a pod with its container, whose volumes lie on both disks."""
    return holder.take(intent(sandbox, annotations), sandbox, (container(sandbox, data="/data/a", more="/srv/b"),))


def test_what_is_asked_stands(lab: Lab, holder: Holder) -> None:
    """Entries on one disk are added up; both directions of the network are held; the record says all of it."""
    pod = lab.pod("a", BOTH)
    held = take(holder, pod)
    assert (held.refusals, held.written) == ({}, {"disk": 2, "network": 1})
    assert lab.io(pod) == {DATA_DISK: limits(4 * MI), ROOT_DISK: limits(3 * MI)}
    assert lab.rates(pod) == Rates(40_000_000, 20_000_000)
    (record,) = Ledger.open(lab.folder / "state", "boot").all()
    assert {one.device: one.wanted for one in record.io} == lab.io(pod)
    assert record.network is not None
    assert record.network.interface == lab.interface(pod)
    assert [one.name for one in record.containers] == ["app"]


_rate = st.none() | st.integers(2, 1 << 40)
_line = st.builds(IoLimits, _rate, _rate, st.none() | st.integers(2, 1 << 30), st.none() | st.integers(2, 1 << 30))


@settings(deadline=None, max_examples=50)
@given(
    foreign=st.dictionaries(st.sampled_from([ROOT_DISK, DATA_DISK]), _line),
    entries=st.dictionaries(st.sampled_from(["data", "more", "layers"]), st.sampled_from(["1Mi", "4Mi", "8Mi"])),
    rates=st.dictionaries(st.sampled_from(["ingress", "egress"]), st.sampled_from(["1M", "40M"])),
)
def test_take_then_release_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    foreign: dict[Device, IoLimits],
    entries: dict[str, str],
    rates: dict[str, str],
) -> None:
    """Whatever others have on the same devices and elsewhere comes back, and no record is left."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    holder = lab.holder()
    pod = lab.pod("a", asks(disk(**entries) if entries else "", network(**rates) if rates else ""))
    other = lab.pod("b", {})
    for device, line in foreign.items():
        lab.cgroups.foreign(pod.cgroup_parent, device, line)
        lab.cgroups.foreign(other.cgroup_parent, device, line)
    before = lab.picture()
    assert take(holder, pod).refusals == {}
    holder.release(pod.uid)
    assert lab.picture() == before
    assert list((lab.folder / "state/pods").iterdir()) == []


class Counting:
    """Counts what is written: to the kernel's files, to the network, to the ledger."""

    def __init__(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        self.io = self.ledger = 0
        self._applied = lab.shaper.applied
        self._lab = lab
        write, put = lab.cgroups._write, Ledger._replace

        def counted(folder: int, name: str, data: bytes) -> None:
            self.io += 1
            write(folder, name, data)

        def kept(ledger: Ledger, path: Path, data: bytes) -> None:
            self.ledger += 1
            put(ledger, path, data)

        monkeypatch.setattr(lab.cgroups, "_write", counted)
        monkeypatch.setattr(Ledger, "_replace", kept)

    def all(self) -> tuple[int, int, int]:
        """Return the three numbers."""
        return self.io, self._lab.shaper.applied - self._applied, self.ledger


def test_a_pod_that_is_held_costs_no_write(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewed or taken once more, by the same process or the next: nothing is written anywhere."""
    holder = lab.holder()
    pod = lab.pod("a", BOTH)
    take(holder, pod)
    counting = Counting(lab, monkeypatch)
    assert holder.renew(intent(pod)) == Held()
    assert take(holder, pod) == Held()
    again = lab.holder()
    assert again.renew(intent(pod)) == Held()
    assert take(again, pod) == Held()
    assert counting.all() == (0, 0, 0)


def test_other_limits_are_put_in_force(lab: Lab, holder: Holder) -> None:
    """Less, more, a kind less: the record follows, and what is no longer asked for goes back to what it was."""
    pod = lab.pod("a", BOTH)
    lab.cgroups.foreign(pod.cgroup_parent, DATA_DISK, IoLimits(rbps=7777))
    take(holder, pod)
    less = asks(disk(data="1Mi"), network(egress="5M"))
    assert holder.renew(intent(pod, less)).written == {"disk": 2, "network": 1}
    assert (lab.io(pod), lab.rates(pod)) == ({DATA_DISK: limits(MI)}, Rates(None, 5_000_000))
    assert holder.renew(intent(pod, {})).written == {"disk": 1, "network": 1}
    assert (lab.io(pod), lab.rates(pod)) == ({DATA_DISK: IoLimits(rbps=7777)}, UNSHAPED)
    (record,) = holder.ledger.all()
    assert (record.io, record.network) == ((), None)


def test_a_container_made_anew_moves(lab: Lab, holder: Holder) -> None:
    """Its volume lies elsewhere now: the old device is free again; other containers stay where they are."""
    where = '{"data": {"app": "/data"}, "more": {"side": "/more"}}'
    pod = lab.pod("a", {**asks(disk(data="4Mi", more="2Mi")), keys.VOLUME_PATHS: where})
    holder.take(intent(pod), pod, (container(pod, data="/data/a"), container(pod, "side", more="/srv/b")))
    assert lab.io(pod) == {DATA_DISK: limits(4 * MI), ROOT_DISK: limits(2 * MI)}
    holder.take(intent(pod), pod, (container(pod, number=2, data="/srv/a"),))
    assert lab.io(pod) == {ROOT_DISK: limits(6 * MI)}
    (record,) = holder.ledger.all()
    assert [one.id for one in record.containers] == ["a-side-1", "a-app-2"]


def test_both_troubles_are_told(lab: Lab, holder: Holder) -> None:
    """A volume on NFS and a foreign qdisc: each kind has its reason, and neither is touched."""
    pod = lab.pod("a", BOTH, foreign="tbf")
    before = lab.snapshot()
    held = holder.take(intent(pod), pod, (container(pod, data="/nfs/a", more="/srv/b"),))
    assert {kind: refusal.reason for kind, refusal in held.refusals.items()} == {
        "disk": "VolumeNotThrottled",
        "network": "ForeignQdisc",
    }
    assert lab.snapshot() == before


def test_what_one_kind_lacks_does_not_keep_the_other_from_its_limits(lab: Lab, holder: Holder) -> None:
    """Disk is held where network cannot be, and the other way round."""
    pod = lab.pod("a", BOTH)
    lab.shaper.fails["apply"] = errno.EOPNOTSUPP
    held = take(holder, pod)
    assert {kind: refusal.reason for kind, refusal in held.refusals.items()} == {"network": "ShaperMissing"}
    assert lab.io_of(pod, DATA_DISK) == limits(4 * MI)
    lab.shaper.fails.clear()
    lab.cgroups.unplug(DATA_DISK)
    held = holder.renew(intent(pod))
    assert {kind: refusal.reason for kind, refusal in held.refusals.items()} == {"disk": "DeviceNotThrottled"}
    assert "ENODEV" in held.refusals["disk"].told
    assert lab.rates(pod) == Rates(40_000_000, 20_000_000)


def test_all_lines_or_none(lab: Lab, holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second line is refused: the first one is as it was, and the record still leads to what stood before."""
    pod = lab.pod("a", BOTH)
    lab.cgroups.foreign(pod.cgroup_parent, ROOT_DISK, IoLimits(rbps=7777))
    before = lab.snapshot()
    lab.cgroups.disks.discard(DATA_DISK)
    held = take(holder, pod)
    assert held.refusals["disk"].reason == "DeviceNotThrottled"
    assert lab.cgroups.snapshot().items() <= before.items()
    holder.release(pod.uid)
    assert lab.snapshot() == before


def test_limits_of_a_damaged_record_are_ours(lab: Lab) -> None:
    """What stood before them is not known any more; what stands as we would write it goes with the pod, others' stays."""
    pod = lab.pod("a", BOTH)
    before = lab.snapshot()
    take(lab.holder(), pod)
    (lab.folder / "state/pods/a.json").write_text("{")
    lab.cgroups.foreign(pod.cgroup_parent, ROOT_DISK, IoLimits(rbps=7777))
    holder = lab.holder()
    assert holder.ledger.lost == {"a"}
    assert take(holder, pod).refusals == {}
    holder.release(pod.uid)
    assert lab.io(pod) == {ROOT_DISK: IoLimits(rbps=7777)}
    assert holder.ledger.lost == set()
    lab.cgroups.foreign(pod.cgroup_parent, ROOT_DISK, UNLIMITED)
    assert lab.snapshot() == before


def test_a_disk_that_vanished_takes_no_limit_of_another_along(lab: Lab, holder: Holder) -> None:
    """What runs is held as far as it can be: what somebody reset is put back, and a change comes, also after our restart."""
    pod = lab.pod("a", BOTH)
    assert take(holder, pod).refusals == {}
    root = lab.io_of(pod, ROOT_DISK)
    assert root != UNLIMITED
    lab.cgroups.unplug(DATA_DISK)
    lab.cgroups.foreign(pod.cgroup_parent, ROOT_DISK, UNLIMITED)
    assert holder.renew(intent(pod)).refusals["disk"].reason == "DeviceNotThrottled"
    assert lab.io(pod) == {ROOT_DISK: root}
    lab.cgroups.foreign(pod.cgroup_parent, ROOT_DISK, UNLIMITED)
    again = lab.holder()
    app = container(pod, data="/data/a", more="/srv/b")
    assert again.take(intent(pod), pod, [app], starts=False).refusals["disk"].reason == "DeviceNotThrottled"
    assert lab.io(pod) == {ROOT_DISK: root}
    # A container that cannot start leaves the others as they were.
    assert take(again, pod).refusals["disk"].reason == "DeviceNotThrottled"
    assert lab.io(pod) == {ROOT_DISK: root}


def test_limits_that_do_not_stand_are_a_refusal(lab: Lab, holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes the write and says something else: what was asked for is told beside what is there."""
    pod = lab.pod("a", asks(disk(data="4Mi")))
    write = lab.cgroups._write
    monkeypatch.setattr(lab.cgroups, "_write", lambda folder, name, data: write(folder, name, data.replace(b"wbps=4194304", b"wbps=max")))  # fmt: skip
    refusal = take(holder, pod).refusals["disk"]
    assert (refusal.reason, "wbps=4194304" in refusal.told, "wbps=max" in refusal.told) == ("LimitNotHeld", True, True)
    assert refusal.mend
    assert lab.io(pod) == {}


def test_kinds_that_are_switched_off(lab: Lab) -> None:
    """Who asks for them is refused; who does not is held."""
    holder = lab.holder(enforced=("network",))
    pod = lab.pod("a", BOTH)
    held = take(holder, pod)
    assert {kind: refusal.reason for kind, refusal in held.refusals.items()} == {"disk": "NotEnforced"}
    assert (lab.io(pod), lab.rates(pod)) == ({}, Rates(40_000_000, 20_000_000))
    assert take(holder, lab.pod("b", asks("", network(egress="5M")))).refusals == {}


class Test_another_sandbox:  # noqa: N801  (the name is part of the sentence)
    """A pod whose pause process died gets another sandbox: another network namespace, the same cgroup."""

    def test_is_shaped_and_the_old_ifb_goes(self, lab: Lab, holder: Holder) -> None:
        """Nobody told that the first one stops."""
        first = lab.pod("a", BOTH)
        take(holder, first)
        lab.end(first)
        second = lab.pod("a", BOTH, 2)
        assert take(holder, second).refusals == {}
        assert lab.rates(second) == Rates(40_000_000, 20_000_000)
        assert len(lab.network.ifbs()) == 1
        (record,) = holder.ledger.all()
        assert (record.sandbox, record.netns) == (second.id, second.netns)

    def test_that_cannot_be_limited_by_disk_is_shaped(self, lab: Lab, holder: Holder) -> None:
        """What fails first does not lead the rest to the sandbox that has gone."""
        first = lab.pod("a", BOTH)
        take(holder, first)
        lab.end(first)
        second = lab.pod("a", BOTH, 2)
        lab.remove(second)
        held = take(holder, second)
        assert {kind: refusal.reason for kind, refusal in held.refusals.items()} == {"disk": "CgroupGone"}
        assert lab.rates(second) == Rates(40_000_000, 20_000_000)

    def test_whose_predecessor_cannot_be_freed(self, lab: Lab, holder: Holder) -> None:
        """It is told as the network's trouble, disk is held, and the next look does the rest."""
        first = lab.pod("a", BOTH)
        take(holder, first)
        lab.end(first)
        lab.shaper.fails["remove"] = errno.EPERM
        second = lab.pod("a", BOTH, 2)
        held = take(holder, second)
        assert {kind: refusal.reason for kind, refusal in held.refusals.items()} == {"network": "NotAllowed"}
        lab.shaper.fails.clear()
        assert holder.renew(intent(second)).refusals == {}
        assert len(lab.network.ifbs()) == 1
        holder.release("a")
        assert lab.network.ifbs() == []

    def test_is_not_undone_by_the_end_of_the_first(self, lab: Lab, holder: Holder) -> None:
        """StopPodSandbox and RemovePodSandbox of the old one may come late."""
        first, second = lab.pod("a", BOTH), lab.pod("a", BOTH, 2)
        take(holder, first)
        take(holder, second)
        before = lab.snapshot()
        holder.stop("a", first.id)
        holder.release("a", first.id)
        assert lab.snapshot() == before
        assert holder.ledger.get("a") is not None


def test_a_stopped_sandbox_is_held_to_nothing(lab: Lab, holder: Holder) -> None:
    """Its network is freed, its cgroup left as it is until the pod goes; a look finds nothing to do."""
    pod = lab.pod("a", BOTH)
    before = lab.snapshot()
    take(holder, pod)
    holder.stop("a", pod.id)
    lab.end(pod)
    assert lab.network.ifbs() == []
    assert lab.io_of(pod, DATA_DISK) == limits(4 * MI)
    assert holder.renew(intent(pod)) == Held()
    assert holder.astray() == set()
    holder.release("a", pod.id)
    assert lab.cgroups.snapshot().items() <= before.items()
    assert holder.ledger.all() == ()


def test_a_network_that_went_before_its_sandbox_stopped(lab: Lab, holder: Holder) -> None:
    """The ifb is ours to take away; a look before says what is there no more."""
    pod = lab.pod("a", BOTH)
    take(holder, pod)
    lab.end(pod)
    assert holder.renew(intent(pod)).refusals["network"].reason == "NetworkGone"
    holder.stop("a", pod.id)
    assert lab.network.ifbs() == []
    holder.release("a", pod.id)
    assert holder.ledger.all() == ()


class Test_a_cgroup:  # noqa: N801  (the name is part of the sentence)
    """Two cgroups of one path are told apart by their inode numbers."""

    def test_that_has_gone_needs_no_undoing(self, lab: Lab, holder: Holder) -> None:
        """The kubelet may be faster than the runtime's event."""
        pod = lab.pod("a", BOTH)
        take(holder, pod)
        lab.remove(pod)
        assert holder.astray() == {"a"}
        assert holder.renew(intent(pod)).refusals["disk"].reason == "CgroupGone"
        holder.release("a", pod.id)
        assert holder.ledger.all() == ()

    def test_of_the_same_path_is_another(self, lab: Lab, holder: Holder) -> None:
        """Nothing that was recorded of the old one is written into the new one, at a release or later."""
        pod = lab.pod("a", BOTH)
        lab.cgroups.foreign(pod.cgroup_parent, ROOT_DISK, IoLimits(rbps=7777))
        take(holder, pod)
        lab.remove(pod)
        lab.cgroups.make(pod.cgroup_parent)
        before = lab.cgroups.snapshot()
        holder.release("a", pod.id)
        assert lab.cgroups.snapshot() == before
        assert take(holder, pod).refusals == {}
        assert lab.io_of(pod, ROOT_DISK) == limits(3 * MI)
        lab.remove(pod)
        lab.cgroups.make(pod.cgroup_parent)
        assert holder.renew(intent(pod)).written == {"disk": 2}
        holder.release("a", pod.id)
        assert lab.cgroups.snapshot() == before

    @pytest.mark.parametrize("cgroup", ["/kubepods/burstable/podb", "/kubepods", "/", "", "/kubepods/../podA"])
    def test_that_is_not_the_pod_s_is_never_written(self, lab: Lab, holder: Holder, cgroup: str) -> None:
        """Whatever the runtime says: it is refused, and no file is touched."""
        lab.pod("b", {})
        pod = replace(lab.pod("a", BOTH), cgroup_parent=cgroup)
        before = lab.cgroups.snapshot()
        assert take(holder, pod).refusals["disk"].reason == "CgroupForeign"
        holder.release("a")
        assert lab.cgroups.snapshot() == before


def test_a_release_that_fails_is_remembered(lab: Lab, holder: Holder) -> None:
    """The record stays, what is left of it leads to the rest, and the next attempt ends it."""
    pod = lab.pod("a", BOTH)
    before = lab.snapshot()
    take(holder, pod)
    lab.shaper.fails["remove"] = errno.EPERM
    with pytest.raises(Refusal, match="EPERM"):
        holder.release("a", pod.id)
    assert lab.holder().ledger.get("a") is not None
    lab.shaper.fails.clear()
    lab.holder().release("a", pod.id)
    assert lab.snapshot() == before


def test_a_device_that_vanished_with_a_foreign_line(lab: Lab, holder: Holder) -> None:
    """What stood there before cannot come back, and its line has gone with the disk: the pod's end is held up by nothing."""
    pod = lab.pod("a", BOTH)
    lab.cgroups.foreign(pod.cgroup_parent, DATA_DISK, IoLimits(rbps=7777))
    take(holder, pod)
    lab.cgroups.unplug(DATA_DISK)
    holder.release("a", pod.id)
    assert (lab.io(pod), holder.ledger.all()) == ({}, ())


def test_a_ledger_that_cannot_be_written(lab: Lab, holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind that is asked for is refused, and nothing is done to the kernel; what was held stays held."""
    held = lab.pod("held", BOTH)
    take(holder, held)

    def full(_ledger: Ledger, _path: Path, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Ledger, "_replace", full)
    pod = lab.pod("a", BOTH)
    before = lab.snapshot()
    refusals = take(holder, pod).refusals
    assert {kind: refusal.reason for kind, refusal in refusals.items()} == dict.fromkeys(["disk", "network"], "LedgerNotWritten")  # fmt: skip
    assert "ENOSPC" in refusals["disk"].told
    assert holder.renew(intent(held, asks(disk(data="1Mi")))).refusals["disk"].reason == "LedgerNotWritten"
    assert holder.renew(intent(held)) == Held()
    assert lab.snapshot() == before


def test_between_write_ahead_and_write(lab: Lab, holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record names each line and the interface before the kernel has anything of them."""
    pod = lab.pod("a", BOTH)
    seen: list[object] = []

    def before(work: Callable[..., None]) -> Callable[..., None]:
        def look(*args: object) -> None:
            (record,) = Ledger.open(lab.folder / "state", "boot").all()
            seen.append(record.network if record.network is not None else {one.device for one in record.io})
            work(*args)

        return look

    monkeypatch.setattr(lab.cgroups, "_write", before(lab.cgroups._write))
    monkeypatch.setattr(lab.shaper, "apply", before(lab.shaper.apply))
    assert take(holder, pod).refusals == {}
    (record,) = holder.ledger.all()
    assert seen == [{ROOT_DISK, DATA_DISK}, {ROOT_DISK, DATA_DISK}, record.network]


def test_status_tells_asked_applied_observed(lab: Lab, holder: Holder) -> None:
    """A stranger's change shows before it is repaired; a pod whose cgroup and network have gone has nothing."""
    pod = lab.pod("a", BOTH)
    take(holder, pod)
    lab.cgroups.foreign(pod.cgroup_parent, DATA_DISK, IoLimits(wbps=9))
    lab.network.unlimit(lab.interface(pod))
    (record,) = holder.ledger.all()
    status = holder.status(record)
    root, data = status.disk
    assert (root.device, root.entries, root.asked) == ("8:0", ["*", "more"], limits(3 * MI)._asdict())
    assert (data.applied, data.observed) == (limits(4 * MI)._asdict(), IoLimits(wbps=9)._asdict())
    assert status.network is not None
    assert (status.network.asked["ingress"], status.network.observed["ingress"]) == (40_000_000, None)
    lab.end(pod)
    lab.remove(pod)
    status = holder.status(record)
    assert [one.observed for one in status.disk] == [UNLIMITED._asdict()] * 2
    assert status.network is not None
    assert set(status.network.observed.values()) == {None}


def test_what_a_class_holds(lab: Lab, holder: Holder) -> None:
    """The record names the class of each container that asks for one of ours."""
    pod = lab.pod("a", asks(**{keys.RDT_OWN_POD: "gold"}))
    assert take(holder, pod).refusals == {}
    (record,) = holder.ledger.all()
    assert [one.rdt_class for one in record.containers] == ["gold"]
    assert holder.status(record).rdt == {"app": "gold"}


def test_an_unknown_pod(lab: Lab, holder: Holder) -> None:
    """Nothing is done for a pod that was never taken."""
    pod = lab.pod("a", BOTH)
    before = lab.snapshot()
    assert holder.renew(intent(pod)) == Held()
    holder.stop("a", pod.id)
    holder.release("a")
    assert lab.snapshot() == before


def test_a_record_of_this_form_is_read_by_the_next_process(lab: Lab, holder: Holder) -> None:
    """All that a pod needs stands in the file: the next process changes, repairs and undoes with it alone."""
    pod = lab.pod("a", BOTH)
    before = lab.snapshot()
    take(holder, pod)
    again = lab.holder()
    assert again.ledger.all() == holder.ledger.all()
    lab.cgroups.foreign(pod.cgroup_parent, DATA_DISK, UNLIMITED)
    assert again.astray() == {"a"}
    assert again.renew(intent(pod)).written == {"disk": 1}
    assert lab.io_of(pod, DATA_DISK) == limits(4 * MI)
    lab.holder().release("a")
    assert lab.snapshot() == before


def test_writing_names_the_pod_s_cgroup_only(lab: Lab, holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every action of a pod is for its own cgroup."""
    seen: list[SetIo] = []
    write = lab.cgroups.write_io

    def noted(action: SetIo, uid: str) -> None:
        seen.append(action)
        write(action, uid)

    monkeypatch.setattr(lab.cgroups, "write_io", noted)
    pods = [lab.pod(uid, BOTH) for uid in ("a", "b")]
    for pod in pods:
        take(holder, pod)
    assert [action.cgroup for action in seen] == [pod.cgroup_parent for pod in pods for _ in range(2)]
