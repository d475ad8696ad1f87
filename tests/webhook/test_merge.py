"""What a rule wants against what a pod has."""

import json
from typing import Any

import jsonpatch
import msgspec
import pytest
from builders import container, pod

from noisegate.isolation.problems import Findings
from noisegate.webhook import rules
from noisegate.webhook.leaf import Leaf
from noisegate.webhook.merge import Merge, find, readable
from noisegate.webhook.objects import NotThatObject, Pod, decode
from noisegate.webhook.rules import Rule

Json = dict[str, Any]


def rule_of(
    per_pod: Json | None = None, per_container: Json | None = None, conflict: str | None = None, name: str = "r"
) -> Rule:
    """Return a rule."""
    rule: Json = {"name": name, "when": {"namespaces": ["default"]}, "perPod": per_pod, "perContainer": per_container}
    if conflict:
        rule["onConflict"] = conflict
    return rules.load(json.dumps({"rules": [rule]}), "m.yaml").rules[0]


class Merged:
    """What came of merging rules into a pod, and of merging them into the result."""

    def __init__(self, obj: Json, *given: Rule) -> None:
        """Merge twice."""
        self.found, self.operations = _merge(obj, given)
        self.pod: Json = jsonpatch.apply_patch(obj, self.operations)
        self.again, self.more = _merge(self.pod, given)

    @property
    def told(self) -> list[tuple[str, str]]:
        """Code and path of every problem and warning."""
        return [(problem.code, problem.path) for problem in (*self.found.problems, *self.found.warnings)]


def _merge(obj: Json, given: tuple[Rule, ...]) -> tuple[Findings, list[Json]]:
    raw = json.dumps(obj).encode()
    found = Findings()
    merge = Merge(decode(msgspec.json.Decoder(Pod), raw), raw, found)
    for rule in given:
        for leaf in rule.per_pod:
            merge.want(merge.pod_scope, leaf, rule)
        scopes = [*merge.containers, *merge.init_containers]
        merge.want_unit(rule, scopes)
        for leaf in rule.per_container:
            for scope in scopes:
                if leaf.path not in (("volumeMounts",), ("volumeDevices",)) or leaf.value["name"] not in rule.volumes:
                    merge.want(scope, leaf, rule)
    return found, merge.patch.operations()


APP: Json = container()


