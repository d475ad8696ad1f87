"""Exclusive cores: extended resources of the containers, and one annotation (pod-api.md 5).

One unit is one physical core with all its hardware threads. The kubelet or a DRA driver allocates them; what stands
here is the question, not the answer.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from noisegate.isolation import keys, quantity
from noisegate.isolation.pod import Container, PodSpec
from noisegate.isolation.problems import Code, Findings, in_annotation

MOST_CORES: Final = 2**16
"""More than any machine has; a larger number is a mistake in the unit."""

NOT_WHOLE: Final = Code(
    "NG501",
    "cores-not-whole",
    "One unit is one physical core with all its hardware threads, so only whole numbers can be meant.",
    "resources:\n  limits:\n    cmk.intel.com/exclusive-cores: 1500m",
    "resources:\n  limits:\n    cmk.intel.com/exclusive-cores: 2",
)
UNEQUAL: Final = Code(
    "NG502",
    "cores-request-differs",
    "A core is had or not had: an extended resource's request and limit are the same number.",
    "resources:\n  requests:\n    cmk.intel.com/exclusive-cores: 1\n  limits:\n    cmk.intel.com/exclusive-cores: 2",
    "resources:\n  limits:\n    cmk.intel.com/exclusive-cores: 2",
)
BOTH_POOLS: Final = Code(
    "NG503",
    "cores-from-both-pools",
    "A container takes its exclusive cores from one pool: isolated ones, or those that the kernel does not isolate.",
    "resources:\n  limits:\n    cmk.intel.com/exclusive-cores: 1\n    cmk.intel.com/exclusive-non-isolcpus-cores: 1",
    "resources:\n  limits:\n    cmk.intel.com/exclusive-cores: 1",
)
ENV_DIFFERS: Final = Code(
    "NG504",
    "cores-env-differs",
    "CMK_NUM_CORES tells the program how many cores it has; a value of the user's own must be that number.",
    'env: [{name: CMK_NUM_CORES, value: "4"}]\nresources:\n  limits:\n    cmk.intel.com/exclusive-cores: 2',
    "resources:\n  limits:\n    cmk.intel.com/exclusive-cores: 2",
)
BAD_MUTATE: Final = Code(
    "NG505",
    "cores-mutate-value",
    "cmk.intel.com/mutate says true or false.",
    'cmk.intel.com/mutate: "yes"',
    'cmk.intel.com/mutate: "true"',
)
OPT_OUT_IGNORED: Final = Code(
    "NG551",
    "cores-opt-out-ignored",
    "Warning: a pod that asks for exclusive cores is mutated even where it says that it does not want to be, unless policy.cpu.optOut is set.",
    'cmk.intel.com/mutate: "false"',
    "(leave the annotation out)",
)
ENV_FROM_ELSEWHERE: Final = Code(
    "NG552",
    "cores-env-from-elsewhere",
    "Warning: CMK_NUM_CORES is filled from a valueFrom of the user's own, which nobody can compare here; it is kept.",
    "env: [{name: CMK_NUM_CORES, valueFrom: {configMapKeyRef: {name: settings, key: cores}}}]",
    "(leave the variable out)",
)
CODES: Final = (NOT_WHOLE, UNEQUAL, BOTH_POOLS, ENV_DIFFERS, BAD_MUTATE, OPT_OUT_IGNORED, ENV_FROM_ELSEWHERE)

_TRUE: Final = frozenset({"true", "True", "1"})
_FALSE: Final = frozenset({"false", "False", "0"})


class Cores(NamedTuple):
    """Exclusive cores of one container.

    Attributes:
        init: Whether `position` counts `initContainers` rather than `containers`.
        position: Position of the container.
        number: Cores, at least 1.
        resource: The extended resource asked for.
        limited: Whether the container itself writes a limit (else one equal to the request must be added).
        env: Whether the container sets CMK_NUM_CORES itself.
    """

    init: bool
    position: int
    number: int
    resource: str
    limited: bool
    env: bool


def read_mutate(annotations: Mapping[str, str], found: Findings) -> bool | None:
    """Return what `cmk.intel.com/mutate` says: True, False, or None where it is absent or wrong."""
    value = annotations.get(keys.CPU_MUTATE)
    if value is None:
        return None
    if value in _TRUE:
        return True
    if value not in _FALSE:
        found.deny(
            BAD_MUTATE,
            in_annotation(keys.CPU_MUTATE),
            value,
            f'"{value}" is neither true nor false; allowed: "true", "True", "1", "false", "False", "0"',
            'write "true"'
            if value.lower() in ("true", "yes", "on")
            else 'write "false"'
            if value.lower() in ("false", "no", "off")
            else "",
        )
    return False if value in _FALSE else None


def read(spec: PodSpec, found: Findings) -> tuple[Cores, ...]:
    """Return the exclusive cores of every container that asks for them, init containers last."""
    asked: list[Cores] = []
    for init, containers in ((False, spec.containers), (True, spec.init_containers)):
        _read_containers(containers, init, asked, found)
    return tuple(asked)


def _read_containers(containers: Sequence[Container], init: bool, asked: list[Cores], found: Findings) -> None:
    for index, container in enumerate(containers):
        resources = container.resources
        requests, limits = resources.requests, resources.limits
        if not requests and not limits:
            continue
        before = len(asked)
        for resource in keys.CORE_RESOURCES:
            if resource in limits or resource in requests:
                cores = _read_one(container, init, index, resource, found)
                if cores is not None:
                    asked.append(cores)
        if len(asked) - before == len(keys.CORE_RESOURCES):
            found.deny(
                BOTH_POOLS,
                f"{_place(init, index)}.resources",
                "",
                f'container "{container.name}" asks for both {keys.CORES} and {keys.CORES_NON_ISOLCPUS}; a container takes its cores from one pool',
                "keep one of the two",
            )


def _read_one(container: Container, init: bool, index: int, resource: str, found: Findings) -> Cores | None:
    limit = container.resources.limits.get(resource)
    request = container.resources.requests.get(resource)
    limit_cores = None if limit is None else quantity.count(limit, MOST_CORES)
    request_cores = limit_cores if request is None or request == limit else quantity.count(request, MOST_CORES)
    for name, given, cores in (("limits", limit, limit_cores), ("requests", request, request_cores)):
        if given is not None and cores is None and (name == "limits" or given != limit):
            found.deny(
                NOT_WHOLE,
                f"{_place(init, index)}.resources.{name}[{resource}]",
                given,
                f"{given} is not a whole number of physical cores; allowed: 0 to {MOST_CORES}",
            )
    number = limit_cores if limit is not None else request_cores
    if number is None or request_cores is None:
        return None
    if request_cores != number:
        found.deny(
            UNEQUAL,
            f"{_place(init, index)}.resources.requests[{resource}]",
            request,
            f"request {request} and limit {limit} differ; cores cannot be overcommitted, the two are the same number",
            f"leave the request out, or write {limit}",
        )
        return None
    if number == 0:
        return None
    env = False
    for place, variable in enumerate(container.env):
        if variable.name == keys.CPU_ENV:
            env = True
            path = f"{_place(init, index)}.env[{place}].value"
            if variable.value is None and variable.value_from is not None:
                found.warn(
                    ENV_FROM_ELSEWHERE,
                    path,
                    "",
                    f"{keys.CPU_ENV} comes from a valueFrom and is kept; the container asks for {number}",
                )
            elif variable.value != str(number):
                found.deny(
                    ENV_DIFFERS,
                    path,
                    variable.value,
                    f'{keys.CPU_ENV} is "{variable.value or ""}" but the container asks for {number} of {resource}',
                    f'leave the variable out, or write "{number}"',
                )
    return Cores(init, index, number, resource, limit is not None, env)


def _place(init: bool, index: int) -> str:
    return f"spec.{'initContainers' if init else 'containers'}[{index}]"
