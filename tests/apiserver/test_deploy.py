"""deploy/: installed by the real kubectl, and what is in it fits together."""

import base64
import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
import yaml
from controlplane import ControlPlane, start
from installed import PATHS

from noisegate.__main__ import main
from noisegate.webhook.settings import Settings

pytestmark = pytest.mark.apiserver

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
OVERLAYS: Final = ("base", "overlays/example", "overlays/mtls", "overlays/cert-manager", "overlays/sriov-ignore")
FOREIGN: Final = ("cert-manager.io/v1", "monitoring.coreos.com/v1")
"""Kinds that others bring; a definition without a schema stands in for them."""

Json = dict[str, Any]


@pytest.fixture(name="cluster", scope="module")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with start(tmp_path_factory.mktemp("plane")) as plane:
        for group, kind, plural in (
            ("cert-manager.io", "Issuer", "issuers"),
            ("cert-manager.io", "Certificate", "certificates"),
            ("monitoring.coreos.com", "ServiceMonitor", "servicemonitors"),
            ("monitoring.coreos.com", "PodMonitor", "podmonitors"),
            ("monitoring.coreos.com", "PrometheusRule", "prometheusrules"),
        ):
            schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            names = {"kind": kind, "plural": plural}
            spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
            definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
            plane.api.made({**definition, "metadata": {"name": f"{plural}.{group}"}, "spec": spec})
            path = f"/apis/{group}/v1/{plural}"
            plane.wait(plural, lambda path=path: plane.api.get(path).status == 200)  # type: ignore[misc]
        yield plane


def built(plane: ControlPlane, overlay: str) -> list[Json]:
    """Return the objects that an overlay makes."""
    done = plane.kubectl("kustomize", str(DEPLOY / overlay))
    assert done.returncode == 0, done.stderr
    return [value for value in yaml.safe_load_all(done.stdout) if value]


@pytest.mark.parametrize("overlay", [*OVERLAYS, "monitoring"])
def test_an_overlay_is_installed_by_one_command_and_taken_away_by_one(cluster: ControlPlane, overlay: str) -> None:
    """Every field is known to the API server, a second time changes nothing, and nothing stays behind."""
    folder = str(DEPLOY / overlay)
    if overlay == "monitoring":
        cluster.kubectl("create", "namespace", "noisegate-system")
    first = cluster.kubectl("apply", "--validate=strict", "-k", folder)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    before = versions(cluster, folder)
    assert len(before) == len(built(cluster, overlay))
    second = cluster.kubectl("apply", "-k", folder)
    assert (second.returncode, second.stderr) == (0, "")
    # kubectl says "configured" of every PodDisruptionBudget, whatever it changes.
    assert versions(cluster, folder) == before
    take_away(cluster, overlay)


def take_away(cluster: ControlPlane, overlay: str) -> None:
    """Delete an overlay, and check that nothing stays behind."""
    gone = cluster.kubectl("delete", "--wait=false", "-k", str(DEPLOY / overlay))
    assert gone.returncode == 0, gone.stderr
    for value in built(cluster, overlay):
        if "namespace" not in value["metadata"] and value["kind"] != "Namespace":
            kind = f"{value['kind'].lower()}s".replace("policys", "policies")
            assert cluster.kubectl("get", kind, value["metadata"]["name"]).returncode == 1, value["metadata"]
    # There is no controller manager here that would finish it.
    cluster.api.call("PUT", "/api/v1/namespaces/noisegate-system/finalize", _finalized(cluster))
    cluster.wait("namespace", lambda: cluster.api.get("/api/v1/namespaces/noisegate-system").status == 404)
    for kind in (
        "deployments",
        "secrets",
        "configmaps",
        "services",
        "serviceaccounts",
        "poddisruptionbudgets",
        "issuers",
    ):
        cluster.kubectl("delete", kind, "--all", "-n", "noisegate-system")


