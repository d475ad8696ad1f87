"""The control plane that the other tests stand on is what it says."""

import socket
from pathlib import Path

import pytest
from controlplane import Api, ControlPlane, Mounted, plane, start
from controlplane.plane import encoded

pytestmark = pytest.mark.apiserver

POD = """
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec: {containers: [{name: app, image: pause}]}
"""


def test_it_is_the_release_that_was_asked_for(api: Api, control_plane: ControlPlane) -> None:
    """The API server is of the pinned version, or that of the binaries that were given."""
    assert api.get("/version").body["gitVersion"] == control_plane.version


def test_kubectl_creates_a_pod(control_plane: ControlPlane, namespace: str) -> None:
    """The real kubectl of the same release works."""
    done = control_plane.kubectl("apply", "-n", namespace, "-f", "-", input=POD)
    assert (done.returncode, done.stdout, done.stderr) == (0, "pod/plain created\n", "")


def test_rights_are_needed(control_plane: ControlPlane, namespace: str) -> None:
    """A user without rights is refused."""
    reply = control_plane.as_("somebody").get(f"/api/v1/namespaces/{namespace}/pods")
    assert reply.status == 403
    assert reply.message == (
        f'pods is forbidden: User "somebody" cannot list resource "pods" in API group "" in the namespace "{namespace}"'
    )


def test_service_accounts_have_tokens(control_plane: ControlPlane, namespace: str) -> None:
    """A ServiceAccount's token is who it says it is."""
    control_plane.api.made(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a", "namespace": namespace}}
    )
    folder = control_plane.account_folder(namespace, "a")
    reply = control_plane.as_token((folder / "token").read_text()).get("/api/v1/nodes")
    assert reply.status == 403
    assert f'User "system:serviceaccount:{namespace}:a"' in reply.message


def test_a_mount_swings(api: Api, namespace: str, tmp_path: Path, control_plane: ControlPlane) -> None:
    """A mounted Secret's files follow the Secret, and stay when it is deleted."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": namespace},
        "data": {"one": encoded(b"1"), "two": encoded(b"2")},
    }
    with Mounted(api, "Secret", namespace, "s", tmp_path / "mount") as mounted:
        api.made(secret)
        mounted.wait()
        assert (mounted.folder / "two").read_bytes() == b"2"
        api.made({**secret, "data": {"one": encoded(b"11"), "two": encoded(b"22")}})
        control_plane.wait("swing", lambda: (mounted.folder / "one").read_bytes() == b"11")
        assert (mounted.folder / "two").read_bytes() == b"22"
        api.delete(f"/api/v1/namespaces/{namespace}/secrets/s")
        assert (mounted.folder / "two").read_bytes() == b"22"


def test_its_own_metrics_are_read(control_plane: ControlPlane) -> None:
    """Numbers of the API server can be looked up."""
    assert control_plane.metric("apiserver_request_total", verb="GET") > 0


@pytest.mark.parametrize("place", [0, 2], ids=["etcd", "API server"])
def test_a_port_that_somebody_took_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    """Between the look for a free port and its use lies time: it is tried once more with others."""
    free = plane._free_ports
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        chosen = free(3)
        chosen[place] = taken.getsockname()[1]
        answers = [chosen]
        monkeypatch.setattr(plane, "_free_ports", lambda count: answers.pop() if answers else free(count))
        with start(tmp_path, networks=False) as started:
            assert started.api.get("/readyz").status == 200
            assert started.port != chosen[2]
    assert answers == []
