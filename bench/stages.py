"""What a decision costs, stage by stage: CPU time in this process, without sockets, TLS and HTTP."""

import gc
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import Any, Final, NamedTuple

import msgspec

from bench import cluster, pods
from bench.pods import Size
from noisegate.isolation import asked, cpu, devices, disk, keys, network, networks, podnetinfo, rdt, sriov
from noisegate.isolation.policy import Policy
from noisegate.isolation.problems import Findings
from noisegate.service import manifests, rdtclasses
from noisegate.webhook import admit, firing, inventory, mutate, review, rules
from noisegate.webhook.admit import World
from noisegate.webhook.objects import Pod

PASSES: Final = 10
"""The fastest of so many counts: what is slower was disturbed. They lie far apart, so that no disturbance hits one stage
alone."""
SECONDS: Final = 0.015
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
    tables = {size: _rows(_fastest(_calls(size))) for size in pods.BYTES}
    return [Cost(stage, {size: table[stage] for size, table in tables.items()}) for stage in tables["7 KB"]]


def _rows(micros: dict[str, float]) -> dict[str, float]:
    """Return the table's rows: what was measured, and what follows from it."""
    rows: dict[str, float] = {}
    for stage, cost in micros.items():
        if stage in _KEYS:
            rows[f"what asking for {stage} adds to the whole"] = cost - micros[_BARE]
        elif stage != _BARE:
            rows[stage] = cost
        if stage == _CONSIDER:
            rows["of that all but the parts: the merge, and what follows it"] = cost - sum(
                micros[part] for part in _PARTS
            )
    return rows


_CONSIDER: Final = "all kinds judged and merged (mutate.consider)"
_BARE: Final = "the same pod without anything that asks"
_PARTS: Final = (
    "part: annotations of all kinds, texts seen before",
    "part: disk, fit and judge",
    "part: network, fit",
    "part: rdt, fit and judge",
    "part: sriov, fit, look up, judge, count devices, podnetinfo",
    "part: cores, read and judge",
    "part: what is requested",
    "part: which rules fire",
)


def _calls(size: Size) -> dict[str, Callable[[], object]]:
    sees = world()
    policy, catalogue = sees.policy, sees.catalogue
    body = pods.encode(pods.create(size, "all", 1))
    request, version = review.read(body)
    pod = request.object
    if not isinstance(pod, Pod):
        raise TypeError("the review of a pod was not read in one go")
    spec = pod.spec
    annotations = pod.metadata.annotations
    found = Findings()

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

    requested = firing.requested((*spec.containers, *spec.init_containers))
    parts: tuple[Callable[[], object], ...] = (
        lambda: asked.read(annotations, found),
        judge_disk,
        lambda: network.fit(asks_network, spec, annotations, found),
        judge_rdt,
        judge_sriov,
        lambda: cpu.read(spec, found),
        lambda: firing.requested((*spec.containers, *spec.init_containers)),
        lambda: firing.fire(sees.rules.rules, pod, cluster.NAMESPACE, set(requested), mutate=None, opt_out=False),
    )

    def consider() -> mutate.Outcome:
        return mutate.consider(pod, body, cluster.NAMESPACE, policy, sees.rules, catalogue, root="/request/object")

    outcome = consider()
    if found.problems or outcome.problems or not outcome.patch:
        raise ValueError(f"the pod is not mutated: {found.problems} {outcome.problems}")
    patch = outcome.patch
    required = world(enforcement="required")
    various = [pods.encode(pods.create(size, "all", seed)) for seed in range(1, 1501)]
    plain = pods.encode(pods.create(size, "nothing", 1))
    kinds = {kind: pods.encode(only(pods.create(size, "all", 1), kind)) for kind in ("", *_KEYS)}
    return {
        "review and pod: decode the fields that are read": lambda: review.read(body),
        "disk: read a new text": lambda: disk.read(annotations[keys.DISK], found),
        "network: read a new text": lambda: network.read(annotations[keys.NETWORK], found),
        "rdt: read": lambda: rdt.read(annotations, found),
        "sriov: read a new text": lambda: networks.read(keys.NETWORKS, annotations[keys.NETWORKS], found),
        **dict(zip(_PARTS, parts, strict=True)),
        _CONSIDER: consider,
        "patch: to JSON": patch.encoded,
        "answer: patch to JSON and base64, envelope": lambda: review.patched(request, version, patch, outcome.warnings),
        "whole, replicas (admit.answer)": lambda: admit.answer("mutate", body, sees),
        "whole, every pod different": _each(lambda each: admit.answer("mutate", each, sees), various),
        "whole, replicas, policy.enforcement: required": lambda: admit.answer("mutate", body, required),
        "whole, asks for nothing": lambda: admit.answer("mutate", plain, sees),
        _BARE: lambda: admit.answer("mutate", kinds[""], sees),
        **{kind: partial(admit.answer, "mutate", kinds[kind], sees) for kind in _KEYS},
    }


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


def _fastest(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Return the microseconds of each call: the least of several passes over all of them."""
    # timeit switches the garbage collector off; a server lives with it.
    timers = {name: timeit.Timer(call, setup=gc.enable, timer=time.process_time) for name, call in calls.items()}
    counts = {name: max(20, int(SECONDS / (timer.timeit(50) / 50 + 1e-7))) for name, timer in timers.items()}
    passes = [{name: timers[name].timeit(count) / count for name, count in counts.items()} for _ in range(PASSES)]
    return {name: min(each[name] for each in passes) * 1e6 for name in calls}
