"""What is wanted of a pod's interface, whether it can hold it, and what is done."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisegate.enforcement.actions import UNSHAPED, Interface, Rates, Shape
from noisegate.enforcement.plan.network import (
    LAST_PRIORITY,
    LEAST_MOVED,
    Counters,
    Filter,
    Shaped,
    ifb_name,
    judge,
    judge_device,
    plan,
    unreached,
    wanted,
)
from noisegate.isolation.bounds import Bound
from noisegate.isolation.network import NetworkRequest

HOST = Interface(7, "veth7")
IFB = "ng0123456789ab"
rates = st.builds(Rates, *[st.none() | st.integers(8, 1 << 60)] * 2)


def test_limits_are_wanted_and_requests_are_not() -> None:
    """A request without a limit has no upper bound; a pod that asks nothing is not shaped."""
    assert wanted(None) == UNSHAPED
    assert wanted(NetworkRequest(Bound(1000, None), Bound(8000, 16_000))) == Rates(None, 16_000)


@given(st.integers(1, 10**40))
def test_a_limit_is_told_as_htb_can_hold_it(limit: int) -> None:
    """In whole bytes per second, never none, never above what is asked but for less than a byte."""
    (rate, _) = wanted(NetworkRequest(Bound(limit, limit)))
    assert rate is not None
    assert rate % 8 == 0
    assert 8 <= rate <= max(limit, 8)
    assert limit - rate < 8 or rate == 1 << 60


@given(rates)
def test_the_plan_of_what_is_applied_is_empty(asked: Rates) -> None:
    """And of anything else it is one action that names the pod's own interface and ifb."""
    assert plan(HOST, IFB, asked, Shaped(asked)) == ()
    other = asked._replace(egress=(asked.egress or 0) + 8)
    assert plan(HOST, IFB, other, Shaped(asked)) == (Shape(HOST, IFB, other),)


def test_what_was_interrupted_is_done_again() -> None:
    """Also where nothing is wanted any more: loose parts are taken away."""
    assert plan(HOST, IFB, UNSHAPED, Shaped(loose=True)) == (Shape(HOST, IFB, UNSHAPED),)
    assert plan(HOST, IFB, Rates(8), Shaped(Rates(8), loose=True)) == (Shape(HOST, IFB, Rates(8)),)


def reason(asked: Rates, seen: Shaped) -> str:
    """Return why it is refused; empty: it is not."""
    refused = judge(HOST, asked, seen)
    return refused.reason if refused else ""


def test_a_foreign_root_forbids_ingress_alone() -> None:
    """The pod's egress goes another way and can still be held."""
    assert reason(Rates(8), Shaped(root="tbf")) == "ForeignQdisc"
    assert reason(Rates(None, 8), Shaped(root="tbf")) == ""
    refused = judge(HOST, Rates(8, 8), Shaped(root="tbf"))
    assert refused is not None
    assert "veth7 has a root qdisc tbf that is not ours" in refused.told
    assert refused.mend


@given(st.lists(st.sampled_from([-1, 2])))
def test_filters_that_go_on_or_drop_are_passed(verdicts: list[int]) -> None:
    """What they let go on comes to ours, what they drop needs no limit."""
    filters = tuple(Filter("flower", number, verdict) for number, verdict in enumerate(verdicts, 1))
    assert reason(Rates(8, 8), Shaped(hook="clsact", filters=filters)) == ""


@pytest.mark.parametrize("verdict", [None, 0, 1, 3, 4, 5, 7, 8, 0x20000001])
def test_a_filter_that_may_end_classification_forbids_egress(verdict: int | None) -> None:
    """Accepted, stolen, redirected, piped into nothing, sent to another chain, or not known: ours may not be asked."""
    seen = Shaped(hook="clsact", filters=(Filter("flower", 1, 2), Filter("u32", 10, verdict)))
    assert reason(Rates(None, 8), seen) == "DataPathNotShapable"
    assert reason(Rates(8), seen) == ""
    refused = judge(HOST, Rates(None, 8), seen)
    assert refused is not None
    assert "filter u32 of priority 10" in refused.told


