"""Kubernetes quantities, exactly."""

from fractions import Fraction

import pytest

from noisegate.isolation import quantity
from noisegate.isolation.quantity import NotAQuantityError, NotWholeError

NO_QUANTITY = "is not a quantity: a number, then nothing, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi or Ei"
TOO_LARGE = "is larger than 2^63-1"
TOO_FINE = "is finer than 1n, a billionth"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("-0.0", 0),
        ("0e999999999", 0),
        ("50Mi", 52428800),
        ("+50Mi", 52428800),
        ("-5Mi", -5242880),
        ("50M", 50000000),
        ("50k", 50000),
        ("1.5Mi", 1572864),
        ("0.5Gi", 536870912),
        (".5Gi", 536870912),
        ("5.", 5),
        ("1.5G", 1500000000),
        ("100Ti", 109951162777600),
        ("7Pi", 7 << 50),
        ("7Ei", 7 << 60),
        ("9P", 9 * 10**15),
        ("2T", 2 * 10**12),
        ("1E", 10**18),
        ("1E3", 1000),
        ("5e7", 50000000),
        ("1e+3", 1000),
        ("1500e-3", Fraction(3, 2)),
        ("1500000e-6", Fraction(3, 2)),
        ("1e0000000000000000003", 1000),
        ("50m", Fraction(1, 20)),
        ("2000m", 2),
        ("250u", Fraction(1, 4000)),
        ("1n", Fraction(1, 10**9)),
        ("0.1Ki", Fraction(1024, 10)),
        ("9223372036854775807", (1 << 63) - 1),
        ("-9223372036854775807", 1 - (1 << 63)),
        ("0" * 63 + "7", 7),
    ],
)
def test_exact_values(text: str, expected: int | Fraction) -> None:
    """A quantity has its exact value, and a whole one is an int."""
    value = quantity.parse(text)
    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", NO_QUANTITY),
        (".", NO_QUANTITY),
        ("+", NO_QUANTITY),
        ("--1", NO_QUANTITY),
        ("1.2.3", NO_QUANTITY),
        ("max", NO_QUANTITY),
        ("50MB", NO_QUANTITY),
        ("50MiB", NO_QUANTITY),
        ("50mi", NO_QUANTITY),
        ("50K", NO_QUANTITY),
        ("1e", NO_QUANTITY),
        ("1e3M", NO_QUANTITY),
        ("1e3Mi", NO_QUANTITY),
        ("1e1.5", NO_QUANTITY),
        ("0x10", NO_QUANTITY),
        ("1_000", NO_QUANTITY),
        (" 50Mi", NO_QUANTITY),
        ("50Mi\n", NO_QUANTITY),
        ("50 Mi", NO_QUANTITY),
        ("٣", NO_QUANTITY),
        ("inf", NO_QUANTITY),
        ("9223372036854775808", TOO_LARGE),
        ("-9223372036854775808", TOO_LARGE),
        ("8Ei", TOO_LARGE),
        ("1e19", TOO_LARGE),
        ("1e999999999", TOO_LARGE),
        ("-1e99999999999999999999", TOO_LARGE),
        ("1.5n", TOO_FINE),
        ("1e-10", TOO_FINE),
        ("1e-999999999", TOO_FINE),
        ("0.0000000001", TOO_FINE),
        ("1" * 65, "is longer than 64 characters"),
    ],
)
def test_refused(text: str, why: str) -> None:
    """What is no quantity is refused with the reason."""
    with pytest.raises(NotAQuantityError) as caught:
        quantity.parse(text)
    assert str(caught.value) == why


@pytest.mark.parametrize("text", ["0", "-1", "50m", "1.5", "-5Mi"])
def test_not_whole(text: str) -> None:
    """Zero, negative values and fractions are quantities, but not whole and positive."""
    with pytest.raises(NotWholeError) as caught:
        quantity.whole(text)
    assert str(caught.value) == "is not a whole, positive number"


def test_whole() -> None:
    """A whole, positive quantity is an int, however it is spelt."""
    assert [quantity.whole(text) for text in ("1.5Mi", "2000m", "5e7", "1")] == [1572864, 2, 50000000, 1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (1, "1"),
        (999, "999"),
        (1000, "1k"),
        (1024, "1Ki"),
        (1024000, "1024k"),
        (52428800, "50Mi"),
        (-52428800, "-50Mi"),
        (50000000, "50M"),
        (1 << 63, "8Ei"),
        (Fraction(1, 20), "50m"),
        (Fraction(-3, 2), "-1500m"),
        (Fraction(1, 4000), "250u"),
        (Fraction(1, 10**9), "1n"),
        (Fraction(4, 2), "2"),
    ],
)
def test_format(value: int | Fraction, expected: str) -> None:
    """A value is written as short as it can be."""
    assert quantity.format(value) == expected


def test_format_too_fine() -> None:
    """What no quantity can say is not written."""
    with pytest.raises(ValueError, match="no quantity has the value 1/3"):
        quantity.format(Fraction(1, 3))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50MB", "50M"),
        ("50MiB", "50Mi"),
        ("50mi", "50Mi"),
        ("50K", "50k"),
        ("50ki", "50Ki"),
        ("50g", "50G"),
        ("50m", "50M"),
        ("50Mbps", "50M"),
        ("50Mbit", "50M"),
        ("50Mbit/s", "50M"),
        ("50MB/s", "50M"),
        ("50 Mi", "50Mi"),
        (" 50Mi\n", "50Mi"),
        ("50B", "50"),
        ("1e3M", "1000M"),
        ("-5MB", "-5M"),
        ("50Mi", ""),
        ("max", ""),
        ("", ""),
        ("0x10", ""),
        ("50i", ""),
        ("٣", ""),
        ("1.5e0M", ""),
        ("1e400M", ""),
        ("9e18k", ""),
        ("1" * 63 + "MB", ""),
    ],
)
def test_suggestions(text: str, expected: str) -> None:
    """What is obviously meant is suggested, and nothing else."""
    assert quantity.suggest(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("2", 2),
        (2, 2),
        ("2000m", 2),
        ("1k", 1000),
        ("65536", 65536),
        ("65537", None),
        ("-1", None),
        ("1.5", None),
        (1.5, None),
        ("x", None),
    ],
)
def test_count(value: str | float, expected: int | None) -> None:
    """Things are counted in whole numbers, up to a most."""
    assert quantity.count(value, 65536) == expected
