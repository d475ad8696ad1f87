"""`noisegate metrics`: every metric of all programs; `docs/metrics.md` is the same in Markdown."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

TEXT = """\
List what Prometheus sees of the admission server, of the controller and of the node enforcer: names, types, labels, and what they mean.

example:
  noisegate metrics
"""

PROCESS: Final = "process_"
"""Begins the names that prometheus-client gives what the kernel says of a process."""


class Row(NamedTuple):
    """One metric.

    Attributes:
        name: As Prometheus stores it.
        kind: `counter`, `gauge` or `histogram`.
        labels: Names of its labels, sorted; without `le`.
        about: What it says.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    about: str


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command `metrics`."""
    parser = subparsers.add_parser(
        "metrics",
        help="list the metrics of all programs",
        description=TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--markdown", action="store_true", help="print docs/metrics.md instead")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the metrics; return the exit code, 0."""
    programs = {
        "noisegate webhook": rows(webhook()),
        "noisegate controller": rows(controller()),
        "noisegate node run": rows(node()),
    }
    if args.markdown:
        print(markdown(programs), end="")
        return 0
    for program, table in programs.items():
        print(f"{program}\n")
        width = max(len(row.name) + len(_braces(row)) for row in table)
        for row in table:
            print(f"  {row.name + _braces(row):<{width}}  {row.kind:<9}  {row.about}")
        print()
    return 0


def webhook() -> "CollectorRegistry":
    """Return the registry of an admission server that has just started, with all that it can be told to do."""
    from noisegate.webhook.metrics import Metrics  # noqa: PLC0415  (the help must not wait for it)
    from noisegate.webhook.server import CERTIFICATE, ENDPOINTS  # noqa: PLC0415

    metrics = Metrics(ENDPOINTS, ["NG101"], [CERTIFICATE])
    metrics.follow(["networks"])
    return metrics.registry


def controller() -> "CollectorRegistry":
    """Return the registry of a controller that has just started."""
    from noisegate.control.metrics import Metrics  # noqa: PLC0415

    return Metrics().registry


def node() -> "CollectorRegistry":
    """Return the registry of a node enforcer that has just started."""
    from noisegate.enforcement.metrics import Metrics  # noqa: PLC0415

    return Metrics().registry


def rows(registry: "CollectorRegistry") -> list[Row]:
    """Return the metrics of a registry, by name; those about the process last."""
    return sorted(_rows(registry), key=lambda row: (row.name.startswith(PROCESS), row.name))


def _rows(registry: "CollectorRegistry") -> Iterator[Row]:
    for family in registry.collect():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield Row(name, family.type, tuple(sorted(labels)), family.documentation)


def markdown(programs: dict[str, list[Row]]) -> str:
    """Return `docs/metrics.md`."""
    lines = [
        "# Metrics",
        "",
        "Each program answers `/metrics` on its health port (8080 the webhook, 8081 the controller, 8082 the enforcer). Units are base units,",
        "no label grows with what clients send, and what is known from the start is there from the start, with zero.",
        "",
        "This page is made from the code: `make docs`.",
    ]
    for program, table in programs.items():
        lines += ["", f"## {program}", "", "| metric | type | labels | what it says |", "|---|---|---|---|"]
        for row in table:
            labels = ", ".join(f"`{label}`" for label in row.labels)
            lines.append(f"| `{row.name}` | {row.kind} | {labels} | {row.about} |")
    return "\n".join(lines) + "\n"


def _braces(row: Row) -> str:
    return f"{{{','.join(row.labels)}}}" if row.labels else ""
