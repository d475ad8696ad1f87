"""What was measured, told: tables for people (the same text on the screen and in docs/), JSON for programs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from bench.load import Measured
from bench.rounds import Cell, Results

LARGEST_RESIDENT: Final = 60
"""MB (10^6 bytes) per worker, at most."""
LONGEST_START: Final = 1.0
"""Seconds from exec to ready, at most."""
WIDEST: Final = 4.0
"""p99 by p50 at 8 connections, at most."""
LEAST_NOISE: Final = 0.03
MOST_NOISE: Final = 0.10
"""Share by which two equal measurements may differ: less is taken for this much, more tells nothing."""
QUIET: Final = 0.05
"""Share of the machine that others may take before the figures are called disturbed."""

BEGIN: Final = "<!-- results: written by `make bench` -->"
END: Final = "<!-- end of results -->"


class Verdict(NamedTuple):
    """A target and what became of it. `met` is None where it was not measured."""

    what: str
    target: str
    measured: str
    met: bool | None


def ratios(cell: Cell) -> list[float]:
    """Return noisegate's requests per second by the no-op's, round by round."""
    return [ours.rate / noop.rate for ours, noop in zip(cell.ours, cell.noop, strict=True)]


def verdicts(results: Results) -> list[Verdict]:
    """Hold the figures against the targets."""
    told: list[Verdict] = []
    for cell in results.cells:
        target = cell.case.targets.get(cell.connections)
        if target is not None:
            ratio = median(ratios(cell))
            what = f"{cell.case.size}, {cell.case.name}, {cell.connections} connections: requests/s by no-op A's"
            told.append(Verdict(what, f">= {target:.2f}", f"{ratio:.2f}", ratio >= target))
    for cell in results.cells:
        if cell.connections == 8:
            wide, noop = (median([each.p99 / each.p50 for each in side]) for side in (cell.ours, cell.noop))
            what = f"{cell.case.size}, {cell.case.name}, 8 connections: p99 by p50"
            told.append(Verdict(what, f"<= {WIDEST:g}", f"{wide:.1f} (no-op A {noop:.1f})", wide <= WIDEST))
    told.append(_idle_verdict(results))
    resident = results.resident / 1e6
    told.append(
        Verdict(
            "resident memory of a worker after the load",
            f"<= {LARGEST_RESIDENT} MB",
            f"{resident:.0f} MB",
            resident <= LARGEST_RESIDENT,
        )
    )
    start = median(results.starts)
    told.append(Verdict("exec to ready", f"<= {LONGEST_START:g} s", f"{start:.2f} s", start <= LONGEST_START))
    return told


def _idle_verdict(results: Results) -> Verdict:
    what = f"{results.plan.idle or 1000} idle connections beside 8 busy ones: change of requests/s"
    if not results.idle:
        return Verdict(what, "within noise", "not measured", None)
    changes = [2 * each.among.rate / (each.before.rate + each.after.rate) - 1 for each in results.idle]
    noise = median([abs(each.before.rate / each.after.rate - 1) for each in results.idle])
    change = median(changes)
    if noise > MOST_NOISE:
        return Verdict(
            what, "within noise", f"{change:+.1%}; the same twice differs by {noise:.0%}: too noisy to tell", None
        )
    least = max(LEAST_NOISE, noise)
    return Verdict(what, f"within noise (+-{least:.0%})", f"{change:+.1%}", abs(change) <= least)


def text(results: Results) -> str:
    """Return the whole report as Markdown."""
    return "\n\n".join(_parts(results)) + "\n"


def _parts(results: Results) -> Iterator[str]:
    plan = results.plan
    yield (
        f"Measured {results.date} on: " + ", ".join(f"{name} {value}" for name, value in results.machine.items()) + "."
    )
    rounds = (
        f"Medians of {plan.rounds} shuffled rounds of {plan.seconds:g} s."
        if plan.rounds > 1
        else f"One round of {plan.seconds:g} s: a glance, no measurement."
    )
    others = f"Other processes took {results.others:.0%} of the machine meanwhile"
    disturbed = (
        "." if results.others <= QUIET else ": **disturbed**; trust the ratios more than the figures, and neither much."
    )
    yield f"{rounds} {others}{disturbed}"
    yield "### Targets\n\n" + table(
        ("what", "target", "measured", ""),
        [
            (each.what, each.target, each.measured, {True: "met", False: "**missed**", None: "-"}[each.met])
            for each in verdicts(results)
        ],
    )
    yield "### Closed loop\n\n" + table(
        (
            "request",
            "conns",
            "noisegate req/s",
            "no-op A req/s",
            "ratio [least-most]",
            "by CPU",
            "p50 ms",
            "p99 ms",
            "no-op p50/p99",
            "CPU us",
        ),
        [_row(cell) for cell in results.cells],
    )
    if results.open_loops:
        yield "### Open loop, 7 KB, mutate\n\n" + table(
            ("arrivals/s", "noisegate p50/p99 ms", "no-op A p50/p99 ms"),
            [(str(rate), _times(ours), _times(noop)) for rate, ours, noop in results.open_loops],
        )
    yield "### Start and memory\n\n" + table(("what", "measured"), _rest(results))
    if results.costs:
        yield (
            "### What costs what\n\nMicroseconds of CPU time per call, in one process and a loop, without TLS and HTTP; between\nother requests, with colder caches, each costs more.\n\n"
            + table(
                ("stage", "7 KB", "21 KB"),
                [(cost.stage, *(f"{cost.micros[size]:.1f}" for size in ("7 KB", "21 KB"))) for cost in results.costs],
            )
        )


def _row(cell: Cell) -> tuple[str, ...]:
    rates = ratios(cell)
    by_cpu = [noop.server_micros / ours.server_micros for ours, noop in zip(cell.ours, cell.noop, strict=True)]
    return (
        f"{cell.case.size} {cell.case.name}",
        str(cell.connections),
        f"{_median(cell.ours, 'rate'):.0f}",
        f"{_median(cell.noop, 'rate'):.0f}",
        f"{median(rates):.2f} [{min(rates):.2f}-{max(rates):.2f}]",
        f"{median(by_cpu):.2f}",
        f"{_median(cell.ours, 'p50'):.2f}",
        f"{_median(cell.ours, 'p99'):.2f}",
        f"{_median(cell.noop, 'p50'):.2f}/{_median(cell.noop, 'p99'):.2f}",
        f"{_median(cell.ours, 'server_micros'):.0f}",
    )


def _rest(results: Results) -> list[tuple[str, str]]:
    load = [each.load_micros for cell in results.cells if cell.connections > 1 for each in (*cell.ours, *cell.noop)]
    rows = [
        ("exec to ready, each start", ", ".join(f"{start:.2f}" for start in results.starts) + " s"),
        ("resident memory after the load, noisegate", f"{results.resident / 1e6:.0f} MB"),
        ("resident memory after the load, no-op A", f"{results.resident_noop / 1e6:.0f} MB"),
        (
            "CPU time of the load generator per answer",
            f"{median(load):.0f} us: it could drive {1e6 / median(load):.0f} requests/s",
        ),
    ]
    if results.resident_idle:
        rows.insert(
            3,
            (
                f"resident memory with {results.plan.idle} idle connections, noisegate",
                f"{results.resident_idle / 1e6:.0f} MB",
            ),
        )
    return rows


def _times(measured: Measured) -> str:
    return f"{measured.p50:.2f} / {measured.p99:.2f}"


def _median(side: Sequence[Measured], field: str) -> float:
    return float(median([getattr(each, field) for each in side]))


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table of Markdown."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [head, tuple("-" * max(3, width) for width in widths), *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def as_json(results: Results) -> dict[str, Any]:
    """Return all figures as JSON values."""
    return {
        "date": results.date,
        "machine": results.machine,
        "plan": results.plan._asdict(),
        "others": results.others,
        "cells": [
            {
                "case": cell.case.name,
                "size": cell.case.size,
                "connections": cell.connections,
                "target": cell.case.targets.get(cell.connections),
                "ratio": median(ratios(cell)),
                "noisegate": [each._asdict() for each in cell.ours],
                "noop": [each._asdict() for each in cell.noop],
            }
            for cell in results.cells
        ],
        "idle": [{name: each._asdict() for name, each in look._asdict().items()} for look in results.idle],
        "openLoops": [
            {"rate": rate, "noisegate": ours._asdict(), "noop": noop._asdict()}
            for rate, ours, noop in results.open_loops
        ],
        "starts": results.starts,
        "residentBytes": results.resident,
        "residentBytesNoop": results.resident_noop,
        "residentBytesIdle": results.resident_idle,
        "micros": {cost.stage: cost.micros for cost in results.costs},
        "targets": [each._asdict() for each in verdicts(results)],
    }


def write(path: Path, report: str) -> None:
    """Put a report between the two marks of a document.

    Raises:
        ValueError: The document does not have the marks, one after the other.
    """
    before, begin, rest = path.read_text().partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} lacks the marks {BEGIN} and {END} between which the results stand")
    path.write_text(f"{before}{BEGIN}\n\n{report}\n{END}{after}")
