"""A patch in plain words."""

import copy
from typing import Any

import jsonpatch
import pytest

from noisegate.cli.plainwords import describe

POD: dict[str, Any] = {
    "metadata": {"name": "p", "labels": {"app": "web"}},
    "spec": {
        "nodeSelector": None,
        "containers": [
            {"name": "app", "env": [{"name": "MODE", "value": "fast"}]},
            {"name": "log", "volumeMounts": [{"name": "logs", "mountPath": "/logs"}]},
        ],
        "initContainers": [{"name": "setup"}],
        "volumes": [{"name": "logs", "emptyDir": {}}],
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "serviceAccountName": "default",
    },
}


def add(path: str, value: Any) -> dict[str, Any]:
    """Return one operation as the webhook writes them."""
    return {"op": "add", "path": path, "value": value}


@pytest.mark.parametrize(
    ("path", "value", "lines"),
    [
        pytest.param("/spec/containers/0/env/-", {"name": "A", "value": "1"}, ["env A=1 in app"], id="env"),
        pytest.param("/spec/containers/1/env", [{"name": "A"}], ["env A= in log"], id="env-empty"),
        pytest.param(
            "/spec/containers/1/env",
            [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}],
            ["env A=1 in log", "env B=2 in log"],
            id="env-list",
        ),
        pytest.param(
            "/spec/initContainers/0/env",
            [
                {"name": "IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.hostIP"}}},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            ],
            [
                "env CPU from resourceFieldRef limits.cpu in init container setup",
                "env IP from fieldRef status.hostIP in init container setup",
                "env KEY from secretKeyRef login password in init container setup",
            ],
            id="env-from",
        ),
        pytest.param(
            "/metadata/annotations", {"b": "2", "a": "1"}, ["annotation a=1", "annotation b=2"], id="annotations"
        ),
        pytest.param("/metadata/annotations", {"a": ""}, ["annotation a="], id="annotation-empty"),
        pytest.param(
            "/metadata/annotations", {"a": "x" * 70}, ["annotation a=" + "x" * 57 + "..."], id="annotation-cut"
        ),
        pytest.param("/metadata/labels/a~1b~0c", "1", ["label a/b~c=1"], id="label"),
        pytest.param("/metadata/labels/app", "shop", ["label app=shop (was web)"], id="label-replaced"),
        pytest.param("/spec/nodeSelector", {"nic": "cx6"}, ["node selector nic=cx6"], id="node-selector"),
        pytest.param("/spec/serviceAccountName", "cmk", ["service account cmk"], id="service-account"),
        pytest.param(
            "/spec/containers/0/resources",
            {"limits": {"intel.com/nic": "2"}, "requests": {"intel.com/nic": 2}},
            ["limit intel.com/nic=2 in app", "request intel.com/nic=2 in app"],
            id="resources",
        ),
        pytest.param(
            "/spec/tolerations",
            [
                {"key": "spot", "operator": "Exists"},
                {"operator": "Exists"},
                {"key": "cmk", "value": "true", "effect": "NoSchedule"},
                {"key": "cmk", "operator": "Exists"},
            ],
            ["toleration cmk (Exists)", "toleration cmk=true (Equal, NoSchedule)", "toleration every taint (Exists)"],
            id="tolerations",
        ),
        pytest.param(
            "/spec/volumes",
            [
                {"name": "logs", "emptyDir": {}},
                {"name": "info", "downwardAPI": {"items": []}},
                {"name": "proc", "hostPath": {"path": "/proc"}},
                {"name": "data", "persistentVolumeClaim": {"claimName": "db"}},
                {"name": "shm", "emptyDir": {"medium": "Memory"}},
                {"name": "bare"},
            ],
            [
                "volume bare (emptyDir)",
                "volume data (persistentVolumeClaim db)",
                "volume info (downwardAPI)",
                "volume proc (hostPath /proc)",
                "volume shm (emptyDir Memory)",
            ],
            id="volumes",
        ),
        pytest.param(
            "/spec/containers/1/volumeMounts/-",
            {"name": "logs", "mountPath": "/old", "subPath": "old", "readOnly": True},
            ["mount logs/old at /old in log (read-only)"],
            id="mount",
        ),
        pytest.param(
            "/spec/containers/0/volumeMounts",
            [{"name": "logs", "mountPath": "/logs"}],
            ["mount logs at /logs in app"],
            id="mounts",
        ),
        pytest.param(
            "/spec/containers/0/volumeDevices",
            [{"name": "raw", "devicePath": "/dev/xvda"}],
            ["device raw at /dev/xvda in app"],
            id="devices",
        ),
        pytest.param(
            "/spec/securityContext",
            {"sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}], "fsGroup": 5, "seLinuxOptions": {}},
            [
                "spec.securityContext.fsGroup=5",
                "spec.securityContext.seLinuxOptions={}",
                "spec.securityContext.sysctls net.ipv4.ip_forward=1",
            ],
            id="security-context",
        ),
        pytest.param(
            "/spec/containers/0/securityContext",
            {"capabilities": {"add": ["SYS_NICE", "IPC_LOCK"]}, "privileged": False},
            [
                "securityContext.capabilities.add IPC_LOCK in app",
                "securityContext.capabilities.add SYS_NICE in app",
                "securityContext.privileged=false in app",
            ],
            id="container-security-context",
        ),
        pytest.param(
            "/spec/hostAliases", [{"ip": "10.0.0.1"}], ['spec.hostAliases {"ip":"10.0.0.1"}'], id="other-list"
        ),
        pytest.param("/spec/hostNetwork", True, ["spec.hostNetwork=true"], id="other"),
        pytest.param("/spec/hostname", None, [], id="nothing"),
        pytest.param(
            "/spec/initContainers/-",
            {"name": "wait", "image": "registry.k8s.io/pause:3.10"},
            ["init container wait (registry.k8s.io/pause:3.10)"],
            id="init-container",
        ),
        pytest.param("/spec/containers/-", {"name": "side"}, ["container side (no image)"], id="container"),
    ],
)
def test_one_thing_is_one_line(path: str, value: Any, lines: list[str]) -> None:
    """Each thing that is added is told in its own line, sorted; what was there is not."""
    pod = copy.deepcopy(POD)

    assert describe([add(path, value)], pod) == lines
    assert pod == POD


