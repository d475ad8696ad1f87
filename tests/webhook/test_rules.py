"""mutations.yaml."""

from pathlib import Path

import pytest
from originals import GENERATED, TEMPLATE

from noisegate.service.faults import ConfigError
from noisegate.webhook import rules
from noisegate.webhook.leaf import Leaf
from noisegate.webhook.rules import When


@pytest.mark.parametrize(
    ("text", "volumes"),
    [
        pytest.param(GENERATED, ["cmk-host-proc", "cmk-install-dir"], id="as cluster-init wrote it"),
        pytest.param(TEMPLATE, ["cmk-config-dir", "cmk-host-proc", "cmk-install-dir"], id="as the template had it"),
    ],
)
def test_original_files(text: str, volumes: list[str]) -> None:
    """Both shapes of the original's file are one rule for pods that ask for cores, everywhere, with one warning."""
    loaded = rules.load(text, "mutations.yaml")

    (rule,) = loaded.rules
    assert rule.name == "mutations"
    assert rule.when == When(
        frozenset({"cmk.intel.com/exclusive-cores", "cmk.intel.com/exclusive-non-isolcpus-cores"}), (), (), None
    )
    assert rule.containers == "all"
    assert sorted(rule.volumes) == volumes
    assert Leaf(("spec",), "serviceAccountName", "cmk-serviceaccount", element=False) in rule.per_pod
    assert (
        Leaf(("env",), "CMK_PROC_FS", {"name": "CMK_PROC_FS", "value": "/host/proc"}, element=True)
        in rule.per_container
    )
    assert loaded.notes == (
        (
            "mutations.yaml: mutations: gives a service account, a toleration of every taint, host paths to asking pods of "
            "every namespace; write it as a rule with when.namespaces to limit that"
        ),
    )


def test_shipped_file() -> None:
    """The shipped file is sound, gives nothing privileged anywhere by itself, and holds the three shipped rules."""
    path = Path(__file__).parents[2] / "mutations.yaml"
    loaded = rules.load(path.read_bytes(), "mutations.yaml")

    assert [(rule.name, rule.when.namespaces) for rule in loaded.rules] == [
        ("cmk", None),
        ("cmk-isolate", ()),
        ("sriov-dpdk", ()),
    ]
    assert [rule.profile for rule in loaded.rules] == ["", "", "sriov-dpdk"]
    assert [rule.about_cores for rule in loaded.rules] == [True, True, False]
    assert loaded.rules[2].guaranteed
    assert loaded.notes == ()


