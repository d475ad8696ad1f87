"""`noisegate problems`, and docs/problems.md."""

import pkgutil
from collections.abc import Iterator
from importlib import import_module

import pytest
import yaml

import noisegate.isolation
import noisegate.webhook
from noisegate.__main__ import main
from noisegate.cli import problems
from noisegate.isolation.problems import Code


def _defined() -> Iterator[Code]:
    for package in (noisegate.isolation, noisegate.webhook):
        for module in pkgutil.iter_modules(package.__path__):
            yield from (
                value
                for value in vars(import_module(f"{package.__name__}.{module.name}")).values()
                if isinstance(value, Code)
            )


def test_every_code_is_told() -> None:
    """Each code that any module defines is in the table, once, in order."""
    assert list(problems.codes()) == sorted(set(_defined()))
    assert len({code.id for code in problems.codes()}) == len(problems.codes())
    assert len({code.name for code in problems.codes()}) == len(problems.codes())


@pytest.mark.parametrize("code", problems.codes(), ids=lambda code: code.id)
def test_every_code_is_whole(code: Code) -> None:
    """A code has a kind, a name, a sentence, an example in YAML and a mend: YAML, or a sentence in brackets."""
    assert code.id[2] in problems.KINDS
    assert code.about.endswith(".")
    yaml.safe_load(code.example)
    assert code.mend.startswith("(") == code.mend.endswith(")")
    if not code.mend.startswith("("):
        yaml.safe_load(code.mend)


def test_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a code each is listed on a line with its name and its first sentence."""
    code = main(["problems"])

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert [line.split()[:2] for line in lines] == [[code.id, code.name] for code in problems.codes()]
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize("word", ["NG503", "ng503", "cores-from-both-pools"])
def test_one_is_explained(capsys: pytest.CaptureFixture[str], word: str) -> None:
    """A code is found by its number, in any case, or its name, and told with example and mend."""
    code = main(["problems", word])

    out = capsys.readouterr().out
    assert code == 0
    assert out.startswith("NG503 cores-from-both-pools\n\n")
    assert "wrong or doubtful:\n\n  " in out
    assert "write instead:\n\n  " in out


def test_a_mend_in_words_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the mend is no YAML it is told in words."""
    main(["problems", "NG461", "NG462"])

    out = capsys.readouterr().out
    assert out.endswith("mend: create the NetworkAttachmentDefinition first\n")
    assert "\n\nNG462 " in out


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("NG999", 'there is no code "NG999"; did you mean '),
        (
            "cores-from-both-pool",
            'there is no code "cores-from-both-pool"; did you mean NG503 (cores-from-both-pools)?',
        ),
        ("?", 'there is no code "?"; all codes: noisegate problems'),
    ],
)
def test_an_unknown_one_is_a_mistake(capsys: pytest.CaptureFixture[str], word: str, told: str) -> None:
    """What is no code is refused, with the nearest one."""
    code = main(["problems", word])

    assert code == 2
    assert told in capsys.readouterr().err


def test_the_page_tells_every_code(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/problems.md has a row and a section for each code, in order, and every row leads to its section."""
    code = main(["problems", "--markdown"])

    page = capsys.readouterr().out
    assert code == 0
    assert page == problems.markdown()
    sections = [line.removeprefix("### ") for line in page.splitlines() if line.startswith("### ")]
    assert sections == [f"{code.id} {code.name}" for code in problems.codes()]
    for code_ in problems.codes():
        assert f"| [{code_.id}](#{code_.id.lower()}-{code_.name}) | {code_.name} | " in page
