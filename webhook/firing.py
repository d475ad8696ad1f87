"""Which rules work on a pod, and the annotations it has once they have.

A rule may add an annotation or a device that another rule waits for, so rules fire until nothing new does. Conditions
only ever ask for presence, so this ends, and ends the same whatever the order; a pod that was mutated fires the same
rules again.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from noisegate.isolation import keys
from noisegate.isolation.pod import Container
from noisegate.webhook import podfields
from noisegate.webhook.objects import Pod
from noisegate.webhook.rules import Rule


class Fired(NamedTuple):
    """What fired.

    Attributes:
        rules: In the order of the file.
        annotations: The pod's annotations and what the rules add to them.
        injected: Names of rules by annotation key, for the keys that a rule added.
        labels: The pod's labels and what the rules add to them.
    """

    rules: tuple[Rule, ...]
    annotations: Mapping[str, str]
    injected: Mapping[str, str]
    labels: Mapping[str, str]


def requested(containers: Iterable[Container]) -> set[str]:
    """Return the names of all resources that containers ask for; an amount of zero asks for nothing."""
    names: set[str] = set()
    for container in containers:
        resources = container.resources
        for quantities in (resources.limits, resources.requests):
            for name, quantity in quantities.items():
                if quantity not in podfields.ZERO:
                    names.add(name)
    return names


def fire(
    rules: tuple[Rule, ...],
    pod: Pod,
    namespace: str,
    resources: set[str],
    *,
    mutate: bool | None,
    opt_out: bool,
) -> Fired:
    """Return the rules that work on a pod.

    Args:
        rules: All rules.
        pod: The pod.
        namespace: Its namespace.
        resources: What its containers ask for, devices of its attachments included. Grows by what rules add.
        mutate: What `cmk.intel.com/mutate` says.
        opt_out: Whether `mutate` may be False and then keeps rules about exclusive cores from firing.
    """
    annotations: dict[str, str] = pod.metadata.annotations
    labels: dict[str, str] = pod.metadata.labels
    injected: dict[str, str] = {}
    fired: set[int] = set()
    again = True
    while again:
        again = False
        for index, rule in enumerate(rules):
            if index in fired or not _holds(rule, annotations, labels, namespace, resources, mutate, opt_out):
                continue
            fired.add(index)
            again = again or rule.wakes
            for leaf in rule.annotations:
                if _adds(leaf.identity, annotations):
                    if annotations is pod.metadata.annotations:
                        annotations = dict(annotations)
                    annotations[leaf.identity] = leaf.value
                    injected[leaf.identity] = rule.name
            for leaf in rule.labels:
                if leaf.identity not in labels:
                    labels = {**labels, leaf.identity: leaf.value}
            resources |= rule.resources
    return Fired(tuple(rules[index] for index in sorted(fired)), annotations, injected, labels)


def _holds(
    rule: Rule,
    annotations: Mapping[str, str],
    labels: Mapping[str, str],
    namespace: str,
    resources: set[str],
    mutate: bool | None,
    opt_out: bool,
) -> bool:
    when = rule.when
    if when.namespaces is not None and not when.in_namespace(namespace):
        return False
    if when.resources:
        if rule.about_cores and mutate is not None and (mutate or opt_out):
            if not mutate:
                return False
        elif when.resources.isdisjoint(resources):
            return False
    return _all_hold(annotations, when.annotations) and _all_hold(labels, when.labels)


def _all_hold(given: Mapping[str, str], conditions: tuple[tuple[str, frozenset[str]], ...]) -> bool:
    for key, values in conditions:
        value = given.get(key)
        if value is None or (value not in values and "*" not in values):
            return False
    return True


def _adds(key: str, annotations: Mapping[str, str]) -> bool:
    """Tell whether a rule's annotation is added: it is absent, and the pod chooses its RDT classes not by other keys."""
    if key in annotations:
        return False
    own = key.startswith(keys.RDT_OWN_POD)
    if own or key.startswith(keys.RDT_RUNTIME):
        others = keys.RDT_RUNTIME if own else keys.RDT_OWN_POD
        return not any(given.startswith(others) for given in annotations)
    return True
