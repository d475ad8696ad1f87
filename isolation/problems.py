"""Problems: what is wrong with a request, in words that let the user mend it, each under a stable code."""

import json
from collections.abc import Mapping
from typing import NamedTuple

LONGEST_SHOWN_VALUE = 80


class Problem(NamedTuple):
    """One thing that is wrong (or, among the warnings, doubtful) in one place.

    Attributes:
        code: Stable identifier such as `NG101`; `docs/problems.md` explains each.
        path: Place of the value from the object's root: `metadata.annotations[KEY].volume1.limits.rbps`.
        value: The value as it stands, shortened for display; empty where something is missing.
        message: What is wrong, what is allowed, and the unit, as one sentence without the path.
        hint: What to write instead, where that is obvious; else empty.
    """

    code: str
    path: str
    value: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """Write the problem as one line: code, path, message, hint."""
        return f"{self.code} {self.path}: {self.told}" if self.path else f"{self.code} {self.told}"

    @property
    def told(self) -> str:
        """The message, and the hint behind it."""
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def under(self, prefix: str) -> "Problem":
        """Return the problem as seen from an object that holds this one under `prefix` (such as `spec.template.`)."""
        return self._replace(path=prefix + self.path)


class Code(NamedTuple):
    """What a code stands for, as told in `docs/problems.md`.

    Attributes:
        id: `NG` and three digits; the first digit is the kind of request.
        name: A short kebab-case name.
        about: One or two sentences: what is wrong and why it matters.
        example: The smallest YAML that shows it.
        mend: The same YAML, mended.
    """

    id: str
    name: str
    about: str
    example: str
    mend: str


class Findings:
    """Collects all problems and warnings of one object in one pass."""

    __slots__ = ("problems", "warnings")

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def deny(self, code: Code, path: str, value: object, message: str, hint: str = "") -> None:
        """Note something that cannot be meant."""
        self.problems.append(Problem(code.id, path, shown(value), message, hint))

    def warn(self, code: Code, path: str, value: object, message: str, hint: str = "") -> None:
        """Note something that is allowed and probably not what was wanted."""
        self.warnings.append(Problem(code.id, path, shown(value), message, hint))


def shown(value: object) -> str:
    """Return a value as it may stand in a message: printable, one line, at most `LONGEST_SHOWN_VALUE` characters."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    if len(text) > LONGEST_SHOWN_VALUE:
        return text[: LONGEST_SHOWN_VALUE - 3] + "..."
    return text


def in_annotation(key: str, *steps: str | int) -> str:
    """Return the path of a value inside an annotation: `metadata.annotations[key].step[0].step`."""
    path = f"metadata.annotations[{key}]"
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{shown(step)}"
    return path


def nearest(word: str, known: "Mapping[str, object] | list[str] | tuple[str, ...] | frozenset[str]") -> str:
    """Return the known word that `word` was probably meant to be, or an empty string."""
    from difflib import get_close_matches  # noqa: PLC0415  (only bad input pays for it)

    lowered = {name.lower(): name for name in sorted(known)}
    match = get_close_matches(word.lower()[:64], lowered, n=1, cutoff=0.6)
    return lowered[match[0]] if match else ""
