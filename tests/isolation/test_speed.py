"""Bytes per second and block size of a disk."""

from functools import partial

import pytest

from noisegate.isolation import speed
from noisegate.isolation.payload import Payload
from noisegate.isolation.problems import Findings, Problem, in_annotation

NO_QUANTITY = "is not a quantity: a number, then nothing, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi or Ei"
PER_SECOND = f"{NO_QUANTITY}; the unit is bytes per second"
NOT_WHOLE = "is not a whole, positive number of bytes per second"
SIZES = "is not one of 512, 1k, 2k, 4k, 8k, 16k, 32k, 64k, 128k, 256k, 512k, 1M"

Told = tuple[str, str, str]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50Mi", (52428800, 4096)),
        ("50Mi/4k", (52428800, 4096)),
        ("50Mi/4Ki", (52428800, 4096)),
        ("50Mi/4KiB", (52428800, 4096)),
        ("50Mi/4kB", (52428800, 4096)),
        ("50Mi/512", (52428800, 512)),
        ("50Mi/512B", (52428800, 512)),
        ("50M/32k", (50000000, 32768)),
        ("5e7/4k", (50000000, 4096)),
        ("+50Mi/4k", (52428800, 4096)),
        ("1.5M/4k", (1500000, 4096)),
        ("1.5Mi/4k", (1572864, 4096)),
        ("0.5Gi/4k", (536870912, 4096)),
        (".5Gi/4k", (536870912, 4096)),
        ("1.5G/4k", (1500000000, 4096)),
        ("100Ti/4k", (109951162777600, 4096)),
        ("50Mi/1M", (52428800, 1048576)),
        ("50Mi/1MiB", (52428800, 1048576)),
        ("2000m/512k", (2, 524288)),
    ],
)
def test_speeds(text: str, expected: tuple[int, int]) -> None:
    """A speed is exact, and block sizes are powers of two whatever their suffix."""
    assert speed.parse(text) == expected


def test_block_sizes() -> None:
    """The block sizes are the powers of two from 512 bytes to 1 MiB, each in every spelling."""
    assert sorted(set(speed.BLOCK_SIZES.values())) == [1 << n for n in range(9, 21)]
    assert sorted(name for name, size in speed.BLOCK_SIZES.items() if size == 4096) == ["4Ki", "4KiB", "4k", "4kB"]
    assert sorted(name for name, size in speed.BLOCK_SIZES.items() if size == 512) == ["512", "512B"]
    assert sorted(name for name, size in speed.BLOCK_SIZES.items() if size == 1 << 20) == ["1M", "1MB", "1Mi", "1MiB"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", [("NG006", f'"" {PER_SECOND}', "")], id="empty"),
        pytest.param("/4k", [("NG006", f'"" {PER_SECOND}', "")], id="no speed"),
        pytest.param("50m/4k", [("NG007", f'"50m" {NOT_WHOLE}', "write 50M/4k")], id="thousandths"),
        pytest.param("0/4k", [("NG007", f'"0" {NOT_WHOLE}', "")], id="zero"),
        pytest.param("-5Mi/4k", [("NG007", f'"-5Mi" {NOT_WHOLE}', "")], id="negative"),
        pytest.param("50MB/4k", [("NG006", f'"50MB" {PER_SECOND}', "write 50M/4k")], id="unit word"),
        pytest.param("50MiB/4kB", [("NG006", f'"50MiB" {PER_SECOND}', "write 50Mi/4k")], id="binary unit word"),
        pytest.param("50mi/4k", [("NG006", f'"50mi" {PER_SECOND}', "write 50Mi/4k")], id="small letter"),
        pytest.param("50K/4k", [("NG006", f'"50K" {PER_SECOND}', "write 50k/4k")], id="capital letter"),
        pytest.param("1e3Mi/4k", [("NG006", f'"1e3Mi" {PER_SECOND}', "write 1000Mi/4k")], id="exponent and suffix"),
        pytest.param("0x10/4k", [("NG006", f'"0x10" {PER_SECOND}', "")], id="hexadecimal"),
        pytest.param(" 50Mi/4k", [("NG006", f'" 50Mi" {PER_SECOND}', "write 50Mi/4k")], id="blank before"),
        pytest.param("50 Mi/4k", [("NG006", f'"50 Mi" {PER_SECOND}', "write 50Mi/4k")], id="blank inside"),
        pytest.param(
            "max",
            [("NG006", f'"max" {PER_SECOND}', "leave the limit out and give a request: then there is no upper bound")],
            id="max",
        ),
        pytest.param(
            "8Ei/4k", [("NG006", '"8Ei" is larger than 2^63-1; the unit is bytes per second', "")], id="too large"
        ),
        pytest.param("50Mi/ 4k", [("NG101", f'block size " 4k" {SIZES}', "write 50Mi/4k")], id="blank in block size"),
        pytest.param("50Mi/4K", [("NG101", f'block size "4K" {SIZES}', "write 50Mi/4k")], id="capital block size"),
        pytest.param("50Mi/1m", [("NG101", f'block size "1m" {SIZES}', "write 50Mi/1M")], id="small block size"),
        pytest.param("50Mi/512b", [("NG101", f'block size "512b" {SIZES}', "write 50Mi/512")], id="small b"),
        pytest.param("50Mi/4096", [("NG101", f'block size "4096" {SIZES}', "write 50Mi/4k")], id="in bytes"),
        pytest.param("50Mi/3k", [("NG101", f'block size "3k" {SIZES}', "write 50Mi/4k")], id="no power of two"),
        pytest.param("50Mi/4", [("NG101", f'block size "4" {SIZES}', "write 50Mi/4k")], id="without its suffix"),
        pytest.param("50Mi/2M", [("NG101", f'block size "2M" {SIZES}', "write 50Mi/1M")], id="too large a block"),
        pytest.param("50Mi/", [("NG101", f'block size "" {SIZES}', "write 50Mi")], id="slash alone"),
        pytest.param("50Mi/0", [("NG101", f'block size "0" {SIZES}', "")], id="block of zero"),
        pytest.param("50Mi/-4k", [("NG101", f'block size "-4k" {SIZES}', "")], id="negative block"),
        pytest.param("50Mi/4k/8k", [("NG101", f'block size "4k/8k" {SIZES}', "write 50Mi/4k")], id="two block sizes"),
        pytest.param("50M/s", [("NG101", f'block size "s" {SIZES}', "write 50M")], id="per second"),
        pytest.param(
            "50MB/s",
            [("NG006", f'"50MB" {PER_SECOND}', "write 50M"), ("NG101", f'block size "s" {SIZES}', "write 50M")],
            id="unit word per second",
        ),
        pytest.param(
            "x/y",
            [("NG006", f'"x" {PER_SECOND}', ""), ("NG101", f'block size "y" {SIZES}', "")],
            id="nothing obvious",
        ),
    ],
)
def test_bad_speeds(text: str, expected: list[Told]) -> None:
    """What is refused is told completely, with the unit, the sizes that are allowed, and the mend where it is obvious."""
    with pytest.raises((KeyError, ValueError)):
        speed.parse(text)
    given = Payload(partial(in_annotation, "k"), Findings())
    speed.explain(given, text, ("v", "limits", "rbps"))
    path = "metadata.annotations[k].v.limits.rbps"
    assert given.found.problems == [Problem(code, path, text, message, hint) for code, message, hint in expected]
