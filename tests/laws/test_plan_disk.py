"""Laws of disk limits: what is planned, and where it may be written."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakecgroup import FakeCgroupTree
from hypothesis import given, settings
from hypothesis import strategies as st

from noisegate.enforcement.actions import UNLIMITED, Device, IoLimits, SetIo
from noisegate.enforcement.kernel.cgroup import ForeignCgroupError, check_own
from noisegate.enforcement.plan.disk import MOST_BYTES, MOST_OPERATIONS, held, owned, plan, undo, wanted
from noisegate.enforcement.refusal import Refusal
from noisegate.isolation.bounds import UNSET, Bound
from noisegate.isolation.disk import DiskRequest, VolumeRequest

UID = "0a1b2c3d-1111-4222-8333-444455556666"
POD = f"/kubepods/burstable/pod{UID}"
DEVICES = [Device(8, 0), Device(8, 16), Device(253, 0)]

devices = st.sampled_from(DEVICES)
names = st.sampled_from(["a", "b", "c", "*"])
# Small values meet; large ones meet the kernel's own bounds.
amounts = st.integers(2, 40) | st.sampled_from([MOST_OPERATIONS - 1, MOST_OPERATIONS, MOST_BYTES >> 1])
bounds = st.just(UNSET) | st.builds(Bound, amounts, st.none() | amounts) | st.builds(Bound, st.none(), amounts)
requests = st.dictionaries(names, st.lists(bounds, min_size=4, max_size=4), min_size=1).map(
    lambda entries: DiskRequest(tuple(VolumeRequest(name, *entries[name]) for name in sorted(entries)))
)
places = st.dictionaries(names, devices)
# What may stand in io.max: never all `max`, and no value that the kernel shows as such.
limits = st.builds(IoLimits, *[st.none() | st.integers(2, 40)] * 4)
lines = st.dictionaries(devices, limits.filter(lambda one: one != UNLIMITED))


@pytest.fixture(scope="module")
def tree() -> Iterator[FakeCgroupTree]:
    """Return a tree of real files with the pod's cgroup."""
    with tempfile.TemporaryDirectory() as folder:
        tree = FakeCgroupTree(Path(folder) / "cgroup", set(DEVICES))
        tree.make(POD)
        yield tree


def stand(tree: FakeCgroupTree, observed: dict[Device, IoLimits]) -> None:
    """Bring the pod's io.max to a state."""
    for device in DEVICES:
        tree.foreign(POD, device, observed.get(device, UNLIMITED))


def carry_out(tree: FakeCgroupTree, actions: tuple[SetIo, ...]) -> None:
    """Write all of them, each read back."""
    for action in actions:
        tree.write_io(action, UID)


@given(requests, places)
def test_a_sum_is_never_below_one_entry(request: DiskRequest, places: dict[str, Device]) -> None:
    """Each device has what its entries add up to, and never less than any of them; unbounded by one, unbounded by all."""
    result = wanted(request, places)
    assert UNLIMITED not in result.values()
    assert set(result) <= set(places.values())
    for name, *entry in request.volumes:
        if name not in places:
            continue
        for bound, limit in zip(entry, result.get(places[name], UNLIMITED), strict=True):
            assert limit is None or (bound.limit is not None and bound.limit <= limit)
    for device, sums in result.items():
        there = [entry[1:] for entry in request.volumes if places.get(entry.volume) == device]
        for limit, shares in zip(sums, zip(*there, strict=True), strict=True):
            assert limit is None or limit == sum(bound.limit for bound in shares)


@given(lines, lines, lines)
def test_a_plan_is_minimal_and_ordered(
    want: dict[Device, IoLimits], observed: dict[Device, IoLimits], ours: dict[Device, IoLimits]
) -> None:
    """Each device at most once, only what differs, none that is neither wanted nor ours; the same however it is given."""
    actions = plan(POD, want, observed, ours)
    touched = [action.device for action in actions]
    assert len(set(touched)) == len(touched)
    assert set(touched) <= want.keys() | ours.keys()
    assert all(observed.get(action.device, UNLIMITED) != action.limits for action in actions)
    assert touched == sorted(touched, key=lambda device: (device not in want, device))
    turned = [dict(reversed(given.items())) for given in (want, observed, ours)]
    assert plan(POD, *turned) == actions


