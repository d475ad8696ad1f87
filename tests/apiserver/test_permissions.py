"""Both programs with their deployed rights: every right is used, and nothing is asked for that was not given."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import installed
import pytest
import replicas
import yaml
from builders import pod
from controlplane import ControlPlane, Mounted, start
from installed import NAMESPACE
from replicas import Program

from noisegate.webhook import registration, rules
from noisegate.webhook.world import shipped_rules

pytestmark = pytest.mark.apiserver

BASE: Final = Path(__file__).parents[2] / "deploy" / "base"
FILES: Final = ("accounts.yaml", "webhook-rbac.yaml", "controller-rbac.yaml", "controller-certificates-rbac.yaml")
SHIPPED: Final = rules.load(Path(shipped_rules()).read_bytes(), "mutations.yaml")
PREFIX: Final = f"system:serviceaccount:{NAMESPACE}:"


@pytest.fixture(name="audited")
def _audited(tmp_path: Path) -> Iterator[tuple[ControlPlane, Path]]:
    policy, log = tmp_path / "audit.yaml", tmp_path / "audit.log"
    kind = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy"}
    policy.write_text(json.dumps({**kind, "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}))
    folder = tmp_path / "plane"
    folder.mkdir()
    with start(folder, flags=[f"--audit-policy-file={policy}", f"--audit-log-path={log}"]) as plane:
        yield plane, log


def granted() -> set[tuple[str, str, str, str, str]]:
    """Return every right that deploy/base gives: account, verb, group, resource, and its one name where it is limited."""
    values = [value for file in FILES for value in yaml.safe_load_all((BASE / file).read_text()) if value]
    roles = {(value["kind"], value["metadata"]["name"]): value for value in values}
    found = set()
    for value in values:
        if value["kind"].endswith("Binding"):
            role = roles[value["roleRef"]["kind"], value["roleRef"]["name"]]
            found |= {
                (subject["name"], verb, group, resource, name)
                for subject in value["subjects"]
                for rule in role["rules"]
                for verb in rule["verbs"]
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for name in rule.get("resourceNames", [""])
            }
    return found


def test_every_right_is_used_and_no_other_is_missed(audited: tuple[ControlPlane, Path], tmp_path: Path) -> None:
    """Install, change of the authority, rules, look-ups, a second leader: by the API server's own audit log."""
    plane, log = audited
    installed.prepare(plane)
    for file in FILES:
        plane.api.apply((BASE / file).read_text())
    metadata = {"name": "noisegate-config", "namespace": NAMESPACE}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}}
    plane.api.made({**config, "data": {"mutations.yaml": Path(shipped_rules()).read_text()}})
    kubeconfig = plane.kubeconfig("controller", plane.account(NAMESPACE, "noisegate-controller"))
    where = [
        "--kubeconfig",
        str(kubeconfig),
        "--health-address",
        "127.0.0.1",
        "--health-port",
        "0",
        "--log-format",
        "json",
    ]
    quick = ["--look-every", "0.1", "--settle", "0.2", "--narrow-after", "0.5"]
    secret = f"/api/v1/namespaces/{NAMESPACE}/secrets/noisegate-ca"
    with (
        Program(["controller", *where, *quick], tmp_path / "controller.log", "working") as leader,
        Mounted(plane.api, "Secret", NAMESPACE, "noisegate-tls", tmp_path / "tls") as mounted,
    ):
        mounted.wait()
        server = {"cert": str(mounted.folder / "tls.crt"), "key": str(mounted.folder / "tls.key")}
        account = plane.account_folder(NAMESPACE, "noisegate-webhook")
        kinds = ["networks", "claims", "storageClasses"]
        live = {"catalogue": kinds, "apiServer": plane.url, "account": str(account)}
        with replicas.webhook(tmp_path, {"server": server, "cluster": live}) as program:
            for value in registration.configurations(SHIPPED, registration.Service(port=program.where["port"])):
                plane.api.made(value)
            program.ready()
            _ask_for_what_is_not_there(plane, program)
            plane.api.patch(secret, {"metadata": {"annotations": {"noisegate.io/renew": "ca"}}})
            leader.wait_for("event", reason="AuthorityChangeFinished")
            with Program(["controller", *where, *quick], tmp_path / "second.log", "working") as follower:
                follower.ready()
                assert not follower.told("leads")
                assert leader.end() == 0
                follower.wait_for("leads")
                # It has not seen these before, and so widens and narrows.
                plane.api.made({**config, "data": {"mutations.yaml": "rules: [{name: r, when: {labels: {a: b}}}]"}})
                follower.wait_for("event", reason="ConditionsNarrowed")
    used, refused = set(), []
    for line in log.read_text().splitlines():
        event = json.loads(line)
        name = event["user"]["username"]
        if name.startswith(PREFIX) and "objectRef" in event:
            reference: dict[str, Any] = event["objectRef"]
            right = name.removeprefix(PREFIX), event["verb"], reference.get("apiGroup", ""), reference["resource"]
            # What is not limited to a name was asked for under any.
            limited = (*right, reference.get("name", ""))
            used.add(limited if limited in granted() else (*right, ""))
            if event.get("responseStatus", {}).get("code") == 403:
                refused.append(event)
    assert refused == []
    assert used == granted()


def _ask_for_what_is_not_there(plane: ControlPlane, program: Program) -> None:
    """Create pods that name a network and a claim which do not exist, through the webhook."""
    annotations = {
        "k8s.v1.cni.cncf.io/networks": "nowhere",
        "blockio.kubernetes.io/resources": '{"data": {"limits": {"rbps": "50Mi"}}}',
    }
    value = pod(annotations, volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "nowhere"}}])
    value["metadata"]["namespace"] = "default"
    plane.wait("refusal", lambda: "NG413" in plane.api.create(value, dry_run=True).message)
    assert program.number('noisegate_lookups_total{kind="claims",result="missing"}') >= 1
