"""A node in a folder with its enforcer; and what the tests of faults have counted, in one line at the end."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from enforcerlab import Lab

from noisegate.enforcement.enforcer import Enforcer

_TALLY: Final[pytest.StashKey[Counter[str]]] = pytest.StashKey()


@pytest.fixture(name="lab")
def _lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture(name="enforcer")
async def _enforcer(lab: Lab) -> AsyncIterator[Enforcer]:
    one = lab.enforcer()
    yield one
    await one.close()


@pytest.fixture(name="tally")
def _tally(request: pytest.FixtureRequest) -> Counter[str]:
    """Give what has been counted in this run, to be added to."""
    return request.config.stash.setdefault(_TALLY, Counter())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the line."""
    tally = config.stash.get(_TALLY, Counter())
    if tally:
        told = ", ".join(f"{number} {what}" for what, number in tally.items())
        terminalreporter.write_line(f"the enforcer's faults: {told}")
