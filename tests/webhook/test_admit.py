"""The whole decision: pod-api.md 7, row by row."""

import base64
import json
from typing import Any

import jsonpatch
import pytest
from builders import UID, container, cores, pod, review, workload
from strategies import CATALOGUE, KURYR

from noisegate.isolation.catalogue import NOTHING_KNOWN
from noisegate.isolation.policy import DiskPolicy, Policy, SriovPolicy
from noisegate.webhook import admit, rules
from noisegate.webhook.admit import ENDPOINTS, World

DISK = "blockio.kubernetes.io/resources"
NETWORK = "networkio.kubernetes.io/resources"
NETWORKS = "k8s.v1.cni.cncf.io/networks"
RDT = "rdt.resources.beta.kubernetes.io/pod"

RULES = rules.load(
    """
rules:
- name: cmk
  when: {resources: [cmk.intel.com/exclusive-cores]}
  perPod:
    metadata: {annotations: {cmk.intel.com/resources-injected: "true"}}
    spec: {tolerations: [{key: cmk, operator: Exists}]}
""",
    "m.yaml",
)
WORLD = World(rules=RULES, catalogue=CATALOGUE)

ASKING = pod(
    {
        DISK: '{"data": {"limits": {"rbps": "50Mi/4k"}}}',
        NETWORK: '{"limits": {"egress": "50M"}}',
        NETWORKS: "fast",
        RDT: "gold",
    },
    containers=[container(resources=cores("2"), volumeMounts=[{"name": "data", "mountPath": "/data"}])],
    volumes=[{"name": "data", "emptyDir": {}}],
)
WRONG = pod({NETWORK: '{"limit": {"egress": "50M"}}'})


def respond(obj: Any, endpoint: str = "mutate", world: World = WORLD, **request: Any) -> dict[str, Any]:
    """Return the response to an object."""
    response: dict[str, Any] = json.loads(admit.answer(endpoint, review(obj, **request), world).body)["response"]
    return response


def mutated(obj: dict[str, Any], world: World = WORLD, endpoint: str = "mutate") -> dict[str, Any]:
    """Return an object with the patch of the answer."""
    result: dict[str, Any] = jsonpatch.apply_patch(
        obj, json.loads(base64.b64decode(respond(obj, endpoint, world).get("patch", "W10=")))
    )
    return result


ALLOWED = {"uid": UID, "allowed": True}


# The table's rows.


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_asks_for_nothing(endpoint: str) -> None:
    """A pod that asks for nothing we own passes, without a patch."""
    answer = admit.answer(endpoint, review(pod(containers=[container(resources={"limits": {"cpu": "1"}})])), WORLD)

    assert (answer.status, answer.result, answer.codes, answer.log) == (200, "allowed", (), None)
    assert json.loads(answer.body)["response"] == ALLOWED


