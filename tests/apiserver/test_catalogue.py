"""The live catalogue: what the admission server knows of a real API server's objects."""

import base64
import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import replicas
from builders import container, pod, review
from controlplane import Api, ControlPlane, start
from installed import Certificates
from replicas import Program

from noisegate.webhook.live import MISSING_SECONDS

pytestmark = pytest.mark.apiserver

NETWORKS: Final = "k8s.v1.cni.cncf.io/networks"
ROLE: Final = Path(__file__).parents[2] / "deploy" / "base" / "webhook-rbac.yaml"
KINDS: Final = ["networks", "claims", "storageClasses"]
ACCOUNT: Final = "noisegate-webhook"
DISK: Final = '{"data": {"limits": {"rbps": "50Mi"}}}'


def network(namespace: str, name: str, resource: str = "intel.com/a") -> dict[str, Any]:
    """Return a network."""
    config = {
        "cniVersion": "1.0.0",
        "name": name,
        "type": "sriov",
        "vlan": 100,
        "ipam": {"type": "host-local", "subnet": "10.56.217.0/24"},
    }
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {"k8s.v1.cni.cncf.io/resourceName": resource},
        },
        "spec": {"config": json.dumps(config)},
    }


def claim(namespace: str, name: str) -> dict[str, Any]:
    """Return a claim."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "local-nvme",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def on_disk(name: str) -> dict[str, Any]:
    """Return a pod that limits a claim's disk."""
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]
    mounts = [{"name": "data", "mountPath": "/data"}]
    return pod({"blockio.kubernetes.io/resources": DISK}, containers=[container(volumeMounts=mounts)], volumes=volumes)


class Asking:
    """A client of an admission server.

    Attributes:
        program: The server.
    """

    def __init__(self, program: Program, certificates: Certificates) -> None:
        self.program = program
        self._trust = certificates.trust()

    def mutate(self, value: dict[str, Any], namespace: str) -> dict[str, Any]:
        """Send a new pod; return the response."""
        connection = http.client.HTTPSConnection(
            "localhost", self.program.where["port"], context=self._trust, timeout=10
        )
        with closing(connection):
            body = review(value, namespace=namespace)
            connection.request("POST", "/mutate", body, {"Content-Type": "application/json"})
            answer: dict[str, Any] = json.loads(connection.getresponse().read())["response"]
            return answer


def prepare(plane: ControlPlane, *, rights: bool = True) -> Path:
    """Make the ServiceAccount, with the deployed rights; return its folder."""
    plane.api.made({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "noisegate-system"}})
    account = {"name": ACCOUNT, "namespace": "noisegate-system"}
    plane.api.made({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    if rights:
        plane.api.apply(ROLE.read_text())
    return plane.account_folder("noisegate-system", ACCOUNT)


@contextmanager
def served(plane: ControlPlane, folder: Path, account: Path, **server: Any) -> Iterator[Asking]:
    """Run an admission server that follows all kinds; not necessarily ready."""
    certificates = Certificates(folder / "pair")
    settings = {
        "server": {**replicas.secured(folder / "pair"), **server},
        "cluster": {"catalogue": KINDS, "apiServer": plane.url, "account": str(account)},
    }
    with replicas.webhook(folder, settings) as program:
        yield Asking(program, certificates)


@pytest.fixture(name="asking")
def _asking(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Asking]:
    with served(control_plane, tmp_path, prepare(control_plane)) as asking:
        asking.program.ready()
        yield asking


def allowed(asking: Asking, namespace: str, name: str) -> bool:
    """Tell whether a pod on a network is let in."""
    return bool(asking.mutate(pod({NETWORKS: name}), namespace)["allowed"])


def test_a_network_made_a_moment_before_its_pod(asking: Asking, api: Api, namespace: str) -> None:
    """What the watch has not brought yet is asked for; the pod is let in each time."""
    for number in range(30):
        api.made(network(namespace, f"n{number}"))
        assert allowed(asking, namespace, f"n{number}")
    assert asking.program.number('noisegate_lookups_total{kind="networks",result="missing"}') == 0


def test_what_changes_and_what_is_deleted(
    asking: Asking, api: Api, namespace: str, control_plane: ControlPlane
) -> None:
    """The server follows changes and deletions without being asked."""
    api.made(network(namespace, "n", "intel.com/a"))
    answer = asking.mutate(pod({NETWORKS: "n"}), namespace)
    assert answer["allowed"]
    api.made(network(namespace, "n", "intel.com/b"))
    control_plane.wait("change", lambda: "intel.com/b" in _patch(asking, namespace))
    api.delete(f"/apis/k8s.cni.cncf.io/v1/namespaces/{namespace}/network-attachment-definitions/n")
    control_plane.wait("deletion", lambda: not allowed(asking, namespace, "n"))
    refused = asking.mutate(pod({NETWORKS: "n"}), namespace)["status"]["message"]
    assert "NG413" in refused
    # A name that is missing is asked for once a second at most.
    before, began = asking.program.number('noisegate_lookups_total{kind="networks",result="missing"}'), time.monotonic()
    for _ in range(50):
        assert not allowed(asking, namespace, "n")
    missing = asking.program.number('noisegate_lookups_total{kind="networks",result="missing"}') - before
    assert missing <= 2 + (time.monotonic() - began) / MISSING_SECONDS


def _patch(asking: Asking, namespace: str, name: str = "n") -> str:
    return base64.b64decode(asking.mutate(pod({NETWORKS: name}), namespace).get("patch", "")).decode()


def test_a_claim_made_a_moment_before_its_pod(
    asking: Asking, api: Api, namespace: str, control_plane: ControlPlane
) -> None:
    """No warning that it does not exist; one for a claim that does not."""
    api.made(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "local-nvme"},
            "provisioner": "local.csi.example.com",
        }
    )
    classes = 'noisegate_catalogue_objects{kind="storageClasses"}'
    control_plane.wait("storage class", lambda: asking.program.number(classes) >= 1)
    api.made(claim(namespace, "data"))
    assert "warnings" not in asking.mutate(on_disk("data"), namespace)
    assert "NG152" in asking.mutate(on_disk("other"), namespace)["warnings"][0]


