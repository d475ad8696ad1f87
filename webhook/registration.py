"""What is registered with the API server: the entries of our two webhook configurations, from one table."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from noisegate.isolation import keys
from noisegate.webhook import conditions
from noisegate.webhook.conditions import Asks, Condition
from noisegate.webhook.rules import Rules

NAME: Final = "noisegate"
"""Of both configurations."""
MUTATING: Final = "MutatingWebhookConfiguration"
VALIDATING: Final = "ValidatingWebhookConfiguration"
MODE: Final = "noisegate.io/mode"
"""Label of a namespace; `warn`: nothing in it is refused."""
EXCLUDED: Final = ("kube-node-lease", "kube-public", "kube-system", "noisegate-node", "noisegate-system")
"""Namespaces of which nothing is sent: a cluster must come up, and we with it, while we are down. An enforcer's own pod that asked
for something would wait for itself."""


class Service(NamedTuple):
    """Where the API server finds us.

    Attributes:
        name: Of the Service.
        namespace: Of the Service.
        port: Of the Service.
    """

    name: str = "noisegate-webhook"
    namespace: str = "noisegate-system"
    port: int = 443


class Entry(NamedTuple):
    """One entry, present in one or both configurations, and in warn mode a second time.

    Attributes:
        name: Begins the entry's name, which ends in `noisegate.io`.
        mutates: Whether it is in the mutating configuration too.
        group: API group.
        resources: Plurals.
        operations: `CREATE`, `UPDATE`.
        failure_policy: What happens while we do not answer. In warn mode always `Ignore`.
        timeout: Seconds.
        conditions: Makes the conditions from the rules.
    """

    name: str
    mutates: bool
    group: str
    resources: tuple[str, ...]
    operations: tuple[str, ...]
    failure_policy: Literal["Fail", "Ignore"]
    timeout: int
    conditions: Callable[[Rules], list[Condition]]


def _no_mirror() -> Condition:
    # The kubelet's image of a static pod: it runs already.
    return conditions.any_of("is-no-mirror", [f'!object.?metadata.?annotations[?"{keys.MIRROR}"].hasValue()'])


def _not_leaving() -> Condition:
    return conditions.any_of("is-not-leaving", ["!object.?metadata.?deletionTimestamp.hasValue()"])


def _pods(rules: Rules) -> list[Condition]:
    asked = conditions.asks(rules)
    return [*([] if asked.every else [conditions.any_of("asks", asked.own)]), _no_mirror()]


def _sriov_pods(rules: Rules) -> list[Condition]:
    asked = conditions.asks(rules)
    others = ["true"] if asked.every else asked.own
    return [conditions.any_of("asks", asked.sriov), conditions.none_of("asks-nothing-else", others), _no_mirror()]


def _all_pods(rules: Rules) -> list[Condition]:
    return [*_anything(conditions.asks(rules)), _no_mirror()]


def _anything(asked: Asks) -> list[Condition]:
    return [] if asked.every else [conditions.any_of("asks", [*asked.own, *asked.sriov])]


def _updates(_rules: Rules) -> list[Condition]:
    return [conditions.any_of("changes", conditions.changed()), _not_leaving()]


def _templates(root: str) -> Callable[[Rules], list[Condition]]:
    def of(rules: Rules) -> list[Condition]:
        owners = "object.?metadata.?ownerReferences.orValue([])"
        return [
            *_anything(conditions.asks(rules, f"object.{root}")),
            conditions.any_of("changes", ["oldObject == null", f"object.{root} != oldObject.{root}"]),
            # The template was judged there.
            conditions.any_of(
                "is-nobodys",
                [f'!{owners}.exists(o, o.?controller.orValue(false) && o.kind in ["CronJob", "Deployment"])'],
            ),
        ]

    return of


def _networks(_rules: Rules) -> list[Condition]:
    return [conditions.any_of("changes", conditions.network_changed()), _not_leaving()]


_CHANGES: Final = ("CREATE", "UPDATE")
ENTRIES: Final = (
    Entry("pods", True, "", ("pods",), ("CREATE",), "Fail", 5, _pods),
    Entry("sriov", True, "", ("pods",), ("CREATE",), "Fail", 5, _sriov_pods),
    Entry("updates", False, "", ("pods",), ("UPDATE",), "Fail", 5, _updates),
    Entry(
        "workloads",
        False,
        "apps",
        ("deployments", "statefulsets", "daemonsets", "replicasets"),
        _CHANGES,
        "Ignore",
        3,
        _templates("spec.template"),
    ),
    Entry("jobs", False, "batch", ("jobs",), _CHANGES, "Ignore", 3, _templates("spec.template")),
    Entry(
        "cronjobs", False, "batch", ("cronjobs",), _CHANGES, "Ignore", 3, _templates("spec.jobTemplate.spec.template")
    ),
    Entry("networks", False, "k8s.cni.cncf.io", ("network-attachment-definitions",), _CHANGES, "Ignore", 3, _networks),
)
"""What is sent to us. In warn mode `pods` and `sriov` are one."""


IN_CLUSTER: Final = Service()
"""As deploy/ has it."""


def configurations(rules: Rules, service: Service = IN_CLUSTER) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the mutating and the validating configuration, without `caBundle`.

    Args:
        rules: What is added to pods: what they wait for must be sent.
        service: Where the API server finds us.
    """
    mutating = [_webhook(entry, rules, service, "mutate", warn) for entry, warn in _all() if entry.mutates]
    validating = [_webhook(entry, rules, service, "validate", warn) for entry, warn in _all()]
    for webhook in mutating:
        webhook["reinvocationPolicy"] = "IfNeeded"
    return _configuration(MUTATING, mutating), _configuration(VALIDATING, validating)


