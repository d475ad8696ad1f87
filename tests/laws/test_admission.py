"""Laws of admission: for any bytes, any pod and any rules."""

import base64
import copy
import json
from typing import Any

import jsonpatch
from builders import UID, review, workload
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import CATALOGUE, pods, policies, rule_files, shuffles, spoiled

from noisegate.isolation.policy import Policy
from noisegate.webhook import admit, rules
from noisegate.webhook.admit import ENDPOINTS, World
from noisegate.webhook.memory import Memory

quick = settings(deadline=None, max_examples=100)
thorough = settings(deadline=None, max_examples=200)

Json = dict[str, Any]


def answer(endpoint: str, obj: Any, world: World, **request: Any) -> Json:
    """Return the response to an object as JSON."""
    given_answer = admit.answer(endpoint, review(obj, **request), world)
    assert given_answer.status == 200, given_answer.body
    response: Json = json.loads(given_answer.body)["response"]
    return response


def operations(response: Json) -> list[Json]:
    """Return the operations of a response's patch."""
    return json.loads(base64.b64decode(response["patch"])) if "patch" in response else []


def patched(pod: Json, response: Json) -> Json:
    """Return the pod with a response's patch, as another implementation of RFC 6902 applies it."""
    result: Json = jsonpatch.apply_patch(pod, operations(response))
    return result


CANONICAL = {"1024Mi": "1Gi", "1000m": "1"}


def defaulted(pod: Json) -> Json:
    """Return a pod as the API server stores it: defaults filled in, quantities rewritten, its own plugins' additions made."""
    pod = copy.deepcopy(pod)
    spec = pod["spec"]
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = spec["serviceAccountName"]
    tolerations = spec.setdefault("tolerations", [])
    for key in ("not-ready", "unreachable"):
        taint = {
            "key": f"node.kubernetes.io/{key}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 300,
        }
        if taint not in tolerations:
            tolerations.append(taint)
    for volume in spec.setdefault("volumes", []):
        if len(volume) == 1:
            volume["emptyDir"] = {}
        for source in volume.values():
            if isinstance(source, dict):
                _default_source(volume, source)
    if not any(volume["name"] == "kube-api-access-x" for volume in spec["volumes"]):
        spec["volumes"].append({"name": "kube-api-access-x", "projected": {"defaultMode": 420, "sources": []}})
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        _default_container(container)
    return pod


def _default_source(volume: Json, source: Json) -> None:
    if "hostPath" in volume:
        source.setdefault("type", "")
    if "configMap" in volume or "downwardAPI" in volume:
        source.setdefault("defaultMode", 420)
    if "sizeLimit" in source:
        source["sizeLimit"] = CANONICAL.get(source["sizeLimit"], source["sizeLimit"])
    for item in source.get("items", ()):
        if "fieldRef" in item:
            item["fieldRef"].setdefault("apiVersion", "v1")


def _default_container(container: Json) -> None:
    container.setdefault("imagePullPolicy", "IfNotPresent")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    resources = container.setdefault("resources", {})
    for name, quantity in resources.get("limits", {}).items():
        resources.setdefault("requests", {}).setdefault(name, quantity)
    for quantities in resources.values():
        for name, quantity in quantities.items():
            quantities[name] = CANONICAL.get(quantity, quantity)
    for variable in container.get("env", ()):
        if variable.get("value") == "":
            del variable["value"]
        if "valueFrom" in variable:
            variable["valueFrom"]["fieldRef"].setdefault("apiVersion", "v1")
    for port in container.get("ports", ()):
        port.setdefault("protocol", "TCP")
    container_mounts = container.setdefault("volumeMounts", [])
    if not any(mount["name"] == "kube-api-access-x" for mount in container_mounts):
        container_mounts.append(
            {
                "name": "kube-api-access-x",
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                "readOnly": True,
            }
        )


worlds = st.builds(
    lambda policy, text: World(policy=policy, rules=rules.load(text, "m.yaml"), catalogue=CATALOGUE),
    policies,
    rule_files(),
)
endpoints = st.sampled_from(ENDPOINTS)


def check_form(body: bytes, *, uid: str = UID) -> Json:
    """Check an answer with status 200 against the rules of AdmissionReview v1, and return the response."""
    told: Json = json.loads(body)
    assert told.keys() == {"apiVersion", "kind", "response"}
    assert told["kind"] == "AdmissionReview"
    response: Json = told["response"]
    assert response["uid"] == uid
    assert response.keys() <= {"uid", "allowed", "status", "patch", "patchType", "warnings"}
    assert ("patch" in response) == ("patchType" in response)
    assert response.get("patchType", "JSONPatch") == "JSONPatch"
    assert response["allowed"] is ("status" not in response)
    assert response.get("patch") != base64.b64encode(b"[]").decode()
    warnings = response.get("warnings", [])
    assert all(0 < len(warning) <= 256 for warning in warnings)
    assert sum(len(warning) for warning in warnings) <= 4096
    if not response["allowed"]:
        status = response["status"]
        assert (status["code"], status["reason"]) == (422, "Invalid")
        assert status["details"]["causes"]
        assert "patch" not in response
    return response


