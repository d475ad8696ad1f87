"""What a decision costs, stage by stage: CPU time in this process, without sockets, TLS and HTTP."""

import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import Any, Final, NamedTuple

import msgspec

from bench import cluster, pods
from bench.pods import Size
from noisegate.isolation import asked, cpu, devices, disk, keys, network, networks, podnetinfo, rdt, sriov
from noisegate.isolation.policy import Policy
from noisegate.isolation.problems import Findings
from noisegate.webhook import admit, firing, inventory, manifests, mutate, rdtclasses, review, rules
from noisegate.webhook.admit import World

REPEATS: Final = 5
"""The fastest of so many counts: what is slower was disturbed."""
SECONDS: Final = 0.03
"""About how long each of them runs."""


class Cost(NamedTuple):
    """A stage and the microseconds it takes, by size of the request."""

    stage: str
    micros: dict[Size, float]


def world(**policy: Any) -> World:
    """Return what the server decides with, from the same texts that its files are made of."""
    documents = manifests.read(
        msgspec.json.encode({"kind": "List", "apiVersion": "v1", "items": cluster.manifests()}), "cluster.json"
    )
    catalogue = inventory.build(documents, complete=("networks", "claims", "storageClasses")).catalogue
    catalogue = catalogue._replace(rdt_classes=rdtclasses.load(cluster.CLASS_FILE, "classes.yaml"))
    return World(policy=Policy(**policy), rules=rules.load(cluster.rules(), "mutations.yaml"), catalogue=catalogue)


def costs() -> list[Cost]:
    """Measure every stage for both sizes."""
    tables = {size: dict(_stages(size)) for size in pods.BYTES}
    return [Cost(stage, {size: table[stage] for size, table in tables.items()}) for stage in tables["7 KB"]]


def _stages(size: Size) -> Iterator[tuple[str, float]]:
    sees = world()
    policy, catalogue = sees.policy, sees.catalogue
    body = pods.encode(pods.create(size, "all", 1))
    request, version = review.read(body)
    pod = admit.decode_pod(request.object)
    spec = pod.spec
    annotations = pod.metadata.annotations
    found = Findings()

    yield "review: decode", _micros(lambda: review.read(body))
    yield "pod: decode the fields that are read", _micros(lambda: admit.decode_pod(request.object))

    yield "annotations of all kinds, texts seen before", _micros(lambda: asked.read(annotations, found))
    yield "disk: read a new text", _micros(lambda: disk.read(annotations[keys.DISK], found))
    yield "network: read a new text", _micros(lambda: network.read(annotations[keys.NETWORK], found))
    yield "rdt: read", _micros(lambda: rdt.read(annotations, found))
    yield "sriov: read a new text", _micros(lambda: networks.read(keys.NETWORKS, annotations[keys.NETWORKS], found))

    means = asked.read(annotations, found)
    names = [container.name for container in (*spec.containers, *spec.init_containers)]
    if means.disk is None or means.network is None or means.rdt is None:
        raise ValueError(f"the pod does not ask for all kinds: {means}")
    asks_disk, asks_network, asks_rdt = means.disk, means.network, means.rdt

    def judge_disk() -> None:
        disk.fit(asks_disk, spec, found)
        disk.judge(asks_disk, spec, cluster.NAMESPACE, policy.disk, catalogue, found)

    def judge_rdt() -> None:
        rdt.fit(asks_rdt, names, found)
        rdt.judge(asks_rdt, catalogue, found)

    def judge_sriov() -> None:
        sriov.fit(means.networks, spec, found)
        needs = sriov.judge(means.networks, cluster.NAMESPACE, policy.sriov, catalogue, found, later=False)
        devices.missing(needs, spec, devices.target(annotations, spec, found), policy.sriov, found)
        sriov.node_labels(needs, spec, found)
        podnetinfo.podnetinfo(True, True, spec, found)

    yield "disk: fit and judge", _micros(judge_disk)
    yield "network: fit", _micros(lambda: network.fit(asks_network, spec, annotations, found))
    yield "rdt: fit and judge", _micros(judge_rdt)
    yield "sriov: fit, look up, judge, count devices, podnetinfo", _micros(judge_sriov)
    yield "cores: read and judge", _micros(lambda: cpu.read(spec, found))

    requested = firing.requested((*spec.containers, *spec.init_containers))
    yield "rules: what is requested", _micros(lambda: firing.requested((*spec.containers, *spec.init_containers)))
    yield (
        "rules: which fire",
        _micros(
            lambda: firing.fire(sees.rules.rules, pod, cluster.NAMESPACE, set(requested), mutate=None, opt_out=False)
        ),
    )

    def consider() -> mutate.Outcome:
        return mutate.consider(pod, request.object, cluster.NAMESPACE, policy, sees.rules, catalogue)

    outcome = consider()
    if found.problems or outcome.problems or not outcome.patch:
        raise ValueError(f"the pod is not mutated: {found.problems} {outcome.problems}")
    patch = outcome.patch
    yield "all of these and the merge (mutate.consider)", _micros(consider)
    yield "patch: to JSON", _micros(patch.encoded)
    yield (
        "answer: patch to JSON and base64, envelope",
        _micros(lambda: review.patched(request, version, patch, outcome.warnings)),
    )

    yield "whole, replicas (admit.answer)", _micros(lambda: admit.answer("mutate", body, sees))
    various = [pods.encode(pods.create(size, "all", seed)) for seed in range(1, 1501)]
    yield "whole, every pod different", _micros(_each(lambda each: admit.answer("mutate", each, sees), various))
    required = world(enforcement="required")
    yield "whole, policy.enforcement: required", _micros(lambda: admit.answer("mutate", body, required))
    plain = pods.encode(pods.create(size, "nothing", 1))
    nothing = _micros(lambda: admit.answer("mutate", plain, sees))
    yield "whole, asks for nothing", nothing

    none = pods.encode(only(pods.create(size, "all", 1), ""))
    base = _micros(lambda: admit.answer("mutate", none, sees))
    for kind in _KEYS:
        one = pods.encode(only(pods.create(size, "all", 1), kind))
        micros = _micros(partial(admit.answer, "mutate", one, sees))
        yield f"what asking for {kind} adds to the whole", micros - base


_KEYS: Final = {
    "disk": keys.DISK,
    "network": keys.NETWORK,
    "rdt": keys.RDT_RUNTIME_CONTAINER + "app",
    "sriov": keys.NETWORKS,
    "cores": keys.CORES,
}


def only(made: dict[str, Any], kind: str) -> dict[str, Any]:
    """Take everything that a pod asks for out of a review, but for one kind."""
    pod = made["request"]["object"]
    for name, key in _KEYS.items():
        if name != kind:
            pod["metadata"]["annotations"].pop(key, None)
    if kind != "rdt":
        del pod["metadata"]["labels"][cluster.CACHE_LABEL]
    if kind != "cores":
        for container in pod["spec"]["containers"]:
            for quantities in container["resources"].values():
                quantities.pop(keys.CORES, None)
    return made


def _each(call: Callable[[bytes], object], bodies: Sequence[bytes]) -> Callable[[], object]:
    source = cycle(bodies)
    return lambda: call(next(source))


def _micros(call: Callable[[], object]) -> float:
    timer = timeit.Timer(call, timer=time.process_time)
    once = max(timer.timeit(20) / 20, 1e-7)
    count = max(20, int(SECONDS / once))
    return min(timer.repeat(REPEATS, count)) / count * 1e6
