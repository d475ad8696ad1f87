"""One pod: what is wrong with it, and what it lacks."""

import json
from typing import Any

import jsonpatch
import msgspec
import pytest
from builders import container, cores, pod
from strategies import CATALOGUE

from noisegate.isolation.policy import CpuPolicy, Policy
from noisegate.webhook import mutate, rules
from noisegate.webhook.mutate import Outcome
from noisegate.webhook.objects import Pod, decode
from noisegate.webhook.qos import not_guaranteed

Json = dict[str, Any]

DISK = "blockio.kubernetes.io/resources"
NETWORK = "networkio.kubernetes.io/resources"
NETWORKS = "k8s.v1.cni.cncf.io/networks"
RUNTIME_RDT = "rdt.resources.beta.kubernetes.io/pod"
OWN_RDT = "noisegate.io/rdt-class"
CORES = "cmk.intel.com/exclusive-cores"
REQUIRED = Policy(enforcement="required")

pods = msgspec.json.Decoder(Pod)


def rules_of(*given: Json) -> rules.Rules:
    """Return rules, each working in namespace default."""
    named = [{"name": f"r{number}", "when": {}, **rule} for number, rule in enumerate(given)]
    for rule in named:
        rule["when"] = {"namespaces": ["default"], **rule["when"]}
    return rules.load(json.dumps({"rules": named}), "m.yaml")


def considered(
    obj: Json, *given: Json, policy: Policy | None = None, warn: bool = False, template: bool = False
) -> Outcome:
    """Return what comes of considering a pod."""
    raw = json.dumps({"spec": {"template": obj}} if template else obj).encode()
    pointer = "/spec/template" if template else ""
    typed = decode(pods, json.dumps(obj).encode())
    rules_ = rules_of(*given)
    return mutate.consider(
        typed, raw, "default", policy or Policy(), rules_, CATALOGUE, warn=warn, root=pointer, later=template
    )


def codes(outcome: Outcome) -> list[str]:
    """Return the codes of problems and warnings."""
    return [problem.code for problem in (*outcome.problems, *outcome.warnings)]


def mutated(obj: Json, *given: Json, policy: Policy | None = None, warn: bool = False) -> Json:
    """Return a pod with its patch, once it is sure that a second patch would be empty."""
    outcome = considered(obj, *given, policy=policy, warn=warn)
    assert warn or outcome.problems == []
    after: Json = jsonpatch.apply_patch(obj, outcome.patch.operations() if outcome.patch else [])
    assert not considered(after, *given, policy=policy, warn=warn).patch
    return after


def annotating(**annotations: str) -> Json:
    """Return a rule that adds annotations."""
    return {"perPod": {"metadata": {"annotations": annotations}}}


# Enforcement.

ALL_THREE = {DISK: '{"*": {"limits": {"rbps": "50Mi"}}}', NETWORK: '{"limits": {"egress": "50M"}}', OWN_RDT: "gold"}


@pytest.mark.parametrize(
    ("annotations", "kinds"),
    [
        pytest.param({DISK: ALL_THREE[DISK]}, ["disk"], id="disk"),
        pytest.param({NETWORK: ALL_THREE[NETWORK]}, ["network"], id="network"),
        pytest.param({OWN_RDT: "gold"}, ["rdt"], id="own class"),
        pytest.param(ALL_THREE, ["disk", "network", "rdt"], id="all"),
        pytest.param({RUNTIME_RDT: "gold"}, [], id="the runtime's class needs no enforcer"),
        pytest.param({NETWORKS: "fast"}, [], id="devices need none"),
        pytest.param({DISK: "{}"}, [], id="nothing asked"),
    ],
)
def test_enforcement(annotations: dict[str, str], kinds: list[str]) -> None:
    """Where enforcement is required, an asking pod is bound to nodes and a runtime that hold it."""
    after = mutated(pod(annotations), policy=REQUIRED)

    assert after["spec"].get("nodeSelector", {}) == {f"noisegate.io/enforces-{kind}": "true" for kind in kinds}
    assert after["metadata"]["annotations"].get("required-plugins.noderesource.dev") == (
        '["noisegate"]' if kinds else None
    )
    assert mutated(pod(annotations))["spec"].get("nodeSelector") is None


