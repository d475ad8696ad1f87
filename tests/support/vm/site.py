"""A cluster with noisegate as deploy/overlays/enforcer installs it: the enforcer from our own image, by its DaemonSet.

```python
with site.installed(cluster, folder) as here:       # everything of the overlay but the DaemonSet
    here.set_validator(on=True)                     # deploy/node/10-noisegate.toml in its place, the runtime restarted
    here.deploy()                                   # the DaemonSet
    here.await_enforcing()
```

The admission server runs on the host's loopback, where the API server is; all else of it is as it is deployed: settings, rights,
policies, webhook configurations.
"""

import asyncio
import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import deployed
import msgspec
import replicas
import yaml
from containerd.config import Nri
from controlplane.plane import encoded
from installed import Certificates

from noisegate.enforcement.report.node import CONDITION
from noisegate.enforcement.status import SOCKET, NodeStatus, PodStatus, ask
from noisegate.isolation import keys
from vm import ownimage, runtime
from vm.cluster import Cluster
from vm.kubelet import NAME

OVERLAY: Final = ownimage.ROOT / "deploy/overlays/enforcer"
CLEANUP: Final = ownimage.ROOT / "deploy/overlays/cleanup"
DROP_IN: Final = ownimage.ROOT / "deploy/node/10-noisegate.toml"
IMAGE: Final = "docker.io/library/noisegate:0.1.0"
"""What the DaemonSet's `noisegate:0.1.0` stands for."""
NAMESPACE: Final = "noisegate-node"
STATE: Final = "/run/noisegate"
SECONDS: Final = 400.0
"""Until something that must happen has failed to: an enforcer starts in ten on a quiet machine, in a minute on a busy one."""
SELF: Final = "noisegate node run"
"""In the command line of an enforcer."""
Json = dict[str, Any]


