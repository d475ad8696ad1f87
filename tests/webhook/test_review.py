"""AdmissionReview on the wire."""

import base64
import json
from typing import Any

import msgspec
import pytest
from builders import UID, pod, review, workload

from noisegate.isolation.problems import Problem
from noisegate.webhook.objects import Pod
from noisegate.webhook.patch import Patch
from noisegate.webhook.review import (
    AnyRequest,
    BrokenRequestError,
    allowed,
    as_json,
    denied,
    errored,
    message,
    patched,
    read,
    warning_texts,
)

V1 = "admission.k8s.io/v1"
WRONG = Problem("NG101", "spec.x", "1", "1 is wrong", "write 2")


def request_of(**fields: Any) -> AnyRequest:
    """Return the request of a review."""
    return read(review(pod(), **fields))[0]


@pytest.mark.parametrize("version", [V1, "admission.k8s.io/v1beta1"])
def test_read(version: str) -> None:
    """The request is read, a pod with it, the old object as bytes, and the version to answer in."""
    request, asked_in = read(
        review(pod(), old=pod({"a": "b"}), operation="UPDATE", version=version, sub_resource="status")
    )

    assert asked_in == version
    assert (request.uid, request.operation, request.namespace, request.name) == (UID, "UPDATE", "default", "web")
    assert (request.kind.group, request.kind.version, request.kind.kind) == ("", "v1", "Pod")
    assert request.sub_resource == "status"
    assert request.object == msgspec.convert(pod(), Pod)
    assert json.loads(bytes(request.old_object)) == pod({"a": "b"})


@pytest.mark.parametrize(
    "obj",
    [
        pytest.param(workload("Deployment", pod()), id="another kind"),
        pytest.param({**pod(), "apiVersion": "example.com/v1"}, id="a kind of the same name"),
        pytest.param({**pod(), "spec": {"containers": 3}}, id="not sound"),
    ],
)
def test_read_other_objects(obj: dict[str, Any]) -> None:
    """Every other object stays bytes."""
    request, _ = read(review(obj))

    assert isinstance(request.object, msgspec.Raw)
    assert json.loads(bytes(request.object)) == obj


def test_absent_fields() -> None:
    """A review needs a uid, a kind and an operation; the rest has its empty value."""
    body = {
        "apiVersion": V1,
        "kind": "AdmissionReview",
        "request": {"uid": "1", "kind": {"kind": "Pod"}, "operation": "CREATE"},
    }

    request, _ = read(json.dumps(body).encode())

    assert (request.namespace, request.name, request.sub_resource) == ("", "", "")
    assert isinstance(request.object, msgspec.Raw)
    assert bytes(request.object) == bytes(request.old_object) == b"null"


@pytest.mark.parametrize("field", ["namespace", "name", "subResource", "object", "oldObject"])
def test_null_fields(field: str) -> None:
    """A field that is null counts as absent."""
    body = json.loads(review(pod()))
    body["request"][field] = None

    request, _ = read(json.dumps(body).encode())

    assert request.uid == UID


@pytest.mark.parametrize(
    ("body", "told"),
    [
        pytest.param(b"", "the body is empty; an AdmissionReview is expected", id="empty"),
        pytest.param(b"{", "the body is no AdmissionReview: Input data was truncated", id="truncated"),
        pytest.param(b"null", "the body is no AdmissionReview: Expected `object`, got `null`", id="null"),
        pytest.param(b"[]", "the body is no AdmissionReview: Expected `object`, got `array`", id="list"),
        pytest.param(
            b"{} x", "the body is no AdmissionReview: JSON is malformed: trailing characters (byte 4)", id="trailing"
        ),
        pytest.param(b'{"kind": "\xff"}', "the body is not UTF-8: byte 10: invalid start byte", id="not UTF-8"),
        pytest.param(
            b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}',
            "the body is no AdmissionReview: Object missing required field `request`",
            id="no request",
        ),
        pytest.param(
            b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {"uid": "", "kind": {"kind": "Pod"}, "operation": "X"}}',
            "the AdmissionReview has no request.uid",
            id="empty uid",
        ),
        pytest.param(
            review(pod(), version="admission.k8s.io/v2"),
            "admission.k8s.io/v2 AdmissionReview is not understood; allowed: AdmissionReview of admission.k8s.io/v1, admission.k8s.io/v1beta1",
            id="unknown version",
        ),
        pytest.param(
            review(pod()).replace(b'"AdmissionReview"', b'"Review"'),
            "admission.k8s.io/v1 Review is not understood; allowed: AdmissionReview of admission.k8s.io/v1, admission.k8s.io/v1beta1",
            id="another kind",
        ),
    ],
)
def test_broken(body: bytes, told: str) -> None:
    """What is no review is told in one sentence."""
    with pytest.raises(BrokenRequestError) as caught:
        read(body)

    assert str(caught.value) == told


