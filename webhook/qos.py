"""The QoS class of a pod, as the API server computes it (k8s.io/kubernetes/pkg/apis/core/v1/helper/qos)."""

from typing import Any

from noisegate.webhook.objects import Pod
from noisegate.webhook.podfields import same_quantity


def not_guaranteed(pod: Pod) -> list[tuple[str, str, str]]:
    """Return path, name and reason of every part that keeps a pod from QoS class Guaranteed.

    Rule of the API server: cpu and memory limits everywhere, requests absent or equal; pod-level resources, where
    given, speak for all containers.
    """
    spec = pod.spec
    parts: list[tuple[str, str, Any]] = [("spec.resources", "the pod", spec.resources)]
    if not spec.resources.limits and not spec.resources.requests:
        parts = [
            (f"spec.{field}[{index}].resources", f'container "{container.name}"', container.resources)
            for field, containers in (("containers", spec.containers), ("initContainers", spec.init_containers))
            for index, container in enumerate(containers)
        ]
    lacking: list[tuple[str, str, str]] = []
    for path, name, resources in parts:
        for resource in ("cpu", "memory"):
            limit = resources.limits.get(resource)
            request = resources.requests.get(resource, limit)
            if limit is None:
                lacking.append((f"{path}.limits", name, f"has no {resource} limit"))
            elif str(request) != str(limit) and not same_quantity(request, limit):
                lacking.append(
                    (f"{path}.requests", name, f"requests {request} of {resource} but is limited to {limit}")
                )
    return lacking