class Site:
    """What was installed.

    Attributes:
        cluster: Where.
    """

    def __init__(self, cluster: Cluster, objects: list[Json]) -> None:
        self.cluster: Final = cluster
        self._daemon_set: Final = _patient(deployed.find(objects, "DaemonSet", "noisegate-node"))
        self._status: Final = cluster.node.socket(f"{STATE}/{SOCKET}")

    @functools.cached_property
    def disk(self) -> str:
        """Device on which emptyDirs and writable layers lie, as `8:0`."""
        return self.cluster.node.device("/var/lib")

    def set_validator(self, *, on: bool) -> None:
        """Put the drop-in for containerd into its place, or take it away; the runtime is restarted."""
        node = self.cluster.node
        if on:
            node.push([DROP_IN], runtime.DROP_INS)
        else:
            node.run("rm", "-f", f"{runtime.DROP_INS}/{DROP_IN.name}")
        node.start_containerd(Nri(request=10.0))
        self.cluster.await_ready()

    def deploy(self) -> None:
        """Have the DaemonSet."""
        self.apply(self._daemon_set)

    def clean(self) -> None:
        """Have the pod that undoes what the enforcer did in its place, and wait until it has."""
        self.apply(deployed.find(deployed.built(CLEANUP), "DaemonSet", "noisegate-node"))
        self.kubectl(
            "rollout", "status", "--namespace", NAMESPACE, "daemonset/noisegate-node", f"--timeout={SECONDS:.0f}s"
        )

    def withdraw(self) -> None:
        """Have no DaemonSet, and wait until its pod has ended."""
        self.kubectl("delete", "daemonset", "--namespace", NAMESPACE, "--ignore-not-found", "noisegate-node")
        self.until("the enforcer has ended", lambda: not self.enforcers())

    def enforcers(self) -> list[Json]:
        """Return the enforcer's pods."""
        items: list[Json] = self.cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods").body["items"]
        return items

    def enforcer(self) -> Json:
        """Return the enforcer's only pod."""
        (pod,) = self.enforcers()
        return pod

    def pid(self) -> int:
        """Return the enforcer's process on the node; 0: there is none."""
        found = self.cluster.node.run("pgrep", "--oldest", "--full", SELF, check=False).out.strip()
        return int(found or 0)

    def status(self) -> NodeStatus | None:
        """Return what the enforcer says on its socket; None: nobody answers."""
        try:
            return asyncio.run(ask(self._status))
        except (OSError, msgspec.DecodeError):
            return None

    def pod(self, uid: str) -> PodStatus | None:
        """Return what the enforcer says of a pod."""
        status = self.status()
        return next((one for one in status.pods if one.uid == uid), None) if status else None

    def labels(self) -> dict[str, str]:
        """Return the node's labels that are ours."""
        given = self.cluster.api.get(f"/api/v1/nodes/{NAME}").body["metadata"]["labels"]
        return {key: value for key, value in given.items() if key.startswith(keys.ENFORCES)}

    def condition(self) -> Json:
        """Return the node's condition that is ours; empty where it has none."""
        conditions: list[Json] = self.cluster.api.get(f"/api/v1/nodes/{NAME}").body["status"]["conditions"]
        return next((one for one in conditions if one["type"] == CONDITION), {})

    def await_enforcing(self) -> None:
        """Wait until the enforcer is connected and the node bears its labels."""

        def does() -> bool:
            status = self.status()
            return status is not None and status.connected and keys.ENFORCES + "disk" in self.labels()

        self.until("the enforcer enforces", does)

    def apply(self, *objects: Json) -> str:
        """Apply objects as a user does; return what kubectl says of warnings."""
        done = self.cluster.plane.kubectl("apply", "-f", "-", input="---\n".join(map(yaml.safe_dump, objects)))
        assert done.returncode == 0, done.stderr
        return done.stderr

    def kubectl(self, *args: str) -> str:
        """Run kubectl; return what it prints."""
        done = self.cluster.plane.kubectl(*args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def until(self, what: str, done: Any, seconds: float = SECONDS) -> None:
        """Wait until something is so; else tell what the enforcer said."""
        try:
            self.cluster.plane.wait(what, done, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.told()}") from None

    def told(self) -> str:
        """Return what can be said of the enforcer when something is not as it should be."""
        pods = [json.dumps(one["status"].get("containerStatuses")) for one in self.enforcers()]
        script = f"tail -n 40 /var/log/pods/{NAMESPACE}_*/enforcer/*.log || true"
        return "\n".join([*pods, str(self.condition()), self.cluster.node.sh(script)])


@contextlib.contextmanager
def installed(cluster: Cluster, folder: Path) -> Iterator[Site]:
    """Install the overlay, but for its DaemonSet, with our own image on the node.

    Args:
        cluster: Where.
        folder: An empty one, for files of the admission server.

    Raises:
        UnavailableError: The image cannot be built.
    """
    with ownimage.archive() as archive:
        # --local: the program reads the archive itself, and does not stream it to containerd in small pieces.
        command = ("ctr", "--namespace", "k8s.io", "images", "import", "--local", "--index-name", IMAGE, "-")
        cluster.node.run(*command, given=archive.read_bytes(), timeout=900)
    objects = deployed.built(OVERLAY)
    certificates = Certificates(folder / "pair")
    here = Site(cluster, objects)
    # Namespaces and accounts first: the admission server shows the API server its account.
    here.apply(*(value for value in objects if value["kind"] in {"Namespace", "ServiceAccount"}))
    settings = _settings(cluster, objects, folder, certificates)
    flags = [flag.replace(deployed.FILES, str(folder)) for flag in deployed.flags(objects)]
    with replicas.webhook(folder, settings, flags=flags) as program:
        here.apply(*_on_loopback(objects, program.where["port"], certificates.bundle))
        program.ready()
        yield here


def _patient(daemon_set: Json) -> Json:
    """Return the DaemonSet with time for a start in an emulated machine that shares its processor; all else is as deployed."""
    (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
    container["startupProbe"]["failureThreshold"] = 600
    return daemon_set


def _settings(cluster: Cluster, objects: list[Json], folder: Path, certificates: Certificates) -> Json:
    """Return the overlay's server.yaml, with files where they are here."""
    files = deployed.find(objects, "ConfigMap", "noisegate-config")["data"]
    for name in ("mutations.yaml", "classes.yaml"):
        (folder / name).write_text(files[name])
    settings: Json = yaml.safe_load(files["server.yaml"])
    settings["server"] |= {**replicas.secured(certificates.folder), "mutations": str(folder / "mutations.yaml")}
    account = cluster.plane.account_folder("noisegate-system", "noisegate-webhook")
    settings["cluster"] |= {"apiServer": cluster.plane.url, "account": str(account)}
    return settings


def _on_loopback(objects: list[Json], port: int, bundle: bytes) -> Iterator[Json]:
    """Yield the overlay's objects without its programs; the Service leads to the host's loopback."""
    for value in objects:
        match value["kind"]:
            case "Deployment" | "DaemonSet" | "PodDisruptionBudget":
                continue
            case "Service" if value["metadata"]["name"] == "noisegate-webhook":
                # The API server then dials localhost, under the Service's own name in TLS.
                value["spec"] = {"type": "ExternalName", "externalName": "localhost"}
            case "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration":
                for webhook in value["webhooks"]:
                    webhook["clientConfig"]["caBundle"] = encoded(bundle)
                    webhook["clientConfig"]["service"]["port"] = port
        yield value
