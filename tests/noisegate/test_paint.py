"""Colour, where it is wanted."""

import io

import pytest

from noisegate.cli.paint import Paint, wants_colour


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.mark.parametrize(
    ("choice", "terminal", "environ", "wanted"),
    [
        pytest.param("auto", True, {}, True, id="terminal"),
        pytest.param("auto", False, {}, False, id="pipe"),
        pytest.param("auto", True, {"NO_COLOR": "1"}, False, id="no-color"),
        pytest.param("auto", True, {"NO_COLOR": ""}, True, id="no-color-empty"),
        pytest.param("auto", True, {"TERM": "dumb"}, False, id="dumb"),
        pytest.param("always", False, {"NO_COLOR": "1"}, True, id="always"),
        pytest.param("never", True, {}, False, id="never"),
    ],
)
def test_colour_is_for_terminals(choice: str, terminal: bool, environ: dict[str, str], wanted: bool) -> None:
    """A terminal is coloured unless its user does not want it; a flag wins over both."""
    stream = Terminal() if terminal else io.StringIO()

    assert wants_colour(choice, stream, environ) is wanted


def test_styles_are_ansi() -> None:
    """A styled text is wrapped in ANSI codes; an empty one, or one without colour, is left."""
    assert Paint(colour=True)("x", "red", "bold") == "\x1b[31;1mx\x1b[0m"
    assert Paint(colour=True)("", "red") == ""
    assert Paint(colour=False)("x", "red") == "x"


@pytest.mark.parametrize(("encoding", "mark"), [("utf-8", "✓"), ("ascii", "ok"), ("no-such", "ok")])
def test_marks_fit_the_encoding(encoding: str, mark: str) -> None:
    """Where the output cannot hold the marks there are plain words."""
    assert Paint(colour=False, encoding=encoding).good == mark


def test_paint_takes_the_stream_s_encoding() -> None:
    """The stream decides."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")

    assert Paint.of("never", stream, {}).bad == "REFUSED"
    assert Paint.of("never", io.StringIO(), {}).bad == "✗"
