"""Hypothesis strategies: pods, rules and reviews from small alphabets, so that what they say meets and collides."""

import json
from typing import Any

from hypothesis import strategies as st

from noisegate.isolation.catalogue import Catalogue, Claim, Network, RdtClass, StorageClass
from noisegate.isolation.policy import CpuPolicy, KuryrPolicy, Policy, SriovPolicy

DISK = "blockio.kubernetes.io/resources"
NETWORK = "networkio.kubernetes.io/resources"
NETWORKS = "k8s.v1.cni.cncf.io/networks"
RESOURCE_NAME = "k8s.v1.cni.cncf.io/resourceName"
RDT = "rdt.resources.beta.kubernetes.io/"
CORES = "cmk.intel.com/exclusive-cores"
SUBNET = "88d0b025-2710-4f02-a348-2829853b45da"

CATALOGUE = Catalogue(
    networks={
        "default/fast": Network(
            {RESOURCE_NAME: "intel.com/a"}, '{"cniVersion": "1.0.0", "name": "fast", "type": "sriov"}'
        ),
        "default/plain": Network({}, '{"cniVersion": "1.0.0", "name": "plain", "type": "macvlan"}'),
        "default/pinned": Network(
            {RESOURCE_NAME: "intel.com/b", "k8s.v1.cni.cncf.io/nodeSelector": "nic=cx6"},
            '{"cniVersion": "1.0.0", "name": "pinned", "type": "sriov"}',
        ),
        "default/kuryr": Network(
            {"openstack.org/kuryr-config": f'{{"subnetId": "{SUBNET}", "driverType": "sriov"}}'}, ""
        ),
        "default/broken": Network({RESOURCE_NAME: "intel.com/a"}, '{"type": "sriov", "vlan": 5000}'),
    },
    claims={"default/claim": Claim("local")},
    storage_classes={"local": StorageClass("local.csi.example.com", default=True)},
    rdt_classes={"gold": RdtClass(), "silver": RdtClass()},
)

KURYR = KuryrPolicy(
    default_physnet_subnets={"physnet1": SUBNET},
    physnet_resource_mappings={"physnet1": "k"},
    resource_driver_mappings={"k": "mlx5_core"},
)

policies = st.builds(
    lambda strict, missing, opt_out, enforcement: Policy(
        sriov=SriovPolicy(strict=strict, missingNetwork=missing, kuryr=KURYR),
        cpu=CpuPolicy(optOut=opt_out),
        enforcement=enforcement,
    ),
    st.booleans(),
    st.sampled_from(["deny", "warn"]),
    st.booleans(),
    st.sampled_from(["off", "required"]),
)

_classes = st.sampled_from(["gold", "silver", "system/default"])
_one_family: st.SearchStrategy[dict[str, str]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({}, optional={RDT + "pod": _classes, RDT + "container.a": _classes}),
    st.fixed_dictionaries({}, optional={"noisegate.io/rdt-class": _classes, "noisegate.io/rdt-class.b": _classes}),
    st.just({RDT + "container.a": "gold", "noisegate.io/rdt-class.b": "gold"}),
)

_asking: st.SearchStrategy[dict[str, str]] = st.fixed_dictionaries(
    {},
    optional={
        DISK: st.sampled_from(
            [
                '{"v": {"limits": {"rbps": "50Mi/4k"}}}',
                '{"w": {"limits": {"wbps": "50Mi"}}, "*": {"limits": {"riops": 100}}}',
                '{"v": {"requests": {"rbps": "5Mi"}}}',
                "{}",
            ]
        ),
        NETWORK: st.sampled_from(
            ['{"limits": {"egress": "50M"}}', '{"requests": {"ingress": "1G"}, "limits": {"ingress": "2G"}}']
        ),
        NETWORKS: st.sampled_from(
            ["fast", "fast,fast", "plain", "pinned,fast", "kuryr,kuryr", '[{"name": "fast", "interface": "net7"}]']
        ),
        "noisegate.io/devices-container": st.sampled_from(["a", "b"]),
        "kubectl.kubernetes.io/default-container": st.sampled_from(["a", "b", "none"]),
    },
)
asking_annotations = st.builds(lambda asking, classes: {**asking, **classes}, _asking, _one_family)
"""What may be meant, if the pod has what it speaks of."""

other_annotations: st.SearchStrategy[dict[str, str]] = st.fixed_dictionaries(
    {},
    optional={
        "x": st.sampled_from(["1", "2"]),
        "a~b/c": st.sampled_from(["1", "2"]),
        "kubernetes.io/config.hash": st.just("h"),
        "cmk.intel.com/resources-injected": st.sampled_from(["true", "mine"]),
    },
)

