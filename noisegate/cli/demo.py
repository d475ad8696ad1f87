"""`noisegate demo`: a real admission server, real pods over mutual TLS, no cluster; what `make run` shows.

Exit codes: 0 every example came out as its comment promises, 1 one did not, 2 the demo could not run.
"""

import argparse
import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from noisegate.cli.paint import CHOICES, Paint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from noisegate.cli.expectations import Example
    from noisegate.cli.showcase import Shown
    from noisegate.cli.trial import Server

TEXT = """\
See it work, without a cluster: makes certificates, starts a real admission server on a free port of this machine, sends
the example manifests through it over mutual TLS as the API server would, and shows which were refused and why, and what
the others were given. Leaves nothing behind.
"""

CLIENT: Final = "kube-apiserver"
"""Name in the client certificate."""
CONFIGURATION: Final = frozenset({"server.yaml", "classes.yaml", "mutations.yaml"})
"""Files among the examples that are no manifests."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command `demo`."""
    parser = subparsers.add_parser(
        "demo",
        help="see it work: a real server, real pods, no cluster",
        description=TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--all", action="store_true", help="show every object, also those that are one of many")
    parser.add_argument("--keep", action="store_true", help="go on serving until Ctrl-C, and tell how to send to it")
    parser.add_argument("--examples", metavar="DIR", type=Path, help="other examples than those noisegate ships")
    parser.add_argument("--color", choices=CHOICES, default="auto", help="colour (default: on a terminal)")
    parser.set_defaults(run=run, clock=_now)


def run(args: argparse.Namespace) -> int:
    """Show everything; return the exit code."""
    from noisegate.cli.trial import TrialError  # noqa: PLC0415  (the help must not wait for it)
    from noisegate.service.faults import ConfigError  # noqa: PLC0415

    # As Ctrl-C: what was started is ended, and the directory of certificates removed.
    # SIGTERM ends it as Ctrl-C does; and so does SIGINT where a shell that put it into the background had it ignored.
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return _run(args)
    except (ConfigError, TrialError) as error:
        print(f"noisegate demo: {error}", file=sys.stderr)
        return 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def examples_of(root: Path) -> "Iterator[Example]":
    """Yield the examples below a folder, with what they promise; the files' names begin at the folder.

    Raises:
        ConfigError: A file cannot be read, or a promise makes no sense.
    """
    from noisegate.cli import expectations  # noqa: PLC0415
    from noisegate.webhook import manifestfiles  # noqa: PLC0415

    for path in manifestfiles.find([str(root)]):
        if path.name not in CONFIGURATION:
            yield from expectations.read(manifestfiles.read_bytes(path), str(path.relative_to(root)))


def _run(args: argparse.Namespace) -> int:
    import tempfile  # noqa: PLC0415

    from noisegate.certs.store import provide  # noqa: PLC0415
    from noisegate.cli import showcase, trial  # noqa: PLC0415
    from noisegate.webhook import manifestfiles  # noqa: PLC0415

    root = args.examples or Path(__file__).parents[1] / "examples"
    paint = Paint.of(args.color, sys.stdout, os.environ)
    with tempfile.TemporaryDirectory(prefix="noisegate-demo-") as folder:
        certs = Path(folder)
        provide(certs, args.clock(), [trial.HOST], CLIENT)
        files = sorted({_settings_of(path, root) for path in [root / "x", *manifestfiles.find([str(root)])]})
        with trial.Servers(certs, CLIENT, files) as servers:
            examples = list(examples_of(root))
            reached = servers.reach()
            where = reached[_settings_of(root / "x", root)]
            print(
                paint(
                    f"{paint.good} admission server on https://{trial.HOST}:{where.port}, mutual TLS, no cluster",
                    "bold",
                )
            )
            print()
            objects = [
                _try(example, reached[_settings_of(root / example.document.source, root)]) for example in examples
            ]
            shown = [one for one in objects if one is not None]
            if not shown:
                raise trial.TrialError(f"{root}: there is nothing here that an admission server judges")
            seconds = [took for server in reached.values() for took in server.seconds]
            width = shutil.get_terminal_size((showcase.WIDEST, 50)).columns
            for line in showcase.report(shown, seconds, paint, width, everything=args.all):
                print(line)
            print()
            if args.keep:
                _keep(where, certs, root, examples, paint)
            else:
                _tell_what_next(paint)
            return 1 if any(one.differences for one in shown) else 0


def _settings_of(file: Path, root: Path) -> str:
    from noisegate.cli import expectations  # noqa: PLC0415

    return str(expectations.settings_of(file, root) or "")


def _try(example: "Example", server: "Server") -> "Shown | None":
    """Do with an example what its comment says; None where it is of no kind that the server judges."""
    from noisegate.cli import expectations, offline  # noqa: PLC0415
    from noisegate.cli.showcase import Shown, Told  # noqa: PLC0415

    document = example.document
    if not offline.is_ours(document):
        return None
    value = offline.as_created(document)
    problems: tuple[Told, ...] = ()
    warnings: dict[str, None] = {}
    happened = expectations.Seen()
    for endpoint, operation in _calls(example):
        old = offline.as_created(example.before) if example.before is not None else None
        body = offline.body_of(document, document.namespace or "default", value, operation=operation, old=old)
        response = server.ask(endpoint, body)
        happened = happened.then(expectations.seen(response, value))
        warnings.update(dict.fromkeys(response.get("warnings", ())))
        if not response["allowed"]:
            problems = tuple(_told(cause) for cause in response["status"]["details"]["causes"])
            break
        value = offline.patched(value, expectations.operations_of(response))
    differences = tuple(expectations.compare(example.expected, happened))
    return Shown(example, happened.allowed, problems, tuple(warnings), happened.given, differences)


def _calls(example: "Example") -> "Sequence[tuple[str, str]]":
    if example.before is not None:
        return (("validate", "UPDATE"),)
    if example.expected.sent == "validate" or example.document.kind != "Pod":
        return (("validate", "CREATE"),)
    return (("mutate", "CREATE"), ("validate", "CREATE"))


def _told(cause: "dict[str, Any]") -> Any:
    from noisegate.cli.showcase import Told  # noqa: PLC0415

    code, _, text = cause["message"].partition(": ")
    return Told(code, cause.get("field", ""), text)


def _tell_what_next(paint: Paint) -> None:
    print(paint("Try next", "bold"))
    print("  noisegate check your.yaml     the same for your manifests, without a server")
    print("  noisegate problems NG101      what a code means, and what to write instead")
    print("  noisegate demo --keep         keep the server, and send to it yourself")
    print("  noisegate demo --all          every example")


def _keep(server: "Server", certs: Path, root: Path, examples: "Sequence[Example]", paint: Paint) -> None:
    from noisegate.cli import offline, trial  # noqa: PLC0415

    pod = next((example.document for example in examples if example.document.kind == "Pod"), None)
    if pod is not None:
        review = certs / "review.json"
        review.write_bytes(offline.body_of(pod, "default", offline.as_created(pod)))
        print(paint(f"Send {pod.source} to it", "bold"))
        print(f"  curl --cacert {certs}/ca.crt --cert {certs}/client.crt --key {certs}/client.key \\")
        print(f"    -H 'Content-Type: application/json' --data @{review} https://{trial.HOST}:{server.port}/mutate")
    print(paint("Look at it", "bold"))
    print(f"  curl http://{trial.HOST}:{server.health_port}/readyz")
    print(f"  curl http://{trial.HOST}:{server.health_port}/metrics")
    print()
    settings = _settings_of(root / "x", root)
    with contextlib.suppress(KeyboardInterrupt):
        print(f"serving with {f'the settings of {settings}' if settings else 'all defaults'} until Ctrl-C", flush=True)
        while True:
            # signal.pause() would sleep through a signal that came just before it.
            time.sleep(1.0)


def _now() -> "datetime":
    from datetime import UTC, datetime  # noqa: PLC0415

    return datetime.now(UTC)