@pytest.mark.parametrize(
    ("per_pod", "per_container", "has", "gets"),
    [
        pytest.param({"spec": {"nodeSelector": {"a/b": "1"}}}, None, {}, {"nodeSelector": {"a/b": "1"}}, id="map made"),
        pytest.param(
            {"spec": {"nodeSelector": {"a/b": "1"}}},
            None,
            {"nodeSelector": {}},
            {"nodeSelector": {"a/b": "1"}},
            id="empty map",
        ),
        pytest.param(
            {"spec": {"nodeSelector": {"a": "1"}}},
            None,
            {"nodeSelector": None},
            {"nodeSelector": {"a": "1"}},
            id="null map",
        ),
        pytest.param(
            {"spec": {"nodeSelector": {"a~b/c": "1"}}},
            None,
            {"nodeSelector": {"x": "y"}},
            {"nodeSelector": {"x": "y", "a~b/c": "1"}},
            id="member",
        ),
        pytest.param(
            {"spec": {"tolerations": [{"key": "a"}, {"key": "b"}]}},
            None,
            {},
            {"tolerations": [{"key": "a"}, {"key": "b"}]},
            id="list made",
        ),
        pytest.param(
            {"spec": {"tolerations": [{"key": "a"}]}},
            None,
            {"tolerations": []},
            {"tolerations": [{"key": "a"}]},
            id="empty list",
        ),
        pytest.param(
            {"spec": {"tolerations": [{"key": "a"}]}},
            None,
            {"tolerations": [{"key": "b"}]},
            {"tolerations": [{"key": "b"}, {"key": "a"}]},
            id="element",
        ),
        pytest.param(
            {"spec": {"tolerations": [{"operator": "Exists", "key": "a"}]}},
            None,
            {"tolerations": [{"key": "a", "operator": "Exists"}]},
            {"tolerations": [{"key": "a", "operator": "Exists"}]},
            id="element that is there",
        ),
        pytest.param({"spec": {"serviceAccountName": "x"}}, None, {}, {"serviceAccountName": "x"}, id="scalar"),
        pytest.param(
            {"spec": {"serviceAccountName": "x"}},
            None,
            {"serviceAccountName": "default"},
            {"serviceAccountName": "x"},
            id="default account",
        ),
        pytest.param(
            {"spec": {"priorityClassName": "x"}}, None, {}, {"priorityClassName": "x"}, id="scalar that is not typed"
        ),
        pytest.param(
            {"spec": {"securityContext": {"sysctls": [{"name": "a", "value": "1"}]}}},
            None,
            {"securityContext": {"fsGroup": 1}},
            {"securityContext": {"fsGroup": 1, "sysctls": [{"name": "a", "value": "1"}]}},
            id="list inside a map",
        ),
        pytest.param(
            {"spec": {"securityContext": {"sysctls": [{"name": "a", "value": "1"}], "fsGroup": 2}}},
            None,
            {},
            {"securityContext": {"sysctls": [{"name": "a", "value": "1"}], "fsGroup": 2}},
            id="map with a list made",
        ),
        pytest.param(
            {"spec": {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}]}},
            None,
            {"hostAliases": [{"ip": "10.0.0.2"}]},
            {"hostAliases": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1", "hostnames": ["a"]}]},
            id="list that is not typed",
        ),
        pytest.param(
            None,
            {"env": [{"name": "A", "value": "1"}]},
            {},
            {"containers": [{**APP, "env": [{"name": "A", "value": "1"}]}]},
            id="env",
        ),
        pytest.param(
            None,
            {"resources": {"limits": {"cpu": "1"}}},
            {"containers": [{**APP, "resources": {}}]},
            {"containers": [{**APP, "resources": {"limits": {"cpu": "1"}}}]},
            id="resources",
        ),
        pytest.param(
            None,
            {"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1"}}},
            {},
            {"containers": [{**APP, "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1"}}}]},
            id="resources made",
        ),
        pytest.param(None, {"tty": True}, {}, {"containers": [{**APP, "tty": True}]}, id="scalar of a container"),
        pytest.param(
            None,
            {"securityContext": {"capabilities": {"add": ["A", "B"]}}},
            {"containers": [{**APP, "securityContext": {"capabilities": {"add": ["B"]}}}]},
            {"containers": [{**APP, "securityContext": {"capabilities": {"add": ["B", "A"]}}}]},
            id="capabilities",
        ),
        pytest.param(
            None,
            {"command": ["a", "b", "a"]},
            {},
            {"containers": [{**APP, "command": ["a", "b", "a"]}]},
            id="command is one value",
        ),
        pytest.param(
            None,
            {"env": [{"name": "A", "value": "1"}]},
            {"initContainers": [{"name": "i"}]},
            {
                "containers": [{**APP, "env": [{"name": "A", "value": "1"}]}],
                "initContainers": [{"name": "i", "env": [{"name": "A", "value": "1"}]}],
            },
            id="init containers",
        ),
    ],
)
def test_added(per_pod: Json | None, per_container: Json | None, has: Json, gets: Json) -> None:
    """What is absent is added where it belongs, and nothing the second time."""
    merged = Merged(
        pod(**has) if "containers" not in has else pod(containers=has["containers"]), rule_of(per_pod, per_container)
    )

    assert merged.pod["spec"] == {
        **pod(**{key: item for key, item in has.items() if key != "containers"})["spec"],
        **gets,
    }
    assert (merged.told, merged.more) == ([], [])


@pytest.mark.parametrize(
    "metadata",
    [{}, {"metadata": {}}, {"metadata": None}, {"metadata": {"annotations": None}}, {"metadata": {"annotations": {}}}],
)
def test_metadata(metadata: Json) -> None:
    """Annotations and labels are made where there are none at all."""
    merged = Merged(
        {**metadata, "spec": {}}, rule_of({"metadata": {"annotations": {"a/b": "1", "c": "2"}, "labels": {"l": "3"}}})
    )

    assert merged.pod["metadata"] == {"annotations": {"a/b": "1", "c": "2"}, "labels": {"l": "3"}}


def test_pod_without_spec() -> None:
    """A spec is made where there is none."""
    merged = Merged(
        {}, rule_of({"spec": {"tolerations": [{"key": "a"}], "priorityClassName": "x", "serviceAccountName": "y"}})
    )

    assert merged.pod == {"spec": {"tolerations": [{"key": "a"}], "priorityClassName": "x", "serviceAccountName": "y"}}


