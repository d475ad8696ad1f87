"""What is sent to us is what asks for something, by the API server's own evaluation of our match conditions."""

import copy
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import installed
import msgspec
import pytest
from builders import container, cores, pod, review, workload
from controlplane import ControlPlane, Reply
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from installed import Certificates, Counting, Registration, in_force
from strategies import asking_annotations, labels, other_annotations, pods, rule_files

from noisegate.isolation import keys, kuryr, nad
from noisegate.isolation.catalogue import NOTHING_KNOWN
from noisegate.isolation.policy import DEFAULT_POLICY
from noisegate.webhook import admit, conditions, firing, mutate, registration, rules
from noisegate.webhook.rules import NO_RULES, Rules
from noisegate.webhook.world import shipped_rules

pytestmark = pytest.mark.apiserver

SHIPPED: Final = rules.load(Path(shipped_rules()).read_bytes(), "mutations.yaml")
DISK: Final = '{"v": {"limits": {"rbps": "50Mi"}}}'
ERRORS: Final = "apiserver_admission_match_condition_evaluation_errors_total"
CHECKED: Final = "apiserver_admission_match_condition_evaluation_seconds_count"

Json = dict[str, Any]


class Lab(NamedTuple):
    """An API server whose configurations lead to a server that counts."""

    plane: ControlPlane
    counter: Counting
    registration: Registration
    namespace: str

    def use(self, given_rules: Rules) -> None:
        """Have the conditions of rules in force."""
        in_force(self.plane, self.counter, self.registration.write(given_rules))

    def sent(self, value: Json, namespace: str = "", **changes: Any) -> tuple[Counter[str], Reply]:
        """Create an object by dry run; return what came of it at our endpoints."""
        value = {**copy.deepcopy(value), **changes}
        value["metadata"]["namespace"] = namespace or self.namespace
        self.counter.taken()
        reply = self.plane.api.create(value, dry_run=True)
        return self.counter.taken(), reply

    def updated(self, value: Json, path: str = "") -> tuple[Counter[str], Reply]:
        """Replace an object by dry run."""
        self.counter.taken()
        reply = self.plane.api.put(value, dryRun="All") if not path else self.plane.api.call("PUT", path, value)
        return self.counter.taken(), reply


@pytest.fixture(name="shared", scope="module")
def _shared(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    certificates = Certificates(tmp_path_factory.mktemp("pair"))
    before = control_plane.metric(ERRORS)
    for name in ("low", "high"):
        # A pod that names a class which is not there is refused before anybody is asked.
        kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1}
        control_plane.api.made({**kind, "metadata": {"name": name}})
    with (
        installed.counting(certificates) as (counter, serving),
        installed.registered(control_plane, serving.where.port, certificates.bundle) as registered,
    ):
        yield Lab(control_plane, counter, registered, "default")
    assert control_plane.metric(ERRORS) == before, "a condition ended in an error"


@pytest.fixture(name="lab")
def _lab(shared: Lab, namespace: str) -> Lab:
    """With the shipped rules, in a namespace of the test's own."""
    shared.use(SHIPPED)
    return shared._replace(namespace=namespace)


def asks(value: Json, given_rules: Rules, namespace: str) -> bool:
    """Tell whether our code has anything to say to a pod, or to do for it."""
    text = json.dumps(value).encode()
    typed = admit.decode_pod(msgspec.Raw(text))
    outcome = mutate.consider(typed, text, namespace, DEFAULT_POLICY, given_rules, NOTHING_KNOWN, warn=True)
    return bool(outcome.problems or outcome.warnings or (outcome.patch and outcome.patch.operations()))


