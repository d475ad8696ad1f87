"""Laws of quantities."""

from contextlib import suppress
from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from noisegate.isolation import quantity
from noisegate.isolation.quantity import LARGEST, NotAQuantityError, NotWholeError

NANO = 10**9
VALUES = st.one_of(
    st.integers(-LARGEST, LARGEST),
    st.integers(-LARGEST * NANO, LARGEST * NANO).map(lambda number: Fraction(number, NANO)),
    st.builds(lambda number, shift: number << shift, st.integers(0, 7), st.integers(0, 60)),
)
MULTIPLES = {"n": Fraction(1, NANO), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1)}
MULTIPLES |= {suffix: Fraction(1000 ** (n + 1)) for n, suffix in enumerate("kMGTPE")}
MULTIPLES |= {f"{suffix}i": Fraction(1024 ** (n + 1)) for n, suffix in enumerate("KMGTPE")}
NEARLY = st.text(alphabet="0123456789.+-eEinumkKMGTPE/bps ٣\n", max_size=70)


@given(VALUES)
def test_round_trip(value: int | Fraction) -> None:
    """What is written is read as the same value, and writing it again gives the same text."""
    text = quantity.format(value)
    assert quantity.parse(text) == value
    assert quantity.format(quantity.parse(text)) == text
    assert len(text) <= quantity.LONGEST


@given(st.integers(0, 10**12), st.integers(0, 9), st.sampled_from(sorted(MULTIPLES)))
def test_exact(digits: int, places: int, suffix: str) -> None:
    """A decimal number with a suffix has exactly the value of the two multiplied."""
    text = str(digits).rjust(places + 1, "0")
    number = f"{text[: len(text) - places]}.{text[len(text) - places :]}{suffix}"
    expected = Fraction(digits, 10**places) * MULTIPLES[suffix]
    in_range = expected <= LARGEST and not NANO % expected.denominator
    try:
        value: int | Fraction | None = quantity.parse(number)
    except NotAQuantityError:
        value = None
    assert value == (expected if in_range else None)


@given(st.text() | NEARLY)
@example("1e999999999")
@example("1e-999999999")
@example("-0e99999999999999999999999999999999999999")
def test_any_text(text: str) -> None:
    """Any text is a quantity in range or refused, and whole values are those that are whole."""
    value: int | Fraction | None = None
    with suppress(NotAQuantityError):
        value = quantity.parse(text)
    assert value is None or -LARGEST <= value <= LARGEST
    try:
        number: int | None = quantity.whole(text)
    except (NotAQuantityError, NotWholeError):
        number = None
    is_whole = value is not None and value > 0 and value.denominator == 1
    assert number == (value if is_whole else None)


@given(st.text() | NEARLY)
def test_any_suggestion(text: str) -> None:
    """A suggestion is a quantity, and not what stands there already."""
    suggestion = quantity.suggest(text)
    if suggestion:
        quantity.parse(suggestion)
        assert suggestion != text


@given(VALUES, st.sampled_from(["B", "b", "bps", "bit", "/s", "Bps", "bit/s"]))
def test_unit_words(value: int | Fraction, word: str) -> None:
    """A unit word behind a whole quantity is seen through."""
    text = quantity.format(value)
    with suppress(NotAQuantityError, NotWholeError):
        number = quantity.whole(text)
        suggestion = quantity.suggest(f"{text}{word}")
        assert not suggestion or quantity.whole(suggestion) == number
        assert suggestion or "E" in text
