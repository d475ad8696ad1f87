"""deploy/monitoring speaks of metrics that exist."""

import json
import re
from pathlib import Path
from typing import Final

import pytest
import yaml

from noisegate.cli import metrics

FOLDER: Final = Path(__file__).parents[2] / "deploy" / "monitoring"
KNOWN: Final = {
    row.name for registry in (metrics.webhook(), metrics.controller(), metrics.node()) for row in metrics.rows(registry)
}
_NAME: Final = re.compile(r"\b(?:noisegate|process)_[a-z_]+")


def _expressions() -> list[str]:
    (rules,) = yaml.safe_load_all((FOLDER / "alerts.yaml").read_text())
    alerts = [rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    return [*alerts, *(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])]


@pytest.mark.parametrize("expression", _expressions())
def test_every_metric_exists(expression: str) -> None:
    """By the name that Prometheus stores; brackets are closed."""
    for name in _NAME.findall(expression):
        assert name in KNOWN or name.removesuffix("_bucket") in KNOWN, name
    for pair in ("()", "{}", "[]"):
        assert expression.count(pair[0]) == expression.count(pair[1])


def test_every_alert_says_what_to_do() -> None:
    """A summary, a severity, a name of ours, each once."""
    (rules,) = yaml.safe_load_all((FOLDER / "alerts.yaml").read_text())
    alerts = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in alerts}) == len(alerts)
    for rule in alerts:
        assert rule["alert"].startswith("Noisegate")
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"warning", "critical"}
