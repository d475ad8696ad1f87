"""Devices that a pod's containers must ask for."""

from typing import Any

import msgspec
import pytest

from noisegate.isolation import devices
from noisegate.isolation.devices import Grant
from noisegate.isolation.policy import SriovPolicy
from noisegate.isolation.problems import Findings, Problem
from noisegate.isolation.sriov import NOTHING, Attachments
from noisegate.webhook.objects import PodSpec

A = "intel.com/sriov_a"
B = "intel.com/sriov_b"
OWN = "noisegate.io/devices-container"
KUBECTL = "kubectl.kubernetes.io/default-container"
STRICT = SriovPolicy(strict=True)


def pod(*resources: dict[str, Any], init: tuple[dict[str, Any], ...] = ()) -> PodSpec:
    """Return a pod spec of containers app, side, c2, ... with these resources."""
    names = ("app", "side", "c2")
    containers = [{"name": name, "resources": each} for name, each in zip(names, resources, strict=False)]
    return msgspec.convert(
        {"containers": containers, "initContainers": [{"name": "init", "resources": each} for each in init]}, PodSpec
    )


def both(number: object, resource: str = A) -> dict[str, Any]:
    """Return resources with equal request and limit."""
    return {"limits": {resource: number}, "requests": {resource: number}}


def need(units: dict[str, int], *, kuryr: bool = False, known: bool = True) -> Attachments:
    """Return what attachments need."""
    return NOTHING._replace(units=units, kuryr=frozenset(units if kuryr else ()), known=known)


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        pytest.param({}, 0, id="the first"),
        pytest.param({OWN: "side"}, 1, id="ours"),
        pytest.param({KUBECTL: "side"}, 1, id="kubectl's"),
        pytest.param({KUBECTL: "none"}, 0, id="kubectl's names none"),
        pytest.param({OWN: "app", KUBECTL: "side"}, 0, id="ours wins"),
    ],
)
def test_target(annotations: dict[str, str], expected: int) -> None:
    """Our annotation chooses the container, then kubectl's, then the order."""
    found = Findings()

    assert devices.target(annotations, pod({}, {}), found) == expected
    assert found.problems == []


@pytest.mark.parametrize(
    ("name", "spec", "listed", "hint"),
    [
        ("sid", pod({}, {}), "app, side", "write side"),
        ("init", pod({}, init=({},)), "app", ""),
        ("", pod(), "none", ""),
    ],
)
def test_unknown_target(name: str, spec: PodSpec, listed: str, hint: str) -> None:
    """Our annotation names one of the regular containers."""
    found = Findings()

    assert devices.target({OWN: name, KUBECTL: "side"}, spec, found) == 0
    message = f'the pod has no container "{name}"; it has {listed}'
    assert found.problems == [Problem("NG419", f"metadata.annotations[{OWN}]", name, message, hint)]


@pytest.mark.parametrize(
    ("spec", "attachments", "container", "expected"),
    [
        pytest.param(pod({}), need({}), 0, (), id="nothing needed"),
        pytest.param(pod(), need({A: 1}), 0, (), id="no containers"),
        pytest.param(pod({}), need({A: 1}), 0, (Grant(0, A, 1, 1),), id="one"),
        pytest.param(
            pod({}, {}),
            need({B: 1, A: 2}),
            1,
            (Grant(1, A, 2, 2), Grant(1, B, 1, 1)),
            id="several, in order, to another container",
        ),
        pytest.param(pod(both("2")), need({A: 2}), 0, (), id="asked for"),
        pytest.param(pod(both(2)), need({A: 2}), 0, (), id="asked for as a number"),
        pytest.param(pod(both("2000m")), need({A: 2}), 0, (), id="asked for in thousandths"),
        pytest.param(pod(both("1"), both("1")), need({A: 2}), 0, (), id="asked for in two containers"),
        pytest.param(pod(both("5")), need({A: 2}), 0, (), id="more is the user's business"),
        pytest.param(pod({"limits": {A: "2"}}), need({A: 2}), 0, (Grant(0, A, 2, 0),), id="limit alone"),
        pytest.param(
            pod({}, {"requests": {A: "1"}}),
            need({A: 1}),
            0,
            (Grant(1, A, 1, 0),),
            id="request alone, in another container",
        ),
        pytest.param(pod({"limits": {A: "0"}}), need({A: 0}), 0, (), id="no unit, no completion"),
        pytest.param(
            pod({}, init=(both("2"),)), need({A: 2}), 0, (Grant(0, A, 2, 2),), id="init containers give theirs back"
        ),
        pytest.param(pod(both("3")), need({A: 2}, kuryr=True, known=False), 0, (), id="Kuryr's surplus is unknown"),
    ],
)
def test_missing(spec: PodSpec, attachments: Attachments, container: int, expected: tuple[Grant, ...]) -> None:
    """Only what is missing is added, and request and limit are completed to the same number."""
    found = Findings()

    assert devices.missing(attachments, spec, container, STRICT, found) == expected
    assert (found.problems, found.warnings) == ([], [])


