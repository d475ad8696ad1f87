"""What the original's webhook did, matched where it was right and mended where it was not."""

import base64
import json
from typing import Any

import jsonpatch
import pytest
from builders import container, cores, pod, review
from originals import GENERATED, TEMPLATE

from noisegate.isolation.policy import CpuPolicy, Policy
from noisegate.webhook import admit, rules
from noisegate.webhook.admit import World

CORES = "cmk.intel.com/exclusive-cores"
NON_ISOLCPUS = "cmk.intel.com/exclusive-non-isolcpus-cores"

WORLD = World(rules=rules.load(GENERATED, "mutations.yaml"))

PROC_FS = {"name": "CMK_PROC_FS", "value": "/host/proc"}
MOUNTS = [
    {"mountPath": "/host/proc", "name": "cmk-host-proc", "readOnly": True},
    {"mountPath": "/opt/bin", "name": "cmk-install-dir", "readOnly": True},
]
VOLUMES = [
    {"hostPath": {"path": "/proc"}, "name": "cmk-host-proc"},
    {"hostPath": {"path": "/opt/bin"}, "name": "cmk-install-dir"},
]


def number(cores_asked: str) -> dict[str, str]:
    """Return the variable that tells a program its number of cores."""
    return {"name": "CMK_NUM_CORES", "value": cores_asked}


def mutated(obj: dict[str, Any], world: World = WORLD) -> dict[str, Any]:
    """Return a pod as /mutate makes it."""
    response = json.loads(admit.answer("mutate", review(obj), world).body)["response"]
    assert response["allowed"], response
    result: dict[str, Any] = jsonpatch.apply_patch(obj, json.loads(base64.b64decode(response.get("patch", "W10="))))
    return result


