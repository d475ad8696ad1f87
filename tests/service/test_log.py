"""Structured lines."""

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from noisegate.service.log import Handler, Log

MOMENT = 1_700_000_000.25
TIME = "2023-11-14T22:13:20.250Z"


class Lines(list[bytes]):
    """What was written."""

    def last(self) -> dict[str, Any]:
        """Return the last line, read."""
        assert self[-1].endswith(b"\n")
        assert self[-1].count(b"\n") == 1
        read: dict[str, Any] = json.loads(self[-1])
        return read


@pytest.fixture(name="lines")
def _lines() -> Lines:
    return Lines()


@pytest.fixture(name="log")
def _log(lines: Lines) -> Log:
    return Log(lines.append, clock=lambda: MOMENT)


def test_event_is_one_line(log: Log, lines: Lines) -> None:
    """An event is one JSON object: time, level, event, and the fields as they are."""
    log.info("serving", port=8443, ratio=0.5, tls=True, nothing=None, list=["a"], map={"k": {"l": 1}})
    expected = {
        "time": TIME,
        "level": "info",
        "event": "serving",
        "port": 8443,
        "ratio": 0.5,
        "tls": True,
        "nothing": None,
    }
    assert lines.last() == expected | {"list": ["a"], "map": {"k": {"l": 1}}}
    assert list(lines.last())[:3] == ["time", "level", "event"]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        pytest.param("x" * 2000, "x" * 1021 + "...", id="long-text"),
        pytest.param("a\nb\x00\x1b", "a\nb\x00\x1b", id="control-characters"),
        pytest.param("\udcff\u00e9", "\\udcff\u00e9", id="lone-surrogate"),
        pytest.param(list(range(100)), list(range(64)), id="long-list"),
        pytest.param({str(n): n for n in range(100)}, {str(n): n for n in range(64)}, id="long-map"),
        pytest.param([[[[["deep"]]]]], [[[["..."]]]], id="deep"),
        pytest.param({"k" * 200: 1}, {"k" * 125 + "...": 1}, id="long-key"),
        pytest.param(1 << 70, hex(1 << 70), id="huge-number"),
        pytest.param(ValueError("x"), "x", id="other"),
        pytest.param({3}, [3], id="set"),
    ],
)
def test_values_are_bounded(log: Log, lines: Lines, value: object, written: object) -> None:
    """Whatever a value is, it is cut to a bounded size and can be written."""
    log.warning("refused", value=value)
    assert lines.last()["value"] == written


def test_fault_has_its_cause(log: Log, lines: Lines) -> None:
    """A fault tells its cause and the end of the traceback."""
    try:
        raise LookupError("y" * 9000)
    except LookupError as error:
        log.fault("failed", cause=error)
    line = lines.last()
    assert line["level"] == "error"
    assert line["error"].startswith("LookupError: yyy")
    assert len(line["traceback"]) == 8192
    log.fault("plain")
    assert lines.last() == {"time": TIME, "level": "error", "event": "plain"}


def test_levels(lines: Lines) -> None:
    """What is less severe than the level asked for is not written."""
    log = Log(lines.append, level="warning")
    log.info("a")
    log.warning("b")
    log.fault("c")
    assert [json.loads(line)["event"] for line in lines] == ["b", "c"]


def test_text_form(lines: Lines) -> None:
    """The text form has the same on one line, with JSON values."""
    log = Log(lines.append, form="text", clock=lambda: MOMENT)
    log.warning("refused", path="/a b", n=1)
    assert lines == [f'{TIME} WARNING refused path="/a b" n=1\n'.encode()]


def test_what_strangers_cause_is_limited(lines: Lines) -> None:
    """Beyond twice the rate lines are left out; the next one that is written says how many."""
    now = [0.0]
    log = Log(lines.append, clock=lambda: now[0], rate=5)
    for number in range(14):
        log.limited("refused", number=number)
    assert [json.loads(line)["number"] for line in lines] == list(range(10))
    now[0] = 0.5
    log.limited("refused", number="next")
    assert lines.last()["left-out"] == 4
    log.limited("refused", number="after")
    assert "left-out" not in lines.last()
    now[0] = -100.0
    log.limited("refused", number="clock set back")
    assert lines.last()["number"] == "after"


def test_line_that_cannot_be_written_is_given_up() -> None:
    """A log that cannot be written does not stop the server."""

    def fail(_line: bytes) -> None:
        raise BrokenPipeError

    Log(fail).info("x")


def test_libraries_are_heard(log: Log, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a library says from a warning on comes into the log, with its traceback."""
    logger = logging.getLogger("some.library")
    monkeypatch.setattr(logger, "handlers", [Handler(log)])
    monkeypatch.setattr(logger, "propagate", False)
    logger.info("not this")
    logger.warning("this %s", 1)
    assert lines.last() == {
        "time": TIME,
        "level": "warning",
        "event": "library",
        "logger": "some.library",
        "message": "this 1",
    }
    try:
        raise ValueError("deep")
    except ValueError:
        logger.exception("and this")
    assert lines.last()["error"] == "ValueError: deep"
    assert lines.last()["level"] == "error"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        pytest.param(
            "raise KeyError('k')", {"level": "error", "event": "uncaught", "error": "KeyError: 'k'"}, id="uncaught"
        ),
        pytest.param(
            "import logging; logging.getLogger('l').warning('w')",
            {"level": "warning", "event": "library", "logger": "l", "message": "w"},
            id="library",
        ),
        pytest.param(
            "import warnings; warnings.warn('old', stacklevel=1)",
            {"level": "warning", "event": "library", "logger": "py.warnings"},
            id="warning",
        ),
    ],
)
def test_process_is_taken_over(program: str, expected: dict[str, str]) -> None:
    """A program's uncaught exceptions, its libraries and its warnings come as lines to stderr."""
    begin = "from noisegate.service.log import Log, take_over; take_over(Log()); "
    result = subprocess.run([sys.executable, "-c", begin + program], capture_output=True, check=False)  # noqa: S603
    assert expected.items() <= json.loads(result.stderr).items()
