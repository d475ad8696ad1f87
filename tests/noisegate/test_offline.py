"""A manifest as the API server would put it to the admission server."""

from typing import Any

import builders
import pytest

from noisegate.cli import offline
from noisegate.service import manifests
from noisegate.service.faults import ConfigError, Lines
from noisegate.service.manifests import Document
from noisegate.webhook import review
from noisegate.webhook.admit import World


def document(value: dict[str, Any]) -> Document:
    """Return an object as it is read from a file."""
    return Document("pod.yaml", 3, "v1", "Pod", "", "web", value, Lines(3))


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        pytest.param({"limits": {"a": 2}}, {"limits": {"a": "2"}, "requests": {"a": "2"}}, id="limit-alone"),
        pytest.param(
            {"limits": {"a": 2, "b": "1"}, "requests": {"a": 1}},
            {"limits": {"a": "2", "b": "1"}, "requests": {"a": "1", "b": "1"}},
            id="some-requested",
        ),
        pytest.param({"requests": {"a": 0.5}}, {"requests": {"a": "0.5"}}, id="request-alone"),
        pytest.param({"limits": {"a": True}, "requests": {"a": "1"}}, {"limits": {"a": True}, "requests": {"a": "1"}}, id="bool"),
        pytest.param({"limits": {}, "requests": None}, {"limits": {}}, id="empty"),
        pytest.param({"limits": [1], "requests": {}}, {"limits": [1], "requests": {}}, id="no-mapping"),
    ],
)  # fmt: skip
def test_resources_are_defaulted(resources: dict[str, Any], expected: dict[str, Any]) -> None:
    """In a pod, amounts are texts and a limit alone is the request too; what is no mapping is left to be refused."""
    pod = builders.pod(containers=[builders.container(resources=resources)])
    init = builders.pod(containers=[], initContainers=[builders.container(resources=resources)])

    assert offline.as_created(document(pod))["spec"]["containers"][0]["resources"] == expected
    assert offline.as_created(document(init))["spec"]["initContainers"][0]["resources"] == expected


@pytest.mark.parametrize("spec", [None, [], {"containers": 1}, {"containers": [1]}, {"containers": [{"resources": 1}]}])
def test_what_is_no_pod_is_left(spec: object) -> None:
    """Fields of wrong types stand as they stood."""
    value = {"metadata": {"name": "web"}, "spec": spec}

    assert offline.as_created(document(value)).get("spec") == spec


def test_templates_are_not_defaulted() -> None:
    """In a template a limit alone stays alone, as at the API server."""
    workload = builders.workload("Job", builders.pod(containers=[builders.container(resources={"limits": {"a": 2}})]))
    (read,) = manifests.read(str(workload), "job.yaml")

    assert offline.as_created(read) == workload


def test_nulls_are_absent() -> None:
    """A field that is null is absent, an annotation or label that is null is empty; the manifest itself is left alone."""
    value: dict[str, Any] = {
        "metadata": {"annotations": {"a": None}, "labels": None},
        "spec": {"containers": [None, {"env": None}]},
    }

    assert offline.as_created(document(value)) == {"metadata": {"annotations": {"a": ""}}, "spec": {"containers": [{}]}}
    assert value["metadata"]["annotations"] == {"a": None}


def test_the_review_is_the_api_server_s() -> None:
    """The body is an AdmissionReview with kind, name, namespace, operation and object, and is read as such."""
    (nad,) = manifests.read(
        "{apiVersion: k8s.cni.cncf.io/v1, kind: NetworkAttachmentDefinition, metadata: {name: fast}}", "nad.yaml"
    )
    body = offline.body_of(nad, "shop", nad.value, operation="UPDATE", old={"a": 1})

    request, version = review.read(body)
    sent = review.as_json(body)["request"]
    assert version == "admission.k8s.io/v1"
    assert (request.kind.group, request.kind.version, request.kind.kind) == ("k8s.cni.cncf.io", "v1", nad.kind)
    assert (request.namespace, request.name, request.operation) == ("shop", "fast", "UPDATE")
    assert (sent["object"], sent["oldObject"], sent["options"]["kind"]) == (nad.value, {"a": 1}, "UpdateOptions")
    assert sent["resource"]["resource"] == "network-attachment-definitions"


def test_what_the_server_would_not_read_is_unreadable() -> None:
    """Where the server would answer with 400 there is no verdict, but an error with file and line."""
    pod = document({"metadata": {"name": "\ud800"}})

    with pytest.raises(ConfigError, match=r"^pod\.yaml:3: the body is no AdmissionReview: "):
        offline.consider(pod, "default", World())


@pytest.mark.parametrize(
    ("api_version", "kind", "ours"),
    [
        ("v1", "Pod", True),
        ("apps/v1", "Deployment", True),
        ("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", True),
        ("v1", "Deployment", False),
        ("v1", "Service", False),
        ("", "", False),
    ],
)
def test_kinds_are_the_server_s(api_version: str, kind: str, ours: bool) -> None:
    """What is judged is what the server judges: group and kind."""
    assert offline.is_ours(document({})._replace(api_version=api_version, kind=kind)) is ours
