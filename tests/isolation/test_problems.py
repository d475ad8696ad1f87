"""Problems and how they are told."""

import pytest

from noisegate.isolation.problems import Code, Findings, Problem, in_annotation, nearest, shown

CODE = Code("NG999", "name", "about", "example", "mend")


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("NG101", "spec.x", "1", "1 is wrong", "write 2"), "NG101 spec.x: 1 is wrong (write 2)"),
        (Problem("NG101", "spec.x", "1", "1 is wrong"), "NG101 spec.x: 1 is wrong"),
        (Problem("NG101", "", "", "all is wrong"), "NG101 all is wrong"),
    ],
)
def test_text(problem: Problem, text: str) -> None:
    """A problem is one line."""
    assert str(problem) == text


def test_under() -> None:
    """A problem may be seen from an object around its own."""
    assert Problem("NG101", "spec.x", "", "m").under("spec.template.") == Problem(
        "NG101", "spec.template.spec.x", "", "m"
    )


def test_findings() -> None:
    """Problems and warnings are collected, apart, in the order they are found."""
    found = Findings()
    found.deny(CODE, "a", 1, "first")
    found.warn(CODE, "b", None, "doubt", "hint")
    found.deny(CODE, "c", {"x": [True]}, "second")

    assert found.problems == [Problem("NG999", "a", "1", "first"), Problem("NG999", "c", '{"x": [true]}', "second")]
    assert found.warnings == [Problem("NG999", "b", "", "doubt", "hint")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param("text", "text", id="text"),
        pytest.param(None, "", id="nothing"),
        pytest.param(12, "12", id="number"),
        pytest.param([1, "a"], '[1, "a"]', id="list"),
        pytest.param("a\nb\tc", "a\\nb\\tc", id="control characters"),
        pytest.param("\x1b[31m", "\\x1b[31m", id="terminal codes"),
        pytest.param("ü…", "ü…", id="letters of other languages"),
        pytest.param("\u202e", "\\u202e", id="direction override"),
        pytest.param("\ud800", "\\ud800", id="half a character"),
        pytest.param("x" * 80, "x" * 80, id="just short enough"),
        pytest.param("x" * 81, "x" * 77 + "...", id="too long"),
    ],
)
def test_shown(value: object, text: str) -> None:
    """A value is shown on one line, printable, of at most 80 characters."""
    assert shown(value) == text
    assert len(shown(value)) <= 80
    assert shown(value).isprintable()


def test_in_annotation() -> None:
    """A place inside an annotation."""
    assert in_annotation("k/x") == "metadata.annotations[k/x]"
    assert in_annotation("k", "volume", 0, "rbps") == "metadata.annotations[k].volume[0].rbps"


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("limit", ("limits", "requests"), "limits"),
        ("LIMITS", ("limits", "requests"), "limits"),
        ("vol1", ["volume1", "data"], "volume1"),
        ("gould", frozenset({"gold", "silver"}), "gold"),
        ("x", {"gold": 1}, ""),
        ("", (), ""),
    ],
)
def test_nearest(word: str, known: tuple[str, ...], meant: str) -> None:
    """The word that was probably meant, or none."""
    assert nearest(word, known) == meant
