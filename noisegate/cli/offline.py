"""A manifest as the API server would put it to the admission server, and what comes back.

There is one decision, `noisegate.webhook.admit`: it is asked with the bytes that would go over the wire, and its answer
is read from the bytes that would come back.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import jsonpatch

from noisegate.isolation.problems import Problem
from noisegate.service.faults import ConfigError, Fault
from noisegate.service.manifests import Document
from noisegate.webhook import admit, review
from noisegate.webhook.admit import World
from noisegate.webhook.mutate import Outcome

UID: Final = "00000000-0000-0000-0000-000000000000"
"""`request.uid` of a review that no API server sent."""

_PLURALS: Final = {"NetworkAttachmentDefinition": "network-attachment-definitions"}


class Verdict(NamedTuple):
    """What the admission server says to one object.

    Attributes:
        document: The object, and where it stands.
        namespace: Where it would be created.
        name: Its name, or the prefix that a name is generated from.
        allowed: Whether it would be created.
        problems: Why not; empty where it is allowed.
        doubts: Warnings, whole.
        warnings: The same as the API server passes them on, each cut to its length.
        patch: What is added, as operations of RFC 6902; empty where nothing is.
        before: The object as the API server shows it to the admission server.
        after: The same with the patch applied.
    """

    document: Document
    namespace: str
    name: str
    allowed: bool
    problems: tuple[Problem, ...]
    doubts: tuple[Problem, ...]
    warnings: tuple[str, ...]
    patch: tuple[dict[str, Any], ...]
    before: dict[str, Any]
    after: dict[str, Any]

    @property
    def source(self) -> str:
        """Where the object begins: `file:line`."""
        return f"{self.document.source}:{self.document.line}"

    def line_of(self, path: str) -> int:
        """Return the line of the value at a problem's path, or of what holds it."""
        return self.document.lines.line_of(path)


def is_ours(document: Document) -> bool:
    """Tell whether the admission server judges objects of this kind."""
    return (_group(document), document.kind) in admit.KINDS


def consider(document: Document, namespace: str, world: World) -> Verdict:
    """Create the object, as far as the admission server is asked: a pod is mutated and then validated, all else validated.

    Args:
        document: One of ours.
        namespace: Where it is created if it does not say.
        world: What the decision depends on.

    Raises:
        ConfigError: The admission server cannot read a review of it.
    """
    namespace = document.namespace or namespace
    before = as_created(document)
    name = document.name or _generate_name(before)
    after = before
    allowed = True
    patch: tuple[dict[str, Any], ...] = ()
    problems: tuple[Problem, ...] = ()
    doubts: dict[Problem, None] = {}
    warnings: dict[str, None] = {}
    for endpoint in ("mutate", "validate") if document.kind == "Pod" else ("validate",):
        response, outcome = _ask(endpoint, body_of(document, namespace, after), world, document)
        doubts.update(dict.fromkeys(outcome.warnings))
        warnings.update(dict.fromkeys(response.get("warnings", ())))
        if not response["allowed"]:
            allowed, problems, patch, after = False, tuple(outcome.problems), (), before
            break
        if "patch" in response:
            patch = tuple(json.loads(base64.b64decode(response["patch"])))
            after = patched(before, patch)
    return Verdict(document, namespace, name, allowed, problems, tuple(doubts), tuple(warnings), patch, before, after)


def body_of(
    document: Document,
    namespace: str,
    value: Mapping[str, Any],
    *,
    operation: str = "CREATE",
    old: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the AdmissionReview that the API server would send.

    Args:
        document: Says what kind of object it is, and its name.
        namespace: Where it lives.
        value: The object.
        operation: `CREATE`, or `UPDATE`.
        old: The object before the update.
    """
    group, kind = _group(document), document.kind
    version = document.api_version.rpartition("/")[2]
    resource = {"group": group, "version": version, "resource": _PLURALS.get(kind, f"{kind.lower()}s")}
    gvk = {"group": group, "version": version, "kind": kind}
    request = {
        "uid": UID,
        "kind": gvk,
        "resource": resource,
        "requestKind": gvk,
        "requestResource": resource,
        "name": document.name,
        "namespace": namespace,
        "operation": operation,
        "userInfo": {"username": "noisegate-check", "groups": ["system:authenticated"]},
        "object": value,
        "oldObject": old,
        "dryRun": True,
        "options": {"kind": f"{operation.title()}Options", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"]},
    }
    return json.dumps({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}).encode()


def _ask(endpoint: str, body: bytes, world: World, document: Document) -> tuple[dict[str, Any], Outcome]:
    answer = admit.answer(endpoint, body, world)
    if answer.status != 200:
        raise ConfigError([Fault(document.source, document.line, 0, "", answer.body.decode().strip())])
    request, _ = review.read(body)
    return review.as_json(answer.body)["response"], admit.judge(request, body, endpoint, world)


def patched(value: Mapping[str, Any], operations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return an object with a patch applied, as the API server does it."""
    after: dict[str, Any] = jsonpatch.apply_patch(value, list(operations))
    return after


def as_created(document: Document) -> dict[str, Any]:
    """Return the object with what the API server does to it before it asks the admission server.

    Fields that are null are absent (an annotation or label that is null is empty), amounts of resources are texts, and
    in a pod, though not in a template, a limit alone is the request too (k8s.io/kubernetes, SetDefaults_Pod). What else
    it fills in (service account, tolerations of its own, ...) is nothing that the checks read.
    """
    value: dict[str, Any] = _without_nulls(document.value)
    if document.kind == "Pod" and isinstance(spec := value.get("spec"), dict):
        for field in ("containers", "initContainers"):
            containers = spec.get(field)
            for container in containers if isinstance(containers, list) else ():
                if isinstance(container, dict) and isinstance(resources := container.get("resources"), dict):
                    _default_requests(resources)
    return value


def _without_nulls(value: Any, field: str = "") -> Any:
    if isinstance(value, dict):
        if field in ("annotations", "labels"):
            return {key: "" if item is None else item for key, item in value.items()}
        return {key: _without_nulls(item, key) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    return value


def _default_requests(resources: dict[str, Any]) -> None:
    for field in ("limits", "requests"):
        if isinstance(amounts := resources.get(field), dict):
            for name, amount in amounts.items():
                if isinstance(amount, int | float) and not isinstance(amount, bool):
                    amounts[name] = json.dumps(amount)
    limits = resources.get("limits")
    requests = resources.get("requests", {})
    if isinstance(limits, dict) and limits and isinstance(requests, dict) and not limits.keys() <= requests.keys():
        resources["requests"] = {**requests, **{name: limits[name] for name in limits if name not in requests}}


def _group(document: Document) -> str:
    return document.api_version.rpartition("/")[0]


def _generate_name(value: Mapping[str, Any]) -> str:
    metadata = value.get("metadata")
    prefix = metadata.get("generateName") if isinstance(metadata, dict) else None
    return prefix if isinstance(prefix, str) else ""
