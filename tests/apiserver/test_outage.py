"""While no admission server answers: what asks is refused plainly, and nothing else notices."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import installed
import pytest
import replicas
from builders import container, cores, pod, workload
from controlplane import Api, ControlPlane, start
from installed import Certificates

from noisegate.webhook import rules
from noisegate.webhook.world import shipped_rules

pytestmark = pytest.mark.apiserver

SHIPPED: Final = rules.load(Path(shipped_rules()).read_bytes(), "mutations.yaml")
WORKLOADS: Final = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob")
NETWORKS: Final = "k8s.v1.cni.cncf.io/networks"


def asking() -> dict[str, Any]:
    """Return a pod that asks for cores."""
    return pod(containers=[container(resources=cores(1))])


@contextmanager
def nobody(*, silent: bool) -> Iterator[int]:
    """Yield a port where nobody listens, or where whoever listens never says anything."""
    held: list[socket.socket] = []
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen(64)

            def take() -> None:
                while True:
                    try:
                        held.append(listener.accept()[0])
                    except OSError:
                        return

            thread = threading.Thread(target=take, daemon=True)
            thread.start()
        yield int(listener.getsockname()[1])
        if silent:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
    for one in held:
        one.close()


def in_force(plane: ControlPlane, value: dict[str, Any], namespace: str) -> Any:
    """Wait until the configurations are in force: what asks is refused; return the refusal."""
    plane.wait("configurations", lambda: installed.post(plane, value, namespace).status != 201)
    return installed.post(plane, value, namespace)


@pytest.mark.parametrize("silent", [False, True], ids=["connection refused", "silence"])
def test_nothing_but_what_asks_is_held_up(
    control_plane: ControlPlane, api: Api, namespace: str, tmp_path: Path, silent: bool
) -> None:
    """Finalizers, labels, status and deletion of a pod that asks; plain pods; every template; and a clear refusal."""
    there = asking()
    there["metadata"] |= {"name": "there", "namespace": namespace, "finalizers": ["example.com/f"]}
    api.made(there)
    path = f"/api/v1/namespaces/{namespace}/pods/there"
    bundle = Certificates(tmp_path).bundle
    with nobody(silent=silent) as port, installed.registered(control_plane, port, bundle, SHIPPED):
        refused = in_force(control_plane, asking(), namespace)
        assert (refused.status, refused.body["reason"]) == (500, "InternalError")
        assert refused.message.startswith(
            'Internal error occurred: failed calling webhook "pods.noisegate.io": failed to call webhook: Post '
            f'"https://noisegate-webhook.noisegate-system.svc:{port}/mutate?timeout=5s": '
        )
        assert refused.message.endswith("context deadline exceeded" if silent else "connection refused")

        assert installed.post(control_plane, pod(), namespace).status == 201
        for kind in WORKLOADS:
            value = asking()
            value["metadata"]["labels"] = {"app": "a"}
            value["spec"]["restartPolicy"] = "Never" if kind in {"Job", "CronJob"} else "Always"
            selected = {} if kind in {"Job", "CronJob"} else {"selector": {"matchLabels": {"app": "a"}}}
            assert installed.post(control_plane, workload(kind, value, **selected), namespace).status == 201, kind
        assert api.patch(path, {"metadata": {"labels": {"a": "b"}}}).status == 200
        assert api.patch(f"{path}/status", {"status": {"phase": "Running"}}).status == 200
        assert api.delete(path).status == 200
        assert api.patch(path, {"metadata": {"finalizers": None}}).status == 200
        assert api.get(path).status == 404


def test_sriov_alone_passes_where_it_is_set_to_ignore(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    """As the overlay has it; asking for something else besides is still refused."""

    def ignore(configuration: dict[str, Any]) -> None:
        assert configuration["webhooks"][1]["name"] == "sriov.noisegate.io"
        configuration["webhooks"][1]["failurePolicy"] = "Ignore"

    bundle = Certificates(tmp_path).bundle
    with nobody(silent=False) as port, installed.registered(control_plane, port, bundle, SHIPPED, change=ignore):

        def ignored() -> bool:
            # The configurations of another test may still be in force: then both are refused, or neither.
            alone = installed.post(control_plane, pod({NETWORKS: "a"}), namespace)
            return (alone.status, installed.post(control_plane, asking(), namespace).status) == (201, 500)

        control_plane.wait("configurations", ignored)
        both = pod({NETWORKS: "a", "networkio.kubernetes.io/resources": "{}"})
        assert installed.post(control_plane, both, namespace).status == 500


def test_a_service_that_is_deleted_and_made_again(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """Until it is back, what asks is refused, and the message says what is not there; plain pods pass."""
    certificates = Certificates(tmp_path)
    path = f"/api/v1/namespaces/{installed.NAMESPACE}/services/noisegate-webhook"
    with (
        installed.counting(certificates) as (counter, serving),
        installed.registered(control_plane, serving.where.port, certificates.bundle, SHIPPED) as registered,
    ):
        installed.in_force(control_plane, counter, registered.write(SHIPPED), namespace)
        control_plane.api.delete(path)
        missing = 'service "noisegate-webhook" not found'
        control_plane.wait("loss", lambda: missing in installed.post(control_plane, asking(), namespace).message)
        assert installed.post(control_plane, pod(), namespace).status == 201
        installed.prepare(control_plane)
        control_plane.wait("return", lambda: installed.post(control_plane, asking(), namespace).status == 201)
        assert counter.taken()["mutate"] > 0


def test_a_job_of_asking_pods_completes(tmp_path: Path) -> None:
    """Its pods were made while a server was there; that it is gone keeps none of them from ending, and the Job from completing."""
    folder = tmp_path / "plane"
    folder.mkdir()
    with start(folder, controller_manager=True) as plane:
        certificates = Certificates(tmp_path / "pair")
        with (
            replicas.webhook(tmp_path, {"server": replicas.secured(certificates.folder)}) as program,
            installed.registered(plane, program.where["port"], certificates.bundle, SHIPPED),
        ):
            plane.wait("webhook", lambda: "env" in _first(installed.post(plane, asking(), "default").body))
            template = asking()
            template["spec"]["restartPolicy"] = "Never"
            job = workload("Job", template, completions=2, parallelism=2)
            job["metadata"]["namespace"] = "default"
            plane.api.made(job)
            pods = "/api/v1/namespaces/default/pods"
            plane.wait("pods", lambda: len(plane.api.get(pods).body["items"]) == 2)
            assert all("env" in _first(value) for value in plane.api.get(pods).body["items"])
            program.end()
            assert installed.post(plane, asking(), "default").status == 500
            for value in plane.api.get(pods).body["items"]:
                status = {"status": {"phase": "Succeeded"}}
                assert plane.api.patch(f"{pods}/{value['metadata']['name']}/status", status).status == 200
            plane.wait("completion", lambda: _complete(plane))
            assert plane.api.get(pods).body["items"][0]["metadata"].get("finalizers") is None


def _first(value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = value.get("spec", {}).get("containers", [{}])[0]
    return found


def _complete(plane: ControlPlane) -> bool:
    status = plane.api.get("/apis/batch/v1/namespaces/default/jobs/web").body["status"]
    return any(one["type"] == "Complete" and one["status"] == "True" for one in status.get("conditions", []))
