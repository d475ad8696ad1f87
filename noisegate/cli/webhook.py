"""`noisegate webhook`: the admission server.

Exit codes: 0 ended in good order, 1 some calls had to be cut off, 2 usage or files that cannot be used.
"""

import argparse
import gc
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from noisegate.webhook.serverconfig import ServerConfig
    from noisegate.webhook.settings import Settings
    from noisegate.webhook.world import World

TEXT = """\
Run the admission server: it is called by the API server over TLS on /mutate and /validate (and /warn/..., for namespaces
in warn mode), and by the kubelet and Prometheus over plain HTTP on /healthz, /readyz and /metrics.

Settings come from server.yaml; a flag wins over the same key there. Without --config all else is as by default and the
certificate must be given. Certificate, rules, catalogue and class file are read again when their contents change. Ends cleanly
on SIGTERM: calls in flight are answered.

examples:
  noisegate webhook --config /etc/noisegate/server.yaml
  noisegate webhook --cert tls.crt --key tls.key --port 9443
"""


class Flag(NamedTuple):
    """A flag for a key of server.yaml.

    Attributes:
        key: Its name without the two hyphens; in the `server:` block the key is the same.
        metavar: What its value is called.
        about: What it is, with unit and default.
        kind: `path`, `text`, `number`, `words`, or the values that are allowed.
    """

    key: str
    metavar: str
    about: str
    kind: str | tuple[str, ...]


FLAGS: Final = (
    Flag("binding-address", "ADDRESS", "address of the TLS port; :: is IPv4 and IPv6 (default: 0.0.0.0)", "text"),
    Flag("port", "PORT", "TLS port; 0 takes any free one (default: 8443)", "number"),
    Flag("cert", "FILE", "serving certificate and its chain, PEM", "path"),
    Flag("key", "FILE", "its private key, PEM", "path"),
    Flag("mutations", "FILE", "rules of what is added (default: those noisegate ships)", "path"),
    Flag("client-ca", "FILE", "authorities that sign client certificates, PEM (default: clients need none)", "path"),
    Flag(
        "client-names", "NAME", "clients that are let in; may be repeated (default: all that client-ca signed)", "words"
    ),
    Flag("health-address", "ADDRESS", "address of the plain HTTP port; :: is IPv4 and IPv6 (default: 0.0.0.0)", "text"),
    Flag("health-port", "PORT", "port of /healthz, /readyz, /metrics; 0 takes any free one (default: 8080)", "number"),
    Flag("processes", "N", "processes that share the TLS port (default: 1)", "number"),
    Flag("max-in-flight", "N", "calls at the same moment, per process (default: 256)", "number"),
    Flag("max-body-bytes", "BYTES", "largest body, a number or a quantity (default: 7Mi)", "number"),
    Flag("handshake-seconds", "S", "time for a TLS handshake (default: 5)", "number"),
    Flag("header-seconds", "S", "time from a request's first byte to the end of its headers (default: 5)", "number"),
    Flag("body-seconds", "S", "time from the headers to the end of the body (default: 10)", "number"),
    Flag("idle-seconds", "S", "time a connection may rest between requests (default: 120)", "number"),
    Flag("shutdown-delay", "S", "time from the end of readiness to the end of listening (default: 5)", "number"),
    Flag("drain-seconds", "S", "time that calls in flight then get to finish (default: 20)", "number"),
    Flag("poll-seconds", "S", "time between two looks at the files' contents (default: 2)", "number"),
    Flag(
        "log-level",
        "LEVEL",
        "least severe message that is logged (default: info)",
        ("debug", "info", "warning", "error"),
    ),
    Flag("log-format", "FORM", "form of a log line (default: text)", ("text", "json")),
)
POLICY: Final = {
    "policy.enforcement": Flag(
        "enforcement",
        "MODE",
        "required: pods that ask wait for a node that can hold them (default: off)",
        ("off", "required"),
    ),
    "policy.rdt.classes": Flag("rdt-classes", "FILE", "RDT class file (default: none; classes are unchecked)", "path"),
}
"""By key of the file: what the components of deploy/ set, so that no server.yaml can lose it."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command `webhook`."""
    parser = subparsers.add_parser(
        "webhook",
        help="run the admission server",
        description=TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="server.yaml")
    for block, flags in (("server", FLAGS), ("policy", POLICY.values())):
        group = parser.add_argument_group(f"the {block}: block of server.yaml")
        for flag in flags:
            group.add_argument(
                f"--{flag.key}",
                metavar=flag.metavar,
                help=flag.about,
                choices=flag.kind if isinstance(flag.kind, tuple) else None,
                action="append" if flag.kind == "words" else "store",
            )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    # Modules are no garbage: collecting while they are imported costs a fifth of the start. The server switches it on.
    gc.disable()
    from noisegate.service.faults import ConfigError  # noqa: PLC0415  (the help must not wait for pydantic)

    try:
        return serve(settings_of(args))
    except ConfigError as error:
        for fault in error.faults:
            print(f"noisegate webhook: {fault}", file=sys.stderr)
    except (OSError, ValueError) as error:
        # A port that is taken, a certificate that does not fit its key: the text names it.
        print(f"noisegate webhook: {error.strerror if isinstance(error, OSError) else error}", file=sys.stderr)
    return 2


