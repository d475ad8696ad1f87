"""YAML and JSON text in, values and lines out."""

import re
from typing import Any

import pytest

from noisegate.service.faults import ConfigError
from noisegate.service.yamltext import DEEPEST, MOST_FAULTS, parse


def _values(text: str | bytes) -> list[Any]:
    return [document.value for document in parse(text, "f.yaml")]


def _told(text: str | bytes) -> str:
    with pytest.raises(ConfigError) as error:
        parse(text, "f.yaml")
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param("# only a comment\n", [], id="comment"),
        pytest.param("---\n---\na\n", [None, "a"], id="empty-document"),
        pytest.param("a: {b: [1, 'yes', yes]}\n", [{"a": {"b": [1, "yes", True]}}], id="flow"),
        pytest.param('a: |\n  {"b": 1}\n', [{"a": '{"b": 1}\n'}], id="block-text"),
        pytest.param("? a\n: 1\nyes: 2\n", [{"a": 1, "true": 2}], id="keys"),
        pytest.param("a: !foo {b: 1}\n", [{"a": {"b": 1}}], id="tag-of-a-mapping"),
        pytest.param("\ufeffa: 1", [{"a": 1}], id="byte-order-mark"),
        pytest.param(b"\xef\xbb\xbfa: \xc3\xbc", [{"a": "ü"}], id="utf-8-with-mark"),
        pytest.param("a: &x [1]\nb: *x\n", [{"a": [1], "b": [1]}], id="alias"),
        pytest.param("a: &x 1\nb: *x\n", [{"a": 1, "b": 1}], id="alias-of-a-word"),
        pytest.param(
            "d: &x {a: 1, b: 1}\ne: {a: 0, <<: *x, b: 3}\n",
            [{"d": {"a": 1, "b": 1}, "e": {"a": 1, "b": 3}}],
            id="merge",
        ),
        pytest.param(
            "- &x {a: 1}\n- &y {a: 2, b: 2}\n- <<: [*x, *y]\n",
            [[{"a": 1}, {"a": 2, "b": 2}, {"a": 1, "b": 2}]],
            id="merge-of-a-list",
        ),
        pytest.param("'<<': 1\n", [{"<<": 1}], id="quoted-merge"),
        pytest.param('{"a": "\\ud83d\\ude00\\n\x7f\u2028"}', [{"a": "😀\n\x7f\u2028"}], id="json"),
        pytest.param('{"a": 1}\n{"a": 2}{"a": 3}', [{"a": 1}, {"a": 2}, {"a": 3}], id="json-after-json"),
    ],
)
def test_text_becomes_the_values_that_kubectl_sends(text: str | bytes, values: list[Any]) -> None:
    """All documents of a text are read, YAML or JSON."""
    assert _values(text) == values


