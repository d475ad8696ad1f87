"""What a pod needs and lacks: each kind's additions, and each rule's."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from noisegate.isolation import asked as asking
from noisegate.isolation import devices, disk, keys, podnetinfo, reserved, sriov
from noisegate.isolation.asked import Asked, Kind
from noisegate.isolation.cpu import Cores
from noisegate.isolation.policy import Policy, SriovPolicy
from noisegate.isolation.problems import Findings
from noisegate.isolation.sriov import Attachments
from noisegate.webhook import firing
from noisegate.webhook.firing import Fired
from noisegate.webhook.leaf import MOUNTS, Leaf
from noisegate.webhook.merge import Merge
from noisegate.webhook.objects import Container
from noisegate.webhook.rules import Rule


def add_devices(merge: Merge, attachments: Attachments, fired: Fired, policy: SriovPolicy, found: Findings) -> None:
    """Add the devices of the pod's attachments, their nodes, and /etc/podnetinfo; nothing where one of them is wrong."""
    spec = merge.pod.spec
    before = len(found.problems)
    grants = devices.missing(attachments, spec, devices.target(fired.annotations, spec, found), policy, found)
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


def add_cores(merge: Merge, cores: Cores) -> None:
    """Tell the program its number of cores, and complete a request without a limit."""
    scope = (merge.init_containers if cores.init else merge.containers)[cores.position]
    if not cores.env:
        merge.put(scope, Leaf(("env",), keys.CPU_ENV, {"name": keys.CPU_ENV, "value": str(cores.number)}, element=True))
    if not cores.limited:
        merge.put(scope, Leaf(("resources", "limits"), cores.resource, str(cores.number), element=False))


_ANNOTATIONS: Final = ("metadata", "annotations")


def add_annotations(
    merge: Merge, asked: Asked, fired: Fired, working: Iterable[Rule], policy: Policy, bad: AbstractSet[Kind]
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
        kinds = asking.enforced(asked, bad)
        if kinds and keys.REQUIRED_PLUGINS not in fired.annotations:
            wanted[keys.REQUIRED_PLUGINS] = reserved.REQUIRED_VALUE
        for kind in kinds:
            if keys.ENFORCES + kind not in merge.pod.spec.node_selector:
                merge.put(merge.pod_scope, Leaf(("spec", "nodeSelector"), keys.ENFORCES + kind, "true", element=False))
    for key, value in wanted.items():
        if present.get(key) != value:
            merge.put(merge.pod_scope, Leaf(_ANNOTATIONS, key, value, element=False))


def add_rule(merge: Merge, rule: Rule) -> None:
    """Add what a rule says, to the pod and to the containers it works on."""
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
        if leaf.path in MOUNTS and leaf.value.get("name") in rule.volumes:
            continue
        for scope in scopes:
            merge.want(scope, leaf, rule)


def _gets(rule: Rule, container: Container) -> bool:
    if rule.containers == "all":
        return True
    if rule.containers == "asking":
        return not rule.when.resources.isdisjoint(firing.requested((container,)))
    return container.name in rule.containers
