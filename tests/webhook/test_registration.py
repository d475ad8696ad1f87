"""The table of entries, and what of a configuration in the cluster is ours to change."""

from typing import Any

from noisegate.webhook import admit, registration, rules
from noisegate.webhook.conditions import any_of
from noisegate.webhook.rules import NO_RULES


def entries(kind: int) -> dict[str, dict[str, Any]]:
    """Return the entries of a configuration by name; 0: mutating."""
    return {webhook["name"]: webhook for webhook in registration.configurations(NO_RULES)[kind]["webhooks"]}


def test_every_kind_that_is_judged_is_sent() -> None:
    """The rules of the entries and the code speak of the same kinds."""
    groups = {
        (rule["apiGroups"][0], plural)
        for webhook in entries(1).values()
        for rule in webhook["rules"]
        for plural in rule["resources"]
    }
    plurals = {(group, kind.lower() + "s") for group, kind in admit.KINDS}
    plurals = {(group, "network-attachment-definitions" if "network" in name else name) for group, name in plurals}
    assert groups == plurals


def test_what_fails_closed_and_what_open() -> None:
    """Pods outside warn mode fail closed, everything else open."""
    closed = {name for name, webhook in entries(1).items() if webhook["failurePolicy"] == "Fail"}
    assert closed == {"pods.noisegate.io", "sriov.noisegate.io", "updates.noisegate.io"}
    assert {name for name, webhook in entries(0).items() if webhook["failurePolicy"] == "Fail"} == {
        "pods.noisegate.io",
        "sriov.noisegate.io",
    }


def test_what_every_entry_has() -> None:
    """No side effects, short time-outs, an endpoint that exists, a namespace that is not ours."""
    for kind in (0, 1):
        for name, webhook in entries(kind).items():
            assert webhook["sideEffects"] == "None"
            assert webhook["timeoutSeconds"] <= 5
            assert webhook["clientConfig"]["service"]["path"].removeprefix("/") in admit.ENDPOINTS
            assert ("warn/" in webhook["clientConfig"]["service"]["path"]) is (".warn." in name)
            (excluded, mode) = webhook["namespaceSelector"]["matchExpressions"]
            assert {"noisegate-system", "noisegate-node"} <= set(excluded["values"])
            assert mode["operator"] == ("In" if ".warn." in name else "NotIn")
            assert webhook.get("reinvocationPolicy") == ("IfNeeded" if kind == 0 else None)


def test_names_are_unique_and_have_conditions_of_their_own() -> None:
    """`wanted` speaks of every entry of both configurations."""
    names = [*entries(1)]
    assert len(set(names)) == len(names)
    assert set(registration.wanted(NO_RULES)) == set(names)
    assert set(entries(0)) < set(names)


def test_adjusting_changes_conditions_and_nothing_else() -> None:
    """What others wrote stays; entries that are not ours are left alone; wider, then exactly what is wished."""
    there: list[dict[str, Any]] = [
        {"name": "pods.noisegate.io", "matchConditions": [any_of("asks", ["a"])], "clientConfig": {"caBundle": "x"}},
        {"name": "other.example.com", "matchConditions": [any_of("asks", ["z"])]},
        {"name": "bare.noisegate.io"},
    ]
    wish = {"pods.noisegate.io": [any_of("asks", ["b"])], "bare.noisegate.io": [any_of("asks", ["b"])]}
    wide = registration.adjusted(there, wish, widen=True)
    assert wide == [
        {**there[0], "matchConditions": [any_of("asks", ["a", "b"])]},
        there[1],
        {"name": "bare.noisegate.io", "matchConditions": []},
    ]
    assert registration.adjusted(wide, wish, widen=False) == [
        {**there[0], "matchConditions": [any_of("asks", ["b"])]},
        there[1],
        {"name": "bare.noisegate.io", "matchConditions": [any_of("asks", ["b"])]},
    ]


def test_a_rule_for_every_pod_takes_the_condition_away() -> None:
    """Every pod goes to the entry that fails closed, and none to the one for SR-IOV."""
    read = rules.load("rules: [{name: a, when: {}}]", "m")
    wanted = registration.wanted(read)
    assert [condition["name"] for condition in wanted["pods.noisegate.io"]] == ["is-no-mirror"]
    assert wanted["sriov.noisegate.io"][1] == {"name": "asks-nothing-else", "expression": "!(\ntrue\n)"}
    assert [condition["name"] for condition in wanted["workloads.noisegate.io"]] == ["changes", "is-nobodys"]
    assert len(registration.doubts(read)) == 1
