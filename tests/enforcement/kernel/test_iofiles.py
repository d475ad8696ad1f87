"""The text of io.max and io.stat."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisegate.enforcement.actions import UNLIMITED, Device, IoLimits
from noisegate.enforcement.kernel.iofiles import IoCounters, line, parse_counters, parse_limits

SDA = Device(8, 0)


def test_one_write_says_everything() -> None:
    """One device and all four keys: a key that is left out would keep what it had."""
    assert line(SDA, IoLimits(1, None, 3, None)) == "8:0 rbps=1 wbps=max riops=3 wiops=max"
    assert line(SDA, UNLIMITED) == "8:0 rbps=max wbps=max riops=max wiops=max"


@given(
    st.dictionaries(
        st.builds(Device, st.integers(0, 4095), st.integers(0, 1 << 20)),
        st.builds(IoLimits, *[st.none() | st.integers(0, 1 << 64)] * 4),
    )
)
def test_limits_are_read_as_they_are_written(limits: dict[Device, IoLimits]) -> None:
    """A text of such lines says the same again; a zero that some kernels show is no `max`."""
    assert parse_limits("".join(line(device, one) + "\n" for device, one in limits.items())) == limits


def test_counters() -> None:
    """Keys that are not known are passed by, and devices without any, which older kernels write in one line."""
    text = "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6 cost.usage=7\n253:0 7:0 8:16 rbytes=9\n"
    assert parse_counters(text) == {
        SDA: IoCounters(1, 2, 3, 4),
        Device(253, 0): IoCounters(),
        Device(7, 0): IoCounters(),
        Device(8, 16): IoCounters(rbytes=9),
    }
    assert parse_counters("") == {}


@pytest.mark.parametrize("text", ["junk", "8:0 rbps", "rbps=1 wbps=2", "8:0 rbps=fast", "8:0:1 rbps=1"])
def test_another_text(text: str) -> None:
    """What is not of the io controller is refused, never half read."""
    with pytest.raises(ValueError, match=r"not a line|invalid literal"):
        parse_limits(text)
