"""deploy/examples through a real API server: each object is admitted or refused as the comment above it says."""

import copy
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import installed
import msgspec
import pytest
import replicas
from builders import pod, workload
from controlplane import Api, ControlPlane, Reply
from installed import Certificates
from replicas import Program

from noisegate.cli import expectations, offline
from noisegate.cli.expectations import Example
from noisegate.webhook import admit, manifestfiles
from noisegate.webhook.settings import Settings
from noisegate.webhook.world import World

pytestmark = pytest.mark.apiserver

ROOT: Final = Path(__file__).parents[2] / "deploy" / "examples"
CONFIGURATION: Final = ("server.yaml", "classes.yaml", "mutations.yaml")
_CODE: Final = re.compile(r"\bNG[0-9]{3}\b")
Json = dict[str, Any]

ITSELF: Final = {
    "bad/NG090-object-not-readable.yaml": "the API server decodes it itself, and refuses it with 400",
}
"""Examples that the API server refuses before it asks anybody."""


def groups() -> dict[Path, list[Example]]:
    """Return the examples by their file of settings."""
    found: dict[Path, list[Example]] = {}
    for path in manifestfiles.find([str(ROOT)]):
        if path.name not in CONFIGURATION:
            settings = expectations.settings_of(path, ROOT)
            assert settings is not None
            found.setdefault(settings, []).extend(expectations.read(path.read_bytes(), str(path.relative_to(ROOT))))
    return found


GROUPS: Final = groups()