@thorough
@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)), endpoints)
def test_any_bytes(body: bytes, endpoint: str) -> None:
    """Any bytes are answered, never with an exception."""
    given_answer = admit.answer(endpoint, body, World())

    assert given_answer.status in (200, 400)


@thorough
@given(st.data(), worlds, endpoints)
def test_any_json(data: st.DataObject, world: World, endpoint: str) -> None:
    """A review with anything at all in any place is answered: in the form of v1, or with HTTP 400."""
    pod = data.draw(pods())
    kind = data.draw(st.sampled_from(["Pod", "Deployment", "StatefulSet", "CronJob"]))
    obj = pod if kind == "Pod" else workload(kind, pod)
    old = data.draw(st.sampled_from([None, obj]))
    sound = json.loads(review(obj, old=old, operation=data.draw(st.sampled_from(["CREATE", "UPDATE", "DELETE"]))))
    body = json.dumps(data.draw(spoiled(sound))).replace('"huge"', "1e999").encode()

    given_answer = admit.answer(endpoint, body, world)

    assert given_answer.status in (200, 400)
    if given_answer.status == 200:
        check_form(given_answer.body, uid=json.loads(body)["request"]["uid"])


@thorough
@given(pods(), worlds)
def test_patch(pod: Json, world: World) -> None:
    """A patch can be applied, loses nothing of the user's, and adds only what was lacking."""
    pod = defaulted(pod)
    response = answer("mutate", pod, world)
    check_form(admit.answer("mutate", review(pod), world).body)
    after = patched(pod, response)

    if all(rule.on_conflict != "replace" for rule in world.rules.rules):
        assert_kept(pod, after, ())
        assert all(without(after, pod, operation) for operation in operations(response))


COUNTED = ("limits", "requests")
"""What devices are counted in: noisegate raises it where attachments need more."""
REPLACED = {"serviceAccountName", "cmk.intel.com/resources-injected", "noisegate.io/volume-paths"}


def assert_kept(before: Any, after: Any, path: tuple[str | int, ...]) -> None:
    """Check that everything that was there is there, in its order."""
    if isinstance(before, dict):
        for key, item in before.items():
            if key in REPLACED or (path[-1:] and path[-1] in COUNTED and key.startswith("intel.com/")):
                assert key in after
            else:
                assert_kept(item, after[key], (*path, key))
    elif isinstance(before, list):
        assert len(after) >= len(before)
        for place, item in enumerate(before):
            assert_kept(item, after[place], (*path, place))
    else:
        assert before == after, path


@settings(deadline=None, max_examples=500)
@given(pods(), worlds)
def test_mutate_twice(pod: Json, world: World) -> None:
    """A pod that was mutated needs nothing more and is valid, as it is and as the API server rewrites it."""
    pod = defaulted(pod)
    response = answer("mutate", pod, world)
    if not response["allowed"]:
        return
    after = patched(pod, response)

    for seen in (after, defaulted(after)):
        again = answer("mutate", seen, world)
        assert again["allowed"], again["status"]["message"]
        assert operations(again) == []
        valid = answer("validate", seen, world)
        assert valid["allowed"], valid["status"]["message"]


@quick
@given(pods(), worlds)
def test_something_lost(pod: Json, world: World) -> None:
    """Without any one of its additions a pod is refused, with the code that says so."""
    pod = defaulted(pod)
    response = answer("mutate", pod, world)
    after = patched(pod, response)

    for operation in operations(response):
        lost = without(after, pod, operation)
        if lost is None:
            continue
        valid = answer("validate", lost, world)
        if valid["allowed"]:
            # Such a rule may take the place of what was added for another's sake: what is left of that is not needed.
            assert any(rule.on_conflict == "replace" for rule in world.rules.rules)
            continue
        if answer("mutate", lost, world)["allowed"]:
            assert all(cause["message"].startswith("NG603: ") for cause in valid["status"]["details"]["causes"])


