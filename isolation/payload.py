"""Strict JSON, as it stands in the value of an annotation: what is doubtful is a problem, never a guess.

RFC 8259 leaves open what duplicate keys mean, and decoders differ in what else they let pass (NaN, trailing text, lone
surrogates). Each of these is refused here, so that every reader gives the same bytes the same meaning.

A `Payload` decodes a value and hands out its members. Right members cost a type check; places and messages are made
only for wrong ones.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from noisegate.isolation.problems import Code, Findings, nearest, shown

NOT_JSON: Final = Code(
    "NG001",
    "not-json",
    "The annotation's value is not one JSON text, or holds something that readers take differently.",
    "blockio.kubernetes.io/resources: \"{'data': {}}\"",
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi/4k"}}}\'',
)
DUPLICATE_KEY: Final = Code(
    "NG002",
    "duplicate-key",
    "The same key stands twice in one JSON object; readers differ in which of the two they take.",
    'networkio.kubernetes.io/resources: \'{"limits": {"egress": "50M", "egress": "60M"}}\'',
    'networkio.kubernetes.io/resources: \'{"limits": {"egress": "50M"}}\'',
)
UNKNOWN_KEY: Final = Code(
    "NG003",
    "unknown-key",
    "A key that means nothing here: most often a misspelt one, which would be ignored in silence.",
    'networkio.kubernetes.io/resources: \'{"limit": {"egress": "50M"}}\'',
    'networkio.kubernetes.io/resources: \'{"limits": {"egress": "50M"}}\'',
)
WRONG_TYPE: Final = Code(
    "NG004",
    "wrong-type",
    "A JSON value of another type than the one that can be meant here.",
    'networkio.kubernetes.io/resources: \'{"limits": {"egress": 50000000}}\'',
    'networkio.kubernetes.io/resources: \'{"limits": {"egress": "50000000"}}\'',
)
EMPTY: Final = Code(
    "NG005",
    "empty",
    "The annotation is there and its value is empty.",
    'networkio.kubernetes.io/resources: ""',
    "(leave the annotation out)",
)
ASKS_NOTHING: Final = Code(
    "NG051",
    "asks-for-nothing",
    "Warning: the annotation, or a part of it, is there and asks for nothing.",
    "networkio.kubernetes.io/resources: '{}'",
    "(leave the annotation out)",
)
CODES: Final = (NOT_JSON, DUPLICATE_KEY, UNKNOWN_KEY, WRONG_TYPE, EMPTY, ASKS_NOTHING)

UNREADABLE: Final = object()
"""What `Payload.decode` returns where there is no value: JSON's own null is None."""