def test_right() -> None:
    """A pod that asks for all five kinds gets the smallest patch, in an order that does not change."""
    answer = admit.answer("mutate", review(ASKING), WORLD)
    response = json.loads(answer.body)["response"]

    assert (answer.result, response["allowed"], response["patchType"]) == ("patched", True, "JSONPatch")
    assert json.loads(base64.b64decode(response["patch"])) == [
        {"op": "add", "path": "/spec/containers/0/resources/limits/intel.com~1a", "value": "1"},
        {"op": "add", "path": "/spec/containers/0/resources/requests/intel.com~1a", "value": "1"},
        {
            "op": "add",
            "path": "/spec/containers/0/volumeMounts/-",
            "value": {"mountPath": "/etc/podnetinfo", "name": "podnetinfo", "readOnly": True},
        },
        {
            "op": "add",
            "path": "/spec/volumes/-",
            "value": {
                "name": "podnetinfo",
                "downwardAPI": {"items": [{"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}}]},
            },
        },
        {"op": "add", "path": "/spec/containers/0/env", "value": [{"name": "CMK_NUM_CORES", "value": "2"}]},
        {"op": "add", "path": "/metadata/annotations/cmk.intel.com~1resources-injected", "value": "true"},
        {"op": "add", "path": "/metadata/annotations/noisegate.io~1volume-paths", "value": '{"data":{"app":"/data"}}'},
        {"op": "add", "path": "/spec/tolerations", "value": [{"key": "cmk", "operator": "Exists"}]},
    ]
    assert "patch" not in respond(mutated(ASKING))
    assert respond(mutated(ASKING), "validate") == ALLOWED


@pytest.mark.parametrize("endpoint", ["mutate", "validate"])
def test_wrong(endpoint: str) -> None:
    """A pod that is wrong is refused with HTTP 200, code 422 and a cause for each problem; counted and logged."""
    answer = admit.answer(endpoint, review(WRONG, uid="u-1"), WORLD)
    told = 'unknown key "limit"; allowed: limits, requests (write limits)'

    assert (answer.status, answer.result, answer.codes) == (200, "denied", ("NG003",))
    assert json.loads(answer.body)["response"] == {
        "uid": "u-1",
        "allowed": False,
        "status": {
            "metadata": {},
            "status": "Failure",
            "message": f"NG003 metadata.annotations[{NETWORK}].limit: {told}",
            "reason": "Invalid",
            "details": {
                "name": "web",
                "group": "",
                "kind": "Pod",
                "causes": [
                    {
                        "reason": "FieldValueInvalid",
                        "message": f"NG003: {told}",
                        "field": f"metadata.annotations[{NETWORK}].limit",
                    }
                ],
            },
            "code": 422,
        },
    }
    assert answer.log == {
        "event": "denied",
        "endpoint": endpoint,
        "kind": "Pod",
        "namespace": "default",
        "name": "web",
        "uid": "u-1",
        "problems": [f"NG003 metadata.annotations[{NETWORK}].limit: {told}"],
    }


def test_every_problem() -> None:
    """The problems of all kinds are told together."""
    wrong = pod(
        {
            DISK: '{"dta": {"limits": {"rbps": "50Mi/3k"}}}',
            NETWORK: "{",
            RDT: "gould",
            NETWORKS: "fats",
            "noisegate.io/typo": "x",
        },
        containers=[container(resources=cores("1500m"))],
        volumes=[{"name": "data", "emptyDir": {}}],
    )

    codes = [cause["message"][:5] for cause in respond(wrong)["status"]["details"]["causes"]]

    assert sorted(codes) == ["NG001", "NG101", "NG105", "NG301", "NG413", "NG501", "NG801"]


def test_fifty_problems() -> None:
    """More than fifty problems are counted, not told."""
    many = pod({f"noisegate.io/x{number}": "" for number in range(60)})

    response = respond(many)

    assert response["status"]["message"].startswith("60 problems:\n")
    assert response["status"]["message"].endswith("\n- and 10 more")
    assert len(response["status"]["details"]["causes"]) == 50
    assert len(admit.answer("mutate", review(many), WORLD).codes) == 60


@pytest.mark.parametrize("endpoint", ["warn/mutate", "warn/validate"])
def test_warn_mode(endpoint: str) -> None:
    """In warn mode a wrong pod is allowed, with a warning for each problem."""
    answer = admit.answer(endpoint, review(WRONG), WORLD)

    assert (answer.result, answer.codes) == ("warned", ("NG003",))
    assert json.loads(answer.body)["response"] == {
        **ALLOWED,
        "warnings": [
            f'NG003 metadata.annotations[{NETWORK}].limit: unknown key "limit"; allowed: limits, requests (write limits)'
        ],
    }
    assert answer.log is not None
    assert answer.log["event"] == "warned"


def test_warn_mode_adds_what_is_sound() -> None:
    """The sound kinds are added, of the bad ones nothing."""
    wrong_cores = {**ASKING, "spec": {**ASKING["spec"], "containers": [container(resources=cores("x"))]}}

    after = mutated(wrong_cores, endpoint="warn/mutate")

    assert "env" not in after["spec"]["containers"][0]
    assert "tolerations" not in after["spec"]
    assert "cmk.intel.com/resources-injected" not in after["metadata"]["annotations"]
    assert after["spec"]["containers"][0]["resources"]["limits"]["intel.com/a"] == "1"
    assert mutated(
        pod({NETWORKS: "fast,broken"}, containers=[container(resources=cores("1"))]), endpoint="warn/mutate"
    )["spec"]["containers"][0] == {
        **container(resources=cores("1")),
        "env": [{"name": "CMK_NUM_CORES", "value": "1"}],
    }


def test_warn_mode_warnings_are_bounded() -> None:
    """Warnings keep to the API server's limits."""
    warnings = respond(pod({f"noisegate.io/x{number}": "" for number in range(100)}), "warn/mutate")["warnings"]

    assert sum(map(len, warnings)) <= 4096
    assert max(map(len, warnings)) <= 256
    assert warnings[-1] == f"and {100 - len(warnings) + 1} more"


@pytest.mark.parametrize("body", [b"", b"null", b'{"kind": "Pod"}', b"\xff"])
def test_broken_request(body: bytes) -> None:
    """What is no AdmissionReview gets HTTP 400 and one sentence."""
    answer = admit.answer("mutate", body, WORLD)

    assert (answer.status, answer.result) == (400, "refused")
    assert answer.body.endswith(b"\n")


def test_v1beta1() -> None:
    """A review of the old version is answered in it."""
    answer = json.loads(admit.answer("mutate", review(ASKING, version="admission.k8s.io/v1beta1"), WORLD).body)

    assert answer["apiVersion"] == "admission.k8s.io/v1beta1"
    assert answer["response"]["patchType"] == "JSONPatch"


# CREATE of a pod.


def test_validate_recomputes() -> None:
    """Validation denies where something would still have to be added, and says what and how."""
    after = mutated(ASKING)
    after["spec"]["containers"][0]["env"] = []
    after["spec"]["containers"].append(container("late", resources=cores("1")))

    response = respond(after, "validate")

    assert sorted((cause["field"], cause["message"]) for cause in response["status"]["details"]["causes"]) == [
        (
            path,
            (
                f"NG603: this pod needs {value} here; noisegate adds it, and it is not there any more "
                "(let noisegate's mutating webhook run after the one that changed this (reinvocationPolicy: IfNeeded))"
            ),
        )
        for path, value in [
            ("spec.containers[0].env", '[{"name":"CMK_NUM_CORES","value":"2"}]'),
            ("spec.containers[1].env", '[{"name":"CMK_NUM_CORES","value":"1"}]'),
            (
                "spec.containers[1].volumeMounts",
                '[{"mountPath":"/etc/podnetinfo","name":"podnetinfo","readOnly":true}]',
            ),
        ]
    ]


def test_missing_long_value() -> None:
    """A long value that is missing is cut in the message."""
    loaded = rules.load(
        json.dumps({"rules": [{"name": "a", "when": {}, "perPod": {"metadata": {"annotations": {"x": "y" * 300}}}}]}),
        "m.yaml",
    )

    message = respond(pod(), "validate", World(rules=loaded))["status"]["message"]

    assert f'needs {{"x":"{"y" * 191}... here' in message


@pytest.mark.parametrize(("previous", "allowed"), [(None, False), (rules.NO_RULES, True), (RULES, True)])
def test_previous_rules(previous: rules.Rules | None, allowed: bool) -> None:
    """For a while after a change of the rules, a pod that the previous rules satisfy is valid too."""
    changed = rules.load(
        "rules: [{name: new, when: {resources: [cmk.intel.com/exclusive-cores]}, perPod: {metadata: {labels: {new: rule}}}}]",
        "m.yaml",
    )
    after = mutated(pod(containers=[container(resources=cores("1"))]))

    assert respond(after, "validate", World(rules=changed, previous=previous))["allowed"] is allowed


def test_previous_rules_mend_nothing_else() -> None:
    """The previous rules do not make a wrong pod right."""
    assert not respond(WRONG, "validate", WORLD._replace(previous=rules.NO_RULES))["allowed"]


def test_namespace_of_the_request() -> None:
    """The request's namespace counts, not the object's."""
    elsewhere = pod({NETWORKS: "fast"})
    elsewhere["metadata"]["namespace"] = "default"

    assert not respond(elsewhere, namespace="other")["allowed"]
    assert respond(elsewhere, namespace="default")["allowed"]


def test_nothing_known() -> None:
    """Where nothing is known of the cluster, what depends on it is unchecked, with warnings."""
    response = respond(ASKING, world=World(rules=RULES, catalogue=NOTHING_KNOWN))

    assert response["allowed"]
    assert sorted(warning[:5] for warning in response["warnings"]) == ["NG351", "NG461"]


def test_dry_run() -> None:
    """A dry run gets the same answer."""
    body = review(ASKING)

    assert admit.answer("mutate", body.replace(b'"dryRun": false', b'"dryRun": true'), WORLD) == admit.answer(
        "mutate", body, WORLD
    )


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "request_fields",
    [
        pytest.param({"operation": "DELETE"}, id="DELETE"),
        pytest.param({"operation": "CONNECT"}, id="CONNECT"),
        pytest.param({"sub_resource": "status", "operation": "UPDATE"}, id="status"),
        pytest.param({"sub_resource": "ephemeralcontainers", "operation": "UPDATE"}, id="ephemeral containers"),
        pytest.param({"sub_resource": "resize", "operation": "UPDATE"}, id="resize"),
        pytest.param({"sub_resource": "binding"}, id="binding"),
        pytest.param({"namespace": "kube-system"}, id="excluded namespace"),
        pytest.param({"namespace": "team-a"}, id="excluded glob"),
        pytest.param({"kind": "Service"}, id="another kind"),
    ],
)
def test_passed_by(endpoint: str, request_fields: dict[str, Any]) -> None:
    """What is not ours passes unread."""
    world = WORLD._replace(policy=Policy(excludeNamespaces=("kube-system", "team-*")))

    assert respond(WRONG, endpoint, world, old=ASKING, **request_fields) == ALLOWED


def test_delete_without_object() -> None:
    """On DELETE the object is null."""
    assert respond(None, "validate", old=pod(), operation="DELETE") == ALLOWED


def test_mirror_pod() -> None:
    """The kubelet's image of a static pod passes unread."""
    assert respond(pod({NETWORK: "x", "kubernetes.io/config.mirror": "hash"}), "validate") == ALLOWED


@pytest.mark.parametrize("endpoint", ["mutate", "warn/mutate"])
def test_not_readable(endpoint: str) -> None:
    """An object that is not what its kind says is a problem that says so."""
    broken = pod()
    broken["spec"]["containers"] = {"name": "app"}

    response = respond(broken, endpoint)

    told = "NG090 this is no Pod: Expected `array`, got `object` - at `$.spec.containers`"
    assert told in (response["status"]["message"] if endpoint == "mutate" else response["warnings"][0])


def test_deep_nesting() -> None:
    """However deep the object is nested, it is answered: read, or told to be no pod."""
    loaded = rules.load(
        "rules: [{name: a, when: {}, perPod: {spec: {priorityClassName: x, hostAliases: [{ip: 10.0.0.1}]}}}]", "m.yaml"
    )
    results = set()
    for depth in range(300, 1100):
        body = review(pod()).replace(
            b'"kind": "Pod", "metadata"', b'"x": ' + b"[" * depth + b"]" * depth + b', "kind": "Pod", "metadata"'
        )
        results.add(admit.answer("mutate", body, World(rules=loaded)).result)

    assert results == {"patched", "denied", "refused"}


def test_number_out_of_range() -> None:
    """A number that no reader takes, in a field that only some rules make us read, is told."""
    loaded = rules.load("rules: [{name: a, when: {}, perPod: {spec: {priorityClassName: x}}}]", "m.yaml")
    body = review(pod()).replace(b'"kind": "Pod", "metadata"', b'"x": 1e400, "kind": "Pod", "metadata"')

    assert admit.answer("mutate", body, World()).result == "allowed"
    assert admit.answer("mutate", body, World(rules=loaded)).codes == ("NG090",)


def test_policy() -> None:
    """The policy's minimum decides what is allowed."""
    tiny = pod({DISK: '{"*": {"limits": {"rbps": "50k"}}}'})

    assert respond(tiny)["status"]["message"].startswith("NG107 ")
    assert respond(tiny, world=World(policy=Policy(disk=DiskPolicy(minimumBytesPerSecond=1))))["allowed"]


def test_kuryr_surplus() -> None:
    """A Kuryr network's devices are topped up, and more of them than attachments are an error."""
    world = WORLD._replace(policy=Policy(sriov=SriovPolicy(kuryr=KURYR)))
    surplus = pod({NETWORKS: "kuryr"}, containers=[container(resources={"limits": {"intel.com/k": "2"}})])

    assert mutated(pod({NETWORKS: "kuryr,kuryr"}), world)["spec"]["containers"][0]["resources"]["limits"] == {
        "intel.com/k": "2"
    }
    assert respond(surplus, world=world)["status"]["message"].startswith("NG418 ")


# Workload templates.

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob")


@pytest.mark.parametrize("kind", WORKLOADS)
def test_template(kind: str) -> None:
    """A template is validated, with paths from the workload's root, and never mutated."""
    path = "spec.jobTemplate.spec.template." if kind == "CronJob" else "spec.template."
    response = respond(workload(kind, WRONG), "validate")

    assert response["status"]["details"]["causes"][0]["field"] == f"{path}metadata.annotations[{NETWORK}].limit"
    assert respond(workload(kind, WRONG), "mutate") == ALLOWED
    assert respond(workload(kind, ASKING), "mutate") == ALLOWED
    assert respond(workload(kind, ASKING), "validate") == ALLOWED
    assert respond(workload(kind, WRONG), "warn/validate")["allowed"]
    assert respond(workload(kind, WRONG), "validate", operation="DELETE", old=workload(kind, WRONG)) == ALLOWED


def test_template_things_that_may_come_later() -> None:
    """A network that does not exist yet only warns in a template, and refuses a pod."""
    later = pod({NETWORKS: "later"})

    response = respond(workload("Deployment", later), "validate")

    assert response["allowed"]
    assert [warning[:5] for warning in response["warnings"]] == ["NG462"]
    assert response["warnings"][0].startswith(f"NG462 spec.template.metadata.annotations[{NETWORKS}][0]: ")
    assert not respond(later)["allowed"]


def test_claim_templates() -> None:
    """Volumes of a StatefulSet's claim templates are volumes of its pods; of other workloads they are not."""
    asking = pod(
        {DISK: '{"www": {"limits": {"rbps": "50Mi"}}}'},
        containers=[container(volumeMounts=[{"name": "www", "mountPath": "/www"}])],
    )
    claims = [{"metadata": {"name": "www"}, "spec": {}}]

    assert respond(workload("StatefulSet", asking, volumeClaimTemplates=claims), "validate") == ALLOWED
    assert respond(workload("Deployment", asking), "validate")["status"]["message"].startswith(
        "NG105 spec.template.metadata"
    )


@pytest.mark.parametrize("kind", WORKLOADS)
def test_template_update(kind: str) -> None:
    """A template is judged again only when what it asks for changed."""
    labelled = {**WRONG, "metadata": {**WRONG["metadata"], "labels": {"new": "label"}}}
    more_cores = pod(WRONG["metadata"]["annotations"], containers=[container(resources=cores("1"))])

    assert respond(workload(kind, labelled), "validate", old=workload(kind, WRONG), operation="UPDATE") == ALLOWED
    assert not respond(workload(kind, WRONG), "validate", old=workload(kind, pod()), operation="UPDATE")["allowed"]
    assert not respond(workload(kind, more_cores), "validate", old=workload(kind, WRONG), operation="UPDATE")["allowed"]


@pytest.mark.parametrize("spec", [{}, {"template": None}, {"template": {}}, None])
def test_template_without_a_pod(spec: Any) -> None:
    """A workload without a template asks for nothing."""
    loaded = rules.load(
        "rules: [{name: a, when: {namespaces: [default]}, perPod: {spec: {hostAliases: [{ip: 10.0.0.1}], initContainers: [{name: i}]}}}]",
        "m.yaml",
    )
    empty = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": spec}

    assert respond(empty, "validate", World(rules=loaded)) == ALLOWED


# UPDATE of a pod.


def test_update_is_never_mutated() -> None:
    """An UPDATE gets no patch."""
    assert respond(ASKING, "mutate", old=pod(), operation="UPDATE") == ALLOWED


def test_update_is_judged() -> None:
    """An UPDATE that changes a key of ours is judged."""
    response = respond(ASKING, "validate", old=pod(), operation="UPDATE")

    assert {cause["message"][:5] for cause in response["status"]["details"]["causes"]} == {"NG701"}


# NetworkAttachmentDefinitions.


def network(config: str, *, annotations: dict[str, str] | None = None, deleted: bool = False) -> dict[str, Any]:
    """Return a NetworkAttachmentDefinition."""
    metadata: dict[str, Any] = {"name": "fast", "annotations": annotations or {}}
    if deleted:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": metadata,
        "spec": {"config": config},
    }


GOOD = '{"cniVersion": "1.0.0", "name": "fast", "type": "sriov", "vlan": 100}'
BAD = '{"cniVersion": "1.0.0", "name": "fast", "type": "sriov", "vlan": 5000}'


def test_network_created() -> None:
    """A network is judged when it is created, and not mutated."""
    assert respond(network(GOOD, annotations={"k8s.v1.cni.cncf.io/resourceName": "intel.com/a"}), "validate")["allowed"]
    assert respond(network("{"), "validate")["status"]["reason"] == "Invalid"
    assert not respond(network(BAD), "validate")["allowed"]
    assert respond(network(BAD), "mutate") == ALLOWED
    assert respond(network(BAD), "warn/validate")["allowed"]
    assert respond(network(BAD), "validate", operation="DELETE", old=network(BAD)) == ALLOWED


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        pytest.param(network(GOOD), network(BAD), False, id="made bad"),
        pytest.param(network(BAD), network(BAD), True, id="bad as before"),
        pytest.param(network(BAD), network(BAD, annotations={"note": "x"}), True, id="bad as before, a note added"),
        pytest.param(
            network(BAD),
            network(BAD, annotations={"k8s.v1.cni.cncf.io/resourceName": "intel.com/a"}),
            False,
            id="resource added",
        ),
        pytest.param(network(GOOD), network(BAD, deleted=True), True, id="being deleted"),
    ],
)
def test_network_updated(old: dict[str, Any], new: dict[str, Any], allowed: bool) -> None:
    """A network is judged again when what is read of it changed."""
    assert respond(new, "validate", old=old, operation="UPDATE")["allowed"] is allowed
