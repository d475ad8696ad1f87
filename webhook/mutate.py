"""One pod: everything that is wrong with what it asks for, and everything it needs and lacks."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from noisegate.isolation import asked as asking
from noisegate.isolation import cpu, devices, disk, keys, network, podnetinfo, rdt, reserved, sriov
from noisegate.isolation.asked import Asked, Kind
from noisegate.isolation.catalogue import Catalogue
from noisegate.isolation.cpu import Cores
from noisegate.isolation.policy import Policy
from noisegate.isolation.problems import Code, Findings, Problem, in_annotation, nearest
from noisegate.isolation.sriov import Attachments
from noisegate.webhook import firing
from noisegate.webhook.firing import Fired
from noisegate.webhook.merge import Merge, readable
from noisegate.webhook.objects import Container, Pod
from noisegate.webhook.patch import Patch
from noisegate.webhook.rules import Leaf, Rule, Rules

__all__ = ["Outcome", "consider", "readable"]

UNKNOWN_PROFILE: Final = Code(
    "NG604",
    "unknown-profile",
    "noisegate.io/profile names a rule of mutations.yaml that waits for it; there is none of that name.",
    "noisegate.io/profile: sriov-dpkd",
    "noisegate.io/profile: sriov-dpdk",
)
PROFILE_NAMESPACE: Final = Code(
    "NG605",
    "profile-not-in-namespace",
    "The profile gives privilege, so the rule names the namespaces it works in, and this is none of them.",
    "namespace: default",
    "namespace: routers",
)
NOT_GUARANTEED: Final = Code(
    "NG606",
    "pod-not-guaranteed",
    "The rule needs a pod of QoS class Guaranteed: every container has cpu and memory limits, and requests equal to them.",
    "resources:\n  requests: {cpu: 1, memory: 1Gi}",
    "resources:\n  limits: {cpu: 1, memory: 1Gi}",
)
CODES: Final = (UNKNOWN_PROFILE, PROFILE_NAMESPACE, NOT_GUARANTEED)


class Outcome(NamedTuple):
    """What came of judging one object.

    Attributes:
        problems: What cannot be meant or is not allowed, in a stable order.
        warnings: What is doubtful.
        patch: What must be added; None or empty where nothing must.
    """

    problems: list[Problem]
    warnings: list[Problem]
    patch: Patch | None = None


def consider(
    pod: Pod,
    raw: bytes | msgspec.Raw,
    namespace: str,
    policy: Policy,
    rules: Rules,
    catalogue: Catalogue,
    *,
    warn: bool = False,
    template: str = "",
    claims: frozenset[str] = frozenset(),
) -> Outcome:
    """Judge a pod that is to be created, and find what it lacks.

    Args:
        pod: The pod, or the pod template of a workload.
        raw: The object it was decoded from.
        namespace: Namespace it will live in.
        policy: What is allowed here.
        rules: What is added to pods.
        catalogue: What is known of the cluster.
        warn: Leave out what is wrong and add the rest, instead of adding nothing.
        template: JSON pointer of the template in `raw`; empty for a pod. What may come later then only warns.
        claims: Volumes that a StatefulSet's claim templates give the pod.

    Returns:
        Problems and warnings by path from the pod's root, and the patch; with problems and without `warn`, no patch.
    """
    found = Findings()
    metadata, spec = pod.metadata, pod.spec
    containers = (*spec.containers, *spec.init_containers)
    mutate = cpu.read_mutate(metadata.annotations, found) if keys.CPU_MUTATE in metadata.annotations else None
    resources = firing.requested(containers)
    cores: tuple[Cores, ...] = ()
    bad: set[Kind] = set()
    if not resources.isdisjoint(keys.CORE_RESOURCES):
        cores = cpu.read(spec, found)
    if found.problems:
        bad.add("cpu")
    opted_out = mutate is False and policy.cpu.opt_out
    while True:
        fired = firing.fire(rules.rules, pod, namespace, resources, mutate=mutate, opt_out=opted_out)
        annotations = fired.annotations
        if not resources and not asking.asks(annotations) and not fired.rules and keys.CPU_MUTATE not in annotations:
            return Outcome(found.problems, found.warnings)
        kinds = Findings()
        asked = asking.read(annotations, kinds)
        attachments = None
        if asked.networks:
            before = len(kinds.problems)
            sriov.fit(asked.networks, spec, kinds)
            attachments = sriov.judge(asked.networks, namespace, policy.sriov, catalogue, kinds, later=bool(template))
            if len(kinds.problems) > before:
                bad.add("sriov")
            if not attachments.units.keys() <= resources and _waits(rules, fired, attachments.units):
                resources |= attachments.units.keys()
                continue
        break
    found.problems += kinds.problems
    found.warnings += kinds.warnings
    bad |= asked.bad
    _judge(asked, pod, namespace, policy, catalogue, claims, fired, bad, found)
    _judge_rules(fired, rules, pod, namespace, found)
    if cores and mutate is False and not opted_out:
        found.warn(
            cpu.OPT_OUT_IGNORED,
            in_annotation(keys.CPU_MUTATE),
            metadata.annotations[keys.CPU_MUTATE],
            "the pod asks for exclusive cores, so it is mutated all the same (policy.cpu.optOut is off)",
        )

    merge = Merge(pod, raw, found, template)
    if attachments is not None and "sriov" not in bad:
        _add_devices(merge, attachments, fired, policy, found)
    if "cpu" not in bad and not opted_out:
        for container_cores in cores:
            _add_cores(merge, container_cores)
    _add_annotations(merge, asked, fired, policy, bad)
    for rule in fired.rules:
        if not (rule.about_cores and "cpu" in bad):
            _add_rule(merge, rule)
    _name_rules(found, fired)
    found.problems.sort()
    found.warnings.sort()
    return Outcome(found.problems, found.warnings, None if found.problems and not warn else merge.patch)


def _judge(
    asked: Asked,
    pod: Pod,
    namespace: str,
    policy: Policy,
    catalogue: Catalogue,
    claims: frozenset[str],
    fired: Fired,
    bad: set[Kind],
    found: Findings,
) -> None:
    """Ask of each kind whether it fits the pod and is allowed here."""
    spec, problems = pod.spec, found.problems
    if asked.disk is not None:
        before = len(problems)
        disk.fit(asked.disk, spec, found, claim_templates=claims)
        disk.judge(asked.disk, spec, namespace, policy.disk, catalogue, found)
        if len(problems) > before:
            bad.add("disk")
    if asked.network is not None:
        before = len(problems)
        network.fit(asked.network, spec, fired.annotations, found)
        if len(problems) > before:
            bad.add("network")
    if asked.rdt is not None:
        before = len(problems)
        rdt.fit(asked.rdt, [container.name for container in (*spec.containers, *spec.init_containers)], found)
        rdt.judge(asked.rdt, catalogue, found)
        if len(problems) > before:
            bad.add("rdt")
    reserved.check_known(fired.annotations, found)
    if policy.enforcement == "required":
        enforced = _enforced(asked, bad)
        if enforced:
            reserved.check_enforced(fired.annotations, spec.node_selector, enforced, found)


def _enforced(asked: Asked, bad: set[Kind]) -> tuple[Kind, ...]:
    """Return the kinds that only an enforcer can hold."""
    kinds: list[Kind] = []
    if asked.disk is not None and "disk" not in bad:
        kinds.append("disk")
    if asked.network is not None and "network" not in bad:
        kinds.append("network")
    if asked.rdt is not None and "rdt" not in bad and asked.rdt.asks_enforcer():
        kinds.append("rdt")
    return tuple(kinds)


def _judge_rules(fired: Fired, rules: Rules, pod: Pod, namespace: str, found: Findings) -> None:
    """Check that the profile asked for exists and works here, and what fired rules need of the pod."""
    profile = fired.annotations.get(keys.PROFILE)
    if profile is not None:
        profiles = {rule.profile: rule for rule in rules.rules if rule.profile}
        rule = profiles.get(profile)
        path = in_annotation(keys.PROFILE)
        if rule is None:
            meant = nearest(profile, profiles)
            listed = ", ".join(sorted(profiles)) or "none"
            found.deny(
                UNKNOWN_PROFILE, path, profile, f'there is no profile "{profile}"; known profiles: {listed}', f"write {meant}" if meant else ""
            )
        elif not rule.when.in_namespace(namespace):
            allowed = ", ".join(rule.when.namespaces or ()) or "none yet"
            found.deny(
                PROFILE_NAMESPACE,
                path,
                profile,
                f'profile "{profile}" does not work in namespace {namespace}; allowed namespaces: {allowed}',
                f"ask whoever keeps mutations.yaml to add the namespace to rule {rule.name}",
            )
    for rule in fired.rules:
        if rule.guaranteed:
            for path, container, lacking in not_guaranteed(pod):
                found.deny(
                    NOT_GUARANTEED,
                    path,
                    "",
                    f'rule "{rule.name}" needs a pod of QoS class Guaranteed; {container} {lacking}',
                    "give cpu and memory limits, and no requests that differ from them",
                )


def not_guaranteed(pod: Pod) -> list[tuple[str, str, str]]:
    """Return path, name and reason of every part that keeps a pod from QoS class Guaranteed.

    Rule of the API server: cpu and memory limits everywhere, requests absent or equal; pod-level resources, where
    given, speak for all containers.
    """
    spec = pod.spec
    parts: list[tuple[str, str, Any]] = [("spec.resources", "the pod", spec.resources)]
    if not spec.resources.limits and not spec.resources.requests:
        parts = [
            (f"spec.{field}[{index}].resources", f'container "{container.name}"', container.resources)
            for field, containers in (("containers", spec.containers), ("initContainers", spec.init_containers))
            for index, container in enumerate(containers)
        ]
    lacking: list[tuple[str, str, str]] = []
    for path, name, resources in parts:
        for resource in ("cpu", "memory"):
            limit = resources.limits.get(resource)
            request = resources.requests.get(resource, limit)
            if limit is None:
                lacking.append((f"{path}.limits", name, f"has no {resource} limit"))
            elif str(request) != str(limit) and not _equal(request, limit):
                lacking.append((f"{path}.requests", name, f"requests {request} of {resource} but is limited to {limit}"))
    return lacking


def _equal(first: object, second: object) -> bool:
    from noisegate.isolation.quantity import parse  # noqa: PLC0415  (only where two spellings differ)

    try:
        return parse(str(first)) == parse(str(second))
    except ValueError:
        return False


def _waits(rules: Rules, fired: Fired, resources: Mapping[str, int]) -> bool:
    return any(not rule.when.resources.isdisjoint(resources) for rule in rules.rules if rule not in fired.rules)


def _add_devices(merge: Merge, attachments: Attachments, fired: Fired, policy: Policy, found: Findings) -> None:
    """Add the devices of the pod's attachments, their nodes, and /etc/podnetinfo; nothing where one of them is wrong."""
    pod, spec = merge.pod, merge.pod.spec
    before = len(found.problems)
    grants = devices.missing(attachments, spec, devices.target(fired.annotations, spec, found), policy.sriov, found)
    labels = sriov.node_labels(attachments, spec, found)
    info = podnetinfo.podnetinfo(bool(pod.metadata.labels), bool(fired.annotations), spec, found) if attachments.units else None
    if len(found.problems) > before:
        return
    for label, value in labels.items():
        merge.put(merge.pod_scope, Leaf(("spec", "nodeSelector"), label, value, element=False))
    for grant in grants:
        scope = merge.containers[grant.container]
        for half in ("limits", "requests"):
            merge.put(scope, Leaf(("resources", half), grant.resource, str(grant.units), element=False))
    if info is None:
        return
    for position in info.mounts:
        merge.put(merge.containers[position], Leaf(("volumeMounts",), podnetinfo.MOUNT_PATH, podnetinfo.mount(), element=True))
    for position, name in info.env:
        variable = {"name": podnetinfo.ENV, "value": name}
        merge.put(merge.containers[position], Leaf(("env",), podnetinfo.ENV, variable, element=True))
    if info.volume is not None:
        merge.put(merge.pod_scope, Leaf(("spec", "volumes"), podnetinfo.VOLUME, info.volume, element=True))


