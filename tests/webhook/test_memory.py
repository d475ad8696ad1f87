"""What came of pods that were alike in everything that is read of them."""

import json
from typing import Any

import msgspec
import pytest
from builders import container, cores, pod

from noisegate.isolation.catalogue import NOTHING_KNOWN
from noisegate.isolation.policy import DEFAULT_POLICY
from noisegate.webhook import memory, mutate, rules
from noisegate.webhook.memory import Memory
from noisegate.webhook.mutate import Outcome
from noisegate.webhook.objects import Pod
from noisegate.webhook.rules import NO_RULES, Rules

CORES = rules.load("rules: [{name: a, when: {namespaces: [default]}, perContainer: {tty: true}}]", "m.yaml")


def consider(
    memory_: Memory, obj: dict[str, Any], *, file: Rules = NO_RULES, namespace: str = "default", warn: bool = False
) -> Outcome:
    """Consider a pod with a memory."""
    raw = json.dumps(obj).encode()
    typed = msgspec.json.decode(raw, type=Pod)
    return memory_.consider(typed, raw, namespace, DEFAULT_POLICY, file, NOTHING_KNOWN, warn=warn)


def asking(token: str = "abcde", annotations: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """Return a pod that asks for cores, with a token volume as the API server makes it."""
    name = f"kube-api-access-{token}"
    mounts = [{"name": name, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]
    return pod(
        annotations or {},
        containers=[container("app", resources=cores("2"), volumeMounts=mounts, **more)],
        volumes=[{"name": name, "projected": {"sources": []}}],
    )


def operations(outcome: Outcome) -> list[dict[str, Any]]:
    """Return what an outcome adds."""
    assert outcome.patch is not None
    return outcome.patch.operations()


def test_replicas_are_considered_once() -> None:
    """Pods that differ in name, uid and token volume have one outcome."""
    remembered = Memory()
    first = consider(remembered, asking("abcde"))
    other = asking("vwxyz")
    other["metadata"] |= {"name": "web-2", "uid": "1"}

    assert consider(remembered, other) is first
    assert len(remembered) == 1
    assert operations(first)[0]["path"] == "/spec/containers/0/env"


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"obj": asking(env=[{"name": "A", "value": "b"}])}, id="another container"),
        pytest.param({"obj": asking(env=[])} | {"namespace": "other"}, id="another namespace"),
        pytest.param({"obj": asking(), "warn": True}, id="warn mode"),
        pytest.param({"obj": asking(annotations={"noisegate.io/rdt-class": "gold"})}, id="another annotation"),
    ],
)
def test_what_differs_is_considered_anew(other: dict[str, Any]) -> None:
    """A difference in anything that is read makes an outcome of its own."""
    remembered = Memory()
    first = consider(remembered, asking())

    assert consider(remembered, **other) is not first
    assert len(remembered) == 2


def test_absent_and_empty_differ() -> None:
    """What is absent and what is there and empty need different operations, so they are not one pod."""
    remembered = Memory()
    absent, empty = pod(containers=[container()]), pod(containers=[container(resources={})])
    consider(remembered, absent)
    consider(remembered, empty)

    assert len(remembered) == 2


def test_a_token_volume_that_is_spoken_of_is_itself() -> None:
    """Where an annotation speaks of token volumes, their names are not taken for the same."""
    remembered = Memory()
    for token in ("abcde", "vwxyz"):
        consider(
            remembered,
            asking(
                token, {"blockio.kubernetes.io/resources": '{"kube-api-access-abcde": {"limits": {"rbps": "5Mi"}}}'}
            ),
        )

    assert len(remembered) == 2


def test_what_was_read_whole_is_not_remembered() -> None:
    """An outcome that depends on more than the typed view is never given to another pod."""
    remembered = Memory()
    first = consider(remembered, asking(), file=CORES)

    assert first.whole
    assert len(remembered) == 0


def test_new_rules_forget_everything() -> None:
    """Another file of rules, even an equal one, begins anew."""
    remembered = Memory()
    first = consider(remembered, asking())
    again = consider(remembered, asking(), file=Rules(notes=("x",)))

    assert again is not first
    assert len(remembered) == 1


def test_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest outcome makes way, and a very large pod is not remembered."""
    monkeypatch.setattr(memory, "MOST", 2)
    remembered = Memory()
    for number in range(4):
        consider(remembered, asking(annotations={"a": str(number)}))
    assert len(remembered) == 2

    consider(remembered, asking(annotations={"a": "x" * memory.LONGEST}))
    assert len(remembered) == 2


def test_the_same_as_without_memory() -> None:
    """A remembered outcome is what considering the pod would have given."""
    remembered = Memory()
    for token in ("abcde", "vwxyz"):
        obj = asking(token)
        raw = json.dumps(obj).encode()
        typed = msgspec.json.decode(raw, type=Pod)
        anew = mutate.consider(typed, raw, "default", DEFAULT_POLICY, NO_RULES, NOTHING_KNOWN)

        assert operations(consider(remembered, obj)) == operations(anew)
