"""`noisegate controller`: keeps certificates and webhook configurations in a cluster.

Exit codes: 0 ended in good order, 2 usage, or there is no API server to speak to.
"""

import argparse
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from noisegate.cli.certs import life

if TYPE_CHECKING:
    from noisegate.control.controller import Config

TEXT = """\
Keep what the admission server needs in a cluster: its certificates (Secrets noisegate-ca and noisegate-tls, renewed at two thirds
of their life), caBundle in the two webhook configurations named noisegate, and their matchConditions, in step with
mutations.yaml of the ConfigMap. Of several, one leads, through a Lease. Runs beside `noisegate webhook`; deploy/base has both.

Look at it: kubectl -n noisegate-system get events --field-selector reportingComponent=noisegate-controller
Have the certificate authority replaced now: kubectl -n noisegate-system annotate secret noisegate-ca noisegate.io/renew=ca

examples:
  noisegate controller                                   in a pod
  noisegate controller --kubeconfig ~/.kube/config       from outside
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command `controller`."""
    parser = subparsers.add_parser(
        "controller",
        help="keep certificates and webhook configurations in a cluster",
        description=TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--kubeconfig", metavar="FILE", default="", help="default: as the ServiceAccount of the pod that this is")
    add("--namespace", metavar="NAME", default="noisegate-system", help="default: noisegate-system")
    add("--service", metavar="NAME", default="noisegate-webhook", help="of the server (default: noisegate-webhook)")
    add(
        "--config-map", metavar="NAME", default="noisegate-config", help="of mutations.yaml (default: noisegate-config)"
    )
    add(
        "--certificates",
        choices=("managed", "external"),
        default="managed",
        help="external: somebody else, such as cert-manager, keeps Secrets and caBundle (default: managed)",
    )
    add(
        "--leaf-life",
        metavar="LIFE",
        type=life,
        default=None,
        help="of a serving certificate: 12h, 90d, 1y (default 1y)",
    )
    add("--ca-life", metavar="LIFE", type=life, default=None, help="of an authority (default 10y)")
    add("--look-every", metavar="S", type=_seconds, default=2.0, help="seconds between two looks (default: 2)")
    add(
        "--settle", metavar="S", type=_seconds, default=30.0, help="until all API servers know a caBundle (default: 30)"
    )
    add(
        "--narrow-after",
        metavar="S",
        type=_seconds,
        default=600.0,
        help="for so long what rules before waited for is still sent (default: 600)",
    )
    add("--lease", metavar="S", type=_seconds, default=15.0, help="until a silent leader is replaced (default: 15)")
    add(
        "--health-address",
        metavar="ADDRESS",
        default="0.0.0.0",
        help="of /healthz, /readyz, /metrics; :: is IPv4 and IPv6 (default: 0.0.0.0, all of IPv4)",
    )
    add("--health-port", metavar="PORT", type=int, default=8081, help="0 takes any free one (default: 8081)")
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info", help="default: info")
    add("--log-format", choices=("text", "json"), default="text", help="default: text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Work until SIGTERM or SIGINT; return the exit code."""
    import asyncio  # noqa: PLC0415  (the help must not wait for it, nor for kubernetes-asyncio)

    from noisegate.certs.pair import CertificateError  # noqa: PLC0415
    from noisegate.cluster.connection import ApiError  # noqa: PLC0415
    from noisegate.control import controller  # noqa: PLC0415
    from noisegate.service.log import Log, take_over  # noqa: PLC0415

    log = Log(level=args.log_level, form=args.log_format)
    take_over(log)
    try:
        return asyncio.run(controller.serve(config_of(args), log))
    except (ApiError, CertificateError, OSError) as error:
        print(f"noisegate controller: {error}", file=sys.stderr)
    return 2


def config_of(args: argparse.Namespace) -> "Config":
    """Return what the flags say."""
    from noisegate.control.controller import Config  # noqa: PLC0415

    lives: dict[str, timedelta] = {}
    if args.leaf_life is not None:
        lives["leaf_life"] = args.leaf_life
    if args.ca_life is not None:
        lives["authority_life"] = args.ca_life
    return Config(
        kubeconfig=args.kubeconfig,
        namespace=args.namespace,
        service=args.service,
        config_map=args.config_map,
        certificates=args.certificates == "managed",
        look_every=args.look_every,
        settle=args.settle,
        narrow_after=args.narrow_after,
        lease=args.lease,
        health_address=args.health_address,
        health_port=args.health_port,
        **lives,
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text}: allowed: 0 to 86400 seconds")
    return seconds
