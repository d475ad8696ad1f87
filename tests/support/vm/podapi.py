"""Says to an enforcer in a machine what an API server says of its node's pods.

A stand-in: what counts here is what a node does when a pod changes, and a real API server and its etcd would take half of the
processor from the emulated machine. The enforcer's watch at a real one is in tests/apiserver, both together in tests/wholecluster.
"""

import itertools
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

import trustme
from containerd import Pod

from vm.node import Node

HOST: Final = "10.0.2.2"
"""The host's loopback, as the machine sees it."""
ACCOUNT: Final = "/etc/noisegate/account"
PODS: Final = "/api/v1/pods"
BOOKMARK_SECONDS: Final = 60.0
"""As an API server: whoever watches takes a longer silence for the end."""


class PodApi:
    """The pods of one node: a list, and a watch of what changes. Events are taken; what else is asked for is not found.

    Attributes:
        url: Of the server, as the machine sees it.
    """

    def __init__(self) -> None:
        self._pods: Final[dict[str, dict[str, Any]]] = {}
        self._events: Final[list[dict[str, Any]]] = []
        self._changed: Final = threading.Condition()
        self._ended = False
        self._authority: Final = trustme.CA()
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                where = urlsplit(self.path)
                asked = parse_qs(where.query)
                self.send_response(200 if where.path == PODS else 404)
                self.end_headers()
                if where.path != PODS:
                    self.wfile.write(b'{"message": "there are only pods", "code": 404}')
                elif "watch" in asked:
                    with suppress(OSError):
                        for event in api.events(int(asked["resourceVersion"][0])):
                            self.wfile.write(json.dumps(event).encode() + b"\n")
                else:
                    self.wfile.write(json.dumps(api.listed()).encode())

            def do_POST(self) -> None:
                """An Event is taken, and forgotten."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(201)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server: Final = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(HOST).configure_cert(context)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url: Final = f"https://{HOST}:{self._server.server_address[1]}"
        self._thread: Final = threading.Thread(target=self._server.serve_forever, name="pod-api", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def settings(self, node: Node) -> dict[str, Any]:
        """Put what a ServiceAccount has into a node; return what node.yaml says of it."""
        node.run("mkdir", "-p", ACCOUNT)
        node.write(f"{ACCOUNT}/token", "token")
        node.write(f"{ACCOUNT}/ca.crt", self._authority.cert_pem.bytes().decode())
        return {"cluster": {"apiServer": self.url, "account": ACCOUNT}}

    def say(self, pod: Pod, annotations: Mapping[str, str]) -> None:
        """Have a pod ask for this now."""
        metadata = {
            "name": pod.config.metadata.name,
            "namespace": "default",
            "uid": pod.uid,
            "annotations": dict(annotations),
        }
        self._tell("MODIFIED" if pod.uid in self._pods else "ADDED", {"metadata": metadata, "spec": {"containers": []}})

    def forget(self, pod: Pod) -> None:
        """Have a pod be deleted, if it is there."""
        if pod.uid in self._pods:
            self._tell("DELETED", self._pods[pod.uid])

    def listed(self) -> dict[str, Any]:
        """Return the list of pods."""
        with self._changed:
            return {"metadata": {"resourceVersion": str(len(self._events))}, "items": list(self._pods.values())}

    def events(self, since: int) -> Iterator[dict[str, Any]]:
        """Yield what has changed since a version, and what changes, to the end."""
        for number in itertools.count(since):
            with self._changed:
                while len(self._events) <= number and not self._ended:
                    if not self._changed.wait(BOOKMARK_SECONDS):
                        yield {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(number)}}}
                if self._ended:
                    return
                event = self._events[number]
            yield event

    def _tell(self, kind: str, pod: dict[str, Any]) -> None:
        with self._changed:
            metadata = {**pod["metadata"], "resourceVersion": str(len(self._events) + 1)}
            pod = {**pod, "metadata": metadata}
            if kind == "DELETED":
                del self._pods[metadata["uid"]]
            else:
                self._pods[metadata["uid"]] = pod
            self._events.append({"type": kind, "object": pod})
            self._changed.notify_all()


@contextmanager
def served() -> Iterator[PodApi]:
    """Give one that answers."""
    with PodApi() as api:
        yield api