def test_rights_that_are_missing_are_said_plainly_and_can_be_given_later(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Not ready, and why; ready when the role is bound, without a restart. Without the kind of networks there are none."""
    with start(tmp_path_factory.mktemp("plane"), networks=False) as plane:
        account = prepare(plane, rights=False)
        with served(plane, tmp_path, account) as asking:
            told = (
                "waiting for the first list of network-attachment-definitions: network-attachment-definitions.k8s.cni.cncf.io is forbidden: "
                'User "system:serviceaccount:noisegate-system:noisegate-webhook" cannot list resource '
                '"network-attachment-definitions" in API group "k8s.cni.cncf.io" at the cluster scope (403); '
                "bind the ClusterRole noisegate-webhook to noisegate's ServiceAccount"
            )
            plane.wait("reason", lambda: asking.program.get("/readyz")[1].splitlines()[:1] == [told])
            assert asking.program.get("/readyz")[0] == 503
            plane.api.apply(ROLE.read_text())
            asking.program.ready()
            assert "NG413" in asking.mutate(pod({NETWORKS: "n"}), "default")["status"]["message"]


def test_an_api_server_that_goes_away_and_comes_back(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The server stays ready with what it knows, says so, and catches up: what was deleted meanwhile is gone."""
    folder = tmp_path_factory.mktemp("plane")
    with start(folder) as plane:
        plane.api.made(network("default", "stays"))
        plane.api.made(network("default", "goes"))
        with served(plane, tmp_path, prepare(plane)) as asking:
            asking.program.ready()
            plane.restart(between=lambda: _while_away(plane, asking))
            path = "/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions/goes"
            plane.wait("deletion", lambda: plane.api.delete(path).status in {200, 404})
            plane.wait("catching up", lambda: not allowed(asking, "default", "goes"), 60)
            assert allowed(asking, "default", "stays")
            # The other kinds come back in their own time.
            plane.wait("ready", lambda: asking.program.get("/readyz") == (200, "ready\n"), 60)


def _while_away(plane: ControlPlane, asking: Asking) -> None:
    plane.wait("note", lambda: "network-attachment-definitions as of" in asking.program.get("/readyz")[1], 60)
    assert asking.program.get("/readyz")[0] == 200
    assert allowed(asking, "default", "stays")


def test_twenty_thousand_objects(control_plane: ControlPlane, api: Api, tmp_path: Path) -> None:
    """10,000 networks and 10,000 claims: the server is small, and stays so while they change; how soon it is ready is printed."""
    spaces = [f"many-{number}" for number in range(20)]
    for name in spaces:
        api.made({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def fill(name: str) -> None:
        for number in range(500):
            assert api.create(network(name, f"network-{number}")).status == 201
            assert api.create(claim(name, f"claim-{number}")).status == 201

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(fill, spaces))
    account, began = prepare(control_plane), time.monotonic()
    with served(control_plane, tmp_path, account) as asking:
        asking.program.ready()
        print(f"exec to ready: {time.monotonic() - began:.1f} s")
        program = asking.program
        assert program.number('noisegate_catalogue_objects{kind="networks"}') >= 10_000
        assert program.number('noisegate_catalogue_objects{kind="claims"}') >= 10_000
        full = program.resident()
        assert allowed(asking, "many-7", "network-77")

        def churn(name: str) -> None:
            for number in range(100):
                api.made(network(name, f"network-{number}", "intel.com/b"))

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(churn, spaces))
        control_plane.wait("churn", lambda: "intel.com/b" in _patch(asking, "many-19", "network-99"))
        churned = program.resident()
        print(f"resident: {full / 1e6:.0f} MB full, {churned / 1e6:.0f} MB after 2000 changes")
        assert full < 100e6
        assert churned < full + 10e6
    for name in spaces:
        api.delete(f"/apis/k8s.cni.cncf.io/v1/namespaces/{name}/network-attachment-definitions")
        api.delete(f"/api/v1/namespaces/{name}/persistentvolumeclaims")
