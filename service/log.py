"""Structured lines for what an operator must know: refusals, denials, reloads, the server's life. One event, one line.

Fields belong to the event they are given with, never to the log. Whatever a client sent is cut and escaped; bodies,
headers, keys and certificates are never handed to it.
"""

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Final, Literal

import msgspec

LONGEST_TEXT: Final = 1024
"""Characters of one text value."""
LONGEST_TRACEBACK: Final = 8192
"""Characters of a traceback; its end is what is kept."""
MOST_ENTRIES: Final = 64
"""Entries of a list or mapping."""
DEEPEST: Final = 4
"""Levels of lists and mappings."""

LEVELS: Final = ("debug", "info", "warning", "error")
Level = Literal["debug", "info", "warning", "error"]
Form = Literal["json", "text"]
Write = Callable[[bytes], object]

http: Final = logging.getLogger("noisegate.http")
"""What aiohttp says goes here."""

_encode: Final = msgspec.json.Encoder().encode


def to_stderr(line: bytes) -> None:
    """Write one line to the process's stderr, in one system call: a line of up to 4 KiB stays whole on a shared pipe."""
    os.write(2, line)


class Log:
    """Writes events.

    Args:
        write: Takes one finished line.
        level: Least severe kind of event that is written.
        form: `json`: one object per line; `text`: time, level, event and `name=value` with JSON values.
        clock: Seconds since the epoch.
        rate: Lines per second that strangers can cause (see `limited`), on average; a burst may be twice that.
    """

    __slots__ = ("_allowance", "_clock", "_form", "_least", "_left_out", "_rate", "_seen", "_write")

    def __init__(
        self,
        write: Write = to_stderr,
        level: Level = "info",
        form: Form = "json",
        clock: Callable[[], float] = time.time,
        rate: int = 20,
    ) -> None:
        self._write = write
        self._least = LEVELS.index(level)
        self._form = form
        self._clock = clock
        self._rate = rate
        self._allowance = 2.0 * rate
        self._seen = clock()
        self._left_out = 0

    def info(self, event: str, **fields: object) -> None:
        """Write what happened in the normal course of things."""
        self.line("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Write what somebody should look at."""
        self.line("warning", event, fields)

    def fault(self, event: str, *, cause: BaseException | None = None, **fields: object) -> None:
        """Write what is our own fault or keeps us from working, with the traceback of its cause."""
        self.line("error", event, fields | _told(cause))

    def limited(self, event: str, **fields: object) -> None:
        """Write a warning that anybody on the network can cause: beyond the rate, lines are left out and counted."""
        now = self._clock()
        self._allowance = min(2.0 * self._rate, self._allowance + max(0.0, now - self._seen) * self._rate)
        self._seen = now
        if self._allowance < 1:
            self._left_out += 1
            return
        self._allowance -= 1
        if self._left_out:
            fields["left-out"] = self._left_out
            self._left_out = 0
        self.line("warning", event, fields)

    def line(self, level: Level, event: str, fields: Mapping[str, object]) -> None:
        """Write one event. A line that cannot be written is given up: admission goes on without it."""
        if LEVELS.index(level) < self._least:
            return
        now = self._clock()
        moment = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now * 1000) % 1000:03}Z"
        record: dict[str, object] = {"time": moment, "level": level, "event": event}
        for name, value in fields.items():
            record[name] = _bounded(value, DEEPEST, LONGEST_TRACEBACK if name == "traceback" else LONGEST_TEXT)
        try:
            self._write(_FORMS[self._form](record) + b"\n")
        except OSError:
            return


class Handler(logging.Handler):
    """Takes what libraries say through `logging` into the log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record of a library."""
        level: Level = "error" if record.levelno >= logging.ERROR else "warning"
        error = record.exc_info[1] if record.exc_info else None
        self._log.line(level, "library", {"logger": record.name, "message": record.getMessage()} | _told(error))


def take_over(log: Log) -> None:
    """Send this process's `logging`, warnings and uncaught exceptions to the log: for a program's entry."""
    logging.basicConfig(level=logging.WARNING, handlers=[Handler(log)], force=True)
    logging.captureWarnings(capture=True)

    def uncaught(_kind: type[BaseException], error: BaseException, _where: object) -> None:
        log.fault("uncaught", cause=error)

    sys.excepthook = uncaught


def _text(record: Mapping[str, object]) -> bytes:
    words = [f"{record['time']} {str(record['level']).upper()} {record['event']}"]
    words += [f"{name}={_encode(value).decode()}" for name, value in list(record.items())[3:]]
    return " ".join(words).encode()


_FORMS: Final[dict[Form, Callable[[dict[str, object]], bytes]]] = {"json": _encode, "text": _text}


def _told(error: BaseException | None) -> dict[str, object]:
    if error is None:
        return {}
    text = "".join(traceback.format_exception(error))
    return {"error": f"{type(error).__name__}: {error}", "traceback": text[-LONGEST_TRACEBACK:]}


def _bounded(value: object, depth: int, limit: int) -> object:
    if isinstance(value, str):
        # Lone surrogates cannot be written as UTF-8, and a client can put them into a path.
        text = value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
        return text if len(text) <= limit else text[: limit - 3] + "..."
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        # Larger ones are refused by msgspec and unreadable to most JSON readers.
        return value if abs(value) < 1 << 63 else _bounded(hex(value), depth, limit)
    if depth == 0:
        return "..."
    if isinstance(value, Mapping):
        pairs = list(value.items())[:MOST_ENTRIES]
        return {str(_bounded(str(name), depth, 128)): _bounded(entry, depth - 1, limit) for name, entry in pairs}
    if isinstance(value, list | tuple | set | frozenset):
        return [_bounded(entry, depth - 1, limit) for entry in list(value)[:MOST_ENTRIES]]
    return _bounded(str(value), depth, limit)