MOST_REPORTED: Final = 50
"""Problems of one sort told of one text, and problems after which no suggestion is looked for: a hostile text of the
256 KiB that Kubernetes allows holds tens of thousands."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_KINDS: Final = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}

Step = str | int
"""A key of a JSON object or an index of a JSON list, on the way to a value."""

# The way to a value, its last step last: all values in an object or list share the way to it.
_Trail = tuple["_Trail", Step] | None


class Payload:
    """Decodes one JSON text and reports what is wrong in it.

    Attributes:
        found: Where problems and warnings go.
        place: Returns the path of a member for its steps, such as `partial(in_annotation, keys.DISK)`.
    """

    __slots__ = ("found", "place")

    def __init__(self, place: Callable[..., str], found: Findings) -> None:
        self.place = place
        self.found = found

    def decode(self, text: str) -> Any:
        """Return the decoded value, or `UNREADABLE`. A value with duplicate keys is returned, the last one winning."""
        try:
            value = _STRICT.decode(text)
        except (ValueError, RecursionError):
            value = self._explain(text)
        if value is not UNREADABLE and not (text.isascii() and "\\u" not in text):
            return self._without_surrogates(value)
        return value

    def decode_object(self, text: str) -> dict[str, Any] | None:
        """Return the decoded value if it is an object."""
        value = self.decode(text)
        if type(value) is dict:
            return value
        if value is not UNREADABLE:
            self.wrong_type(value, "an object")
        return None

    def members(self, value: object, known: frozenset[str], *steps: Step) -> dict[str, Any] | None:
        """Return the known members of an object; an unknown one is a problem, as is a value that is no object."""
        if type(value) is dict:
            if value.keys() <= known:
                return value
            unknown = ((key, item) for key, item in value.items() if key not in known)
            for key, item in islice(unknown, max(1, MOST_REPORTED - len(self.found.problems))):
                self._unknown_key(key, item, known, steps)
            return {key: item for key, item in value.items() if key in known}
        self.wrong_type(value, "an object", *steps)
        return None

    def string(self, value: object, *steps: Step) -> str | None:
        """Return a value if it is a string."""
        if type(value) is str:
            return value
        self.wrong_type(value, "a string", *steps, hint=f'write "{shown(value)}"' if type(value) is int else "")
        return None

    def wrong_type(self, value: object, expected: str, *steps: Step, hint: str = "") -> None:
        """Report a value of the wrong type; `expected` names the right one, such as `a string`."""
        self.deny(WRONG_TYPE, value, f"must be {expected}, not {_kind(value)}", *steps, hint=hint)

    def deny(self, code: Code, value: object, message: str, *steps: Step, hint: str = "") -> None:
        """Report a problem with the member at these steps."""
        self.found.deny(code, self.place(*steps), _flat(value), message, hint)

    def warn(self, code: Code, value: object, message: str, *steps: Step, hint: str = "") -> None:
        """Report a doubt about the member at these steps."""
        self.found.warn(code, self.place(*steps), _flat(value), message, hint)

    def _unknown_key(self, key: str, value: object, known: Iterable[str], steps: tuple[Step, ...]) -> None:
        meant = nearest(key, tuple(known)) if len(self.found.problems) < MOST_REPORTED else ""
        told = f'unknown key "{shown(key)}"; allowed: {", ".join(sorted(known))}'
        self.deny(UNKNOWN_KEY, value, told, *steps, key, hint=f"write {meant}" if meant else "")

    def _explain(self, text: str) -> Any:
        """Report why a text was refused; return its value where only duplicate keys were in the way."""
        if not text or text.isspace():
            self.deny(EMPTY, text, "the value is empty; it must be JSON", hint="leave the annotation out")
            return UNREADABLE
        twice: list[tuple[dict[str, Any], list[str]]] = []

        def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            members = dict(pairs)
            if len(members) != len(pairs):
                counts = Counter(name for name, _ in pairs)
                twice.append((members, [name for name, count in counts.items() if count > 1]))
            return members

        try:
            value = json.JSONDecoder(object_pairs_hook=keep, parse_constant=_refuse).decode(text)
        except json.JSONDecodeError as error:
            self._syntax(text, error)
        except _ConstantError as error:
            self.deny(NOT_JSON, error.args[0], f"{error.args[0]} is no JSON value")
        except ValueError:
            # int() refuses what sys.set_int_max_str_digits does not allow: thousands of digits.
            self.deny(NOT_JSON, text, "a number in it has too many digits")
        except RecursionError:
            self.deny(NOT_JSON, text, "it is nested too deeply")
        else:
            names = {id(members): repeated for members, repeated in twice}
            repeated_keys = ((trail, item, name) for trail, item in _walk(value) for name in names.get(id(item), ()))
            for trail, item, name in islice(repeated_keys, MOST_REPORTED):
                told = f'the key "{shown(name)}" stands here more than once'
                self.deny(DUPLICATE_KEY, item[name], told, *_steps(trail), name, hint="keep one of them")
            return value
        return UNREADABLE

    def _syntax(self, text: str, error: json.JSONDecodeError) -> None:
        at = error.pos
        # The decoder points at the start of a string that does not end.
        stands = (
            "the text ends too early"
            if at >= len(text) or error.msg.startswith("Unterminated")
            else f"{shown(text[at : at + 20])} is not expected here"
        )
        hint = 'JSON wants double quotes: "..."' if text[at : at + 1] == "'" else ""
        self.deny(NOT_JSON, text, f"not JSON at line {error.lineno}, column {error.colno}: {stands}", hint=hint)

    def _without_surrogates(self, value: Any) -> Any:
        halves = ((trail, text) for trail, item in _walk(value) for text in _texts(item) if _SURROGATE.search(text))
        bad = list(islice(halves, MOST_REPORTED))
        for trail, text in bad:
            self.deny(
                NOT_JSON, text, f'"{shown(text)}" holds half a surrogate pair, which is no character', *_steps(trail)
            )
        return UNREADABLE if bad else value


class _ConstantError(ValueError):
    """NaN, Infinity or -Infinity: Python's decoder takes them, JSON has no such values."""


class _DuplicateError(ValueError):
    """A key stands twice in one object."""


def _refuse(name: str) -> Any:
    raise _ConstantError(name)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _DuplicateError
    return members


_STRICT: Final = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse)


def _walk(value: Any) -> Iterator[tuple[_Trail, Any]]:
    """Yield every value inside a value, in order of the text, with the trail that leads to it."""
    waiting: list[tuple[_Trail, Any]] = [(None, value)]
    while waiting:
        trail, item = waiting.pop()
        yield trail, item
        inner: list[tuple[Step, Any]] = []
        if isinstance(item, dict):
            inner = list(item.items())
        elif isinstance(item, list):
            inner = list(enumerate(item))
        waiting += [((trail, step), below) for step, below in reversed(inner)]


def _steps(trail: _Trail) -> list[Step]:
    """Return the steps of a trail, from the outermost."""
    steps: list[Step] = []
    while trail is not None:
        trail, step = trail
        steps.append(step)
    return steps[::-1]


def _texts(item: object) -> tuple[str, ...]:
    """Return the strings that a value itself holds: its keys, or itself."""
    if isinstance(item, dict):
        return tuple(item)
    return (item,) if isinstance(item, str) else ()


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a number")


def _flat(value: object) -> object:
    """Return a value that can be shown: one that is nested too deeply to be written down is cut short."""
    if isinstance(value, dict | list):
        try:
            return shown(value)
        except RecursionError:
            return "[...]" if isinstance(value, list) else "{...}"
    return value