def plain(value: Json, given_rules: Rules, namespace: str) -> bool:
    """Tell whether a pod bears no key of ours and no rule waits for anything that it has."""
    typed = admit.decode_pod(msgspec.Raw(json.dumps(value).encode()))
    annotations = typed.metadata.annotations
    containers = (*typed.spec.containers, *typed.spec.init_containers)
    named = {name for one in containers for given_ in (one.resources.limits, one.resources.requests) for name in given_}
    fired = firing.fire(given_rules.rules, typed, namespace, set(named), mutate=None, opt_out=False)
    ours = any(keys.is_ours(key) or key.startswith(keys.RDT_RUNTIME) for key in annotations)
    return not (ours or named & set(keys.CORE_RESOURCES) or fired.rules)


LAW: Final = settings(deadline=None, max_examples=20, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


@LAW
@given(file=rule_files(), examples=st.lists(pods(), min_size=8, max_size=8), chosen=st.booleans())
def test_what_asks_is_sent_and_what_does_not_is_not(shared: Lab, file: str, examples: list[Json], chosen: bool) -> None:
    """A pod that our code has anything to say to reaches us, whatever the rules; a plain one never does."""
    given_rules = rules.load(file, "mutations.yaml") if chosen else SHIPPED
    shared.use(given_rules)
    for value in examples:
        calls, reply = shared.sent(value)
        if reply.status in {400, 404}:
            continue  # it is no pod: the API server never got as far as conditions
        if asks(value, given_rules, "default") and keys.MIRROR not in value["metadata"].get("annotations", {}):
            assert calls["mutate"] >= 1, (value, reply)
            assert calls["validate"] >= (reply.status == 201), (value, reply)
        if plain(value, given_rules, "default"):
            assert not calls, (value, calls)


KEYS: Final = (
    keys.DISK, keys.NETWORK, keys.CPU_MUTATE, keys.PROFILE, keys.VOLUME_PATHS, keys.RDT_OWN_POD, keys.RDT_OWN_CONTAINER + "a",
    keys.RDT_RUNTIME_POD, keys.RDT_RUNTIME_CONTAINER + "a", "noisegate.io/unknown",
)  # fmt: skip
SRIOV: Final = (keys.NETWORKS, keys.DEFAULT_NETWORK, keys.DEVICES_CONTAINER)
GUARDED: Final = (
    *KEYS,
    *SRIOV,
    keys.REQUIRED_PLUGINS,
    keys.REQUIRED_PLUGINS + "/container.a",
    keys.TOLERATE_MISSING_PLUGINS,
)
FOREIGN: Final = (
    keys.CNI_INGRESS,
    "example.com/noisegate.io",
    "noisegate.iox/y",
    "blockio.kubernetes.io/other",
    "xnoisegate.io/y",
)


@pytest.mark.parametrize("key", [*KEYS, *SRIOV])
def test_a_pod_with_one_key_is_sent_once(lab: Lab, key: str) -> None:
    """Each key is enough, and no pod is sent by two entries."""
    calls, _ = lab.sent(pod({key: "x"}))
    assert calls == Counter({"mutate": 1, "validate": 1})


@pytest.mark.parametrize("key", FOREIGN)
def test_foreign_keys_are_not_sent(lab: Lab, key: str) -> None:
    """A key that only looks like ours is none."""
    assert not lab.sent(pod({key: "x"}))[0]


@pytest.mark.parametrize("resource", keys.CORE_RESOURCES)
@pytest.mark.parametrize("where", ["containers", "initContainers"])
@pytest.mark.parametrize("amounts", ["limits", "requests", "both"])
def test_cores_are_sent(lab: Lab, resource: str, where: str, amounts: str) -> None:
    """Cores are seen in every container, as limit or as request."""
    given_amounts = cores(1, resource)["limits"]
    asking = container(
        "b", resources={"limits": given_amounts} if amounts != "requests" else {"requests": given_amounts}
    )
    if amounts == "both":
        asking["resources"] = cores(1, resource)
    value = pod(containers=[container("a"), asking]) if where == "containers" else pod(initContainers=[asking])
    assert lab.sent(value)[0]["mutate"] == 1


def test_sriov_alone_has_an_entry_of_its_own(lab: Lab) -> None:
    """A pod that asks for SR-IOV and something else is sent by the entry that fails closed in every overlay."""
    before = {name: _rate(lab, name) for name in ("pods.noisegate.io", "sriov.noisegate.io")}
    lab.sent(pod({keys.NETWORKS: "a", keys.DEVICES_CONTAINER: "app"}))
    assert {name: _rate(lab, name) - rate for name, rate in before.items()} == {
        "pods.noisegate.io": 0,
        "sriov.noisegate.io": 2,
    }
    lab.sent(pod({keys.NETWORKS: "a", keys.NETWORK: "x"}))
    assert {name: _rate(lab, name) - rate for name, rate in before.items()} == {
        "pods.noisegate.io": 2,
        "sriov.noisegate.io": 2,
    }


def _rate(lab: Lab, name: str) -> float:
    return lab.plane.metric("apiserver_admission_webhook_request_total", name=name)


def test_mirror_pods_are_never_sent(lab: Lab) -> None:
    """The kubelet's image of a static pod passes by."""
    assert not lab.sent(pod({keys.MIRROR: "x", keys.DISK: DISK}))[0]


def test_namespaces_in_warn_mode_are_sent_elsewhere(lab: Lab) -> None:
    """The label of the namespace chooses the endpoints."""
    lab.plane.api.patch(f"/api/v1/namespaces/{lab.namespace}", {"metadata": {"labels": {registration.MODE: "warn"}}})
    lab.plane.wait("warn mode", lambda: lab.sent(pod({keys.DISK: DISK}))[0]["warn/mutate"] == 1)
    assert lab.sent(pod({keys.NETWORKS: "a"}))[0] == Counter({"warn/mutate": 1, "warn/validate": 1})
    assert lab.sent(workload("Job", pod({keys.DISK: DISK}, restartPolicy="Never")))[0] == Counter({"warn/validate": 1})
    assert not lab.sent(pod())[0]


@pytest.mark.parametrize("namespace", ["kube-system", "noisegate-system"])
def test_system_namespaces_are_left_alone(lab: Lab, namespace: str) -> None:
    """What a cluster, and we, need to come up never waits for us."""
    assert not lab.sent(pod({keys.DISK: DISK}), namespace)[0]


WHENS: Final[tuple[tuple[str, str, Json, bool], ...]] = (
    ("annotation", "annotations: {a: '1'}", pod({"a": "1"}), True),
    ("other value", "annotations: {a: '1'}", pod({"a": "2"}), False),
    ("any value", "annotations: {a: '*'}", pod({"a": ""}), True),
    ("absent is not empty", "annotations: {a: ''}", pod({"b": ""}), False),
    ("empty", "annotations: {a: ''}", pod({"a": ""}), True),
    ("label", "labels: {a: ['1', '2']}", pod(labels={"a": "2"}), True),
    ("both", "{labels: {a: '1'}, annotations: {a: '*'}}", pod(labels={"a": "1"}), False),
    ("resource", "resources: [example.com/fpga]", pod(containers=[container(resources={"limits": {"example.com/fpga": 1}})]), True),
    ("resource absent", "resources: [example.com/fpga]", pod(containers=[container(resources={"limits": {"cpu": 1}})]), False),
    ("quotes", "annotations: {a: \"'\\\"\\\\ || \\n{}$é\\U0001F600\"}", pod({"a": "'\"\\ || \n{}$é😀"}), True),
    ("everything", "{}", pod(), True),
)  # fmt: skip


@pytest.mark.parametrize(("when", "value", "sent"), [row[1:] for row in WHENS], ids=[row[0] for row in WHENS])
def test_what_a_rule_waits_for_is_sent(shared: Lab, namespace: str, when: str, value: Json, sent: bool) -> None:
    """Every form of `when` is sent, and nothing else is."""
    shared.use(rules.load(f"rules: [{{name: r, when: {when if when.startswith('{') else '{' + when + '}'}}}]", "m"))
    assert bool(shared.sent(value, namespace)[0]) is sent


GLOBS: Final = (
    ("prod-*", "prod-1", True),
    ("prod-*", "xprod-1", False),
    ("prod-?", "prod-12", False),
    ("p[a-f]d", "pad", True),
    ("p[!a-f]d", "pad", False),
    ("p[!a-f]d", "p-d", True),
    ("p[]a]d", "pad", True),
    ("p.d", "pad", False),
    ("pad", "pad", True),
)


@pytest.mark.parametrize(("glob", "name", "sent"), GLOBS)
def test_namespaces_by_glob(shared: Lab, glob: str, name: str, sent: bool) -> None:
    """The API server and fnmatch agree on globs."""
    shared.plane.api.made({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    given_rules = rules.load(f"rules: [{{name: r, when: {{namespaces: ['{glob}']}}}}]", "m")
    assert given_rules.rules[0].when.in_namespace(name) is sent
    shared.use(given_rules)
    assert bool(shared.sent(pod(), name)[0]) is sent


@pytest.mark.parametrize("key", GUARDED)
@pytest.mark.parametrize("change", ["added", "changed", "removed"])
def test_a_change_of_our_key_is_sent(lab: Lab, key: str, change: str) -> None:
    """On whichever side the key stands."""
    stored = {} if change == "added" else {key: "1"}
    there = lab.plane.api.made(
        {**pod(stored), "metadata": {"name": "p", "namespace": lab.namespace, "annotations": stored}}
    )
    there["metadata"]["annotations"] = {} if change == "removed" else {key: "2"}
    calls, reply = lab.updated(there)
    assert (calls, reply.status) == (Counter({"validate": 1}), 200)


@pytest.mark.parametrize("key", [*FOREIGN, keys.DISK])
def test_other_changes_are_not_sent(lab: Lab, key: str) -> None:
    """Labels, finalizers, foreign annotations and deletion pass by, on a pod that asks too."""
    value = pod({keys.DISK: DISK, keys.NETWORKS: "a", keys.REQUIRED_PLUGINS: "x"})
    value["metadata"] |= {"name": "p", "namespace": lab.namespace, "finalizers": ["example.com/f"]}
    there = lab.plane.api.made(value)
    path = f"/api/v1/namespaces/{lab.namespace}/pods/p"
    lab.counter.taken()
    assert lab.plane.api.patch(path, {"metadata": {"labels": {"a": "b"}}}).status == 200
    if key != keys.DISK:
        assert lab.plane.api.patch(path, {"metadata": {"annotations": {key: "b"}}}).status == 200
    assert lab.plane.api.patch(f"{path}/status", {"status": {"phase": "Running"}}).status == 200
    assert lab.plane.api.delete(path).status == 200
    # A patch is first tried, admission included, on what the API server's watch cache still holds.
    lab.plane.wait(
        "cache", lambda: "deletionTimestamp" in lab.plane.api.get(path, resourceVersion="0").body["metadata"]
    )
    # It is being deleted now: even our own key may change.
    assert lab.plane.api.patch(path, {"metadata": {"annotations": {keys.DISK: None}}}).status == 200
    assert lab.plane.api.patch(path, {"metadata": {"finalizers": None}}).status == 200
    assert not lab.counter.seen
    assert there["metadata"]["finalizers"]


WORKLOADS: Final = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob")


def _workload(kind: str, annotations: dict[str, str] | None) -> Json:
    labelled = pod(annotations, labels={"app": "a"}, restartPolicy="Never" if kind in {"Job", "CronJob"} else "Always")
    selected = {} if kind in {"Job", "CronJob"} else {"selector": {"matchLabels": {"app": "a"}}}
    return workload(kind, labelled, **selected)


@pytest.mark.parametrize("kind", WORKLOADS)
@pytest.mark.parametrize("key", [keys.DISK, keys.NETWORKS])
def test_templates_that_ask_are_sent(lab: Lab, kind: str, key: str) -> None:
    """When they come, and when they change; not when they are scaled or labelled."""
    value = _workload(kind, {key: "x"})
    value["metadata"]["namespace"] = lab.namespace
    lab.counter.taken()
    there = lab.plane.api.made(value)
    assert lab.counter.taken() == Counter({"validate": 1})
    there["metadata"]["labels"] = {"a": "b"}
    calls, reply = lab.updated(there)
    assert (calls, reply.status) == (Counter(), 200)
    if kind != "Job":
        spec = there["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else there["spec"]
        spec["template"]["metadata"]["annotations"][key] = "y"
        assert lab.updated(there)[0] == Counter({"validate": 1})


def judged(value: Json, given_rules: Rules, old: Json | None = None) -> bool:
    """Tell whether our code refuses an object, or warns of it."""
    body = review(value, old=old, operation="CREATE" if old is None else "UPDATE")
    answer = msgspec.json.decode(admit.answer("validate", body, admit.World(rules=given_rules)).body)["response"]
    return not answer["allowed"] or bool(answer.get("warnings"))


def sound(value: Json) -> Json:
    """Return a pod without what the API server itself refuses: of a template it does so before anybody is asked."""
    value = copy.deepcopy(value)
    value["metadata"].get("annotations", {}).pop("a~b/c", None)
    volumes = {volume["name"] for volume in value["spec"].get("volumes", [])}
    for one in (*value["spec"]["containers"], *value["spec"].get("initContainers", [])):
        one["image"] = "i"
        one.get("securityContext", {}).pop("privileged", None)
        if "volumeMounts" in one:
            one["volumeMounts"] = [mount for mount in one["volumeMounts"] if mount["name"] in volumes]
    return value


def test_templates_that_are_judged_are_sent_and_plain_ones_are_not(shared: Lab) -> None:
    """For any template of any kind, whatever the rules: as the law of pods has it."""
    seen: Counter[str] = Counter()

    @LAW
    @given(
        file=rule_files(),
        examples=st.lists(st.tuples(st.sampled_from(WORKLOADS), pods()), min_size=8, max_size=8),
        chosen=st.booleans(),
    )
    def law(file: str, examples: list[tuple[str, Json]], chosen: bool) -> None:
        given_rules = rules.load(file, "mutations.yaml") if chosen else SHIPPED
        shared.use(given_rules)
        for kind, drawn in examples:
            template = sound(drawn)
            template["metadata"].setdefault("labels", {})["app"] = "a"
            template["spec"]["restartPolicy"] = "Never" if kind in {"Job", "CronJob"} else "Always"
            selected = {} if kind in {"Job", "CronJob"} else {"selector": {"matchLabels": {"app": "a"}}}
            value = workload(kind, template, **selected)
            calls, reply = shared.sent(value)
            if reply.status != 201:
                continue  # it is no template: the API server never got as far as conditions
            if judged(value, given_rules):
                seen["judged"] += 1
                assert calls == Counter({"validate": 1}), (value, calls)
            if plain(template, given_rules, "default"):
                seen["plain"] += 1
                assert not calls, (value, calls)

    law()
    assert min(seen["judged"], seen["plain"]) >= 5, seen


NETWORKS: Final = st.builds(
    lambda annotations, config, given_labels: {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": "changing", "annotations": annotations, "labels": given_labels},
        "spec": {} if config is None else {"config": config},
    },
    st.dictionaries(
        st.sampled_from([nad.RESOURCE_NAME, nad.NODE_SELECTOR, kuryr.CONFIG_KEY, "example.com/other"]),
        st.sampled_from(["intel.com/a", "a b", "{}"]),
    ),
    st.sampled_from([None, "", "x", '{"cniVersion": "1.0.0", "type": "sriov", "vlan": 9999}', '{"type": "bridge"}']),
    st.dictionaries(st.just("a"), st.sampled_from(["b", "c"])),
)


def test_networks_that_are_judged_are_sent(lab: Lab) -> None:
    """Any that is new; of two that follow one another, if and only if something differs that is read."""
    read = (nad.RESOURCE_NAME, nad.NODE_SELECTOR, kuryr.CONFIG_KEY)
    seen: Counter[bool] = Counter()

    @LAW
    @given(old=NETWORKS, new=NETWORKS)
    def law(old: Json, new: Json) -> None:
        path = f"/apis/k8s.cni.cncf.io/v1/namespaces/{lab.namespace}/network-attachment-definitions/changing"
        lab.plane.api.delete(path)
        assert lab.sent(old)[0] == Counter({"validate": 1})
        old, new = copy.deepcopy(old), copy.deepcopy(new)
        old["metadata"]["namespace"] = lab.namespace
        there = lab.plane.api.made(old)
        changed = {**there, "spec": new["spec"], "metadata": {**there["metadata"], **new["metadata"]}}
        given, wanted = old["metadata"]["annotations"], new["metadata"]["annotations"]
        differs = old["spec"] != new["spec"] or any(given.get(key) != wanted.get(key) for key in read)
        calls, reply = lab.updated(changed)
        assert reply.status == 200, reply
        assert calls == (Counter({"validate": 1}) if differs else Counter()), (old, new)
        assert differs or not judged(changed, SHIPPED, there)
        seen[differs] += 1

    law()
    assert seen[True] > 0


@pytest.mark.parametrize("kind", WORKLOADS)
def test_plain_templates_are_not_sent(lab: Lab, kind: str) -> None:
    """As plain pods are not."""
    calls, reply = lab.sent(_workload(kind, None))
    assert (calls, reply.status) == (Counter(), 201)


@pytest.mark.parametrize(
    ("kind", "owner", "sent"),
    [("ReplicaSet", "Deployment", False), ("Job", "CronJob", False), ("ReplicaSet", "Rollout", True)],
)
def test_templates_are_judged_at_their_owner(lab: Lab, kind: str, owner: str, sent: bool) -> None:
    """What a Deployment or a CronJob made was judged there; what others made was not."""
    value = _workload(kind, {keys.DISK: DISK})
    value["metadata"]["ownerReferences"] = [
        {"apiVersion": "apps/v1", "kind": owner, "name": "o", "uid": "u", "controller": True}
    ]
    assert bool(lab.sent(value)[0]) is sent


def test_networks_are_sent_when_what_is_read_of_them_changes(lab: Lab) -> None:
    """A new network, a new config, another resource; not a label."""
    value = {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": "n", "namespace": lab.namespace},
        "spec": {"config": "{}"},
    }
    lab.counter.taken()
    there = lab.plane.api.made(value)
    assert lab.counter.taken() == Counter({"validate": 1})
    there["metadata"]["labels"] = {"a": "b"}
    assert not lab.updated(there)[0]
    there["metadata"]["annotations"] = {"k8s.v1.cni.cncf.io/resourceName": "a/b"}
    assert lab.updated(there)[0] == Counter({"validate": 1})
    del there["metadata"]["annotations"], there["spec"]
    assert lab.updated(there)[0] == Counter({"validate": 1})


def _huge(size: int = 255 << 10) -> dict[str, str]:
    """Return annotations of nearly all the bytes that an object may have of them, in as many keys as fit."""
    names = (f"{prefix}{number:05}" for number in range(size) for prefix in ("noisegate.iox/", "rdt.resources.beta.x/"))
    chosen: dict[str, str] = {}
    for name in names:
        size -= len(name)
        if size < 0:
            break
        chosen[name] = ""
    return chosen


def test_the_largest_pods_do_not_exhaust_the_conditions(lab: Lab) -> None:
    """256 KiB of annotations in 11,000 keys, and 300 containers, are still judged without an error, on both sides of a change."""
    huge = _huge()
    assert len(huge) > 11_000
    value = pod(huge, containers=[container(f"c{number}") for number in range(300)])
    calls, reply = lab.sent(value)
    assert (calls, reply.status) == (Counter(), 201)
    assert lab.sent(_workload("Deployment", huge))[1].status == 201
    value["metadata"] |= {"name": "p", "namespace": lab.namespace}
    there = lab.plane.api.made(value)
    there["metadata"]["labels"] = {"a": "b"}
    calls, reply = lab.updated(there)
    assert (calls, reply.status) == (Counter(), 200)


def test_as_many_rules_as_a_condition_takes(shared: Lab, namespace: str) -> None:
    """The API server takes a condition of so many clauses, for the largest pod too."""
    listed = [
        {"name": f"r{n}", "when": {"annotations": {f"a{n}": ["1", "2"]}, "resources": [f"example.com/r{n}"]}}
        for n in range(60)
    ]
    given_rules = rules.load(json.dumps({"rules": listed}), "m")
    assert not conditions.asks(given_rules).every
    shared.use(given_rules)
    value = pod(_huge(), containers=[container(f"c{number}") for number in range(100)])
    calls, reply = shared.sent(value, namespace)
    assert (calls, reply.status) == (Counter(), 201)
    value["metadata"]["annotations"] = {"a59": "2"}
    value["spec"]["containers"][99]["resources"] = {"limits": {"example.com/r59": 1}}
    assert shared.sent(value, namespace)[0]["mutate"] == 1


def test_more_rules_than_that_have_every_pod_sent(shared: Lab, namespace: str) -> None:
    """What a condition cannot say is not said, and an operator is told."""
    listed = [{"name": f"r{n}", "when": {"annotations": {f"a{n}": "1"}}} for n in range(1000)]
    given_rules = rules.load(json.dumps({"rules": listed}), "m")
    shared.use(given_rules)
    assert shared.sent(pod(), namespace)[0] == Counter({"mutate": 1, "validate": 1})
    assert registration.doubts(given_rules) != ()
    assert registration.doubts(SHIPPED) == ()
    assert registration.doubts(NO_RULES) == ()


@settings(deadline=None, max_examples=40, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(old=st.builds(dict.__or__, asking_annotations, other_annotations), new=asking_annotations, given_labels=labels)
def test_a_change_is_sent_when_one_of_our_keys_differs(shared: Lab, old: Json, new: Json, given_labels: Json) -> None:
    """For any two pods: sent if and only if a key of ours is not the same on both sides."""
    name = "changing"
    value = pod({key: text for key, text in old.items() if key != "a~b/c"})  # the API server knows no such key
    value["metadata"] |= {"name": name, "namespace": "default"}
    there = shared.plane.api.made(value)
    before = there["metadata"].get("annotations", {})
    there["metadata"] |= {"annotations": new, "labels": given_labels}
    differs = any(before.get(key) != new.get(key) and keys.is_ours(key) for key in before.keys() | new.keys())
    calls, reply = shared.updated(there)
    shared.plane.api.delete(f"/api/v1/namespaces/default/pods/{name}")
    assert reply.status == 200, reply
    assert calls == (Counter({"validate": 1}) if differs else Counter())


def test_conditions_are_evaluated_and_none_fails(lab: Lab) -> None:
    """The API server's own numbers say so: it looks at each entry's for a plain pod too."""
    before = lab.plane.metric(CHECKED)
    for value in (pod(), pod({keys.DISK: DISK}), pod({keys.NETWORKS: "a"})):
        lab.sent(value)
    assert lab.plane.metric(CHECKED) >= before + 3 * len([registration.MUTATING, registration.VALIDATING])
    assert lab.plane.metric(ERRORS) == 0
