"""The comments in deploy/examples, and what is made of them."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from noisegate.cli.expectations import Expectation, Seen, compare, operations_of, read, seen, settings_of
from noisegate.service.manifests import ConfigError

POD = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n"


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        pytest.param("", Expectation(), id="none"),
        pytest.param("# A pod of noisegate's.\n# It says nothing.\n", Expectation(), id="prose"),
        pytest.param("# noisegate: admitted\n", Expectation("admitted"), id="admitted"),
        pytest.param("# A pod.\n#  noisegate:  admitted  \n\n", Expectation("admitted"), id="blanks"),
        pytest.param("# noisegate: admitted\r\n", Expectation("admitted"), id="crlf"),
        pytest.param(
            "# noisegate: admitted\n# noisegate: + env B=2 in app\n# noisegate: + env A=1 in app\n# noisegate: warns NG552 NG051\n",
            Expectation("admitted", ("env A=1 in app", "env B=2 in app"), (), ("NG051", "NG552")),
            id="given",
        ),
        pytest.param(
            "# noisegate: refused NG502, NG105\n# noisegate: warns NG051\n",
            Expectation("refused", (), ("NG105", "NG502"), ("NG051",)),
            id="refused",
        ),
        pytest.param(
            "# noisegate: validate\n# noisegate: refused NG603\n",
            Expectation("refused", (), ("NG603",), (), "validate"),
            id="validate",
        ),
    ],
)
def test_a_comment_is_read(comment: str, expected: Expectation) -> None:
    """The lines directly above an object say what must come of it."""
    (example,) = read(comment + POD, "a.yaml")

    assert example.expected == expected
    assert (example.document.name, example.before) == ("p", None)


def test_each_object_has_its_own_comment() -> None:
    """Objects of several documents and of a List are told apart; an update is one of the object above it."""
    text = f"# noisegate: admitted\n{POD}---\n# noisegate: update\n# noisegate: refused NG701\n{POD}---\n"
    listed = "kind: List\napiVersion: v1\nitems:\n  # noisegate: admitted\n  - {kind: Pod, metadata: {name: q}}\n  - {kind: Pod}\n"
    examples = read((text + listed).encode(), "a.yaml")

    assert [example.expected for example in examples] == [
        Expectation("admitted"),
        Expectation("refused", (), ("NG701",), (), "update"),
        Expectation("admitted"),
        Expectation(),
    ]
    assert [example.before for example in examples] == [None, examples[0].document, None, None]


ALLOWED = "allowed: admitted, refused CODE..., + WHAT IT IS GIVEN, warns CODE..., update, validate"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(f"# noisegate: admited\n{POD}", f'a.yaml:1: "admited" has no meaning; {ALLOWED}', id="misspelt"),
        pytest.param(
            f"# noisegate: admitted yes\n{POD}", f'a.yaml:1: "admitted yes" has no meaning; {ALLOWED}', id="too-much"
        ),
        pytest.param(f"# noisegate: refused\n{POD}", f'a.yaml:1: "refused" has no meaning; {ALLOWED}', id="no-code"),
        pytest.param(
            f"# noisegate: refused NG1\n{POD}", f'a.yaml:1: "refused NG1" has no meaning; {ALLOWED}', id="bad-code"
        ),
        pytest.param(f"# noisegate: +\n{POD}", f'a.yaml:1: "+" has no meaning; {ALLOWED}', id="nothing-given"),
        pytest.param(f"# noisegate:\n{POD}", f'a.yaml:1: "" has no meaning; {ALLOWED}', id="empty"),
        pytest.param(
            f"# noisegate: refused NG101 NG101\n{POD}",
            "a.yaml:1: refused names a code twice (name each code once)",
            id="twice",
        ),
        pytest.param(
            f"# noisegate: admitted\n# noisegate: refused NG101\n{POD}",
            "a.yaml:2: admitted or refused stands above this object already (keep one line)",
            id="two-verdicts",
        ),
        pytest.param(
            f"# noisegate: admitted\n# noisegate: warns NG051\n# noisegate: warns NG052\n{POD}",
            "a.yaml:3: warns stands above this object already (keep one line)",
            id="two-warnings",
        ),
        pytest.param(
            f"# noisegate: warns NG051\n{POD}",
            "a.yaml:1: neither admitted nor refused is said of this object (add admitted, or refused and its codes)",
            id="no-verdict",
        ),
        pytest.param(
            f"# noisegate: refused NG101\n# noisegate: + env A=1 in app\n{POD}",
            "a.yaml:1: an object that is refused is given nothing (leave out the lines with +)",
            id="refused-and-given",
        ),
        pytest.param(
            f"# noisegate: admitted\n# noisegate: update\n{POD}",
            "a.yaml:1: an update needs the object it changes above it in the file",
            id="update-of-nothing",
        ),
        pytest.param(
            f"{POD}# noisegate: admitted\n---\n{POD}# noisegate: what\n",
            "a.yaml:5: this comment stands directly above no object\na.yaml:11: this comment stands directly above no object",
            id="above-nothing",
        ),
        pytest.param(
            "- a\n",
            "a.yaml:1: this is no mapping; a Kubernetes object is a mapping with apiVersion, kind and metadata",
            id="no-object",
        ),
    ],
)
def test_a_comment_without_meaning_is_an_error(text: str, told: str) -> None:
    """What a comment cannot mean is told with its line, all of it at once."""
    with pytest.raises(ConfigError) as caught:
        read(text, "a.yaml")

    assert str(caught.value) == told


PATCH: list[dict[str, Any]] = [{"op": "add", "path": "/metadata/annotations", "value": {"a": "1"}}]
ENCODED = base64.b64encode(json.dumps(PATCH).encode()).decode()


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        pytest.param({"uid": "1", "allowed": True}, Seen(), id="allowed"),
        pytest.param(
            {"allowed": True, "patch": ENCODED, "warnings": ["NG051 metadata: it asks for nothing", "and 3 more"]},
            Seen(True, ("annotation a=1",), frozenset(), frozenset({"NG051"})),
            id="patched",
        ),
        pytest.param(
            {
                "allowed": False,
                "status": {"details": {"causes": [{"message": "NG101: block size"}, {"message": "NG105: volume"}, {}]}},
            },
            Seen(False, (), frozenset({"NG101", "NG105"})),
            id="refused",
        ),
        pytest.param({"allowed": False, "status": {"code": 500}, "warnings": None}, Seen(allowed=False), id="errored"),
    ],
)
def test_an_answer_is_read(response: dict[str, Any], expected: Seen) -> None:
    """Codes come from the causes and the warnings, what was given from the patch."""
    assert seen(response, {"metadata": {}}) == expected


def test_the_patch_of_an_answer() -> None:
    """An answer without a patch has no operations."""
    assert operations_of({"patch": ENCODED}) == PATCH
    assert operations_of({}) == operations_of({"patch": ""}) == []


def test_two_answers_come_to_one() -> None:
    """What was mutated and then refused is refused, for all that either answer told."""
    first = Seen(True, ("env A=1 in app",), frozenset(), frozenset({"NG051"}))
    later = Seen(False, (), frozenset({"NG603"}), frozenset({"NG052"}))

    assert first.then(later) == Seen(False, ("env A=1 in app",), frozenset({"NG603"}), frozenset({"NG051", "NG052"}))


REFUSED = Expectation("refused", (), ("NG101", "NG105"))


@pytest.mark.parametrize(
    ("expected", "happened", "differences"),
    [
        pytest.param(Expectation(), Seen(), [], id="as-it-is"),
        pytest.param(
            Expectation("admitted", ("a", "b"), (), ("NG051",)),
            Seen(True, ("b", "a"), frozenset(), frozenset({"NG051"})),
            [],
            id="right",
        ),
        pytest.param(REFUSED, Seen(False, (), frozenset({"NG105", "NG101"})), [], id="rightly-refused"),
        pytest.param(
            REFUSED,
            Seen(True, ("a",)),
            ["it was admitted; it should be refused for NG101, NG105"],
            id="wrongly-admitted",
        ),
        pytest.param(
            Expectation("admitted", ("a",)),
            Seen(False, (), frozenset({"NG105", "NG101"})),
            ["it was refused for NG101, NG105; it should be admitted"],
            id="wrongly-refused",
        ),
        pytest.param(
            Expectation(),
            Seen(allowed=False),
            ["it was refused for no stated reason; it should be admitted"],
            id="errored",
        ),
        pytest.param(
            REFUSED,
            Seen(False, (), frozenset({"NG105", "NG301"})),
            ["it was not refused for NG101", "it was refused for NG301 too"],
            id="other-codes",
        ),
        pytest.param(
            Expectation("admitted", ("a", "b")),
            Seen(True, ("b", "b", "c")),
            ["it was not given a", "it was given b too", "it was given c too"],
            id="other-things",
        ),
        pytest.param(
            Expectation("admitted", (), (), ("NG051",)),
            Seen(True, (), frozenset(), frozenset({"NG052"})),
            ["it was not warned of NG051", "it was warned of NG052 too"],
            id="other-warnings",
        ),
    ],
)
def test_differences_are_told(expected: Expectation, happened: Seen, differences: list[str]) -> None:
    """What came out otherwise is told in words; what came out right is not."""
    assert compare(expected, happened) == differences


def test_the_nearest_settings_count(tmp_path: Path) -> None:
    """The settings in the object's folder count, else those in the next one above it, and none above the root."""
    inner = tmp_path / "root" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "server.yaml").touch()
    (inner / "server.yaml").touch()
    root = tmp_path / "root"

    assert settings_of(inner / "deep" / "pod.yaml", root) == inner / "server.yaml"
    assert settings_of(root / "pod.yaml", root) is None
    assert settings_of(root / "pod.yaml", tmp_path) == tmp_path / "server.yaml"
    assert settings_of(Path("pod.yaml"), Path("elsewhere")) is None
