"""Verdicts for programs: JSON, YAML, JUnit's XML, and the commands that GitHub turns into annotations."""

import html
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from noisegate.cli import diff
from noisegate.cli.offline import Verdict
from noisegate.isolation.problems import Problem

# XML 1.0 has no form for these at all (https://www.w3.org/TR/xml/#charsets).
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SUITE: Final = "noisegate check"


def results(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the verdicts as JSON values."""
    return {"results": [_result(verdict) for verdict in verdicts]}


def _result(verdict: Verdict) -> dict[str, Any]:
    return {
        "source": verdict.source,
        "kind": verdict.document.kind,
        "namespace": verdict.namespace,
        "name": verdict.name,
        "allowed": verdict.allowed,
        "problems": [problem._asdict() for problem in verdict.problems],
        "warnings": list(verdict.warnings),
        "patch": list(verdict.patch),
    }


def as_json(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as JSON."""
    return json.dumps(results(verdicts), indent=2)


def as_yaml(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as YAML."""
    return diff.text(results(verdicts)).rstrip("\n")


def as_junit(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as one test suite with a test case for each object; warnings are its output."""
    refused = sum(not verdict.allowed for verdict in verdicts)
    counts = f'tests="{len(verdicts)}" failures="{refused}" errors="0" skipped="0"'
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<testsuites name="{_SUITE}" {counts}>',
            f'  <testsuite name="{_SUITE}" {counts}>',
            *(line for verdict in verdicts for line in _test_case(verdict)),
            "  </testsuite>",
            "</testsuites>",
        ]
    )


def _test_case(verdict: Verdict) -> Iterator[str]:
    document = verdict.document
    name = f"{document.kind} {verdict.namespace}/{verdict.name}"
    head = (
        f'    <testcase classname="{_xml(document.source)}" name="{_xml(name)}"'
        f' file="{_xml(document.source)}" line="{document.line}"'
    )
    if verdict.allowed and not verdict.warnings:
        yield f"{head}/>"
        return
    yield f"{head}>"
    if not verdict.allowed:
        codes = ", ".join(sorted({problem.code for problem in verdict.problems}))
        text = "\n".join(
            f"{document.source}:{verdict.line_of(problem.path)}: {problem}" for problem in verdict.problems
        )
        yield f'      <failure type="{codes}" message="{_xml(str(verdict.problems[0]))}">{_xml(text)}</failure>'
    if verdict.warnings:
        yield f"      <system-out>{_xml(chr(10).join(verdict.warnings))}</system-out>"
    yield "    </testcase>"


def _xml(text: str) -> str:
    return html.escape(_NO_XML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)).replace("\n", "&#10;")


def as_github(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as workflow commands: an annotation of the line for each problem and each warning.

    https://docs.github.com/actions/reference/workflow-commands-for-github-actions
    """
    return "\n".join(
        _command(level, verdict, problem)
        for verdict in verdicts
        for level, told in (("error", verdict.problems), ("warning", verdict.doubts))
        for problem in told
    )


def _command(level: str, verdict: Verdict, problem: Problem) -> str:
    file = _property(verdict.document.source)
    where = f"{verdict.document.kind} {verdict.namespace}/{verdict.name}: {problem.path}"
    message = _data(f"{where}: {problem.told}")
    return f"::{level} file={file},line={verdict.line_of(problem.path)},title={_property(problem.code)}::{message}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
