"""Exclusive cores of containers."""

from typing import Any

import msgspec
import pytest

from noisegate.isolation import cpu
from noisegate.isolation.cpu import Cores
from noisegate.isolation.problems import Findings
from noisegate.webhook.objects import PodSpec

CORES = "cmk.intel.com/exclusive-cores"
OTHER = "cmk.intel.com/exclusive-non-isolcpus-cores"


def spec(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = ()) -> PodSpec:
    """Return a decoded pod spec."""
    return msgspec.convert({"containers": list(containers), "initContainers": list(init)}, PodSpec)


def one(**resources: Any) -> PodSpec:
    """Return a pod spec of one container with these resources."""
    return spec({"name": "app", "resources": resources})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(one(), (), id="nothing"),
        pytest.param(
            one(limits={CORES: "2"}, requests={CORES: "2"}), (Cores(False, 0, 2, CORES, True, False),), id="both"
        ),
        pytest.param(one(limits={CORES: "2"}), (Cores(False, 0, 2, CORES, True, False),), id="limit alone"),
        pytest.param(one(requests={CORES: "2"}), (Cores(False, 0, 2, CORES, False, False),), id="request alone"),
        pytest.param(
            one(limits={CORES: 2}, requests={CORES: "2"}), (Cores(False, 0, 2, CORES, True, False),), id="a number"
        ),
        pytest.param(one(limits={CORES: "2k"}), (Cores(False, 0, 2000, CORES, True, False),), id="a suffix"),
        pytest.param(
            one(limits={CORES: "2000m"}), (Cores(False, 0, 2, CORES, True, False),), id="whole in thousandths"
        ),
        pytest.param(one(limits={OTHER: "1"}), (Cores(False, 0, 1, OTHER, True, False),), id="the other pool"),
        pytest.param(one(limits={CORES: "0"}), (), id="zero asks for nothing"),
        pytest.param(
            one(limits={CORES: "0", OTHER: "1"}), (Cores(False, 0, 1, OTHER, True, False),), id="zero beside another"
        ),
        pytest.param(
            spec(
                {"name": "a"},
                {"name": "b", "resources": {"limits": {CORES: "1"}}},
                init=({"name": "i", "resources": {"limits": {CORES: "3"}}},),
            ),
            (Cores(False, 1, 1, CORES, True, False), Cores(True, 0, 3, CORES, True, False)),
            id="init container",
        ),
        pytest.param(
            spec(
                {"name": "a", "env": [{"name": "CMK_NUM_CORES", "value": "2"}], "resources": {"limits": {CORES: "2"}}}
            ),
            (Cores(False, 0, 2, CORES, True, True),),
            id="variable is there",
        ),
    ],
)
def test_sound(given: PodSpec, expected: tuple[Cores, ...]) -> None:
    """Whole numbers are read from limits and requests of every container."""
    found = Findings()

    assert cpu.read(given, found) == expected
    assert (found.problems, found.warnings) == ([], [])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            one(limits={CORES: "1500m"}),
            [
                (
                    "NG501",
                    f"spec.containers[0].resources.limits[{CORES}]",
                    "1500m is not a whole number of physical cores; allowed: 0 to 65536",
                )
            ],
            id="a fraction",
        ),
        pytest.param(
            one(requests={CORES: 1.5}),
            [
                (
                    "NG501",
                    f"spec.containers[0].resources.requests[{CORES}]",
                    "1.5 is not a whole number of physical cores; allowed: 0 to 65536",
                )
            ],
            id="a fraction as a number",
        ),
        pytest.param(
            one(limits={CORES: "-1"}),
            [
                (
                    "NG501",
                    f"spec.containers[0].resources.limits[{CORES}]",
                    "-1 is not a whole number of physical cores; allowed: 0 to 65536",
                )
            ],
            id="negative",
        ),
        pytest.param(
            one(limits={CORES: "two"}, requests={CORES: "1.5"}),
            [
                (
                    "NG501",
                    f"spec.containers[0].resources.limits[{CORES}]",
                    "two is not a whole number of physical cores; allowed: 0 to 65536",
                ),
                (
                    "NG501",
                    f"spec.containers[0].resources.requests[{CORES}]",
                    "1.5 is not a whole number of physical cores; allowed: 0 to 65536",
                ),
            ],
            id="both wrong",
        ),
        pytest.param(
            one(limits={CORES: "2"}, requests={CORES: "1"}),
            [
                (
                    "NG502",
                    f"spec.containers[0].resources.requests[{CORES}]",
                    "request 1 and limit 2 differ; cores cannot be overcommitted, the two are the same number",
                )
            ],
            id="request and limit differ",
        ),
        pytest.param(
            one(limits={CORES: "1", OTHER: "1"}),
            [
                (
                    "NG503",
                    "spec.containers[0].resources",
                    f'container "app" asks for both {CORES} and {OTHER}; a container takes its cores from one pool',
                )
            ],
            id="both pools",
        ),
        pytest.param(
            spec(
                {
                    "name": "a",
                    "env": [{"name": "X"}, {"name": "CMK_NUM_CORES", "value": "4"}],
                    "resources": {"limits": {CORES: "2"}},
                }
            ),
            [
                (
                    "NG504",
                    "spec.containers[0].env[1].value",
                    f'CMK_NUM_CORES is "4" but the container asks for 2 of {CORES}',
                )
            ],
            id="another number in the variable",
        ),
        pytest.param(
            spec({"name": "a", "env": [{"name": "CMK_NUM_CORES"}], "resources": {"limits": {CORES: "2"}}}),
            [
                (
                    "NG504",
                    "spec.containers[0].env[0].value",
                    f'CMK_NUM_CORES is "" but the container asks for 2 of {CORES}',
                )
            ],
            id="an empty variable",
        ),
    ],
)
def test_unsound(given: PodSpec, expected: list[tuple[str, str, str]]) -> None:
    """What cannot be meant is told with place, value and what is allowed."""
    found = Findings()
    cpu.read(given, found)

    assert [(problem.code, problem.path, problem.message) for problem in found.problems] == expected


def test_variable_from_elsewhere() -> None:
    """A variable filled by valueFrom is kept, with a warning."""
    found = Findings()
    given = spec(
        {
            "name": "a",
            "env": [{"name": "CMK_NUM_CORES", "valueFrom": {"configMapKeyRef": {}}}],
            "resources": {"limits": {CORES: "2"}},
        }
    )

    assert cpu.read(given, found) == (Cores(False, 0, 2, CORES, True, True),)
    assert [warning.code for warning in found.warnings] == ["NG552"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), ("True", True), ("1", True), ("false", False), ("False", False), ("0", False)],
)
def test_mutate(value: str, expected: bool) -> None:
    """The six spellings of the original are understood."""
    found = Findings()

    assert cpu.read_mutate({"cmk.intel.com/mutate": value}, found) is expected
    assert found.problems == []


def test_mutate_absent() -> None:
    """Without the annotation nothing is said."""
    assert cpu.read_mutate({}, Findings()) is None


@pytest.mark.parametrize(
    ("value", "hint"),
    [("TRUE", 'write "true"'), ("yes", 'write "true"'), ("No", 'write "false"'), ("maybe", ""), ("", "")],
)
def test_bad_mutate(value: str, hint: str) -> None:
    """Every other value is an error, with the spelling that was meant."""
    found = Findings()

    assert cpu.read_mutate({"cmk.intel.com/mutate": value}, found) is None
    assert [(problem.code, problem.hint) for problem in found.problems] == [("NG505", hint)]
