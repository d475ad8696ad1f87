"""Remembers what came of pods that were alike in everything that is read of them.

Deciding is a pure function of the typed view of a pod, its namespace, the policy, the rules and the catalogue. Replicas of a
workload are the same to it but for one thing: the ServiceAccount admission plugin gives each pod's token volume a name with
a random end. So what came of the first is what comes of the others, and of the same pod when it is sent again.
"""

from typing import Final

import msgspec

from noisegate.isolation.catalogue import Catalogue
from noisegate.isolation.policy import Policy
from noisegate.webhook import mutate
from noisegate.webhook.mutate import Outcome
from noisegate.webhook.objects import NO_METADATA, NO_SPEC, Pod
from noisegate.webhook.rules import Rules

MOST: Final = 256
"""Outcomes remembered; the oldest makes way. Enough for the workloads that are being rolled out at one time."""
LONGEST: Final = 16 << 10
"""Bytes of a pod's view that is remembered, so that all of them stay below 4 MiB."""

TOKEN_VOLUME: Final = "kube-api-access-"  # noqa: S105  (a name)
"""Begins the name of the token volume; five random characters follow (k8s.io/kubernetes/plugin/pkg/admission/serviceaccount)."""
_SUFFIX: Final = 5

_encode: Final = msgspec.json.Encoder().encode


class Memory:
    """What came of the pods seen last, for one policy, one file of rules and one catalogue.

    When one of the three is another object than before, everything is forgotten; so whoever changes a catalogue makes a new
    one (it is a tuple of mappings, and costs nothing).
    """

    __slots__ = ("_inputs", "_outcomes")

    def __init__(self) -> None:
        self._outcomes: dict[bytes, Outcome] = {}
        self._inputs: tuple[Policy, Rules, Catalogue] | None = None

    def __len__(self) -> int:
        """Return how many outcomes are remembered."""
        return len(self._outcomes)

    def consider(
        self,
        pod: Pod,
        raw: bytes | msgspec.Raw,
        namespace: str,
        policy: Policy,
        rules: Rules,
        catalogue: Catalogue,
        *,
        warn: bool,
        root: str = "",
    ) -> Outcome:
        """Return what `mutate.consider` returns. The outcome is shared: nobody may change it."""
        inputs = self._inputs
        if inputs is None or inputs[0] is not policy or inputs[1] is not rules or inputs[2] is not catalogue:
            self._outcomes = {}
            self._inputs = (policy, rules, catalogue)
        outcomes = self._outcomes
        key = view(pod, namespace, warn=warn)
        outcome = outcomes.get(key)
        if outcome is None:
            outcome = mutate.consider(pod, raw, namespace, policy, rules, catalogue, warn=warn, root=root)
            if not outcome.whole and len(key) <= LONGEST:
                if len(outcomes) >= MOST:
                    del outcomes[next(iter(outcomes))]
                outcomes[key] = outcome
        return outcome


def view(pod: Pod, namespace: str, *, warn: bool) -> bytes:
    """Return everything that deciding reads of a pod, as bytes; the same for pods that differ in nothing else."""
    metadata = pod.metadata
    absent = (metadata is NO_METADATA, pod.spec is NO_SPEC)
    key = _encode((namespace, warn, absent, metadata.annotations, metadata.labels, pod.spec))
    name = token_volume(pod)
    return key.replace(name.encode(), TOKEN_VOLUME.encode()) if name else key


def token_volume(pod: Pod) -> str:
    """Return the name of the token volume, where nothing but the pod's own volumes and mounts speaks of it; else nothing."""
    for volume in pod.spec.volumes:
        name = volume.get("name", "")
        if "projected" in volume and name.startswith(TOKEN_VOLUME) and len(name) == len(TOKEN_VOLUME) + _SUFFIX:
            annotations = pod.metadata.annotations.values()
            return "" if any(TOKEN_VOLUME in value for value in annotations) else str(name)
    return ""
