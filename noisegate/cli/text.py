"""Verdicts for a reader: what is refused, where and why and the mend; what is admitted and with what."""

from collections.abc import Iterator, Sequence

from noisegate.cli.diff import hunks
from noisegate.cli.offline import Verdict
from noisegate.cli.paint import Paint
from noisegate.isolation.problems import Problem, shown

_SIGNS = {"+": "green", "-": "red", " ": "dim"}


def report(verdicts: Sequence[Verdict], passed_by: int, paint: Paint) -> Iterator[str]:
    """Yield the lines of a report.

    Args:
        verdicts: In the order of the input.
        passed_by: Number of objects of other kinds.
        paint: How to colour.
    """
    for verdict in verdicts:
        yield _head(verdict, paint)
        for problem in verdict.problems:
            yield from told(problem, verdict, paint, "red")
        for doubt in verdict.doubts:
            yield from told(doubt, verdict, paint, "yellow")
        if verdict.patch:
            for hunk in hunks(verdict.before, verdict.after):
                yield "    " + paint(f"@@ {shown(hunk.path)} @@", "cyan")
                for line in hunk.lines:
                    yield "    " + paint(_printable(line), _SIGNS[line[0]])
    if verdicts:
        yield ""
    yield summary(verdicts, passed_by, paint)


def told(problem: Problem, verdict: Verdict, paint: Paint, style: str) -> Iterator[str]:
    """Yield the lines of one problem: code and place, what is wrong, the mend."""
    line = f"{verdict.document.source}:{verdict.line_of(problem.path)}"
    mark = "" if style == "red" else "warning "
    place = f" {shown(problem.path)}" if problem.path else ""
    yield f"    {paint(mark + problem.code, style, 'bold')} {paint(line, 'dim')}{place}"
    value = f'"{problem.value}": ' if problem.value and problem.value not in problem.message else ""
    for text in _printable(value + problem.message).splitlines():
        yield f"      {text}"
    if problem.hint:
        yield f"      {paint(f'{paint.arrow} {_printable(problem.hint)}', 'cyan')}"


def summary(verdicts: Sequence[Verdict], passed_by: int, paint: Paint) -> str:
    """Return the last line: how many objects were admitted, changed, refused, and passed by."""
    refused = [verdict for verdict in verdicts if not verdict.allowed]
    changed = sum(bool(verdict.patch) for verdict in verdicts)
    doubts = sum(len(verdict.doubts) for verdict in verdicts)
    parts = [counted(len(verdicts), "object") + " checked"]
    if refused:
        problems = sum(len(verdict.problems) for verdict in refused)
        parts.append(paint(f"{len(refused)} refused ({counted(problems, 'problem')})", "red", "bold"))
    elif verdicts:
        parts.append(paint("all admitted", "green", "bold"))
    if changed:
        parts.append(f"{changed} with additions")
    if doubts:
        parts.append(paint(counted(doubts, "warning"), "yellow"))
    if passed_by:
        parts.append(f"{passed_by} of other kinds passed by")
    return ", ".join(parts)


def counted(number: int, thing: str) -> str:
    """Return a number with its noun: `1 problem`, `2 problems`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _head(verdict: Verdict, paint: Paint) -> str:
    mark = paint(paint.good, "green", "bold") if verdict.allowed else paint(paint.bad, "red", "bold")
    name = shown(f"{verdict.namespace}/{verdict.name}")
    return f"{mark} {verdict.document.kind} {paint(name, 'bold')}  {paint(shown(verdict.source), 'dim')}"


def _printable(text: str) -> str:
    """Return a text that cannot steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
