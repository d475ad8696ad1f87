"""The ValidatingAdmissionPolicies: our keys on the ways that pass no webhook, and the label of warn mode."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from builders import pod
from controlplane import Api, ControlPlane, Reply

from noisegate.isolation import keys

pytestmark = pytest.mark.apiserver

POLICIES: Final = Path(__file__).parents[2] / "deploy" / "base" / "policies.yaml"
OURS: Final = (
    keys.DISK, keys.NETWORK, keys.RDT_RUNTIME_POD, keys.NETWORKS, keys.DEFAULT_NETWORK, keys.CPU_MUTATE, keys.VOLUME_PATHS,
    keys.RDT_OWN_POD, keys.RDT_RUNTIME_CONTAINER + "a", keys.REQUIRED_PLUGINS, keys.REQUIRED_PLUGINS + "/pod",
    keys.TOLERATE_MISSING_PLUGINS, "noisegate.io/any",
)  # fmt: skip
FOREIGN: Final = (keys.CNI_INGRESS, "k8s.v1.cni.cncf.io/network-status", "cmk.intel.com/resources-injected", "x")


@pytest.fixture(name="guarded", scope="module")
def _guarded(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    values = [value for value in yaml.safe_load_all(POLICIES.read_text()) if value]
    api = control_plane.api
    for value in values:
        api.made(value)
    api.made({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "guarded"}})
    api.made(_pod("there", {}))
    control_plane.wait("policies", lambda: _status(api, "there", {keys.DISK: "x"}).status == 422)
    control_plane.wait("policies", lambda: _bind(api, "none", {keys.DISK: "x"}).status == 422)
    wrong = {"metadata": {"labels": {"noisegate.io/mode": "off"}}}
    control_plane.wait("policies", lambda: api.patch("/api/v1/namespaces/guarded", wrong, dryRun="All").status == 422)
    yield control_plane
    for value in reversed(values):
        plural = "validatingadmissionpolic" + ("ies" if value["kind"].endswith("Policy") else "ybindings")
        api.delete(f"/apis/admissionregistration.k8s.io/v1/{plural}/{value['metadata']['name']}")


def _pod(name: str, annotations: dict[str, str]) -> dict[str, Any]:
    value = pod(annotations)
    value["metadata"] |= {"name": name, "namespace": "guarded"}
    return value


def _status(api: Api, name: str, annotations: dict[str, str | None], sub: str = "status") -> Reply:
    change = {"metadata": {"annotations": annotations}, "status": {"message": "m"}}
    return api.patch(f"/api/v1/namespaces/guarded/pods/{name}/{sub}", change, dryRun="All")


def _bind(api: Api, name: str, annotations: dict[str, str], to: str = "pods/{}/binding") -> Reply:
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "annotations": annotations},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "n"},
    }
    return api.call("POST", f"/api/v1/namespaces/guarded/{to.format(name)}", binding)


@pytest.mark.parametrize("key", OURS)
def test_a_status_changes_none_of_our_keys(guarded: ControlPlane, key: str) -> None:
    """Neither adds, changes nor removes them; the message says which, and what to do."""
    api = guarded.api
    api.made(_pod("asks", {key: "1"}))
    added = _status(api, "there", {key: "x"})
    assert added.status == 422
    assert added.message.endswith(
        f"denied request: annotation {key} is noisegate's, and may not be changed together with a pod's status; "
        "change the pod itself (kubectl annotate), where it is checked"
    )
    assert _status(api, "asks", {key: "2"}).status == 422
    assert _status(api, "asks", {key: None}).status == 422
    assert _status(api, "asks", {}).status == 200
    api.delete("/api/v1/namespaces/guarded/pods/asks")


@pytest.mark.parametrize(
    ("sub", "spec"),
    [
        ("ephemeralcontainers", {"ephemeralContainers": [{"name": "e", "image": "i"}]}),
        ("resize", {"containers": [{"name": "main", "resources": {"requests": {"cpu": "2m"}}}]}),
    ],
)
def test_other_subresources_change_none_of_our_keys_either(
    guarded: ControlPlane, namespace: str, sub: str, spec: dict[str, Any]
) -> None:
    """A pod is not given an annotation with a debugging container or a new size; both go through without one."""
    value = pod(containers=[{"name": "main", "image": "i", "resources": {"requests": {"cpu": "1m"}}}])
    value["metadata"] |= {"name": "sized", "namespace": namespace}
    guarded.api.made(value)
    path, kind = f"/api/v1/namespaces/{namespace}/pods/sized/{sub}", "application/strategic-merge-patch+json"
    done = guarded.api.patch(path, {"metadata": {"annotations": {keys.DISK: "x"}}, "spec": spec}, kind)
    # The API server takes none of the metadata that comes by these ways; should it, the policy would say no.
    assert done.status in {200, 422}
    assert keys.DISK not in (guarded.api.get(path).body["metadata"].get("annotations") or {})
    assert guarded.api.patch(path, {"spec": spec}, kind).status == 200


@pytest.mark.parametrize("key", FOREIGN)
def test_foreign_keys_are_nobodys_business(guarded: ControlPlane, key: str) -> None:
    """Multus writes its own into the status."""
    assert _status(guarded.api, "there", {key: "x"}).status == 200


def test_the_largest_status_is_not_too_much(guarded: ControlPlane) -> None:
    """11,000 annotations, and one more."""
    many = {f"example.com/{number:05}": "xx" for number in range(11_000)}
    guarded.api.made(_pod("large", many))
    assert _status(guarded.api, "large", {"x": "y"}).status == 200
    assert _status(guarded.api, "large", {keys.DISK: "y"}).status == 422


@pytest.mark.parametrize("key", OURS)
@pytest.mark.parametrize("to", ["pods/{}/binding", "bindings"])
def test_a_binding_brings_none_of_our_keys(guarded: ControlPlane, key: str, to: str) -> None:
    """On the way of today and on that of old; with its name and the mend."""
    reply = _bind(guarded.api, "there", {key: "x"}, to)
    assert (reply.status, reply.body["reason"]) == (422, "Invalid")
    assert f"annotation {key} is noisegate's, and may not come with a binding" in reply.message


def test_a_binding_would_bring_them_otherwise(guarded: ControlPlane) -> None:
    """The API server gives the pod what its binding has: foreign keys arrive."""
    guarded.api.made(_pod("bound", {}))
    assert _bind(guarded.api, "bound", {"x": "y"}).status == 201
    there = guarded.api.get("/api/v1/namespaces/guarded/pods/bound").body
    assert there["metadata"]["annotations"] == {"x": "y"}
    guarded.api.made(_pod("bound2", {}))
    assert _bind(guarded.api, "bound2", {}).status == 201


def test_the_mode_of_a_namespace_takes_a_right_of_its_own(guarded: ControlPlane) -> None:
    """Who may edit namespaces may not switch refusals off; with the role, in that namespace; a foreign value is none."""
    api, somebody = guarded.api, guarded.as_("somebody")
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "test-namespaces"},
    }
    api.made({**role, "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["*"]}]})
    subject = [{"kind": "User", "name": "somebody", "apiGroup": "rbac.authorization.k8s.io"}]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole"}
    api.made(
        {
            **role,
            "kind": "ClusterRoleBinding",
            "roleRef": {**reference, "name": "test-namespaces"},
            "subjects": subject,
        }
    )
    warn = {"metadata": {"labels": {"noisegate.io/mode": "warn"}}}
    path = "/api/v1/namespaces/guarded"
    guarded.wait("rights", lambda: somebody.patch(path, {"metadata": {"labels": {"a": "b"}}}).status == 200)
    refused = somebody.patch(path, warn)
    assert refused.status == 403
    assert refused.message.endswith(
        "the label noisegate.io/mode switches refusals off; somebody may not update modes.noisegate.io in namespace guarded; "
        "bind the ClusterRole noisegate-mode-editor there"
    )
    fresh = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "fresh", "labels": {"noisegate.io/mode": "warn"}},
    }
    assert somebody.create(fresh).status == 403
    api.apply((POLICIES.parent / "mode-editor.yaml").read_text())
    api.made(
        {
            **role,
            "kind": "RoleBinding",
            "metadata": {"name": "mode", "namespace": "guarded"},
            "roleRef": {**reference, "name": "noisegate-mode-editor"},
            "subjects": subject,
        }
    )
    guarded.wait("rights", lambda: somebody.patch(path, warn).status == 200)
    assert somebody.patch(path, {"metadata": {"labels": {"noisegate.io/mode": None}}}).status == 200
    assert somebody.create(fresh).status == 403
    told = api.patch(path, {"metadata": {"labels": {"noisegate.io/mode": "off"}}}).message
    assert told.endswith("label noisegate.io/mode: off is no mode; allowed: warn, or no such label")


@pytest.mark.parametrize("sub", ["status", "finalize"])
def test_the_mode_is_guarded_on_the_side_ways_too(guarded: ControlPlane, namespace: str, sub: str) -> None:
    """Who has the right to a namespace's status or finalizers alone may write labels by it, but not this one."""
    api, somebody = guarded.api, guarded.as_("somebody")
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    metadata = {"name": f"test-{namespace}"}
    rules = [{"apiGroups": [""], "resources": [f"namespaces/{sub}"], "verbs": ["update"]}]
    api.made({**rbac, "kind": "ClusterRole", "metadata": metadata, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": metadata["name"]}
    subjects = [{"kind": "User", "name": "somebody", "apiGroup": "rbac.authorization.k8s.io"}]
    api.made({**rbac, "kind": "ClusterRoleBinding", "metadata": metadata, "roleRef": role, "subjects": subjects})
    path = f"/api/v1/namespaces/{namespace}"

    def write(**labels: str) -> Reply:
        value = api.get(path).body
        value["metadata"]["labels"] |= labels
        return somebody.call("PUT", f"{path}/{sub}", value)

    guarded.wait("rights", lambda: write(a="b").status == 200)
    refused = write(**{"noisegate.io/mode": "warn"})
    assert (refused.status, refused.body["reason"]) == (403, "Forbidden")
    assert "somebody may not update modes.noisegate.io in namespace" in refused.message
    assert "noisegate.io/mode" not in api.get(path).body["metadata"]["labels"]
    for kind in ("clusterrolebindings", "clusterroles"):
        api.delete(f"/apis/rbac.authorization.k8s.io/v1/{kind}/{metadata['name']}")
