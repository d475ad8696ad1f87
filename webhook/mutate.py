"""One pod: everything that is wrong with what it asks for, and everything it needs and lacks."""

from collections.abc import Iterable, Mapping
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
from noisegate.webhook.objects import Container, Pod, decode
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
UNSETTLED: Final = Code(
    "NG607",
    "rules-unsettled",
    "Rules of mutations.yaml undo each other's work on this pod, or work without end; whoever keeps the file must mend it.",
    "onConflict: replace",
    "onConflict: keep",
)
CODES: Final = (UNKNOWN_PROFILE, PROFILE_NAMESPACE, NOT_GUARANTEED, UNSETTLED)

MOST_PASSES: Final = 8
"""Times a pod is looked at again because a rule made it ask for more. Two are enough for all that makes sense."""


class Outcome(NamedTuple):
    """What came of judging one object.

    Attributes:
        problems: What cannot be meant or is not allowed, in a stable order.
        warnings: What is doubtful.
        patch: What must be added; None or empty where nothing must.
        whole: Whether more of the object was read than its typed view.
    """

    problems: list[Problem]
    warnings: list[Problem]
    patch: Patch | None = None
    whole: bool = False


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
    view = _View(namespace, policy, rules, catalogue, claims, later=bool(template))
    outcome, fired, again = _look(pod, raw, template, view, {})
    if again and outcome.patch:
        outcome = _settle(outcome, raw, template, view, fired.injected)._replace(whole=True)
    if outcome.problems and not warn:
        return outcome._replace(patch=None)
    return outcome


class _View(NamedTuple):
    """What one call of `consider` sees besides the pod."""

    namespace: str
    policy: Policy
    rules: Rules
    catalogue: Catalogue
    claims: frozenset[str]
    later: bool


_pod_decoder: Final = msgspec.json.Decoder(Pod)


def _settle(
    outcome: Outcome, raw: bytes | msgspec.Raw, template: str, view: _View, injected: Mapping[str, str]
) -> Outcome:
    """Look at the pod again as it is with the patch, for as long as that makes it need more.

    A rule may make containers ask for devices, add an init container, or mount the volume that an annotation names:
    what the pod then asks for is judged, and given, as if it had said so itself.
    """
    document = msgspec.json.decode(raw)
    for step in template.split("/")[1:]:
        document = (document or {}).get(step)
    document = document or {}
    patch = Patch()
    topped_up = [warning for warning in outcome.warnings if warning.code == devices.TOPPED_UP.id]
    for _ in range(MOST_PASSES):
        if not outcome.patch:
            break
        outcome.patch.apply(document)
        patch.extend(outcome.patch)
        encoded = msgspec.json.encode(document)
        outcome, fired, _ = _look(decode(_pod_decoder, encoded), encoded, "", view, injected)
        injected = {**fired.injected, **injected}
    else:
        names = ", ".join(rule.name for rule in fired.rules)
        unsettled = Problem(
            UNSETTLED.id,
            "",
            "",
            f"the rules {names} of mutations.yaml undo each other's work on this pod",
            "mend mutations.yaml",
        )
        return Outcome([*outcome.problems, unsettled], outcome.warnings)
    return Outcome(outcome.problems, sorted({*topped_up, *outcome.warnings}), patch)


def _look(
    pod: Pod, raw: bytes | msgspec.Raw, template: str, view: _View, injected: Mapping[str, str]
) -> tuple[Outcome, Fired, bool]:
    """Judge a pod as it stands; tell whether it may ask for more once it has the patch.

    `injected`: annotations that rules added before, and the rules' names.
    """
    namespace, policy, rules, catalogue, claims, later = view
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
        if not cores and not asking.asks(annotations) and not fired.rules and keys.CPU_MUTATE not in annotations:
            return Outcome(sorted(found.problems), sorted(found.warnings)), fired, False
        kinds = Findings()
        asked = asking.read(annotations, kinds)
        attachments = None
        if asked.networks:
            before = len(kinds.problems)
            sriov.fit(asked.networks, spec, kinds)
            attachments = sriov.judge(asked.networks, namespace, policy.sriov, catalogue, kinds, later=later)
            if len(kinds.problems) > before:
                bad.add("sriov")
            if not rules.awaited.isdisjoint(attachments.units) and not attachments.units.keys() <= resources:
                resources |= attachments.units.keys()
                continue
        break
    found.problems += kinds.problems
    found.warnings += kinds.warnings
    bad |= asked.bad
    _judge(asked, pod, namespace, policy, catalogue, claims, fired, bad, found)
    _judge_rules(fired, rules, pod, namespace, found, later=later)
    if cores and mutate is False and not opted_out:
        found.warn(
            cpu.OPT_OUT_IGNORED,
            in_annotation(keys.CPU_MUTATE),
            metadata.annotations[keys.CPU_MUTATE],
            "the pod asks for exclusive cores, so it is mutated all the same (policy.cpu.optOut is off)",
        )

    merge = Merge(pod, raw, found, template)
    if attachments is not None and "sriov" not in bad:
        _add_devices(merge, attachments, fired, view, found)
    elif keys.DEVICES_CONTAINER in annotations:
        devices.target(annotations, spec, found)
    if "cpu" not in bad and not opted_out:
        for container_cores in cores:
            _add_cores(merge, container_cores)
    working = [rule for rule in fired.rules if not (rule.about_cores and "cpu" in bad)]
    _add_annotations(merge, asked, fired, working, policy, bad)
    for rule in working:
        _add_rule(merge, rule)
    _name_rules(found, {**fired.injected, **injected})
    found.problems.sort()
    found.warnings.sort()
    return (
        Outcome(found.problems, found.warnings, merge.patch, merge.whole),
        fired,
        _reaches(working, asked, attachments),
    )


