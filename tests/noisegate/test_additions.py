"""A patch in plain words."""

from typing import Any

import pytest

from noisegate.cli.additions import in_words

POD: dict[str, Any] = {
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "app"}, {"name": "log"}], "initContainers": [{"name": "prepare"}]},
}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        pytest.param("/spec/containers/0/env/-", {"name": "A", "value": "1"}, ["env A=1 in app"], id="env"),
        pytest.param("/spec/containers/1/env", [{"name": "A", "value": ""}], ["env A= in log"], id="env-empty"),
        pytest.param(
            "/spec/initContainers/0/env",
            [
                {"name": "A", "value": "1"},
                {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
            ],
            ["env A=1 in prepare", "env B (fieldRef status.hostIP) in prepare"],
            id="env-made",
        ),
        pytest.param(
            "/spec/containers/0/volumeMounts",
            [{"name": "v", "mountPath": "/m"}, {"name": "w", "mountPath": "/n", "readOnly": True}],
            ["mount /m (from volume v) in app", "mount /n (read-only from volume w) in app"],
            id="mounts",
        ),
        pytest.param(
            "/spec/containers/0/volumeDevices/-",
            {"name": "v", "devicePath": "/dev/x"},
            ["device /dev/x (from volume v) in app"],
            id="device",
        ),
        pytest.param(
            "/spec/containers/0/resources",
            {"limits": {"intel.com/nic": "2"}, "requests": {"intel.com/nic": "2"}},
            ["limit intel.com/nic=2 in app", "request intel.com/nic=2 in app"],
            id="resources-made",
        ),
        pytest.param(
            "/spec/containers/0/resources/limits/intel.com~1nic", "2", ["limit intel.com/nic=2 in app"], id="limit"
        ),
        pytest.param(
            "/spec/containers/0/securityContext",
            {"capabilities": {"add": ["IPC_LOCK", "NET_ADMIN"]}, "privileged": False},
            [
                "securityContext.capabilities.add IPC_LOCK in app",
                "securityContext.capabilities.add NET_ADMIN in app",
                "securityContext.privileged=false in app",
            ],
            id="security-context",
        ),
        pytest.param(
            "/spec/volumes",
            [
                {"name": "proc", "hostPath": {"path": "/proc"}},
                {"name": "info", "downwardAPI": {"items": []}},
                {"name": "data", "persistentVolumeClaim": {"claimName": "db"}},
                {"name": "bare"},
            ],
            [
                "volume proc (hostPath /proc)",
                "volume info (downwardAPI)",
                "volume data (persistentVolumeClaim db)",
                "volume bare (emptyDir)",
            ],
            id="volumes",
        ),
        pytest.param("/spec/tolerations/-", {"operator": "Exists"}, ["toleration of every taint"], id="toleration-all"),
        pytest.param(
            "/spec/tolerations",
            [
                {"key": "cmk", "operator": "Exists"},
                {"key": "pool", "value": "fast", "effect": "NoSchedule"},
            ],
            ["toleration of cmk", "toleration of pool=fast:NoSchedule"],
            id="tolerations",
        ),
        pytest.param(
            "/spec/nodeSelector", {"noisegate.io/enforces-disk": "true"}, ["node selector noisegate.io/enforces-disk=true"],
            id="node-selector",
        ),
        pytest.param("/metadata/annotations/a~1b~0c", "x", ["annotation a/b~c=x"], id="annotation"),
        pytest.param(
            "/metadata", {"annotations": {"a": "1"}, "labels": {"b": "2"}}, ["annotation a=1", "label b=2"], id="metadata"
        ),
        pytest.param("/spec/serviceAccountName", "cmk", ["service account cmk"], id="service-account"),
        pytest.param("/spec/hostPID", True, ["hostPID=true"], id="scalar"),
        pytest.param("/spec/imagePullSecrets", [{"name": "s"}], ['imagePullSecrets {"name":"s"}'], id="other-list"),
        pytest.param("/spec/resources/limits", {"cpu": "1"}, ["limit cpu=1"], id="pod-resources"),
    ],
)
def test_each_addition_has_its_words(path: str, value: object, words: list[str]) -> None:
    """Every kind of thing that can be added is told in words that name it, its value and its container."""
    assert in_words(POD, [{"op": "add", "path": path, "value": value}]) == words


def test_order_is_the_patch_s() -> None:
    """Several operations are told in their own order."""
    patch = [
        {"op": "add", "path": "/spec/serviceAccountName", "value": "b"},
        {"op": "add", "path": "/metadata/annotations", "value": {"a": "1"}},
    ]

    assert in_words(POD, patch) == ["service account b", "annotation a=1"]
