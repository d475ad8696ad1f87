"""What the tests of faults have counted, in one line at the end."""

from collections import Counter
from typing import Final

import pytest

_TALLY: Final[pytest.StashKey[Counter[str]]] = pytest.StashKey()


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
