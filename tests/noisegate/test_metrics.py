"""`noisegate metrics`: the reference is made from what the programs expose."""

from pathlib import Path

import pytest

from noisegate.__main__ import main
from noisegate.cli import metrics

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_programs_expose(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/metrics.md is up to date."""
    assert main(["metrics", "--markdown"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs" / "metrics.md").read_text()


def test_names_are_those_that_prometheus_stores(capsys: pytest.CaptureFixture[str]) -> None:
    """Counters end in _total; labels are named; every metric says what it is."""
    rows = metrics.rows(metrics.webhook())
    by_name = {row.name: row for row in rows}
    assert by_name["noisegate_requests_total"].labels == ("endpoint", "result")
    assert by_name["noisegate_request_duration_seconds"] == (
        "noisegate_request_duration_seconds",
        "histogram",
        ("endpoint",),
        "Time from a call's head to its answer.",
    )
    assert all(row.about for row in rows)
    assert main(["metrics"]) == 0
    assert "  noisegate_requests_total{endpoint,result} " in capsys.readouterr().out
