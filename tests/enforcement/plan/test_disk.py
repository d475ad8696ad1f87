"""Lines of io.max from what a pod asks for."""

from noisegate.enforcement.actions import UNLIMITED, Device, IoLimits, SetIo
from noisegate.enforcement.plan.disk import held, owned, plan, undo, wanted
from noisegate.isolation import disk
from noisegate.isolation.disk import DiskRequest
from noisegate.isolation.problems import Findings

SDA, SDB = Device(8, 0), Device(8, 16)
CGROUP = "/kubepods/podx"


def asked(text: str) -> DiskRequest:
    """Return what an annotation means."""
    found = Findings()
    request = disk.read(text, found)
    assert request is not None
    assert not found.problems
    return request


def test_one_volume() -> None:
    """Its limits and the operations that follow from them; a direction that is not asked for is unbounded."""
    request = asked('{"data": {"limits": {"rbps": "50Mi/4k"}}}')
    assert wanted(request, {"data": SDA}) == {SDA: IoLimits(50 << 20, None, 12800, None)}
    assert wanted(request, {}) == wanted(request, {"other": SDA}) == wanted(None, {"data": SDA}) == {}


def test_entries_on_one_device_are_added_up() -> None:
    """Two volumes and the writable layers; each on the device that it lives on."""
    request = asked(
        '{"a": {"limits": {"rbps": "10M", "wbps": "1M"}}, "b": {"limits": {"rbps": "20M", "wbps": "2M", "wiops": 7}},'
        ' "*": {"limits": {"wbps": "5M"}}}'
    )
    assert wanted(request, {"a": SDA, "b": SDA, "*": SDB}) == {
        SDA: IoLimits(30_000_000, 3_000_000, 2441 + 4882, 244 + 7),
        SDB: IoLimits(None, 5_000_000, None, 1220),
    }
    assert wanted(request, {"a": SDA, "b": SDA, "*": SDA})[SDA] == IoLimits(None, 8_000_000, None, 244 + 7 + 1220)


def test_an_entry_without_an_upper_bound() -> None:
    """It makes that direction of its device unbounded, and a device without any bound is not wanted."""
    request = asked(
        '{"a": {"requests": {"rbps": "5M"}, "limits": {"rbps": "10M"}}, "b": {"requests": {"rbps": "20M"}}}'
    )
    assert wanted(request, {"a": SDA, "b": SDA}) == {}
    assert wanted(request, {"a": SDA, "b": SDB}) == {SDA: IoLimits(10_000_000, None, 2441, None)}


def test_what_the_kernel_cannot_tell_from_no_limit() -> None:
    """From UINT_MAX operations and U64_MAX bytes on it is none; below, each value stands."""
    text = '{{"a": {{"limits": {{"rbps": "{0}/1M", "riops": {1}}}}}, "b": {{"limits": {{"rbps": "{0}/1M", "riops": {1}}}}}}}'
    both = {"a": SDA, "b": SDA}
    assert wanted(asked(text.format((1 << 63) - 1, (1 << 31) - 1)), both) == {
        SDA: IoLimits((1 << 64) - 2, None, (1 << 32) - 2, None)
    }
    assert wanted(asked(text.format((1 << 63) - 1, 1 << 31)), both)[SDA].riops is None
    assert wanted(asked('{"a": {"limits": {"riops": 4294967295}}}'), both) == {}


def test_a_plan_limits_first_and_leaves_what_stands() -> None:
    """In order of the devices; what is as wanted, and lines of others, are not in it."""
    more, less = IoLimits(rbps=9), IoLimits(rbps=3)
    want = {SDB: less, SDA: less, Device(9, 0): more}
    observed = {SDA: more, Device(9, 0): more, Device(7, 0): less, Device(7, 1): less}
    ours = {Device(7, 1): UNLIMITED, Device(9, 0): UNLIMITED}
    actions = plan(CGROUP, want, observed, ours)
    assert actions == (
        SetIo(CGROUP, SDA, less),
        SetIo(CGROUP, SDB, less),
        SetIo(CGROUP, Device(7, 1), UNLIMITED),
    )
    recorded = owned(want, observed, ours)
    assert recorded == {SDA: more, SDB: UNLIMITED, Device(7, 1): UNLIMITED, Device(9, 0): UNLIMITED}
    assert owned(want, observed, {})[Device(9, 0)] == more
    assert held(want, recorded) == {SDA: more, SDB: UNLIMITED, Device(9, 0): UNLIMITED}


def test_a_device_that_has_vanished_needs_no_undoing() -> None:
    """Its line has gone with it, and a write would be refused."""
    assert undo(CGROUP, {}, {SDA: UNLIMITED}) == ()
