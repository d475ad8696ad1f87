"""AdmissionReview (admission.k8s.io/v1, and v1beta1 where it is asked in it) on the wire: bytes to request, verdict to bytes."""

from collections.abc import Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from noisegate.isolation.problems import Problem
from noisegate.webhook.objects import Pod, decode
from noisegate.webhook.patch import Patch

MOST_PROBLEMS_TOLD: Final = 50
"""Problems in one answer; the API server keeps the whole answer in memory and in its audit log."""
LONGEST_WARNING: Final = 256
"""Characters; the API server cuts longer warnings."""
LONGEST_WARNINGS: Final = 4096
"""Characters over all warnings of one answer; the API server cuts the rest."""

_VERSIONS: Final = frozenset({"admission.k8s.io/v1", "admission.k8s.io/v1beta1"})
_V1: Final = "admission.k8s.io/v1"


class BrokenRequestError(ValueError):
    """The request itself is no AdmissionReview: answered with HTTP 400 and this text."""


class GroupVersionKind(msgspec.Struct, frozen=True, gc=False):
    """`request.kind`: what the object was converted to for us."""

    kind: str
    group: str = ""
    version: str = ""


Kind = TypeVar("Kind")


class Request(msgspec.Struct, Generic[Kind], frozen=True, gc=False, rename="camel"):
    """`request` of an AdmissionReview.

    A pod is decoded with the review: going through its bytes twice would be a third of the price of a plain pod. Every
    other object, and the old one, stays bytes until somebody reads it. The namespace is the request's: on CREATE the API
    server leaves `object.metadata.namespace` empty.
    """

    uid: str
    kind: GroupVersionKind
    operation: str
    namespace: str = ""
    name: str = ""
    sub_resource: str = ""
    object: Kind = msgspec.Raw(b"null")  # type: ignore[assignment]
    old_object: msgspec.Raw = msgspec.Raw(b"null")


class _Review(msgspec.Struct, Generic[Kind], frozen=True, gc=False, rename="camel"):
    api_version: str
    kind: str
    request: Request[Kind]


class Answer(NamedTuple):
    """What goes back to the API server, and what is told about it.

    Attributes:
        status: HTTP status.
        body: AdmissionReview JSON with status 200, one plain sentence otherwise.
        result: `allowed`, `patched`, `denied`, `warned`, `errored` or `refused`: label of the request counter.
        codes: Codes of the problems found, to be counted.
        log: One structured line to write, or None.
    """

    status: int
    body: bytes
    result: str
    codes: tuple[str, ...] = ()
    log: dict[str, object] | None = None


AnyRequest = Request[Pod] | Request[msgspec.Raw]

_pod_decoder: Final = msgspec.json.Decoder(_Review[Pod])
_decoder: Final = msgspec.json.Decoder(_Review[msgspec.Raw])
# The API server writes the kind before the object.
_POD_HINT: Final = b'"Pod"'
_HINT_WITHIN: Final = 512
_encode: Final = msgspec.json.Encoder().encode


def read(body: bytes) -> tuple[AnyRequest, str]:
    """Return the request and the review's apiVersion.

    Raises:
        BrokenRequestError: Anything that is no AdmissionReview with a request, a uid and a kind.
    """
    if not body:
        raise BrokenRequestError("the body is empty; an AdmissionReview is expected")
    if not body.isascii():
        # The decoder does not look into strings that it skips.
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise BrokenRequestError(f"the body is not UTF-8: byte {error.start}: {error.reason}") from error
    try:
        review = _pod_review(body) or decode(_decoder, body)
    except ValueError as error:
        raise BrokenRequestError(f"the body is no AdmissionReview: {error}") from error
    if review.kind != "AdmissionReview" or review.api_version not in _VERSIONS:
        raise BrokenRequestError(
            f"{review.api_version[:80]} {review.kind[:80]} is not understood; allowed: AdmissionReview of {', '.join(sorted(_VERSIONS))}"
        )
    if not review.request.uid:
        raise BrokenRequestError("the AdmissionReview has no request.uid")
    return review.request, review.api_version


