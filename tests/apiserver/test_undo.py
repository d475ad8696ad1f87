"""Enforcers leave a cluster as docs/node-guide.md says: its own commands, one after the other, in a real control plane."""

import os
import re
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import deployed
import pytest
from binaries import find
from controlplane import ControlPlane, start
from deployed import built

from noisegate.isolation import keys

pytestmark = pytest.mark.apiserver

GUIDE: Final = (deployed.DEPLOY.parent / "docs" / "node-guide.md").read_text()
NEED_KUBELETS: Final = re.compile("rollout status|logs ")
"""Commands that wait for pods to run, or ask for what they said: nothing runs here."""


class Site(NamedTuple):
    """A cluster with an overlay of one's own, installed."""

    plane: ControlPlane
    folder: Path

    @property
    def overlay(self) -> Path:
        """The overlay's folder."""
        return self.folder / "deploy" / "overlays" / "mine"

    def change(self, before: str, after: str) -> None:
        """Change the overlay's kustomization."""
        file = self.overlay / "kustomization.yaml"
        text = file.read_text()
        assert text.count(before) == 1
        file.write_text(text.replace(before, after))

    def do(self, step: int) -> str:
        """Do the commands of a step of the guide, in the folder that holds deploy/; return what they print."""
        (section,) = re.findall(r"^## Undo\n(.*?)^## ", GUIDE, re.MULTILINE | re.DOTALL)
        (text,) = re.findall(rf"^{step}\. (.*?)(?=^\d\. |\Z)", section, re.MULTILINE | re.DOTALL)
        (block,) = re.findall(r"^ *```sh\n(.*?)```", text, re.MULTILINE | re.DOTALL)
        lines = [line for line in textwrap.dedent(block).splitlines() if line and not NEED_KUBELETS.search(line)]
        path = f"{find('kubectl').parent}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "KUBECONFIG": str(self.plane.kubeconfig()), "HOME": str(self.folder)}
        command = ["bash", "-ec", "\n".join(lines)]
        done = subprocess.run(  # noqa: S603  (what the guide says)
            command, cwd=self.folder, env=env, capture_output=True, text=True, check=False, timeout=120
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("undo")
    (folder / "plane").mkdir()
    with start(folder / "plane", controller_manager=True) as plane:
        applied = plane.kubectl("apply", "--validate=strict", "-k", str(deployed.mine(folder, enforced=True)))
        assert (applied.returncode, applied.stderr) == (0, "")
        for name in ("with", "without"):
            plane.api.made({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        # Of an enforcer that died.
        plane.kubectl("label", "node", "with", f"{keys.ENFORCES}disk=true")
        yield Site(plane, folder)


def _pod(name: str, **annotations: str) -> dict[str, object]:
    # In a namespace that is left out: nobody answers for the webhook here.
    metadata = {"name": name, "namespace": "kube-system", "annotations": annotations}
    spec = {"containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def test_the_guides_steps_take_everything_away(site: Site) -> None:
    """What is left is the base, a pod that needs an enforcer is named, and no node says that it holds anything."""
    plane = site.plane
    api = plane.api
    plane.wait("account", lambda: api.get("/api/v1/namespaces/kube-system/serviceaccounts/default").status == 200)
    api.made(_pod("plain", **{"example.com/a": "b"}))
    api.made(_pod("needs", **{keys.REQUIRED_PLUGINS: '["noisegate"]'}))
    installed = built(site.overlay)

    # Step 1: its words.
    site.change("# components:\n", "components:\n  - ../../components/enforcement-off\n")
    site.do(1)
    deployment = api.get("/apis/apps/v1/namespaces/noisegate-system/deployments/noisegate-webhook").body
    assert deployment["spec"]["template"]["spec"]["containers"][0]["args"][-1] == "--enforcement=off"

    assert site.do(2) == "kube-system needs\n"
    api.delete("/api/v1/namespaces/kube-system/pods/needs")
    plane.wait("pod", lambda: site.do(2) == "")

    site.change("components/enforcement-off", "components/cleanup")
    site.do(3)
    daemon_set = api.get("/apis/apps/v1/namespaces/noisegate-node/daemonsets/noisegate-node").body
    (cleanup,) = daemon_set["spec"]["template"]["spec"]["initContainers"]
    assert cleanup["name"] == "cleanup"

    site.change("components:\n  - ../../components/cleanup\n", "")
    site.change("  - ../enforcer #", "  - ../../base #")
    site.do(4)
    base = built(site.overlay)
    names = [(one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]) for one in base]
    for one in installed:
        kind, namespace, name = one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]
        found = plane.kubectl("get", kind, name, *(["--namespace", namespace] if namespace else []))
        assert (found.returncode == 0) == ((kind, namespace, name) in names), found.stderr
    config = api.get("/api/v1/namespaces/noisegate-system/configmaps/noisegate-config").body["data"]
    assert set(config) == {"server.yaml", "mutations.yaml"}
    labels = [node["metadata"].get("labels", {}) for node in api.get("/api/v1/nodes").body["items"]]
    assert not [key for each in labels for key in each if key.startswith(keys.ENFORCES)]
