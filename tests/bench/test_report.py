"""What was measured is held against the targets and told."""

from pathlib import Path

import pytest

from bench import cases, report, rounds
from bench.load import Measured
from bench.rounds import Cell, Idle, Results


def measured(rate: float, p50: float = 0.5, p99: float = 1.0) -> Measured:
    """Return a measurement."""
    return Measured(rate, p50, p99, 1e6 / rate, 20.0, 1000)


def results(cells: tuple[Cell, ...] = (), idle: tuple[Idle, ...] = (), resident: int = 50_000_000) -> Results:
    """Return results."""
    machine = {"processor": "a processor"}
    return Results(
        "2026-01-02", machine, rounds.FULL, cells, idle, (), (0.4, 0.5, 0.6), resident, 40_000_000, 0, 0.01, ()
    )


def cell(ours: tuple[float, ...], noop: tuple[float, ...], *, p99: float = 1.0) -> Cell:
    """Return the mutate case at 8 connections."""
    return Cell(
        cases.MUTATE,
        8,
        tuple(measured(rate, p99=p99) for rate in ours),
        tuple(measured(rate) for rate in noop),
    )


def test_ratio_is_taken_round_by_round() -> None:
    """The median of the rounds' ratios counts, not the ratio of medians: a slow moment slows both."""
    assert report.ratios(cell((50, 90, 80), (100, 100, 100))) == [0.5, 0.9, 0.8]


@pytest.mark.parametrize(
    ("ours", "p99", "expected"),
    [
        pytest.param((8100.0, 8000.0, 8200.0), 2.0, [True, True], id="met"),
        pytest.param((7900.0, 7000.0, 8200.0), 2.1, [False, False], id="missed"),
    ],
)
def test_targets(ours: tuple[float, ...], p99: float, expected: list[bool]) -> None:
    """A ratio below its target is missed, and so is a p99 above four times p50."""
    told = report.verdicts(results((cell(ours, (10000.0,) * 3, p99=p99),)))
    assert [each.met for each in told if each.what.startswith("7 KB")] == expected


@pytest.mark.parametrize(
    ("among", "after", "met"),
    [
        pytest.param(990.0, 1010.0, True, id="within-noise"),
        pytest.param(900.0, 1010.0, False, id="slower"),
        pytest.param(900.0, 1200.0, None, id="too-noisy"),
    ],
)
def test_idle_connections(among: float, after: float, met: bool | None) -> None:
    """Idle connections may change no more than the same measurement does when it is repeated."""
    looks = tuple(Idle(measured(1000), measured(among), measured(after)) for _ in range(3))
    assert next(each.met for each in report.verdicts(results(idle=looks)) if "idle" in each.what) is met


def test_memory() -> None:
    """More than 60 MB is missed."""
    assert next(each.met for each in report.verdicts(results(resident=60_100_000)) if "resident" in each.what) is False


def test_written_between_the_marks(tmp_path: Path) -> None:
    """A new report takes the old one's place; the words around it stay."""
    document = tmp_path / "benchmarks.md"
    document.write_text(f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\nend\n")
    report.write(document, "new\n")
    report.write(document, "newer\n")
    assert document.read_text() == f"# Title\n\n{report.BEGIN}\n\nnewer\n\n{report.END}\n\nend\n"


def test_document_without_marks(tmp_path: Path) -> None:
    """A document without the marks is left as it is."""
    document = tmp_path / "other.md"
    document.write_text("# Other\n")
    with pytest.raises(ValueError, match="lacks the marks"):
        report.write(document, "new\n")
    assert document.read_text() == "# Other\n"


def test_report_names_no_paths() -> None:
    """A report holds the machine's description and tables, and says what was missed."""
    told = report.text(results((cell((7000.0,), (10000.0,)),)))
    assert told.startswith("Measured 2026-01-02 on: processor a processor.\n")
    assert "| 7 KB, mutate, replicas, 8 connections: requests/s by no-op A's | >= 0.80 " in told
    assert "**missed**" in told
