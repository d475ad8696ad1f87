"""What an errno says to a user."""

import errno
import re

import pytest

from noisegate.enforcement.kernel.errors import IO, MEANINGS, meaning, refusal

ROWS = [(interface, number) for interface, rows in MEANINGS.items() for number in rows]


@pytest.mark.parametrize(("interface", "number"), ROWS)
def test_every_row_reads_as_a_sentence(interface: str, number: int) -> None:
    """One CamelCase word, a clause without a full stop, on one line; the errno is named once."""
    found = refusal(interface, number, "8:1 rbps=1 cannot be written into /a/io.max")
    assert re.fullmatch(r"([A-Z][a-z]+)+", found.reason)
    assert found.told.startswith("8:1 rbps=1 cannot be written into /a/io.max: ")
    assert found.told.endswith(f"({errno.errorcode[number]})")
    assert str(found).isprintable()
    assert not found.told.endswith(".")
    assert not found.mend.endswith(".")


def test_an_interface_goes_before_the_number_alone() -> None:
    """ENODEV is a device's for io.max; EROFS is the same for all; what nobody knows is told in the C library's words."""
    assert meaning(IO, errno.ENODEV).reason == "DeviceNotThrottled"
    assert meaning(IO, errno.EROFS) == meaning("", errno.EROFS) == meaning("unheard of", errno.EROFS)
    assert meaning(IO, errno.EXDEV) == ("KernelRefused", "Invalid cross-device link", "")


def test_a_number_that_is_no_errno() -> None:
    """It is told as it stands."""
    assert refusal(IO, 4000, "x").told == "x: Unknown error 4000 (4000)"