def test_metadata_alone_leaves_the_spec() -> None:
    """A rule of annotations alone says nothing about the spec."""
    merged = Merged(pod(), rule_of({"metadata": {"annotations": {"a": "1"}}}, conflict="replace"))

    assert (merged.pod["spec"], merged.told) == (pod()["spec"], [])


CONFLICTS: list[Any] = [
    pytest.param(
        {"spec": {"nodeSelector": {"a": "1"}}}, None, {"nodeSelector": {"a": "2"}}, "spec.nodeSelector.a", id="map"
    ),
    pytest.param(
        {"spec": {"priorityClassName": "x"}}, None, {"priorityClassName": "y"}, "spec.priorityClassName", id="scalar"
    ),
    pytest.param(
        {"spec": {"serviceAccountName": "x"}},
        None,
        {"serviceAccountName": "y"},
        "spec.serviceAccountName",
        id="account",
    ),
    pytest.param(
        {"spec": {"securityContext": {"sysctls": [{"name": "a", "value": "1"}]}}},
        None,
        {"securityContext": {"sysctls": [{"name": "a", "value": "2"}]}},
        "spec.securityContext.sysctls[0]",
        id="element",
    ),
    pytest.param(
        {"spec": {"initContainers": [{"name": "i", "image": "x"}]}},
        None,
        {"initContainers": [{"name": "i", "image": "y"}]},
        "spec.initContainers[0]",
        id="init container",
    ),
    pytest.param(
        None,
        {"env": [{"name": "A", "value": "1"}]},
        {"containers": [{**APP, "env": [{"name": "A", "value": "2"}]}]},
        "spec.containers[0].env[0]",
        id="env",
    ),
    pytest.param(
        None,
        {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
        {"containers": [{**APP, "env": [{"name": "A", "value": ""}]}]},
        "spec.containers[0].env[0]",
        id="env from elsewhere",
    ),
    pytest.param(
        None,
        {"resources": {"limits": {"cpu": "1"}}},
        {"containers": [{**APP, "resources": {"limits": {"cpu": "2"}}}]},
        "spec.containers[0].resources.limits.cpu",
        id="resource",
    ),
    pytest.param(None, {"args": ["a"]}, {"containers": [{**APP, "args": ["b"]}]}, "spec.containers[0].args", id="args"),
    pytest.param(
        None,
        {"ports": [{"containerPort": 80, "name": "x"}]},
        {"containers": [{**APP, "ports": [{"containerPort": 80, "protocol": "TCP", "name": "y"}]}]},
        "spec.containers[0].ports[0]",
        id="port",
    ),
]


@pytest.mark.parametrize(("per_pod", "per_container", "has", "path"), CONFLICTS)
def test_conflicts(per_pod: Json | None, per_container: Json | None, has: Json, path: str) -> None:
    """Where the pod says otherwise: kept with a warning, replaced, or denied, as the rule is written."""
    obj = pod(**has)
    default, keep = (Merged(obj, rule_of(per_pod, per_container, conflict)) for conflict in (None, "keep"))
    replace, deny = (Merged(obj, rule_of(per_pod, per_container, conflict)) for conflict in ("replace", "deny"))

    assert (default.pod, default.told) == (keep.pod, keep.told) == (obj, [("NG651", path)])
    assert (deny.pod, deny.told) == (obj, [("NG602", path)])
    assert len(replace.operations) == 1
    assert (replace.told, replace.more, replace.again.warnings) == ([], [], [])
    assert Merged(replace.pod, rule_of(per_pod, per_container, "deny")).told == []


@pytest.mark.parametrize(
    ("per_container", "has"),
    [
        pytest.param(
            {"resources": {"limits": {"cpu": "1000m"}}}, {"resources": {"limits": {"cpu": "1"}}}, id="quantity"
        ),
        pytest.param(
            {"resources": {"limits": {"cpu": 2}}}, {"resources": {"limits": {"cpu": "2"}}}, id="quantity as a number"
        ),
        pytest.param({"env": [{"name": "A", "value": ""}]}, {"env": [{"name": "A"}]}, id="empty variable"),
        pytest.param(
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]},
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x", "apiVersion": "v1"}}}]},
            id="field reference",
        ),
        pytest.param(
            {"ports": [{"containerPort": 80}]}, {"ports": [{"containerPort": 80, "protocol": "TCP"}]}, id="protocol"
        ),
        pytest.param(
            {"volumeMounts": [{"name": "v", "mountPath": "/v/"}]},
            {"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "x"}]},
            id="slash",
        ),
    ],
)
@pytest.mark.parametrize("conflict", ["keep", "replace", "deny"])
def test_no_conflict(per_container: Json, has: Json, conflict: str) -> None:
    """What the API server fills in or rewrites is no difference."""
    merged = Merged(pod(containers=[{**APP, **has}]), rule_of(None, per_container, conflict))

    assert (merged.told, merged.operations) == ([], [])