def test_an_upgrade_takes_nothing_that_is_yours(
    cluster: ControlPlane, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Applied again, an overlay leaves its own files in force, and caBundle and the conditions of its rules as they are."""
    shutil.copytree(DEPLOY / "base", tmp_path / "base")
    overlay = tmp_path / "overlays" / "example"
    shutil.copytree(DEPLOY / "overlays" / "example", overlay)
    assert main(["registration", "--mutations", str(overlay / "mutations.yaml")]) == 0
    (overlay / "webhooks.yaml").write_text(capsys.readouterr().out)
    file = overlay / "kustomization.yaml"
    text = file.read_text()
    assert "# patches:\n#   - path: webhooks.yaml\n" in text
    file.write_text(text.replace("# patches:\n#   - path", "patches:\n  - path"))
    applied = cluster.kubectl("apply", "--validate=strict", "-k", str(overlay))
    assert (applied.returncode, applied.stderr) == (0, "")
    authority = base64.b64encode(trustme.CA().cert_pem.bytes()).decode()
    for path in PATHS:
        webhooks = cluster.api.get(path).body["webhooks"]
        assert '"batch"' in str(webhooks[0]["matchConditions"])
        trusting = [
            {"op": "add", "path": f"/webhooks/{place}/clientConfig/caBundle", "value": authority}
            for place in range(len(webhooks))
        ]
        assert cluster.api.patch(path, trusting, "application/json-patch+json").status == 200
    before = versions(cluster, str(overlay))
    # The next version of the base: it asks for more.
    deployment = tmp_path / "base" / "webhook.yaml"
    deployment.write_text(deployment.read_text().replace("cpu: 100m", "cpu: 110m"))
    assert cluster.kubectl("apply", "-k", str(overlay)).returncode == 0
    assert len(before.items() - versions(cluster, str(overlay)).items()) == 1
    config = "/api/v1/namespaces/noisegate-system/configmaps/noisegate-config"
    mine = cluster.api.get(config).body["data"]
    assert mine == {name: (overlay / name).read_text() for name in ("server.yaml", "mutations.yaml")}
    # The base alone, as the guide says, is another matter: its rules come back, caBundle stays.
    assert cluster.kubectl("apply", "-k", str(tmp_path / "base")).returncode == 0
    assert cluster.api.get(config).body["data"]["mutations.yaml"] == (DEPLOY.parent / "mutations.yaml").read_text()
    for path in PATHS:
        webhooks = cluster.api.get(path).body["webhooks"]
        assert '"batch"' not in str(webhooks[0]["matchConditions"])
        assert {webhook["clientConfig"]["caBundle"] for webhook in webhooks} == {authority}
    take_away(cluster, "base")


def versions(cluster: ControlPlane, folder: str) -> dict[str, str]:
    """Return the resourceVersion of every object of a folder, by uid."""
    listed = json.loads(cluster.kubectl("get", "-k", folder, "-o", "json").stdout)["items"]
    return {value["metadata"]["uid"]: value["metadata"]["resourceVersion"] for value in listed}


def _finalized(cluster: ControlPlane) -> Json:
    cluster.api.delete("/api/v1/namespaces/noisegate-system")
    value = cluster.api.get("/api/v1/namespaces/noisegate-system").body
    value["spec"] = {"finalizers": []}
    return value


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_restricted(cluster: ControlPlane, overlay: str) -> None:
    """The API server's own Pod Security admits them in a namespace that enforces `restricted`, and says nothing."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    cluster.api.made(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-restricted", "labels": labels}}
    )
    deployments = [value for value in built(cluster, overlay) if value["kind"] == "Deployment"]
    assert [value["metadata"]["name"] for value in deployments] == ["noisegate-controller", "noisegate-webhook"]
    for value in deployments:
        template = copy.deepcopy(value["spec"]["template"])
        metadata = {"name": "p", "namespace": "kube-restricted", "labels": template["metadata"]["labels"]}
        template["spec"].pop("priorityClassName")  # for kube-system and namespaces with a quota for it only
        reply = cluster.api.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}, dry_run=True
        )
        assert (reply.status, reply.warnings) == (201, ()), reply


def find(values: list[Json], kind: str, name: str) -> Json:
    """Return an object."""
    return next(value for value in values if (value["kind"], value["metadata"]["name"]) == (kind, name))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_names_ports_and_files_agree(cluster: ControlPlane, overlay: str) -> None:
    """Selectors find the pods, ports lead to ports, settings name files that are mounted."""
    values = built(cluster, overlay)
    deployment = find(values, "Deployment", "noisegate-webhook")
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    service = find(values, "Service", "noisegate-webhook")["spec"]
    assert service["selector"].items() <= template["metadata"]["labels"].items()
    assert [(port["port"], ports[port["targetPort"]]) for port in service["ports"]] == [(443, 8443)]
    text = find(values, "ConfigMap", "noisegate-config")["data"]
    settings = Settings.load(text["server.yaml"], "/etc/noisegate/config/server.yaml")
    assert (settings.server.port, settings.server.health_port) == (ports["https"], ports["health"])
    mounts = tuple(mount["mountPath"] + "/" for mount in container["volumeMounts"])
    files = [settings.server.cert, settings.server.key, settings.server.mutations, settings.server.client_ca]
    assert all(file.startswith(mounts) for file in files if file)
    grace = template["spec"]["terminationGracePeriodSeconds"]
    assert grace > settings.server.shutdown_delay + settings.server.drain_seconds
    for value in values:
        if value["kind"] in {"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"}:
            for webhook in value["webhooks"]:
                named = webhook["clientConfig"]["service"]
                assert (named["name"], named["namespace"], named["port"]) == (
                    "noisegate-webhook",
                    "noisegate-system",
                    443,
                )
    (controller,) = find(values, "Deployment", "noisegate-controller")["spec"]["template"]["spec"]["containers"]
    assert controller["image"] == container["image"]


def test_what_the_overlays_change(cluster: ControlPlane) -> None:
    """SR-IOV fails open in one; the controller of another may read no Secret; a third asks for client certificates."""
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        webhooks = find(built(cluster, "overlays/sriov-ignore"), kind, "noisegate")["webhooks"]
        policies = {webhook["name"]: webhook["failurePolicy"] for webhook in webhooks}
        assert (policies["pods.noisegate.io"], policies["sriov.noisegate.io"]) == ("Fail", "Ignore")
    rights = [rule for value in built(cluster, "overlays/cert-manager") for rule in value.get("rules", [])]
    assert not any("secrets" in rule.get("resources", []) for rule in rights)
    text = find(built(cluster, "overlays/mtls"), "ConfigMap", "noisegate-config")["data"]
    assert Settings.load(text["server.yaml"], "/server.yaml").server.client_names == ("kube-apiserver",)
    assert text["mutations.yaml"] == (DEPLOY.parent / "mutations.yaml").read_text()


def test_rights_are_few(cluster: ControlPlane) -> None:
    """No wildcard; nothing is deleted; what is written has a name; secrets are never listed."""
    for value in built(cluster, "base"):
        for rule in value.get("rules", []) if value["kind"] in {"Role", "ClusterRole"} else []:
            assert not {"*", "delete", "deletecollection", "escalate", "impersonate"} & set(rule["verbs"])
            assert "*" not in rule["resources"]
            if {"patch", "update"} & set(rule["verbs"]) and value["metadata"]["name"] != "noisegate-mode-editor":
                assert rule["resourceNames"]
            if "secrets" in rule["resources"]:
                assert not {"list", "watch"} & set(rule["verbs"])