@pytest.mark.parametrize(
    "key",
    [
        "required-plugins.noderesource.dev",
        "required-plugins.noderesource.dev/container.app",
        "tolerate-missing-nri-plugins.noderesource.dev",
        "tolerate-missing-nri-plugins.noderesource.dev/pod",
    ],
)
def test_reserved_keys(key: str) -> None:
    """A key of the pod's own that opens a way round is an error, and stays one however often the pod is seen."""
    wrong = pod({NETWORK: ALL_THREE[NETWORK], key: "[]"})

    assert codes(considered(wrong, policy=REQUIRED)) == ["NG802"]
    assert codes(considered(wrong)) == []
    assert codes(considered(pod({key: "[]"}), policy=REQUIRED)) == []
    assert mutated(wrong, policy=REQUIRED, warn=True)["metadata"]["annotations"][key] == "[]"


def test_reserved_key_and_a_rule_that_reaches() -> None:
    """Looking at the pod again does not make it right."""
    wrong = pod({NETWORK: ALL_THREE[NETWORK], "required-plugins.noderesource.dev": "[]"})

    assert codes(considered(wrong, {"perPod": {"spec": {"initContainers": [{"name": "i"}]}}}, policy=REQUIRED)) == [
        "NG802"
    ]


def test_reserved_label() -> None:
    """So is a node selector that says otherwise; one that says the same is right."""
    asking = {NETWORK: ALL_THREE[NETWORK]}
    label = "noisegate.io/enforces-network"

    assert codes(considered(pod(asking, nodeSelector={label: "false"}), policy=REQUIRED)) == ["NG803"]
    assert mutated(pod(asking, nodeSelector={label: "true"}), policy=REQUIRED)["spec"]["nodeSelector"] == {
        label: "true"
    }


# What rules say for the pod.


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (RUNTIME_RDT, "gould", "NG301"),
        (OWN_RDT, "very gold", "NG303"),
        (NETWORK, "{", "NG001"),
        (NETWORKS, "fats", "NG413"),
        (DISK, '{"v": {}}', "NG105"),
    ],
)
def test_injected_is_checked(key: str, value: str, code: str) -> None:
    """What a rule says is checked like what a pod says; the message names the rule, and in warn mode it is not added."""
    if code == "NG105":
        value = '{"v": {"limits": {"rbps": "50Mi"}}}'
    outcome = considered(pod(), annotating(**{key: value}))

    assert codes(outcome) == [code]
    assert outcome.problems[0].message.endswith('; rule "r0" of mutations.yaml set this')
    assert mutated(pod(), annotating(**{key: value, "x": "y"}), warn=True) == pod({"x": "y"})


def test_injected_class() -> None:
    """A class by namespace: the pod's own wins, of either family."""
    rule = annotating(**{RUNTIME_RDT: "gold"})

    assert mutated(pod(), rule)["metadata"]["annotations"] == {RUNTIME_RDT: "gold"}
    for own in ({RUNTIME_RDT: "silver"}, {OWN_RDT: "silver"}, {OWN_RDT + ".app": "silver"}):
        assert mutated(pod(own), rule)["metadata"]["annotations"] == own


# Pods that ask for more because of a rule.


def test_rule_gives_cores() -> None:
    """A rule that makes containers ask for cores has them told their number, and wakes the rules for cores."""
    after = mutated(
        pod(),
        {"perContainer": {"resources": {"requests": {CORES: "2"}}}},
        {
            "when": {"resources": [CORES]},
            "perContainer": {"env": [{"name": "A", "value": "1"}], "containers": "asking"},
        },
    )

    assert after["spec"]["containers"][0]["env"] == [
        {"name": "CMK_NUM_CORES", "value": "2"},
        {"name": "A", "value": "1"},
    ]
    assert after["spec"]["containers"][0]["resources"] == {"requests": {CORES: "2"}, "limits": {CORES: "2"}}