def wanted(rules: Rules) -> dict[str, list[Condition]]:
    """Return the conditions of every entry, by the entry's full name."""
    return {_name(entry, warn): entry.conditions(rules) for entry, warn in _all()}


def entry_names() -> tuple[list[str], list[str]]:
    """Return the names of the entries of the mutating and of the validating configuration."""
    return [_name(entry, warn) for entry, warn in _all() if entry.mutates], [_name(*one) for one in _all()]


def adjusted(
    webhooks: Sequence[Mapping[str, Any]], wishes: Mapping[str, Sequence[Condition]], *, widen: bool
) -> list[dict[str, Any]]:
    """Return the entries of a configuration with their conditions brought in step; all else stays as it is.

    Args:
        webhooks: As they are in the cluster.
        wishes: Conditions by entry; entries that are not ours are left alone.
        widen: Whether what is let through now stays let through.
    """
    result = []
    for webhook in webhooks:
        wish = wishes.get(webhook["name"])
        if wish is not None:
            there = webhook.get("matchConditions") or ()
            webhook = {**webhook, "matchConditions": conditions.widened(there, wish) if widen else list(wish)}  # noqa: PLW2901
        result.append(dict(webhook))
    return result


def doubts(rules: Rules) -> tuple[str, ...]:
    """Return what an operator should know of the conditions, a sentence each."""
    if not conditions.asks(rules).every:
        return ()
    return (
        "mutations.yaml has a rule for every pod, or more than a match condition can hold: every new pod is sent here",
    )


def _all() -> list[tuple[Entry, bool]]:
    """Return every entry, those of warn mode last; there one entry takes all pods."""
    warned = [
        entry._replace(conditions=_all_pods) if entry.name == "pods" else entry
        for entry in ENTRIES
        if entry.name != "sriov"
    ]
    return [*((entry, False) for entry in ENTRIES), *((entry, True) for entry in warned)]


def _name(entry: Entry, warn: bool) -> str:
    return f"{entry.name}.{'warn.' if warn else ''}noisegate.io"


def _webhook(entry: Entry, rules: Rules, service: Service, path: str, warn: bool) -> dict[str, Any]:
    return {
        "name": _name(entry, warn),
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {**service._asdict(), "path": f"/{'warn/' if warn else ''}{path}"}},
        "rules": [
            {
                "apiGroups": [entry.group],
                "apiVersions": ["v1"],
                "operations": list(entry.operations),
                "resources": list(entry.resources),
                "scope": "Namespaced",
            }
        ],
        "namespaceSelector": {
            "matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": list(EXCLUDED)},
                {"key": MODE, "operator": "In" if warn else "NotIn", "values": ["warn"]},
            ]
        },
        "matchConditions": entry.conditions(rules),
        "matchPolicy": "Equivalent",
        "failurePolicy": "Ignore" if warn else entry.failure_policy,
        "sideEffects": "None",
        "timeoutSeconds": entry.timeout,
    }


def _configuration(kind: str, webhooks: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/name": NAME}},
        "webhooks": webhooks,
    }
