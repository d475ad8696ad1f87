"""What changes between two objects, for a reader."""

from typing import Any

import pytest

from noisegate.cli.diff import Hunk, hunks, text

POD: dict[str, Any] = {
    "metadata": {"name": "web", "annotations": {"a": "1"}},
    "spec": {"containers": [{"name": "app", "env": [{"name": "A", "value": "1"}]}, {"name": "log"}]},
}


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        pytest.param(POD, [], id="nothing"),
        pytest.param(
            {**POD, "metadata": {"name": "web", "annotations": {"a": "1", "b": "2"}}},
            [Hunk("metadata.annotations", (" a: '1'", "+b: '2'"))],
            id="member",
        ),
        pytest.param(
            {**POD, "metadata": {"name": "web", "annotations": {"a": "2"}}},
            [Hunk("metadata.annotations", ("-a: '1'",)), Hunk("metadata.annotations", ("+a: '2'",))],
            id="replaced",
        ),
        pytest.param(
            {**POD, "metadata": {"name": "web"}},
            [Hunk("metadata", (" name: web", "-annotations:", "-  a: '1'"))],
            id="removed",
        ),
        pytest.param(
            {
                **POD,
                "spec": {
                    "containers": [
                        {"name": "app", "env": [{"name": "A", "value": "1"}]},
                        {"name": "log", "env": [{"name": "B", "value": "2"}]},
                    ],
                    "tolerations": [{"operator": "Exists"}],
                },
            },
            [
                Hunk("spec.containers[log]", ("+env:", "+  - name: B", "+    value: '2'")),
                Hunk("spec", ("+tolerations:", "+  - operator: Exists")),
            ],
            id="stepping-out",
        ),
        pytest.param(
            {**POD, "status": {}},
            [Hunk("", ("+status: {}",))],
            id="root",
        ),
    ],
)
def test_changes_stand_under_their_path(after: dict[str, Any], expected: list[Hunk]) -> None:
    """Each change has the keys above it, its neighbour where it has one, and is indented no more than needed."""
    assert list(hunks(POD, after)) == expected


@pytest.mark.parametrize(
    ("element", "path"),
    [
        pytest.param({"image": "i", "name": "app"}, "spec[app].resources", id="name-later"),
        pytest.param({"image": "i"}, "spec[i].resources", id="no-name"),
        pytest.param({"image": "i", "env": {"name": "inner"}}, "spec[i].resources", id="name-deeper"),
    ],
)
def test_elements_are_named(element: dict[str, Any], path: str) -> None:
    """An element of a list is called by its name wherever that stands, else by its first value."""
    before = {"spec": [{**element, "resources": {"a": 1}}, {"name": "other"}]}
    after = {"spec": [{**element, "resources": {"a": 1, "b": 2}}, {"name": "other"}]}

    assert [hunk.path for hunk in hunks(before, after)] == [path]
    assert [hunk.path for hunk in hunks({"spec": before["spec"][:1]}, {"spec": after["spec"][:1]})] == [path]


def test_yaml_is_as_people_write_it() -> None:
    """Keys keep their order, lists are indented, long lines are not broken, several lines are a block, nothing is an alias."""
    shared = {"x": 1}
    value = {"b": "y " * 100, "a": [shared, shared], "c": "one\ntwo\n", "d": "ü"}

    assert text(value) == f"b: '{'y ' * 100}'\na:\n  - x: 1\n  - x: 1\nc: |\n  one\n  two\nd: ü\n"