def test_rule_adds_an_init_container() -> None:
    """An init container that a rule adds gets what init containers get."""
    after = mutated(
        pod(),
        {
            "perPod": {"spec": {"initContainers": [{"name": "setup", "resources": {"limits": {CORES: "1"}}}]}},
            "perContainer": {"env": [{"name": "A", "value": "1"}]},
        },
    )

    assert after["spec"]["initContainers"] == [
        {
            "name": "setup",
            "resources": {"limits": {CORES: "1"}},
            "env": [{"name": "CMK_NUM_CORES", "value": "1"}, {"name": "A", "value": "1"}],
        }
    ]


def test_rule_adds_the_volume_it_limits() -> None:
    """A rule may add a volume, its mounts and the limit on it."""
    after = mutated(
        pod(),
        {
            "perPod": {
                "metadata": {"annotations": {DISK: '{"scratch": {"limits": {"rbps": "50Mi"}}}'}},
                "spec": {"volumes": [{"name": "scratch", "emptyDir": {}}]},
            },
            "perContainer": {"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]},
        },
    )

    assert after["metadata"]["annotations"]["noisegate.io/volume-paths"] == '{"scratch":{"app":"/scratch"}}'


def test_problem_of_what_a_rule_added() -> None:
    """What goes wrong only once rules have worked still names the rule."""
    outcome = considered(
        pod(),
        {
            "perPod": {
                "metadata": {"annotations": {DISK: '{"scratch": {"limits": {"rbps": "50k"}}}'}},
                "spec": {"volumes": [{"name": "scratch", "emptyDir": {}}]},
            },
            "perContainer": {"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]},
        },
    )

    assert codes(outcome) == ["NG107"]
    assert outcome.problems[0].message.endswith('; rule "r0" of mutations.yaml set this')
    assert outcome.patch is None


def test_rule_for_attachments() -> None:
    """A rule may wait for the device that an attachment needs, and give something to the container that gets it."""
    rule = {
        "when": {"resources": ["intel.com/a"]},
        "perPod": {"metadata": {"labels": {"dpdk": "yes"}}},
        "perContainer": {"containers": "asking", "env": [{"name": "A", "value": "1"}]},
    }
    after = mutated(pod({NETWORKS: "fast"}, containers=[container("a"), container("b")]), rule)

    assert after["metadata"]["labels"] == {"dpdk": "yes"}
    assert [each.get("env") for each in after["spec"]["containers"]] == [[{"name": "A", "value": "1"}], None]
    assert after["spec"]["volumes"][0]["downwardAPI"]["items"][0]["path"] == "labels"


def test_rule_wakes_an_attachment() -> None:
    """A rule that waits for a device may name a further network."""
    after = mutated(
        pod({NETWORKS: "fast"}),
        {
            "when": {"resources": ["intel.com/a"]},
            **annotating(**{"v1.multus-cni.io/default-network": "default/pinned"}),
        },
    )

    assert after["spec"]["containers"][0]["resources"]["limits"] == {"intel.com/a": "1", "intel.com/b": "1"}
    assert after["spec"]["nodeSelector"] == {"nic": "cx6"}


def test_topped_up_is_told_once() -> None:
    """That devices were added is told although the pod is looked at again."""
    asking = pod({NETWORKS: "fast,fast"}, containers=[container(resources={"limits": {"intel.com/a": "1"}})])

    assert codes(considered(asking, {"perPod": {"spec": {"nodeSelector": {"x": "y"}}}})) == ["NG463"]


def test_rule_selects_other_nodes() -> None:
    """A rule's node selector that contradicts a network's is no silent loss."""
    rule = {"perPod": {"spec": {"nodeSelector": {"nic": "e810"}}}, "onConflict": "deny"}

    assert codes(considered(pod({NETWORKS: "pinned"}), rule)) == ["NG602"]


def test_replaced_annotation_wakes_rules() -> None:
    """A rule that waits for the value that another puts in place works at once."""
    after = mutated(
        pod({"tier": "1"}),
        {"when": {"annotations": {"tier": "2"}}, "perPod": {"metadata": {"labels": {"l": "2"}}}},
        {**annotating(tier="2"), "onConflict": "replace"},
    )

    assert (after["metadata"]["annotations"], after["metadata"]["labels"]) == ({"tier": "2"}, {"l": "2"})


def test_unsettled() -> None:
    """Rules that undo each other's work without end are told of, not followed."""
    outcome = considered(
        pod({"tier": "1"}),
        {"when": {"annotations": {"tier": "1"}}, **annotating(tier="2"), "onConflict": "replace"},
        {"when": {"annotations": {"tier": "2"}}, **annotating(tier="1"), "onConflict": "replace"},
    )

    assert (codes(outcome), outcome.patch) == (["NG607"], None)


def test_template_that_asks_for_more() -> None:
    """A template is looked at again too, where it stands in the workload."""
    rule = {
        "perPod": {
            "metadata": {"annotations": {DISK: '{"scratch": {"limits": {"rbps": "50Mi"}}}'}},
            "spec": {"volumes": [{"name": "scratch", "emptyDir": {}}]},
        },
        "perContainer": {"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]},
    }

    assert codes(considered(pod(), rule, template=True)) == []
    assert codes(considered(pod({NETWORKS: "later"}), rule, template=True)) == ["NG462"]


# Profiles.

PROFILE: Json = {
    "when": {"annotations": {"noisegate.io/profile": "router"}},
    "requireQos": "Guaranteed",
    "perPod": {"metadata": {"labels": {"a": "b"}}},
}
GUARANTEED = {"limits": {"cpu": "1", "memory": "1Gi"}}


def test_profile() -> None:
    """A profile is a rule that waits to be asked for."""
    asking = pod({"noisegate.io/profile": "router"}, containers=[container(resources=GUARANTEED)])

    assert mutated(asking, PROFILE)["metadata"]["labels"] == {"a": "b"}
    assert mutated(pod(), PROFILE) == pod()


@pytest.mark.parametrize(
    ("profile", "given", "code", "message", "hint"),
    [
        pytest.param(
            "ruoter",
            [PROFILE],
            "NG604",
            'there is no profile "ruoter"; known profiles: router',
            "write router",
            id="misspelt",
        ),
        pytest.param(
            "router", [], "NG604", 'there is no profile "router"; known profiles: none', "", id="there is none"
        ),
        pytest.param("", [PROFILE], "NG604", 'there is no profile ""; known profiles: router', "", id="empty"),
        pytest.param(
            "router",
            [{**PROFILE, "when": {**PROFILE["when"], "namespaces": ["routers", "r*"]}}],
            "NG605",
            'profile "router" does not work in namespace default; allowed namespaces: r*, routers',
            "ask whoever keeps mutations.yaml to add the namespace to rule r0",
            id="elsewhere",
        ),
        pytest.param(
            "router",
            [{**PROFILE, "when": {**PROFILE["when"], "namespaces": []}}],
            "NG605",
            'profile "router" does not work in namespace default; allowed namespaces: none yet',
            "ask whoever keeps mutations.yaml to add the namespace to rule r0",
            id="nowhere yet",
        ),
    ],
)
def test_wrong_profile(profile: str, given: list[Json], code: str, message: str, hint: str) -> None:
    """A profile that does not exist, or not here, is an error that says what does."""
    (problem,) = considered(pod({"noisegate.io/profile": profile}), *given).problems

    assert (problem.code, problem.message, problem.hint) == (code, message, hint)


def test_profile_of_two_rules() -> None:
    """Rules may share a profile; it works where one of them does."""
    elsewhere = {**PROFILE, "when": {**PROFILE["when"], "namespaces": ["routers"]}}
    asking = pod({"noisegate.io/profile": "router"}, containers=[container(resources=GUARANTEED)])

    assert mutated(asking, PROFILE, elsewhere)["metadata"]["labels"] == {"a": "b"}


@pytest.mark.parametrize(
    ("containers", "spec", "lacking"),
    [
        pytest.param([GUARANTEED], {}, [], id="limits"),
        pytest.param([{**GUARANTEED, "requests": {"cpu": "1000m"}}], {}, [], id="another spelling"),
        pytest.param(
            [{}],
            {},
            ["containers[0].resources.limits has no cpu limit", "containers[0].resources.limits has no memory limit"],
            id="nothing",
        ),
        pytest.param(
            [GUARANTEED, {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}],
            {},
            ["containers[1].resources.requests requests 1 of cpu but is limited to 2"],
            id="request below the limit",
        ),
        pytest.param(
            [{"limits": {"cpu": "x", "memory": "1Gi"}, "requests": {"cpu": "1"}}],
            {},
            ["containers[0].resources.requests requests 1 of cpu but is limited to x"],
            id="no quantity",
        ),
        pytest.param(
            [GUARANTEED],
            {"initContainers": [{"name": "i", "resources": {"limits": {"cpu": "1"}}}]},
            ["initContainers[0].resources.limits has no memory limit"],
            id="init container",
        ),
        pytest.param([{}], {"resources": GUARANTEED}, [], id="pod-level resources"),
        pytest.param(
            [GUARANTEED],
            {"resources": {"requests": {"cpu": "1"}}},
            ["resources.limits has no cpu limit", "resources.limits has no memory limit"],
            id="pod-level without limits",
        ),
    ],
)
def test_not_guaranteed(containers: list[Json], spec: Json, lacking: list[str]) -> None:
    """What keeps a pod from QoS class Guaranteed is told, part by part."""
    obj = pod(
        {"noisegate.io/profile": "router"},
        containers=[container(f"c{number}", resources=each) for number, each in enumerate(containers)],
        **spec,
    )

    assert [
        f"{path.removeprefix('spec.')} {told}"
        for path, _, told in not_guaranteed(decode(pods, json.dumps(obj).encode()))
    ] == lacking
    assert codes(considered(obj, PROFILE)) == ["NG606"] * len(lacking)


def test_not_guaranteed_template() -> None:
    """In a template the limits may still come from a LimitRange: a warning."""
    outcome = considered(pod({"noisegate.io/profile": "router"}), PROFILE, template=True)

    assert ([problem.code for problem in outcome.problems], [warning.code for warning in outcome.warnings]) == (
        [],
        ["NG606", "NG606"],
    )


# Devices.


@pytest.mark.parametrize("annotations", [{}, {NETWORKS: "plain"}, {NETWORKS: "fast"}, {NETWORKS: "broken"}])
def test_unknown_devices_container(annotations: dict[str, str]) -> None:
    """A container that does not exist is an error, whatever the networks."""
    outcome = considered(pod({**annotations, "noisegate.io/devices-container": "ap"}))

    assert [problem.code for problem in outcome.problems if problem.code != "NG414"] == ["NG419"]


@pytest.mark.parametrize(
    ("annotations", "place"),
    [
        ({}, 0),
        ({"kubectl.kubernetes.io/default-container": "b"}, 1),
        ({"kubectl.kubernetes.io/default-container": "none"}, 0),
        ({"kubectl.kubernetes.io/default-container": "a", "noisegate.io/devices-container": "b"}, 1),
    ],
)
def test_devices_container(annotations: dict[str, str], place: int) -> None:
    """Ours, else kubectl's if it exists, else the first."""
    after = mutated(pod({NETWORKS: "fast", **annotations}, containers=[container("a"), container("b")]))

    assert [("resources" in each) for each in after["spec"]["containers"]] == [place == 0, place == 1]


def test_nothing_of_bad_attachments() -> None:
    """Of attachments that cannot work nothing is added, in warn mode too."""
    surplus = pod({NETWORKS: "pinned"}, nodeSelector={"nic": "e810"})

    assert mutated(surplus, warn=True) == surplus


def test_huge_pages() -> None:
    """A container with huge pages and devices is told its name, by which it finds its files."""
    resources = {"limits": {"hugepages-2Mi": "2Mi"}, "requests": {"hugepages-2Mi": "2Mi"}}
    after = mutated(pod({NETWORKS: "fast"}, containers=[container("a", resources=resources)]))

    assert after["spec"]["containers"][0]["env"] == [{"name": "CONTAINER_NAME", "value": "a"}]


def test_host_network() -> None:
    """A pod without a network of its own cannot ask for bandwidth; in warn mode it stays as it is."""
    wrong = pod({NETWORK: ALL_THREE[NETWORK]}, hostNetwork=True)

    assert codes(considered(wrong)) == ["NG201"]
    assert mutated(wrong, policy=REQUIRED, warn=True) == wrong


def test_rule_takes_the_network() -> None:
    """So it is where a rule puts the pod on the host's network."""
    rule = {"perPod": {"spec": {"hostNetwork": True}}}

    assert codes(considered(pod({NETWORK: ALL_THREE[NETWORK]}), rule)) == ["NG201"]


def test_replaced_in_a_pod_that_is_looked_at_again() -> None:
    """What is replaced in a list is replaced once."""
    rule = {
        "perPod": {"spec": {"initContainers": [{"name": "i", "image": "new"}]}},
        "perContainer": {"env": [{"name": "A", "value": "1"}]},
        "onConflict": "replace",
    }
    after = mutated(pod(initContainers=[{"name": "h"}, {"name": "i", "image": "old", "tty": True}]), rule)

    assert after["spec"]["initContainers"] == [
        {"name": "h", "env": [{"name": "A", "value": "1"}]},
        {"name": "i", "image": "new", "env": [{"name": "A", "value": "1"}]},
    ]


# Cores.


def test_opt_out() -> None:
    """With policy.cpu.optOut the annotation keeps cores out; without, it only warns."""
    out = pod({"cmk.intel.com/mutate": "false"}, containers=[container(resources=cores("1"))])

    assert mutated(out, policy=Policy(cpu=CpuPolicy(optOut=True))) == out
    assert codes(considered(out)) == ["NG551"]
    assert mutated(out)["spec"]["containers"][0]["env"] == [{"name": "CMK_NUM_CORES", "value": "1"}]


def test_value_from() -> None:
    """A CMK_NUM_CORES from elsewhere is kept with a warning."""
    variable = {"name": "CMK_NUM_CORES", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}
    asking = pod(containers=[container(resources=cores("1"), env=[variable])])

    assert mutated(asking) == asking
    assert codes(considered(asking)) == ["NG552"]


def test_containers_by_name() -> None:
    """A rule may name the containers it works on, init containers included."""
    rule = {"perContainer": {"containers": ["b", "i"], "tty": True}}
    after = mutated(pod(containers=[container("a"), container("b")], initContainers=[{"name": "i"}]), rule)

    assert [
        each["name"] for each in (*after["spec"]["containers"], *after["spec"]["initContainers"]) if "tty" in each
    ] == ["b", "i"]


def test_stable_order() -> None:
    """Problems come in the order of their codes and paths."""
    outcome = considered(pod({"noisegate.io/z": "", "noisegate.io/a": "", NETWORK: "{"}))

    assert outcome.problems == sorted(outcome.problems)
    assert codes(outcome) == ["NG001", "NG801", "NG801"]