@pytest.mark.parametrize("conflict", [None, "keep", "replace", "deny"])
def test_annotations(conflict: str | None) -> None:
    """Markers of ours are replaced; what the pod asks for itself wins without a word; others are settled as the rule says."""
    rule = rule_of(
        {
            "metadata": {
                "annotations": {
                    "cmk.intel.com/resources-injected": "true",
                    "noisegate.io/rdt-class": "gold",
                    "x": "rule",
                }
            }
        },
        None,
        conflict,
    )
    own = {"cmk.intel.com/resources-injected": "mine", "noisegate.io/rdt-class": "silver", "x": "own"}

    merged = Merged(pod(own), rule)

    assert merged.pod["metadata"]["annotations"] == {
        **own,
        "cmk.intel.com/resources-injected": "true",
        "x": "rule" if conflict == "replace" else "own",
    }
    x, rdt = ("x", "metadata.annotations.x"), "metadata.annotations[noisegate.io/rdt-class]"
    assert (
        merged.told
        == {
            None: [("NG651", x[1])],
            "keep": [("NG651", x[1])],
            "replace": [],
            "deny": [("NG602", rdt), ("NG602", x[1])],
        }[conflict]
    )


UNIT = (
    {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/a"}}]}},
    {"volumeMounts": [{"name": "v", "mountPath": "/m"}]},
)
VOLUME, MOUNT = UNIT[0]["spec"]["volumes"][0], UNIT[1]["volumeMounts"][0]


def unit(conflict: str | None = None) -> Rule:
    """Return a rule with a volume and its mount."""
    return rule_of(*UNIT, conflict)


def mounting(*mounts: Json, volumes: list[Json], **more: Any) -> Json:
    """Return a pod of one container."""
    return pod(containers=[{**APP, "volumeMounts": list(mounts)}], volumes=volumes, **more)


def test_unit() -> None:
    """A volume comes with its mounts."""
    merged = Merged(pod(initContainers=[{"name": "i"}]), unit())

    assert merged.pod["spec"]["volumes"] == [VOLUME]
    assert (
        merged.pod["spec"]["containers"][0]["volumeMounts"]
        == merged.pod["spec"]["initContainers"][0]["volumeMounts"]
        == [MOUNT]
    )
    assert (merged.told, merged.more) == ([], [])


@pytest.mark.parametrize("conflict", [None, "keep", "replace", "deny"])
@pytest.mark.parametrize("path", ["/m", "/m/"])
def test_mount_path_taken(conflict: str | None, path: str) -> None:
    """A container with something else at the path is left alone, unless the rule says otherwise; nobody's volume is not added."""
    own = {"name": "own", "mountPath": path}
    taken = mounting(own, volumes=[{"name": "own", "emptyDir": {}}])

    merged = Merged(taken, unit(conflict))

    if conflict == "replace":
        assert merged.pod["spec"]["containers"][0]["volumeMounts"] == [MOUNT]
        assert merged.pod["spec"]["volumes"][1:] == [VOLUME]
    else:
        assert merged.pod == taken
    assert merged.told == ([("NG602", "spec.containers[0].volumeMounts[0]")] if conflict == "deny" else [])
    assert merged.more == []


def test_mount_path_taken_in_one() -> None:
    """Another container gets the volume all the same."""
    own = {"name": "own", "mountPath": "/m"}
    merged = Merged(mounting(own, volumes=[{"name": "own", "emptyDir": {}}], initContainers=[{"name": "i"}]), unit())

    assert merged.pod["spec"]["volumes"] == [{"name": "own", "emptyDir": {}}, VOLUME]
    assert merged.pod["spec"]["containers"][0]["volumeMounts"] == [own]
    assert merged.pod["spec"]["initContainers"][0]["volumeMounts"] == [MOUNT]


@pytest.mark.parametrize("conflict", [None, "keep", "replace", "deny"])
def test_volume_name_taken(conflict: str | None) -> None:
    """A volume of the name with another source is denied, kept without our mounts, or replaced."""
    taken = pod(volumes=[{"name": "v", "emptyDir": {}}])

    merged = Merged(taken, unit(conflict))

    if conflict == "replace":
        assert merged.pod["spec"]["volumes"] == [VOLUME]
        assert merged.pod["spec"]["containers"][0]["volumeMounts"] == [MOUNT]
    else:
        assert merged.pod == taken
    assert merged.told == ([("NG601", "spec.volumes[0]")] if conflict in (None, "deny") else [])


def test_volume_name_taken_and_not_needed() -> None:
    """Where no container would mount it, the name of a volume is no conflict."""
    own = {"name": "own", "mountPath": "/m"}

    assert (
        Merged(mounting(own, volumes=[{"name": "own", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]), unit()).told
        == []
    )


@pytest.mark.parametrize("conflict", [None, "keep", "replace", "deny"])
def test_volume_alone(conflict: str | None) -> None:
    """So is a volume that no mount of the rule uses."""
    merged = Merged(pod(volumes=[{"name": "v", "emptyDir": {}}]), rule_of(UNIT[0], None, conflict))

    assert merged.pod["spec"]["volumes"] == [VOLUME if conflict == "replace" else {"name": "v", "emptyDir": {}}]
    assert merged.told == {"keep": [("NG651", "spec.volumes[0]")], "replace": []}.get(
        str(conflict), [("NG601", "spec.volumes[0]")]
    )


def test_block_volume() -> None:
    """Raw block volumes go by their device path."""
    per_pod = {"spec": {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]}}
    rule = rule_of(per_pod, {"volumeDevices": [{"name": "d", "devicePath": "/dev/x"}]})
    taken = pod(containers=[{**APP, "volumeDevices": [{"name": "own", "devicePath": "/dev/x"}]}])

    assert Merged(pod(), rule).pod["spec"]["containers"][0]["volumeDevices"] == [{"name": "d", "devicePath": "/dev/x"}]
    assert Merged(taken, rule).pod == taken


@pytest.mark.parametrize("second", [None, "keep", "replace", "deny"])
def test_first_rule_wins(second: str | None) -> None:
    """Of two rules that want different things, the first wins, now and when the pod is seen again."""
    one = rule_of({"spec": {"nodeSelector": {"a": "1"}}}, {"env": [{"name": "A", "value": "1"}]})
    other = rule_of({"spec": {"nodeSelector": {"a": "2"}}}, {"env": [{"name": "A", "value": "2"}]}, second, "other")

    merged = Merged(pod(), one, other)

    assert merged.pod["spec"]["nodeSelector"] == {"a": "1"}
    assert merged.pod["spec"]["containers"][0]["env"] == [{"name": "A", "value": "1"}]
    assert (merged.told, merged.more, merged.again.problems) == ([], [], [])


@pytest.mark.parametrize("first", ["keep", "deny", "replace"])
def test_replacing_after_another(first: str) -> None:
    """What the first replaced, the second leaves."""
    one = rule_of({"spec": {"nodeSelector": {"a": "1"}}}, None, first)
    other = rule_of({"spec": {"nodeSelector": {"a": "2"}}}, None, "replace", "other")

    merged = Merged(pod(nodeSelector={"a": "0"}), one, other)

    assert merged.pod["spec"]["nodeSelector"] == {"a": "1" if first == "replace" else "2"}


@pytest.mark.parametrize("second", [None, "keep", "replace", "deny"])
def test_two_rules_one_volume_name(second: str | None) -> None:
    """Two rules that add different volumes of one name cannot both work."""
    other = rule_of(
        {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}},
        {"volumeMounts": [{"name": "v", "mountPath": "/n"}]},
        second,
        "other",
    )

    merged = Merged(pod(), unit(), other)

    assert merged.pod["spec"]["containers"][0]["volumeMounts"] == [MOUNT]
    assert merged.told == ([] if second == "keep" else [("NG601", "spec.volumes")])
    if second == "keep":
        assert (merged.more, merged.again.problems) == ([], [])