def _reaches(rules: Iterable[Rule], asked: Asked, attachments: Attachments | None) -> bool:
    """Tell whether a pod may ask for more, or for something else, once these rules have worked on it."""
    limited = () if asked.disk is None else [entry.volume for entry in asked.disk.volumes]
    for rule in rules:
        if (
            rule.reaches
            or not rule.mounts.isdisjoint(limited)
            or (limited and rule.mounts and rule.on_conflict == "replace")
            or (attachments is not None and (rule.selects or rule.containers == "asking"))
        ):
            return True
    return False


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


def _judge_rules(fired: Fired, rules: Rules, pod: Pod, namespace: str, found: Findings, *, later: bool) -> None:
    """Check that the profile asked for exists and works here, and what fired rules need of the pod."""
    profile = fired.annotations.get(keys.PROFILE)
    if profile is not None:
        profiles = {rule.profile: rule for rule in rules.rules if rule.profile}
        offers = [rule for rule in rules.rules if rule.profile == profile]
        path = in_annotation(keys.PROFILE)
        if not offers or not profile:
            meant = nearest(profile, profiles)
            listed = ", ".join(sorted(profiles)) or "none"
            found.deny(
                UNKNOWN_PROFILE,
                path,
                profile,
                f'there is no profile "{profile}"; known profiles: {listed}',
                f"write {meant}" if meant else "",
            )
        elif not any(rule.when.in_namespace(namespace) for rule in offers):
            allowed = ", ".join(sorted({glob for rule in offers for glob in rule.when.namespaces or ()})) or "none yet"
            found.deny(
                PROFILE_NAMESPACE,
                path,
                profile,
                f'profile "{profile}" does not work in namespace {namespace}; allowed namespaces: {allowed}',
                f"ask whoever keeps mutations.yaml to add the namespace to rule {offers[0].name}",
            )
    for rule in fired.rules:
        if rule.guaranteed:
            for path, container, lacking in not_guaranteed(pod):
                # In a template: a LimitRange may still give the limits.
                tell = found.warn if later else found.deny
                tell(
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
                lacking.append(
                    (f"{path}.requests", name, f"requests {request} of {resource} but is limited to {limit}")
                )
    return lacking


def _equal(first: object, second: object) -> bool:
    from noisegate.isolation.quantity import parse  # noqa: PLC0415  (only where two spellings differ)

    try:
        return parse(str(first)) == parse(str(second))
    except ValueError:
        return False


def _add_devices(merge: Merge, attachments: Attachments, fired: Fired, view: _View, found: Findings) -> None:
    """Add the devices of the pod's attachments, their nodes, and /etc/podnetinfo; nothing where one of them is wrong."""
    spec = merge.pod.spec
    before = len(found.problems)
    grants = devices.missing(
        attachments, spec, devices.target(fired.annotations, spec, found), view.policy.sriov, found
    )
    labels = sriov.node_labels(attachments, spec, found)
    info = (
        podnetinfo.podnetinfo(bool(fired.labels), bool(fired.annotations), spec, found) if attachments.units else None
    )
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
        merge.put(
            merge.containers[position], Leaf(("volumeMounts",), podnetinfo.MOUNT_PATH, podnetinfo.mount(), element=True)
        )
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


def _add_annotations(
    merge: Merge, asked: Asked, fired: Fired, working: Iterable[Rule], policy: Policy, bad: set[Kind]
) -> None:
    """Add what rules say in annotations, and what the node enforcer needs."""
    present = merge.pod.metadata.annotations
    names = {rule.name for rule in working} if fired.injected else ()
    wanted = {
        key: fired.annotations[key]
        for key, name in sorted(fired.injected.items())
        if name in names and not (bad and asking.kind_of(key) in bad)
    }
    if asked.disk is not None and "disk" not in bad:
        paths = disk.mounts_of(asked.disk, merge.pod.spec)
        if paths:
            wanted[keys.VOLUME_PATHS] = msgspec.json.encode(paths).decode()
    if policy.enforcement == "required":
        kinds = _enforced(asked, bad)
        if kinds and keys.REQUIRED_PLUGINS not in fired.annotations:
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
    scopes = [
        scope
        for scope in (*merge.containers, *merge.init_containers)
        if scope.container and _gets(rule, scope.container)
    ]
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


def _name_rules(found: Findings, injected: Mapping[str, str]) -> None:
    """Say in each problem of an annotation that a rule set which rule that was."""
    for problems in (found.problems, found.warnings):
        for place, problem in enumerate(problems):
            for key, rule in injected.items():
                if problem.path.startswith(in_annotation(key)):
                    problems[place] = problem._replace(
                        message=f'{problem.message}; rule "{rule}" of mutations.yaml set this'
                    )
