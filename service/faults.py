"""What is wrong in a file of the user's, and in which line."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from noisegate.isolation.problems import shown

Place = Any
"""Line of a scalar, or `(line, places)` of a mapping (places by key) or a list. The line of an entry is its key's."""

_STEP: Final = re.compile(r"\[([^\]]*)\]|\.?([^.\[]+)|.", re.DOTALL)
_PLAIN_STEP: Final = re.compile(r"[^\s.\[\]/]+")


class Fault(NamedTuple):
    """One thing that is wrong in a file.

    Attributes:
        file: Name of the file as the user gave it.
        line: Counted from 1; 0 where the file as a whole is meant.
        column: Counted from 1; 0 where the line as a whole is meant.
        path: Keys that lead to the value, such as `server.port`; empty where the text itself is broken.
        message: What is wrong and what is allowed, as one sentence.
        hint: What to write instead, where that is obvious; else empty.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """Write the fault as one line: `file:line:column: path: message (hint)`."""
        place = ":".join([self.file, *(str(number) for number in (self.line, self.column) if number)])
        return ": ".join(filter(None, (place, self.path, self.message))) + (f" ({self.hint})" if self.hint else "")


class ConfigError(Exception):
    """A file cannot be used, and nothing of it was applied. `faults` holds everything that is wrong with it."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults: Final = tuple(faults)


class Lines:
    """Where the values of one document stand."""

    __slots__ = ("_root",)

    def __init__(self, root: Place) -> None:
        self._root = root

    def line_of(self, path: str | Sequence[str | int] = "") -> int:
        """Return the line of the value at `path`, or of its nearest ancestor that stands in the text.

        `path` is written as in problems (`spec.containers[0].resources.limits[cmk.intel.com/exclusive-cores]`) or
        given as a sequence of keys and indexes.
        """
        place = self._down(path)
        return int(place[0] if isinstance(place, tuple) else place)

    def under(self, path: str | Sequence[str | int]) -> "Lines":
        """Return the lines as seen from the value at `path`."""
        return Lines(self._down(path))

    def _down(self, path: str | Sequence[str | int]) -> Place:
        place, child = self._root, self._root
        while child is not None:
            place = child
            if not path or not isinstance(place, tuple):
                break
            if isinstance(path, str):
                child, path = _by_text(place[1], path)
            else:
                child, path = _child(place[1], path[0]), path[1:]
        return place


def _child(places: Any, step: str | int) -> Place | None:
    if isinstance(places, dict):
        return places.get(step)
    index = int(step) if isinstance(step, int) or (step.isascii() and step.isdecimal()) else -1
    return places[index] if 0 <= index < len(places) else None


def _by_text(places: Any, path: str) -> tuple[Place | None, str]:
    step = _STEP.match(path)
    if step is None or (step[1] is None and isinstance(places, dict)):
        # A key may hold dots itself: the longest one that fits is meant.
        rest = path.removeprefix(".")
        fitting = [key for key in places if rest.startswith(key) and rest[len(key) : len(key) + 1] in ("", ".", "[")]
        key = max(fitting, key=len, default="")
        return (places.get(key), rest[len(key) :]) if key else (None, "")
    return _child(places, step[1] or step[2] or ""), path[step.end() :]


def path_text(steps: Iterable[str | int]) -> str:
    """Write a path as problems do: `rules[0].when`, `metadata.annotations[noisegate.io/mode]`."""
    path = ""
    for step in steps:
        if isinstance(step, int) or not _PLAIN_STEP.fullmatch(step):
            path += f"[{shown(step)}]"
        else:
            path += f".{step}" if path else step
    return path


class Wrongs:
    """Collects the faults of one document."""

    def __init__(self, file: str, lines: Lines) -> None:
        self.faults: list[Fault] = []
        self._file = file
        self._lines = lines

    def add(self, path: str | Sequence[str | int], value: object, message: str, hint: str = "") -> None:
        """Note that the value at `path` is wrong. `value` is shown before the message, unless it is empty or None."""
        text = shown(value)
        told = f'"{text}": {message}' if text and isinstance(value, str) else f"{text}: {message}" if text else message
        self.faults.append(
            Fault(
                self._file, self._lines.line_of(path), 0, path if isinstance(path, str) else path_text(path), told, hint
            )
        )

    def raise_if_any(self) -> None:
        """Raise a ConfigError, in the order of the lines, if anything was noted."""
        if self.faults:
            raise self.error()

    def error(self) -> ConfigError:
        """Return the ConfigError that holds everything noted so far, in the order of the lines."""
        return ConfigError(sorted(self.faults, key=lambda fault: fault.line))
