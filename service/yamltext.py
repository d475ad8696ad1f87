"""YAML and JSON text in; plain values, and the line of each of them, out.

The values are those that kubectl would send. kubectl reads YAML with sigs.k8s.io/yaml: go.yaml.in/yaml/v2 (YAML 1.1)
and a conversion to JSON. `yamlscalar` tells what words mean; a merge key (`<<`) works where it stands, as there. Where
we differ on purpose: a duplicate key is an error (kubectl takes the last), so are half a surrogate pair in a JSON
escape (Go writes U+FFFD) and a key that is an alias.

Only the parser's events are used and nothing is made by tag, so no text can name a Python object. What aliases repeat
is one shared value: treat all values as read-only.
"""

import re
from typing import Any, Final, NamedTuple

import yaml

from noisegate.isolation.problems import shown
from noisegate.service.faults import ConfigError, Fault, Lines, Place, path_text
from noisegate.service.yamlscalar import NotPlainError, key_text, plain_value

DEEPEST: Final = 200
"""Levels of nesting. Kubernetes' largest schemas stay below 100; Python's limit on recursion is 1000."""
LARGEST_EXPANSION: Final = 10_000_000
"""What aliases may add to one text, in values and characters: ten nested lines can mean gigabytes otherwise."""
MOST_FAULTS: Final = 20
"""Faults told of one text; with more, reading stops."""

# The characters of YAML 1.1 (https://yaml.org/spec/1.1/#c-printable); the parser refuses all others.
_UNPRINTABLE: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# What JSON allows in a string and YAML does not, or folds as a line break; escapes of surrogate pairs.
_JSON_ONLY: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|\\\\u[dD][89abAB]")
_JSON_PIECE: Final = re.compile(
    "\\\\u([dD][89abAB][0-9a-fA-F]{2})\\\\u([dD][c-fC-F][0-9a-fA-F]{2})|\\\\.|[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]",
    re.DOTALL,
)
_NEXT_DOCUMENT: Final = "did not find expected <document start>"
_MERGE_TAG: Final = "tag:yaml.org,2002:merge"


class Parsed(NamedTuple):
    """One document of a text.

    Attributes:
        value: Its value; None where it is empty.
        lines: Where its values stand.
        line: The line it begins in.
    """

    value: Any
    lines: Lines
    line: int


def parse(text: str | bytes, file: str) -> list[Parsed]:
    """Read every document of a YAML or JSON text; JSON documents may follow one another without a separator.

    Raises:
        ConfigError: The text is not UTF-8, not YAML, too deep, too large once its aliases are expanded, or holds
            duplicate keys or values that JSON does not have.
    """
    rest = _decoded(text, file)
    is_json = rest.lstrip()[:1] in ("{", "[")
    if is_json and _JSON_ONLY.search(rest):
        rest = _JSON_PIECE.sub(_as_yaml, rest)
    reader = _Reader(file)
    while rest:
        try:
            reader.read(rest)
        except (yaml.reader.ReaderError, UnicodeEncodeError):
            raise reader.stop(*_unprintable(rest)) from None
        except yaml.MarkedYAMLError as error:
            mark: Any = error.problem_mark or error.context_mark
            if is_json and error.problem == _NEXT_DOCUMENT and mark.index:
                rest = rest[mark.index :]
                reader.above += mark.line
                continue
            raise reader.stop(mark.line, mark.column, *_told(error, rest[mark.index : mark.index + 1])) from None
        break
    if reader.faults:
        raise ConfigError(reader.faults)
    return reader.documents


class _Open:
    """A mapping or a list whose end has not been read yet."""

    __slots__ = ("anchor", "height", "key", "line", "merged", "merging", "places", "value", "weight")

    def __init__(self, value: Any, line: int, anchor: str | None) -> None:
        self.value = value
        self.places: Any = type(value)()
        self.line = line
        self.anchor = anchor
        self.weight = 1
        self.height = 1
        self.key: tuple[str, int] | None = None
        self.merging = False
        self.merged: frozenset[str] = frozenset()

    @property
    def awaits_key(self) -> bool:
        return self.key is None and type(self.value) is dict


