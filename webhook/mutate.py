"""One pod: everything that is wrong with what it asks for, and everything it needs and lacks."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from noisegate.isolation import asked as asking
from noisegate.isolation import cpu, devices, disk, keys, network, rdt, reserved, sriov
from noisegate.isolation.asked import Asked, Kind
from noisegate.isolation.catalogue import Catalogue
from noisegate.isolation.cpu import Cores
from noisegate.isolation.policy import Policy
from noisegate.isolation.problems import Code, Findings, Problem, in_annotation, nearest
from noisegate.isolation.sriov import Attachments
from noisegate.webhook import additions, firing, qos
from noisegate.webhook.firing import Fired
from noisegate.webhook.merge import Merge, readable
from noisegate.webhook.objects import Pod, decode
from noisegate.webhook.patch import Patch
from noisegate.webhook.rules import Rule, Rules

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
    root: str = "",
    later: bool = False,
    claims: frozenset[str] = frozenset(),
) -> Outcome:
    """Judge a pod that is to be created, and find what it lacks.

    Args:
        pod: The pod, or the pod template of a workload.
        raw: What it was decoded from.
        namespace: Namespace it will live in.
        policy: What is allowed here.
        rules: What is added to pods.
        catalogue: What is known of the cluster.
        warn: Leave out what is wrong and add the rest, instead of adding nothing.
        root: JSON pointer of the pod in `raw`; empty where it is the whole.
        later: Whether what is missing may still come, as for a pod template: then it only warns.
        claims: Volumes that a StatefulSet's claim templates give the pod.

    Returns:
        Problems and warnings by path from the pod's root, and the patch; with problems and without `warn`, no patch.
    """
    view = _View(namespace, policy, rules, catalogue, claims, later=later)
    outcome, fired, again = _look(pod, raw, root, view, {})
    if again and outcome.patch:
        outcome = _settle(outcome, raw, root, view, fired.injected)._replace(whole=True)
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


def _settle(outcome: Outcome, raw: bytes | msgspec.Raw, root: str, view: _View, injected: Mapping[str, str]) -> Outcome:
    """Look at the pod again as it is with the patch, for as long as that makes it need more.

    A rule may make containers ask for devices, add an init container, or mount the volume that an annotation names:
    what the pod then asks for is judged, and given, as if it had said so itself.
    """
    document = msgspec.json.decode(raw)
    for step in root.split("/")[1:]:
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
    pod: Pod, raw: bytes | msgspec.Raw, root: str, view: _View, injected: Mapping[str, str]
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

    merge = Merge(pod, raw, found, root)
    if attachments is not None and "sriov" not in bad:
        additions.add_devices(merge, attachments, fired, policy.sriov, found)
    elif keys.DEVICES_CONTAINER in annotations:
        devices.target(annotations, spec, found)
    if "cpu" not in bad and not opted_out:
        for container_cores in cores:
            additions.add_cores(merge, container_cores)
    working = [rule for rule in fired.rules if not (rule.about_cores and "cpu" in bad)]
    additions.add_annotations(merge, asked, fired, working, policy, bad)
    for rule in working:
        additions.add_rule(merge, rule)
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
        enforced = asking.enforced(asked, bad)
        if enforced:
            reserved.check_enforced(fired.annotations, spec.node_selector, enforced, found)


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
            for path, container, lacking in qos.not_guaranteed(pod):
                # In a template: a LimitRange may still give the limits.
                tell = found.warn if later else found.deny
                tell(
                    NOT_GUARANTEED,
                    path,
                    "",
                    f'rule "{rule.name}" needs a pod of QoS class Guaranteed; {container} {lacking}',
                    "give cpu and memory limits, and no requests that differ from them",
                )


def _name_rules(found: Findings, injected: Mapping[str, str]) -> None:
    """Say in each problem of an annotation that a rule set which rule that was."""
    for problems in (found.problems, found.warnings):
        for place, problem in enumerate(problems):
            for key, rule in injected.items():
                if problem.path.startswith(in_annotation(key)):
                    problems[place] = problem._replace(
                        message=f'{problem.message}; rule "{rule}" of mutations.yaml set this'
                    )
