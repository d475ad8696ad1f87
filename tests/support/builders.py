"""Builds the objects that tests speak of: pods, workloads and AdmissionReviews, as the API server would send them."""

import json
from collections.abc import Mapping
from typing import Any

UID = "0df28fbd-5f5f-11e8-bc74-36e6bb280816"


def container(name: str = "app", **fields: Any) -> dict[str, Any]:
    """Return a container."""
    return {"name": name, "image": "registry.k8s.io/pause:3.10", **fields}


def pod(
    annotations: Mapping[str, str] | None = None,
    *,
    containers: list[dict[str, Any]] | None = None,
    labels: Mapping[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """Return a pod; `spec` holds further fields of its spec."""
    metadata: dict[str, Any] = {"name": "web"}
    if annotations is not None:
        metadata["annotations"] = dict(annotations)
    if labels is not None:
        metadata["labels"] = dict(labels)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": containers if containers is not None else [container()], **spec},
    }


def cores(number: object, resource: str = "cmk.intel.com/exclusive-cores") -> dict[str, Any]:
    """Return `resources` that ask for exclusive cores."""
    return {"limits": {resource: number}, "requests": {resource: number}}


def workload(kind: str, template: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    """Return a workload whose pod template is that of a pod."""
    inner = {"metadata": template["metadata"], "spec": template["spec"]}
    group = "batch/v1" if kind in ("Job", "CronJob") else "apps/v1"
    body: dict[str, Any] = {"template": inner, **spec}
    if kind == "CronJob":
        body = {"schedule": "0 4 * * *", "jobTemplate": {"spec": body}}
    return {"apiVersion": group, "kind": kind, "metadata": {"name": "web"}, "spec": body}


def review(
    obj: Any,
    *,
    old: Any = None,
    operation: str = "CREATE",
    namespace: str = "default",
    kind: str | None = None,
    version: str = "admission.k8s.io/v1",
    sub_resource: str = "",
    uid: str = UID,
) -> bytes:
    """Return an AdmissionReview of an object."""
    api_version = str((obj or old).get("apiVersion", "v1")) if isinstance(obj or old, dict) else "v1"
    group, _, object_version = api_version.rpartition("/")
    request: dict[str, Any] = {
        "uid": uid,
        "kind": {"group": group, "version": object_version, "kind": kind or (obj or old)["kind"]},
        "resource": {"group": group, "version": object_version, "resource": "things"},
        "name": (obj or old or {}).get("metadata", {}).get("name", "") if isinstance(obj or old, dict) else "",
        "namespace": namespace,
        "operation": operation,
        "userInfo": {"username": "alice"},
        "object": obj,
        "oldObject": old,
        "dryRun": False,
        "options": None,
    }
    if sub_resource:
        request["subResource"] = sub_resource
    return json.dumps({"kind": "AdmissionReview", "apiVersion": version, "request": request}).encode()
