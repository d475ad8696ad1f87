"""deploy/examples: every object comes out as the comment above it says, and every problem code has an example."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple

import jsonpatch
import pytest
import yaml
from builders import review

from noisegate.cli import expectations, problems
from noisegate.cli.expectations import Example, Expectation, Seen
from noisegate.cli.offline import as_created
from noisegate.isolation.problems import Code
from noisegate.service.manifests import Document
from noisegate.webhook import admit, manifestfiles
from noisegate.webhook import review as reviews
from noisegate.webhook.admit import World
from noisegate.webhook.settings import Settings
from noisegate.webhook.world import World as Files
from noisegate.webhook.world import shipped_rules

ROOT: Final = Path(__file__).parents[2] / "deploy" / "examples"
CONFIGURATION: Final = ("server.yaml", "classes.yaml", "mutations.yaml")
CODES: Final = {code.id: code for code in problems.codes()}


def _examples() -> Iterator[tuple[Path, Example]]:
    for path in manifestfiles.find([str(ROOT)]):
        if path.name not in CONFIGURATION:
            file = path.relative_to(ROOT)
            for example in expectations.read(path.read_bytes(), str(file)):
                yield file, example


EXAMPLES: Final = tuple(_examples())


def _is_ours(document: Document) -> bool:
    return (document.api_version.rpartition("/")[0], document.kind) in admit.KINDS


@lru_cache(maxsize=32)
def _world(settings_file: Path) -> World:
    """Return what a server decides with that is started with these settings."""
    settings = Settings.load(settings_file.read_bytes(), str(settings_file))
    files = Files(settings, lambda: 0.0)
    files.load()
    return files.now()


def _world_of(file: Path) -> World:
    settings_file = expectations.settings_of(ROOT / file, ROOT)
    assert settings_file is not None
    return _world(settings_file)


def _ask(endpoint: str, body: bytes, world: World) -> dict[str, Any]:
    answer = admit.answer(endpoint, body, world)
    assert answer.status == 200, answer.body
    response = reviews.as_json(answer.body)["response"]
    assert isinstance(response, dict)
    return response


def _as_it_is(value: dict[str, Any]) -> dict[str, Any]:
    return value


def _happened(file: Path, example: Example, fill_in: Callable[[dict[str, Any]], dict[str, Any]] = _as_it_is) -> Seen:
    """Do with an object what the API server does when it is created or changed.

    `fill_in`: what the API server does to it before the first webhook and after each.
    """
    world, document = _world_of(file), example.document
    namespace = document.namespace or "default"
    value = fill_in(as_created(document))
    if example.before is not None:
        body = review(value, old=as_created(example.before), operation="UPDATE", namespace=namespace)
        return expectations.seen(_ask("validate", body, world), value)
    if example.expected.sent == "validate" or document.kind != "Pod":
        assert "patch" not in _ask("mutate", review(value, namespace=namespace), world) or document.kind == "Pod"
        return expectations.seen(_ask("validate", review(value, namespace=namespace), world), value)
    response = _ask("mutate", review(value, namespace=namespace), world)
    mutated = expectations.seen(response, value)
    if not mutated.allowed:
        return mutated
    value = fill_in(jsonpatch.apply_patch(value, expectations.operations_of(response)))
    assert "patch" not in _ask("mutate", review(value, namespace=namespace), world)
    return mutated.then(expectations.seen(_ask("validate", review(value, namespace=namespace), world), value))


@pytest.mark.parametrize(
    ("file", "example"),
    [pytest.param(*pair, id=f"{pair[0]}:{pair[1].document.line}-{pair[1].document.name}") for pair in EXAMPLES],
)
def test_comes_out_as_its_comment_says(file: Path, example: Example) -> None:
    """The server answers what is promised, a second pass adds nothing, and what was mutated is valid."""
    if _is_ours(example.document):
        assert expectations.compare(example.expected, _happened(file, example)) == []
    else:
        assert example.document.kind in ("PersistentVolumeClaim", "StorageClass")
        assert example.expected == Expectation()


TOKEN: Final = "kube-api-access-x"


def _filled_in(pod: dict[str, Any]) -> dict[str, Any]:
    """Return a pod with what admission plugins and defaulting put into it, as far as it is near to what is added."""
    spec = pod["spec"]
    containers = [*spec["containers"], *spec.get("initContainers", ())]
    volumes = spec.setdefault("volumes", [])
    if all(volume["name"] != TOKEN for volume in volumes):
        pod["metadata"].pop("namespace", None)
        spec.setdefault("serviceAccountName", "default")
        spec.setdefault("securityContext", {})
        lasting = {
            "key": "node.kubernetes.io/not-ready",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 300,
        }
        spec.setdefault("tolerations", []).append(lasting)
        volumes.append({"name": TOKEN, "projected": {"sources": [], "defaultMode": 420}})
        for container in containers:
            container.setdefault("resources", {})
            mount = {"name": TOKEN, "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
            container.setdefault("volumeMounts", []).append(mount)
    spec["serviceAccount"] = spec["serviceAccountName"]
    for volume in volumes:
        if "hostPath" in volume:
            volume["hostPath"].setdefault("type", "")
        if "downwardAPI" in volume:
            volume["downwardAPI"].setdefault("defaultMode", 420)
            for item in volume["downwardAPI"]["items"]:
                if "fieldRef" in item:
                    item["fieldRef"].setdefault("apiVersion", "v1")
    return pod


PODS: Final = [
    pytest.param(*pair, id=f"{pair[0]}:{pair[1].document.line}-{pair[1].document.name}")
    for pair in EXAMPLES
    if pair[1].document.kind == "Pod" and pair[1].expected.sent == "create" and "NG090" not in pair[1].expected.codes
]


@pytest.mark.parametrize(("file", "example"), PODS)
def test_what_the_api_server_fills_in_changes_nothing(file: Path, example: Example) -> None:
    """A pod comes out alike when it carries what admission plugins and defaulting have put into it by then."""
    assert expectations.compare(example.expected, _happened(file, example, _filled_in)) == []


def test_rules_that_are_shown_as_shipped_are() -> None:
    """The copies of shipped rules differ from them by what their comments say: namespaces, and which containers."""
    shipped, copied = (
        {rule["name"]: rule for path in paths for rule in yaml.safe_load(path.read_text())["rules"]}
        for paths in (
            [Path(shipped_rules())],
            [ROOT / "older" / folder / "mutations.yaml" for folder in ("cmk-rule", "router")],
        )
    )
    assert copied["cmk-isolate"]["perContainer"].pop("containers") == "asking"
    for name in ("cmk-isolate", "sriov-dpdk"):
        assert shipped[name]["when"].pop("namespaces") == []
        assert copied[name]["when"].pop("namespaces") != []

    assert copied == shipped


def test_every_code_has_an_example() -> None:
    """Each code is refused or warned of in some example, and no example names a code that does not exist."""
    shown = {code for _, example in EXAMPLES for code in (*example.expected.codes, *example.expected.warned)}

    assert shown == CODES.keys()


@pytest.mark.parametrize(
    ("file", "example"),
    [
        pytest.param(*pair, id=f"{pair[0]}:{pair[1].document.line}")
        for pair in EXAMPLES
        if pair[0].name.startswith("NG")
    ],
)
def test_a_file_that_is_named_for_a_code_is_about_it(file: Path, example: Example) -> None:
    """`NG101-disk-block-size.yaml` shows NG101, which is called disk-block-size, and nothing that is worse."""
    code = CODES[file.name[:5]]
    about = {other.expected.codes + other.expected.warned for name, other in EXAMPLES if name == file}

    assert file.name == f"{code.id}-{code.name}.yaml"
    assert any(code.id in codes for codes in about)
    assert example.expected.verdict != "none"


def test_every_code_has_a_file_of_its_own() -> None:
    """Whoever looks for a code finds a file that begins with it."""
    assert {file.name[:5] for file, _ in EXAMPLES if file.name.startswith("NG")} == CODES.keys()


def test_every_example_says_what_comes_of_it() -> None:
    """Outside the catalogue every object has a verdict, and a sentence that teaches."""
    silent = [
        str(file)
        for file, example in EXAMPLES
        if file.parts[0] != "cluster" and (example.expected.verdict == "none" or not _teaches(file, example.document))
    ]

    assert silent == []


def _teaches(file: Path, document: Document) -> bool:
    lines = (ROOT / file).read_text().split("\n")[: document.line - 1]
    above = takewhile(lambda line: line.startswith("# "), reversed(lines))
    return any(not line.startswith("# noisegate:") for line in above)


class Around(NamedTuple):
    """What stands around the example of a code in the tables, so that it becomes an object that can be sent.

    Attributes:
        settings: Whose server it is sent to.
        annotations: What the pod asks for besides.
        limits: Of its container.
        labels: The pod's labels.
        namespace: The pod's.
        template: Whether it is a workload's template.
    """

    settings: str = "server.yaml"
    annotations: tuple[tuple[str, str], ...] = ()
    limits: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    namespace: str = "default"
    template: bool = False


FAST: Final = (("k8s.v1.cni.cncf.io/networks", "fast"),)
CORES: Final = (("cmk.intel.com/mutate", "true"),)
CORE: Final = (("cmk.intel.com/exclusive-cores", "2"),)
GUARANTEED: Final = (("cpu", "1"), ("memory", "1Gi"))
LIMITED: Final = (("networkio.kubernetes.io/resources", '{"limits": {"egress": "50M"}}'),)
DISK: Final = (("blockio.kubernetes.io/resources", '{"*": {"limits": {"rbps": "50Mi"}}}'),)
AROUND: Final = {
    "NG154": Around("warned/nothing-known/server.yaml"),
    "NG416": Around("bad/strict/server.yaml"),
    "NG417": Around(annotations=FAST),
    "NG418": Around("bad/strict/server.yaml"),
    "NG419": Around(annotations=FAST),
    "NG461": Around("warned/nothing-known/server.yaml"),
    "NG462": Around(template=True),
    "NG491": Around(annotations=FAST),
    "NG551": Around(limits=CORE),
    "NG552": Around(limits=CORE),
    "NG601": Around("older/cmk-cluster-init/server.yaml", CORES),
    "NG602": Around("bad/rules/server.yaml", CORES),
    "NG604": Around("older/router/server.yaml", limits=GUARANTEED, namespace="routers"),
    "NG605": Around("older/router/server.yaml", (("noisegate.io/profile", "sriov-dpdk"),), GUARANTEED),
    "NG606": Around("bad/rules/server.yaml", labels=(("class", "real-time"),)),
    "NG651": Around("older/cmk-cluster-init/server.yaml", CORES),
    "NG802": Around("enforced/server.yaml", LIMITED),
    "NG803": Around("enforced/server.yaml", DISK),
}
NOT_SENT: Final = {
    "NG090": "the API server's own types refuse it",
    "NG108": "nobody wants to read so long a list",
    "NG153": "the StorageClass stands in a comment",
    "NG351": "server.yaml is the example",
    "NG407": "nobody wants to read so long a list",
    "NG432": "the mistake is in a network that a pod then uses",
    "NG481": "server.yaml is the example",
    "NG603": "a pod that another webhook changed",
    "NG607": "mutations.yaml is the example",
    "NG701": "a change of a pod",
    "NG702": "a change of a pod",
}
# What the tables' mends may still be told: their networks and classes are not all in cluster/ and classes.yaml.
OTHER_NAMES: Final = frozenset({"NG301", "NG413"})


def _object(snippet: str, around: Around) -> dict[str, Any]:
    """Make a pod, or a NetworkAttachmentDefinition, of a few lines of YAML."""
    given = yaml.safe_load(snippet)
    metadata: dict[str, Any] = dict(given.pop("metadata", {}))
    spec: dict[str, Any] = dict(given.pop("spec", {}))
    annotations = {**dict(around.annotations), **metadata.pop("annotations", {})}
    container: dict[str, Any] = {"name": "app", "image": "registry.k8s.io/pause:3.10"}
    if around.limits:
        container["resources"] = {"limits": dict(around.limits)}
    namespace = given.pop("namespace", around.namespace)
    for key, value in given.items():
        if "/" in key or key.startswith("required-plugins."):
            annotations[key] = value
        elif key in ("resources", "env", "volumeMounts"):
            container[key] = value
        else:
            spec[key] = value
    metadata = {
        "name": "snippet",
        "namespace": namespace,
        "annotations": annotations,
        "labels": dict(around.labels),
        **metadata,
    }
    if "config" in spec or not {
        "k8s.v1.cni.cncf.io/resourceName",
        "k8s.v1.cni.cncf.io/nodeSelector",
        "openstack.org/kuryr-config",
    }.isdisjoint(annotations):
        return {
            "apiVersion": "k8s.cni.cncf.io/v1",
            "kind": "NetworkAttachmentDefinition",
            "metadata": metadata,
            "spec": spec,
        }
    spec["containers"] = [{**container, **each} for each in spec.get("containers", [{}])]
    if "volumes" not in spec and "blockio.kubernetes.io/resources" in annotations:
        spec["volumes"] = [{"name": name, "emptyDir": {}} for name in ("a", "b", "data")]
    if around.template:
        template = {"metadata": metadata, "spec": spec}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "snippet"},
            "spec": {"template": template},
        }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _codes_of(snippet: str, around: Around) -> tuple[frozenset[str], frozenset[str]]:
    value = _object(snippet, around)
    namespace = value["metadata"].get("namespace", "default")
    endpoint = "mutate" if value["kind"] == "Pod" else "validate"
    seen = expectations.seen(_ask(endpoint, review(value, namespace=namespace), _world(ROOT / around.settings)), value)
    return seen.codes, seen.warned


@pytest.mark.parametrize("code", [pytest.param(code, id=code.id) for code in CODES.values() if code.id not in NOT_SENT])
def test_tables_show_what_is_bad_and_what_is_good(code: Code) -> None:
    """The example of a code is told that code; its mend is told nothing worse than names that are the example's own."""
    around = AROUND.get(code.id, Around())
    problems_told, warnings_told = _codes_of(code.example, around)

    assert code.id in problems_told | warnings_told
    assert code.about.startswith("Warning: ") == (code.id not in problems_told)
    if not code.mend.startswith("("):
        problems_left, warnings_left = _codes_of(code.mend, around)
        assert problems_left <= OTHER_NAMES
        assert code.id not in warnings_left