def test_empty_file() -> None:
    """An empty file has no rules."""
    assert rules.load("", "m.yaml").rules == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("mutation: {}", "m.yaml:1: mutation: ", id="unknown top-level key"),
        pytest.param(
            "rules:\n- name: a\n  when: {}\n  perpod: {}\n", "m.yaml:4: rules[0].perpod: ", id="unknown key of a rule"
        ),
        pytest.param("rules:\n- name: Not_A_Name\n  when: {}\n", "m.yaml:2: rules[0].name: ", id="bad name"),
        pytest.param(
            "rules:\n- {name: a, when: {}}\n- {name: a, when: {}}\n", "m.yaml:3: rules[1].name: ", id="name taken"
        ),
        pytest.param(
            "rules:\n- name: a\n  when: {}\n  perPod:\n    spec:\n      toleration: []\n",
            'm.yaml:6: rules[0].perPod.spec.toleration: "toleration": a rule may not set this field; did you mean tolerations?',
            id="unknown field of a pod",
        ),
        pytest.param(
            "rules:\n- name: a\n  when: {}\n  perContainer:\n    volumeMounts:\n    - {name: x}\n",
            'm.yaml:6: rules[0].perContainer.volumeMounts[0]: {"name": "x"}: an element of volumeMounts is a map with mountPath',
            id="element without merge key",
        ),
        pytest.param(
            "rules:\n- name: a\n  when: {}\n  perPod:\n    metadata:\n      annotations: {x: true}\n",
            'm.yaml:6: rules[0].perPod.metadata.annotations[x]: true: a string is needed; put the value in quotation marks, as in "true"',
            id="annotation that is no text",
        ),
        pytest.param(
            "rules:\n- name: a\n  when: {}\n  perContainer: {containers: asking, tty: true}\n",
            'm.yaml:4: rules[0].perContainer.containers: "asking": asking needs when.resources: the resources that are asked for',
            id="asking for what",
        ),
        pytest.param(
            "rules:\n- name: a\n  when: {}\n  perContainer: {containers: some}\n",
            'm.yaml:4: rules[0].perContainer.containers: "some": allowed: all, asking, or a list of container names',
            id="which containers",
        ),
        pytest.param(
            "rules:\n- name: a\n  when: {}\n  perPod: {kind: Pod}\n",
            'm.yaml:4: rules[0].perPod.kind: "kind": allowed: metadata, spec',
            id="field beside metadata and spec",
        ),
        pytest.param(
            "rules:\n- name: a\n  when: {}\n  perPod: {metadata: {name: x}}\n",
            'm.yaml:4: rules[0].perPod.metadata.name: "name": allowed: annotations, labels',
            id="field of metadata",
        ),
        pytest.param(
            "rules:\n- name: a\n  when: {}\n  perPod: {spec: {hostNetwork: true}}\n",
            'm.yaml:3: rules[0].when.namespaces: rule "a" gives hostNetwork; such a rule names the namespaces it works in '
            "(names or globs, not * alone)",
            id="privilege everywhere",
        ),
        pytest.param(
            "rules:\n- name: a\n  when: {namespaces: ['*']}\n  perContainer: {securityContext: {capabilities: {add: [SYS_ADMIN]}}}\n",
            'm.yaml:3: rules[0].when.namespaces: "*": rule "a" gives capabilities; such a rule names the namespaces it works in '
            "(names or globs, not * alone)",
            id="privilege in every namespace",
        ),
        pytest.param("rules: [", "m.yaml:2:1: not YAML: ", id="not YAML"),
    ],
)
def test_refused(text: str, expected: str) -> None:
    """What is wrong is told with file, line, key and value."""
    with pytest.raises(ConfigError) as caught:
        rules.load(text, "m.yaml")

    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        pytest.param(
            "when: {}, perPod: {metadata: {annotations: {cmk.intel.com/mutate: 'true'}}}",
            'perPod.metadata.annotations[cmk.intel.com/mutate]: "true": a rule may not set this: it is the pod\'s word on the rules for exclusive cores',
            id="the pod's word",
        ),
        pytest.param(
            "when: {}, perPod: {metadata: {annotations: {noisegate.io/volume-paths: x}}}",
            'perPod.metadata.annotations[noisegate.io/volume-paths]: "x": a rule may not set this: noisegate does, from the mounts of the pod',
            id="our annotation",
        ),
        pytest.param(
            "when: {}, perPod: {metadata: {annotations: {noisegate.io/rdt-clas: x}}}",
            'perPod.metadata.annotations[noisegate.io/rdt-clas]: "x": noisegate knows no annotation noisegate.io/rdt-clas; did you mean noisegate.io/rdt-class?',
            id="annotation that means nothing",
        ),
        pytest.param(
            "when: {}, perPod: {spec: {nodeSelector: {noisegate.io/enforces-disk: 'true'}}}",
            'perPod.spec.nodeSelector[noisegate.io/enforces-disk]: "true": a rule may not set this: noisegate does where enforcement is required',
            id="our label",
        ),
        pytest.param(
            "when: {}, perContainer: {env: [{name: CMK_NUM_CORES, value: '2'}]}",
            'perContainer.env[CMK_NUM_CORES]: "2": a rule may not set this: noisegate does, from what each container asks for',
            id="our variable",
        ),
        pytest.param(
            "when: {}, perContainer: {env: [{name: A, value: 2}]}",
            'perContainer.env[A]: 2: the value of a variable is a string; put it in quotation marks, as in "1"',
            id="variable that is no text",
        ),
        pytest.param(
            "when: {}, perPod: {spec: {nodeSelector: {a: 1}}}",
            'perPod.spec.nodeSelector[a]: 1: a string is needed; put the value in quotation marks, as in "true"',
            id="label that is no text",
        ),
        pytest.param(
            "when: {}, onConflict: replace, perContainer: {resources: {limits: {cmk.intel.com/exclusive-cores: 1}}}",
            "perContainer.resources.limits[cmk.intel.com/exclusive-cores]: 1: "
            "a rule may not replace the cores that a container asks for; leave onConflict out, or write deny",
            id="other cores",
        ),
        pytest.param("when: {}, perPod: {metadata: []}", "perPod.metadata: []: metadata is a map", id="metadata"),
        pytest.param("when: {}, perPod: {spec: x}", 'perPod.spec: "x": spec is a map', id="spec"),
        pytest.param(
            "when: {}, perPod: {spec: {volumes: {}}}", "perPod.spec.volumes: {}: volumes is a list", id="list"
        ),
        pytest.param(
            "when: {}, perContainer: {resources: []}", "perContainer.resources: []: resources is a map", id="map"
        ),
        pytest.param(
            "when: {annotations: {noisegate.io/profile: [a, b]}}",
            'when.annotations[noisegate.io/profile]: "a, b": a rule is one profile: write one name',
            id="two profiles",
        ),
        pytest.param(
            "when: {annotations: {noisegate.io/profile: '*'}}",
            'when.annotations[noisegate.io/profile]: "*": a rule is one profile: write one name',
            id="every profile",
        ),
    ],
)
def test_not_for_rules(rule: str, told: str) -> None:
    """A rule may not say what noisegate decides, nor what no pod could be created with."""
    with pytest.raises(ConfigError) as caught:
        rules.load("rules:\n- {name: a, " + rule + "}\n", "m.yaml")

    assert str(caught.value).partition("rules[0].")[2] == told


