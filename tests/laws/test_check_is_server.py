"""Law: whatever `noisegate check` says, the admission server says."""

import base64
import io
import json
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any
from unittest.mock import patch

import builders
import jsonpatch
from hypothesis import given
from hypothesis import strategies as st

from noisegate.__main__ import main
from noisegate.isolation.catalogue import Catalogue
from noisegate.isolation.problems import Problem
from noisegate.service import manifests
from noisegate.webhook import admit, inventory, review, world
from noisegate.webhook.settings import Settings

NETWORKS: list[dict[str, Any]] = [
    {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {"config": config},
    }
    for name, annotations, config in (
        ("fast", {"k8s.v1.cni.cncf.io/resourceName": "intel.com/nic"}, '{"cniVersion": "0.3.1", "type": "sriov"}'),
        ("slow", {}, '{"cniVersion": "0.3.1", "type": "bridge"}'),
        ("broken", {"k8s.v1.cni.cncf.io/resourceName": "intel.com/nic"}, '{"type": "sriov", "vlan": 9999}'),
    )
]

VALUES: Mapping[str, list[object]] = {
    "blockio.kubernetes.io/resources": [
        '{"data": {"limits": {"rbps": "50Mi/4k"}}}',
        '{"data": {"limits": {"rbps": "50MiB/4k"}}, "dta": {}}',
        '{"data": {"requests": {"wbps": "1Mi"}, "limits": {"wbps": "1k"}}}',
        "{}",
        "",
        None,
    ],
    "networkio.kubernetes.io/resources": ['{"limits": {"ingress": "50M"}}', '{"limit": {"egress": "5Mbps"}}', "[]", 5],
    "rdt.resources.beta.kubernetes.io/pod": ["gold", ""],
    "noisegate.io/rdt-class.app": ["silver"],
    "noisegate.io/rdt-clas": ["gold"],
    "k8s.v1.cni.cncf.io/networks": [
        "fast",
        "fast,slow@net9",
        "broken",
        "none",
        '[{"name": "fast", "mac": "x"}]',
        "a b",
    ],
    "cmk.intel.com/mutate": ["true", "false", "yes"],
    "noisegate.io/profile": ["sriov-dpdk", "sriov-dpkd"],
    "example.org/other": ["x"],
}
AMOUNTS = st.sampled_from(["1", 2, "2", 0, "0.5", 1.5, None, "many", 3.0])
RESOURCES = st.dictionaries(
    st.sampled_from(
        ["cmk.intel.com/exclusive-cores", "cmk.intel.com/exclusive-non-isolcpus-cores", "intel.com/nic", "cpu"]
    ),
    AMOUNTS,
    max_size=3,
)
ENV = st.sampled_from([{"name": "CMK_NUM_CORES", "value": "2"}, {"name": "A", "value": 1}, {"name": "B"}])


@st.composite
def annotations(draw: st.DrawFn) -> dict[str, object]:
    """Return annotations, most of them ours, good and bad."""
    keys = draw(st.sets(st.sampled_from(sorted(VALUES)), max_size=4))
    return {key: draw(st.sampled_from(VALUES[key])) for key in sorted(keys)}


