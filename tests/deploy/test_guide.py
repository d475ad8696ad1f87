"""The guides name what there is."""

import re
from pathlib import Path
from typing import Final

import pytest

from noisegate.webhook import registration

DOCS: Final = Path(__file__).parents[2] / "docs"
GUIDE: Final = (DOCS / "operators-guide.md").read_text()


def test_the_table_of_entries_has_each_of_them_once() -> None:
    """By its name in the validating configuration, which has them all; of those in warn mode, how they are named."""
    _, names = registration.entry_names()
    rows = re.findall(r"^\| `([a-z.]+\.noisegate\.io)`", GUIDE, re.MULTILINE)
    assert sorted(rows) == sorted([*(name for name in names if ".warn." not in name), "pods.warn.noisegate.io"])
    assert "pods.warn.noisegate.io" in names


def test_the_namespaces_that_are_left_out_are_named() -> None:
    """All of them, in one sentence."""
    (sentence,) = re.findall(r"^(`[^.]*) are left out\.$", GUIDE, re.MULTILINE)
    assert sorted(re.findall("`([a-z-]+)`", sentence)) == sorted(registration.EXCLUDED)


@pytest.mark.parametrize("path", sorted(DOCS.glob("*-guide.md")), ids=lambda path: str(path.stem))
def test_links_lead_somewhere(path: Path) -> None:
    """To files of the project, and to headings of the guides."""
    targets = re.findall(r"\]\(([^)]+)\)", path.read_text())
    for target in targets:
        name, _, heading = target.partition("#")
        file = (DOCS / name) if name else path
        assert file.exists(), target
        assert not heading or heading in _headings(file), target


def _headings(path: Path) -> set[str]:
    lines = re.findall("^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub("[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in lines}
