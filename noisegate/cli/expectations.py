"""What the comments in deploy/examples say must come of each object, and whether it did.

    # noisegate: admitted
    # noisegate: + env CMK_NUM_CORES=2 in app
    # noisegate: warns NG552

deploy/examples/README.md tells what may stand there. `noisegate demo` and the tests hold the server to it: `read` gives
the objects of a file with what is expected of each, `seen` what the server answered, `compare` the difference.
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from noisegate.cli import plainwords
from noisegate.service import manifests
from noisegate.service.manifests import ConfigError, Document, Fault

SETTINGS: Final = "server.yaml"
"""Name of the file of settings; the nearest one above an example is its own."""

Verdict = Literal["admitted", "refused", "none"]
Sent = Literal["create", "update", "validate"]


class Expectation(NamedTuple):
    """What must come of one object.

    Attributes:
        verdict: `none` where no comment says anything: it must then pass as it is.
        given: What it is given, in the words of `plainwords`, sorted.
        codes: Codes it is refused for, sorted.
        warned: Codes of its warnings, sorted.
        sent: How it is sent: `create`, as `kubectl apply` does it; `update`, as a change of the object above it in the
            file; `validate`, as another webhook left it after noisegate had added what it adds.
    """

    verdict: Verdict = "none"
    given: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()
    sent: Sent = "create"


class Example(NamedTuple):
    """One object and what must come of it.

    Attributes:
        document: The object.
        expected: What must come of it.
        before: The object that it is a change of, where it is sent as one.
    """

    document: Document
    expected: Expectation
    before: Document | None = None


class Seen(NamedTuple):
    """What the server answered.

    Attributes:
        allowed: Whether the object may pass.
        given: What the patch gives it, in the words of `plainwords`.
        codes: Codes of the problems it is refused for.
        warned: Codes of the warnings.
    """

    allowed: bool = True
    given: tuple[str, ...] = ()
    codes: frozenset[str] = frozenset()
    warned: frozenset[str] = frozenset()

    def then(self, later: "Seen") -> "Seen":
        """Return what this answer and a later one to the same object come to, as its user sees it."""
        return Seen(
            self.allowed and later.allowed,
            (*self.given, *later.given),
            self.codes | later.codes,
            self.warned | later.warned,
        )


def read(text: str | bytes, file: str) -> list[Example]:
    """Read the objects of a file and the comments directly above each.

    Raises:
        ConfigError: The file cannot be read as manifests, or a comment that begins with `# noisegate:` says something
            that has no meaning, says it twice, or stands above no object.
    """
    documents = manifests.read(text, file)
    lines = (text if isinstance(text, str) else text.decode()).split("\n")
    says = {
        number: match[1].strip()
        for number, line in enumerate(lines, 1)
        if (match := _COMMENT.fullmatch(line.rstrip("\r")))
    }
    faults: list[Fault] = []
    examples: list[Example] = []
    for document in documents:
        above = [(number, says.pop(number)) for number in _comments_above(lines, document.line) if number in says]
        expected = _expectation(above, file, faults)
        before = None
        if expected.sent == "update":
            if examples:
                before = examples[-1].document
            else:
                faults.append(
                    Fault(file, above[0][0], 0, "", "an update needs the object it changes above it in the file")
                )
        examples.append(Example(document, expected, before))
    faults += [Fault(file, number, 0, "", "this comment stands directly above no object") for number in says]
    if faults:
        raise ConfigError(sorted(faults, key=lambda fault: fault.line))
    return examples


def seen(response: Mapping[str, Any], sent: Mapping[str, Any]) -> Seen:
    """Return what the `response` of an AdmissionReview says of the object that was sent."""
    status = response.get("status") or {}
    causes = (status.get("details") or {}).get("causes") or ()
    return Seen(
        response["allowed"] is True,
        tuple(plainwords.describe(operations_of(response), sent)),
        _codes(cause.get("message", "") for cause in causes),
        _codes(response.get("warnings") or ()),
    )


def operations_of(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the patch in the `response` of an AdmissionReview; empty where there is none."""
    operations: list[dict[str, Any]] = json.loads(base64.b64decode(response.get("patch", "") or "W10="))
    return operations


