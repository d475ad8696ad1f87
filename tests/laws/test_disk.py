"""Laws of what the disk annotation means."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from noisegate.isolation import disk, speed
from noisegate.isolation.bounds import Bound
from noisegate.isolation.disk import DiskRequest
from noisegate.isolation.problems import Findings, Problem
from noisegate.webhook.objects import PodSpec

NAMES = st.sampled_from(["volume1", "volume2", "data", "*"])
SPEEDS = st.builds(
    lambda number, suffix, block: f"{number}{suffix}{block}",
    st.integers(0, 5000),
    st.sampled_from(["", "k", "M", "Mi", "G", "MB"]),
    st.sampled_from(["", "/4k", "/4k", "/4KiB", "/1M", "/512", "/3k"]),
)
OPERATIONS = st.one_of(st.integers(-1, 50000), st.integers(1, 9).map(lambda number: f"{number}k"))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
GROUPS = st.fixed_dictionaries({}, optional={"rbps": SPEEDS, "wbps": SPEEDS, "riops": OPERATIONS, "wiops": OPERATIONS})
ENTRIES = st.fixed_dictionaries({}, optional={"requests": GROUPS, "limits": GROUPS})
NEARLY = st.dictionaries(NAMES, ENTRIES, max_size=3)

SOUND_SPEEDS = st.builds(
    lambda number, suffix: f"{number}{suffix}/8k", st.integers(1, 5000), st.sampled_from(["M", "Mi", "G", "Gi"])
)
SOUND = st.dictionaries(
    NAMES,
    st.fixed_dictionaries(
        {
            "limits": st.fixed_dictionaries(
                {"rbps": SOUND_SPEEDS}, optional={"wbps": SOUND_SPEEDS, "riops": st.integers(1, 1 << 32)}
            )
        }
    ),
    min_size=1,
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["v", "requests", "limits", "rbps", "riops", ""]) | st.text(max_size=4), inner, max_size=4
        )
    ),
    max_leaves=15,
)


def read(value: Any) -> tuple[DiskRequest | None, Findings]:
    """Return what a JSON value means, and what is found in it."""
    found = Findings()
    return disk.read(json.dumps(value), found), found


def told(found: Findings) -> list[Problem]:
    """Return all that is found, in order, without the values: those are shown as they stand."""
    return sorted(problem._replace(value="") for problem in found.problems + found.warnings)


@given(st.text() | ANYTHING.map(json.dumps) | NEARLY.map(json.dumps))
def test_any_text(text: str) -> None:
    """Any text has a meaning, or asks for nothing with a warning, or has problems; it never fails."""
    found = Findings()
    request = disk.read(text, found)
    assert request is not None or found.problems or found.warnings
    for problem in found.problems + found.warnings:
        assert problem.path.startswith("metadata.annotations[blockio.kubernetes.io/resources]")
        assert problem.message.isprintable()
    if request is not None:
        disk.fit(request, PodSpec(), found)
        disk.mounts_of(request, PodSpec())
        assert disk.changed(request, request) == []


@given(NEARLY)
def test_request_never_exceeds_limit(value: dict[str, Any]) -> None:
    """In a request that was read without problems no request is larger than its limit, and none is zero."""
    request, found = read(value)
    if request is None or found.problems:
        return
    for entry in request.volumes:
        for bound in entry[1:]:
            assert bound.limit is None or (bound.request or 0) <= bound.limit
            assert 0 not in bound[:2]
            assert not bound.follows or bound.request == bound.limit
        assert request.qos == entry.qos
    assert [entry.volume for entry in request.volumes] == sorted({entry.volume for entry in request.volumes})


@given(NEARLY, st.randoms(use_true_random=False))
def test_order_of_keys(value: dict[str, Any], chance: Any) -> None:
    """The order of keys changes neither the meaning nor what is found."""

    def shuffled(item: Any) -> Any:
        if not isinstance(item, dict):
            return item
        keys = list(item)
        chance.shuffle(keys)
        return {key: shuffled(item[key]) for key in keys}

    request, found = read(value)
    other_request, other_found = read(shuffled(value))
    assert request == other_request
    assert told(found) == told(other_found)


@given(SOUND)
def test_derived_operations(value: dict[str, Any]) -> None:
    """Operations that nobody wrote are the bytes divided by the block size, rounded down; those written stand."""
    request, found = read(value)
    assert request is not None
    assert found.problems == []
    assert request.block_size == 8192
    for entry in request.volumes:
        limits = value[entry.volume]["limits"]
        rbps = speed.parse(limits["rbps"])[0]
        assert entry.rbps == Bound(rbps, rbps, follows=True)
        written = limits.get("riops")
        assert entry.riops == (Bound(written, written, follows=True) if written else Bound(None, rbps // 8192))
        assert entry.wiops.limit == (entry.wbps.limit // 8192 if entry.wbps.limit else None)


@given(SOUND, SOUND)
def test_only_limits_change(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Between two requests of limits only, a change is refused exactly where an entry or a key comes or goes."""
    before, after = read(old)[0], read(new)[0]
    same = {(name, key) for name, entry in old.items() for key in entry["limits"]} == {
        (name, key) for name, entry in new.items() for key in entry["limits"]
    }
    assert (disk.changed(before, after) == []) is same
