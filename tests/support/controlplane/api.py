"""A client of an API server, for tests: one call, one answer; tried again only where a kept connection had gone meanwhile."""

import http.client
import json
import ssl
import threading
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import yaml

SECONDS: Final = 120.0
"""For an answer: thousands of objects may be deleted by one call."""
PLURALS: Final = {
    "NetworkAttachmentDefinition": "network-attachment-definitions",
    "Ingress": "ingresses",
    "NetworkPolicy": "networkpolicies",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "StorageClass": "storageclasses",
    "PriorityClass": "priorityclasses",
    "Endpoints": "endpoints",
}
CLUSTER_WIDE: Final = frozenset(
    {
        "Namespace", "Node", "PriorityClass", "PersistentVolume", "StorageClass", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition",
        "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
    }
)  # fmt: skip


class Reply(NamedTuple):
    """What the API server answered.

    Attributes:
        status: HTTP status.
        body: The object, or the Status.
        warnings: Texts of the `Warning` headers.
    """

    status: int
    body: dict[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """What a Status says."""
        return str(self.body.get("message", ""))


class Api:
    """Calls one API server as one user. Each thread has a connection of its own, kept open.

    Args:
        port: On loopback.
        trust: What the client trusts.
        token: Who it is.
        seconds: For an answer.
    """

    def __init__(self, port: int, trust: ssl.SSLContext, token: str, seconds: float = SECONDS) -> None:
        self._seconds: Final = seconds
        self._port: Final = port
        self._trust: Final = trust
        self._token: Final = token
        self._mine: Final = threading.local()
        self._opened: Final[list[http.client.HTTPSConnection]] = []
        self._era = 0

    def call(
        self, method: str, path: str, body: object = None, content_type: str = "application/json", **params: str
    ) -> Reply:
        """Send a call and read its answer; whatever its status."""
        given = f"{path}?{urlencode(params)}" if params else path
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content_type, "Accept": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        for attempt in (1, 2):
            connection = self._connection()
            try:
                connection.request(method, given, data, headers)
                answer = connection.getresponse()
                text = answer.read()
                break
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
                # The server closed an idle connection, after three minutes; a call on a fresh one is a failure of its own.
                fresh = getattr(self._mine, "fresh", False)
                self.close()
                if attempt == 2 or fresh:
                    raise
        self._mine.fresh = False
        warnings = tuple(
            line.split(" ", 2)[2].strip('"').encode("latin-1").decode().replace('\\"', '"')
            for line in answer.headers.get_all("Warning") or ()
        )
        is_json = "json" in (answer.headers.get("Content-Type") or "")
        value = json.loads(text) if is_json else {"message": text.decode()}
        return Reply(answer.status, value, warnings)

    def _connection(self) -> http.client.HTTPSConnection:
        connection: http.client.HTTPSConnection | None = getattr(self._mine, "connection", None)
        if connection is None or self._mine.era != self._era:
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self._port, context=self._trust, timeout=self._seconds
            )
            connection.connect()
            self._opened.append(connection)
            self._mine.connection = connection
            self._mine.era = self._era
            self._mine.fresh = True
        return connection

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._mine, "connection", None)
        if connection is not None:
            connection.close()
            if connection in self._opened:
                self._opened.remove(connection)
            self._mine.connection = None

    def close_all(self) -> None:
        """Close the connections of all threads."""
        for connection in self._opened:
            connection.close()
        self._opened.clear()
        self._era += 1

    def get(self, path: str, **params: str) -> Reply:
        """GET a path."""
        return self.call("GET", path, **params)

    def delete(self, path: str, **params: str) -> Reply:
        """DELETE a path, without grace."""
        return self.call("DELETE", path, {"gracePeriodSeconds": 0}, **params)

    def patch(
        self, path: str, body: object, content_type: str = "application/merge-patch+json", **params: str
    ) -> Reply:
        """PATCH a path."""
        return self.call("PATCH", path, body, content_type, **params)

    def put(self, value: Mapping[str, Any], **params: str) -> Reply:
        """Replace an object."""
        return self.call("PUT", f"{path_of(value)}/{value['metadata']['name']}", value, **params)

    def create(self, value: Mapping[str, Any], *, dry_run: bool = False) -> Reply:
        """Create an object."""
        params = {"dryRun": "All"} if dry_run else {}
        return self.call("POST", path_of(value), value, **params)

    def made(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object, or replace the one of its name; return it.

        Raises:
            AssertionError: The API server refuses it.
        """
        reply = self.create(value)
        if reply.status == 409:
            there = self.get(f"{path_of(value)}/{value['metadata']['name']}").body
            version = there["metadata"]["resourceVersion"]
            reply = self.put({**value, "metadata": {**value["metadata"], "resourceVersion": version}})
        assert reply.status in {200, 201}, reply
        return reply.body

    def apply(self, text: str) -> list[dict[str, Any]]:
        """Create or replace every object of a YAML text."""
        return [self.made(value) for value in yaml.safe_load_all(text) if value]


def path_of(value: Mapping[str, Any]) -> str:
    """Return the path of an object's kind in its namespace."""
    api_version, kind = str(value["apiVersion"]), str(value["kind"])
    base = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    plural = PLURALS.get(kind, kind.lower() + "s")
    if kind in CLUSTER_WIDE:
        return f"{base}/{plural}"
    namespace = quote(value["metadata"].get("namespace", "default"))
    return f"{base}/namespaces/{namespace}/{plural}"
