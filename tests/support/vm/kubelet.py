"""How a node joins a control plane on the host's loopback: certificates, configurations, flags of the API server."""

import base64
import json
from pathlib import Path
from typing import Final, NamedTuple

import trustme
import yaml

NAME: Final = "localhost"
"""Of the node: the API server then finds its kubelet, whose port is forwarded, on the host's loopback."""
HOST: Final = "10.0.2.2"
"""The host's loopback, as the machine reaches it."""
FOLDER: Final = "/etc/kubernetes"
STATIC_PODS: Final = f"{FOLDER}/manifests"
"""Folder of pods that the kubelet runs by itself."""
RIGHTS: Final = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: nodes}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:node}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: system:nodes}]
"""
"""What the Node authorizer would give a kubelet, and not of its own pods alone; NodeRestriction is on all the same."""


class Credentials(NamedTuple):
    """Who is who between an API server and one kubelet; PEM.

    Attributes:
        authority: That both trust.
        node: The kubelet as a client, certificates and key.
        serving: The kubelet's own, certificates and key.
        caller: The API server as the kubelet's client, certificates and key.
    """

    authority: bytes
    node: bytes
    serving: bytes
    caller: bytes


def credentials() -> Credentials:
    """Make an authority and its certificates."""
    authority = trustme.CA()
    node = authority.issue_cert("node.test", common_name=f"system:node:{NAME}", organization_name="system:nodes")
    serving = authority.issue_cert(NAME, "127.0.0.1", "10.0.2.15")
    caller = authority.issue_cert("caller.test", common_name="api-server", organization_name="system:masters")
    leaves = (leaf.private_key_and_cert_chain_pem.bytes() for leaf in (node, serving, caller))
    return Credentials(authority.cert_pem.bytes(), *leaves)


def flags(folder: Path, given: Credentials) -> list[str]:
    """Return what an API server must be told to have a node; its files are written into a folder."""
    authority, caller = folder / "nodes-authority.crt", folder / "kubelet-client.pem"
    authority.write_bytes(given.authority)
    caller.write_bytes(given.caller)
    return [
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--client-ca-file={authority}",
        f"--kubelet-client-certificate={caller}",
        f"--kubelet-client-key={caller}",
        f"--kubelet-certificate-authority={authority}",
        "--kubelet-preferred-address-types=Hostname",
    ]


def files(given: Credentials, ca: bytes, api_port: int, port: int, *, systemd_cgroup: bool) -> dict[str, str]:
    """Return what a kubelet reads, by path.

    Args:
        given: Its certificates.
        ca: Authority of the API server's serving certificate, PEM.
        api_port: Of the API server, on the host's loopback.
        port: Of the kubelet, in the machine and on the host.
        systemd_cgroup: Its cgroup driver.
    """
    server = {
        "server": f"https://{HOST}:{api_port}",
        # Its certificate does not know the address by which the machine reaches it.
        "tls-server-name": "localhost",
        "certificate-authority-data": base64.b64encode(ca).decode(),
    }
    pem = f"{FOLDER}/node.pem"
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "node",
        "contexts": [{"name": "node", "context": {"cluster": "host", "user": "node"}}],
        "clusters": [{"name": "host", "cluster": server}],
        "users": [{"name": "node", "user": {"client-certificate": pem, "client-key": pem}}],
    }
    return {
        f"{FOLDER}/kubelet.yaml": yaml.safe_dump(_configuration(port, systemd_cgroup)),
        f"{FOLDER}/kubeconfig": json.dumps(kubeconfig),
        f"{FOLDER}/authority.crt": given.authority.decode(),
        pem: given.node.decode(),
        f"{FOLDER}/serving.pem": given.serving.decode(),
        # A second name of the API server: for pods it is at an address of a Service.
        f"{FOLDER}/api.env": f"API_SERVER={HOST}:{api_port}\n",
    }


def _configuration(port: int, systemd_cgroup: bool) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "port": port,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{FOLDER}/authority.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{FOLDER}/serving.pem",
        "tlsPrivateKeyFile": f"{FOLDER}/serving.pem",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "staticPodPath": STATIC_PODS,
        "cgroupDriver": "systemd" if systemd_cgroup else "cgroupfs",
        "nodeStatusUpdateFrequency": "2s",
        "volumeStatsAggPeriod": "0s",
        # There is no iptables, and no room for what a machine of its size would keep free.
        "makeIPTablesUtilChains": False,
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "1Mi", "imagefs.available": "1Mi"},
        "imageGCHighThresholdPercent": 100,
        "enableControllerAttachDetach": False,
    }