def test_deep_nesting() -> None:
    """JSON that is nested too deeply is no review, and no exception of another sort."""
    with pytest.raises(BrokenRequestError):
        read(review(pod()).replace(b'"dryRun": false', b'"dryRun": ' + b"[" * 100_000))


@pytest.mark.parametrize("uid", ['a"b\\c', "ü", "\x00", "</script>", "x" * 10_000])
def test_uid(uid: str) -> None:
    """Whatever the uid, it is echoed as it came."""
    request = request_of(uid=uid)

    for body in (allowed(request, V1), denied(request, V1, [WRONG]), errored(request, V1)):
        assert as_json(body)["response"]["uid"] == uid


def test_allowed() -> None:
    """Allowed is uid and allowed, in the version that was asked in."""
    assert as_json(allowed(request_of(), "admission.k8s.io/v1beta1")) == {
        "apiVersion": "admission.k8s.io/v1beta1",
        "kind": "AdmissionReview",
        "response": {"uid": UID, "allowed": True},
    }


def test_allowed_with_warnings() -> None:
    """Warnings are texts."""
    assert as_json(allowed(request_of(), V1, [WRONG]))["response"]["warnings"] == ["NG101 spec.x: 1 is wrong (write 2)"]


def test_patched() -> None:
    """A patch comes with its type, in base64."""
    patch = Patch()
    patch.set("/a", "b")

    response = as_json(patched(request_of(), V1, patch, [WRONG]))["response"]

    assert response["patchType"] == "JSONPatch"
    assert json.loads(base64.b64decode(response["patch"])) == [{"op": "add", "path": "/a", "value": "b"}]
    assert response["warnings"] == ["NG101 spec.x: 1 is wrong (write 2)"]


def test_empty_patch() -> None:
    """An empty patch is none: v1 refuses a type without a patch."""
    assert patched(request_of(), V1, Patch()) == allowed(request_of(), V1)


def test_denied() -> None:
    """A refusal is a Status as the API server's own validation gives it: one cause for each problem."""
    other = Problem("NG102", "spec.y", "", "y is missing")

    assert as_json(denied(request_of(), V1, [WRONG, other], [WRONG]))["response"] == {
        "uid": UID,
        "allowed": False,
        "status": {
            "metadata": {},
            "status": "Failure",
            "message": "2 problems:\n- NG101 spec.x: 1 is wrong (write 2)\n- NG102 spec.y: y is missing",
            "reason": "Invalid",
            "details": {
                "name": "web",
                "group": "",
                "kind": "Pod",
                "causes": [
                    {"reason": "FieldValueInvalid", "message": "NG101: 1 is wrong (write 2)", "field": "spec.x"},
                    {"reason": "FieldValueInvalid", "message": "NG102: y is missing", "field": "spec.y"},
                ],
            },
            "code": 422,
        },
        "warnings": ["NG101 spec.x: 1 is wrong (write 2)"],
    }


def test_errored() -> None:
    """Our own fault is refused with code 500, and tells nothing of itself."""
    status = as_json(errored(request_of(), V1))["response"]["status"]

    assert (status["code"], status["reason"]) == (500, "InternalError")
    assert status["message"] == "noisegate failed while it judged this object; its log tells why"


def test_one_problem() -> None:
    """One problem is one line."""
    assert message([WRONG]) == "NG101 spec.x: 1 is wrong (write 2)"


def test_many_problems() -> None:
    """At most fifty are told, with the number of the others."""
    problems = [Problem("NG101", f"spec.x{number}", "", "wrong") for number in range(53)]

    lines = message(problems).split("\n")
    causes = as_json(denied(request_of(), V1, problems))["response"]["status"]["details"]["causes"]

    assert (lines[0], lines[1], lines[50], lines[51]) == (
        "53 problems:",
        "- NG101 spec.x0: wrong",
        "- NG101 spec.x49: wrong",
        "- and 3 more",
    )
    assert (len(lines), len(causes)) == (52, 50)


def test_long_warning() -> None:
    """A warning is cut at 256 characters."""
    (text,) = warning_texts([Problem("NG101", "p", "", "x" * 300)])

    assert (len(text), text[-4:]) == (256, "x...")


@pytest.mark.parametrize("number", [16, 17, 100, 5000])
def test_many_warnings(number: int) -> None:
    """All warnings together have at most 4096 characters; the last says how many are left out."""
    texts = warning_texts([Problem("NG101", "p", "", "x" * 300)] * number)

    assert sum(map(len, texts)) <= 4096
    if number == 16:
        assert len(texts) == 16
    else:
        assert texts[-1] == f"and {number - len(texts) + 1} more"
