"""The pods in the guides come out as the comments above them say."""

import re
import shutil
from pathlib import Path
from typing import Final

import pytest

from noisegate.__main__ import main

ROOT: Final = Path(__file__).parents[2]
EXAMPLES: Final = ROOT / "deploy" / "examples"
_BLOCK: Final = re.compile(r"^```yaml\n(# noisegate: .*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("guide", ["user-guide.md"])
def test_the_pods_of_a_guide_come_out_as_it_says(
    guide: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real server, with the settings of the examples, says to every object of a guide what the guide says."""
    blocks = _BLOCK.findall((ROOT / "docs" / guide).read_text())
    assert len(blocks) >= 7
    for number, block in enumerate(blocks):
        (tmp_path / f"{number:02}.yaml").write_text(block)
    for name in ("server.yaml", "classes.yaml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    shutil.copytree(EXAMPLES / "cluster", tmp_path / "cluster")

    assert main(["demo", "--all", "--examples", str(tmp_path)]) == 0, capsys.readouterr().out
