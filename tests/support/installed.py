"""noisegate's webhook configurations in a real API server, leading to a server of the test's own on loopback.

The Service is an ExternalName: the API server then dials localhost at the Service's port, under the Service's own name
in TLS, so that the configurations are the deployed ones but for that port.
"""

import contextlib
import copy
import itertools
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import trustme
from builders import pod
from controlplane import ControlPlane
from controlplane.plane import encoded
from serving import Serving, World, allow, trusting, write_pair

from noisegate.webhook import registration
from noisegate.webhook.registration import Service
from noisegate.webhook.review import Answer
from noisegate.webhook.rules import NO_RULES, Rules
from noisegate.webhook.serverconfig import ServerConfig

NAMESPACE: Final = "noisegate-system"
NAME: Final = "noisegate-webhook.noisegate-system.svc"
EPOCH: Final = "noisegate.test/epoch"
"""Label of a pod by which a test learns that a configuration is in force."""
_epochs: Final = itertools.count(1)


class Counting:
    """A server that allows everything and notes what came."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self._lock = threading.Lock()

    def decide(self, endpoint: str, body: bytes) -> Answer:
        """Note a call, and allow it."""
        request = msgspec.json.decode(body)["request"]
        with self._lock:
            self.calls[endpoint] += 1
            self.seen.append((endpoint, request))
        return allow(endpoint, body)

    def taken(self) -> Counter[str]:
        """Return how many calls came to each endpoint since the last time."""
        with self._lock:
            calls, self.calls = self.calls, Counter()
            self.seen.clear()
        return calls


class Certificates:
    """A serving certificate for the Service's name.

    Attributes:
        authority: Who signed it.
        folder: Where cert.pem and key.pem are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        self.authority: Final = trustme.CA(key_type=trustme.KeyType.ECDSA)
        pair = self.authority.issue_cert(NAME, "localhost", "127.0.0.1", key_type=trustme.KeyType.ECDSA)
        folder.mkdir(parents=True, exist_ok=True)
        write_pair(folder, pair)

    @property
    def bundle(self) -> bytes:
        """The authority, PEM."""
        return self.authority.cert_pem.bytes()

    def trust(self) -> ssl.SSLContext:
        """Return a client that trusts it."""
        return trusting(self.authority)


@contextlib.contextmanager
def counting(certificates: Certificates) -> Iterator[tuple[Counting, Serving]]:
    """Run a counting server."""
    counter = Counting()
    config = ServerConfig(
        binding_address="127.0.0.1",
        health_address="127.0.0.1",
        port=0,
        health_port=0,
        cert=str(certificates.folder / "cert.pem"),
        key=str(certificates.folder / "key.pem"),
        shutdown_delay=0.0,
    )
    with Serving(config, World(decide=counter.decide), certificates.trust()) as serving:
        yield counter, serving


def prepare(plane: ControlPlane) -> None:
    """Make our namespace, and the Service that leads to loopback."""
    plane.api.made({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    plane.api.made(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "noisegate-webhook", "namespace": NAMESPACE},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        }
    )


@contextlib.contextmanager
def registered(
    plane: ControlPlane,
    port: int,
    bundle: bytes,
    rules: Rules = NO_RULES,
    *,
    change: Callable[[dict[str, Any]], None] = lambda _configuration: None,
) -> Iterator["Registration"]:
    """Have both configurations in the API server, in force.

    Args:
        plane: Where.
        port: Of the server, on loopback.
        bundle: `caBundle`.
        rules: What the conditions are made from.
        change: Changes a configuration before it is written.
    """
    prepare(plane)
    registration_ = Registration(plane, port, bundle, change)
    try:
        registration_.write(rules)
        yield registration_
    finally:
        for path in PATHS:
            plane.api.delete(path)


PATHS: Final = tuple(
    f"/apis/admissionregistration.k8s.io/v1/{kind}/noisegate"
    for kind in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
)


class Registration:
    """Both configurations, as they are written and written again."""

    def __init__(self, plane: ControlPlane, port: int, bundle: bytes, change: Callable[[dict[str, Any]], None]) -> None:
        self.plane: Final = plane
        self.port = port
        self.bundle = bundle
        self._change: Final = change

    def write(self, rules: Rules = NO_RULES, marks: Sequence[str] = ()) -> str:
        """Write both; return the epoch under which they are recognised: a label that makes a pod be sent."""
        epoch = f"e{next(_epochs)}"
        sent = f'object.?metadata.?labels[?"{EPOCH}"] == optional.of("{epoch}")'
        for value in registration.configurations(rules, Service(port=self.port)):
            for webhook in value["webhooks"]:
                webhook["clientConfig"]["caBundle"] = encoded(self.bundle)
                if webhook["name"].startswith("pods."):
                    for condition in webhook["matchConditions"]:
                        if condition["name"] == "asks":
                            condition["expression"] = " ||\n".join([sent, *marks, condition["expression"]])
            self._change(value)
            self.plane.api.made(value)
        return epoch


def marked(epoch: str) -> dict[str, Any]:
    """Return a plain pod that is sent while an epoch lasts."""
    return pod(labels={EPOCH: epoch})


def in_force(plane: ControlPlane, counter: Counting, epoch: str, namespace: str = "default") -> None:
    """Wait until the API server evaluates the conditions of an epoch, in both configurations."""
    counter.taken()
    calls: Counter[str] = Counter()

    def reached() -> bool:
        calls.update(post(plane, marked(epoch), namespace) and counter.taken())
        return calls["mutate"] > 0 and calls["validate"] > 0

    plane.wait("configurations", reached)


def post(plane: ControlPlane, value: dict[str, Any], namespace: str) -> Any:
    """Create an object by dry run in a namespace."""
    value = copy.deepcopy(value)
    value["metadata"]["namespace"] = namespace
    return plane.api.create(value, dry_run=True)