def test_two_rules_one_volume() -> None:
    """Two rules that add the same volume share it."""
    other = rule_of(
        UNIT[0], {"volumeMounts": [{"name": "v", "mountPath": "/n"}, {"name": "v", "mountPath": "/m"}]}, None, "other"
    )

    merged = Merged(pod(), unit(), other)

    assert merged.pod["spec"]["volumes"] == [VOLUME]
    assert merged.pod["spec"]["containers"][0]["volumeMounts"] == [MOUNT, {"name": "v", "mountPath": "/n"}]


def test_init_container_that_grew() -> None:
    """An init container that a rule added stays that rule's although others have added to it since."""
    rule = rule_of(
        {
            "spec": {
                "initContainers": [
                    {"name": "i", "image": "x", "args": ["a"], "resources": {"limits": {"cpu": "1000m"}}}
                ]
            }
        },
        None,
        "deny",
    )
    grown = {
        "name": "i",
        "image": "x",
        "args": ["a"],
        "resources": {"limits": {"cpu": "1"}},
        "env": [{"name": "A"}],
        "imagePullPolicy": "Always",
    }

    assert Merged(pod(initContainers=[grown]), rule).told == []


@pytest.mark.parametrize(
    ("per_pod", "per_container", "spec", "told"),
    [
        (
            {"spec": {"hostAliases": [{"ip": "1.2.3.4"}]}},
            None,
            {"hostAliases": 5},
            "spec.hostAliases is 5, which is of another type than it should be",
        ),
        (
            {"spec": {"securityContext": {"fsGroup": 1}}},
            None,
            {"securityContext": []},
            "spec.securityContext is [], which is of another type than it should be",
        ),
        (
            {"spec": {"securityContext": {"sysctls": [{"name": "a", "value": "b"}]}}},
            None,
            {"securityContext": "x"},
            "spec.securityContext is x, which is of another type than it should be",
        ),
        (
            None,
            {"securityContext": {"capabilities": {"add": ["X"]}}},
            {"containers": [{**APP, "securityContext": {"capabilities": {"add": {}}}}]},
            "spec.containers[0].securityContext.capabilities.add is {}, which is of another type than it should be",
        ),
    ],
)
def test_wrong_types(per_pod: Json | None, per_container: Json | None, spec: Json, told: str) -> None:
    """Where the pod has something of another type, it is not readable."""
    with pytest.raises(NotThatObject) as caught:
        Merged(pod(**spec), rule_of(per_pod, per_container))

    assert str(caught.value) == told


