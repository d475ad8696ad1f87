"""Laws of what the network annotation means."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from noisegate.isolation import network
from noisegate.isolation.problems import Findings, Problem
from noisegate.isolation.quantity import whole
from noisegate.webhook.objects import PodSpec

VALUES = st.builds(
    lambda number, suffix: f"{number}{suffix}", st.integers(0, 900), st.sampled_from(["", "k", "M", "Gi", "MB"])
)
GROUPS = st.fixed_dictionaries({}, optional={"ingress": VALUES, "egress": VALUES})
NEARLY = st.fixed_dictionaries({}, optional={"requests": GROUPS, "limits": GROUPS})
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["requests", "limits", "ingress", "egress"]) | st.text(max_size=4), inner, max_size=4
        )
    ),
    max_leaves=15,
)


def told(found: Findings) -> list[Problem]:
    """Return all that is found, in order, without the values: those are shown as they stand."""
    return sorted(problem._replace(value="") for problem in found.problems + found.warnings)


@given(st.text() | ANYTHING.map(json.dumps) | NEARLY.map(json.dumps))
def test_any_text(text: str) -> None:
    """Any text has a meaning, or asks for nothing with a warning, or has problems; it never fails."""
    found = Findings()
    request = network.read(text, found)
    assert request is not None or found.problems or found.warnings
    for problem in found.problems + found.warnings:
        assert problem.path.startswith("metadata.annotations[networkio.kubernetes.io/resources]")
        assert problem.message.isprintable()
    if request is not None:
        network.fit(request, PodSpec(), {}, found)
        assert network.changed(request, request) == []


@given(NEARLY)
def test_meaning(value: dict[str, Any]) -> None:
    """What was read without problems is what was written: a limit alone is its request, and no request exceeds its limit."""
    found = Findings()
    request = network.read(json.dumps(value), found)
    if request is None or found.problems:
        return
    requests, limits = value.get("requests", {}), value.get("limits", {})
    for name, bound in zip(network.DIRECTIONS, request, strict=True):
        assert bound.limit == (whole(limits[name]) if name in limits else None)
        assert bound.request == (whole(requests[name]) if name in requests else bound.limit)
        assert bound.limit is None or (bound.request or 0) <= bound.limit
        assert bound.follows is (name in limits and name not in requests)


@given(NEARLY)
def test_order_of_keys(value: dict[str, Any]) -> None:
    """The order of keys changes neither the meaning nor what is found."""

    def turned(item: Any) -> Any:
        return {key: turned(item[key]) for key in reversed(item)} if isinstance(item, dict) else item

    found, other_found = Findings(), Findings()
    assert network.read(json.dumps(value), found) == network.read(json.dumps(turned(value)), other_found)
    assert told(found) == told(other_found)