def test_every_value_has_the_line_of_its_key() -> None:
    """Lines are those of the keys and elements, also in later documents, behind aliases and in JSON after JSON."""
    text = "a:\n  b: |\n    x\n  c: &c\n  - 1\n  -\n    d: 2\n---\n\n\ne: 1\nf: 2\n"
    first, second = (document.lines for document in parse(text, "f.yaml"))
    places = ("", "a", "a.b", "a.c", "a.c[0]", "a.c[1]", "a.c[1].d", "a.c[9].d", "a.x")
    assert [first.line_of(path) for path in places] == [1, 1, 2, 4, 5, 7, 7, 4, 1]
    assert [second.line_of(path) for path in ("", "e", "f")] == [11, 11, 12]
    aliased = parse("a: &x\n  b: 1\nc: *x\n", "f.yaml")[0].lines
    assert [aliased.line_of(path) for path in ("c", "c.b")] == [3, 2]
    merged = parse("a: &x\n  b: 1\nc:\n  <<: *x\n", "f.yaml")[0].lines
    assert merged.line_of("c.b") == 2
    assert [document.lines.line_of("a") for document in parse('{"a":1}\n{\n"a":2}', "f.yaml")] == [1, 3]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(
            "a: 1\nb:\n- c: 1\n  c: 2\na: 3\n",
            'f.yaml:4:3: b[0].c: the key "c" stands here and in line 3 already; a key may stand once\n'
            'f.yaml:5:1: a: the key "a" stands here and in line 1 already; a key may stand once',
            id="duplicates",
        ),
        pytest.param(
            "a: {b: 1}\na: 2\n",
            'f.yaml:2:1: a: the key "a" stands here and in line 1 already; a key may stand once',
            id="duplicate-of-a-mapping",
        ),
        pytest.param("a:\n\tb: 1", "f.yaml:2:1: a tab indents this line; YAML is indented with blanks (replace the tab)", id="tab"),
        pytest.param(
            "a: b: c",
            'f.yaml:1:5: not YAML: mapping values are not allowed in this context (a value that holds ": " needs quotation marks)',
            id="colon",
        ),
        pytest.param(
            "a: 'x", "f.yaml:1:6: not YAML: while scanning a quoted scalar, found unexpected end of stream", id="unclosed"
        ),
        pytest.param(
            "'a' b", "f.yaml:1:5: not YAML: the value ends before this (separate documents with a line ---)", id="trailing"
        ),
        pytest.param("a: \x07", "f.yaml:1:4: the character U+0007 may not stand in YAML", id="control"),
        pytest.param("ab\na: \ud800", "f.yaml:2:4: the character U+D800 may not stand in YAML", id="lone-surrogate"),
        pytest.param(
            '{"a": "\\ud83d"}',
            "f.yaml:1:10: not YAML: while parsing a quoted scalar, found invalid Unicode character escape code",
            id="half-pair",
        ),
        pytest.param(b"a\nb: \xc3\xbc\xff", "f.yaml:2:5: byte 0xff is not UTF-8 (save the file as UTF-8)", id="not-utf-8"),
        pytest.param("a: 1".encode("utf-16"), "f.yaml:1:1: the text is UTF-16; only UTF-8 is read (save it as UTF-8)", id="utf-16"),
        pytest.param("[" * 900, f"f.yaml:1:{DEEPEST + 1}: nested deeper than {DEEPEST} levels", id="deep"),
        pytest.param(
            f"a: &a {'[' * 150}1{']' * 150}\nb: {'[' * 60}*a{']' * 60}\n",
            f"f.yaml:2:64: with its aliases expanded nested deeper than {DEEPEST} levels",
            id="deep-by-alias",
        ),
        pytest.param("a: &a [*a]", "f.yaml:1:8: the anchor &a contains itself", id="circle"),
        pytest.param("a: *b", "f.yaml:1:4: there is no anchor &b above", id="no-anchor"),
        pytest.param("a: &b 1\n---\n*b", "f.yaml:3:1: there is no anchor &b above", id="anchor-of-another-document"),
        pytest.param("a: &b 1\n*b : 2", "f.yaml:2:1: the alias *b stands as a key; write the key itself", id="alias-as-key"),
        pytest.param("[1]: 2", "f.yaml:1:1: a key must be one word or a quoted text", id="list-as-key"),
        pytest.param("a: .nan\n~: 1\n", "f.yaml:1:4: a: .nan is no number in JSON; put it in quotation marks if text is meant\n"
                     "f.yaml:2:1: a key cannot be null; put it in quotation marks", id="no-json"),
        pytest.param("<<: 3", "f.yaml:1:5: <<: << needs a mapping or a list of mappings", id="merge-of-a-word"),
        pytest.param("a:\n  <<: [3]", "f.yaml:2:9: a.<<: << needs a mapping or a list of mappings", id="merge-of-words"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_with_its_place(text: str | bytes, told: str) -> None:
    """Each error names file, line and column; faults that do not hinder reading are told together."""
    assert _told(text) == told


def test_a_bottomless_text_is_refused() -> None:
    """Whether by us or by libyaml, whose newer releases stop at 1,000 levels themselves."""
    assert re.match(
        r"f\.yaml:1:(201: nested deeper than 200 levels|1001: not YAML: .*nesting depth)", _told("[" * 100_000)
    )


def test_aliases_may_not_multiply_a_text() -> None:
    """Ten lines that stand for billions of values are refused."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for name, above in zip("bcdefghij", "abcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{above}'] * 9)}]")
    assert _told("\n".join(lines)) == (
        "f.yaml:7:36: with its aliases expanded the text has more than 10000000 values and characters"
    )


def test_a_long_text_may_not_be_multiplied_either() -> None:
    """What an alias repeats is counted in characters too."""
    text = f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 200)}]\n"
    assert "with its aliases expanded the text has more than 10000000" in _told(text)


def test_reading_stops_after_many_faults() -> None:
    """A text with hundreds of faults yields the first of them."""
    with pytest.raises(ConfigError) as error:
        parse("a: .nan\n" + "".join(f"a{number}: .nan\n" for number in range(100)), "f.yaml")
    assert len(error.value.faults) == MOST_FAULTS