class _Node(NamedTuple):
    """A value read to its end; `weight` is its values and characters, `height` its levels."""

    value: Any
    places: Any
    weight: int
    height: int


class _Reader:
    """Builds values from the parser's events. Faults that do not hinder reading on are collected."""

    def __init__(self, file: str) -> None:
        self.documents: list[Parsed] = []
        self.faults: list[Fault] = []
        self.above = 0
        self._file = file
        self._stack: list[_Open] = []
        self._anchors: dict[str, _Node | None] = {}
        self._expanded = 0
        self._root: tuple[Any, Place] = (None, 1)

    def read(self, text: str) -> None:
        """Add the documents of a text that has `self.above` lines above it."""
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            kind = type(event)
            if kind is yaml.ScalarEvent:
                self._scalar(event)
            elif kind is yaml.MappingStartEvent:
                self._open({}, event)
            elif kind is yaml.SequenceStartEvent:
                self._open([], event)
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                self._close(event)
            elif kind is yaml.AliasEvent:
                self._alias(event)
            elif kind is yaml.DocumentStartEvent:
                self._anchors = {}
            elif kind is yaml.DocumentEndEvent:
                value, place = self._root
                lines = Lines(place)
                self.documents.append(Parsed(value, lines, lines.line_of()))

    def stop(self, line: int, column: int, message: str, hint: str = "") -> ConfigError:
        """Return the error that ends the reading. `line` and `column` count from 0 below `self.above`."""
        fault = Fault(self._file, line + self.above + 1, column + 1, "", message, hint)
        return ConfigError([*self.faults, fault])

    def _scalar(self, event: Any) -> None:
        text: str = event.value
        # An unquoted word has a meaning of its own unless a tag says which; a quoted one is text.
        quoted = event.tag is None and not event.implicit[0]
        top = self._stack[-1] if self._stack else None
        if top is not None and top.awaits_key:
            if text == "<<" and (event.implicit[0] or event.tag == _MERGE_TAG):
                top.merging = True
                top.key = ("<<", self._line(event))
            else:
                self._key(top, text if quoted else self._meaning(key_text, event, text), event)
            return
        value = text if quoted else self._meaning(plain_value, event, None)
        node = _Node(value, None, 1 + len(text), 0)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._put(node, self._line(event), event)

    def _meaning(self, reading: Any, event: Any, instead: Any) -> Any:
        try:
            return reading(event.value, event.tag)
        except NotPlainError as error:
            self._note(event, str(error))
            return instead

    def _key(self, top: _Open, key: str, event: Any) -> None:
        line = self._line(event)
        if key in top.value and key not in top.merged:
            first = top.places[key]
            first = first[0] if isinstance(first, tuple) else first
            self._note(
                event, f'the key "{shown(key)}" stands here and in line {first} already; a key may stand once', key
            )
        if top.merged:
            top.merged -= {key}
        top.key = (key, line)

    def _open(self, value: Any, event: Any) -> None:
        if self._stack and self._stack[-1].awaits_key:
            raise self._stop(event, "a key must be one word or a quoted text")
        if len(self._stack) == DEEPEST:
            raise self._stop(event, f"nested deeper than {DEEPEST} levels")
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._stack.append(_Open(value, self._line(event), event.anchor))

    def _close(self, event: Any) -> None:
        done = self._stack.pop()
        node = _Node(done.value, done.places, done.weight, done.height)
        if done.anchor is not None:
            self._anchors[done.anchor] = node
        self._put(node, done.line, event)

    def _alias(self, event: Any) -> None:
        name = event.anchor
        if self._stack and self._stack[-1].awaits_key:
            raise self._stop(event, f"the alias *{name} stands as a key; write the key itself")
        anchored = self._anchors.get(name)
        if anchored is None:
            inside = name in self._anchors
            raise self._stop(
                event, f"the anchor &{name} contains itself" if inside else f"there is no anchor &{name} above"
            )
        self._expanded += anchored.weight
        if self._expanded > LARGEST_EXPANSION:
            raise self._stop(
                event, f"with its aliases expanded the text has more than {LARGEST_EXPANSION} values and characters"
            )
        if len(self._stack) + anchored.height > DEEPEST:
            raise self._stop(event, f"with its aliases expanded nested deeper than {DEEPEST} levels")
        self._put(anchored, self._line(event), event)

    def _put(self, node: _Node, line: int, event: Any) -> None:
        value, places, weight, height = node
        if not self._stack:
            self._root = (value, line if places is None else (line, places))
            return
        top = self._stack[-1]
        top.weight += weight
        if height >= top.height:
            top.height = height + 1
        if top.key is None:
            top.value.append(value)
            top.places.append(line if places is None else (line, places))
            return
        (key, line), top.key = top.key, None
        if not top.merging:
            top.weight += len(key)
            top.value[key] = value
            top.places[key] = line if places is None else (line, places)
            return
        top.merging = False
        sources = (
            [(value, places)]
            if type(value) is dict
            else list(zip(value, places, strict=True))
            if type(value) is list
            else []
        )
        if not sources or any(type(source) is not dict for source, _ in sources):
            self._note(event, "<< needs a mapping or a list of mappings", "<<")
            return
        # The earlier ones of a list win; all of them win over the keys above the <<, and lose to those below.
        for source, below in reversed(sources):
            top.value.update(source)
            top.places.update(below[1] if isinstance(below, tuple) else below)
            top.merged |= source.keys()

    def _note(self, event: Any, message: str, *key: str) -> None:
        steps = [
            len(above.value) if above.key is None else above.key[0] for above in self._stack if not above.awaits_key
        ]
        line, column = self._line(event), event.start_mark.column + 1
        self.faults.append(Fault(self._file, line, column, path_text([*steps, *key]), message))
        if len(self.faults) == MOST_FAULTS:
            raise ConfigError(self.faults)

    def _stop(self, event: Any, message: str) -> ConfigError:
        return self.stop(event.start_mark.line, event.start_mark.column, message)

    def _line(self, event: Any) -> int:
        return int(event.start_mark.line) + self.above + 1


