"""Strict JSON in annotations."""

from functools import partial
from typing import Any

import pytest

from noisegate.isolation import payload
from noisegate.isolation.payload import UNREADABLE, Payload
from noisegate.isolation.problems import Findings, Problem, in_annotation

ROOT = "metadata.annotations[k]"


def reading() -> Payload:
    """Return a payload that stands in annotation `k`."""
    return Payload(partial(in_annotation, "k"), Findings())


def told(given: Payload) -> list[tuple[str, str, str, str]]:
    """Return code, path behind the root, message and hint of every problem."""
    return [(p.code, p.path.removeprefix(ROOT), p.message, p.hint) for p in given.found.problems]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("{}", {}, id="empty object"),
        pytest.param(' {"a" : [1, 1.5, true, null, "x"]}\n', {"a": [1, 1.5, True, None, "x"]}, id="all types"),
        pytest.param("null", None, id="null"),
        pytest.param('{"é": "\\u00e9\\ud83d\\ude00"}', {"é": "é😀"}, id="unicode and a whole pair"),
        pytest.param('{"a": {"b": 1}, "c": {"b": 1}}', {"a": {"b": 1}, "c": {"b": 1}}, id="same key in two objects"),
    ],
)
def test_sound_json(text: str, expected: object) -> None:
    """Sound JSON is decoded without a word."""
    given = reading()
    assert (given.decode(text), given.found.problems) == (expected, [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", ("NG005", "", "the value is empty; it must be JSON", "leave the annotation out"), id="empty"),
        pytest.param(
            " \n", ("NG005", "", "the value is empty; it must be JSON", "leave the annotation out"), id="blank"
        ),
        pytest.param(
            '{"a": 1} x',
            ("NG001", "", "not JSON at line 1, column 10: x is not expected here", ""),
            id="trailing garbage",
        ),
        pytest.param(
            "{}{}", ("NG001", "", "not JSON at line 1, column 3: {} is not expected here", ""), id="two texts"
        ),
        pytest.param('{"a": 1', ("NG001", "", "not JSON at line 1, column 8: the text ends too early", ""), id="cut"),
        pytest.param(
            '{"a": "b', ("NG001", "", "not JSON at line 1, column 7: the text ends too early", ""), id="cut in a string"
        ),
        pytest.param(
            "{\n 'a': 1}",
            (
                "NG001",
                "",
                "not JSON at line 2, column 2: 'a': 1} is not expected here",
                'JSON wants double quotes: "..."',
            ),
            id="single quotes",
        ),
        pytest.param(
            "50Mi", ("NG001", "", "not JSON at line 1, column 3: Mi is not expected here", ""), id="no JSON at all"
        ),
        pytest.param(
            "\ufeff{}", ("NG001", "", "not JSON at line 1, column 1: \\ufeff{} is not expected here", ""), id="BOM"
        ),
        pytest.param('{"a": NaN}', ("NG001", "", "NaN is no JSON value", ""), id="NaN"),
        pytest.param('{"a": -Infinity}', ("NG001", "", "-Infinity is no JSON value", ""), id="Infinity"),
        pytest.param("[" * 100_000, ("NG001", "", "it is nested too deeply", ""), id="deep"),
        pytest.param("9" * 5000, ("NG001", "", "a number in it has too many digits", ""), id="huge integer"),
        pytest.param(
            '{"a": ["\\ud800"]}',
            ("NG001", ".a[0]", '"\\ud800" holds half a surrogate pair, which is no character', ""),
            id="lone surrogate",
        ),
        pytest.param(
            '{"\ud800": 1}',
            ("NG001", "", '"\\ud800" holds half a surrogate pair, which is no character', ""),
            id="lone surrogate as a key",
        ),
    ],
)
def test_unreadable(text: str, expected: tuple[str, str, str, str]) -> None:
    """What is not one sound JSON text gives no value and one problem that says where."""
    given = reading()
    assert (given.decode(text), told(given)) == (UNREADABLE, [expected])


