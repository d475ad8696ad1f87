"""deploy/overlays/enforcer against a real API server: what it installs, what an enforcer may do to which node, how it leaves."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import deployed
import pytest
import yaml
from controlplane import Api, ControlPlane, start
from deployed import built

from noisegate.__main__ import parser
from noisegate.cli import node as commands
from noisegate.enforcement import config
from noisegate.enforcement.plan import partitions
from noisegate.isolation import keys

pytestmark = pytest.mark.apiserver

OVERLAY: Final = deployed.DEPLOY / "overlays" / "enforcer"
CLEANUP: Final = deployed.DEPLOY / "overlays" / "cleanup"
MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
OWN: Final = "/api/v1/nodes/node-1"
OTHER: Final = "/api/v1/nodes/node-2"
STATUS: Final = {
    "capacity": {"cpu": "2"},
    "allocatable": {"cpu": "2"},
    "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
    "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
    "nodeInfo": {"kubeletVersion": "v1.37.0"},
}
"""Of each node, as its kubelet writes it."""

STATUSES: Final = {
    "capacity": {"cpu": "64"},
    "allocatable": {"example.com/gpu": "8"},
    "phase": "Running",
    "addresses": [{"type": "InternalIP", "address": "192.0.2.9"}],
    "daemonEndpoints": {"kubeletEndpoint": {"Port": 4194}},
    "nodeInfo": {"kubeletVersion": "v1.20.0"},
    "images": [{"names": ["example.com/i:1"], "sizeBytes": 1}],
    "volumesInUse": ["kubernetes.io/csi/a"],
    "volumesAttached": [{"name": "kubernetes.io/csi/a", "devicePath": "/dev/vdb"}],
    "runtimeHandlers": [{"name": "kata"}],
    "features": {"supplementalGroupsPolicy": True},
}
"""What a node's status may be changed to, by field."""
OWNER: Final = {"apiVersion": "v1", "kind": "Node", "name": "node-2", "uid": "a0a0a0a0-0000-0000-0000-000000000000"}

Json = dict[str, Any]


@pytest.fixture(name="cluster", scope="module")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A cluster with the overlay and two nodes."""
    with start(tmp_path_factory.mktemp("plane")) as plane:
        applied = plane.kubectl("apply", "--validate=strict", "-k", str(OVERLAY))
        assert (applied.returncode, applied.stderr) == (0, "")
        for name in ("node-1", "node-2"):
            plane.api.made({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"zone": "a"}}})
            ready = {"status": {**STATUS, "conditions": [{"type": "Ready", "status": "True"}]}}
            assert plane.api.patch(f"/api/v1/nodes/{name}/status", ready, STRATEGIC).status == 200
        yield plane


@pytest.fixture(name="enforcer", scope="module")
def _enforcer(cluster: ControlPlane) -> Api:
    """Whoever has the token of an enforcer's pod on node-1."""
    value = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "enforcer", "namespace": "noisegate-node"},
        "spec": {
            "nodeName": "node-1",
            "serviceAccountName": "noisegate-node",
            "containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10"}],
        },
    }
    made = cluster.api.made(value)
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "enforcer", "uid": made["metadata"]["uid"]}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"boundObjectRef": bound}}
    path = "/api/v1/namespaces/noisegate-node/serviceaccounts/noisegate-node/token"
    reply = cluster.api.call("POST", path, request)
    assert reply.status == 201, reply
    api = cluster.as_token(str(reply.body["status"]["token"]))
    # A policy is in force a moment after it was made.
    label = _labels(**{keys.ENFORCES + "disk": "true"})
    cluster.wait("policy", lambda: "may not change node" in api.patch(OTHER, label, MERGE).message)
    return api


def _labels(**labels: str | None) -> Json:
    return {"metadata": {"labels": labels}}


def _condition(kind: str) -> Json:
    return {"status": {"conditions": [{"type": kind, "status": "False", "reason": "Test", "message": "m"}]}}


def test_its_files_can_be_used(cluster: ControlPlane, tmp_path: Path) -> None:
    """Enforcement is required, node.yaml and the class file are sound, and both programs get the same classes."""
    maps = "/api/v1/namespaces/{}/configmaps/{}"
    server = cluster.api.get(maps.format("noisegate-system", "noisegate-config")).body["data"]
    node = cluster.api.get(maps.format("noisegate-node", "noisegate-node")).body["data"]
    settings = deployed.settings(built(OVERLAY), tmp_path)
    assert settings.policy.enforcement == "required"
    assert settings.policy.rdt.classes == "/etc/noisegate/config/classes.yaml"
    assert "mutations.yaml" in server
    assert config.load(node["node.yaml"], "node.yaml").host == "/host"
    assert node["classes.yaml"] == server["classes.yaml"]
    assert set(partitions.read(node["classes.yaml"], "classes.yaml").classes) == {"gold", "silver", "bronze"}


