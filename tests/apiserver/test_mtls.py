"""Client certificates from the API server, with the files and flags that deploy/components/mtls has for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import deployed
import installed
import pytest
import replicas
import trustme
import yaml
from builders import container, cores, pod
from controlplane import ControlPlane, start
from installed import Certificates
from replicas import Program
from serving import write_pair

from noisegate.webhook.rules import NO_RULES

pytestmark = pytest.mark.apiserver

COMPONENT: Final = deployed.DEPLOY / "components" / "mtls"
PLACE: Final = "/etc/kubernetes/noisegate"
"""Where the files are in a cluster."""


class Lab(NamedTuple):
    """An API server that shows client certificates, and a server that wants them."""

    plane: ControlPlane
    program: Program
    folder: Path
    authority: trustme.CA

    def show(self, authority: trustme.CA | None, name: str = "kube-apiserver") -> None:
        """Have the API server show a certificate from now on; or none."""
        kubeconfig = yaml.safe_load((COMPONENT / "kubeconfig.yaml").read_text().replace(PLACE, str(self.folder)))
        # In a cluster the Service's port is 443, which the API server leaves out.
        for user in kubeconfig["users"]:
            user["name"] += f":{self.program.where['port']}"
        if authority is None:
            kubeconfig["users"] = []
        else:
            write_pair(self.folder, authority.issue_cert(common_name=name))
            (self.folder / "cert.pem").rename(self.folder / "client.crt")
            (self.folder / "key.pem").rename(self.folder / "client.key")
        (self.folder / "kubeconfig.yaml").write_text(yaml.safe_dump(kubeconfig))
        self.plane.restart()

    def ask(self) -> Any:
        """Create a pod that asks, once the configurations are in force."""
        asking = pod(containers=[container(resources=cores(1))])
        self.plane.wait("webhook", lambda: not _passes(installed.post(self.plane, asking, "default")))
        return installed.post(self.plane, asking, "default")


def _passes(reply: Any) -> bool:
    """Tell whether nobody was asked: the API server does not know the configurations yet, or is not ready."""
    return reply.status == 403 or (reply.status == 201 and "env" not in reply.body["spec"]["containers"][0])


@pytest.fixture(name="lab", scope="module")
def _lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("mtls")
    certificates = Certificates(folder / "pair")
    authority = trustme.CA()
    (folder / "client-ca").mkdir()
    authority.cert_pem.write_to_path(folder / "client-ca" / "ca.crt")
    flags = deployed.flags(deployed.built(deployed.mine(folder, "mtls")))
    secured = [flag.replace("/etc/noisegate", str(folder)) for flag in flags]
    (folder / "admission.yaml").write_text((COMPONENT / "admission.yaml").read_text().replace(PLACE, str(folder)))
    (folder / "kubeconfig.yaml").write_text("{apiVersion: v1, kind: Config}")
    (folder / "plane").mkdir()
    admission = [f"--admission-control-config-file={folder / 'admission.yaml'}"]
    with (
        replicas.webhook(folder, {"server": replicas.secured(certificates.folder)}, flags=secured) as program,
        start(folder / "plane", flags=admission) as plane,
        installed.registered(plane, program.where["port"], certificates.bundle, NO_RULES),
    ):
        yield Lab(plane, program, folder, authority)


def test_the_right_certificate_is_let_in(lab: Lab) -> None:
    """Pods that ask are made ready."""
    lab.show(lab.authority)
    made = lab.ask()
    assert made.status == 201
    assert made.body["spec"]["containers"][0]["env"] == [{"name": "CMK_NUM_CORES", "value": "1"}]


def test_another_name_is_refused(lab: Lab) -> None:
    """Signed by the right authority, for somebody else: the message, the log and the metric say so."""
    before = lab.program.number('noisegate_refused_requests_total{reason="client-name"}')
    lab.show(lab.authority, "somebody-else")
    refused = lab.ask()
    assert refused.status == 500
    assert 'failed calling webhook "pods.noisegate.io"' in refused.message
    assert lab.program.number('noisegate_refused_requests_total{reason="client-name"}') > before
    assert "somebody-else" in lab.program.told("refused", reason="client-name")[-1]["detail"]


@pytest.mark.parametrize("shown", ["foreign", "none"])
def test_a_foreign_certificate_and_none_are_refused(lab: Lab, shown: str) -> None:
    """The handshake fails, and is counted and told."""
    before = lab.program.number('noisegate_tls_handshake_failures_total{reason="certificate"}')
    lab.show(trustme.CA() if shown == "foreign" else None)
    refused = lab.ask()
    assert refused.status == 500
    assert 'failed calling webhook "pods.noisegate.io"' in refused.message
    assert lab.program.number('noisegate_tls_handshake_failures_total{reason="certificate"}') > before
