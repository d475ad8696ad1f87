"""Network bandwidth of a pod."""

import msgspec
import pytest

from noisegate.isolation import network
from noisegate.isolation.bounds import UNSET, Bound, Change
from noisegate.isolation.network import NetworkRequest
from noisegate.isolation.problems import Findings, Problem
from noisegate.webhook.objects import PodSpec

AT = "metadata.annotations[networkio.kubernetes.io/resources]"
NO_QUANTITY = "is not a quantity: a number, then nothing, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi or Ei"
M = 10**6


@pytest.mark.parametrize(
    ("text", "expected", "qos"),
    [
        pytest.param(
            '{"requests":{"ingress":"50M","egress":"50M"},"limits":{"ingress":"50M","egress":"50M"}}',
            NetworkRequest(Bound(50 * M, 50 * M), Bound(50 * M, 50 * M)),
            "guaranteed",
            id="guaranteed",
        ),
        pytest.param(
            '{"limits":{"egress":"1.5G"}}',
            NetworkRequest(UNSET, Bound(1500 * M, 1500 * M, follows=True)),
            "guaranteed",
            id="limit alone",
        ),
        pytest.param(
            '{"requests":{"ingress":"50Mi"},"limits":{"ingress":"60Mi"}}',
            NetworkRequest(Bound(50 << 20, 60 << 20), UNSET),
            "burstable",
            id="burstable",
        ),
    ],
)
def test_sound_requests(text: str, expected: NetworkRequest, qos: str) -> None:
    """A sound value has one meaning, in bits per second, and no word is said."""
    found = Findings()
    request = network.read(text, found)
    assert request is not None
    assert (request, request.qos, found.problems, found.warnings) == (expected, qos, [], [])


def test_request_without_limit() -> None:
    """A request without a limit is admitted with a warning: nothing holds it yet."""
    found = Findings()
    request = network.read('{"requests":{"ingress":"50M","egress":"5M"},"limits":{"egress":"9M"}}', found)
    assert request == NetworkRequest(Bound(50 * M), Bound(5 * M, 9 * M))
    told = "ingress: a request without a limit is not reserved or enforced by anything yet"
    assert (found.problems, found.warnings) == ([], [Problem("NG052", AT, "ingress", told, "give a limit")])


@pytest.mark.parametrize("text", ["{}", '{"limits":{}}', '{"requests":{},"limits":{}}'])
def test_asks_for_nothing(text: str) -> None:
    """What asks for nothing is no request, with a warning."""
    found = Findings()
    assert network.read(text, found) is None
    assert found.problems == []
    assert found.warnings == [Problem("NG051", AT, text, "it asks for nothing", "leave the annotation out")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "", [("NG005", "", "", "the value is empty; it must be JSON", "leave the annotation out")], id="empty"
        ),
        pytest.param("null", [("NG004", "", "", "must be an object, not null", "")], id="null"),
        pytest.param(
            '{"limit":{"egress":"50M"}}',
            [
                (
                    "NG003",
                    ".limit",
                    '{"egress": "50M"}',
                    'unknown key "limit"; allowed: limits, requests',
                    "write limits",
                )
            ],
            id="unknown group",
        ),
        pytest.param(
            '{"limits":{"out":"50M"}}',
            [("NG003", ".limits.out", "50M", 'unknown key "out"; allowed: egress, ingress', "")],
            id="unknown direction",
        ),
        pytest.param(
            '{"limits":{"egress":"50Mbps","ingress":"50MB"}}',
            [
                (
                    "NG006",
                    ".limits.ingress",
                    "50MB",
                    f'"50MB" {NO_QUANTITY}; the unit is bits per second',
                    "write 50M",
                ),
                (
                    "NG006",
                    ".limits.egress",
                    "50Mbps",
                    f'"50Mbps" {NO_QUANTITY}; the unit is bits per second',
                    "write 50M",
                ),
            ],
            id="unit words",
        ),
        pytest.param(
            '{"limits":{"egress":50}}',
            [("NG004", ".limits.egress", "50", "must be a string, not a number", 'write "50"')],
            id="number",
        ),
        pytest.param(
            '{"requests":{"egress":"60M"},"limits":{"egress":"50M"}}',
            [
                (
                    "NG008",
                    ".requests.egress",
                    "60M",
                    'request "60M" is larger than limit "50M"',
                    "lower the request or raise the limit",
                )
            ],
            id="request above limit",
        ),
    ],
)
def test_bad_values(text: str, expected: list[tuple[str, str, str, str, str]]) -> None:
    """Everything that is wrong is told in one pass."""
    found = Findings()
    network.read(text, found)
    assert found.problems == [Problem(code, AT + path, value, told, hint) for code, path, value, told, hint in expected]
    assert found.warnings == []


REQUEST = NetworkRequest(UNSET, Bound(50 * M, 50 * M))


def test_fits() -> None:
    """A pod with a network of its own and no other shaper fits."""
    found = Findings()
    network.fit(REQUEST, PodSpec(), {"networkio.kubernetes.io/resources": "{}"}, found)
    assert (found.problems, found.warnings) == ([], [])


def test_host_network() -> None:
    """A pod in the host's network cannot ask."""
    found = Findings()
    network.fit(REQUEST, msgspec.convert({"hostNetwork": True}, PodSpec), {}, found)
    told = "a pod with hostNetwork: true has no network interface of its own to limit"
    assert found.problems == [Problem("NG201", AT, "", told, "leave the annotation or hostNetwork out")]


def test_two_shapers() -> None:
    """The CNI bandwidth plugin's annotations cannot stand beside ours."""
    found = Findings()
    annotations = {"kubernetes.io/ingress-bandwidth": "1M", "kubernetes.io/egress-bandwidth": "2M"}
    network.fit(REQUEST, PodSpec(), annotations, found)
    assert found.problems == [
        Problem(
            "NG202",
            f"metadata.annotations[kubernetes.io/{direction}-bandwidth]",
            value,
            f"kubernetes.io/{direction}-bandwidth makes the CNI bandwidth plugin shape the interface that networkio.kubernetes.io/resources is about; one of the two can",
            f"leave it out and say limits.{direction} there",
        )
        for direction, value in (("ingress", "1M"), ("egress", "2M"))
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(REQUEST, REQUEST, [], id="the same"),
        pytest.param(REQUEST, NetworkRequest(UNSET, Bound(50 * M, 60 * M)), [], id="limit"),
        pytest.param(
            REQUEST,
            NetworkRequest(UNSET, Bound(40 * M, 50 * M)),
            [
                Change(
                    f"{AT}.requests.egress",
                    "40M",
                    "the request may not change on a running pod: it is 50M, not 40M",
                )
            ],
            id="request",
        ),
        pytest.param(
            REQUEST,
            None,
            [
                Change(f"{AT}.limits.egress", "", "a limit may not be removed on a running pod"),
                Change(f"{AT}.requests.egress", "", "a request may not be removed on a running pod"),
            ],
            id="removed",
        ),
        pytest.param(
            None,
            NetworkRequest(Bound(50 * M, 50 * M, follows=True), UNSET),
            [Change(f"{AT}.limits.ingress", "50M", "a limit may not be added on a running pod")],
            id="added",
        ),
    ],
)
def test_changes(old: NetworkRequest | None, new: NetworkRequest | None, expected: list[Change]) -> None:
    """On a running pod only the value of a limit may change."""
    assert network.changed(old, new) == expected
