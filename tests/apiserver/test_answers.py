"""What a user sees of an answer: in the API error, on kubectl's terminal, in a namespace in warn mode."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import installed
import pytest
import replicas
import yaml
from builders import container, cores, pod, workload
from controlplane import ControlPlane
from controlplane.binaries import find
from installed import Certificates

from noisegate.webhook import rules
from noisegate.webhook.world import shipped_rules

pytestmark = pytest.mark.apiserver

SHIPPED: Final = rules.load(Path(shipped_rules()).read_bytes(), "mutations.yaml")
NETWORK: Final = "networkio.kubernetes.io/resources"
DISK: Final = "blockio.kubernetes.io/resources"


@pytest.fixture(name="plane", scope="module")
def _plane(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    folder = tmp_path_factory.mktemp("answers")
    certificates = Certificates(folder / "pair")
    with (
        replicas.webhook(folder, {"server": replicas.secured(certificates.folder)}) as program,
        installed.registered(control_plane, program.where["port"], certificates.bundle, SHIPPED),
    ):
        asking = pod(containers=[container(resources=cores(1))])
        control_plane.wait(
            "webhooks",
            lambda: (
                "env"
                in installed.post(control_plane, asking, "default").body.get("spec", {}).get("containers", [{}])[0]
            ),
        )
        yield control_plane


def bad() -> dict[str, Any]:
    """Return a pod with three problems."""
    annotations = {NETWORK: '{"limits": {"egress": "50MB"}}', DISK: '{"dta": {"limits": {"rbps": "50Mi"}}}'}
    volumes = [{"name": "data", "emptyDir": {}}]
    return pod(annotations, containers=[container(resources=cores("1500m"))], volumes=volumes)


CAUSES: Final = [
    "metadata.annotations[networkio.kubernetes.io/resources].limits.egress",
    "metadata.annotations[blockio.kubernetes.io/resources].dta",
    "spec.containers[0].resources.limits[cmk.intel.com/exclusive-cores]",
]


@pytest.mark.parametrize("dry_run", [True, False])
def test_all_problems_are_told_at_once(plane: ControlPlane, namespace: str, dry_run: bool) -> None:
    """Code 422, reason Invalid, a cause for each with its field, and the same as text with the mends."""
    value = bad()
    value["metadata"]["namespace"] = namespace
    refused = plane.api.create(value, dry_run=dry_run)
    assert (refused.status, refused.body["code"], refused.body["reason"]) == (422, 422, "Invalid")
    causes = refused.body["details"]["causes"]
    assert [cause["field"] for cause in causes] == CAUSES
    assert [cause["message"].partition(":")[0] for cause in causes] == ["NG006", "NG105", "NG501"]
    head, *lines = refused.message.splitlines()
    assert head.startswith('admission webhook "pods.noisegate.io" denied the request: ')
    told = "\n".join([head, *lines])
    for word in ("dta", "write data", "50MB", "50M", "1500m", "0 to"):
        assert word in told
    assert plane.api.get(f"/api/v1/namespaces/{namespace}/pods").body["items"] == []


def test_kubectl_shows_the_denial_of_a_deployment(plane: ControlPlane, namespace: str) -> None:
    """To the person who types `kubectl apply`, not in a ReplicaSet's event."""
    value = bad()
    # Of a part of a device the API server itself says no, before it asks us about a template.
    del value["spec"]["containers"][0]["resources"]
    value["metadata"]["labels"] = {"app": "a"}
    manifest = yaml.safe_dump(workload("Deployment", value, selector={"matchLabels": {"app": "a"}}))
    done = plane.kubectl("apply", "-n", namespace, "-f", "-", input=manifest)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith('The Deployment "web" is invalid: \n')
    for field in CAUSES[:2]:
        assert f"spec.template.{field}" in done.stderr


def test_kubectl_shows_what_a_good_pod_was_given(plane: ControlPlane, namespace: str) -> None:
    """Applied, and read back; applied again it is unchanged."""
    manifest = yaml.safe_dump(
        pod({NETWORK: '{"requests": {"egress": "50M"}}'}, containers=[container(resources=cores(2))])
    )
    done = plane.kubectl("apply", "-n", namespace, "-f", "-", input=manifest)
    assert (done.returncode, done.stdout) == (0, "pod/web created\n")
    # A request alone is reserved by nothing yet: a warning, which kubectl prints.
    assert done.stderr.startswith("Warning: NG")
    made = json.loads(plane.kubectl("get", "pod", "web", "-n", namespace, "-o", "json").stdout)
    assert made["spec"]["containers"][0]["env"] == [{"name": "CMK_NUM_CORES", "value": "2"}]
    assert {"key": "cmk", "operator": "Exists"} in made["spec"]["tolerations"]
    again = plane.kubectl("apply", "-n", namespace, "-f", "-", input=manifest)
    assert again.returncode == 0
    after = json.loads(plane.kubectl("get", "pod", "web", "-n", namespace, "-o", "json").stdout)
    assert after["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"], again.stdout


def test_warn_mode_admits_warns_and_prepares_what_is_sound(plane: ControlPlane, namespace: str) -> None:
    """The bad kind is told of and left alone, the sound one is injected."""
    label = {"metadata": {"labels": {"noisegate.io/mode": "warn"}}}
    assert plane.api.patch(f"/api/v1/namespaces/{namespace}", label).status == 200
    value = pod({NETWORK: '{"limits": {"egress": "50MB"}}'}, containers=[container(resources=cores(2))])
    plane.wait("warn mode", lambda: installed.post(plane, value, namespace).status == 201)
    made = installed.post(plane, value, namespace)
    assert len(made.warnings) == 1
    assert made.warnings[0].startswith("NG006")
    assert made.body["spec"]["containers"][0]["env"] == [{"name": "CMK_NUM_CORES", "value": "2"}]


def test_check_is_a_plugin_of_kubectl(plane: ControlPlane) -> None:
    """`kubectl noisegate check` says the same as the server, before anything is applied."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [str(find("kubectl")), "noisegate", "check", "-"]
    done = subprocess.run(  # noqa: S603  (the real kubectl)
        command,
        input=yaml.safe_dump(bad()),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path, "KUBECONFIG": str(plane.kubeconfig())},
    )
    assert done.returncode == 1, done
    for code in ("NG105", "NG006", "NG501"):
        assert code in done.stdout
