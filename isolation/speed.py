"""Speed of a disk: `<bytes per second>[/<block size>]`, such as `50Mi/4k` (pod-api.md 1)."""

from functools import lru_cache
from typing import Final

from noisegate.isolation.bounds import Steps, explain_quantity, meant
from noisegate.isolation.payload import Payload
from noisegate.isolation.problems import Code, shown
from noisegate.isolation.quantity import whole

BLOCK_SIZE: Final = Code(
    "NG101",
    "disk-block-size",
    "What stands behind the slash is the block size that the limit in operations is derived from; it is one of a fixed list, always a power of two.",
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi/3k"}}}\'',
    'blockio.kubernetes.io/resources: \'{"data": {"limits": {"rbps": "50Mi/4k"}}}\'',
)
CODES: Final = (BLOCK_SIZE,)

UNIT: Final = "bytes per second"

# Powers of two whatever the suffix says: nobody counts blocks in thousands.
BLOCK_NAMES: Final = {
    1 << n: str(1 << n) if n < 10 else f"{1 << n - 10}k" if n < 20 else f"{1 << n - 20}M" for n in range(9, 21)
}
BLOCK_SIZES: Final = {
    spelling + byte: size
    for size, name in BLOCK_NAMES.items()
    for spelling in {name, name.replace("k", "Ki").replace("M", "Mi")}
    for byte in ("", "B")
}
"""Every spelling of a block size, in bytes: `4k`, `4Ki`, `4kB` and `4KiB` are one."""
DEFAULT: Final = 4096
_ANY_CASE: Final = {spelling.lower(): BLOCK_NAMES[size] for spelling, size in BLOCK_SIZES.items()}


@lru_cache(maxsize=512)
def parse(text: str) -> tuple[int, int]:
    """Return bytes per second and block size in bytes.

    Raises:
        KeyError: The block size is none of the list.
        ValueError: The speed is no whole, positive quantity.
    """
    quantity, slash, block = text.partition("/")
    return whole(quantity), BLOCK_SIZES[block] if slash else DEFAULT


def explain(payload: Payload, text: str, steps: Steps) -> None:
    """Report everything that is wrong with a text that `parse` refused."""
    quantity, slash, block = text.partition("/")
    rest = _mended(block) if slash else ""
    try:
        whole(quantity)
    except ValueError as error:
        explain_quantity(payload, quantity, error, UNIT, steps, within=text, rest=rest or "")
    if slash and block not in BLOCK_SIZES:
        spelling = meant(quantity)
        told = f'block size "{shown(block)}" is not one of {", ".join(BLOCK_NAMES.values())}'
        hint = f"write {spelling}{rest}" if spelling and rest is not None else ""
        payload.deny(BLOCK_SIZE, text, told, *steps, hint=hint)


def _mended(block: str) -> str | None:
    """Return what `/<block size>` was meant to be: the same size as it is written here, else the next larger one."""
    spelling = "".join(block.split()).lower()
    if spelling in {"", "s", "sec", "second"}:
        return ""
    if spelling in _ANY_CASE:
        return f"/{_ANY_CASE[spelling]}"
    number = meant(spelling)
    if not number:
        return None
    # `/4` is short for `/4k`: no disk has blocks of fewer than 512 bytes.
    least = whole(number) if whole(number) >= min(BLOCK_NAMES) else whole(number) << 10
    return "/" + next((name for size, name in BLOCK_NAMES.items() if size >= least), "1M")
