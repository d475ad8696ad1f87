"""server.yaml: the settings of the admission server. The original's file works unchanged; all else has a default.

    server:
      binding-address: "0.0.0.0"
      port: 8443
      cert: /etc/ssl/cert.pem
      key: /etc/ssl/key.pem
      mutations: /etc/webhook/mutations.yaml

Paths are relative to the file they stand in.
"""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo

from noisegate.isolation.policy import Amount, Policy, Setting
from noisegate.service import manifests
from noisegate.service.faults import ConfigError, Fault, Wrongs

_HOST: Final = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*"
)


def _beside_the_file(path: str, info: ValidationInfo) -> str:
    if not path:
        raise ValueError("a path is needed; leave the key out where there is none")
    return str(PurePath(info.context["folder"], path)) if info.context else path


def _address(address: str) -> str:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        if not _HOST.fullmatch(address) or address.replace(".", "").isdecimal():
            raise ValueError("allowed: an IPv4 or IPv6 address without brackets and port, or a host name") from None
    return address


Path = Annotated[str, AfterValidator(_beside_the_file)]
"""A path; a relative one begins at the folder of server.yaml. Empty: not given."""
Address = Annotated[str, AfterValidator(_address)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
TimeOut = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
LiveKind = Literal["networks", "claims", "storageClasses"]
"""Kinds of objects that the checks look up."""
Words = Annotated[tuple[str, ...], Field(strict=False)]


class Server(Setting):
    """The `server:` block: where the server listens, with what, and how much it bears."""

    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"))

    binding_address: Address = "0.0.0.0"
    """Address of the TLS port. Default 0.0.0.0, as in the original: the API server comes from outside the pod."""
    port: Port = 8443
    """TLS port, 1 to 65535. Default 8443, as in the original. As a flag 0 takes any free port."""
    cert: Path = ""
    """File of the serving certificate and its chain, PEM; read again when its content changes. Default none."""
    key: Path = ""
    """File of the certificate's private key, PEM. Default none; goes with `cert`."""
    mutations: Path = ""
    """File of the rules, read again when its content changes. Default: the rules that noisegate ships."""
    client_ca: Path = ""
    """File of the authorities that sign client certificates, PEM. Default none: clients need no certificate."""
    client_names: Words = ()
    """Names of the clients that are let in: subject common name or a subject alternative name. Default none: everyone
    whose certificate `client-ca` signed."""
    health_address: Address = "0.0.0.0"
    """Address of the plain HTTP port. Default 0.0.0.0: the kubelet and Prometheus come from outside the pod."""
    health_port: Port = 8080
    """Port of /healthz, /readyz and /metrics, 1 to 65535. Default 8080. As a flag 0 takes any free port."""
    processes: int = Field(default=1, ge=1, le=64)
    """Processes that share the TLS port. Default 1: one core answers about 1400 calls a second, more replicas are
    better than more processes."""
    max_in_flight: int = Field(default=256, ge=1, le=65536)
    """Calls at the same moment, per process; further ones get 429 at once. Default 256: at 1 ms of work each the last
    one is answered long before the API server's time-out of seconds."""
    max_body_bytes: Amount = 7 << 20
    """Largest request body, as a number of bytes or a quantity. Default 7Mi: an object is at most 3 MiB at the API
    server, an UPDATE carries two, and the rest is the review around them."""
    handshake_seconds: TimeOut = 5.0
    """Time for a TLS handshake. Default 5: half of the API server's default time-out for a webhook."""
    header_seconds: TimeOut = 5.0
    """Time from a request's first byte to the end of its headers. Default 5."""
    body_seconds: TimeOut = 10.0
    """Time from the headers to the end of the body. Default 10: the API server's default time-out for a webhook."""
    idle_seconds: TimeOut = 120.0
    """Time a connection may rest between requests. Default 120: longer than the API server's own 90, so that it is the
    one to close."""
    shutdown_delay: Seconds = 5.0
    """Seconds between the end of readiness and the end of listening. Default 5: endpoints need that long to spread."""
    drain_seconds: Seconds = 20.0
    """Seconds that calls in flight then get to finish. Default 20: together with the delay less than the 30 seconds
    after which the kubelet kills."""
    poll_seconds: TimeOut = 2.0
    """Seconds between two looks at the files' contents. Default 2: mounted Secrets and ConfigMaps give no events."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe kind of message that is logged. Default info: starts, reloads and refusals."""
    log_format: Literal["text", "json"] = "text"
    """Form of a log line. Default text."""


class CatalogueFiles(Setting):
    """The `catalogue:` block: manifests of what the cluster has, read again when their content changes."""

    files: Annotated[tuple[Path, ...], Field(strict=False)] = ()
    """Files, folders (all their .yaml, .yml and .json) or globs. Default none: nothing is known, nothing is checked."""
    complete: Annotated[tuple[LiveKind, ...], Field(strict=False)] = ()
    """Kinds of which the files hold every object, even if that is none: a missing one is then an error. Default none:
    a kind is known as soon as the files hold one object of it."""


class Cluster(Setting):
    """The `cluster:` block: the API server that is asked what the cluster has."""

    catalogue: Annotated[tuple[LiveKind, ...], Field(strict=False)] = ()
    """Kinds that are followed live, by list and watch; needs the ClusterRole `noisegate-webhook`. What files say of these
    kinds does not count. Default none: the server needs no cluster."""
    api_server: str = Field(default="", pattern=r"^https://[^/]+/?$", alias="apiServer")
    """Its address. Default: that of the cluster the server runs in."""
    account: Path = "/var/run/secrets/kubernetes.io/serviceaccount"
    """Folder of `token` and `ca.crt`. Default: where a pod's ServiceAccount is mounted."""


class Settings(Setting):
    """server.yaml."""

    server: Server = Server()
    """Where the server listens, with what, and how much it bears."""
    policy: Policy = Policy()
    """What is allowed."""
    catalogue: CatalogueFiles = CatalogueFiles()
    """What the cluster has, from files."""
    cluster: Cluster = Cluster()
    """What the cluster has, from its API server."""

    @classmethod
    def load(cls, text: str | bytes, file: str, overrides: Mapping[str, Any] | None = None) -> Self:
        """Read server.yaml.

        Args:
            text: The file.
            file: Its path; relative paths in it begin at its folder.
            overrides: Values of flags by dotted key, such as `server.health-port`; they win over the file's. Relative
                paths among them begin at the file's folder too: make them absolute first.

        Raises:
            ConfigError: Everything that is wrong, each with line, key, value and what is allowed. What a flag did
                wrong has `FLAGS` for a file.
        """
        value, lines = manifests.load(text, file)
        overrides = overrides or {}
        merged = _with(value, overrides)
        wrongs = Wrongs(file, lines)
        folder = PurePath(file).parent
        settings = manifests.validated(cls, merged, wrongs, {"folder": folder})
        if settings is not None:
            # Only a flag may ask for any free port: nobody could be told where a server listens that a file started.
            free = {field: 0 for field, key in _PORTS.items() if overrides.get(key) == 0}
            settings = settings.model_copy(update={"server": settings.server.model_copy(update=free)})
            _cross_check(settings.server, wrongs)
        if settings is None or wrongs.faults:
            raise ConfigError([_of_flag(fault, overrides) for fault in wrongs.error().faults])
        classes = settings.policy.rdt.classes
        if not classes:
            return settings
        rdt = settings.policy.rdt.model_copy(update={"classes": str(folder / classes)})
        return settings.model_copy(update={"policy": settings.policy.model_copy(update={"rdt": rdt})})


FLAGS: Final = "command line"
"""Stands for the file in faults of values that a flag gave."""
_PORTS: Final = {"port": "server.port", "health_port": "server.health-port"}


def _with(value: Any, overrides: Mapping[str, Any]) -> Any:
    for path, override in overrides.items():
        if override != 0 or path not in _PORTS.values():
            value = _put(value, path, override)
    return {} if value is None else value


def _put(value: Any, path: str, override: Any) -> Any:
    block = {} if value is None else value
    # What is no mapping stays as it is, to be refused as such.
    if not isinstance(block, dict):
        return block
    key, _, rest = path.partition(".")
    return {**block, key: _put(block.get(key), rest, override) if rest else override}


def _of_flag(fault: Fault, overrides: Mapping[str, Any]) -> Fault:
    return fault._replace(file=FLAGS, line=0) if fault.path in overrides else fault


def _cross_check(server: Server, wrongs: Wrongs) -> None:
    if server.port and server.port == server.health_port:
        wrongs.add("server.health-port", server.health_port, "server.port is the same; the two need a port each")
    if server.cert and not server.key:
        wrongs.add("server.cert", server.cert, "a certificate needs its private key", "add server.key")
    if server.key and not server.cert:
        wrongs.add("server.key", server.key, "a private key needs its certificate", "add server.cert")
    if server.client_names and not server.client_ca:
        names = ", ".join(server.client_names)
        wrongs.add(
            "server.client-names",
            names,
            "names are only known of certificates that are checked",
            "add server.client-ca",
        )
    if server.client_ca and not server.cert:
        wrongs.add(
            "server.client-ca",
            server.client_ca,
            "clients show certificates over TLS only",
            "add server.cert and server.key",
        )
