"""Validation errors in the words of the file."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, Field, ValidationError

from noisegate.isolation.policy import Setting
from noisegate.service.faults import Lines, Wrongs
from noisegate.service.modelfaults import explain


def _even(number: int) -> int:
    if number % 2:
        raise ValueError("it must be even")
    return number


class _Inner(Setting):
    needed: str
    mode: Literal["off", "on"] | None = None


class _Outer(Setting):
    port: int = Field(default=1, ge=1, le=9, alias="the-port")
    at_least: int = Field(default=1, ge=1)
    at_most: int = Field(default=1, le=9)
    above: int = Field(default=1, gt=0)
    between: int = Field(default=1, gt=0, le=9)
    below: int = Field(default=1, lt=9)
    flag: bool = False
    share: float = 0.5
    name: str = Field(default="x", min_length=1)
    one_or_many: str | list[str] = ""
    words: Annotated[tuple[str, ...], Field(strict=False)] = ()
    kinds: list[Literal["a", "b"]] = []  # noqa: RUF012  (pydantic copies defaults)
    even: Annotated[int, AfterValidator(_even)] = 2
    code: str = Field(default="a", pattern="^[a-z]$")
    inner: _Inner | None = None
    inners: list[_Inner] = []  # noqa: RUF012
    by_name: dict[str, _Inner] = {}  # noqa: RUF012
    free: Any = None


def _told(value: Any) -> list[str]:
    with pytest.raises(ValidationError) as error:
        _Outer.model_validate(value, by_alias=True, by_name=False)
    wrongs = Wrongs("f.yaml", Lines(1))
    explain(error.value, _Outer, value, wrongs)
    return [str(fault).removeprefix("f.yaml:1: ") for fault in wrongs.faults]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"the-port": 10}, "the-port: 10: allowed: 1 to 9"),
        ({"at_least": 0}, "at_least: 0: allowed: 1 and more"),
        ({"at_most": 10}, "at_most: 10: allowed: up to 9"),
        ({"above": 0}, "above: 0: allowed: more than 0"),
        ({"between": 10}, "between: 10: allowed: more than 0, up to 9"),
        ({"below": 9}, "below: 9: allowed: less than 9"),
        ({"the-port": "3"}, 'the-port: "3": a whole number is needed (write 3 without quotation marks)'),
        ({"the-port": "x"}, 'the-port: "x": a whole number is needed'),
        ({"the-port": 1.5}, "the-port: 1.5: a whole number is needed"),
        ({"the-port": None}, "the-port: a whole number is needed"),
        ({"flag": "true"}, 'flag: "true": true or false is needed (write true without quotation marks)'),
        ({"flag": "maybe"}, 'flag: "maybe": true or false is needed'),
        ({"share": "x"}, 'share: "x": a number is needed'),
        ({"name": ""}, "name: a text that is not empty is needed"),
        ({"name": True}, 'name: true: a text is needed (put it in quotation marks: "true")'),
        ({"name": {"a": 1}}, 'name: {"a": 1}: a text is needed'),
        ({"one_or_many": {}}, "one_or_many: {}: a text or a list is needed"),
        ({"one_or_many": [1]}, 'one_or_many: [1]: a text is needed\none_or_many[0]: 1: a text is needed (put it in quotation marks: "1")'),
        ({"words": "me"}, 'words: "me": a list is needed (write [me])'),
        ({"kinds": ["a", "c"]}, 'kinds[1]: "c": allowed: a, b'),
        ({"even": 3}, "even: 3: it must be even"),
        ({"code": "AB"}, "code: \"AB\": String should match pattern '^[a-z]$'"),
        ({"inner": 3}, "inner: 3: a mapping (lines of key: value) is needed"),
        ({"inner": {}}, "inner.needed: missing, and there is no default"),
        ({"inner": {"needed": "x", "mode": "offf"}}, 'inner.mode: "offf": allowed: off, on (write off)'),
        ({"inners": [{"need": 1, "needed": "x"}]}, "inners[0].need: unknown key; allowed: needed, mode (write needed)"),
        ({"by_name": {"k.y": {"needed": 1}}}, 'by_name[k.y].needed: 1: a text is needed (put it in quotation marks: "1")'),
        ({"by_name": {"k": {"needed": "x", "q": 1}}}, "by_name.k.q: unknown key; allowed: needed, mode"),
        ([], "[]: a mapping (lines of key: value) is needed"),
    ],
)  # fmt: skip
def test_each_error_names_path_value_and_what_is_allowed(value: Any, told: str) -> None:
    """Every kind of error has a sentence of its own; the nearest known key or value is suggested."""
    assert _told(value) == told.splitlines()


def test_all_errors_are_told() -> None:
    """One error does not hide the next."""
    assert _told({"the-port": 0, "inner": {"mode": 3}, "x": 1}) == [
        "the-port: 0: allowed: 1 to 9",
        "inner.needed: missing, and there is no default",
        "inner.mode: 3: allowed: off, on",
        f"x: unknown key; allowed: the-port, {', '.join(list(_Outer.model_fields)[1:])}",
    ]