def without(after: Json, before: Json, operation: Json) -> Json | None:
    """Return a mutated pod without what an operation added, or None where another has replaced that since."""
    after = copy.deepcopy(after)
    *steps, last = (step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:])
    parent: Any = after
    for step in steps:
        parent = parent[int(step)] if isinstance(parent, list) else parent[step]
    if isinstance(parent, dict):
        own = before["metadata"].get(steps[1], {}) if steps[0] == "metadata" and len(steps) > 1 else {}
        if last in own:
            parent[last] = own[last]
        else:
            del parent[last]
        return after
    added = operation["value"]
    found = [each for each in parent if each == added] or [each for each in parent if covers(each, added)]
    if not found:
        return None
    parent.remove(found[0])
    return after


def covers(existing: Any, wanted: Any) -> bool:
    """Tell whether a value holds another, as an init container that was added holds what was then added to it."""
    if isinstance(wanted, dict) and isinstance(existing, dict):
        return all(covers(existing.get(key), item) for key, item in wanted.items())
    if isinstance(wanted, list) and isinstance(existing, list):
        return len(wanted) <= len(existing)
    return bool(wanted == existing)


@thorough
@given(pods(), worlds)
def test_warn_mode(pod: Json, world: World) -> None:
    """In warn mode everything is allowed, each problem is a warning, and what is added is added once."""
    pod = defaulted(pod)
    strict = answer("mutate", pod, world)
    response = answer("warn/mutate", pod, world)
    assert response["allowed"]

    if strict["allowed"]:
        assert response == strict
    else:
        assert response["warnings"]
        after = patched(pod, response)
        again = answer("warn/mutate", after, world)
        assert operations(again) == []
    assert answer("warn/validate", pod, world)["allowed"]


@thorough
@given(st.data(), pods(), worlds, endpoints)
def test_order(data: st.DataObject, pod: Json, world: World, endpoint: str) -> None:
    """The order of keys in JSON changes neither the verdict nor the pod that comes out."""
    one, other = pod, data.draw(shuffles(pod))
    first, second = answer(endpoint, one, world), answer(endpoint, other, world)

    assert first.get("status") == second.get("status")
    assert first.get("warnings") == second.get("warnings")
    assert patched(one, first) == patched(other, second)


@quick
@given(pods(), worlds, endpoints)
def test_deterministic(pod: Json, world: World, endpoint: str) -> None:
    """The same bytes get the same bytes."""
    body = review(pod)

    assert admit.answer(endpoint, body, world) == admit.answer(endpoint, body, world)


@quick
@given(st.data(), pods(), pods(), worlds, st.sampled_from(["Pod", "Deployment", "CronJob"]))
def test_update_of_other_things(data: st.DataObject, old: Json, new: Json, world: World, kind: str) -> None:
    """An UPDATE that changes none of our keys passes, whatever else is wrong."""
    annotations = data.draw(
        st.dictionaries(
            st.sampled_from(
                [
                    "blockio.kubernetes.io/resources",
                    "noisegate.io/typo",
                    "cmk.intel.com/mutate",
                    "k8s.v1.cni.cncf.io/networks",
                ]
            ),
            st.text(max_size=10),
        )
    )
    for pod in (old, new):
        pod["metadata"]["annotations"] = annotations
    new["metadata"]["annotations"] = {**annotations, "x": "new"}
    if kind != "Pod":
        for place, container in enumerate(new["spec"]["containers"]):
            others = old["spec"]["containers"]
            container["resources"] = others[place].get("resources", {}) if place < len(others) else {}
        assume(len(old["spec"]["containers"]) == len(new["spec"]["containers"]))
        new["spec"]["initContainers"] = old["spec"].get("initContainers", [])
        old, new = workload(kind, old), workload(kind, new)

    for endpoint in ENDPOINTS:
        assert answer(endpoint, new, world, old=old, operation="UPDATE") == {"uid": UID, "allowed": True}


@quick
@given(st.data(), pods(), endpoints)
def test_excluded_namespaces(data: st.DataObject, pod: Json, endpoint: str) -> None:
    """Whatever it is, what is in an excluded namespace passes unread."""
    world = World(policy=Policy(excludeNamespaces=("kube-*",)))
    pod["spec"] = data.draw(spoiled(pod["spec"]))
    assume("\\ud" not in json.dumps(pod))

    assert answer(endpoint, pod, world, namespace="kube-system") == {"uid": UID, "allowed": True}


@quick
@given(st.lists(pods(), min_size=1, max_size=3), worlds, endpoints)
def test_memory(several: list[Json], world: World, endpoint: str) -> None:
    """What was remembered of other pods, and of the same pod, never changes an answer."""
    remembering = world._replace(memory=Memory())
    for pod in [*several, *several, *(defaulted(pod) for pod in several)]:
        body = review(pod)

        assert admit.answer(endpoint, body, remembering) == admit.answer(endpoint, body, world)
