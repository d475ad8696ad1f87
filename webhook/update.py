"""UPDATE: what may change on something that is there already (pod-api.md 7).

Only a change of our own keys is judged; a value that stands as it stood is never judged again, so that no stricter rule
holds a finalizer.
"""

from typing import Final

from noisegate.isolation import disk, keys, network, networks
from noisegate.isolation.catalogue import NOTHING_KNOWN
from noisegate.isolation.disk import DiskRequest
from noisegate.isolation.policy import Policy
from noisegate.isolation.problems import Code, Findings, in_annotation
from noisegate.webhook.mutate import Outcome
from noisegate.webhook.objects import Container, Pod

FIXED: Final = Code(
    "NG701",
    "fixed-on-running-pod",
    "The pod was made ready for what it asked for when it was created; on a running pod only the limits of disk and network entries may change.",
    'rdt.resources.beta.kubernetes.io/pod: "gold"  # was "silver"',
    "(create a new pod)",
)
ENTRY_FIXED: Final = Code(
    "NG702",
    "entry-fixed-on-running-pod",
    "On a running pod the limits of the entries asked for at creation may change; entries come and go only with the pod.",
    'blockio.kubernetes.io/resources: \'{"data": {...}, "logs": {...}}\'  # "logs" is new',
    "(create a new pod)",
)
CODES: Final = (FIXED, ENTRY_FIXED)


def judge_pod(old: Pod, new: Pod, policy: Policy) -> Outcome:
    """Judge the change of a pod's annotations."""
    found = Findings()
    before, after = old.metadata.annotations, new.metadata.annotations
    if new.metadata.deletion_timestamp is not None or before == after:
        return Outcome([], [])
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if was == now or not keys.is_ours(key):
            continue
        if key == keys.NETWORKS:
            if now is not None:
                networks.read(key, now, found)
        elif key in _LIMITS and was is not None and now is not None:
            _judge_limits(key, was, now, new, policy, found)
        else:
            change = "added" if was is None else "removed" if now is None else "changed"
            found.deny(
                FIXED,
                in_annotation(key),
                now,
                f"{key} may not be {change} on a pod that exists",
                "create a new pod"
                if was is None
                else f"put back {was}"
                if len(was) <= 60
                else "put the old value back",
            )
    return Outcome(found.problems, found.warnings)


_LIMITS: Final = frozenset({keys.DISK, keys.NETWORK})


def _judge_limits(key: str, was: str, now: str, pod: Pod, policy: Policy, found: Findings) -> None:
    before = len(found.problems)
    # The two kinds' requests are types of their own; each branch stays within one.
    if key == keys.DISK:
        old, new = disk.read(was, Findings()), disk.read(now, found)
        changes = disk.changed(old, new)
        if new is not None and not changes and len(found.problems) == before:
            _judge_disk(old, new, pod, policy, found)
    else:
        changes = network.changed(network.read(was, Findings()), network.read(now, found))
    if len(found.problems) == before:
        for path, value, told in changes:
            found.deny(ENTRY_FIXED, path, value, told)


def _judge_disk(old: DiskRequest | None, new: DiskRequest, pod: Pod, policy: Policy, found: Findings) -> None:
    """Ask of the limits that changed, and only of those, whether they are allowed."""
    known = () if old is None else old.volumes
    changed = new._replace(volumes=tuple(entry for entry in new.volumes if entry not in known))
    judged = Findings()
    disk.judge(changed, pod.spec, "", policy.disk, NOTHING_KNOWN, judged)
    # What disk a volume has was told when the pod was created.
    found.problems += judged.problems


def asks_otherwise(old: Pod, new: Pod) -> bool:
    """Tell whether two pod templates differ in what they ask for: our annotations, or exclusive cores of a container."""
    return _asks(old) != _asks(new)


def _asks(pod: Pod) -> tuple[dict[str, str], list[object]]:
    annotations = {key: value for key, value in pod.metadata.annotations.items() if keys.is_ours(key)}
    return annotations, [_cores(container) for container in (*pod.spec.containers, *pod.spec.init_containers)]


def _cores(container: Container) -> tuple[object, ...]:
    resources = container.resources
    return tuple(
        quantities.get(name) for quantities in (resources.requests, resources.limits) for name in keys.CORE_RESOURCES
    )
