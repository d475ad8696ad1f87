"""deploy/: installed by the real kubectl, and what is in it fits together."""

import base64
import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import deployed
import pytest
import trustme
from controlplane import ControlPlane, start
from deployed import DEPLOY, FILES, built, find
from installed import PATHS

from noisegate.__main__ import main
from noisegate.enforcement import config

pytestmark = pytest.mark.apiserver

COMPONENTS: Final = ("mtls", "cert-manager", "sriov-ignore")
"""Those that the example has a line for."""
OVERLAYS: Final = (
    "base",
    "example",
    "enforcer",
    *COMPONENTS,
    "enforcer+mtls",
    "enforcer+mtls+cert-manager+sriov-ignore",
)
"""The base, or a copy of the example: on the overlay of the enforcer, or on the base, and with components."""
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


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, overlay: str) -> Path:
    """The folder of an overlay."""
    if overlay in {"base", "monitoring"}:
        return DEPLOY / overlay
    chosen = overlay.split("+")
    return deployed.mine(tmp_path, *(name for name in COMPONENTS if name in chosen), enforced="enforcer" in chosen)


@pytest.mark.parametrize("overlay", [*OVERLAYS, "monitoring"])
def test_an_overlay_is_installed_by_one_command_and_taken_away_by_one(
    cluster: ControlPlane, overlay: str, folder: Path
) -> None:
    """Every field is known to the API server, a second time changes nothing, and nothing stays behind."""
    if overlay == "monitoring":
        cluster.kubectl("create", "namespace", "noisegate-system")
    first = cluster.kubectl("apply", "--validate=strict", "-k", str(folder))
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    before = versions(cluster, folder)
    assert len(before) == len(built(folder))
    second = cluster.kubectl("apply", "-k", str(folder))
    assert (second.returncode, second.stderr) == (0, "")
    # kubectl says "configured" of every PodDisruptionBudget, whatever it changes.
    assert versions(cluster, folder) == before
    take_away(cluster, folder)


def take_away(cluster: ControlPlane, folder: Path) -> None:
    """Delete an overlay, and check that nothing stays behind."""
    gone = cluster.kubectl("delete", "--wait=false", "-k", str(folder))
    assert gone.returncode == 0, gone.stderr
    namespaces = {"noisegate-system"}
    for value in built(folder):
        if value["kind"] == "Namespace":
            namespaces.add(value["metadata"]["name"])
        elif "namespace" not in value["metadata"]:
            kind = f"{value['kind'].lower()}s".replace("policys", "policies")
            assert cluster.kubectl("get", kind, value["metadata"]["name"]).returncode == 1, value["metadata"]
    for namespace in namespaces:
        _finish(cluster, namespace)


def _finish(cluster: ControlPlane, namespace: str) -> None:
    """Have a namespace end: there is no controller manager here that would see to it."""
    path = f"/api/v1/namespaces/{namespace}"
    cluster.api.delete(path)
    value = cluster.api.get(path).body
    cluster.api.call("PUT", f"{path}/finalize", {**value, "spec": {"finalizers": []}})
    cluster.wait("namespace", lambda: cluster.api.get(path).status == 404)
    for kind in (
        "daemonsets",
        "deployments",
        "secrets",
        "configmaps",
        "services",
        "serviceaccounts",
        "poddisruptionbudgets",
        "issuers",
    ):
        cluster.kubectl("delete", kind, "--all", "-n", namespace)


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
    before = versions(cluster, overlay)
    # The next version of the base: it asks for more.
    deployment = tmp_path / "base" / "webhook.yaml"
    deployment.write_text(deployment.read_text().replace("cpu: 100m", "cpu: 110m"))
    assert cluster.kubectl("apply", "-k", str(overlay)).returncode == 0
    assert len(before.items() - versions(cluster, overlay).items()) == 1
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
    take_away(cluster, DEPLOY / "base")