@pytest.mark.parametrize(
    ("spec", "container", "place", "total", "expected"),
    [
        pytest.param(pod(both("1")), 0, 0, 1, (Grant(0, A, 3, 2),), id="same container"),
        pytest.param(pod({}, both("1")), 0, 1, 1, (Grant(0, A, 2, 2),), id="another container"),
        pytest.param(pod(both("1"), both("1")), 1, 0, 2, (Grant(1, A, 2, 1),), id="two containers"),
        pytest.param(pod(both("0")), 0, 0, 0, (Grant(0, A, 3, 3),), id="zero is asking"),
        pytest.param(
            pod({}, {"limits": {A: "1"}}),
            0,
            1,
            1,
            (Grant(1, A, 1, 0), Grant(0, A, 2, 2)),
            id="half in another container",
        ),
        pytest.param(pod({"limits": {A: "1"}}), 0, 0, 1, (Grant(0, A, 3, 2),), id="half in the same container"),
    ],
)
def test_too_few(spec: PodSpec, container: int, place: int, total: int, expected: tuple[Grant, ...]) -> None:
    """Asking for too few is topped up with a warning, or refused where policy is strict."""
    path = f"spec.containers[{place}].resources.limits[{A}]"
    told = f"the pod asks for {total} of {A}, its attachments need 3"
    hint = f"write 3 in all, or leave {A} out"

    found = Findings()
    assert devices.missing(need({A: 3}), spec, container, SriovPolicy(), found) == expected
    warning = Problem("NG463", path, str(total), f"{told}; {3 - total} more will be asked for", hint)
    assert (found.problems, found.warnings) == ([], [warning])

    found = Findings()
    devices.missing(need({A: 3}), spec, container, STRICT, found)
    assert (found.problems, found.warnings) == ([Problem("NG416", path, str(total), told, hint)], [])


def test_surplus() -> None:
    """Kuryr pairs devices with attachments, so that asking for more is a mistake."""
    found = Findings()
    devices.missing(need({A: 1}, kuryr=True), pod(both("0"), both("2")), 0, SriovPolicy(), found)

    message = f"the pod asks for 2 of {A}, its attachments use 1; Kuryr pairs each device with an attachment"
    path = f"spec.containers[1].resources.limits[{A}]"
    assert found.problems == [Problem("NG418", path, "2", message, "write 1 in all, or name more networks")]


@pytest.mark.parametrize("quantity", ["1500m", "-1", "65537", "1e9", "x", "", 1.5])
def test_not_whole(quantity: object) -> None:
    """Devices are counted in whole numbers; both sides are reported, and nothing is added."""
    found = Findings()

    assert devices.missing(need({A: 1}), pod(both(quantity)), 0, STRICT, found) == ()
    message = f"{quantity} is not a whole number of devices; allowed: 0 to 65536"
    assert found.problems == [
        Problem("NG417", f"spec.containers[0].resources.{side}[{A}]", str(quantity), message)
        for side in ("limits", "requests")
    ]


def test_overcommitted() -> None:
    """Request and limit are the same number."""
    found = Findings()
    spec = pod({"limits": {A: "2"}, "requests": {A: "1"}})

    assert devices.missing(need({A: 2}), spec, 0, STRICT, found) == ()
    message = "request 1 and limit 2 differ; devices cannot be overcommitted, the two are the same number"
    assert found.problems == [
        Problem(
            "NG417", f"spec.containers[0].resources.requests[{A}]", "1", message, "leave the request out, or write 2"
        )
    ]