labels: st.SearchStrategy[dict[str, str]] = st.fixed_dictionaries(
    {}, optional={"tier": st.sampled_from(["1", "2"]), "app.io/name": st.sampled_from(["1", "2"])}
)

env = st.lists(
    st.one_of(
        st.builds(
            lambda name, value: {"name": name, "value": value},
            st.sampled_from(["A", "B", "CONTAINER_NAME"]),
            st.sampled_from(["", "1", "2"]),
        ),
        st.just({"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        st.just({"name": "A"}),
    ),
    max_size=3,
    unique_by=lambda variable: str(variable["name"]),
)

PATHS = ("/m", "/m/", "/n", "/etc/podnetinfo")
mounts = st.lists(
    st.builds(
        lambda name, path: {"name": name, "mountPath": path},
        st.sampled_from(["v", "w", "podnetinfo"]),
        st.sampled_from(PATHS),
    ),
    max_size=3,
    unique_by=lambda mount: mount["mountPath"].rstrip("/"),
)

SOURCES: tuple[dict[str, Any], ...] = (
    {"emptyDir": {}},
    {"emptyDir": {"sizeLimit": "1024Mi"}},
    {"hostPath": {"path": "/proc"}},
    {"configMap": {"name": "c"}},
    {"persistentVolumeClaim": {"claimName": "claim"}},
    {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
)
volumes = st.lists(
    st.builds(
        lambda name, source: {"name": name, **source},
        st.sampled_from(["v", "w", "podnetinfo"]),
        st.sampled_from(SOURCES),
    ),
    max_size=3,
    unique_by=lambda volume: str(volume["name"]),
)

tolerations = st.lists(
    st.sampled_from([{"operator": "Exists"}, {"key": "cmk", "operator": "Exists"}, {"key": "k", "value": "v"}]),
    max_size=2,
)
sysctls = st.lists(
    st.builds(
        lambda name, value: {"name": name, "value": value},
        st.sampled_from(["net.a", "net.b"]),
        st.sampled_from(["0", "1"]),
    ),
    max_size=2,
    unique_by=lambda sysctl: sysctl["name"],
)


def _resources(amounts: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    quantities = st.fixed_dictionaries({}, optional=amounts)
    equal = quantities.map(lambda given: {"limits": given, "requests": given})
    return st.one_of(st.just({}), st.just({}), equal, quantities.map(lambda given: {"limits": given}))


_AMOUNTS: dict[str, st.SearchStrategy[Any]] = {
    CORES: st.sampled_from(["0", "1", "2"]),
    "intel.com/a": st.sampled_from(["1", "2"]),
    "intel.com/k": st.sampled_from(["1", "2"]),
    "cpu": st.sampled_from(["1000m", "2"]),
    "memory": st.sampled_from(["1024Mi", "1Gi"]),
    "hugepages-2Mi": st.just("2Mi"),
}
resources = _resources(_AMOUNTS)


def _some(
    required: dict[str, st.SearchStrategy[Any]], optional: dict[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


def containers(*names: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Return lists of containers of these names, in this order, some left out."""
    return st.tuples(*(st.one_of(st.none(), container(name)) for name in names)).map(
        lambda made: [each for each in made if each is not None]
    )


def container(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return containers of this name."""
    return _some(
        {"name": st.just(name)},
        {
            "env": env,
            "volumeMounts": mounts,
            "resources": resources,
            "securityContext": st.sampled_from([{}, {"privileged": True}, {"capabilities": {"add": ["NET_ADMIN"]}}]),
            "args": st.just(["--a"]),
            "ports": st.just([{"containerPort": 80}]),
        },
    )


specs = _some(
    {
        "containers": st.tuples(container("a"), container("b"), containers("c")).map(
            lambda parts: [parts[0], parts[1], *parts[2]]
        )
    },
    {
        "initContainers": containers("i", "setup"),
        "volumes": volumes,
        "tolerations": tolerations,
        "nodeSelector": st.fixed_dictionaries(
            {}, optional={"nic": st.sampled_from(["cx6", "e810"]), "pool": st.sampled_from(["1", "2"])}
        ),
        "serviceAccountName": st.sampled_from(["default", "mine"]),
        "securityContext": st.one_of(st.just({}), sysctls.map(lambda given: {"sysctls": given})),
        "hostNetwork": st.just(False),
        "priorityClassName": st.sampled_from(["low", "high"]),
    },
)


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    """Return pods that the API server could have sent."""
    metadata: dict[str, Any] = {"name": "web"}
    annotations = {**draw(asking_annotations), **draw(other_annotations)}
    mutate = draw(st.sampled_from([None, None, "true", "false"]))
    if mutate is not None:
        annotations["cmk.intel.com/mutate"] = mutate
    empty: bool = draw(st.booleans())
    if annotations or empty:
        metadata["annotations"] = annotations
    given = draw(labels)
    if given:
        metadata["labels"] = given
    pod: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": draw(specs)}
    given_volumes = pod["spec"].get("volumes", [])
    for name in ("v", "w"):
        limited = f'"{name}"' in annotations.get(DISK, "") and name not in [volume["name"] for volume in given_volumes]
        if limited and draw(st.integers(0, 3)):
            pod["spec"]["volumes"] = given_volumes = [*given_volumes, {"name": name, "emptyDir": {}}]
    # Strategies hand out the same dict twice; what jsonpatch does to the one would happen to the other.
    fresh: dict[str, Any] = json.loads(json.dumps(pod))
    return fresh


conditions = _some(
    {"namespaces": st.sampled_from([["default"], ["d*"], ["*t"]])},
    {
        "resources": st.sampled_from([[CORES], ["intel.com/a"], ["intel.com/b", "cpu"], ["intel.com/k"]]),
        "annotations": st.sampled_from([{"x": "1"}, {"x": "*"}, {"a~b/c": ["1", "2"]}, {RDT + "pod": "gold"}]),
        "labels": st.sampled_from([{"tier": "1"}, {"tier": "*"}, {"app.io/name": ["2"]}]),
    },
)

_per_pod = _some(
    {},
    {
        "metadata": _some({}, {"annotations": st.one_of(other_annotations, asking_annotations), "labels": labels}),
        "spec": _some(
            {},
            {
                "volumes": volumes,
                "tolerations": tolerations,
                "nodeSelector": st.fixed_dictionaries(
                    {}, optional={"nic": st.sampled_from(["cx6", "e810"]), "pool": st.sampled_from(["1", "2"])}
                ),
                "serviceAccountName": st.sampled_from(["cmk", "other"]),
                "securityContext": st.one_of(st.just({"fsGroup": 1}), sysctls.map(lambda given: {"sysctls": given})),
                "priorityClassName": st.sampled_from(["low", "high"]),
                "initContainers": st.just([{"name": "setup", "image": "i", "env": [{"name": "A", "value": "9"}]}]),
                "hostNetwork": st.just(True),
                "hostAliases": st.just([{"ip": "10.0.0.1", "hostnames": ["h"]}]),
            },
        ),
    },
)
_per_container = _some(
    {},
    {
        "env": env,
        "volumeMounts": mounts,
        "resources": _resources({name: amounts for name, amounts in _AMOUNTS.items() if name != "intel.com/k"}),
        "securityContext": st.sampled_from(
            [{"privileged": False}, {"capabilities": {"add": ["NET_ADMIN", "SYS_NICE"]}}]
        ),
        "containers": st.sampled_from(["all", "all", "asking", ["a"], ["setup"]]),
        "args": st.just(["--b", "--b"]),
        "tty": st.just(True),
        "ports": st.just([{"containerPort": 80}, {"containerPort": 81}]),
    },
)


@st.composite
def rule_files(draw: st.DrawFn, *, conflicts: tuple[str | None, ...] = (None, "keep", "replace", "deny")) -> str:
    """Return texts of mutations.yaml that are sound, of up to four rules."""
    rules: list[dict[str, Any]] = []
    for number in range(draw(st.integers(0, 4))):
        rule: dict[str, Any] = {"name": f"r{number}", "when": draw(conditions)}
        if draw(st.booleans()):
            rule["perPod"] = draw(_per_pod)
        if draw(st.booleans()):
            rule["perContainer"] = draw(_per_container)
            if rule["perContainer"].get("containers") == "asking" and "resources" not in rule["when"]:
                rule["when"]["resources"] = [CORES]
        conflict = draw(st.sampled_from(conflicts))
        if conflict is not None:
            rule["onConflict"] = conflict
        if conflict == "replace":
            for amounts in rule.get("perContainer", {}).get("resources", {}).values():
                amounts.pop(CORES, None)
        rules.append(rule)
    return json.dumps({"rules": rules})


json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(min_value=2**63, max_value=2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
        st.sampled_from(["", "\ud800", "~/", "default", "huge", "50Mi/4k", '{"a": 1}', "[" * 3000]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def spoiled(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value with some of its parts left out or replaced by others."""
    for _ in range(draw(st.integers(1, 4))):
        value = _spoil(draw, value)
    return value


def _spoil(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        rest = {name: item for name, item in value.items() if name != key}
        return rest if draw(st.integers(0, 9)) == 0 else {**rest, key: _spoil(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], _spoil(draw, value[place]), *value[place + 1 :]]
    return draw(json_values)


@st.composite
def shuffles(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value with the members of its objects in another order."""
    return _shuffled(draw, value)


def _shuffled(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shuffled(draw, value[key]) for key in draw(st.permutations(sorted(value)))}
    if isinstance(value, list):
        return [_shuffled(draw, item) for item in value]
    return value