def compare(expected: Expectation, happened: Seen) -> list[str]:
    """Return what came out otherwise than expected, in sentences without a full stop; empty where nothing did."""
    differences: list[str] = []
    refused = expected.verdict == "refused"
    if happened.allowed and refused:
        differences.append(f"it was admitted; it should be refused for {', '.join(expected.codes)}")
    elif not happened.allowed and not refused:
        differences.append(
            f"it was refused for {', '.join(sorted(happened.codes)) or 'no stated reason'}; it should be admitted"
        )
    elif refused:
        differences += _sides("it was not refused for {}", expected.codes, happened.codes)
        differences += _sides("it was refused for {} too", happened.codes, expected.codes)
    if happened.allowed and not refused:
        differences += _sides("it was not given {}", expected.given, happened.given)
        differences += _sides("it was given {} too", happened.given, expected.given)
    differences += _sides("it was not warned of {}", expected.warned, happened.warned)
    differences += _sides("it was warned of {} too", happened.warned, expected.warned)
    return differences


def settings_of(file: Path, root: Path) -> Path | None:
    """Return the nearest server.yaml in the folder of a file or in one above it, `root` being the last; None: defaults.

    What the cluster has (`cluster/`) and the rules are those that the settings name.
    """
    for folder in file.parents:
        if (folder / SETTINGS).is_file():
            return folder / SETTINGS
        if folder == root:
            break
    return None


_COMMENT: Final = re.compile(r"\s*#+\s*noisegate:(.*)")
_CODE: Final = re.compile(r"NG[0-9]{3}")
_VERDICTS: Final = frozenset({"admitted", "refused"})
_WAYS: Final = frozenset({"update", "validate"})
_WORDS: Final = {word: words for words in (_VERDICTS, _WAYS, frozenset({"warns"})) for word in words}
_WITH_CODES: Final = frozenset({"refused", "warns"})
_ALLOWED: Final = "allowed: admitted, refused CODE..., + WHAT IT IS GIVEN, warns CODE..., update, validate"


def _comments_above(lines: Sequence[str], line: int) -> list[int]:
    """Return the numbers of the comment lines that stand directly above a line, counted from 1, blank lines between."""
    number = line - 1
    while number and (not lines[number - 1].strip() or lines[number - 1].lstrip().startswith("#")):
        number -= 1
    return list(range(number + 1, line))


def _expectation(says: Sequence[tuple[int, str]], file: str, faults: list[Fault]) -> Expectation:
    given: list[str] = []
    said: dict[str, tuple[str, ...]] = {}
    wrong: list[Fault] = []
    for number, text in says:
        word, _, rest = text.partition(" ")
        rest = rest.strip()
        codes = tuple(sorted(rest.replace(",", " ").split()))
        if word == "+" and rest:
            given.append(rest)
        elif word not in _WORDS or bool(codes) != (word in _WITH_CODES) or not all(map(_CODE.fullmatch, codes)):
            wrong.append(Fault(file, number, 0, "", f'"{text}" has no meaning; {_ALLOWED}'))
        elif len(set(codes)) < len(codes):
            wrong.append(Fault(file, number, 0, "", f"{word} names a code twice", "name each code once"))
        elif not said.keys().isdisjoint(_WORDS[word]):
            told = " or ".join(sorted(_WORDS[word]))
            wrong.append(Fault(file, number, 0, "", f"{told} stands above this object already", "keep one line"))
        else:
            said[word] = codes
    if says and not wrong:
        if said.keys().isdisjoint(_VERDICTS):
            hint = "add admitted, or refused and its codes"
            wrong.append(Fault(file, says[0][0], 0, "", "neither admitted nor refused is said of this object", hint))
        elif "refused" in said and given:
            hint = "leave out the lines with +"
            wrong.append(Fault(file, says[0][0], 0, "", "an object that is refused is given nothing", hint))
    faults += wrong
    return Expectation(
        "admitted" if "admitted" in said else "refused" if "refused" in said else "none",
        tuple(sorted(given)),
        said.get("refused", ()),
        said.get("warns", ()),
        "update" if "update" in said else "validate" if "validate" in said else "create",
    )


def _codes(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(match[0] for match in map(_CODE.match, texts) if match)


def _sides(told: str, some: Iterable[str], others: Iterable[str]) -> list[str]:
    return [told.format(one) for one in sorted((Counter(some) - Counter(others)).elements())]
