"""`noisegate registration`: the webhook configurations for a file of rules, ready for kubectl.

Exit codes: 0 done, 2 files that cannot be used.
"""

import argparse
import base64
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noisegate.webhook.registration import Service
    from noisegate.webhook.rules import Rules

TEXT = """\
Print the MutatingWebhookConfiguration and the ValidatingWebhookConfiguration. Their matchConditions, by which the API server
decides what it sends, are made from the rules, so that pods that ask for nothing are never sent. In a cluster with
`noisegate controller` they are kept in step by themselves; deploy/base has them for the rules that noisegate ships.

examples:
  noisegate registration
  noisegate registration --mutations mutations.yaml --ca ca.crt | kubectl apply -f -
"""
HEADER = """\
# Which objects the API server sends to noisegate. Made from the code and the shipped mutations.yaml: make docs.
# caBundle is filled in by `noisegate controller` (or cert-manager), which also keeps matchConditions in step with the rules.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command `registration`."""
    parser = subparsers.add_parser(
        "registration",
        help="print the webhook configurations for your rules",
        description=TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--mutations", metavar="FILE", type=Path, help="the rules (default: those noisegate ships)")
    parser.add_argument(
        "--ca", metavar="FILE", type=Path, help="authorities of the server, PEM: caBundle (default: none)"
    )
    parser.add_argument("--service", metavar="NAME.NAMESPACE", help="default: noisegate-webhook.noisegate-system")
    parser.add_argument("--port", metavar="PORT", type=int, default=443, help="of the Service (default: 443)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the configurations; return the exit code."""
    from noisegate.service.faults import ConfigError  # noqa: PLC0415
    from noisegate.webhook import manifestfiles, registration, rules  # noqa: PLC0415  (the help must not wait for them)
    from noisegate.webhook.world import shipped_rules  # noqa: PLC0415

    file = args.mutations or Path(shipped_rules())
    name, _, namespace = (args.service or "").partition(".")
    if args.service is not None and not (name and namespace):
        print(f"noisegate registration: --service {args.service}: write it as NAME.NAMESPACE", file=sys.stderr)
        return 2
    service = registration.IN_CLUSTER._replace(port=args.port)
    if name:
        service = service._replace(name=name, namespace=namespace)
    try:
        read = rules.load(manifestfiles.read_bytes(file), str(file))
        bundle = manifestfiles.read_bytes(args.ca) if args.ca else b""
    except ConfigError as error:
        for fault in error.faults:
            print(f"noisegate registration: {fault}", file=sys.stderr)
        return 2
    for doubt in registration.doubts(read):
        print(f"noisegate registration: note: {doubt}", file=sys.stderr)
    print(text(read, service, bundle), end="")
    return 0


def text(rules: "Rules", service: "Service", bundle: bytes = b"") -> str:
    """Return both configurations as YAML.

    Args:
        rules: What is added to pods.
        service: Where the API server finds the server.
        bundle: Authorities of the server, PEM; empty: left for others to fill in.
    """
    import yaml  # noqa: PLC0415

    from noisegate.webhook import registration  # noqa: PLC0415

    class Dumper(yaml.SafeDumper):
        """Expressions of several lines stay lines."""

        def ignore_aliases(self, data: Any) -> bool:
            del data
            return True

    Dumper.add_representer(
        str,
        lambda dumper, value: dumper.represent_scalar(
            "tag:yaml.org,2002:str", value, style="|" if "\n" in value else None
        ),
    )
    values = registration.configurations(rules, service)
    if bundle:
        for value in values:
            for webhook in value["webhooks"]:
                webhook["clientConfig"]["caBundle"] = base64.b64encode(bundle).decode()
    return HEADER + "---\n".join(yaml.dump(value, Dumper=Dumper, sort_keys=False, width=100_000) for value in values)
