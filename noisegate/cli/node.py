"""`noisegate node`: the enforcer of a node, and what a person asks of it.

Exit codes: 0 good; 1 the preflight found something missing, or a pod is not as it asked; 2 usage, files that cannot be used, or
there is no enforcer to ask.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from noisegate.enforcement.config import Settings
    from noisegate.enforcement.report.node import OwnPod

TEXT = """\
Hold the pods of this node to what they asked for: disk bandwidth and operations (io.max of the pod's cgroup), network bandwidth
both ways (queueing disciplines on the host's end of its interface), RDT classes. The container runtime tells of each container
through NRI before its program runs; what this node cannot hold is refused there, with a reason.
"""
RUN = """\
Run the enforcer: as root, in the host's network, one on each node. It says in the node's labels noisegate.io/enforces-disk,
-network and -rdt what it holds, and takes them away when it leaves the node (they stay over a reboot, and while its container is
started again). What it made stays in force while it is away.

examples:
  noisegate node run --config /etc/noisegate/node.yaml       in the DaemonSet of deploy/overlays/enforcer
  noisegate node run --node worker-1                         on a host, with defaults
"""
STATUS = """\
Show what each pod of this node asked for, what was applied, and what the kernel has now. Asks the enforcer on its local socket.

examples:
  noisegate node status
  kubectl -n noisegate-node exec daemonset/noisegate-node -- python3 -m noisegate node status -o json
"""
PREFLIGHT = """\
Look at what this node has and lacks for holding limits: kernel, cgroups, runtime, NRI and its validator, devices, resctrl. Leaves
nothing behind: to see whether it can, it makes an ifb device ng-preflight with an htb, and removes it. The enforcer does the same
at its start.
"""
CLEANUP = """\
Return the node to what it was before the enforcer: previous limits, queueing disciplines, ifb devices, resctrl groups. Only what the
ledger names or bears our mark is touched. The enforcer must not be running; its labels go when it ends.
"""
RDT_CONFIG = """\
Write the container runtime's RDT file from the cluster's class file, for nodes whose runtime is to own RDT (containerd's
rdt_config_file). A file that noisegate did not write is left alone unless --force is given.

examples:
  noisegate node rdt-config classes.yaml /etc/containerd/rdt.yaml
  noisegate node rdt-config classes.yaml --check      whether this node's hardware can have these classes
"""

_FORMS: Final = ("table", "json")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command `node` and its own commands."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "node", help="hold the pods of this node to their limits", description=TEXT, formatter_class=raw
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    one = commands.add_parser("run", help="run the enforcer", description=RUN, formatter_class=raw)
    _where(one)
    one.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info", help="default: info")
    one.add_argument("--log-format", choices=("text", "json"), default="text", help="default: text")
    one.set_defaults(run=run)

    one = commands.add_parser(
        "status", help="what is asked, applied, observed", description=STATUS, formatter_class=raw
    )
    one.add_argument("--state", metavar="FOLDER", default="/run/noisegate", help="default: /run/noisegate")
    one.add_argument("-o", "--output", choices=_FORMS, default="table", help="default: table")
    one.set_defaults(run=status)

    one = commands.add_parser("preflight", help="what this node lacks", description=PREFLIGHT, formatter_class=raw)
    _where(one)
    one.add_argument("-o", "--output", choices=_FORMS, default="table", help="default: table")
    one.set_defaults(run=preflight)

    one = commands.add_parser("cleanup", help="undo everything on this node", description=CLEANUP, formatter_class=raw)
    _where(one)
    one.set_defaults(run=cleanup)

    one = commands.add_parser(
        "rdt-config", help="write the runtime's RDT file", description=RDT_CONFIG, formatter_class=raw
    )
    one.add_argument("classes", metavar="CLASSFILE", help="the cluster's class file")
    one.add_argument("target", metavar="FILE", nargs="?", default="", help="the file to be written; else it is printed")
    one.add_argument("--check", action="store_true", help="compare with this node's resctrl, and write nothing")
    one.add_argument("--force", action="store_true", help="also replace a file that noisegate did not write")
    one.add_argument("--resctrl", metavar="FOLDER", default="/sys/fs/resctrl", help="default: /sys/fs/resctrl")
    one.set_defaults(run=rdt_config)


def _where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", default="", help="node.yaml (default: all as by default)")
    parser.add_argument(
        "--node", metavar="NAME", default="", help="name of the node (default: $NODE_NAME, else the host's name)"
    )


def node_name(args: argparse.Namespace) -> str:
    """Return the node's name, as Kubernetes knows it."""
    return str(args.node or os.environ.get("NODE_NAME", "") or os.uname().nodename.lower())


def own_pod() -> "OwnPod | None":
    """Return the pod that we run in, as its container's environment says; None: it does not."""
    from noisegate.enforcement.report.node import OwnPod  # noqa: PLC0415  (the help must not wait for it)

    told = [os.environ.get(name, "") for name in ("POD_NAMESPACE", "POD_NAME", "POD_UID")]
    return OwnPod(*told) if all(told) else None


def settings_of(args: argparse.Namespace) -> "Settings":
    """Return the settings of this node.

    Raises:
        ConfigError: The file cannot be used.
        OSError: It cannot be read.
    """
    from noisegate.enforcement import config  # noqa: PLC0415  (the help must not wait for it)

    text = Path(args.config).read_bytes() if args.config else b""
    return config.load(text, args.config or "node.yaml", node_name(args))


def run(args: argparse.Namespace) -> int:
    """Run the enforcer until SIGTERM or SIGINT; return the exit code."""
    import asyncio  # noqa: PLC0415  (the help must not wait for it)

    from noisegate.enforcement import daemon  # noqa: PLC0415
    from noisegate.enforcement.hostlock import AlreadyHeldError  # noqa: PLC0415
    from noisegate.service.faults import ConfigError  # noqa: PLC0415
    from noisegate.service.log import Log, take_over  # noqa: PLC0415

    log = Log(level=args.log_level, form=args.log_format)
    take_over(log)
    try:
        return asyncio.run(daemon.serve(settings_of(args), node_name(args), log, pod=own_pod()))
    except (AlreadyHeldError, ConfigError, OSError) as error:
        return _unusable("run", error)


def status(args: argparse.Namespace) -> int:
    """Print what the enforcer says; return the exit code."""
    import asyncio  # noqa: PLC0415

    import msgspec  # noqa: PLC0415

    from noisegate.cli import nodetable  # noqa: PLC0415
    from noisegate.enforcement.status import SOCKET, ask  # noqa: PLC0415

    path = Path(args.state, SOCKET)
    try:
        told = asyncio.run(ask(path))
    except (TimeoutError, msgspec.MsgspecError) as error:
        return _unusable("status", error)
    except OSError as error:
        print(
            f"noisegate node status: {path}: {error.strerror or error}; no enforcer runs here, or you are not root",
            file=sys.stderr,
        )
        return 2
    if args.output == "json":
        print(msgspec.json.format(msgspec.json.encode(told)).decode())
    else:
        print("\n".join(nodetable.status(told)))
    return int(any(pod.trouble for pod in told.pods))


def preflight(args: argparse.Namespace) -> int:
    """Print what this node has and lacks; return the exit code."""
    import msgspec  # noqa: PLC0415

    from noisegate.cli import nodetable  # noqa: PLC0415
    from noisegate.enforcement import survey  # noqa: PLC0415
    from noisegate.enforcement.plan import partitions  # noqa: PLC0415
    from noisegate.enforcement.status import CheckStatus  # noqa: PLC0415
    from noisegate.service.faults import ConfigError  # noqa: PLC0415

    try:
        settings = settings_of(args)
        parts = survey.Parts.of(settings)
        facts = survey.examine(settings, parts)
        if settings.rdt.classes:
            partitions.read(Path(settings.rdt.classes).read_bytes(), settings.rdt.classes)
        checks = survey.checks(settings, facts, survey.owner(settings, facts))
    except (ConfigError, OSError) as error:
        return _unusable("preflight", error)
    rows = [CheckStatus(*check[:5], list(check.kinds)) for check in checks]
    if args.output == "json":
        print(msgspec.json.format(msgspec.json.encode(rows)).decode())
    else:
        print("\n".join(nodetable.checks(rows)))
    return int(any(not row.passed for row in rows if row.kinds))


def cleanup(args: argparse.Namespace) -> int:
    """Undo everything; return the exit code."""
    from noisegate.enforcement import cleanup as cleaning  # noqa: PLC0415
    from noisegate.enforcement.hostlock import AlreadyHeldError  # noqa: PLC0415
    from noisegate.service.faults import ConfigError  # noqa: PLC0415

    try:
        left = 0
        for line, good in cleaning.cleanup(settings_of(args)):
            print(line)
            left += not good
    except (AlreadyHeldError, ConfigError, OSError) as error:
        return _unusable("cleanup", error)
    return int(left > 0)


def rdt_config(args: argparse.Namespace) -> int:
    """Write the runtime's RDT file; return the exit code."""
    from noisegate.enforcement import rdtconfig  # noqa: PLC0415
    from noisegate.enforcement.kernel.resctrl import Resctrl  # noqa: PLC0415
    from noisegate.enforcement.plan import partitions  # noqa: PLC0415
    from noisegate.enforcement.refusal import Refusal  # noqa: PLC0415
    from noisegate.service.faults import ConfigError  # noqa: PLC0415

    try:
        classes = partitions.read(Path(args.classes).read_bytes(), args.classes)
        machine = None
        try:
            machine = Resctrl(Path(args.resctrl)).machine()
        except Refusal:
            # The file may be made on another machine than the one it is for.
            if args.check:
                raise
        if machine is not None and args.check:
            partitions.resolve(classes, machine)
            print(f"{args.classes}: {len(classes.classes)} classes fit this machine's {machine.closids} CLOSIDs")
        if not args.target:
            if not args.check:
                print(rdtconfig.render(classes), end="")
            return 0
        outcome = rdtconfig.write_runtime_file(
            classes, Path(args.target), machine=machine, check=args.check, force=args.force
        )
    except (ConfigError, Refusal, OSError) as error:
        return _unusable("rdt-config", error)
    print(f"{args.target}: {outcome}")
    return int(outcome == "stale")


def _unusable(command: str, error: Exception) -> int:
    told = str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        told = f"{error.filename}: {error.strerror}"
    for line in told.splitlines() or [type(error).__name__]:
        print(f"noisegate node {command}: {line}", file=sys.stderr)
    return 2