def versions(cluster: ControlPlane, folder: Path) -> dict[str, str]:
    """Return the resourceVersion of every object of a folder, by uid."""
    listed = json.loads(cluster.kubectl("get", "-k", str(folder), "-o", "json").stdout)["items"]
    return {value["metadata"]["uid"]: value["metadata"]["resourceVersion"] for value in listed}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_restricted(cluster: ControlPlane, folder: Path) -> None:
    """The API server's own Pod Security admits them in a namespace that enforces `restricted`, and says nothing."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    cluster.api.made(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-restricted", "labels": labels}}
    )
    deployments = [value for value in built(folder) if value["kind"] == "Deployment"]
    assert [value["metadata"]["name"] for value in deployments] == ["noisegate-controller", "noisegate-webhook"]
    for value in deployments:
        template = copy.deepcopy(value["spec"]["template"])
        metadata = {"name": "p", "namespace": "kube-restricted", "labels": template["metadata"]["labels"]}
        template["spec"].pop("priorityClassName")  # for kube-system and namespaces with a quota for it only
        reply = cluster.api.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}, dry_run=True
        )
        assert (reply.status, reply.warnings) == (201, ()), reply


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_names_ports_and_files_agree(folder: Path, tmp_path: Path) -> None:
    """Selectors find the pods, ports lead to ports, settings name files that are mounted."""
    values = built(folder)
    deployment = find(values, "Deployment", "noisegate-webhook")
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    service = find(values, "Service", "noisegate-webhook")["spec"]
    assert service["selector"].items() <= template["metadata"]["labels"].items()
    assert [(port["port"], ports[port["targetPort"]]) for port in service["ports"]] == [(443, 8443)]
    there = find(values, "ConfigMap", "noisegate-config")["data"]
    settings = deployed.settings(values, tmp_path)
    assert (settings.server.port, settings.server.health_port) == (ports["https"], ports["health"])
    mounts = tuple(mount["mountPath"] + "/" for mount in container["volumeMounts"])
    server = settings.server
    files = [server.cert, server.key, server.mutations, server.client_ca, settings.policy.rdt.classes]
    assert all(file.startswith(mounts) for file in files if file)
    assert {Path(file).name for file in files if file.startswith(FILES)} == set(there) - {"server.yaml"}
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


@pytest.mark.parametrize("overlay", OVERLAYS[1:])
def test_what_overlays_and_components_change(overlay: str, folder: Path, tmp_path: Path) -> None:
    """Each does what it says alone and beside the others, and the server.yaml of one's own takes nothing of it away."""
    values = built(folder)
    chosen = overlay.split("+")
    settings = deployed.settings(values, tmp_path)
    required = ("required", f"{FILES}/classes.yaml") if "enforcer" in chosen else ("off", "")
    assert (settings.policy.enforcement, settings.policy.rdt.classes) == required
    shown = ("/etc/noisegate/client-ca/ca.crt", ("kube-apiserver",)) if "mtls" in chosen else ("", ())
    assert (settings.server.client_ca, settings.server.client_names) == shown
    # What the example's own file says.
    assert settings.policy.sriov.missing_network == "warn"
    rights = [rule for value in values for rule in value.get("rules", [])]
    assert any("secrets" in rule.get("resources", []) for rule in rights) == ("cert-manager" not in chosen)
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        webhooks = find(values, kind, "noisegate")["webhooks"]
        policies = {webhook["name"]: webhook["failurePolicy"] for webhook in webhooks}
        alone = "Ignore" if "sriov-ignore" in chosen else "Fail"
        assert (policies["pods.noisegate.io"], policies["sriov.noisegate.io"]) == ("Fail", alone)
    programs = [value for value in values if value["kind"] in {"Deployment", "DaemonSet"}]
    assert len(programs) == (3 if "enforcer" in chosen else 2)
    images = {container["image"] for value in programs for container in value["spec"]["template"]["spec"]["containers"]}
    assert images == {"registry.example.com/noisegate:0.1.0"}


def test_nodes_have_settings_and_classes_of_ones_own(tmp_path: Path) -> None:
    """With the example's commented lines both programs read the same classes, and the other settings stay."""
    own = """\
      - classes.yaml
  - name: noisegate-node
    namespace: noisegate-node
    behavior: merge
    files:
      - node.yaml
"""
    overlay = deployed.mine(tmp_path, enforced=True, taken=own)
    for name in ("node.yaml", "classes.yaml"):
        text = (DEPLOY / "overlays" / "enforcer" / name).read_text()
        (overlay / name).write_text(f"{text}# mine\n")

    values = built(overlay)

    node = find(values, "ConfigMap", "noisegate-node")["data"]
    assert node["node.yaml"].endswith("# mine\n")
    assert config.load(node["node.yaml"], "node.yaml").host == "/host"
    assert node["classes.yaml"].endswith("# mine\n")
    assert find(values, "ConfigMap", "noisegate-config")["data"]["classes.yaml"] == node["classes.yaml"]
    assert deployed.settings(values, tmp_path).policy.enforcement == "required"


def test_rights_are_few() -> None:
    """No wildcard; nothing is deleted; what is written has a name; secrets are never listed."""
    for value in built(DEPLOY / "base"):
        for rule in value.get("rules", []) if value["kind"] in {"Role", "ClusterRole"} else []:
            assert not {"*", "delete", "deletecollection", "escalate", "impersonate"} & set(rule["verbs"])
            assert "*" not in rule["resources"]
            if {"patch", "update"} & set(rule["verbs"]) and value["metadata"]["name"] != "noisegate-mode-editor":
                assert rule["resourceNames"]
            if "secrets" in rule["resources"]:
                assert not {"list", "watch"} & set(rule["verbs"])