def _add_cores(merge: Merge, cores: Cores) -> None:
    """Tell the program its number of cores, and complete a request without a limit."""
    scope = (merge.init_containers if cores.init else merge.containers)[cores.position]
    if not cores.env:
        merge.put(scope, Leaf(("env",), keys.CPU_ENV, {"name": keys.CPU_ENV, "value": str(cores.number)}, element=True))
    if not cores.limited:
        merge.put(scope, Leaf(("resources", "limits"), cores.resource, str(cores.number), element=False))


_ANNOTATIONS: Final = ("metadata", "annotations")


def _add_annotations(merge: Merge, asked: Asked, fired: Fired, policy: Policy, bad: set[Kind]) -> None:
    """Add what rules say in annotations, and what the node enforcer needs."""
    present = merge.pod.metadata.annotations
    wanted = {key: fired.annotations[key] for key in sorted(fired.injected)}
    if asked.disk is not None and "disk" not in bad:
        paths = disk.mounts_of(asked.disk, merge.pod.spec)
        if paths:
            wanted[keys.VOLUME_PATHS] = msgspec.json.encode(paths).decode()
    if policy.enforcement == "required":
        kinds = _enforced(asked, bad)
        if kinds:
            wanted[keys.REQUIRED_PLUGINS] = reserved.REQUIRED_VALUE
        for kind in kinds:
            if keys.ENFORCES + kind not in merge.pod.spec.node_selector:
                merge.put(merge.pod_scope, Leaf(("spec", "nodeSelector"), keys.ENFORCES + kind, "true", element=False))
    for key, value in wanted.items():
        if present.get(key) != value:
            merge.put(merge.pod_scope, Leaf(_ANNOTATIONS, key, value, element=False))


