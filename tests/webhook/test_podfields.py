"""Facts of the Pod API."""

from typing import Any

import pytest

from noisegate.webhook.podfields import same


@pytest.mark.parametrize(
    ("wanted", "existing"),
    [
        pytest.param({"hostPath": {"path": "/proc"}}, {"hostPath": {"path": "/proc", "type": ""}}, id="host path type"),
        pytest.param({"secret": {"secretName": "x"}}, {"secret": {"secretName": "x", "defaultMode": 420}}, id="mode"),
        pytest.param(
            {"downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {
                "downwardAPI": {
                    "defaultMode": 420,
                    "items": [{"path": "a", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}],
                }
            },
            id="downward API",
        ),
        pytest.param({"emptyDir": {"sizeLimit": "1024Mi"}}, {"emptyDir": {"sizeLimit": "1Gi"}}, id="quantity"),
        pytest.param("x", "x", id="text"),
    ],
)
def test_same(wanted: Any, existing: Any) -> None:
    """What the API server fills in or rewrites makes no difference."""
    assert same(wanted, existing)


@pytest.mark.parametrize(
    ("wanted", "existing"),
    [
        pytest.param({"hostPath": {"path": "/proc"}}, {"hostPath": {"path": "/"}}, id="another path"),
        pytest.param({"hostPath": {"path": "/proc"}}, {"emptyDir": {}}, id="another source"),
        pytest.param(
            {"hostPath": {"path": "/d", "type": "Directory"}},
            {"hostPath": {"path": "/d", "type": ""}},
            id="another type",
        ),
        pytest.param({"emptyDir": {}}, {"emptyDir": {"medium": "Memory"}}, id="more than asked"),
        pytest.param({"emptyDir": {"sizeLimit": "1Gi"}}, {"emptyDir": {"sizeLimit": "2Gi"}}, id="another size"),
        pytest.param({"emptyDir": {"sizeLimit": "big"}}, {"emptyDir": {"sizeLimit": "1Gi"}}, id="no size"),
        pytest.param([1], [1, 2], id="longer list"),
        pytest.param(1, True, id="number and boolean"),
    ],
)
def test_not_same(wanted: Any, existing: Any) -> None:
    """Everything else is a difference."""
    assert not same(wanted, existing)
