"""Kubernetes quantities, computed exactly: `50Mi`, `1.5G`, `5e7`, `250m`.

Grammar and suffixes are those of `resource.Quantity` (k8s.io/apimachinery). Two things differ on purpose, so that what
is written is what is meant: a magnitude above 2^63-1 is refused where Kubernetes caps it, and a value finer than 1n is
refused where Kubernetes rounds it up.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Final

from noisegate.isolation.problems import Code

BAD_QUANTITY: Final = Code(
    "NG006",
    "bad-quantity",
    "The value is no Kubernetes quantity, or no value of those that are allowed here.",
    'networkio.kubernetes.io/resources: \'{"limits": {"egress": "50Mbps"}}\'',
    'networkio.kubernetes.io/resources: \'{"limits": {"egress": "50M"}}\'',
)
NOT_WHOLE: Final = Code(
    "NG007",
    "not-whole-positive",
    "The value is zero, negative or a fraction of a base unit. `m` is a thousandth, `M` a million.",
    'networkio.kubernetes.io/resources: \'{"limits": {"egress": "50m"}}\'',
    'networkio.kubernetes.io/resources: \'{"limits": {"egress": "50M"}}\'',
)
CODES: Final = (BAD_QUANTITY, NOT_WHOLE)

LARGEST: Final = (1 << 63) - 1
"""Largest magnitude of a quantity, as in Kubernetes."""
LONGEST: Final = 64
"""Most characters of a quantity. Every value has a spelling that is much shorter."""

_BINARY: Final = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60}
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_WHOLE_UNITS: Final = tuple((s, 10 ** _DECIMAL[s]) for s in "EPTGMk") + tuple(reversed(_BINARY.items()))
_QUANTITY: Final = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:([KMGTPE]i)|[eE]([+-]?[0-9]+)|([numkMGTPE]?))")
# What people write instead: blanks, a lower-case or upper-case letter, a unit word, "per second".
_MISSPELT: Final = re.compile(
    r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:e([+-]?[0-9]{1,3}))?([kmgtp]?i?)(?:b|bit|byte)?s?(?:ps|/s|/sec)?",
    re.IGNORECASE | re.ASCII,
)
_GRAMMAR: Final = "is not a quantity: a number, then nothing, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi or Ei"


class NotAQuantityError(ValueError):
    """A text that is no quantity. Its argument says why, as the rest of a sentence that begins with the text."""


class NotWholeError(ValueError):
    """A quantity that is not a whole, positive number of base units."""


@lru_cache(maxsize=1024)
def parse(text: str) -> int | Fraction:
    """Return the exact value of a quantity: an int where it is whole, else a Fraction of at most nine decimals.

    Raises:
        NotAQuantityError: The text is no quantity, or its value is out of range.
    """
    if len(text) > LONGEST:
        msg = f"is longer than {LONGEST} characters"
        raise NotAQuantityError(msg)
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise NotAQuantityError(_GRAMMAR)
    sign, whole_digits, point_digits, binary, exponent, decimal = match.groups()
    point_digits = point_digits or ""
    digits = whole_digits + point_digits
    if not digits:
        raise NotAQuantityError(_GRAMMAR)
    number = int(digits)
    if not number:
        return 0
    if sign == "-":
        number = -number
    if binary:
        number *= _BINARY[binary]
        power = -len(point_digits)
    else:
        power = (int(exponent) if exponent else _DECIMAL[decimal]) - len(point_digits)
    # A number that is not zero has at least one digit and at most LONGEST: beyond these powers nothing is in range.
    if power > 19:
        raise NotAQuantityError("is larger than 2^63-1")
    if power < -LONGEST - 9:
        raise NotAQuantityError("is finer than 1n, a billionth")
    value: int | Fraction = number * 10**power if power >= 0 else Fraction(number, 10**-power)
    if not -LARGEST <= value <= LARGEST:
        raise NotAQuantityError("is larger than 2^63-1")
    if value.denominator == 1:
        return int(value)
    if 10**9 % value.denominator:
        raise NotAQuantityError("is finer than 1n, a billionth")
    return value


@lru_cache(maxsize=1024)
def whole(text: str) -> int:
    """Return the value of a quantity that must be a whole, positive number of base units.

    Raises:
        NotAQuantityError: The text is no quantity.
        NotWholeError: Its value is zero, negative or a fraction.
    """
    value = parse(text)
    if isinstance(value, Fraction) or value <= 0:
        raise NotWholeError("is not a whole, positive number")
    return value


def count(value: str | float, most: int) -> int | None:
    """Return a quantity that counts things (cores, devices), or None where it is no whole number from 0 to `most`."""
    if isinstance(value, str) and len(value) <= 5 and value.isascii() and value.isdigit():
        number = int(value)
    else:
        try:
            exact = parse(str(value))
        except NotAQuantityError:
            return None
        if isinstance(exact, Fraction):
            return None
        number = exact
    return number if 0 <= number <= most else None


def format(value: int | Fraction) -> str:  # noqa: A001  (the counterpart of parse; used as quantity.format)
    """Return the shortest quantity of this value, so that `parse(format(x)) == x`; of equals, the decimal one.

    A value out of range is written all the same, as a text that `parse` refuses.

    Raises:
        ValueError: The value is finer than 1n.
    """
    value = Fraction(value)
    if 10**9 % value.denominator:
        msg = f"no quantity has the value {value}"
        raise ValueError(msg)
    if value.denominator != 1:
        unit = next(s for s in "mun" if (value * 10 ** -_DECIMAL[s]).denominator == 1)
        return f"{value * 10 ** -_DECIMAL[unit]}{unit}"
    number = int(value)
    if not number:
        return "0"
    spellings = [f"{number // size}{suffix}" for suffix, size in _WHOLE_UNITS if number % size == 0]
    return min([*spellings, str(number)], key=len)


def suggest(text: str) -> str:
    """Return the quantity that a text was obviously meant to be, such as `50Mi` for `50 MiB`; else an empty string."""
    if len(text) > LONGEST:
        return ""
    match = _MISSPELT.fullmatch("".join(text.split()))
    if match is None:
        return ""
    number, exponent, letters = match.groups()
    letters = letters.capitalize() if len(letters) == 2 else letters.upper().replace("K", "k")
    meant = number + letters
    try:
        if exponent:
            meant = str(parse(f"{number}e{exponent}")) + letters
        parse(meant)
    except NotAQuantityError:
        return ""
    return "" if meant == text else meant