def test_nothing_said() -> None:
    """What is null or empty says nothing."""
    loaded = rules.load(
        "rules:\n- {name: a, when: {}, perPod: {metadata: {annotations: {}}, spec: {volumes: null}}, perContainer: {env: []}}\n",
        "m.yaml",
    )

    assert (loaded.rules[0].per_pod, loaded.rules[0].per_container) == ((), ())


def test_no_values() -> None:
    """A condition without values could never hold."""
    with pytest.raises(ConfigError, match=r"when\.annotations"):
        rules.load("rules:\n- {name: a, when: {annotations: {x: []}}}\n", "m.yaml")


def test_harmless_original() -> None:
    """The original's form without privileges gives no warning."""
    assert rules.load("mutations: {perContainer: {env: [{name: A, value: b}]}}", "m.yaml").notes == ()


def test_everything_at_once() -> None:
    """All that is wrong with a file is told together."""
    with pytest.raises(ConfigError) as caught:
        rules.load("rules:\n- name: a\n  when: {}\n  perPod: {x: 1, y: 2, spec: {hostPID: true}}\n", "m.yaml")

    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    ("text", "privilege"),
    [
        ("perPod: {spec: {volumes: [{name: a, hostPath: {path: /}}]}}", "host paths"),
        ("perPod: {spec: {tolerations: [{operator: Exists}]}}", "a toleration of every taint"),
        ("perPod: {spec: {serviceAccount: x}}", "a service account"),
        ("perPod: {spec: {hostIPC: true}}", "hostIPC"),
        ("perPod: {spec: {initContainers: [{name: x}]}}", "a container of its own"),
        ("perPod: {spec: {securityContext: {sysctls: [{name: a, value: b}]}}}", "sysctls"),
        ("perContainer: {securityContext: {privileged: true}}", "securityContext.privileged"),
    ],
)
def test_privileges(text: str, privilege: str) -> None:
    """Each kind of privilege needs namespaces, and has enough with them."""
    rule = "rules:\n- name: a\n  when: {%s}\n  " + text + "\n"
    with pytest.raises(ConfigError, match=f'rule "a" gives {privilege};'):
        rules.load(rule % "", "m.yaml")

    assert rules.load(rule % "namespaces: [team-*]", "m.yaml").rules[0].when.in_namespace("team-a")


def test_no_privilege() -> None:
    """Switches that are off and tolerations of one key give nothing away."""
    text = (
        "rules:\n- name: a\n  when: {}\n  perPod: {spec: {hostPID: false, tolerations: [{key: cmk, operator: Exists}]}}\n"
        "  perContainer: {securityContext: {privileged: false}}\n"
    )

    assert len(rules.load(text, "m.yaml").rules) == 1