def _decoded(text: str | bytes, file: str) -> str:
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError([Fault(file, 1, 1, "", "the text is UTF-16; only UTF-8 is read", "save it as UTF-8")])
    try:
        return text.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = text[: error.start]
        line, column = before.count(b"\n") + 1, len(before[before.rfind(b"\n") + 1 :].decode()) + 1
        told = f"byte 0x{text[error.start]:02x} is not UTF-8"
        raise ConfigError([Fault(file, line, column, "", told, "save the file as UTF-8")]) from None


def _as_yaml(match: re.Match[str]) -> str:
    text = match[0]
    if match[1]:
        return bytes.fromhex(match[1] + match[2]).decode("utf-16-be")
    return text if text[0] == "\\" else f"\\u{ord(text):04x}"


def _unprintable(text: str) -> tuple[int, int, str]:
    match = _UNPRINTABLE.search(text)
    start = match.start() if match else 0
    line = text.count("\n", 0, start)
    return line, start - text.rfind("\n", 0, start) - 1, f"the character U+{ord(text[start]):04X} may not stand in YAML"


def _told(error: yaml.MarkedYAMLError, character: str) -> tuple[str, str]:
    problem = error.problem or ""
    if character == "\t" and "cannot start any token" in problem:
        return "a tab indents this line; YAML is indented with blanks", "replace the tab"
    if problem == _NEXT_DOCUMENT:
        return "not YAML: the value ends before this", "separate documents with a line ---"
    if "mapping values are not allowed" in problem:
        return f"not YAML: {problem}", 'a value that holds ": " needs quotation marks'
    return f"not YAML: {', '.join(filter(None, (error.context, problem)))}", ""
