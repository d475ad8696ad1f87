"""Which rules work on a pod."""

import json
from typing import Any

import msgspec
import pytest
from builders import container, cores, pod

from noisegate.webhook import rules
from noisegate.webhook.firing import Fired, fire, requested
from noisegate.webhook.objects import Pod, decode

CORES = "cmk.intel.com/exclusive-cores"
RUNTIME = "rdt.resources.beta.kubernetes.io/pod"
OWN = "noisegate.io/rdt-class"


def typed(obj: Any) -> Pod:
    """Return a pod as it is read."""
    return decode(msgspec.json.Decoder(Pod), json.dumps(obj).encode())


def fired(
    file: list[dict[str, Any]],
    obj: Any,
    *,
    namespace: str = "default",
    resources: set[str] | None = None,
    mutate: bool | None = None,
    opt_out: bool = False,
) -> Fired:
    """Fire rules on a pod."""
    named = [{"name": f"r{number}", **rule} for number, rule in enumerate(file)]
    loaded = rules.load(json.dumps({"rules": named}), "m.yaml")
    return fire(
        loaded.rules,
        typed(obj),
        namespace,
        resources if resources is not None else set(),
        mutate=mutate,
        opt_out=opt_out,
    )


def names(result: Fired) -> list[str]:
    """Return the names of the rules that fired."""
    return [rule.name for rule in result.rules]


@pytest.mark.parametrize(
    ("when", "fires"),
    [
        pytest.param({}, True, id="no condition"),
        pytest.param({"namespaces": ["default"]}, True, id="namespace"),
        pytest.param({"namespaces": ["x", "def*"]}, True, id="one of several globs"),
        pytest.param({"namespaces": ["Default"]}, False, id="another case"),
        pytest.param({"namespaces": []}, False, id="no namespace yet"),
        pytest.param({"annotations": {"tier": "gold"}}, True, id="annotation"),
        pytest.param({"annotations": {"tier": ["silver", "gold"]}}, True, id="one of several values"),
        pytest.param({"annotations": {"tier": "*"}}, True, id="any value"),
        pytest.param({"annotations": {"tier": "silver"}}, False, id="another value"),
        pytest.param({"annotations": {"absent": "*"}}, False, id="absent"),
        pytest.param({"annotations": {"tier": "gold", "absent": "*"}}, False, id="all must hold"),
        pytest.param({"labels": {"app": "web"}}, True, id="label"),
        pytest.param({"labels": {"tier": "gold"}}, False, id="annotation is no label"),
        pytest.param({"resources": ["intel.com/a"]}, True, id="resource"),
        pytest.param({"resources": ["intel.com/b", "intel.com/a"]}, True, id="one of several resources"),
        pytest.param({"resources": ["intel.com/b"]}, False, id="another resource"),
        pytest.param({"resources": ["intel.com/a"], "namespaces": ["x"]}, False, id="resource elsewhere"),
    ],
)
def test_conditions(when: dict[str, Any], fires: bool) -> None:
    """All that is given must hold."""
    result = fired([{"when": when}], pod({"tier": "gold"}, labels={"app": "web"}), resources={"intel.com/a"})

    assert names(result) == (["r0"] if fires else [])


@pytest.mark.parametrize("backwards", [False, True])
def test_chain(backwards: bool) -> None:
    """A rule may wait for an annotation, label or resource that another adds; their order in the file is no matter."""
    chain = [
        {"name": "first", "when": {}, "perPod": {"metadata": {"annotations": {"step": "1"}}}},
        {"name": "second", "when": {"annotations": {"step": "1"}}, "perPod": {"metadata": {"labels": {"step": "2"}}}},
        {
            "name": "third",
            "when": {"labels": {"step": "2"}},
            "perContainer": {"resources": {"limits": {"intel.com/a": 1}}},
        },
        {"name": "fourth", "when": {"resources": ["intel.com/a"]}},
        {"name": "never", "when": {"annotations": {"step": "2"}}},
    ]
    result = fired(chain[::-1] if backwards else chain, pod())

    assert sorted(names(result)) == ["first", "fourth", "second", "third"]
    assert (result.annotations, result.injected, result.labels) == ({"step": "1"}, {"step": "first"}, {"step": "2"})


def test_own_annotation_wins() -> None:
    """What the pod says is no rule's to change; the first rule of two wins."""
    result = fired(
        [
            {"when": {}, "perPod": {"metadata": {"annotations": {"a": "rule", "b": "first"}}}},
            {"when": {}, "perPod": {"metadata": {"annotations": {"b": "second"}}}},
        ],
        pod({"a": "own"}),
    )

    assert result.annotations == {"a": "own", "b": "first"}
    assert result.injected == {"b": "r0"}


def test_zero_resource() -> None:
    """A rule that adds none of a resource makes nobody ask for it."""
    result = fired(
        [{"when": {}, "perContainer": {"resources": {"limits": {"a/b": "0"}}}}, {"when": {"resources": ["a/b"]}}], pod()
    )

    assert names(result) == ["r0"]


@pytest.mark.parametrize(
    ("own", "injects", "added"),
    [
        pytest.param({}, RUNTIME, True, id="nothing of the pod's own"),
        pytest.param({OWN: "gold"}, RUNTIME, False, id="our key, the rule the runtime's"),
        pytest.param({OWN + ".app": "gold"}, RUNTIME, False, id="our key of one container"),
        pytest.param(
            {"rdt.resources.beta.kubernetes.io/container.app": "gold"},
            OWN,
            False,
            id="the runtime's key, the rule ours",
        ),
        pytest.param(
            {"rdt.resources.beta.kubernetes.io/container.app": "gold"}, RUNTIME, True, id="same family, less specific"
        ),
        pytest.param({RUNTIME: "gold"}, RUNTIME, False, id="same key"),
    ],
)
def test_rdt_families(own: dict[str, str], injects: str, added: bool) -> None:
    """A rule's RDT class gives way to a key of the other family."""
    result = fired([{"when": {}, "perPod": {"metadata": {"annotations": {injects: "silver"}}}}], pod(own))

    assert result.injected == ({injects: "r0"} if added else {})
    assert names(result) == ["r0"]


@pytest.mark.parametrize(
    ("mutate", "opt_out", "asks", "fires"),
    [
        (None, False, True, True),
        (None, False, False, False),
        (True, False, False, True),
        (True, True, False, True),
        (False, False, True, True),
        (False, False, False, False),
        (False, True, True, False),
    ],
)
def test_mutate_annotation(mutate: bool | None, opt_out: bool, asks: bool, fires: bool) -> None:
    """cmk.intel.com/mutate speaks of rules about cores, and of no others."""
    file = [{"when": {"resources": [CORES]}}, {"when": {"resources": ["intel.com/a"]}}]
    result = fired(file, pod(), resources={CORES} if asks else set(), mutate=mutate, opt_out=opt_out)

    assert names(result) == (["r0"] if fires else [])


def test_requested() -> None:
    """What is asked for, in requests or limits, of any container; zero asks for nothing."""
    obj = typed(
        pod(
            containers=[
                container(resources=cores("1")),
                container("b", resources={"limits": {"x": "0", "y": 0, "z": 2}, "requests": {"w": "1m"}}),
            ]
        )
    )

    assert requested(obj.spec.containers) == {CORES, "z", "w"}
