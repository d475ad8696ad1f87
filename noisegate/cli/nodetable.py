"""What a node's enforcer says, as tables for a person."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from noisegate.enforcement.status import CheckStatus, NodeStatus, PodStatus

NOTHING = "-"


def status(told: "NodeStatus") -> Iterator[str]:
    """Yield the lines of `noisegate node status`."""
    runtime = told.runtime or "a runtime that was never reached"
    yield f"{told.node}: {'connected to' if told.connected else 'NOT connected to'} {runtime}, noisegate {told.version}"
    yield f"holds: {', '.join(told.enforces) or 'nothing'}; RDT belongs to: {told.rdt_owner}"
    for check in told.checks:
        if not check.passed and check.kinds:
            yield f"missing for {', '.join(check.kinds)}: {check.name}: {check.found} ({check.mend})"
    rows = [row for pod in told.pods for row in _rows(pod)]
    yield ""
    if not rows:
        yield "no pod of this node asks for limits"
        return
    yield from table(("POD", "KIND", "ON", "ASKED", "APPLIED", "OBSERVED"), rows)
    for pod in told.pods:
        for line in pod.trouble:
            yield f"\n{pod.namespace}/{pod.name}: NOT HELD: {line}"
        for line in pod.skipped:
            yield f"\n{pod.namespace}/{pod.name}: left out: {line}"


def checks(rows: "Sequence[CheckStatus]") -> Iterator[str]:
    """Yield the lines of `noisegate node preflight`."""
    yield from table(
        ("", "CHECK", "FOUND", "NEEDED FOR"),
        [
            ("ok" if row.passed else "MISSING" if row.kinds else "note", row.name, row.found, ", ".join(row.kinds))
            for row in rows
        ],
    )
    for row in rows:
        if not row.passed:
            yield f"\n{row.name}: wanted: {row.wanted}" + (f"\n  {row.mend}" if row.mend else "")
    lost = sorted({kind for row in rows if not row.passed for kind in row.kinds})
    yield ""
    yield f"this node cannot hold: {', '.join(lost)}" if lost else "this node can hold everything"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a table's lines, each column as wide as its widest entry."""
    widths = [max(len(row[index]) for row in (head, *rows)) for index in range(len(head))]
    for row in (head, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _rows(pod: "PodStatus") -> Iterator[tuple[str, ...]]:
    name = f"{pod.namespace}/{pod.name}"
    for one in pod.disk:
        on = f"{one.device} {','.join(one.entries)}".strip()
        yield (name, "disk", on, _limits(one.asked), _limits(one.applied), _limits(one.observed))
    if pod.network is not None:
        one_net = pod.network
        on = one_net.interface or NOTHING
        yield (name, "network", on, _limits(one_net.asked), _limits(one_net.applied), _limits(one_net.observed))
    for container, rdt_class in sorted(pod.rdt.items()):
        yield (name, "rdt", container, rdt_class, rdt_class, NOTHING)


def _limits(values: dict[str, int | None]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items() if value is not None) or "no limit"
