"""RFC 6902 operations, written straight to bytes in a deterministic order.

`add` on an object's member sets or replaces it, with `/-` it appends to a list; only an element of a list that is to
be another needs `replace` (RFC 6902: `add` at an index inserts). A parent that is absent is made once, by one operation
that holds everything put into it.
"""

import binascii
from functools import lru_cache
from typing import Any, Final

import msgspec

_encode: Final = msgspec.json.Encoder(order="deterministic").encode


class _Add(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="add"):
    path: str
    value: Any


class _Replace(msgspec.Struct, frozen=True, gc=False, tag_field="op", tag="replace"):
    path: str
    value: Any


def escape(step: str) -> str:
    """Return one step of a JSON pointer (RFC 6901)."""
    return step.replace("~", "~0").replace("/", "~1") if "~" in step or "/" in step else step


@lru_cache(maxsize=256)
def pointer(path: tuple[str, ...]) -> str:
    """Return the JSON pointer of a path."""
    return "".join(["/" + escape(step) for step in path])


class Patch:
    """Collects operations. Pointers are RFC 6901 text, already escaped."""

    __slots__ = ("_base64", "_made", "_operations")

    def __init__(self) -> None:
        self._operations: list[_Add | _Replace] = []
        self._made: dict[str, Any] = {}
        self._base64 = b""

    def __bool__(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self._operations)

    def set(self, place: str, value: Any) -> None:
        """Set or replace a member whose parent exists."""
        self._operations.append(_Add(place, value))

    def replace(self, place: str, value: Any) -> None:
        """Replace what stands at `place`: the way to another element of a list."""
        self._operations.append(_Replace(place, value))

    def append(self, place: str, value: Any) -> None:
        """Append to the list at `place`, which exists."""
        self._operations.append(_Add(place + "/-", value))

    def make(self, place: str, empty: Any) -> Any:
        """Return the value that will be made at `place`, whose parent exists; the first call puts `empty` there.

        The caller fills it; the operation is written with what it holds in the end.
        """
        made = self._made.get(place)
        if made is None:
            made = self._made[place] = empty
            self._operations.append(_Add(place, made))
        return made

    def extend(self, later: "Patch") -> None:
        """Take over the operations of a patch of what this one makes."""
        self._operations += later._operations  # noqa: SLF001  (the same class)

    def apply(self, document: Any) -> None:
        """Do the operations to a document in place."""
        for operation in self.operations():
            *steps, last = (step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:])
            parent = document
            for step in steps:
                parent = parent[int(step)] if isinstance(parent, list) else parent[step]
            if last == "-":
                parent.append(operation["value"])
            else:
                parent[int(last) if isinstance(parent, list) else last] = operation["value"]

    def operations(self) -> list[dict[str, Any]]:
        """Return the operations as JSON values."""
        operations: list[dict[str, Any]] = msgspec.json.decode(self.encoded())
        return operations

    def encoded(self) -> bytes:
        """Return the patch as JSON text."""
        return _encode(self._operations)

    def base64(self) -> bytes:
        """Return the patch as an AdmissionResponse carries it; the first time makes it for good."""
        if not self._base64:
            self._base64 = binascii.b2a_base64(self.encoded(), newline=False)
        return self._base64
