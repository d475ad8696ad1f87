"""RFC 6902 operations, written straight to bytes in a deterministic order.

Only `add` is needed: on an object's member it sets or replaces, with `/-` it appends. A parent that is absent is made
once, by one operation that holds everything put into it.
"""

import binascii
from typing import Any

import msgspec

_encode = msgspec.json.Encoder(order="deterministic").encode


def escape(step: str) -> str:
    """Return one step of a JSON pointer (RFC 6901)."""
    return step.replace("~", "~0").replace("/", "~1") if "~" in step or "/" in step else step


class Patch:
    """Collects operations. Pointers are RFC 6901 text, already escaped."""

    __slots__ = ("_made", "_operations")

    def __init__(self) -> None:
        self._operations: list[tuple[str, Any]] = []
        self._made: dict[str, Any] = {}

    def __bool__(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self._operations)

    def set(self, pointer: str, value: Any) -> None:
        """Set or replace a member whose parent exists."""
        self._operations.append((pointer, value))

    def append(self, pointer: str, value: Any) -> None:
        """Append to the list at `pointer`, which exists."""
        self._operations.append((pointer + "/-", value))

    def make(self, pointer: str, empty: Any) -> Any:
        """Return the value that will be made at `pointer`, whose parent exists; the first call puts `empty` there.

        The caller fills it; the operation is written with what it holds in the end.
        """
        made = self._made.get(pointer)
        if made is None:
            made = self._made[pointer] = empty
            self._operations.append((pointer, made))
        return made

    def operations(self) -> list[dict[str, Any]]:
        """Return the operations as JSON values."""
        return [{"op": "add", "path": pointer, "value": value} for pointer, value in self._operations]

    def encoded(self) -> bytes:
        """Return the patch as JSON text."""
        parts = [
            b'{"op":"add","path":%s,"value":%s}' % (_encode(pointer), _encode(value)) for pointer, value in self._operations
        ]
        return b"[" + b",".join(parts) + b"]"

    def base64(self) -> bytes:
        """Return the patch as an AdmissionResponse carries it."""
        return binascii.b2a_base64(self.encoded(), newline=False)
