"""deploy/monitoring speaks of metrics that exist."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from noisegate.cli import metrics

FOLDER: Final = Path(__file__).parents[2] / "deploy" / "monitoring"
KNOWN: Final = {
    row.name for registry in (metrics.webhook(), metrics.controller(), metrics.node()) for row in metrics.rows(registry)
}
_NAME: Final = re.compile(r"\b(?:noisegate|process)_[a-z_]+")


def _alerts() -> list[dict[str, Any]]:
    (rules,) = yaml.safe_load_all((FOLDER / "alerts.yaml").read_text())
    return [rule for group in rules["spec"]["groups"] for rule in group["rules"]]


def _expressions() -> list[str]:
    alerts = [rule["expr"] for rule in _alerts()]
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    return [*alerts, *(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])]


@pytest.mark.parametrize("expression", _expressions())
def test_every_metric_exists(expression: str) -> None:
    """By the name that Prometheus stores; brackets are closed."""
    for name in _NAME.findall(expression):
        assert name in KNOWN or name.removesuffix("_bucket") in KNOWN, name
    for pair in ("()", "{}", "[]"):
        assert expression.count(pair[0]) == expression.count(pair[1])


def test_jobs_are_those_of_the_monitors() -> None:
    """A PodMonitor's job is its namespace and name (prometheus-operator, PodMonitorSpec.jobLabel); it has no other here."""
    monitors = yaml.safe_load_all((FOLDER / "monitors.yaml").read_text())
    pods = [value for value in monitors if value["kind"] == "PodMonitor"]
    assert all("jobLabel" not in value["spec"] for value in pods)
    jobs = {f"{value['metadata']['namespace']}/{value['metadata']['name']}" for value in pods}
    named = {job for expression in _expressions() for job in re.findall('job="([^"]*)"', expression)}
    assert named == jobs


def test_an_enforcer_that_has_gone_is_told() -> None:
    """By `up`, the only series that is left of it."""
    (rule,) = (rule for rule in _alerts() if rule["alert"] == "NoisegateNodeDown")
    assert rule["expr"].startswith("up{")
    assert (rule["for"], rule["labels"]["severity"]) == ("2m", "critical")


def test_every_alert_says_what_to_do() -> None:
    """A summary, a severity, a name of ours, each once."""
    alerts = _alerts()
    assert len({rule["alert"] for rule in alerts}) == len(alerts)
    for rule in alerts:
        assert rule["alert"].startswith("Noisegate")
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"warning", "critical"}