def settings_of(args: argparse.Namespace) -> "Settings":
    """Return the settings of the file and the flags.

    Raises:
        ConfigError: Everything that is wrong with either; or there is no certificate.
    """
    from noisegate.service.faults import ConfigError, Fault  # noqa: PLC0415
    from noisegate.webhook import manifestfiles  # noqa: PLC0415
    from noisegate.webhook.settings import FLAGS as COMMAND_LINE  # noqa: PLC0415
    from noisegate.webhook.settings import Settings  # noqa: PLC0415

    keys = {**{f"server.{flag.key}": flag for flag in FLAGS}, **POLICY}
    given = {key: getattr(args, flag.key.replace("-", "_")) for key, flag in keys.items()}
    overrides = {key: _value(keys[key], value) for key, value in given.items() if value is not None}
    text = b"" if args.config is None else manifestfiles.read_bytes(Path(args.config))
    settings = Settings.load(text, args.config or "server.yaml", overrides)
    if not settings.server.cert:
        told = "no certificate is given; the API server calls webhooks over TLS only"
        hint = "give --cert and --key; noisegate certs issue makes them"
        where = COMMAND_LINE if args.config is None else args.config
        raise ConfigError([Fault(where, 0, 0, "server.cert", told, hint)])
    return settings


def _value(flag: Flag, given: Any) -> Any:
    """Return a flag's value as it would stand in the file; what is no number is left for the settings to refuse."""
    if flag.kind == "path":
        return os.path.abspath(given)  # noqa: PTH100  (no links are resolved: kubelets swap them)
    if flag.kind == "number":
        for number in (int, float):
            try:
                return number(given)
            except ValueError:
                continue
    return given


def serve(settings: "Settings") -> int:
    """Serve until SIGTERM or SIGINT; return 0 if every call was answered, 1 if some had to be cut off.

    Raises:
        ConfigError: Everything that cannot be read or used, of all files.
        OSError: A port cannot be listened on.
        ValueError: The certificate cannot be used.
    """
    from importlib.metadata import version  # noqa: PLC0415

    from noisegate.cli.problems import codes  # noqa: PLC0415
    from noisegate.service.log import Log  # noqa: PLC0415
    from noisegate.webhook import server  # noqa: PLC0415
    from noisegate.webhook.world import World  # noqa: PLC0415

    def build() -> World:
        world = World(settings, time.monotonic)
        if settings.cluster.catalogue:
            _go_live(world, settings)
        world.load()
        return world

    return server.run(
        config_of(settings),
        build,
        log=Log(level=settings.server.log_level, form=settings.server.log_format),
        codes=[code.id for code in codes()],
        version=version("noisegate"),
    )


def _go_live(world: "World", settings: "Settings") -> None:
    from noisegate.cluster.connection import Connection, in_cluster  # noqa: PLC0415  (not without a cluster)
    from noisegate.service.faults import ConfigError, Fault  # noqa: PLC0415
    from noisegate.webhook.live import Live  # noqa: PLC0415

    cluster = settings.cluster
    url = cluster.api_server or in_cluster(os.environ)
    if not url:
        told = "there is no API server to ask: KUBERNETES_SERVICE_HOST is not set, so this is no pod"
        raise ConfigError([Fault("server.yaml", 0, 0, "cluster.catalogue", told, "give cluster.apiServer")])
    world.go_live(Live(cluster.catalogue, Connection(url, Path(cluster.account)), world.take_live), cluster.catalogue)


def config_of(settings: "Settings") -> "ServerConfig":
    """Return what the server is told, out of the settings."""
    from dataclasses import fields  # noqa: PLC0415

    from noisegate.webhook.serverconfig import ServerConfig  # noqa: PLC0415

    given = settings.server
    known = {field.name for field in fields(ServerConfig)}
    return ServerConfig(**{name: getattr(given, name) for name in type(given).model_fields if name in known})
