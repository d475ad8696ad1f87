"""Two replicas behind a balancer, under load, while everything about them changes: no creation fails."""

import base64
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import installed
import pytest
from balancer import Balancer
from builders import container, cores, pod
from controlplane import Api, ControlPlane, Mounted
from cryptography.x509 import Certificate, load_pem_x509_certificates
from installed import NAMESPACE, PATHS
from replicas import Program, webhook

from noisegate.webhook import registration, rules
from noisegate.webhook.world import shipped_rules

pytestmark = pytest.mark.apiserver

CLIENTS: Final = 8
CREATIONS: Final = 3000
BASE: Final = Path(__file__).parents[2] / "deploy" / "base"
SECRETS: Final = f"/api/v1/namespaces/{NAMESPACE}/secrets"
SHIPPED: Final = Path(shipped_rules()).read_text()
ASKING: Final = (
    pod(containers=[container(resources=cores(2))]),
    pod({"networkio.kubernetes.io/resources": '{"limits": {"egress": "50M"}}'}),
)


class Failure(NamedTuple):
    """A creation that failed: whose, when it began, and what the API server said."""

    client: int
    at: float
    told: str


class Load:
    """Clients on long-lived connections that create pods, half of them asking, for as long as something happens.

    Each creates one after the other, as fast as it is answered: on a quiet machine some hundred a second together.
    """

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane: Final = plane
        self.namespace: Final = namespace
        self.created = 0
        self.seconds = 0.0
        self.failures: Final[list[Failure]] = []
        self._lock: Final = threading.Lock()
        self._ended: Final = threading.Event()

    def during(self, action: Callable[[], None]) -> None:
        """Do something in the middle of at least `CREATIONS` creations."""
        threads = [threading.Thread(target=self._create, args=(number,)) for number in range(CLIENTS)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        try:
            self.plane.wait("load", lambda: self.created > CREATIONS / 10, 60)
            action()
            self.plane.wait("creations", lambda: self.created >= CREATIONS, 300)
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()
        self.seconds = time.monotonic() - began
        print(f"{self.created} creations, {self.created / self.seconds:.0f} a second, {len(self.failures)} failed")
        assert self.created >= CREATIONS

    def _create(self, number: int) -> None:
        api: Api = self.plane.as_("admin")
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        turn = number
        while not self._ended.is_set():
            turn += 1
            value = ASKING[turn // 2 % 2] if turn % 2 else pod()
            metadata = {**value["metadata"], "name": f"p{number}-{turn}"}
            began = time.monotonic()
            reply = api.call("POST", path, {**value, "metadata": metadata})
            wrong = "" if reply.status == 201 and _is_right(value, reply.body) else json.dumps(reply.body)[:600]
            with self._lock:
                self.created += 1
                if wrong:
                    self.failures.append(Failure(number, began, wrong))
        api.close()


def _is_right(sent: dict[str, Any], made: dict[str, Any]) -> bool:
    """Tell whether a pod that asks for cores was told their number."""
    asks = "resources" in sent["spec"]["containers"][0]
    return not asks or {"name": "CMK_NUM_CORES", "value": "2"} in made["spec"]["containers"][0].get("env", [])


class Lab:
    """Two replicas with mounted Secret and ConfigMap, a controller, a balancer, and our configurations."""

    def __init__(self, plane: ControlPlane, folder: Path, ends: ExitStack, balancer: Balancer) -> None:
        self.plane: Final = plane
        self.folder: Final = folder
        self.ends: Final = ends
        self.balancer: Final = balancer
        self.replicas: Final[dict[int, Program]] = {}
        self.starts = 0
        self.mounts: Final = [
            (self._mount("Secret", "noisegate-tls", number), self._mount("ConfigMap", "noisegate-config", number))
            for number in (0, 1)
        ]

    def _mount(self, kind: str, name: str, number: int) -> Mounted:
        folder = self.folder / f"{name}-{number}"
        return self.ends.enter_context(Mounted(self.plane.api, kind, NAMESPACE, name, folder, delay=0.3 * number))

    def start(self, number: int) -> None:
        """Start a replica, and let it into the balancer and the endpoints."""
        tls, config = self.mounts[number]
        tls.wait()
        config.wait()
        self.starts += 1
        server = {
            "cert": str(tls.folder / "tls.crt"),
            "key": str(tls.folder / "tls.key"),
            "mutations": str(config.folder / "mutations.yaml"),
        }
        program = self.ends.enter_context(webhook(self.folder, {"server": server}, f"replica-{self.starts}"))
        self.replicas[number] = program
        self.balancer.add(program.where["port"], lambda: program.get("/readyz")[0] == 200)
        self.plane.api.made(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"failover-{number}",
                    "namespace": NAMESPACE,
                    "labels": {"kubernetes.io/service-name": "noisegate-webhook"},
                },
                "addressType": "FQDN",
                "endpoints": [{"addresses": ["replica.test"]}],
                "ports": [{"port": program.where["port"]}],
            }
        )
        program.ready()

    def leave(self, number: int) -> None:
        """End a replica as a kubelet does, and take it out of everything."""
        program = self.replicas.pop(number)
        program.ask()
        assert program.process.wait(40) == 0
        self.balancer.remove(program.where["port"])

    def ask_to_renew(self, what: str, event: str) -> None:
        """Have a certificate renewed, and wait until that is told."""
        annotation = {"metadata": {"annotations": {"noisegate.io/renew": what}}}
        before = len(self.events(event))
        assert self.plane.api.patch(f"{SECRETS}/noisegate-ca", annotation).status == 200
        self.plane.wait(event, lambda: len(self.events(event)) > before, 60)

    def events(self, reason: str) -> list[dict[str, Any]]:
        """Return the Events of a reason."""
        listed = self.plane.api.get(f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events").body["items"]
        return [event for event in listed if event["reason"] == reason]

    def put_rules(self, text: str) -> None:
        """Write the ConfigMap."""
        metadata = {"name": "noisegate-config", "namespace": NAMESPACE}
        data = {"mutations.yaml": text}
        self.plane.api.made({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


@pytest.fixture(name="lab", scope="module")
def _lab(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("failover")
    api = control_plane.api
    installed.prepare(control_plane)
    api.made(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "noisegate-controller", "namespace": NAMESPACE},
        }
    )
    for file in ("controller-rbac.yaml", "controller-certificates-rbac.yaml"):
        api.apply((BASE / file).read_text())
    with ExitStack() as ends:
        balancer = ends.enter_context(Balancer())
        lab = Lab(control_plane, folder, ends, balancer)
        lab.put_rules(SHIPPED)
        for value in registration.configurations(rules.load(SHIPPED, "m"), registration.Service(port=balancer.port)):
            api.made(value)
        ends.callback(_clean, api)
        hosts = folder / "hosts"
        hosts.write_text("127.0.0.1 localhost replica.test\n")
        kubeconfig = control_plane.kubeconfig("failover", control_plane.account(NAMESPACE, "noisegate-controller"))
        flags = [
            "--kubeconfig",
            str(kubeconfig),
            "--health-address",
            "127.0.0.1",
            "--health-port",
            "0",
            "--log-format",
            "json",
        ]
        quick = ["--look-every", "0.2", "--settle", "1", "--narrow-after", "3", "--lease", "60"]
        ends.enter_context(Program(["controller", *flags, *quick], folder / "controller.log", "working", hosts))
        for number in (0, 1):
            lab.start(number)
        asking = {**ASKING[0], "metadata": {"name": "asking", "namespace": "default"}}
        control_plane.wait(
            "webhooks",
            lambda: "env" in api.create(asking, dry_run=True).body.get("spec", {}).get("containers", [{}])[0],
        )
        yield lab


def _clean(api: Api) -> None:
    for path in (*PATHS, f"{SECRETS}/noisegate-ca", f"{SECRETS}/noisegate-tls"):
        api.delete(path)
    api.delete(f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices")
    api.delete(f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events")
    api.delete(f"/api/v1/namespaces/{NAMESPACE}/configmaps/noisegate-config")


@pytest.fixture(name="load")
def _load(lab: Lab, namespace: str) -> Load:
    return Load(lab.plane, namespace)


def test_the_certificate_is_renewed(lab: Lab, load: Load) -> None:
    """No creation fails, and both replicas serve the new one."""
    before = load_pem_x509_certificates(_serving(lab))[0]

    def renew() -> None:
        awaited = reloads(lab, "certificate", "reloaded")
        lab.ask_to_renew("leaf", "CertificateRenewed")
        awaited()

    load.during(renew)
    assert load.failures == []
    renewed = load_pem_x509_certificates(_serving(lab))[0]
    assert renewed != before
    for program in lab.replicas.values():
        assert served(program) == renewed


def test_the_authority_changes(lab: Lab, load: Load) -> None:
    """Wider, switched, narrower, and no creation fails."""
    before = load_pem_x509_certificates(_authority(lab))[0]

    def change() -> None:
        lab.ask_to_renew("ca", "AuthorityChangeFinished")
        lab.plane.wait("narrower", lambda: len(load_pem_x509_certificates(_authority(lab))) == 1)

    load.during(change)
    assert load.failures == []
    assert load_pem_x509_certificates(_authority(lab))[0] != before


def reloads(lab: Lab, what: str, result: str) -> Callable[[], None]:
    """Return what waits until each replica has told of one reload more than now."""
    before = [(program, len(program.told("reload", what=what, result=result))) for program in lab.replicas.values()]

    def wait() -> None:
        for program, count in before:
            program.wait_for("reload", count + 1, what=what, result=result)

    return wait


def served(program: Program) -> Certificate:
    """Return the certificate that a replica serves to a new connection."""
    text = ssl.get_server_certificate(("127.0.0.1", program.where["port"]))
    return load_pem_x509_certificates(text.encode())[0]


def _serving(lab: Lab) -> bytes:
    return base64.b64decode(lab.plane.api.get(f"{SECRETS}/noisegate-tls").body["data"]["tls.crt"])


def _authority(lab: Lab) -> bytes:
    webhook_ = lab.plane.api.get(PATHS[0]).body["webhooks"][0]
    return base64.b64decode(webhook_["clientConfig"]["caBundle"])


def test_rules_change(lab: Lab, load: Load) -> None:
    """A rule comes, is changed and goes; a bad file in between changes nothing; no creation fails."""
    gold = "  - {name: gold, when: {labels: {tier: gold}}, perPod: {metadata: {annotations: {tier: TIER}}}}\n"

    def change() -> None:
        for text, result in (
            (SHIPPED + gold.replace("TIER", "one"), "reloaded"),
            (SHIPPED + gold.replace("TIER", "two"), "reloaded"),
            ("rules: [{}]", "refused"),
            (SHIPPED, "reloaded"),
        ):
            awaited = reloads(lab, "mutations", result)
            lab.put_rules(text)
            awaited()

    load.during(change)
    assert load.failures == []


def test_replicas_are_replaced_one_after_the_other(lab: Lab, load: Load) -> None:
    """As a rolling update does it: the new one first, then SIGTERM to the old one."""

    def roll() -> None:
        for number in (0, 1):
            old = lab.replicas.pop(number)
            lab.start(number)
            lab.replicas[number + 2] = lab.replicas[number]
            lab.replicas[number] = old
            lab.leave(number)
            lab.replicas[number] = lab.replicas.pop(number + 2)

    load.during(roll)
    assert load.failures == []


def test_a_replica_is_killed(lab: Lab, load: Load) -> None:
    """At most its calls in flight fail, and none after the balancer has dropped it."""
    killed: list[float] = []

    def kill() -> None:
        program = lab.replicas.pop(0)
        program.process.kill()
        program.process.wait()
        killed.append(time.monotonic())
        port = program.where["port"]
        lab.plane.wait("drop", lambda: not lab.balancer._ready.get(port, False))
        killed.append(time.monotonic())
        lab.balancer.remove(port)

    load.during(kill)
    # A creation calls twice, one after the other: each client has at most one call in flight when the replica dies.
    assert max(Counter(failure.client for failure in load.failures).values(), default=0) <= 1, load.failures
    assert all(failure.at <= killed[1] for failure in load.failures), load.failures
    print(f"{len(load.failures)} of the calls in flight failed")
    lab.start(0)
