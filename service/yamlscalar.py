"""What an unquoted YAML word means: null, boolean, integer, float or text, as kubectl reads it.

The rules are those of go.yaml.in/yaml/v2 (its resolve.go), followed by encoding/json and by the integers of Kubernetes'
own decoder: the booleans of YAML 1.1 with `y` and `n`, `0o17` and `010` are 15 and 8, `1_000` is 1000, no base 60,
timestamps stay text, a float without a fraction is an integer, an integer that needs more than 63 bits is a float.
"""

import re
from base64 import b64decode
from collections.abc import Mapping
from math import inf, isinf, isnan, nan
from struct import pack, unpack
from typing import Final

Plain = None | bool | int | float | str

_WORDS: Final[Mapping[str, Plain]] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -inf),
}
_NUMERIC_START: Final = frozenset("0123456789+-.")
_INTEGER: Final = re.compile(
    r"([-+]?)(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[oO](?P<octal>[0-7]+)|0[bB](?P<binary>[01]+)|(?P<old_octal>0[0-7]*)|(?P<decimal>[1-9][0-9]*))"
)
_BASES: Final[Mapping[str, int]] = {"hex": 16, "octal": 8, "binary": 2, "old_octal": 8, "decimal": 10}
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_POINT_FLOAT: Final = re.compile(r"\.[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+(?:_[0-9]+)*)?")
_LONGEST_NUMBER: Final = 400
"""Characters. Python refuses to read longer decimals at 4300; Go's float64 ends at 309 digits."""

_TAG_PREFIX: Final = "tag:yaml.org,2002:"


class NotPlainError(ValueError):
    """The word cannot be what its tag says, or JSON has no such value."""


def plain_value(text: str, tag: str | None) -> Plain:
    """Return the JSON value of a scalar. `tag`: its explicit tag, such as `tag:yaml.org,2002:str`, or None.

    Raises:
        NotPlainError: With a sentence for the user.
    """
    value = _tagged(text, tag)
    if type(value) is int:
        # Beyond int64 Kubernetes' decoder takes a float64.
        return value if -(1 << 63) <= value < 1 << 63 else float(value)
    if type(value) is float:
        if isnan(value) or isinf(value):
            raise NotPlainError(f"{text} is no number in JSON; put it in quotation marks if text is meant")
        return int(value) if value.is_integer() and -(2.0**63) <= value < 2.0**63 else value
    return value


def key_text(text: str, tag: str | None) -> str:
    """Return the text that a mapping's key becomes in JSON.

    Raises:
        NotPlainError: It is null, or an integer beyond int64: kubectl refuses both.
    """
    key = _tagged(text, tag)
    if isinstance(key, str):
        return key
    if key is None:
        raise NotPlainError("a key cannot be null; put it in quotation marks")
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int) and key >= 1 << 63:
        raise NotPlainError(f"{text} is too large a number for a key; put it in quotation marks")
    return str(key) if isinstance(key, int) else _float_key(key)


_KINDS: Final[Mapping[type, str]] = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str"}


def _tagged(text: str, tag: str | None) -> Plain:
    kind = tag.removeprefix(_TAG_PREFIX) if tag is not None and tag.startswith(_TAG_PREFIX) else ""
    if kind == "binary":
        return _binary(text)
    if tag is not None and kind not in _KINDS.values():
        # As text: !, !!timestamp, and like kubectl every tag that YAML does not define.
        return text
    if kind == "str":
        return text
    value = _resolved(text)
    if kind:
        if kind == "float" and type(value) is int:
            value = float(value)
        if _KINDS[type(value)] != kind:
            raise NotPlainError(f'"{text}" is not what its tag !!{kind} says')
    return value


def _resolved(text: str) -> Plain:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC_START or len(text) > _LONGEST_NUMBER:
        return text
    if text[0] == ".":
        return float(text) if _POINT_FLOAT.fullmatch(text) else text
    number = text.replace("_", "")
    match = _INTEGER.fullmatch(number)
    if match:
        base = match.lastgroup or ""
        magnitude = int(match[base], _BASES[base])
        value = -magnitude if match[1] == "-" else magnitude
        if -(1 << 63) <= value < 1 << 63 or (value < 1 << 64 and not match[1]):
            return value
    if _FLOAT.fullmatch(number):
        real = float(number)
        return text if isinf(real) else real
    return text


def _float_key(key: float) -> str:
    # sigs.k8s.io/yaml writes it as Go's FormatFloat(key, 'g', -1, 32): the fewest digits that name the same float32,
    # with an exponent below 1e-4 and from 1e6 (Go takes six digits as the precision of the shortest form).
    try:
        single = unpack("<f", pack("<f", key))[0]
    except OverflowError:
        single = inf if key > 0 else -inf
    if isnan(single) or isinf(single):
        return ".nan" if isnan(single) else ".inf" if single > 0 else "-.inf"
    forms = (f"{single:.{places}e}" for places in range(9))
    shortest = next(form for form in forms if unpack("<f", pack("<f", float(form)))[0] == single)
    digits, _, power = shortest.partition("e")
    exponent = int(power)
    if not -4 <= exponent < 6:
        return shortest
    places = len(digits.lstrip("-").replace(".", "")) - 1 - exponent
    return f"{float(shortest):.{max(places, 0)}f}"


def _binary(text: str) -> str:
    try:
        return b64decode("".join(text.split()), validate=True).decode("utf-8", "replace")
    except ValueError as error:
        raise NotPlainError("the text under !!binary is not base64") from error