@pytest.mark.parametrize(
    ("operation", "lines"),
    [
        pytest.param(
            {"op": "replace", "path": "/spec/containers/0/env/0", "value": {"name": "MODE", "value": "slow"}},
            ["env MODE=slow in app (replaced)"],
            id="env",
        ),
        pytest.param(
            {"op": "replace", "path": "/spec/volumes/0", "value": {"name": "logs", "hostPath": {"path": "/var/log"}}},
            ["volume logs (hostPath /var/log) (replaced)"],
            id="volume",
        ),
    ],
)
def test_what_takes_the_place_of_something_says_so(operation: dict[str, Any], lines: list[str]) -> None:
    """A variable or volume of a name that was there before is told as replaced."""
    assert describe([operation], POD) == lines


def test_bundling_does_not_matter() -> None:
    """A map made at once and its members added one after the other are told alike."""
    pod: dict[str, Any] = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "app"}]}}
    at_once = [
        add("/metadata/annotations", {"a": "1", "b": "2"}),
        add("/spec/containers/0/env", [{"name": "A", "value": "1"}]),
    ]
    one_by_one = [
        add("/spec/containers/0/env", []),
        add("/metadata/annotations", {}),
        add("/spec/containers/0/env/-", {"name": "A", "value": "1"}),
        add("/metadata/annotations/b", "2"),
        add("/metadata/annotations/a", "1"),
    ]

    assert describe(at_once, pod) == describe(one_by_one, pod) == ["annotation a=1", "annotation b=2", "env A=1 in app"]


def test_equal_elements_are_counted() -> None:
    """A list that holds the same thing twice, where it held it once, was given one."""
    assert describe([add("/spec/tolerations/-", POD["spec"]["tolerations"][0])], POD) == ["toleration spot (Exists)"]


def test_pod_without_init_containers() -> None:
    """A pod that had no init containers may be given some."""
    assert describe([add("/spec", {"initContainers": [{"name": "wait", "image": "i"}]})], {}) == [
        "init container wait (i)"
    ]


def test_a_patch_for_another_pod_is_an_error() -> None:
    """An operation on a place that the pod does not have is not told as if it had been done."""
    with pytest.raises(jsonpatch.JsonPatchException):
        describe([{"op": "replace", "path": "/spec/hostNetwork", "value": True}], POD)
