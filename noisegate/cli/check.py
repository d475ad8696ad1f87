"""`noisegate check`: what the admission server would say to manifests, and what it would add to them, without a cluster.

Exit codes: 0 everything would be admitted, 1 something would be refused, 2 usage or unreadable input.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from noisegate.cli.paint import CHOICES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from noisegate.service.manifests import Document
    from noisegate.webhook.admit import World
    from noisegate.webhook.settings import Settings

FORMS: Final = ("text", "json", "yaml", "junit", "github")

TEXT = """\
Check manifests as the admission server would: the same checks, the same additions, offline.

Pods, the pod templates of workloads and NetworkAttachmentDefinitions are judged. NetworkAttachmentDefinitions,
PersistentVolumeClaims and StorageClasses also tell what the cluster has; what is known of no kind at all is left
unchecked, with a warning. Objects of other kinds are passed by. Exits with 1 if anything would be refused.

examples:
  noisegate check pod.yaml
  noisegate check deploy/ --catalog cluster/networks.yaml --config server.yaml
  helm template . | noisegate check - -n shop
  noisegate check deploy/ -o github        annotations on the lines of a pull request
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command `check`."""
    parser = subparsers.add_parser(
        "check",
        help="check manifests as the admission server would, and show what it would add",
        description=TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="manifests: YAML or JSON files, directories of them, or - (standard input)",
    )
    parser.add_argument("-o", "--output", choices=FORMS, default="text", help="how to report (default: text)")
    parser.add_argument("-n", "--namespace", default="default", help="of objects that name none (default: default)")
    parser.add_argument(
        "--catalog",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="more manifests of what the cluster has, as kubectl get -o yaml prints them; not judged themselves",
    )
    parser.add_argument("--mutations", metavar="FILE", help="rules of what is added (default: those noisegate ships)")
    parser.add_argument(
        "--config", metavar="FILE", help="server.yaml: policy, rules, catalogue and class file of a server"
    )
    parser.add_argument("--color", choices=CHOICES, default="auto", help="colour in text (default: on a terminal)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the manifests; return the exit code."""
    from noisegate.service.faults import ConfigError  # noqa: PLC0415  (the help must not wait for pydantic)

    try:
        return _check(args)
    except ConfigError as error:
        for fault in error.faults:
            print(f"noisegate check: {fault}", file=sys.stderr)
        return 2


def _check(args: argparse.Namespace) -> int:
    from noisegate.cli import inputs, offline, render, text  # noqa: PLC0415
    from noisegate.cli.paint import Paint  # noqa: PLC0415
    from noisegate.service.faults import ConfigError, Fault  # noqa: PLC0415

    faults: list[Fault] = []
    read: list[list[Document]] = []
    for names in (args.files, args.catalog):
        try:
            read.append(inputs.documents(names, sys.stdin.buffer))
        except ConfigError as error:
            faults += error.faults
    try:
        settings = _settings(args)
    except ConfigError as error:
        faults += error.faults
    if faults:
        raise ConfigError(faults)
    documents, catalogue = read
    world, notes = _world(settings, documents, catalogue, args.namespace)
    for note in notes:
        print(f"noisegate check: note: {note}", file=sys.stderr)

    ours = [document for document in documents if offline.is_ours(document)]
    verdicts = [offline.consider(document, args.namespace, world) for document in ours]
    if args.output == "text":
        paint = Paint.of(args.color, sys.stdout, os.environ)
        for line in text.report(verdicts, len(documents) - len(ours), paint):
            print(line)
    elif args.output == "github":
        if commands := render.as_github(verdicts):
            print(commands)
    else:
        print({"json": render.as_json, "yaml": render.as_yaml, "junit": render.as_junit}[args.output](verdicts))
    return 0 if all(verdict.allowed for verdict in verdicts) else 1


def _settings(args: argparse.Namespace) -> "Settings":
    from noisegate.webhook import manifestfiles  # noqa: PLC0415
    from noisegate.webhook.settings import Settings  # noqa: PLC0415

    overrides = {} if args.mutations is None else {"server.mutations": os.path.abspath(args.mutations)}  # noqa: PTH100
    if args.config is None:
        return Settings.load(b"", "server.yaml", overrides)
    return Settings.load(manifestfiles.read_bytes(Path(args.config)), args.config, overrides)


def _world(
    settings: "Settings", documents: "Iterable[Document]", catalogue: "Iterable[Document]", namespace: str
) -> "tuple[World, tuple[str, ...]]":
    """Return what the server would decide by, with what the command line tells of the cluster on top."""
    from noisegate.webhook import inventory, world  # noqa: PLC0415

    served = world.World(settings, lambda: 0.0)
    served.load()
    told = inventory.build([*catalogue, *filter(_tells, documents)], namespace=namespace)
    whole = served.now()
    merged = inventory.merge([whole.catalogue, told.catalogue])._replace(rdt_classes=whole.catalogue.rdt_classes)
    return whole._replace(catalogue=merged), (*served.notes(), *map(str, told.notes))


def _tells(document: "Document") -> bool:
    """Tell whether an object can be read as part of the catalogue; a network that cannot is judged, and refused."""
    from noisegate.service.faults import ConfigError  # noqa: PLC0415
    from noisegate.webhook import inventory  # noqa: PLC0415

    if (document.api_version, document.kind) != inventory.NETWORK:
        return True
    try:
        inventory.build([document])
    except ConfigError:
        return False
    return True
