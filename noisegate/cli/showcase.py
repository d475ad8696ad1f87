"""What `noisegate demo` shows: which objects were refused and why, and what the others were given."""

import statistics
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from noisegate.cli.expectations import Example
from noisegate.cli.paint import Paint
from noisegate.cli.text import counted

WIDEST: Final = 120
"""Columns; longer lines are hard to read."""

_FOLDERS: Final = ("kinds", "enforced", "older", "bad", "warned", "cluster")
_ANNOTATION: Final = "metadata.annotations"


class Told(NamedTuple):
    """One problem or warning as the server put it.

    Attributes:
        code: Its code.
        path: Where it is; empty where the text names it.
        text: What is wrong, and in brackets at the end the mend.
    """

    code: str
    path: str
    text: str


class Shown(NamedTuple):
    """What came of one object.

    Attributes:
        example: The object and what its comment promises.
        allowed: Whether it may pass.
        problems: Why not.
        warnings: What is doubtful.
        given: What it was given, in words.
        differences: What came out otherwise than promised.
    """

    example: Example
    allowed: bool
    problems: tuple[Told, ...]
    warnings: tuple[str, ...]
    given: tuple[str, ...]
    differences: tuple[str, ...]


def report(
    objects: Sequence[Shown], seconds: Sequence[float], paint: Paint, width: int, *, everything: bool
) -> Iterator[str]:
    """Yield the lines of the report.

    Args:
        objects: In the order in which they were sent.
        seconds: How long each call took.
        paint: How to colour.
        width: Columns of the terminal.
        everything: Show every object, instead of naming those that are one of many.
    """
    width = min(width, WIDEST)
    objects = sorted(objects, key=_rank)
    refused = [one for one in objects if not one.allowed]
    given = [one for one in objects if one.allowed and one.given]
    plain = [one for one in objects if one.allowed and not one.given]
    yield from _group("Refused", "red", refused, paint, width, everything=everything)
    yield from _group("Admitted, and given what they need", "green", given, paint, width, everything=everything)
    yield from _group("Admitted as they are", "dim", plain, paint, width, everything=everything)
    wrong = [one for one in objects if one.differences]
    if wrong:
        yield from _title("Not as their comments promise", len(wrong), "red", paint)
        for one in wrong:
            yield f"{paint(paint.bad, 'red', 'bold')} {_name(one, paint)}"
            yield from (f"    {line}" for line in one.differences)
        yield ""
    yield from _summary(objects, (len(refused), len(given), len(plain)), len(wrong), seconds, paint)


def _group(
    title: str, style: str, objects: Sequence[Shown], paint: Paint, width: int, *, everything: bool
) -> Iterator[str]:
    if not objects:
        return
    yield from _title(title, len(objects), style, paint)
    seen: set[str] = set()
    left_out: list[Shown] = []
    for one in objects:
        topic = _topic(one)
        if everything or topic not in seen:
            yield from _one(one, paint, width)
            seen |= {topic} if topic else set()
        else:
            left_out.append(one)
    if left_out:
        codes = ", ".join(sorted({problem.code for one in left_out for problem in one.problems}))
        told = f"and {len(left_out)} more{f' ({codes})' if codes else ''}: noisegate demo --all"
        yield from (
            paint(line, "dim") for line in textwrap.wrap(told, width, initial_indent="  ", subsequent_indent="    ")
        )
    yield ""


def _title(title: str, number: int, style: str, paint: Paint) -> Iterator[str]:
    yield paint(f"{title} ({number})", style, "bold")


def _rank(one: Shown) -> tuple[int, int]:
    """Return what comes first: the most kinds of problems, then the folders that show most."""
    folder = one.example.document.source.partition("/")[0]
    kinds = {problem.code[:3] for problem in one.problems}
    return -len(kinds), _FOLDERS.index(folder) if folder in _FOLDERS else 0


def _topic(one: Shown) -> str:
    """Return what an object shows that others show too; empty where it stands for itself."""
    folder = one.example.document.source.partition("/")[0]
    kinds = {problem.code[:3] for problem in one.problems}
    if len(kinds) > 2 or (folder == "kinds" and one.given):
        return ""
    return min(kinds, default=folder)


def _one(one: Shown, paint: Paint, width: int) -> Iterator[str]:
    mark = paint(paint.good, "green", "bold") if one.allowed else paint(paint.bad, "red", "bold")
    yield f"{mark} {_name(one, paint)}"
    for problem in one.problems:
        text, hint = _parted(problem.text)
        path = problem.path.removeprefix(_ANNOTATION) or problem.path
        yield from _wrapped(f"{problem.code} {path}: {text}", problem.code, paint, "red", width)
        if hint:
            lines = textwrap.wrap(f"{paint.arrow} {hint}", width - 6, subsequent_indent="  ", break_long_words=False)
            yield from (f"      {paint(line, 'cyan')}" for line in lines)
    yield from _additions(one.given, paint, width)
    for warning in one.warnings:
        yield from _wrapped(f"warning {warning}", "warning", paint, "yellow", width)


def _parted(text: str) -> tuple[str, str]:
    """Part what is wrong from the mend in brackets at its end."""
    depth = 0
    for index in range(len(text) - 1, 0, -1) if text.endswith(")") else ():
        depth += {")": 1, "(": -1}.get(text[index], 0)
        if not depth:
            return text[:index].rstrip(), text[index + 1 : -1]
    return text, ""


def _additions(given: Sequence[str], paint: Paint, width: int) -> Iterator[str]:
    """Yield additions, as many to a line as have room."""
    line, length = "", 0
    for words in given:
        if line and length + len(words) + 4 > width - 4:
            yield f"    {line}"
            line, length = "", 0
        line += ("  " if line else "") + paint("+", "green", "bold") + " " + words
        length += len(words) + 4
    if line:
        yield f"    {line}"


def _wrapped(text: str, start: str, paint: Paint, style: str, width: int) -> Iterator[str]:
    flat = " ".join(text.split())
    lines = textwrap.wrap(flat, width - 6, break_long_words=False, break_on_hyphens=False)
    yield "    " + paint(start, style, "bold") + lines[0].removeprefix(start)
    yield from (f"      {line}" for line in lines[1:])


def _name(one: Shown, paint: Paint) -> str:
    document = one.example.document
    sent = {"create": "", "update": " (changed)", "validate": " (validated only)"}[one.example.expected.sent]
    name = f"{document.kind} {document.name}{sent}"
    return f"{paint(name, 'bold')}  {paint(f'{document.source}:{document.line}', 'dim')}"


def _summary(
    objects: Sequence[Shown], counts: tuple[int, int, int], wrong: int, seconds: Sequence[float], paint: Paint
) -> Iterator[str]:
    refused, given, plain = counts
    verdict = (
        paint(f"{wrong} NOT as promised", "red", "bold")
        if wrong
        else paint("all as their comments promise", "green", "bold")
    )
    yield (
        f"{paint(counted(len(objects), 'object'), 'bold')}: {refused} refused, {given} given what they need, "
        f"{plain} admitted as they are; {verdict}"
    )
    ordered = sorted(seconds)
    median, slow = statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    yield f"{counted(len(ordered), 'call')} over mutual TLS: median {median * 1000:.2f} ms, p99 {slow * 1000:.2f} ms"