def _pod_review(body: bytes) -> _Review[Pod] | None:
    """Return the review of a pod that is there and sound; of anything else nothing."""
    if _POD_HINT not in body[:_HINT_WITHIN]:
        return None
    try:
        review = _pod_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    request = review.request
    return review if request.kind.kind == "Pod" and not request.kind.group and isinstance(request.object, Pod) else None


def allowed(request: AnyRequest, version: str, warnings: Sequence[Problem] = ()) -> bytes:
    """Return the answer that lets the object pass as it is."""
    return _head(request, version) + b',"allowed":true' + _warnings(warnings) + b"}}"


def patched(request: AnyRequest, version: str, patch: Patch, warnings: Sequence[Problem] = ()) -> bytes:
    """Return the answer that lets the object pass with additions. An empty patch is no patch at all."""
    if not patch:
        return allowed(request, version, warnings)
    return b'%s,"allowed":true,"patchType":"JSONPatch","patch":"%s"%s}}' % (
        _head(request, version),
        patch.base64(),
        _warnings(warnings),
    )


def denied(request: AnyRequest, version: str, problems: Sequence[Problem], warnings: Sequence[Problem] = ()) -> bytes:
    """Return the refusal: code 422, reason Invalid, one message that names every problem, one cause for each."""
    causes = [
        {"reason": "FieldValueInvalid", "message": f"{problem.code}: {problem.told}", "field": problem.path}
        for problem in problems[:MOST_PROBLEMS_TOLD]
    ]
    status = {
        "metadata": {},
        "status": "Failure",
        "message": message(problems),
        "reason": "Invalid",
        "details": {"name": request.name, "group": request.kind.group, "kind": request.kind.kind, "causes": causes},
        "code": 422,
    }
    return b'%s,"allowed":false,"status":%s%s}}' % (_head(request, version), _encode(status), _warnings(warnings))


def errored(request: AnyRequest, version: str) -> bytes:
    """Return the answer to our own fault: refused, code 500, and nothing of the fault itself."""
    status = {
        "metadata": {},
        "status": "Failure",
        "message": "noisegate failed while it judged this object; its log tells why",
        "reason": "InternalError",
        "code": 500,
    }
    return b'%s,"allowed":false,"status":%s}}' % (_head(request, version), _encode(status))


def message(problems: Sequence[Problem]) -> str:
    """Return the problems as one text, a line for each."""
    told = [str(problem) for problem in problems[:MOST_PROBLEMS_TOLD]]
    if len(problems) > MOST_PROBLEMS_TOLD:
        told.append(f"and {len(problems) - MOST_PROBLEMS_TOLD} more")
    if len(told) == 1:
        return told[0]
    return f"{len(problems)} problems:\n" + "\n".join(f"- {line}" for line in told)


def warning_texts(warnings: Sequence[Problem]) -> list[str]:
    """Return warnings as the API server passes them on: each of at most 256 characters, 4096 in all."""
    texts: list[str] = []
    room = LONGEST_WARNINGS
    for told, warning in enumerate(warnings):
        text = str(warning)
        if len(text) > LONGEST_WARNING:
            text = text[: LONGEST_WARNING - 3] + "..."
        more = f"and {len(warnings) - told} more"
        if len(text) + (0 if told == len(warnings) - 1 else len(more)) > room:
            texts.append(more)
            break
        texts.append(text)
        room -= len(text)
    return texts


def _head(request: AnyRequest, version: str) -> bytes:
    return b'{"apiVersion":"%s","kind":"AdmissionReview","response":{"uid":%s' % (
        version.encode(),
        _encode(request.uid),
    )


def _warnings(warnings: Sequence[Problem]) -> bytes:
    return b',"warnings":' + _encode(warning_texts(warnings)) if warnings else b""


def as_json(body: bytes) -> Any:
    """Return an answer's body as plain JSON values."""
    return msgspec.json.decode(body)