def test_the_daemon_set_is_one_on_each_node_and_no_more_than_it_needs(cluster: ControlPlane) -> None:
    """Never two at once, three capabilities, no way to gain more, nothing writable but what it writes.

    Where SELinux is on, its type is one that may touch what is the host's.
    """
    spec = cluster.api.get("/apis/apps/v1/namespaces/noisegate-node/daemonsets/noisegate-node").body["spec"]
    assert spec["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    (container,) = spec["template"]["spec"]["containers"]
    security = container["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "BPF", "SYS_CHROOT"]}
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert "privileged" not in security
    assert security["seLinuxOptions"] == {"type": "spc_t"}
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/sys/fs", "/var/run/nri", "/run/noisegate", "/tmp"}  # noqa: S108
    settings = config.load(yaml.safe_dump(yaml.safe_load((OVERLAY / "node.yaml").read_text())), "node.yaml")
    assert settings.state == "/run/noisegate"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"health": settings.health.port}


def test_an_enforcer_changes_its_own_node(cluster: ControlPlane, enforcer: Api) -> None:
    """Our labels and our condition, set and taken away; what others say stays."""
    for value in ("true", None):
        assert enforcer.patch(OWN, _labels(**{keys.ENFORCES + "disk": value}), MERGE).status == 200
    assert enforcer.patch(f"{OWN}/status", _condition("NoisegateReady"), STRATEGIC).status == 200
    node = cluster.api.get(OWN).body
    assert {one["type"] for one in node["status"]["conditions"]} == {"Ready", "NoisegateReady"}
    assert node["status"]["capacity"] == STATUS["capacity"]
    assert node["metadata"]["labels"]["zone"] == "a"


@pytest.mark.parametrize(
    ("path", "patch", "kind", "told"),
    [
        pytest.param(OTHER, _labels(**{keys.ENFORCES + "disk": "true"}), MERGE, "may not change node node-2", id="node"),
        pytest.param(f"{OTHER}/status", _condition("NoisegateReady"), STRATEGIC, "may not change node node-2", id="status"),
        pytest.param(OWN, _labels(zone="b"), MERGE, "no labels of a node but", id="label"),
        pytest.param(OWN, _labels(zone=None), MERGE, "no labels of a node but", id="label-taken-away"),
        pytest.param(OWN, {"spec": {"unschedulable": True}}, MERGE, "changes nothing of a node but", id="spec"),
        pytest.param(OWN, {"metadata": {"annotations": {"a": "b"}}}, MERGE, "changes nothing of a node", id="annotation"),
        pytest.param(OWN, {"metadata": {"finalizers": ["a.b/c"]}}, MERGE, "changes nothing of a node but", id="finalizer"),
        pytest.param(OWN, {"metadata": {"ownerReferences": [OWNER]}}, MERGE, "changes nothing of a node but", id="owner"),
        pytest.param(f"{OWN}/status", _condition("Ready"), STRATEGIC, "no condition of a node but", id="condition"),
        *(pytest.param(f"{OWN}/status", {"status": {field: value}}, MERGE, "changes nothing of a node but", id=field)
          for field, value in STATUSES.items()),
        pytest.param(f"{OWN}/status", {"status": {"capacity": None}}, MERGE, "changes nothing of a node but", id="no-capacity"),
    ],
)  # fmt: skip
def test_and_nothing_else(enforcer: Api, path: str, patch: Json, kind: str, told: str) -> None:
    """The message says what is allowed."""
    reply = enforcer.patch(path, patch, kind)
    assert reply.status == 403, reply
    assert told in reply.message


def test_somebody_else_is_not_meant(cluster: ControlPlane) -> None:
    """An administrator changes what he likes."""
    assert cluster.api.patch(OTHER, _labels(zone="c"), MERGE).status == 200


def test_cleanup_is_the_enforcer_that_undoes(cluster: ControlPlane, tmp_path: Path) -> None:
    """What may do all an enforcer may works once, as an init container, on all nodes at once; what waits may do nothing."""
    dry = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-k", str(CLEANUP))
    assert (dry.returncode, dry.stderr) == (0, "")
    enforcer = deployed.container(built(OVERLAY), "DaemonSet", "noisegate-node")
    objects = built(CLEANUP)
    assert deployed.settings(objects, tmp_path).policy.enforcement == "off"
    spec = deployed.find(objects, "DaemonSet", "noisegate-node")["spec"]
    assert spec["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": "100%", "maxSurge": 0}
    pod = spec["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    (cleanup,) = pod["initContainers"]
    told = parser().parse_args(cleanup["args"])
    assert (told.run, told.config) == (commands.cleanup, "/etc/noisegate/node.yaml")
    probes = {"startupProbe", "readinessProbe", "livenessProbe"}
    kept = {key: value for key, value in enforcer.items() if key not in {*probes, "ports", "name", "args"}}
    assert cleanup == {**kept, "name": "cleanup", "args": cleanup["args"]}
    waiting = deployed.container(objects, "DaemonSet", "noisegate-node")
    assert "volumeMounts" not in waiting
    assert waiting["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_what_waits_ends_when_it_is_asked_to() -> None:
    """SIGTERM ends the pod that waits: where it is not process 1 of its pids, as with the host's."""
    pod = deployed.find(built(CLEANUP), "DaemonSet", "noisegate-node")["spec"]["template"]["spec"]
    assert pod["hostPID"] is True
    interpreter, *command = pod["containers"][0]["command"]
    assert interpreter == "python3"
    with subprocess.Popen([sys.executable, *command]) as process:  # noqa: S603  (what the overlay says)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM


def test_without_requiring_it_enforcers_still_hold(tmp_path: Path) -> None:
    """With the component enforcement-off no pod waits for an enforcer, and the DaemonSet is as before."""
    overlay = deployed.mine(tmp_path, enforced=True)
    with (overlay / "kustomization.yaml").open("a") as file:
        file.write("components: [../../components/enforcement-off]\n")
    objects = built(overlay)
    settings = deployed.settings(objects, tmp_path)
    assert (settings.policy.enforcement, settings.policy.rdt.classes) == ("off", "/etc/noisegate/config/classes.yaml")
    (tmp_path / "other").mkdir()
    required = built(deployed.mine(tmp_path / "other", enforced=True))
    assert deployed.find(objects, "DaemonSet", "noisegate-node") == deployed.find(
        required, "DaemonSet", "noisegate-node"
    )
