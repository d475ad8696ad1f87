"""What was asked for and what was measured, as one table at the end of a run."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final, NamedTuple


class Unit(NamedTuple):
    """How a quantity is written.

    Attributes:
        name: As the table shows it.
        one: In base units.
    """

    name: str
    one: float


MIBS: Final = Unit("MiB/s", 1 << 20)
OPERATIONS: Final = Unit("op/s", 1)
MBITS: Final = Unit("Mbit/s", 1e6)
SECONDS: Final = Unit("s", 1)


class Row(NamedTuple):
    """One measurement, in base units (bytes, operations or bits per second; seconds).

    Attributes:
        group: Rows of one group stand together.
        what: Is measured.
        unit: It is written in.
        asked: The limit.
        measured: What came of it.
        within: Share of `asked` by which it may be off; None: it is shown, not judged.
        short: Share by which it may fall short; None: as `within`.
        note: What else is to be said.
    """

    group: str
    what: str
    unit: Unit
    asked: float
    measured: float
    within: float | None = None
    short: float | None = None
    note: str = ""

    @property
    def off(self) -> float:
        """By which share of what was asked it is off."""
        return self.measured / self.asked - 1

    @property
    def holds(self) -> bool:
        """Whether it is as near as it must be."""
        short = self.within if self.short is None else self.short
        return self.within is None or short is None or -short <= self.off <= self.within

    def __str__(self) -> str:
        """Write it as a line of the table."""
        asked, measured = (f"{value / self.unit.one:10.2f}" for value in (self.asked, self.measured))
        judged = "" if self.within is None else f"{self.off:+7.1%} of {self.within:.0%}{'' if self.holds else '  OFF'}"
        return f"  {self.what:<52}{self.unit.name:<7}{asked}{measured}  {judged:<18}{self.note}".rstrip()


def lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the table's lines: a head for each group, in the order in which groups came first."""
    there = list(rows)
    order = {group: place for place, group in enumerate(dict.fromkeys(row.group for row in there))}
    for group, those in groupby(sorted(there, key=lambda row: order[row.group]), key=lambda row: row.group):
        yield f"{group:<61}{'asked':>10}{'measured':>10}"
        yield from map(str, those)