def by_name(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return named things in the order of their names."""
    return sorted(items, key=lambda item: str(item["name"]))


def test_whole_pod() -> None:
    """An asking pod gets all the original gave: annotation, account, toleration, volumes, and in every container env and mounts."""
    asking = pod(
        containers=[container("app", resources=cores("2")), container("sidecar")], initContainers=[container("init")]
    )

    after = mutated(asking)

    assert after["metadata"]["annotations"] == {"cmk.intel.com/resources-injected": "true"}
    spec = after["spec"]
    assert spec["serviceAccountName"] == "cmk-serviceaccount"
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert by_name(spec["volumes"]) == VOLUMES
    (app, sidecar), (init,) = spec["containers"], spec["initContainers"]
    assert by_name(app["env"]) == [number("2"), PROC_FS]
    assert (sidecar["env"], init["env"]) == ([PROC_FS], [PROC_FS])
    assert [by_name(each["volumeMounts"]) for each in (app, sidecar, init)] == [MOUNTS] * 3


def test_template_shape() -> None:
    """The other shipped shape works unchanged too; its deprecated serviceAccount is written as serviceAccountName."""
    after = mutated(pod(containers=[container(resources=cores("1"))]), World(rules=rules.load(TEMPLATE, "m.yaml")))

    assert after["spec"]["serviceAccountName"] == "cmk-serviceaccount"
    assert "serviceAccount" not in after["spec"]
    assert [volume["name"] for volume in by_name(after["spec"]["volumes"])] == [
        "cmk-config-dir",
        "cmk-host-proc",
        "cmk-install-dir",
    ]
    assert {mount["mountPath"] for mount in after["spec"]["containers"][0]["volumeMounts"]} == {
        "/etc/cmk",
        "/host/proc",
        "/opt/bin",
    }


@pytest.mark.parametrize("value", ["true", "True", "1"])
def test_annotation_alone(value: str) -> None:
    """cmk.intel.com/mutate gives everything but the number of cores."""
    after = mutated(pod({"cmk.intel.com/mutate": value}))

    assert after["spec"]["containers"][0]["env"] == [PROC_FS]
    assert by_name(after["spec"]["volumes"]) == VOLUMES


@pytest.mark.parametrize("value", ["false", "False", "0"])
def test_annotation_cannot_opt_out(value: str) -> None:
    """As in the original an asking pod is mutated although it says false; now with a warning."""
    asking = pod({"cmk.intel.com/mutate": value}, containers=[container(resources=cores("1"))])
    response = json.loads(admit.answer("mutate", review(asking), WORLD).body)["response"]

    assert number("1") in mutated(asking)["spec"]["containers"][0]["env"]
    assert [warning[:5] for warning in response["warnings"]] == ["NG551"]


def test_annotation_opts_out_by_policy() -> None:
    """With policy.cpu.optOut false means false: nothing is added, not even the number of cores."""
    asking = pod({"cmk.intel.com/mutate": "false"}, containers=[container(resources=cores("1"))])

    assert mutated(asking, WORLD._replace(policy=Policy(cpu=CpuPolicy(optOut=True)))) == asking


@pytest.mark.parametrize("value", ["TRUE", "yes", "", "2"])
def test_annotation_that_says_neither(value: str) -> None:
    """Other values were taken for false in silence; they are errors."""
    answer = json.loads(admit.answer("mutate", review(pod({"cmk.intel.com/mutate": value})), WORLD).body)["response"]

    assert not answer["allowed"]
    assert answer["status"]["message"].startswith("NG505 metadata.annotations[cmk.intel.com/mutate]: ")


def test_not_asking() -> None:
    """A pod that does not ask is left alone, and the answer carries no patch."""
    response = json.loads(admit.answer("mutate", review(pod()), WORLD).body)["response"]

    assert response == {"uid": "0df28fbd-5f5f-11e8-bc74-36e6bb280816", "allowed": True}


@pytest.mark.parametrize(
    "resources",
    [
        pytest.param({"requests": {CORES: "2"}}, id="request without limit, as in its own manifests"),
        pytest.param({"limits": {CORES: "2"}}, id="limit alone"),
        pytest.param({"limits": {CORES: 2}, "requests": {CORES: 2}}, id="numbers; it copied them into the variable"),
        pytest.param({"limits": {NON_ISOLCPUS: "2"}}, id="from the other pool"),
    ],
)
def test_number_of_cores(resources: dict[str, Any]) -> None:
    """However they are asked for, the variable says the cores as a string, and the limit is there."""
    after = mutated(pod(containers=[container(resources=resources)]))["spec"]["containers"][0]

    assert number("2") in after["env"]
    assert [str(amount) for amount in after["resources"]["limits"].values()] == ["2"]


def test_zero_cores() -> None:
    """Zero counted as asking; it asks for nothing."""
    idle = pod(containers=[container(resources=cores("0"))])

    assert mutated(idle) == idle


def test_own_number_of_cores() -> None:
    """A CMK_NUM_CORES of the user's own was kept in silence; it is kept where it is right, and otherwise an error."""
    right = pod(containers=[container(resources=cores("2"), env=[number("2")])])
    wrong = pod(containers=[container(resources=cores("2"), env=[number("4")])])

    assert [each for each in mutated(right)["spec"]["containers"][0]["env"] if each["name"] == "CMK_NUM_CORES"] == [
        number("2")
    ]
    response = json.loads(admit.answer("mutate", review(wrong), WORLD).body)["response"]
    assert response["status"]["message"].startswith("NG504 spec.containers[0].env[0].value: ")


def test_cores_of_both_pools() -> None:
    """Both resources in one container: one was taken, the other forgotten; it is an error."""
    both = {CORES: "1", NON_ISOLCPUS: "1"}
    response = json.loads(
        admit.answer("mutate", review(pod(containers=[container(resources={"limits": both})])), WORLD).body
    )["response"]

    assert response["status"]["message"].startswith("NG503 spec.containers[0].resources: ")


def test_init_container_alone() -> None:
    """A pod whose only cores are an init container's was not mutated at all; now it is."""
    after = mutated(pod(initContainers=[container("init", resources=cores("3"))]))

    assert by_name(after["spec"]["initContainers"][0]["env"]) == [number("3"), PROC_FS]
    assert after["spec"]["containers"][0]["env"] == [PROC_FS]


def test_ephemeral_containers() -> None:
    """Ephemeral containers may not ask for anything, and get nothing."""
    debug = container("debug", env=[])
    after = mutated(pod(containers=[container(resources=cores("1"))], ephemeralContainers=[debug]))

    assert after["spec"]["ephemeralContainers"] == [debug]


def test_idempotent() -> None:
    """Called again, as when another webhook changed the pod, nothing is added twice."""
    once = mutated(pod(containers=[container(resources=cores("1"))]))

    assert mutated(once) == once


def test_container_added_between() -> None:
    """A container that another webhook added between two calls gets its part, the others nothing more."""
    once = mutated(pod(containers=[container(resources=cores("1"))]))
    once["spec"]["containers"].append(container("mesh"))

    response = json.loads(admit.answer("mutate", review(once), WORLD).body)["response"]

    assert [operation["path"] for operation in json.loads(base64.b64decode(response["patch"]))] == [
        "/spec/containers/1/volumeMounts",
        "/spec/containers/1/env",
    ]
    assert not json.loads(admit.answer("validate", review(once), WORLD).body)["response"]["allowed"]


def test_users_own_stays() -> None:
    """The user's variables, account and annotations were overwritten or doubled; they stay, and a warning says so."""
    own = pod(
        {"team": "a"},
        containers=[container(resources=cores("1"), env=[{"name": "CMK_PROC_FS", "value": "/mine"}])],
        serviceAccountName="mine",
        tolerations=[{"operator": "Exists"}],
    )
    response = json.loads(admit.answer("mutate", review(own), WORLD).body)["response"]
    after = mutated(own)

    assert after["metadata"]["annotations"] == {"team": "a", "cmk.intel.com/resources-injected": "true"}
    assert after["spec"]["serviceAccountName"] == "mine"
    assert after["spec"]["tolerations"] == [{"operator": "Exists"}]
    assert by_name(after["spec"]["containers"][0]["env"]) == [number("1"), {"name": "CMK_PROC_FS", "value": "/mine"}]
    assert response["warnings"] == [
        'NG651 spec.containers[0].env[0]: rule "mutations" sets CMK_PROC_FS otherwise; the pod\'s own is kept',
        'NG651 spec.serviceAccountName: rule "mutations" sets serviceAccountName otherwise; the pod\'s own is kept',
    ]


def test_default_account() -> None:
    """The account that the API server fills in is none of the user's."""
    after = mutated(pod(containers=[container(resources=cores("1"))], serviceAccountName="default"))

    assert after["spec"]["serviceAccountName"] == "cmk-serviceaccount"


def test_volume_name_taken() -> None:
    """A volume of the same name made the API server refuse the pod; the message now says how to mend it."""
    taken = pod(containers=[container(resources=cores("1"))], volumes=[{"name": "cmk-host-proc", "emptyDir": {}}])
    response = json.loads(admit.answer("mutate", review(taken), WORLD).body)["response"]

    assert response["status"]["message"] == (
        'NG601 spec.volumes[0]: rule "mutations" adds a volume "cmk-host-proc", but the pod has one of that name from another source '
        "(rename the pod's volume and the mounts that use it)"
    )


def test_volume_there_already() -> None:
    """A volume that is there as the rule wants it is not added twice, whatever the API server filled in."""
    there = pod(
        containers=[
            container(resources=cores("1"), volumeMounts=[{"name": "cmk-host-proc", "mountPath": "/host/proc/"}])
        ],
        volumes=[{"name": "cmk-host-proc", "hostPath": {"path": "/proc", "type": ""}}],
    )
    after = mutated(there)["spec"]

    assert [volume["name"] for volume in after["volumes"]] == ["cmk-host-proc", "cmk-install-dir"]
    assert [mount["mountPath"] for mount in after["containers"][0]["volumeMounts"]] == ["/host/proc/", "/opt/bin"]


def test_mount_path_taken() -> None:
    """A container that has something else at the path is left alone, and a volume that nobody mounts then is not added."""
    taken = pod(
        containers=[
            container(
                resources=cores("1"),
                volumeMounts=[{"name": "own", "mountPath": "/opt/bin"}, {"name": "own", "mountPath": "/host/proc"}],
            )
        ],
        volumes=[{"name": "own", "emptyDir": {}}],
    )
    after = mutated(taken)["spec"]

    assert after["volumes"] == [{"name": "own", "emptyDir": {}}]
    assert after["containers"][0]["volumeMounts"] == taken["spec"]["containers"][0]["volumeMounts"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"metadata": {"annotations": None, "name": "web"}}, id="annotations"),
        pytest.param(
            {"spec": {"containers": [container(resources=None)], "initContainers": None}},
            id="resources and initContainers",
        ),
        pytest.param(
            {"spec": {"containers": [container(resources={"requests": None, "limits": None})]}},
            id="requests and limits",
        ),
        pytest.param({"spec": None}, id="spec"),
        pytest.param({"metadata": None}, id="metadata"),
    ],
)
def test_nulls(change: dict[str, Any]) -> None:
    """What is null counts as absent; the original's connection broke."""
    given = {**pod(), **change}
    body = json.loads(review(pod()))
    body["request"]["object"] = given

    answer = admit.answer("mutate", json.dumps(body).encode(), WORLD)

    assert json.loads(answer.body)["response"] == {"uid": "0df28fbd-5f5f-11e8-bc74-36e6bb280816", "allowed": True}


