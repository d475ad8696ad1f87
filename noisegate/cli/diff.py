"""What changes between two objects, as a unified diff of their YAML with the path of each change."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml


class Hunk(NamedTuple):
    """Changes that stand together.

    Attributes:
        path: The keys above its first line, such as `spec.containers.env`.
        lines: Each begins with `+`, `-` or a blank.
    """

    path: str
    lines: tuple[str, ...]


def hunks(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Hunk]:
    """Yield what changes from one object to the other, in the order of the second."""
    old, new = text(before).splitlines(), text(after).splitlines()
    for tag, first, last, start, end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        for sign, lines, begin, stop in (("-", old, first, last), ("+", new, start, end)):
            for run in _runs(lines, begin, stop):
                yield Hunk(_path(lines, run[0]), tuple(_shown(lines, *run, sign, begin)))


def text(value: Mapping[str, Any]) -> str:
    """Return an object as YAML: keys in their own order, texts of several lines as such, no line broken."""
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, width=1 << 20, allow_unicode=True, default_flow_style=False
    )


def _path(lines: list[str], index: int) -> str:
    """Return what stands above a line, from the indentation: `spec.containers[app]`."""
    path = ""
    indent = _indent(lines[index])
    for above in range(index - 1, -1, -1):
        outer = _indent(lines[above])
        if outer < indent:
            indent = outer
            line = lines[above].lstrip()
            step = f"[{_name(lines, above)}]" if line.startswith("- ") else line.partition(":")[0]
            path = f"{step}.{path}" if path and not path.startswith("[") else f"{step}{path}"
    return path


def _name(lines: list[str], index: int) -> str:
    """Return the name of the list element that begins in a line, or else what it begins with."""
    inside = _indent(lines[index]) + 2
    for line in [f"{' ' * inside}{lines[index][inside:]}", *lines[index + 1 :]]:
        if _indent(line) < inside:
            break
        if line.startswith("name: ", inside):
            return line[inside + 6 :]
    return lines[index][inside:].partition(": ")[2]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _runs(lines: list[str], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Divide lines where they step out of what the first of them stands in."""
    begin = start
    for index in range(start + 1, end):
        if _indent(lines[index]) < _indent(lines[begin]):
            yield begin, index
            begin = index
    if begin < end:
        yield begin, end


def _shown(lines: list[str], begin: int, end: int, sign: str, changed: int) -> Iterator[str]:
    """Yield changed lines as far left as they go, after the unchanged one before them where that is their neighbour."""
    indent = _indent(lines[begin])
    if begin == changed and begin and indent <= _indent(lines[begin - 1]) <= indent + 2:
        yield f" {lines[begin - 1][indent:]}"
    for line in lines[begin:end]:
        yield f"{sign}{line[indent:]}"


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, so that indentation alone tells what belongs to what; writes no aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