def test_template_root() -> None:
    """In a workload the pod stands under a root, which may be absent."""
    raw = json.dumps({"spec": {"template": pod(priorityClassName="y")}}).encode()
    found = Findings()
    rule = rule_of({"spec": {"priorityClassName": "x"}})
    template = decode(msgspec.json.Decoder(Pod), json.dumps(pod(priorityClassName="y")).encode())

    Merge(template, raw, found, "/spec/template").want(Merge(template, raw, found).pod_scope, rule.per_pod[0], rule)
    empty = Merge(Pod(), b"{}", found, "/spec/template")
    empty.want(empty.pod_scope, rule.per_pod[0], rule)

    assert [warning.path for warning in found.warnings] == ["spec.priorityClassName"]
    assert empty.patch.operations() == [{"op": "add", "path": "/spec", "value": {"priorityClassName": "x"}}]


@pytest.mark.parametrize(
    ("pointer", "path"),
    [
        ("/spec/containers/0/env", "spec.containers[0].env"),
        ("/metadata/annotations/a~1b~0c", "metadata.annotations[a/b~c]"),
        ("/spec/nodeSelector/x.y", "spec.nodeSelector[x.y]"),
        ("/spec", "spec"),
        ("", ""),
    ],
)
def test_readable(pointer: str, path: str) -> None:
    """A pointer is told as the path that messages use."""
    assert readable(pointer) == path


def test_put_twice() -> None:
    """Of what is put in one place twice, the first stays."""
    merge = Merge(decode(msgspec.json.Decoder(Pod), b"{}"), b"{}", Findings())
    for value in ("1", "2"):
        merge.put(merge.pod_scope, Leaf(("spec", "nodeSelector"), "a", value, element=False))

    assert merge.patch.operations() == [{"op": "add", "path": "/spec", "value": {"nodeSelector": {"a": "1"}}}]


def test_path_made() -> None:
    """Every step of a path is made where it is absent."""
    merged = Merged(
        pod(), rule_of(None, {"securityContext": {"capabilities": {"add": ["A"], "drop": ["B"]}, "runAsUser": 1}})
    )

    assert merged.pod["spec"]["containers"][0]["securityContext"] == {
        "capabilities": {"add": ["A"], "drop": ["B"]},
        "runAsUser": 1,
    }


def test_find() -> None:
    """An element is found by its merge key."""
    leaf = Leaf(("spec", "hostAliases"), "10.0.0.2", {"ip": "10.0.0.2"}, element=True)

    assert find(leaf, [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]) == 1
    assert find(leaf, [{"no": "ip"}, "text"]) is None