class Lab:
    """An admission server with one file of settings, registered in the API server."""

    def __init__(self, plane: ControlPlane, settings: Path, folder: Path, ends: ExitStack) -> None:
        self.plane: Final = plane
        self.api: Final[Api] = plane.api
        certificates = Certificates(folder / "pair")
        pair = replicas.secured(certificates.folder)
        where = ["--binding-address", "127.0.0.1", "--health-address", "127.0.0.1", "--port", "0", "--health-port", "0"]
        flags = ["--cert", pair["cert"], "--key", pair["key"], "--log-format", "json", "--shutdown-delay", "0", *where]
        args = ["webhook", "--config", str(settings), *flags]
        program = ends.enter_context(Program(args, folder / "server.log", "serving"))
        read = Settings.load(settings.read_bytes(), str(settings))
        world = World(read, lambda: 0.0)
        world.load()
        self.world: Final = world.now()
        registered = installed.registered(plane, program.where["port"], certificates.bundle, self.world.rules)
        ends.enter_context(registered)
        bad = pod({"noisegate.io/nothing": "x"})
        deployment = workload("Deployment", {**bad, "metadata": {**bad["metadata"], "labels": {"app": "a"}}})
        deployment["spec"]["selector"] = {"matchLabels": {"app": "a"}}
        # The two configurations come into force one after the other; templates are only validated.
        for value in (bad, deployment):
            plane.wait("webhooks", lambda value=value: "NG801" in installed.post(plane, value, "default").message)  # type: ignore[misc]

    def namespace(self, name: str) -> None:
        """Have a namespace."""
        self.api.made({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def send(self, example: Example) -> Reply:
        """Do with an example what its comment says."""
        document = example.document
        namespace = document.namespace or "default"
        self.namespace(namespace)
        value = _in(offline.as_created(document), namespace)
        if example.before is None:
            return self.api.create(value, dry_run=True)
        there = self.api.made(_in(offline.as_created(example.before), namespace))
        there["metadata"]["annotations"] = {
            **there["metadata"].get("annotations", {}),
            **value["metadata"].get("annotations", {}),
        }
        for key in offline.as_created(example.before)["metadata"].get("annotations", {}):
            if key not in value["metadata"].get("annotations", {}):
                there["metadata"]["annotations"].pop(key, None)
        try:
            return self.api.put(there, dryRun="All")
        finally:
            self.api.delete(f"/api/v1/namespaces/{namespace}/pods/{there['metadata']['name']}")

    def applied(self, example: Example) -> "subprocess.CompletedProcess[str]":
        """Do the same with the real kubectl."""
        document = example.document
        namespace = document.namespace or "default"
        value = _in(offline.as_created(document), namespace)
        if example.before is None:
            return self.plane.kubectl("apply", "--dry-run=server", "-f", "-", input=json.dumps(value))
        before = _in(offline.as_created(example.before), namespace)
        made = self.plane.kubectl("apply", "-f", "-", input=json.dumps(before))
        assert made.returncode == 0, made
        try:
            return self.plane.kubectl("apply", "--dry-run=server", "-f", "-", input=json.dumps(value))
        finally:
            self.api.delete(f"/api/v1/namespaces/{namespace}/pods/{before['metadata']['name']}")

    def nothing_is_missing(self, made: Json) -> bool:
        """Tell whether our own code finds nothing to add to a pod that came out of the API server."""
        body = offline.body_of(_document(made), made["metadata"]["namespace"], made)
        answer = msgspec.json.decode(admit.answer("mutate", body, self.world).body)["response"]
        return bool(answer["allowed"]) and "patch" not in answer


def _document(made: Json) -> Any:
    from noisegate.service import manifests  # noqa: PLC0415

    (document,) = manifests.read(json.dumps(made).encode(), "made")
    return document


def _in(value: Json, namespace: str) -> Json:
    value = copy.deepcopy(value)
    if value["kind"] not in {"StorageClass", "Namespace"}:
        value["metadata"]["namespace"] = namespace
    value["metadata"].pop("uid", None)
    return value


@pytest.fixture(name="labs", scope="module")
def _labs(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with ExitStack() as ends:
        current: dict[Path, Lab] = {}
        inner = ends.enter_context(ExitStack())

        def lab(settings: Path) -> Lab:
            if settings not in current:
                inner.close()
                current.clear()
                current[settings] = Lab(control_plane, settings, tmp_path_factory.mktemp("examples"), inner)
            return current[settings]

        yield lab


EXAMPLES: Final = [
    pytest.param(settings, example, id=f"{example.document.source}:{example.document.line}")
    for settings, examples in GROUPS.items()
    for example in examples
    if example.expected.sent != "validate"  # an API server lets no pod come past mutation; test_other_webhooks.py does
]


@pytest.mark.parametrize(("settings", "example"), EXAMPLES)
def test_an_example_comes_out_as_it_says(labs: Any, settings: Path, example: Example) -> None:
    """Admitted with everything it is to be given, or refused for exactly these problems; warned of exactly these doubts."""
    lab: Lab = labs(settings)
    expected = example.expected
    if example.document.source in ITSELF:
        with_status = lab.api.create(_in(offline.as_created(example.document), "default"), dry_run=True)
        assert with_status.status == 400, with_status
        return
    reply = lab.send(example)
    warned = sorted({code for text in reply.warnings for code in _CODE.findall(text)[:1]})
    if expected.verdict == "refused":
        assert (reply.status, reply.body["reason"]) == (422, "Invalid"), reply
        causes = reply.body["details"]["causes"]
        assert sorted({cause["message"].partition(":")[0] for cause in causes}) == sorted(set(expected.codes))
        return
    assert reply.status in {200, 201}, reply
    assert warned == sorted(set(expected.warned))
    if reply.body["kind"] == "Pod" and example.before is None:
        assert lab.nothing_is_missing(reply.body)


@pytest.mark.parametrize(("settings", "example"), EXAMPLES)
def test_kubectl_shows_what_it_says(labs: Any, settings: Path, example: Example) -> None:
    """`kubectl apply` ends with an error and every problem's code, or applies and prints every warning."""
    lab: Lab = labs(settings)
    lab.namespace(example.document.namespace or "default")
    done, expected = lab.applied(example), example.expected
    if example.document.source in ITSELF:
        assert done.returncode == 1, done
        return
    told = sorted(set(_CODE.findall(done.stderr)))
    if expected.verdict == "refused":
        assert (done.returncode, told) == (1, sorted({*expected.codes, *expected.warned})), done
    else:
        assert done.returncode == 0, done
        assert told == sorted(set(expected.warned))
