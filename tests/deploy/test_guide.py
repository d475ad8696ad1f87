"""The operator's guide names what there is."""

import re
from pathlib import Path
from typing import Final

from noisegate.webhook import registration

GUIDE: Final = (Path(__file__).parents[2] / "docs" / "operators-guide.md").read_text()


def test_the_table_of_entries_has_each_of_them_once() -> None:
    """By its name in the validating configuration, which has them all; of those in warn mode, how they are named."""
    _, names = registration.entry_names()
    rows = re.findall(r"^\| `([a-z.]+\.noisegate\.io)`", GUIDE, re.MULTILINE)
    assert sorted(rows) == sorted([*(name for name in names if ".warn." not in name), "pods.warn.noisegate.io"])
    assert "pods.warn.noisegate.io" in names
