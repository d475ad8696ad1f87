"""The cluster the pods live in: networks, claims, RDT classes, and the rules of the server."""

from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import msgspec

NAMESPACE: Final = "tenant-edge"
CLAIM: Final = "router-data"
CACHE_LABEL: Final = "edge.example/cache"
CLASSES: Final = ("gold", "silver", "bronze", "besteffort")
NETWORKS: Final = tuple(f"sriov-{letter}" for letter in "abcdefgh")
STORAGE_CLASS: Final = "local-nvme"


def resource_of(network: str) -> str:
    """Return the extended resource that an attachment to a network takes."""
    return f"intel.com/vf_{network[-1]}"


def manifests() -> list[dict[str, Any]]:
    """Return the objects the server's catalogue is read from."""
    networks = [
        {
            "apiVersion": "k8s.cni.cncf.io/v1",
            "kind": "NetworkAttachmentDefinition",
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "annotations": {"k8s.v1.cni.cncf.io/resourceName": resource_of(name)},
            },
            "spec": {"config": _cni(name, vlan)},
        }
        for vlan, name in enumerate(NETWORKS, start=100)
    ]
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": NAMESPACE},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": STORAGE_CLASS,
            "resources": {"requests": {"storage": "100Gi"}},
        },
    }
    storage = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "local.csi.openebs.io",
    }
    return [*networks, claim, storage]


def _cni(name: str, vlan: int) -> str:
    sriov = {
        "type": "sriov",
        "name": name,
        "vlan": vlan,
        "spoofchk": "on",
        "trust": "off",
        "link_state": "auto",
        "max_tx_rate": 1000,
    }
    return msgspec.json.encode({"cniVersion": "1.0.0", "name": name, "plugins": [sriov, {"type": "tuning"}]}).decode()


CLASS_FILE: Final = """\
options:
  l3: {optional: true}
  mb: {optional: true}
partitions:
  exclusive:
    l3Allocation: "60%"
    mbAllocation: ["100%"]
    classes:
      gold: {l3Allocation: "100%"}
  shared:
    l3Allocation: "40%"
    mbAllocation: ["50%"]
    classes:
      silver: {l3Allocation: "100%", mbAllocation: ["50%"]}
      bronze: {l3Allocation: "60%", mbAllocation: ["30%"]}
      besteffort: {l3Allocation: "30%", mbAllocation: ["10%"]}
"""

CACHE_RULE: Final = f"""
  - name: cache-class
    when:
      labels: {{{CACHE_LABEL}: managed}}
    perPod:
      metadata:
        annotations:
          rdt.resources.beta.kubernetes.io/pod: silver
"""


def rules() -> str:
    """Return the rules that noisegate ships, `cmk-isolate` opened to the pods' namespace, and one for the RDT class."""
    shipped = files("noisegate").joinpath("mutations.yaml").read_text()
    before, name, after = shipped.partition("- name: cmk-isolate")
    opened = after.replace("namespaces: []", f"namespaces: [{NAMESPACE}]", 1)
    if opened == after:
        raise ValueError('mutations.yaml has no rule "cmk-isolate" with namespaces: []')
    return before + name + opened.rstrip() + "\n" + CACHE_RULE


def write(folder: Path, port: int, health_port: int) -> Path:
    """Write everything the server is started with beside `tls.crt` and `tls.key`; return the path of server.yaml."""
    settings = {
        "server": {
            "binding-address": "127.0.0.1",
            "port": port,
            "cert": "tls.crt",
            "key": "tls.key",
            "mutations": "mutations.yaml",
            "health-address": "127.0.0.1",
            "health-port": health_port,
            # More than the busiest case has connections, so that nothing is refused.
            "max-in-flight": 256,
            "shutdown-delay": 0,
        },
        "policy": {"rdt": {"classes": "classes.yaml"}},
        "catalogue": {"files": ["cluster.json"], "complete": ["networks", "claims", "storageClasses"]},
    }
    cluster = {"apiVersion": "v1", "kind": "List", "items": manifests()}
    folder.joinpath("mutations.yaml").write_text(rules())
    folder.joinpath("classes.yaml").write_text(CLASS_FILE)
    folder.joinpath("cluster.json").write_bytes(msgspec.json.encode(cluster))
    path = folder / "server.yaml"
    path.write_bytes(msgspec.yaml.encode(settings))
    return path