@settings(deadline=None)
@given(st.lists(st.tuples(requests, places), min_size=1, max_size=3), lines)
def test_apply_then_undo_leaves_no_trace(
    tree: FakeCgroupTree, steps: list[tuple[DiskRequest, dict[str, Device]]], before: dict[Device, IoLimits]
) -> None:
    """Whatever is asked for, one after another: what is applied plans to nothing, and undoing brings back every line."""
    stand(tree, before)
    ours: dict[Device, IoLimits] = {}
    for request, where in steps:
        want = wanted(request, where)
        actions = plan(POD, want, tree.read_io(POD), ours)
        ours = owned(want, tree.read_io(POD), ours)
        carry_out(tree, actions)
        assert plan(POD, want, tree.read_io(POD), ours) == ()
        ours = held(want, ours)
        assert plan(POD, want, tree.read_io(POD), ours) == ()
        observed = tree.read_io(POD)
        assert {device: observed.get(device) for device in DEVICES} == {
            device: want.get(device, before.get(device)) for device in DEVICES
        }
    carry_out(tree, undo(POD, tree.read_io(POD), ours))
    assert tree.read_io(POD) == before
    assert undo(POD, tree.read_io(POD), ours) == ()


@settings(deadline=None)
@given(requests, places, lines, st.integers(0, 3))
def test_undo_after_a_plan_that_was_cut_off(
    tree: FakeCgroupTree, request: DiskRequest, where: dict[str, Device], before: dict[Device, IoLimits], done: int
) -> None:
    """What was recorded ahead undoes a plan of which only a part was carried out."""
    stand(tree, before)
    want = wanted(request, where)
    actions = plan(POD, want, tree.read_io(POD), {})
    ours = owned(want, tree.read_io(POD), {})
    carry_out(tree, actions[:done])
    carry_out(tree, undo(POD, tree.read_io(POD), ours))
    assert tree.read_io(POD) == before


words = st.sampled_from([
    "", ".", "..", "kubepods", "burstable", "besteffort", f"pod{UID}", f"pod{UID[:-1]}7", "kubepods.slice", "system.slice",
    "kubepods-burstable.slice", f"kubepods-pod{UID.replace('-', '_')}.slice", f"pod{UID.replace('-', '_')}.slice",
    f"kubepods-burstable-pod{UID.replace('-', '_')}.slice", "cri-containerd-1.scope", "x",
]) | st.text(max_size=6)  # fmt: skip
cgroups = st.lists(words, max_size=5).map(lambda parts: "/" + "/".join(parts)) | st.text()


@settings(deadline=None)
@given(cgroups)
def test_only_the_pods_own_cgroup_is_written(tree: FakeCgroupTree, cgroup: str) -> None:
    """Any path: it ends in the pod's own name below the kubelet's groups, or nothing is touched."""
    before = tree.snapshot()
    try:
        tree.write_io(SetIo(cgroup, DEVICES[0], IoLimits(rbps=50)), UID)
    except Refusal:
        assert tree.snapshot() == before
    else:
        assert cgroup == POD


@given(cgroups)
def test_what_passes_for_the_pods_own(cgroup: str) -> None:
    """By name alone: absolute, plain, below kubepods or one of its QoS groups, and of this pod and no other."""
    try:
        check_own(cgroup, UID)
    except ForeignCgroupError:
        return
    *above, last = cgroup.split("/")[1:]
    assert {"", ".", ".."}.isdisjoint([*above, last])
    assert last.replace("_", "-").removesuffix(".slice").endswith(f"pod{UID}")
    group = above[-1].removesuffix(".slice").replace("-", "/").rpartition("/")[2]
    assert group == "kubepods" or (group in {"burstable", "besteffort"} and "kubepods" in above[-2])
    with pytest.raises(ForeignCgroupError):
        check_own(cgroup, UID[:-1] + "7")
