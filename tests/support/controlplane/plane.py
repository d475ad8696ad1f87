"""Starts and ends a control plane."""

import base64
import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import trustme
from binaries import RECIPES, find, upstream
from prometheus_client.parser import text_string_to_metric_families

from controlplane.api import Api

SECONDS: Final = 60.0
"""Until a start has failed; it takes 3 to 5 on a quiet machine."""
ADMIN: Final = "admin"
CRD: Final = Path(__file__).with_name("nad-crd.yaml")
_PR_SET_PDEATHSIG: Final = 1


class ControlPlane:
    """A control plane that runs.

    Attributes:
        folder: Its files: logs, keys, and what tests put there.
        url: Of the API server.
        port: Of the API server, on 127.0.0.1.
        ca_file: Authority of its serving certificate, PEM.
        version: Of Kubernetes, as `v1.37.2`.
        api: A client of a user that may do everything.
    """

    def __init__(self, folder: Path, port: int, users: Sequence[str]) -> None:
        self.folder: Final = folder
        self.port: Final = port
        self.url: Final = f"https://127.0.0.1:{port}"
        self.ca_file: Final = folder / "ca.crt"
        self.version: Final = _version()
        self.server: _Process
        self._trust: Final = ssl.create_default_context(cafile=str(self.ca_file))
        self._tokens: Final = {user: f"token-of-{user}" for user in users}
        self._clients: Final[list[Api]] = []
        self.api: Final = self.as_(ADMIN)

    def token(self, user: str) -> str:
        """Return the bearer token of a user that the control plane was started with."""
        return self._tokens[user]

    def as_(self, user: str) -> Api:
        """Return a client of a user."""
        return self.as_token(self._tokens[user])

    def as_token(self, token: str) -> Api:
        """Return a client of whoever has a token."""
        client = Api(self.port, self._trust, token)
        self._clients.append(client)
        return client

    def restart(self, between: Callable[[], None] = lambda: None) -> None:
        """Kill the API server, do something meanwhile, and start it again on the same port."""
        self.server.process.kill()
        self.server.process.wait()
        self.close()
        between()
        self.server = _Process(self.server.log, self.server.command)
        self.await_ready()

    def end(self) -> None:
        """End the API server."""
        self.server.end()

    def await_ready(self) -> None:
        """Wait until the API server is ready."""
        # Whoever has taken its port meanwhile may never say anything.
        probe = Api(self.port, self._trust, self._tokens[ADMIN], seconds=2.0)
        _await("the API server", self.server, lambda: _answers(probe, "/readyz"))
        probe.close()

    def close(self) -> None:
        """Close the connections of all clients."""
        for client in self._clients:
            client.close_all()

    def account(self, namespace: str, name: str) -> str:
        """Return a fresh token of a ServiceAccount."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        reply = self.api.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", body)
        assert reply.status == 201, reply
        return str(reply.body["status"]["token"])

    def account_folder(self, namespace: str, name: str) -> Path:
        """Return a folder such as pods of a ServiceAccount have it mounted: token, ca.crt, namespace."""
        folder = self.folder / "accounts" / namespace / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text(self.account(namespace, name))
        (folder / "ca.crt").write_bytes(self.ca_file.read_bytes())
        (folder / "namespace").write_text(namespace)
        return folder

    def kubeconfig(self, user: str = ADMIN, token: str = "") -> Path:
        """Return a kubeconfig of a user, or of whoever has a token."""
        path = self.folder / f"kubeconfig-{user}"
        value = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.ca_file)}}],
            "users": [{"name": user, "user": {"token": token or self._tokens[user]}}],
        }
        path.write_text(json.dumps(value))
        return path

    def kubectl(self, *args: str, input: str | None = None, user: str = ADMIN) -> "subprocess.CompletedProcess[str]":  # noqa: A002
        """Run the real kubectl."""
        command = [str(find("kubectl")), "--kubeconfig", str(self.kubeconfig(user)), *args]
        env = {**os.environ, "HOME": str(self.folder), "KUBECACHEDIR": str(self.folder / "kube-cache")}
        return subprocess.run(command, input=input, capture_output=True, text=True, check=False, env=env, timeout=120)

    def metric(self, name: str, /, **labels: str) -> float:
        """Return the sum of the samples of one of the API server's own metrics that bear these labels."""
        text = self.api.get("/metrics").message
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def wait(self, what: str, done: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until something is so."""
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
            time.sleep(0.02)


@contextlib.contextmanager
def start(
    folder: Path,
    *,
    users: Sequence[str] = (),
    flags: Sequence[str] = (),
    controller_manager: bool = False,
    networks: bool = True,
) -> Iterator[ControlPlane]:
    """Run a control plane.

    Args:
        folder: An empty one, for its files.
        users: Names of users without any right, besides `admin`.
        flags: Further flags of the API server; they win over ours.
        controller_manager: Whether Jobs, Deployments and service accounts are looked after.
        networks: Whether NetworkAttachmentDefinitions are served.

    Raises:
        UnavailableError: Its programs are not there.
    """
    names = (ADMIN, *users)
    given = ([] if controller_manager else ["--disable-admission-plugins=ServiceAccount"]) + list(flags)
    _write_keys(folder)
    rows = [f'token-of-{name},{name},{name},"{"system:masters" if name == ADMIN else "tests"}"' for name in names]
    (folder / "tokens.csv").write_text("\n".join(rows) + "\n")
    with contextlib.ExitStack() as ends:
        try:
            plane = _started(folder, names, given, ends)
        except _PortTakenError:
            # By somebody else, between our look for a free one and its use.
            ends.close()
            for name in ("etcd", "etcd.log", "kube-apiserver.log"):
                shutil.rmtree(folder / name, ignore_errors=True)
                (folder / name).unlink(missing_ok=True)
            plane = _started(folder, names, given, ends)
        # The API server makes the namespace itself, up to two seconds after it is ready.
        plane.wait("namespace default", lambda: _answers(plane.api, "/api/v1/namespaces/default"))
        if controller_manager:
            manager = [
                str(find("kube-controller-manager")),
                f"--kubeconfig={plane.kubeconfig()}",
                f"--service-account-private-key-file={folder / 'accounts.key'}",
                f"--root-ca-file={folder / 'ca.crt'}",
                "--leader-elect=false",
                "--secure-port=0",
            ]
            ends.enter_context(_running(folder / "kube-controller-manager.log", manager))
            plane.wait(
                "service account", lambda: _answers(plane.api, "/api/v1/namespaces/default/serviceaccounts/default")
            )
        if networks:
            plane.api.apply(CRD.read_text())
            served = "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"
            plane.wait("network-attachment-definitions", lambda: _answers(plane.api, served))
        try:
            yield plane
        finally:
            plane.close()


def _started(folder: Path, names: Sequence[str], flags: Sequence[str], ends: contextlib.ExitStack) -> ControlPlane:
    """Start etcd and the API server, and wait for both."""
    client, peer, port = _free_ports(3)
    urls = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    etcd = _Process(
        folder / "etcd.log",
        [
            str(find("etcd")),
            "--unsafe-no-fsync",
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={urls[0]}",
            f"--advertise-client-urls={urls[0]}",
            f"--listen-peer-urls={urls[1]}",
            f"--initial-advertise-peer-urls={urls[1]}",
            f"--initial-cluster=default={urls[1]}",
            "--log-level=warn",
        ],
    )
    ends.callback(etcd.end)
    _await("etcd", etcd, lambda: _is_healthy(client))
    command = [
        str(find("kube-apiserver")),
        f"--etcd-servers={urls[0]}",
        f"--secure-port={port}",
        "--bind-address=127.0.0.1",
        f"--cert-dir={folder}",
        f"--tls-cert-file={folder / 'apiserver.crt'}",
        f"--tls-private-key-file={folder / 'apiserver.key'}",
        "--service-account-issuer=https://noisegate.test",
        f"--service-account-key-file={folder / 'accounts.key'}",
        f"--service-account-signing-key-file={folder / 'accounts.key'}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--authorization-mode=RBAC",
        f"--token-auth-file={folder / 'tokens.csv'}",
        # Tests delete pods by thousands.
        "--delete-collection-workers=8",
    ]
    plane = ControlPlane(folder, port, names)
    plane.server = _Process(folder / "kube-apiserver.log", [*command, *flags])
    ends.callback(plane.end)
    plane.await_ready()
    return plane


class _PortTakenError(RuntimeError):
    """Somebody else listens where a program was to listen."""


def _await(what: str, process: "_Process", done: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not done():
        if process.process.poll() is not None or time.monotonic() > end:
            told = process.log.read_text(errors="replace")[-3000:]
            kind = _PortTakenError if "address already in use" in told else RuntimeError
            raise kind(f"{what} did not come up:\n{told}")
        time.sleep(0.05)


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False


def _version() -> str:
    """Return the release that is to run: the pinned one, or what the ready binaries say that they are."""
    if not os.environ.get(RECIPES["kubernetes"].ready):
        return upstream("kubernetes").version
    done = subprocess.run([str(find("kube-apiserver")), "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


def _answers(api: Api, path: str) -> bool:
    try:
        return api.get(path).status == 200
    except OSError:
        return False


class _Process:
    """A program of the control plane, with its log."""

    def __init__(self, log: Path, command: list[str]) -> None:
        self.command: Final = command
        self.log: Final = log
        with log.open("ab") as file:
            self.process: Final = subprocess.Popen(
                command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, preexec_fn=dies_with_us
            )

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def _running(log: Path, command: list[str]) -> Iterator[None]:
    process = _Process(log, command)
    try:
        yield
    finally:
        process.end()


def dies_with_us() -> None:
    """Prepare a child that never outlives this process."""
    # Of its own session, so that Ctrl-C in a terminal reaches us first; and killed by the kernel when we are (prctl(2)).
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _write_keys(folder: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1", "localhost", "10.0.0.1")
    (folder / "ca.crt").write_bytes(authority.cert_pem.bytes())
    (folder / "apiserver.crt").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    (folder / "apiserver.key").write_bytes(leaf.private_key_pem.bytes())
    (folder / "accounts.key").write_bytes(trustme.CA().private_key_pem.bytes())


def encoded(text: bytes) -> str:
    """Return bytes as they stand in a Secret or a caBundle."""
    return base64.b64encode(text).decode()
