"""deploy/examples: every object comes out as the comment above it says, and every problem code has an example."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
from builders import review

from noisegate.cli import expectations, plainwords, problems
from noisegate.cli.expectations import Example, Seen
from noisegate.cli.offline import as_created
from noisegate.webhook import admit, inventory, manifestfiles, rdtclasses, rules
from noisegate.webhook import review as reviews
from noisegate.webhook.admit import World
from noisegate.webhook.settings import Settings

ROOT = Path(__file__).parents[2] / "deploy" / "examples"
SHIPPED_RULES = ROOT.parents[1] / "mutations.yaml"
CONFIGURATION = ("server.yaml", "classes.yaml", "mutations.yaml")


def _examples() -> Iterator[Any]:
    for path in manifestfiles.find([str(ROOT)]):
        if path.name not in CONFIGURATION:
            file = path.relative_to(ROOT)
            for example in expectations.read(path.read_bytes(), str(file)):
                name = example.document.name
                yield pytest.param(
                    example, id=f"{file}:{name}" + (f"-{example.expected.sent}" * (example.expected.sent != "create"))
                )


EXAMPLES = list(_examples())


@lru_cache(maxsize=32)
def _world(settings_file: Path) -> World:
    """Return what the server would decide with, started with these settings."""
    settings = Settings.load(settings_file.read_bytes(), str(settings_file))
    rules_file = Path(settings.server.mutations or SHIPPED_RULES)
    known = inventory.build(
        manifestfiles.read_files(manifestfiles.find(settings.catalogue.files)), complete=settings.catalogue.complete
    )
    catalogue = known.catalogue
    if settings.policy.rdt.classes:
        classes_file = Path(settings.policy.rdt.classes)
        catalogue = catalogue._replace(rdt_classes=rdtclasses.load(classes_file.read_bytes(), str(classes_file)))
    return World(settings.policy, rules.load(rules_file.read_bytes(), str(rules_file)), None, catalogue)


def _ask(endpoint: str, body: bytes, world: World) -> dict[str, Any]:
    answer = admit.answer(endpoint, body, world)
    assert answer.status == 200, answer.body
    response = reviews.as_json(answer.body)["response"]
    assert isinstance(response, dict)
    return response


def _happened(example: Example) -> Seen:
    """Do with an object what the API server does when it is created or changed."""
    settings_file = expectations.settings_of(ROOT / example.document.source, ROOT)
    assert settings_file is not None
    world = _world(settings_file)
    document = example.document
    value = as_created(document)
    namespace = document.namespace or "default"
    if example.before is not None:
        body = review(value, old=as_created(example.before), operation="UPDATE", namespace=namespace)
        return expectations.seen(_ask("validate", body, world), value)
    if example.expected.sent == "validate" or document.kind != "Pod":
        return expectations.seen(_ask("validate", review(value, namespace=namespace), world), value)
    response = _ask("mutate", review(value, namespace=namespace), world)
    first = expectations.seen(response, value)
    if not first.allowed:
        return first
    value = jsonpatch.apply_patch(value, expectations.operations_of(response))
    assert expectations.seen(_ask("mutate", review(value, namespace=namespace), world), value).given == ()
    return first.then(expectations.seen(_ask("validate", review(value, namespace=namespace), world), value))


@pytest.mark.parametrize("example", EXAMPLES)
def test_comes_out_as_its_comment_says(example: Example) -> None:
    """The server answers what is promised, a second pass adds nothing, and what was mutated is valid."""
    if (
        not example.document.kind
        or (example.document.api_version.rpartition("/")[0], example.document.kind) not in admit.KINDS
    ):
        assert example.expected == expectations.Expectation()
        return

    assert expectations.compare(example.expected, _happened(example)) == []
