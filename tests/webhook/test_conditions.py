"""Match conditions as texts; the API server evaluates them in tests/apiserver/test_conditions.py."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisegate.webhook import conditions, rules
from noisegate.webhook.conditions import Condition, any_of, none_of, widened
from noisegate.webhook.rules import NO_RULES

CORES: Final = "cmk.intel.com/exclusive-cores"
CONTAINERS: Final = "(object.spec.containers + object.spec.?initContainers.orValue([]))"


def added(when: str) -> list[str]:
    """Return the clauses that a rule adds."""
    own = conditions.asks(rules.load(f"rules: [{{name: r, when: {when}}}]", "m")).own
    return [clause for clause in own if clause not in conditions.asks(NO_RULES).own]


@pytest.mark.parametrize(
    "when",
    [
        f"{{resources: [{CORES}]}}",
        f"{{resources: [{CORES}], labels: {{a: b}}}}",
        "{annotations: {noisegate.io/profile: x}}",
        "{annotations: {k8s.v1.cni.cncf.io/networks: '*'}}",
        "{annotations: {blockio.kubernetes.io/resources: '*'}}",
        "{namespaces: []}",
        "{namespaces: ['a[.]']}",
    ],
)
def test_rules_that_need_no_clause(when: str) -> None:
    """What asks anyway, or never works, is not written twice."""
    assert added(when) == []


@pytest.mark.parametrize(
    ("when", "clause"),
    [
        ("{annotations: {a: '*'}}", 'object.?metadata.?annotations[?"a"].hasValue()'),
        ("{labels: {a: b}}", 'object.?metadata.?labels[?"a"] == optional.of("b")'),
        ("{labels: {a: [c, b]}}", '["b", "c"].exists(v, object.?metadata.?labels[?"a"] == optional.of(v))'),
        ("{namespaces: [a]}", 'request.namespace in ["a"]'),
        ("{namespaces: [a, b-*]}", '(request.namespace in ["a"] || request.namespace.matches("^b-.*$"))'),
        ("{namespaces: ['[!b-z0-9]x?']}", 'request.namespace.matches("^[a-]x.$")'),
        ("{namespaces: ['*[']}", 'request.namespace.matches("^.*[^ -~]$")'),
        (
            "{namespaces: [a], labels: {c: d}}",
            'request.namespace in ["a"] && object.?metadata.?labels[?"c"] == optional.of("d")',
        ),
        (
            "{resources: [x/y]}",
            f'{CONTAINERS}.exists(c, c.?resources.?limits[?"x/y"].hasValue() || c.?resources.?requests[?"x/y"].hasValue())',
        ),
    ],
)
def test_the_clause_of_a_rule(when: str, clause: str) -> None:
    """Each part of `when` is a part of the clause."""
    assert added(when) == [clause]


def test_rules_alike_share_a_clause() -> None:
    """A clause stands once."""
    read = rules.load("rules: [{name: a, when: {labels: {x: z}}}, {name: b, when: {labels: {x: z}}}]", "m")
    assert len(conditions.asks(read).own) == len(conditions.asks(NO_RULES).own) + 1


def test_a_template_is_looked_at_where_it_is() -> None:
    """The root stands in every clause."""
    asked = conditions.asks(NO_RULES, "object.spec.template")
    assert all("object.spec.template." in clause for clause in (*asked.own, *asked.sriov))


def test_a_rule_for_every_pod() -> None:
    """No condition can be written for it."""
    assert conditions.asks(rules.load("rules: [{name: a, when: {}}]", "m")).every


CLAUSES: Final = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True)


def taken(own: list[Condition], sriov: list[Condition], pod: set[str]) -> bool:
    """Tell whether one of the two entries takes a pod of which some clauses hold."""

    def holds(condition: Condition) -> bool:
        lines = condition["expression"].removeprefix("!(\n").removesuffix("\n)").split(conditions.OR)
        return (not condition["expression"].startswith("!")) is bool(pod & set(lines))

    return all(map(holds, own)) or all(map(holds, sriov))


def entries(own: list[str], sriov: list[str]) -> tuple[list[Condition], list[Condition]]:
    """Return the conditions of the two entries for pods."""
    return [any_of("asks", own)], [any_of("asks", sriov), none_of("asks-nothing-else", own)]


@given(CLAUSES, CLAUSES, CLAUSES, st.sets(st.sampled_from("abcdef")))
def test_what_was_sent_and_what_will_be_is_sent_between(
    old: list[str], new: list[str], sriov: list[str], pod: set[str]
) -> None:
    """Whatever the old or the new pair of entries takes, the widened pair takes."""
    before, after = entries(old, sriov), entries(new, sriov)
    between = widened(before[0], after[0]), widened(before[1], after[1])
    assert taken(*between, pod) >= (taken(*before, pod) or taken(*after, pod))
    assert [widened(between[0], after[0]), widened(between[1], after[1])] == list(between)


def test_what_lets_everything_through_goes_on_doing_so() -> None:
    """A condition that is on one side only is left out."""
    assert widened([], [any_of("asks", ["a"])]) == []
    assert widened([any_of("asks", ["a"])], []) == []