def test_duplicate_keys_at_any_depth() -> None:
    """Every duplicate key is told with its path; the value is returned, so that more can be found in it."""
    given = reading()
    value = given.decode('{"a": [{"b": 1, "b": 2, "c": {"d": 1, "d": 2, "d": 3}}], "e": 4}')
    assert value == {"a": [{"b": 2, "c": {"d": 3}}], "e": 4}
    assert told(given) == [
        ("NG002", ".a[0].b", 'the key "b" stands here more than once', "keep one of them"),
        ("NG002", ".a[0].c.d", 'the key "d" stands here more than once', "keep one of them"),
    ]


def test_hostile_text_is_told_of_in_short() -> None:
    """Of tens of thousands of problems of one sort, no more than `MOST_REPORTED` are told."""
    given = reading()
    given.decode("[" + ",".join('{"a":1,"a":2}' for _ in range(5000)) + "]")
    given.decode("[" + ",".join('"\\ud800"' for _ in range(5000)) + "]")
    assert len(given.found.problems) == 2 * payload.MOST_REPORTED


def test_no_suggestions_without_end() -> None:
    """Of many unknown keys a few are told; after that, each object tells of one, and no suggestion is looked for."""
    given = reading()
    for _ in range(2):
        given.members({f"limit{n}": 1 for n in range(payload.MOST_REPORTED + 1)}, frozenset({"limits"}))
    assert [hint for _, _, _, hint in told(given)] == ["write limits"] * payload.MOST_REPORTED + [""]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("null", "null"),
        ("[]", "a list"),
        ('""', "a string"),
        ("5", "a number"),
        ("1.5", "a number"),
        ("true", "true or false"),
    ],
)
def test_not_an_object(text: str, kind: str) -> None:
    """Where an object must stand, another value is told by its type."""
    given = reading()
    assert given.decode_object(text) is None
    assert told(given) == [("NG004", "", f"must be an object, not {kind}", "")]


def test_object() -> None:
    """An object is returned; an unreadable text is told once."""
    given = reading()
    assert (given.decode_object('{"a": 1}'), given.decode_object("{")) == ({"a": 1}, None)
    assert told(given) == [("NG001", "", "not JSON at line 1, column 2: the text ends too early", "")]


def test_members() -> None:
    """Known members are returned; every unknown one is told with the known ones and the nearest of them."""
    given = reading()
    known = frozenset({"requests", "limits"})
    assert given.members({"limits": 1}, known, "a") == {"limits": 1}
    assert given.members({"limit": 1, "requests": 2, "x": {}}, known, "a") == {"requests": 2}
    assert given.members([], known, "a", 0) is None
    assert told(given) == [
        ("NG003", ".a.limit", 'unknown key "limit"; allowed: limits, requests', "write limits"),
        ("NG003", ".a.x", 'unknown key "x"; allowed: limits, requests', ""),
        ("NG004", ".a[0]", "must be an object, not a list", ""),
    ]


def test_strings() -> None:
    """A string is returned; a whole number gets its spelling as a string suggested, true and false are no numbers."""
    given = reading()
    assert [given.string(value, "a") for value in ("x", 5, True, 1.5, {"b": 1})] == ["x", None, None, None, None]
    assert told(given) == [
        ("NG004", ".a", "must be a string, not a number", 'write "5"'),
        ("NG004", ".a", "must be a string, not true or false", ""),
        ("NG004", ".a", "must be a string, not a number", ""),
        ("NG004", ".a", "must be a string, not an object", ""),
    ]
    assert [problem.value for problem in given.found.problems] == ["5", "true", "1.5", '{"b": 1}']


@pytest.mark.parametrize(("outside", "shown"), [("list", "[...]"), ("object", "{...}")])
def test_values_too_deep_to_show(outside: str, shown: str) -> None:
    """A value that is nested too deeply to be written down is shown cut short."""
    value: Any = []
    for _ in range(100_000):
        value = [value]
    given = reading()
    given.string(value if outside == "list" else {"a": value})
    assert [problem.value for problem in given.found.problems] == [shown]


def test_warnings() -> None:
    """A doubt is a warning, with its path."""
    given = reading()
    given.warn(payload.ASKS_NOTHING, {}, "it asks for nothing", "a", hint="leave it out")
    assert given.found.problems == []
    assert given.found.warnings == [Problem("NG051", f"{ROOT}.a", "{}", "it asks for nothing", "leave it out")]
