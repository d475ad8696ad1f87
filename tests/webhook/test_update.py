"""UPDATE of a pod that exists."""

import json
from typing import Any

import msgspec
import pytest
from builders import container, cores, pod

from noisegate.isolation.policy import DiskPolicy, Policy
from noisegate.webhook import update
from noisegate.webhook.objects import Pod, decode

DISK = "blockio.kubernetes.io/resources"
NETWORK = "networkio.kubernetes.io/resources"
NETWORKS = "k8s.v1.cni.cncf.io/networks"


def typed(annotations: dict[str, str] | None, **metadata: Any) -> Pod:
    """Return a pod with these annotations."""
    obj = pod(annotations)
    obj["metadata"] |= metadata
    return decode(msgspec.json.Decoder(Pod), json.dumps(obj).encode())


def judged(
    old: dict[str, str] | None, new: dict[str, str] | None, policy: Policy | None = None, **metadata: Any
) -> list[str]:
    """Return the problems of a change, as text."""
    outcome = update.judge_pod(typed(old), typed(new, **metadata), policy or Policy())
    assert outcome.patch is None
    return [str(problem) for problem in outcome.problems]


def disk(value: str, group: str = "limits", key: str = "rbps") -> dict[str, str]:
    """Return the annotation that asks for one volume."""
    return {DISK: json.dumps({"data": {group: {key: value}}})}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(None, None, id="no annotations"),
        pytest.param({NETWORK: "rubbish"}, {NETWORK: "rubbish"}, id="wrong as before"),
        pytest.param({NETWORK: "rubbish"}, {NETWORK: "rubbish", "note": "x"}, id="another key"),
        pytest.param({}, {"cmk.intel.com/resources-injected": "true"}, id="no key of sections 1 to 5"),
        pytest.param({"kubernetes.io/egress-bandwidth": "1M"}, {}, id="the CNI's key"),
        pytest.param(
            {"kubectl.kubernetes.io/default-container": "a"},
            {"kubectl.kubernetes.io/default-container": "b"},
            id="kubectl's key",
        ),
        pytest.param(disk("50Mi"), disk("60Mi"), id="limit raised, and its request follows"),
        pytest.param(disk("50Mi/4k"), disk("20Mi/8k"), id="limit lowered, block size changed"),
        pytest.param(disk("50Mi"), {DISK: '{"data": {"limits": {"rbps": "51200Ki"}}}'}, id="another spelling"),
        pytest.param(
            {NETWORK: '{"limits": {"egress": "50M"}}'}, {NETWORK: '{"limits": {"egress": "60M"}}'}, id="network limit"
        ),
        pytest.param({NETWORKS: "fast"}, {NETWORKS: "fast,not-there"}, id="hot-plug"),
        pytest.param({}, {NETWORKS: "fast"}, id="networks added"),
        pytest.param({NETWORKS: "fast"}, {}, id="networks removed"),
    ],
)
def test_allowed(old: dict[str, str] | None, new: dict[str, str] | None) -> None:
    """What did not change, is not ours, or is a limit passes."""
    assert judged(old, new) == []


@pytest.mark.parametrize(
    "key",
    [
        "rdt.resources.beta.kubernetes.io/pod",
        "rdt.resources.beta.kubernetes.io/container.app",
        "noisegate.io/rdt-class",
        "noisegate.io/rdt-class.app",
        "noisegate.io/volume-paths",
        "noisegate.io/profile",
        "noisegate.io/anything",
        "v1.multus-cni.io/default-network",
        "cmk.intel.com/mutate",
        "required-plugins.noderesource.dev",
        "required-plugins.noderesource.dev/container.app",
        "tolerate-missing-nri-plugins.noderesource.dev",
    ],
)
def test_fixed(key: str) -> None:
    """Everything else of ours may not be added, changed or removed."""
    path = f"NG701 metadata.annotations[{key}]: {key} may not be"

    assert judged({}, {key: "a"}) == [f"{path} added on a pod that exists (create a new pod)"]
    assert judged({key: "a"}, {key: "b"}) == [f"{path} changed on a pod that exists (put back a)"]
    assert judged({key: "a"}, {}) == [f"{path} removed on a pod that exists (put back a)"]
    assert judged({key: "a" * 61}, {}) == [f"{path} removed on a pod that exists (put the old value back)"]


