"""The controller against a real API server, with its deployed rights and nothing more."""

import base64
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import installed
import pytest
import trustme
import yaml
from controlplane import ControlPlane, Mounted
from cryptography import x509
from cryptography.x509 import load_pem_x509_certificates
from installed import NAMESPACE, PATHS
from replicas import Program, webhook

from noisegate.__main__ import main
from noisegate.webhook import registration, rules
from noisegate.webhook.world import shipped_rules

pytestmark = pytest.mark.apiserver

BASE: Final = Path(__file__).parents[2] / "deploy" / "base"
SECRETS: Final = f"/api/v1/namespaces/{NAMESPACE}/secrets"
CONFIG: Final = f"/api/v1/namespaces/{NAMESPACE}/configmaps/noisegate-config"
SHIPPED: Final = rules.load(Path(shipped_rules()).read_text(), "m")
GOLD: Final = "rules: [{name: gold, when: {labels: {tier: gold}}}]"
SILVER: Final = "rules: [{name: silver, when: {labels: {tier: silver}}}]"


class Lab:
    """Our namespace in the API server, and controllers."""

    def __init__(self, plane: ControlPlane, folder: Path, ends: ExitStack) -> None:
        self.plane: Final = plane
        self.folder: Final = folder
        self.ends: Final = ends
        self.number = 0
        account = {"name": "noisegate-controller", "namespace": NAMESPACE}
        plane.api.made({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        self.kubeconfig: Final = plane.kubeconfig("controller", plane.account(NAMESPACE, "noisegate-controller"))

    def start(self, *flags: str) -> Program:
        """Start a controller that looks often and waits little, but for a busy machine."""
        self.number += 1
        quick = ["--look-every", "0.1", "--settle", "0.5", "--narrow-after", "1.5", "--lease", "60"]
        where = ["--kubeconfig", str(self.kubeconfig), "--health-address", "127.0.0.1", "--health-port", "0"]
        args = ["controller", *where, *quick, "--log-format", "json", *flags]
        # Endpoints are not allowed on addresses of loopback, but by a name that leads there.
        hosts = self.folder / "hosts"
        hosts.write_text("127.0.0.1 localhost replica.test\n")
        log = self.folder / f"controller-{self.number}.log"
        return self.ends.enter_context(Program(args, log, "working", hosts))

    def register(self, port: int = 443) -> None:
        """Write the deployed configurations."""
        for value in registration.configurations(SHIPPED, registration.Service(port=port)):
            self.plane.api.made(value)

    def secret(self, name: str) -> dict[str, bytes]:
        """Return a Secret's files; none if it is not there."""
        data = self.plane.api.get(f"{SECRETS}/{name}").body.get("data", {})
        return {file: base64.b64decode(text) for file, text in data.items()}

    def trusted(self) -> list[x509.Certificate]:
        """Return the authorities of the Secret."""
        text = self.secret("noisegate-ca").get("ca.crt")
        return load_pem_x509_certificates(text) if text else []

    def webhooks(self, kind: int = 0) -> list[dict[str, Any]]:
        """Return the entries of a configuration; 0: mutating."""
        found: list[dict[str, Any]] = self.plane.api.get(PATHS[kind]).body.get("webhooks", [])
        return found

    def bundles(self) -> set[bytes]:
        """Return the different caBundles of all entries."""
        return {
            base64.b64decode(one["clientConfig"].get("caBundle", "")) for kind in (0, 1) for one in self.webhooks(kind)
        }

    def settled(self) -> bool:
        """Tell whether there is one authority, trusted by every entry, and a leaf that it signed."""
        trusted, tls = self.trusted(), self.secret("noisegate-tls")
        if len(trusted) != 1 or "tls.crt" not in tls:
            return False
        authority = self.secret("noisegate-ca")["ca.crt"]
        if tls["tls.crt"] == b"x":
            return False
        leaf = load_pem_x509_certificates(tls["tls.crt"])[0]
        return self.bundles() == {authority} and tls["ca.crt"] == authority and leaf.issuer == trusted[0].subject

    def wait(self, what: str, done: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until something is so."""
        self.plane.wait(what, done, seconds)

    def asks(self) -> str:
        """Return the condition of the first entry."""
        conditions = self.webhooks()[0].get("matchConditions", [])
        return "".join(condition["expression"] for condition in conditions if condition["name"] == "asks")

    def put_rules(self, text: str | None) -> None:
        """Change the ConfigMap; None: it says nothing of rules."""
        metadata = {"name": "noisegate-config", "namespace": NAMESPACE}
        data = {} if text is None else {"mutations.yaml": text}
        self.plane.api.made({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    def events(self, reason: str) -> list[dict[str, Any]]:
        """Return the Events of a reason."""
        path = f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events"
        return [event for event in self.plane.api.get(path).body["items"] if event["reason"] == reason]


@pytest.fixture(name="lab")
def _lab(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Lab]:
    installed.prepare(control_plane)
    api = control_plane.api
    for file in ("controller-rbac.yaml", "controller-certificates-rbac.yaml"):
        api.apply((BASE / file).read_text())
    with ExitStack() as ends:
        lab = Lab(control_plane, tmp_path, ends)
        lab.put_rules(None)
        yield lab
    for path in (*PATHS, f"{SECRETS}/noisegate-ca", f"{SECRETS}/noisegate-tls", CONFIG):
        api.delete(path)
    api.delete(f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events")
    api.delete(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/noisegate-controller")


def test_a_first_start_makes_everything_and_then_rests(lab: Lab) -> None:
    """Secrets, a caBundle in each entry, Events; and after that nothing is written any more."""
    lab.register()
    program = lab.start()
    lab.wait("certificates", lab.settled)
    assert lab.plane.api.get(f"{SECRETS}/noisegate-tls").body["type"] == "kubernetes.io/tls"
    leaf = load_pem_x509_certificates(lab.secret("noisegate-tls")["tls.crt"])[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert installed.NAME in names
    reasons = ("AuthorityMade", "CaBundleWritten", "CertificateIssued")
    # An Event is written after what it tells of.
    lab.wait("events", lambda: [len(lab.events(reason)) for reason in reasons] == [1, 1, 1])
    assert lab.events("CertificateIssued")[0]["regarding"]["name"] == "noisegate-tls"
    program.ready()
    versions = [
        lab.plane.api.get(path).body["metadata"]["resourceVersion"] for path in (*PATHS, f"{SECRETS}/noisegate-ca")
    ]
    looks = program.number('noisegate_controller_looks_total{result="done"}')
    lab.wait("looks", lambda: program.number('noisegate_controller_looks_total{result="done"}') > looks + 10)
    assert versions == [
        lab.plane.api.get(path).body["metadata"]["resourceVersion"] for path in (*PATHS, f"{SECRETS}/noisegate-ca")
    ]
    assert program.number("noisegate_controller_leader") == 1
    print(f"resident: {program.resident() / 1e6:.0f} MB")


def test_what_foreign_hands_do_is_put_right(lab: Lab) -> None:
    """Deleted Secrets, garbage in them, foreign caBundles and conditions; other fields are left as they are."""
    lab.register()
    lab.start()
    lab.wait("certificates", lab.settled)
    authority = lab.secret("noisegate-ca")["ca.crt"]

    lab.plane.api.delete(f"{SECRETS}/noisegate-tls")
    lab.wait("serving pair", lambda: lab.settled() and lab.secret("noisegate-ca")["ca.crt"] == authority)
    lab.plane.api.patch(f"{SECRETS}/noisegate-tls", {"data": {"tls.crt": base64.b64encode(b"x").decode()}})
    lab.wait("serving pair", lab.settled)

    leaf = lab.secret("noisegate-tls")["tls.crt"]
    patch = [
        # The API server takes certificates only; this one is no authority.
        {"op": "replace", "path": "/webhooks/1/clientConfig/caBundle", "value": base64.b64encode(leaf).decode()},
        {"op": "replace", "path": "/webhooks/1/timeoutSeconds", "value": 7},
        {"op": "remove", "path": "/webhooks/1/matchConditions/0"},
    ]
    assert lab.plane.api.patch(PATHS[0], patch, "application/json-patch+json").status == 200
    lab.wait("caBundle", lambda: lab.bundles() == {authority})
    lab.wait(
        "conditions", lambda: lab.webhooks()[1]["matchConditions"] == registration.wanted(SHIPPED)["sriov.noisegate.io"]
    )
    assert lab.webhooks()[1]["timeoutSeconds"] == 7

    lab.plane.api.delete(f"{SECRETS}/noisegate-ca")
    lab.wait("authority", lambda: lab.settled() and lab.secret("noisegate-ca")["ca.crt"] != authority)

    for path in PATHS:
        lab.plane.api.delete(path)
    lab.register()
    lab.wait("new configurations", lab.settled)


def test_one_leads_and_another_takes_over(lab: Lab) -> None:
    """When the leader is killed, after the Lease has run out; when it leaves, at once."""
    lab.register()
    leader = lab.start("--lease", "10")
    lab.wait("certificates", lab.settled)
    leader.wait_for("leads")
    follower = lab.start("--lease", "600")
    follower.ready()
    assert [program.number("noisegate_controller_leader") for program in (leader, follower)] == [1, 0]
    leader.kill()
    lab.plane.api.delete(f"{SECRETS}/noisegate-tls")
    lab.wait("take-over", lab.settled, 60)
    assert follower.number("noisegate_controller_leader") == 1
    # It holds the Lease for ten minutes more, and lets go of it.
    third = lab.start("--lease", "600")
    third.ready()
    assert third.number("noisegate_controller_leader") == 0
    assert follower.end() == 0
    third.wait_for("leads")


@pytest.mark.parametrize("mutual", [False, True], ids=["", "client certificates"])
def test_an_authority_follows_another_and_no_call_fails(lab: Lab, tmp_path: Path, mutual: bool) -> None:
    """Two replicas with slow mounts: at every moment what is registered is trusted; in the end there is one authority.

    The controller has no client certificate: it sees what a replica serves all the same.
    """
    client = trustme.CA()
    client.cert_pem.write_to_path(tmp_path / "client-ca.crt")
    shown = client.issue_cert(common_name="kube-apiserver") if mutual else None
    wanted = {"client-ca": str(tmp_path / "client-ca.crt"), "client-names": ["kube-apiserver"]} if mutual else {}
    lab.register()
    lab.start()
    lab.wait("certificates", lab.settled)
    old = lab.trusted()[0]
    with ExitStack() as ends:
        programs = []
        for number in (1, 2):
            mounted = ends.enter_context(
                Mounted(lab.plane.api, "Secret", NAMESPACE, "noisegate-tls", tmp_path / f"m{number}", delay=number)
            )
            mounted.wait()
            server = {"cert": str(mounted.folder / "tls.crt"), "key": str(mounted.folder / "tls.key"), **wanted}
            programs.append(ends.enter_context(webhook(tmp_path, {"server": server}, f"replica{number}")))
            ends.enter_context(_endpoint(lab, number, programs[-1].where["port"]))
        lab.plane.api.patch(f"{SECRETS}/noisegate-ca", {"metadata": {"annotations": {"noisegate.io/renew": "ca"}}})
        seen: set[int] = set()

        def changed() -> bool:
            for bundle in lab.bundles():
                for program in programs:
                    _handshake(program.where["port"], bundle, shown)
            seen.add(len(lab.trusted()))
            return lab.settled() and lab.trusted()[0] != old

        lab.wait("change", changed, 60)
        assert seen == {1, 2}
        for program in programs:
            _handshake(program.where["port"], lab.secret("noisegate-ca")["ca.crt"], shown)
    told = [
        lab.events(reason) for reason in ("AuthorityChangeBegun", "AuthorityChangeSwitched", "AuthorityChangeFinished")
    ]
    assert [len(events) for events in told] == [1, 1, 1]
    assert "noisegate.io/renew" not in (
        lab.plane.api.get(f"{SECRETS}/noisegate-ca").body["metadata"].get("annotations") or {}
    )


@contextmanager
def _endpoint(lab: Lab, number: int, port: int) -> Iterator[None]:
    """Have an endpoint of the Service."""
    metadata = {
        "name": f"replica{number}",
        "namespace": NAMESPACE,
        "labels": {"kubernetes.io/service-name": "noisegate-webhook"},
    }
    value = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "FQDN",
        "endpoints": [{"addresses": ["replica.test"], "conditions": {"ready": True}}],
        "ports": [{"port": port}],
    }
    lab.plane.api.made(value)
    yield
    lab.plane.api.delete(f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/replica{number}")


def _handshake(port: int, bundle: bytes, shown: trustme.LeafCert | None) -> None:
    """Ask something that is no review, trusting a caBundle: it is answered."""
    context = ssl.create_default_context(cadata=bundle.decode())
    if shown is not None:
        shown.configure_cert(context)
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        context.wrap_socket(raw, server_hostname=installed.NAME) as secured,
    ):
        secured.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert secured.recv(12) == b"HTTP/1.1 404"


def test_conditions_follow_the_rules_wider_first(lab: Lab) -> None:
    """At once wider, for both, then narrower; an unusable file changes nothing and is told."""
    lab.register()
    lab.put_rules(GOLD)
    program = lab.start()
    lab.wait("gold", lambda: '"gold"' in lab.asks())
    lab.put_rules(SILVER)
    lab.wait("silver", lambda: '"silver"' in lab.asks())
    assert '"gold"' in lab.asks()
    lab.wait("narrower", lambda: '"gold"' not in lab.asks())
    assert lab.webhooks()[0]["matchConditions"] == registration.wanted(rules.load(SILVER, "m"))["pods.noisegate.io"]
    lab.put_rules("rules: [{name: x}]")
    lab.wait("event", lambda: len(lab.events("RulesRefused")) == 1)
    event = lab.events("RulesRefused")[0]
    assert event["type"] == "Warning"
    assert event["note"].startswith(
        "mutations.yaml cannot be used, the rules before stay: mutations.yaml:1: rules[0].when"
    )
    assert program.number("noisegate_controller_rules_refused") == 1
    assert "the newest rules are refused" in program.get("/readyz")[1]
    assert '"silver"' in lab.asks()
    lab.plane.api.delete(CONFIG)
    gone = "there is no ConfigMap noisegate-config; the rules before stay"
    lab.wait("note", lambda: gone in program.get("/readyz")[1])
    assert '"silver"' in lab.asks()
    lab.put_rules(None)
    lab.wait("shipped", lambda: '"silver"' not in lab.asks() and lab.asks() != "")
    assert program.number("noisegate_controller_rules_refused") == 0


def test_with_external_certificates_only_conditions_are_kept(lab: Lab) -> None:
    """No Secret is made, no caBundle touched."""
    lab.register()
    lab.put_rules(GOLD)
    lab.start("--certificates", "external")
    lab.wait("gold", lambda: '"gold"' in lab.asks())
    assert lab.bundles() == {b""}
    assert lab.trusted() == []


def test_rights_and_configurations_that_are_missing_are_said_plainly(lab: Lab) -> None:
    """Which right, and what to bind or to apply."""
    lab.register()
    program = lab.start()
    lab.wait("certificates", lab.settled)
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/rolebindings/noisegate-certificates"
    lab.plane.api.delete(role)
    told = (
        'secrets "noisegate-ca" is forbidden: User "system:serviceaccount:noisegate-system:noisegate-controller" cannot get '
        'resource "secrets" in API group "" in the namespace "noisegate-system" (403); bind noisegate-controller to the '
        "controller's ServiceAccount"
    )
    # The right may be lost between the first Secret and the second of one look: then the second is named, once.
    lab.wait("reason", lambda: program.get("/readyz")[1].splitlines()[:1] == [told])
    lab.plane.api.apply((BASE / "controller-certificates-rbac.yaml").read_text())
    program.ready()
    lab.plane.api.delete(PATHS[1])
    lab.wait(
        "note",
        lambda: "there is no ValidatingWebhookConfiguration noisegate; apply deploy/base" in program.get("/readyz")[1],
    )
    lab.plane.api.patch(PATHS[0], [{"op": "remove", "path": "/webhooks/0"}], "application/json-patch+json")
    lacks = "MutatingWebhookConfiguration noisegate lacks pods.noisegate.io; apply deploy/base"
    lab.wait("note", lambda: lacks in program.get("/readyz")[1])


RIGHTS: Final = [
    (value["kind"], value["metadata"]["name"], file)
    for file in ("controller-rbac.yaml", "controller-certificates-rbac.yaml")
    for value in yaml.safe_load_all((BASE / file).read_text())
]


def test_what_is_deleted_and_made_again_converges(lab: Lab) -> None:
    """The Lease by itself; each Role and each binding by being applied: meanwhile the reason is told, then all is put right."""
    lab.register()
    program = lab.start()
    lab.wait("certificates", lab.settled)
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/noisegate-controller"
    holder = lab.plane.api.get(lease).body["spec"]["holderIdentity"]
    lab.plane.api.delete(lease)
    lab.wait("lease", lambda: lab.plane.api.get(lease).body.get("spec", {}).get("holderIdentity") == holder)
    for kind, name, file in RIGHTS:
        where = "" if kind.startswith("Cluster") else f"/namespaces/{NAMESPACE}"
        lab.plane.api.delete(f"/apis/rbac.authorization.k8s.io/v1{where}/{kind.lower()}s/{name}")
        lab.wait(
            f"{kind} {name}",
            lambda: "bind noisegate-controller to the controller's Service" in program.get("/readyz")[1],
        )
        lab.plane.api.delete(f"{SECRETS}/noisegate-tls")
        assert lab.plane.api.patch(PATHS[0], _NO_CONDITIONS, "application/json-patch+json").status == 200
        lab.plane.api.apply((BASE / file).read_text())
        lab.wait(f"{kind} {name}", lambda: lab.settled() and lab.asks() != "")
        program.ready()


_NO_CONDITIONS: Final = [{"op": "remove", "path": "/webhooks/0/matchConditions"}]


def test_an_unknown_kubeconfig_is_an_error(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With the file's name."""
    assert main(["controller", "--kubeconfig", str(tmp_path / "none")]) == 2
    assert capfd.readouterr().err == f"noisegate controller: {tmp_path}/none: there is no such file\n"
