"""The whole decision: a request in, an answer out. No I/O, and nothing waits."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, NamedTuple, cast

import msgspec

from noisegate.isolation import keys, kuryr, nad
from noisegate.isolation.catalogue import NOTHING_KNOWN, Catalogue
from noisegate.isolation.policy import DEFAULT_POLICY, Policy
from noisegate.isolation.problems import Code, Findings, Problem
from noisegate.webhook import mutate, objects, review, update
from noisegate.webhook.memory import Memory
from noisegate.webhook.mutate import Outcome
from noisegate.webhook.review import Answer, AnyRequest
from noisegate.webhook.rules import NO_RULES, Rules

Endpoint = Literal["mutate", "validate", "warn/mutate", "warn/validate"]
ENDPOINTS: Final[tuple[Endpoint, ...]] = ("mutate", "validate", "warn/mutate", "warn/validate")

NOT_READABLE: Final = Code(
    "NG090",
    "object-not-readable",
    "The object is not what its kind says: a field has another type than the Kubernetes API gives it.",
    "containers: {name: app}",
    "containers: [{name: app}]",
)
MISSING: Final = Code(
    "NG603",
    "injection-missing",
    "Something that noisegate added is no longer there, or was never added: another webhook removed it, or added a container afterwards.",
    "env: []",
    "env: [{name: CMK_NUM_CORES, value: '2'}]",
)
CODES: Final = (NOT_READABLE, MISSING)


class World(NamedTuple):
    """What a decision depends on besides the request.

    Attributes:
        policy: What is allowed here.
        rules: What is added to pods.
        previous: The rules before the last change, for as long as pods mutated with them are on their way; or None.
        catalogue: What is known of the cluster.
        memory: What came of pods seen before; None: every pod is considered anew.
    """

    policy: Policy = DEFAULT_POLICY
    rules: Rules = NO_RULES
    previous: Rules | None = None
    catalogue: Catalogue = NOTHING_KNOWN
    memory: Memory | None = None


def answer(endpoint: str, body: bytes, world: World) -> Answer:
    """Answer one call of the API server.

    Args:
        endpoint: One of `ENDPOINTS`.
        body: The AdmissionReview.
        world: What the decision depends on.
    """
    try:
        request, version = review.read(body)
    except review.BrokenRequestError as error:
        return Answer(400, f"{error}\n".encode("utf-8", "backslashreplace"), "refused")
    return _told(request, version, endpoint, judge(request, body, endpoint, world), endpoint.startswith("warn/"))


def judge(request: AnyRequest, body: bytes, endpoint: str, world: World) -> Outcome:
    """Judge the object of a request: the one decision, which `answer` writes and `noisegate check` shows.

    Args:
        request: What the API server asks.
        body: The review it was read from.
        endpoint: One of `ENDPOINTS`.
        world: What the decision depends on.
    """
    if request.sub_resource or any(fnmatchcase(request.namespace, glob) for glob in world.policy.exclude_namespaces):
        return Outcome([], [])
    mutating, warn = endpoint.endswith("mutate"), endpoint.startswith("warn/")
    try:
        if isinstance(request.object, objects.Pod):
            return _judge_pod(request, request.object, body, "/request/object", world, mutating, warn)
        judge_kind = _JUDGES.get((request.kind.group, request.kind.kind))
        if judge_kind is None:
            return Outcome([], [])
        return judge_kind(request, world, mutating, warn)
    except (objects.NotThatObject, msgspec.MsgspecError, RecursionError) as error:
        return Outcome([Problem(NOT_READABLE.id, "", "", f"this is no {request.kind.kind}: {error}")], [])


def _told(request: AnyRequest, version: str, endpoint: str, outcome: Outcome, warn: bool) -> Answer:
    problems, warnings, patch = outcome.problems, outcome.warnings, outcome.patch
    if not problems:
        if patch:
            return Answer(200, review.patched(request, version, patch, warnings), "patched")
        return Answer(200, review.allowed(request, version, warnings), "allowed")
    codes = tuple(problem.code for problem in problems)
    log: dict[str, object] = {
        "event": "warned" if warn else "denied",
        "endpoint": endpoint,
        "kind": request.kind.kind,
        "namespace": request.namespace,
        "name": request.name,
        "uid": request.uid,
        "problems": [str(problem) for problem in problems[: review.MOST_PROBLEMS_TOLD]],
    }
    if warn:
        told = [*problems, *warnings]
        body = review.patched(request, version, patch, told) if patch else review.allowed(request, version, told)
        return Answer(200, body, "warned", codes, log)
    return Answer(200, review.denied(request, version, problems, warnings), "denied", codes, log)


def _judge_raw_pod(request: AnyRequest, world: World, mutating: bool, warn: bool) -> Outcome:
    if request.operation not in ("CREATE", "UPDATE"):
        return Outcome([], [])
    raw = cast("msgspec.Raw", request.object)
    return _judge_pod(request, decode_pod(raw), raw, "", world, mutating, warn)


def _judge_pod(
    request: AnyRequest, pod: objects.Pod, raw: bytes | msgspec.Raw, root: str, world: World, mutating: bool, warn: bool
) -> Outcome:
    if request.operation == "CREATE":
        return _judge_new_pod(pod, raw, root, request.namespace, world, mutating, warn)
    if request.operation == "UPDATE" and not mutating:
        return update.judge_pod(decode_pod(request.old_object), pod, world.policy)
    return Outcome([], [])


def _judge_new_pod(
    pod: objects.Pod, raw: bytes | msgspec.Raw, root: str, namespace: str, world: World, mutating: bool, warn: bool
) -> Outcome:
    if keys.MIRROR in pod.metadata.annotations:
        return Outcome([], [])
    consider = mutate.consider if world.memory is None else world.memory.consider
    outcome = consider(pod, raw, namespace, world.policy, world.rules, world.catalogue, warn=warn, root=root)
    if mutating or not (outcome.patch or outcome.problems):
        return outcome
    if world.previous is not None:
        before = mutate.consider(
            pod, raw, namespace, world.policy, world.previous, world.catalogue, warn=warn, root=root
        )
        if not (before.patch or before.problems):
            return before
    missing = [_missing(operation) for operation in outcome.patch.operations()] if outcome.patch else []
    return Outcome(outcome.problems + missing, outcome.warnings)


def _missing(operation: dict[str, Any]) -> Problem:
    path = mutate.readable(operation["path"].removesuffix("/-"))
    value = msgspec.json.encode(operation["value"]).decode()
    told = value if len(value) <= 200 else value[:197] + "..."
    return Problem(
        MISSING.id,
        path,
        "",
        f"this pod needs {told} here; noisegate adds it, and it is not there any more",
        "let noisegate's mutating webhook run after the one that changed this (reinvocationPolicy: IfNeeded)",
    )


def _judge_template(request: AnyRequest, world: World, mutating: bool, warn: bool) -> Outcome:
    if mutating or request.operation not in ("CREATE", "UPDATE"):
        return Outcome([], [])
    template = decode_template(request.kind.kind, cast("msgspec.Raw", request.object))
    if request.operation == "UPDATE":
        old = decode_template(request.kind.kind, request.old_object)
        if not update.asks_otherwise(old.pod, template.pod):
            return Outcome([], [])
    outcome = mutate.consider(
        template.pod,
        cast("msgspec.Raw", request.object),
        request.namespace,
        world.policy,
        world.rules,
        world.catalogue,
        warn=warn,
        root=template.pointer,
        later=True,
        claims=template.claims,
    )
    prefix = template.prefix
    return Outcome([p.under(prefix) for p in outcome.problems], [w.under(prefix) for w in outcome.warnings])


def _judge_network(request: AnyRequest, world: World, mutating: bool, warn: bool) -> Outcome:
    del world, warn
    if mutating or request.operation not in ("CREATE", "UPDATE"):
        return Outcome([], [])
    new = objects.decode(_nad_decoder, cast("msgspec.Raw", request.object))
    if new.metadata.deletion_timestamp is not None:
        return Outcome([], [])
    if request.operation == "UPDATE":
        old = objects.decode(_nad_decoder, request.old_object)
        before, after = old.metadata.annotations, new.metadata.annotations
        if old.spec.config == new.spec.config and all(before.get(key) == after.get(key) for key in _NAD_KEYS):
            return Outcome([], [])
    found = Findings()
    nad.check(new.metadata.annotations, new.spec.config, found)
    return Outcome(found.problems, found.warnings)


_NAD_KEYS: Final = (nad.RESOURCE_NAME, nad.NODE_SELECTOR, kuryr.CONFIG_KEY)


class Template(NamedTuple):
    """A workload's pod template.

    Attributes:
        pod: The template, as a pod.
        pointer: Where it stands, as a JSON pointer.
        claims: Volumes that a StatefulSet's `volumeClaimTemplates` give every pod.
    """

    pod: objects.Pod
    pointer: str
    claims: frozenset[str] = frozenset()

    @property
    def prefix(self) -> str:
        """Where it stands, as the path of a message: `spec.template.`."""
        return mutate.readable(self.pointer) + "."


def decode_pod(raw: bytes | msgspec.Raw) -> objects.Pod:
    """Decode a Pod.

    Raises:
        NotThatObject: It is none.
    """
    return objects.decode(_pod_decoder, raw)


def decode_template(kind: str, raw: bytes | msgspec.Raw) -> Template:
    """Decode the pod template of a workload.

    Raises:
        NotThatObject: It has none.
    """
    if kind == "CronJob":
        template = objects.decode(_cronjob_decoder, raw).spec.job_template.spec.template
        return Template(template, "/spec/jobTemplate/spec/template")
    spec = objects.decode(_workload_decoder, raw).spec
    claims = frozenset(claim.metadata.name for claim in spec.volume_claim_templates)
    return Template(spec.template, "/spec/template", claims)


_pod_decoder: Final = msgspec.json.Decoder(objects.Pod)
_workload_decoder: Final = msgspec.json.Decoder(objects.Workload)
_cronjob_decoder: Final = msgspec.json.Decoder(objects.CronJob)
_nad_decoder: Final = msgspec.json.Decoder(objects.NetworkAttachmentDefinition)

_JUDGES: Final[Mapping[tuple[str, str], Callable[[AnyRequest, World, bool, bool], Outcome]]] = {
    ("", "Pod"): _judge_raw_pod,
    ("apps", "Deployment"): _judge_template,
    ("apps", "StatefulSet"): _judge_template,
    ("apps", "DaemonSet"): _judge_template,
    ("apps", "ReplicaSet"): _judge_template,
    ("batch", "Job"): _judge_template,
    ("batch", "CronJob"): _judge_template,
    ("k8s.cni.cncf.io", "NetworkAttachmentDefinition"): _judge_network,
}
KINDS: Final = frozenset(_JUDGES)
"""Group and kind of every object that is judged."""
