"""The command `noisegate`, and `kubectl noisegate` where it is installed as a plugin of kubectl."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Final

from noisegate.cli import certs, check, controller, demo, metrics, node, problems, registration, webhook

COMMANDS: Final = (check, problems, demo, webhook, controller, node, certs, registration, metrics)

ABOUT = """\
noisegate keeps noisy neighbours apart on Kubernetes nodes. A pod says in annotations and resources what it may use of
its node: disk bandwidth, network bandwidth, cache and memory bandwidth (RDT), SR-IOV interfaces, exclusive cores.
The admission server refuses what cannot be meant, naming every problem and its mend, and adds what the pod needs to run.
The enforcer on each node holds the pods to it, from the moment their containers start.
"""
EXAMPLES = """\
examples:
  noisegate check pod.yaml             what the admission server would say to these manifests, and add to them
  kubectl get pod web -o yaml | noisegate check -
  noisegate problems NG101             what a code in a refusal means, and what to write instead
  noisegate demo                       see it work: a real server, real pods, no cluster
  noisegate webhook --config server.yaml
  noisegate certs issue ./certs --service noisegate.noisegate-system
  noisegate controller --kubeconfig ~/.kube/config
  noisegate node preflight             what this node has and lacks for holding limits
  noisegate node status                what each pod asked for, what was applied, what the kernel has
  noisegate registration --mutations mutations.yaml      the webhook configurations for these rules
  noisegate metrics                    what Prometheus sees

Each command tells more: noisegate check --help
"""

_INTERRUPTED: Final = 128 + signal.SIGINT
_PIPE_CLOSED: Final = 128 + signal.SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code.

    0 is good, 1 means that something was found wrong, 2 that the command could not be understood or its input not be read.
    """
    args = parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # What is still buffered would fail once more when Python flushes it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    return code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    plugin = PurePath(sys.argv[0]).name.startswith("kubectl-")
    whole = argparse.ArgumentParser(
        prog="kubectl noisegate" if plugin else "noisegate",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return whole


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version  # noqa: PLC0415  (slow to import)

        print(f"noisegate {version('noisegate')}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