def _add_rule(merge: Merge, rule: Rule) -> None:
    for leaf in rule.per_pod:
        # What a rule adds among the annotations is settled where rules fire; what is left is what the pod has otherwise.
        if leaf.path != _ANNOTATIONS or leaf.identity in merge.pod.metadata.annotations:
            merge.want(merge.pod_scope, leaf, rule)
    if not rule.per_container:
        return
    scopes = [scope for scope in (*merge.containers, *merge.init_containers) if scope.container and _gets(rule, scope.container)]
    if rule.volumes:
        merge.want_unit(rule, scopes)
    for leaf in rule.per_container:
        if leaf.path in (("volumeMounts",), ("volumeDevices",)) and leaf.value.get("name") in rule.volumes:
            continue
        for scope in scopes:
            merge.want(scope, leaf, rule)


def _gets(rule: Rule, container: Container) -> bool:
    if rule.containers == "all":
        return True
    if rule.containers == "asking":
        return not rule.when.resources.isdisjoint(firing.requested((container,)))
    return container.name in rule.containers


def _name_rules(found: Findings, fired: Fired) -> None:
    """Say in each problem of an annotation that a rule set which rule that was."""
    if not fired.injected:
        return
    for problems in (found.problems, found.warnings):
        for place, problem in enumerate(problems):
            for key, rule in fired.injected.items():
                if problem.path.startswith(in_annotation(key)):
                    problems[place] = problem._replace(message=f'{problem.message}; rule "{rule}" of mutations.yaml set this')