def test_nobody_may_stand_where_ours_must() -> None:
    """There is no higher priority to go behind it, and filters that others share with ours are not ours to add to."""
    last = Shaped(hook="clsact", filters=(Filter("u32", LAST_PRIORITY, -1),))
    assert reason(Rates(None, 8), last) == "ForeignFilter"
    assert reason(Rates(None, 8), Shaped(hook="clsact", block=3)) == "ForeignQdisc"


def test_programs_forbid_both_directions() -> None:
    """They may send frames past the queueing disciplines of either (bpf_redirect_peer, TC_ACT_OK, TCX_PASS)."""
    seen = Shaped(programs=("eBPF program 12 (ingress of tcx)",))
    assert reason(Rates(8), seen) == reason(Rates(None, 8), seen) == "DataPathNotShapable"


def test_what_is_not_wanted_is_never_refused() -> None:
    """Ours can be taken away whatever else has come."""
    seen = Shaped(Rates(8, 8), root="tbf", programs=("x",), block=1, filters=(Filter("bpf", 1, None),))
    assert reason(UNSHAPED, seen) == ""


@pytest.mark.parametrize("kind", ["", "macvlan", "macvtap", "ipvlan", "netkit", "wireguard"])
def test_only_a_veth_can_be_limited(kind: str) -> None:
    """Anything else is refused with what it is and what to do."""
    refused = judge_device(kind)
    assert refused is not None
    assert refused.reason == "DataPathNotShapable"
    assert (kind or "virtual function") in refused.told
    assert refused.mend
    assert judge_device("veth") is None


def test_names_of_ifbs() -> None:
    """They fit into IFNAMSIZ with their zero, differ as sandboxes do, and are refused for what is no sandbox id."""
    assert ifb_name("0123456789abcdef" * 4) == IFB
    assert len(IFB.encode()) < 16
    for wrong in ("", "0123456789A" * 6, "../../../../etc", "0123456789a"):
        with pytest.raises(ValueError, match="no sandbox id"):
            ifb_name(wrong)


@given(st.sets(st.binary(min_size=6, max_size=6), max_size=200))
def test_ifbs_of_different_sandboxes_have_different_names(ids: set[bytes]) -> None:
    """As far as the first 48 bits of the ids tell them apart."""
    assert len({ifb_name(each.hex() * 5) for each in ids}) == len(ids)


STILL = Counters(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("now", "found"),
    [
        (Counters(0, 0, LEAST_MOVED, 0), ("ingress",)),
        (Counters(0, 0, 0, LEAST_MOVED), ("egress",)),
        (Counters(0, 0, LEAST_MOVED, LEAST_MOVED), ("ingress", "egress")),
        (Counters(0, 0, LEAST_MOVED - 1, LEAST_MOVED - 1), ()),
        (Counters(1, 1, LEAST_MOVED, LEAST_MOVED), ()),
        (Counters(None, None, LEAST_MOVED, LEAST_MOVED), ()),
    ],
)
def test_a_class_that_stands_still(now: Counters, found: tuple[str, ...]) -> None:
    """It is spoken of where the pod's eth0 has moved frames enough, in that direction alone, and where it is limited."""
    assert unreached(STILL, now) == found


counts = st.integers(0, 1 << 64)


@given(counts, counts, st.integers(1, 1 << 40))
def test_a_class_that_moves_is_never_spoken_of(received: int, sent: int, moved: int) -> None:
    """Whatever the pod's eth0 says; so is one that has begun anew."""
    advance: Callable[[int], Counters] = lambda by: Counters(moved + by, moved + by, received + 9 * by, sent + 9 * by)  # noqa: E731
    assert unreached(advance(0), advance(moved)) == ()
    assert unreached(advance(moved), advance(0)._replace(received=1 << 70, sent=1 << 70)) == ()
