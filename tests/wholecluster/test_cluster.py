"""The cluster that the tests of this folder stand on: what is said of it elsewhere is so."""

from typing import Any

import pytest
from containerd.images import BUSYBOX
from vm import Cluster
from vm.kubelet import NAME

pytestmark = pytest.mark.cluster


def sleeper(name: str) -> dict[str, Any]:
    """Return a pod that does nothing for an hour."""
    container = {
        "name": "main",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sleep", "3600"],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    spec = {
        "containers": [container],
        "volumes": [{"name": "data", "emptyDir": {}}],
        "terminationGracePeriodSeconds": 0,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def test_a_pod_runs_on_the_node(cluster: Cluster) -> None:
    """A pod is scheduled and started, in a slice of its own that the kubelet made; kubectl reaches into it."""
    cluster.api.made(sleeper("first"))
    cluster.await_phase("first")
    pod = cluster.pod("first")
    assert pod["spec"]["nodeName"] == NAME
    slices = "/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice"
    uid = pod["metadata"]["uid"].replace("-", "_")
    assert "io" in cluster.node.read(f"{slices}/kubepods-burstable-pod{uid}.slice/cgroup.controllers").split()
    ran = cluster.plane.kubectl("exec", "first", "--", "sh", "-c", "echo told > /data/word; cat /data/word")
    assert (ran.returncode, ran.stdout) == (0, "told\n"), ran.stderr


def test_pods_reach_the_api_server(cluster: Cluster) -> None:
    """The API server is there where pods look for it, with the certificate that ServiceAccounts trust."""
    cluster.api.made(sleeper("asking"))
    cluster.await_phase("asking")
    look = "test -s /var/run/secrets/kubernetes.io/serviceaccount/token && nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null"
    ran = cluster.plane.kubectl("exec", "asking", "--", "sh", "-c", look)
    assert ran.returncode == 0, ran.stderr


def test_pods_come_back_after_a_reboot(cluster: Cluster) -> None:
    """A node that is booted again is ready by itself, and starts its pods again."""
    cluster.api.made(sleeper("staying"))
    cluster.await_phase("staying")
    cluster.node.reboot()
    cluster.await_restarted("staying")
    assert cluster.pod("staying")["status"]["phase"] == "Running"
