"""Colour for a terminal, and plain text for everything else."""

import sys
from collections.abc import Mapping
from typing import Final, Literal, TextIO

Choice = Literal["auto", "always", "never"]
CHOICES: Final[tuple[Choice, ...]] = ("auto", "always", "never")

_CODES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def wants_colour(choice: str, stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether to colour: as chosen, else on a terminal, unless NO_COLOR is set or the terminal is dumb.

    NO_COLOR counts when it is not empty (https://no-color.org).
    """
    if choice != "auto":
        return choice == "always"
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


class Paint:
    """Colours text, or leaves it.

    Args:
        colour: Whether to colour.
        encoding: Of the output; marks that it cannot hold are replaced by ASCII.
    """

    def __init__(self, colour: bool, encoding: str = "utf-8") -> None:
        self._colour = colour
        try:
            "✓✗→·".encode(encoding)
        except (UnicodeEncodeError, LookupError):
            self.good, self.bad, self.arrow, self.dot = "ok", "REFUSED", "->", "-"
        else:
            self.good, self.bad, self.arrow, self.dot = "✓", "✗", "→", "·"

    @classmethod
    def of(cls, choice: str, stream: TextIO, environ: Mapping[str, str]) -> "Paint":
        """Return the paint that fits a stream."""
        return cls(wants_colour(choice, stream, environ), stream.encoding or sys.getdefaultencoding())

    def __call__(self, text: str, *styles: str) -> str:
        """Return the text in styles: bold, dim, red, green, yellow, cyan."""
        if not self._colour or not text:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"
