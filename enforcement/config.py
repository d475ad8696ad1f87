"""node.yaml: the settings of the node enforcer, one file for all nodes, with what is different on some of them.

    excludedNamespaces: [kube-system]
    runtime: {config: /etc/containerd/config.toml}
    rdt: {classes: /etc/noisegate/classes.yaml}
    nodes:
      storage-1: {disk: {enforced: false}}

What stands below `nodes` under a node's name takes the place of the value of the same name; a group keeps the rest.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from noisegate.isolation.policy import Setting
from noisegate.service import manifests
from noisegate.service.faults import Wrongs


def _absolute(path: str) -> str:
    if not PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError("allowed: an absolute path without ..")
    return str(PurePosixPath(path))


Path = Annotated[str, AfterValidator(_absolute)]
Words = Annotated[tuple[str, ...], Field(strict=False)]
Seconds = Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)]


class Nri(Setting):
    """The `nri:` block: how the runtime is spoken to."""

    socket: Path = "/var/run/nri/nri.sock"
    """Socket of the runtime's NRI. Default: containerd's and CRI-O's own."""
    index: str = Field(default="10", pattern=r"^[0-9]{2}$")
    """Two digits: the place among the plugins of a node, lower ones are asked first. Default 10."""


class Disk(Setting):
    """The `disk:` block."""

    enforced: bool = True
    """Whether disk limits are held on this node; if not, its label is taken away. Default true."""
    store: Path = "/var/lib/containerd"
    """Folder of the runtime's container store: on its disk are the writable layers (`"*"`). Default: containerd's."""


class Network(Setting):
    """The `network:` block."""

    enforced: bool = True
    """Whether network limits are held on this node; if not, its label is taken away. Default true."""


class Rdt(Setting):
    """The `rdt:` block."""

    enforced: bool = True
    """Whether RDT classes are applied on this node; if not, its label is taken away. Default true."""
    classes: Annotated[str, AfterValidator(lambda path: path and _absolute(path))] = ""
    """The cluster's class file. Default none: the enforcer makes no groups."""


class Runtime(Setting):
    """The `runtime:` block: what is to be known of the container runtime."""

    config: Path = "/etc/containerd/config.toml"
    """Its configuration file, below `host`. Default: containerd's."""
    runc: Words = ("runc",)
    """Command that answers `features`, run in `host` where that is not /. Default: runc."""


class Cluster(Setting):
    """The `cluster:` block: the API server that knows the node's pods."""

    api_server: str = Field(default="", pattern=r"^(https://[^/]+/?)?$", alias="apiServer")
    """Its address. Default: that of the cluster the enforcer runs in; outside of one it works without, from what the
    runtime knows."""
    account: Path = "/var/run/secrets/kubernetes.io/serviceaccount"
    """Folder of `token` and `ca.crt`. Default: where a pod's ServiceAccount is mounted."""


class Health(Setting):
    """The `health:` block: /healthz, /readyz and /metrics, in plain HTTP."""

    address: str = "0.0.0.0"
    """Address. Default 0.0.0.0, all of IPv4 (`::` is IPv6 too): the kubelet and Prometheus come from outside the process."""
    port: int = Field(default=8082, ge=0, le=65535)
    """Port; the enforcer is in the host's network, so it must be free on the node. 0 takes any free one. Default 8082."""


class Settings(Setting):
    """The whole file; every key may be left out."""

    host: Path = "/"
    """Where the host's root is seen, read only. Default /: the enforcer is a process of the host itself."""
    cgroup: Path = "/sys/fs/cgroup"
    """Root of the cgroup v2 hierarchy. Default: where systemd mounts it."""
    sys: Path = "/sys"
    """Mount point of sysfs. Default /sys."""
    resctrl: Path = "/sys/fs/resctrl"
    """Mount point of resctrl. Default: where everybody mounts it."""
    state: Path = "/run/noisegate"
    """Folder of the ledger, the lock and the status socket: on a tmpfs, so that it lives exactly as long as the kernel
    state it describes. Default /run/noisegate."""
    excluded_namespaces: Words = Field(default=("kube-system",), alias="excludedNamespaces")
    """Namespaces whose pods are left alone, whatever they ask for. Default kube-system."""
    reconcile_seconds: Seconds = Field(default=10.0, alias="reconcileSeconds")
    """Between two looks at whether everything is still as it was made, 1 to 3600. Default 10."""
    nri: Nri = Nri()
    disk: Disk = Disk()
    network: Network = Network()
    rdt: Rdt = Rdt()
    runtime: Runtime = Runtime()
    cluster: Cluster = Cluster()
    health: Health = Health()

    def beside(self, path: str) -> str:
        """Return where a path of the host is seen from here."""
        return path if self.host == "/" else f"{self.host}{path}"


class _File(Settings):
    nodes: dict[str, Settings] = Field(default_factory=dict)


def load(text: str | bytes, file: str, node: str = "") -> Settings:
    """Read node.yaml as it holds for one node.

    Args:
        text: The file's content; an empty one stands for all defaults.
        file: Its name, for messages.
        node: Name of the node; what stands there for other nodes is checked all the same.

    Raises:
        ConfigError: Everything that is wrong with it, each with line, path, value and what is allowed.
    """
    value, lines = manifests.load(text, file)
    written: Any = {} if value is None else value
    wrongs = Wrongs(file, lines)
    if manifests.validated(_File, written, wrongs) is None:
        raise wrongs.error()
    common = {key: value for key, value in written.items() if key != "nodes"}
    own = ((written.get("nodes") or {}).get(node)) or {}
    return Settings.model_validate(_merged(common, own), by_alias=True, by_name=False)


def _merged(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with a node's own: a group keeps what the node does not say of it."""
    merged = dict(common)
    for key, value in own.items():
        there = merged.get(key)
        merged[key] = {**there, **value} if isinstance(there, dict) and isinstance(value, dict) else value
    return merged
