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
_BLOCK_NAMES: Final = {
    1 << n: str(1 << n) if n < 10 else f"{1 << n - 10}k" if n < 20 else f"{1 << n - 20}M" for n in range(9, 21)
}
BLOCK_SIZES: Final = {
    spelling + byte: size
    for size, name in _BLOCK_NAMES.items()
    for spelling in {name, name.replace("k", "Ki").replace("M", "Mi")}
    for byte in ("", "B")
}
"""Every spelling of a block size, in bytes: `4k`, `4Ki`, `4kB` and `4KiB` are one."""
DEFAULT_BLOCK_SIZE: Final = 4096
_ANY_CASE: Final = {spelling.lower(): _BLOCK_NAMES[size] for spelling, size in BLOCK_SIZES.items()}

    def _explain_bytes(self, value: str, steps: Steps) -> None:
        """Report what is wrong with `<bytes per second>[/<block size>]`."""
        quantity, slash, block = value.partition("/")
        rest = _mended_block(block) if slash else ""
        try:
            whole(quantity)
        except ValueError as error:
            explain(self.payload, value, quantity, BYTES, error, steps, rest or "")
        if slash and block not in BLOCK_SIZES:
            spelling = meant(quantity)
            told = f'block size "{shown(block)}" is not one of {", ".join(_BLOCK_NAMES.values())}'
            self.payload.deny(
                BLOCK_SIZE, value, told, *steps, hint=f"write {spelling}{rest}" if spelling and rest is not None else ""
            )


@lru_cache(maxsize=4096)
def _bytes_in_blocks(text: str) -> tuple[int, int]:
    """Return bytes per second and block size of `50Mi/4k`; of any other text a KeyError or ValueError."""
    quantity, slash, block = text.partition("/")
    return whole(quantity), BLOCK_SIZES[block] if slash else DEFAULT_BLOCK_SIZE


def _mended_block(block: str) -> str | None:
    """Return what `/<block size>` was meant to be: the same size in our spelling, the next larger one, or nothing."""
    spelling = "".join(block.split()).lower()
    if spelling in {"", "s", "sec", "second"}:
        return ""
    if spelling in _ANY_CASE:
        return f"/{_ANY_CASE[spelling]}"
    number = meant(spelling)
    if not number:
        return None
    return "/" + next((name for size, name in _BLOCK_NAMES.items() if size >= whole(number)), "1M")