@st.composite
def containers(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Return a container as people write them: with numbers, nulls and lists left out."""
    return builders.container(
        name,
        **draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "resources": st.none()
                    | st.fixed_dictionaries({}, optional={"limits": RESOURCES, "requests": RESOURCES | st.none()}),
                    "env": st.none() | st.lists(ENV, max_size=2),
                    "volumeMounts": st.just([{"name": "data", "mountPath": "/data"}]),
                },
            )
        ),
    )


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    """Return a pod."""
    pod = builders.pod(containers=[draw(containers("app")), *draw(st.lists(containers("log"), max_size=1))])
    given_annotations = draw(annotations())
    if draw(st.booleans()) or given_annotations:
        pod["metadata"]["annotations"] = given_annotations or None
    if draw(st.booleans()):
        pod["spec"]["volumes"] = [{"name": "data", draw(st.sampled_from(["emptyDir", "hostPath"])): {}}]
    if draw(st.booleans()):
        pod["spec"]["hostNetwork"] = draw(st.sampled_from([True, False, "yes"]))
    return pod


KINDS = st.sampled_from(["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"])
OBJECTS = pods() | st.builds(builders.workload, KINDS, pods()) | st.sampled_from(NETWORKS)


def _world(catalogue: Catalogue | None) -> admit.World:
    held = world.World(Settings(), lambda: 0.0)
    held.load()
    return held.now() if catalogue is None else held.now()._replace(catalogue=catalogue)


KNOWING = _world(inventory.build(manifests.read(json.dumps({"kind": "List", "items": NETWORKS}), "nets")).catalogue)
KNOWING_NOTHING = _world(None)


def _checked(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what `noisegate check` says of objects."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items}).encode()
    out = io.StringIO()
    # Standard input is the command's only input here; there is no other way to hand it over within one process.
    with patch("sys.stdin", io.TextIOWrapper(io.BytesIO(text))), redirect_stdout(out):
        code = main(["check", "-", "-o", "json"])
    results: list[dict[str, Any]] = json.loads(out.getvalue())["results"]
    assert code == (0 if all(result["allowed"] for result in results) else 1)
    return results


def _served(item: dict[str, Any], served: admit.World) -> dict[str, Any]:
    """Return what the server says when the API server creates an object, put as `noisegate check` puts it."""
    sent = _as_the_api_server_has_it(item)
    warnings: list[str] = []
    operations: list[dict[str, Any]] = []
    for endpoint in ("mutate", "validate") if item["kind"] == "Pod" else ("validate",):
        answer = admit.answer(endpoint, builders.review(sent), served)
        response = review.as_json(answer.body)["response"]
        warnings += [text for text in response.get("warnings", []) if text not in warnings]
        if not response["allowed"]:
            causes = response["status"]["details"]["causes"]
            codes = [cause["message"].partition(":")[0] for cause in causes]
            return {
                "allowed": False,
                "warnings": warnings,
                "patch": [],
                "codes": codes,
                "message": response["status"]["message"],
            }
        if "patch" in response:
            operations = json.loads(base64.b64decode(response["patch"]))
            sent = jsonpatch.apply_patch(sent, operations)
    return {"allowed": True, "warnings": warnings, "patch": operations, "codes": [], "message": ""}


def _as_the_api_server_has_it(item: dict[str, Any]) -> dict[str, Any]:
    """Return an object after the API server's own decoding and defaulting, as far as these objects need it."""
    sent: dict[str, Any] = _without_nulls(item)
    containers_of_pod = sent["spec"]["containers"] if sent["kind"] == "Pod" else []
    for container in containers_of_pod:
        resources = container.get("resources", {})
        for amounts in resources.values():
            for name, amount in amounts.items():
                amounts[name] = str(amount)
        for name, amount in resources.get("limits", {}).items():
            resources.setdefault("requests", {}).setdefault(name, amount)
    return sent


def _without_nulls(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)  # kubectl sends 3.0 as 3
    if isinstance(value, list):
        return [_without_nulls(element) for element in value]
    if not isinstance(value, dict):
        return value
    return {
        key: {name: "" if text is None else text for name, text in member.items()}
        if key == "annotations"
        else _without_nulls(member)
        for key, member in value.items()
        if member is not None
    }


def _comparable(result: dict[str, Any]) -> dict[str, Any]:
    problems = [Problem(**problem) for problem in result["problems"]]
    return {
        "allowed": result["allowed"],
        "warnings": result["warnings"],
        "patch": result["patch"],
        "codes": [problem.code for problem in problems],
        "message": review.message(problems) if problems else "",
    }


@given(OBJECTS)
def test_check_says_what_the_server_says(item: dict[str, Any]) -> None:
    """Verdict, codes, message, warnings and patch are the server's, for every kind of object."""
    knows = item["kind"] == "NetworkAttachmentDefinition"

    (result,) = _checked([item])

    assert _comparable(result) == _served(item, KNOWING if knows else KNOWING_NOTHING)


@given(st.lists(OBJECTS, min_size=1, max_size=4))
def test_a_catalogue_in_the_input_is_the_server_s(items: list[dict[str, Any]]) -> None:
    """Networks that stand beside the pods count as if the server knew them."""
    results = _checked([*items, *NETWORKS])

    assert [_comparable(result) for result in results] == [_served(item, KNOWING) for item in [*items, *NETWORKS]]