@pytest.mark.parametrize("without", ["metadata", "spec"])
def test_missing_parts(without: str) -> None:
    """A pod without metadata or spec is answered like any other; with the annotation's rule it gets both."""
    given = {key: value for key, value in pod().items() if key != without}
    body = json.loads(review(pod()))
    body["request"]["object"] = given

    assert json.loads(admit.answer("mutate", json.dumps(body).encode(), WORLD).body)["response"]["allowed"]


def test_annotations_null_and_asking() -> None:
    """Where annotations are null, the rule's replace the null."""
    asking = pod(containers=[container(resources=cores("1"))])
    asking["metadata"]["annotations"] = None

    assert mutated(asking)["metadata"]["annotations"] == {"cmk.intel.com/resources-injected": "true"}


def test_bodies_of_any_size() -> None:
    """A review of more than 10 000 bytes was never mutated."""
    big = pod({"note": "x" * 200_000}, containers=[container(resources=cores("1"))])

    assert number("1") in mutated(big)["spec"]["containers"][0]["env"]


def test_form_of_the_answer() -> None:
    """The answer is v1 as it was asked: uid, patchType with the patch, and a patch of single operations."""
    answer = json.loads(admit.answer("mutate", review(pod(containers=[container(resources=cores("1"))])), WORLD).body)

    assert answer.keys() == {"apiVersion", "kind", "response"}
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert answer["response"]["patchType"] == "JSONPatch"
    operations = json.loads(base64.b64decode(answer["response"]["patch"]))
    assert {operation["op"] for operation in operations} == {"add"}
    assert not {"/metadata", "/spec"} & {operation["path"] for operation in operations}


@pytest.mark.parametrize(
    ("kind", "operation"), [("Service", "CREATE"), ("Pod", "DELETE"), ("Pod", "CONNECT"), ("Node", "UPDATE")], ids=str
)
def test_other_requests(kind: str, operation: str) -> None:
    """What is no new pod is allowed as it is; the original broke the connection, or did not look at the operation."""
    asking = {**pod(containers=[container(resources=cores("1"))]), "kind": kind}

    assert admit.answer("mutate", review(asking, operation=operation, old=asking), WORLD).result == "allowed"