@pytest.mark.parametrize("key", [DISK, NETWORK])
def test_whole_annotation(key: str) -> None:
    """The annotation itself comes and goes only with the pod."""
    limits = '{"*": {"limits": {"rbps": "50Mi"}}}' if key == DISK else '{"limits": {"egress": "50M"}}'

    assert [text[:5] for text in judged({}, {key: limits})] == ["NG701"]
    assert [text[:5] for text in judged({key: limits}, {})] == ["NG701"]


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        pytest.param(
            disk("50Mi"),
            {DISK: '{"data": {"limits": {"rbps": "50Mi", "wbps": "50Mi"}}}'},
            "data.limits.wbps",
            id="direction added",
        ),
        pytest.param(
            {DISK: '{"data": {"limits": {"rbps": "50Mi", "wbps": "50Mi"}}}'},
            disk("50Mi"),
            "data.limits.wbps",
            id="direction removed",
        ),
        pytest.param(
            disk("50Mi"),
            {DISK: '{"data": {"limits": {"rbps": "50Mi"}}, "logs": {"limits": {"rbps": "50Mi"}}}'},
            "logs",
            id="volume added",
        ),
        pytest.param(disk("50Mi"), {DISK: '{"logs": {"limits": {"rbps": "50Mi"}}}'}, "data", id="volume renamed"),
        pytest.param(disk("50Mi"), {DISK: "{}"}, "data", id="volume removed"),
        pytest.param(disk("50Mi", "requests"), disk("60Mi", "requests"), "data.requests.rbps", id="request changed"),
    ],
)
def test_entries(old: dict[str, str], new: dict[str, str], path: str) -> None:
    """Entries of disk come and go only with the pod, and requests stay."""
    problems = judged(old, new)

    assert problems[0].startswith(f"NG702 metadata.annotations[{DISK}].{path}: ")


def test_network_entries() -> None:
    """So it is with the network's."""
    (problem,) = judged(
        {NETWORK: '{"limits": {"egress": "50M"}}'}, {NETWORK: '{"limits": {"egress": "50M", "ingress": "50M"}}'}
    )

    assert problem.startswith(f"NG702 metadata.annotations[{NETWORK}].limits.ingress: ")


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [(DISK, "{", "NG001"), (NETWORK, '{"limit": {}}', "NG003"), (NETWORKS, "Fast", "NG4")],
    ids=["disk", "network", "networks"],
)
def test_malformed(key: str, value: str, code: str) -> None:
    """A new value must be well formed."""
    old = {DISK: disk("50Mi")[DISK], NETWORK: '{"limits": {"egress": "50M"}}', NETWORKS: "fast"}[key]
    (problem,) = judged({key: old}, {key: value})

    assert problem.startswith(code)


def test_policy_holds_for_new_limits() -> None:
    """A limit that changed must be allowed; one that did not is not judged again."""
    policy = Policy(disk=DiskPolicy(minimumBytesPerSecond=1 << 20))
    two = '{"a": {"limits": {"rbps": "%s"}}, "b": {"limits": {"rbps": "%s"}}}'

    (problem,) = judged({DISK: two % ("50Mi", "50Mi")}, {DISK: two % ("50Mi", "100k")}, policy)
    assert problem.startswith(f"NG107 metadata.annotations[{DISK}].b.limits.rbps: ")
    assert judged({DISK: two % ("100k", "50Mi")}, {DISK: two % ("100k", "60Mi")}, policy) == []


def test_being_deleted() -> None:
    """A pod that is being deleted is left alone."""
    assert judged({}, {"noisegate.io/rdt-class": "gold"}, deletionTimestamp="2026-01-01T00:00:00Z") == []


def test_asks_otherwise() -> None:
    """Templates differ in what they ask for by our annotations and by exclusive cores."""

    def template(annotations: dict[str, str], **fields: Any) -> Pod:
        return decode(
            msgspec.json.Decoder(Pod), json.dumps(pod(annotations, containers=[container(**fields)])).encode()
        )

    plain = template({NETWORK: "x"})

    assert not update.asks_otherwise(
        plain, template({NETWORK: "x", "note": "y"}, image="other", resources={"limits": {"cpu": "1"}})
    )
    assert update.asks_otherwise(plain, template({NETWORK: "y"}))
    assert update.asks_otherwise(plain, template({}))
    assert update.asks_otherwise(plain, template({NETWORK: "x"}, resources=cores("1")))
