"""Other mutating webhooks beside ours, before it and after it."""

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import installed
import pytest
import replicas
from builders import container, cores, pod
from controlplane import ControlPlane
from controlplane.plane import encoded
from installed import Certificates

from noisegate.webhook import rules
from noisegate.webhook.world import shipped_rules

pytestmark = pytest.mark.apiserver

SHIPPED: Final = rules.load(Path(shipped_rules()).read_bytes(), "mutations.yaml")
Json = dict[str, Any]
Change = Callable[[Json], list[Json]]
"""Takes a pod, returns the operations of a patch."""


@contextmanager
def another(plane: ControlPlane, certificates: Certificates, name: str, change: Change) -> Iterator[None]:
    """Run a mutating webhook of somebody else's."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
            patch = base64.b64encode(json.dumps(change(request["object"])).encode()).decode()
            response = {"uid": request["uid"], "allowed": True, "patchType": "JSONPatch", "patch": patch}
            review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
            body = json.dumps(review).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.folder / "cert.pem", certificates.folder / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    webhook = {
        "name": "another.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "rules": [rule],
        "matchConditions": [{"name": "marked", "expression": 'object.metadata.?labels[?"another"].hasValue()'}],
        "clientConfig": {
            "url": f"https://localhost:{server.server_address[1]}/",
            "caBundle": encoded(certificates.bundle),
        },
    }
    api_version, kind = "admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"
    plane.api.made({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "webhooks": [webhook]})
    try:
        yield
    finally:
        plane.api.delete(f"/apis/{api_version}/mutatingwebhookconfigurations/{name}")
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(name="ours")
def _ours(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Certificates]:
    certificates = Certificates(tmp_path / "pair")
    with (
        replicas.webhook(tmp_path, {"server": replicas.secured(certificates.folder)}) as program,
        installed.registered(control_plane, program.where["port"], certificates.bundle, SHIPPED),
    ):
        asking = pod(containers=[container(resources=cores(1))])
        control_plane.wait(
            "ours", lambda: "env" in _containers(installed.post(control_plane, asking, "default").body)[0]
        )
        yield certificates


def _containers(value: Json) -> list[Json]:
    found: list[Json] = value.get("spec", {}).get("containers", [{}])
    return found


def marked(number: int = 2) -> Json:
    """Return a pod that asks for cores, and that the other webhook takes."""
    return pod(labels={"another": "yes"}, containers=[container(resources=cores(number))])


def asked(plane: ControlPlane, namespace: str, changed: Callable[[Any], bool]) -> Any:
    """Create a pod that the other webhook takes, once it does."""
    plane.wait("the other", lambda: changed(installed.post(plane, marked(), namespace)))
    return installed.post(plane, marked(), namespace)


BEFORE_AND_AFTER: Final = pytest.mark.parametrize(
    "name", ["aaa.example.com", "zzz.example.com"], ids=["before", "after"]
)


@BEFORE_AND_AFTER
def test_a_container_that_another_adds_is_made_ready(
    control_plane: ControlPlane, ours: Certificates, namespace: str, name: str
) -> None:
    """Whoever comes first: we are asked again when somebody changed the pod after us."""

    def add(value: Json) -> list[Json]:
        if len(_containers(value)) > 1:
            return []
        sidecar = container("sidecar", resources=cores(3))
        return [{"op": "add", "path": "/spec/containers/-", "value": sidecar}]

    with another(control_plane, ours, name, add):
        made = asked(control_plane, namespace, lambda reply: len(_containers(reply.body)) == 2)
    assert made.status == 201
    assert [one["env"] for one in _containers(made.body)] == [
        [{"name": "CMK_NUM_CORES", "value": "2"}],
        [{"name": "CMK_NUM_CORES", "value": "3"}],
    ]


@BEFORE_AND_AFTER
def test_what_another_takes_away_is_put_back_or_missed(
    control_plane: ControlPlane, ours: Certificates, namespace: str, name: str
) -> None:
    """Before us it takes away nothing; after us it is put back by reinvocation, or the pod is refused with the reason."""

    def strip(value: Json) -> list[Json]:
        operations = [{"op": "remove", "path": "/spec/containers/0/env"}] if "env" in _containers(value)[0] else []
        return [*operations, {"op": "add", "path": "/metadata/labels/stripped", "value": "yes"}]

    def seen(reply: Any) -> bool:
        return reply.status != 201 or "stripped" in reply.body["metadata"]["labels"]

    with another(control_plane, ours, name, strip):
        made = asked(control_plane, namespace, seen)
    assert made.status == 201, made
    assert _containers(made.body)[0]["env"] == [{"name": "CMK_NUM_CORES", "value": "2"}]


def test_what_another_takes_away_each_time_is_refused(
    control_plane: ControlPlane, ours: Certificates, namespace: str
) -> None:
    """One that is asked again too, and takes it away again, has the last word over the pod, and we over its admission."""
    name = "zzz.example.com"

    def strip(value: Json) -> list[Json]:
        return [{"op": "remove", "path": "/spec/containers/0/env"}] if "env" in _containers(value)[0] else []

    with another(control_plane, ours, name, strip):
        path = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}"
        again = [{"op": "replace", "path": "/webhooks/0/reinvocationPolicy", "value": "IfNeeded"}]
        assert control_plane.api.patch(path, again, "application/json-patch+json").status == 200
        refused = asked(control_plane, namespace, lambda reply: reply.status == 422)
    assert refused.body["reason"] == "Invalid"
    assert "NG603" in refused.message
    assert "CMK_NUM_CORES" in refused.message
    assert "reinvocationPolicy: IfNeeded" in refused.message


@BEFORE_AND_AFTER
def test_what_another_asks_for_is_judged(
    control_plane: ControlPlane, ours: Certificates, namespace: str, name: str
) -> None:
    """An annotation of ours that another webhook writes is read as the pod's own."""

    def ask(value: Json) -> list[Json]:
        annotations = {**value["metadata"].get("annotations", {}), "networkio.kubernetes.io/resources": "50MB"}
        return [{"op": "add", "path": "/metadata/annotations", "value": annotations}]

    with another(control_plane, ours, name, ask):
        refused = asked(control_plane, namespace, lambda reply: reply.status == 422)
    assert refused.body["details"]["causes"][0]["field"] == "metadata.annotations[networkio.kubernetes.io/resources]"
