"""What is measured, and what the right answers are.

Every answer is checked in full once, before anything is measured; from then on each must be the same bytes again.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import jsonpatch
import msgspec

from bench import cluster, pods
from bench.load import Exchange, WrongAnswerError, ask, request
from bench.noop import ANSWER
from bench.pods import Size
from bench.servers import Started
from noisegate.isolation import keys

REPLICAS: Final = 256
WORKLOADS: Final = 8
"""The usual life: pods of a few workloads, whose annotations are the same texts again and again."""

Check = Callable[[dict[str, Any], dict[str, Any]], None]


class Case(NamedTuple):
    """A kind of request.

    Attributes:
        name: What is sent, for the table.
        size: About how long each request is.
        connections: The numbers of busy connections it is measured with.
        targets: By number of connections, the least ratio to the no-op's requests per second.
    """

    name: str
    size: Size
    connections: tuple[int, ...]
    targets: Mapping[int, float]


MUTATE: Final = Case("mutate, replicas", "7 KB", (1, 8, 64), {8: 0.80, 64: 0.70})
MUTATE_LARGE: Final = Case("mutate, replicas", "21 KB", (1, 8, 64), {8: 0.55})
MUTATE_DIFFERENT: Final = Case("mutate, all different", "7 KB", (8, 64), {8: 0.80, 64: 0.70})
MUTATE_LARGE_DIFFERENT: Final = Case("mutate, all different", "21 KB", (8,), {8: 0.55})
VALIDATE: Final = Case("validate the mutated pod", "7 KB", (8, 64), {})
DENIED: Final = Case("denied, five kinds wrong", "7 KB", (8,), {})
NOTHING: Final = Case("asks for nothing", "7 KB", (8, 64), {8: 1.0, 64: 1.0})
CASES: Final = (MUTATE, MUTATE_LARGE, MUTATE_DIFFERENT, MUTATE_LARGE_DIFFERENT, VALIDATE, DENIED, NOTHING)


class Prepared(NamedTuple):
    """A case with its requests and right answers, for noisegate and for the no-op."""

    case: Case
    ours: tuple[Exchange, ...]
    noop: tuple[Exchange, ...]


def prepare(server: Started, different: int) -> list[Prepared]:
    """Make all requests, let the server answer each once, and check these answers.

    Args:
        server: A running noisegate.
        different: Number of pods in the cases whose pods are all different.

    Raises:
        WrongAnswerError: An answer is not what the pod must get.
    """
    mutated = {size: pods.replicas(size, "all", WORKLOADS, REPLICAS) for size in pods.BYTES}
    various = {size: [pods.encode(pods.create(size, "all", seed)) for seed in range(different)] for size in pods.BYTES}
    prepared = [
        _prepare(server, MUTATE, "/mutate", mutated["7 KB"], check_patched),
        _prepare(server, MUTATE_LARGE, "/mutate", mutated["21 KB"], check_patched),
        _prepare(server, MUTATE_DIFFERENT, "/mutate", various["7 KB"], check_patched),
        _prepare(server, MUTATE_LARGE_DIFFERENT, "/mutate", various["21 KB"], check_patched),
    ]
    final = [
        pods.encode(patched_review(msgspec.json.decode(body), msgspec.json.decode(exchange.answer or b"")))
        for body, exchange in zip(mutated["7 KB"], prepared[0].ours, strict=True)
    ]
    wrong = pods.replicas("7 KB", "wrongly", WORKLOADS, REPLICAS)
    plain = pods.replicas("7 KB", "nothing", WORKLOADS, REPLICAS)
    prepared.append(_prepare(server, VALIDATE, "/validate", final, check_untouched))
    prepared.append(_prepare(server, DENIED, "/validate", wrong, check_denied))
    prepared.append(_prepare(server, NOTHING, "/mutate", plain, check_untouched))
    return prepared


def _prepare(server: Started, case: Case, path: str, bodies: Sequence[bytes], check: Check) -> Prepared:
    requests = [request(path, body) for body in bodies]
    answers = ask(server, requests)
    for body, answer in zip(bodies, answers, strict=True):
        check_answer(body, answer, check)
    return Prepared(
        case,
        tuple(Exchange(each, answer) for each, answer in zip(requests, answers, strict=True)),
        tuple(Exchange(each, ANSWER) for each in requests),
    )


def check_answer(body: bytes, answer: bytes, check: Check) -> None:
    """Check one answer.

    Raises:
        WrongAnswerError: It is not what the pod in `body` must get.
    """
    review, answered = msgspec.json.decode(body), msgspec.json.decode(answer)
    try:
        if answered["response"]["uid"] != review["request"]["uid"]:
            raise WrongAnswerError("another uid")
        check(review, answered)
    except (WrongAnswerError, KeyError, jsonpatch.JsonPatchException) as error:
        raise WrongAnswerError(f"{error!r} in the answer {answer[:3000].decode(errors='replace')}") from error


def patched_review(review: dict[str, Any], answered: Mapping[str, Any]) -> dict[str, Any]:
    """Return the review as the API server sends it once the patch of an answer is applied."""
    operations = msgspec.json.decode(base64.b64decode(answered["response"]["patch"]))
    pod = jsonpatch.apply_patch(review["request"]["object"], operations)
    return pods.with_object(review, pod)


def check_patched(review: dict[str, Any], answered: dict[str, Any]) -> None:
    """Check that a pod that asks for all five kinds was given what it lacked for each."""
    response = answered["response"]
    _must(response["allowed"] is True and response["patchType"] == "JSONPatch", "not allowed with a patch")
    _must("warnings" not in response, "warned of what is right")
    before = review["request"]["object"]
    after = patched_review(review, answered)["request"]["object"]
    annotations, containers = after["metadata"]["annotations"], after["spec"]["containers"]
    for key in before["metadata"]["annotations"]:
        _must(annotations[key] == before["metadata"]["annotations"][key], f"annotation {key} changed")
    asked = msgspec.json.decode(annotations[keys.DISK])
    paths = msgspec.json.decode(annotations[keys.VOLUME_PATHS])
    _must(paths.keys() == asked.keys(), "disk: volume paths")
    _must(annotations[keys.RDT_RUNTIME_POD] == "silver", "rdt: class of the rule")
    _must({"key": "cmk", "operator": "Exists"} in after["spec"]["tolerations"], "cores: toleration")
    _must("podnetinfo" in [volume["name"] for volume in after["spec"]["volumes"]], "sriov: /etc/podnetinfo")
    needed: dict[str, str] = {}
    for name in _networks(annotations[keys.NETWORKS]):
        resource = cluster.resource_of(name)
        needed[resource] = str(int(needed.get(resource, "0")) + 1)
    for resource, units in needed.items():
        resources = containers[0]["resources"]
        _must(resources["limits"][resource] == resources["requests"][resource] == units, f"sriov: units of {resource}")
    for container in containers:
        cores = container["resources"]["limits"].get(keys.CORES)
        told = [variable["value"] for variable in container["env"] if variable["name"] == keys.CPU_ENV]
        _must(told == ([] if cores is None else [cores]), f"cores: CMK_NUM_CORES of {container['name']}")


def check_untouched(review: dict[str, Any], answered: dict[str, Any]) -> None:
    """Check that a pod was let pass as it is."""
    del review
    response = answered["response"]
    _must(response["allowed"] is True and "patch" not in response, "not allowed as it is")


def check_denied(review: dict[str, Any], answered: dict[str, Any]) -> None:
    """Check that a pod was refused for what is wrong with each of its five kinds."""
    del review
    response = answered["response"]
    _must(response["allowed"] is False and response["status"]["code"] == 422, "not denied")
    places = " ".join(cause["field"] for cause in response["status"]["details"]["causes"])
    for key in (keys.DISK, keys.NETWORK, keys.RDT_RUNTIME_CONTAINER, keys.NETWORKS, keys.CORES):
        _must(key in places, f"no problem with {key}")


def _networks(text: str) -> Iterator[str]:
    if text.startswith("["):
        for element in msgspec.json.decode(text):
            yield element["name"]
    else:
        for unit in text.split(","):
            yield unit.partition("@")[0].rpartition("/")[2]


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise WrongAnswerError(otherwise)
