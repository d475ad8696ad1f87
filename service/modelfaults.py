"""A model's ValidationError in the words of the file it came from."""

import types
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from noisegate.isolation.problems import nearest, shown
from noisegate.service.faults import Wrongs

_NEEDED: Final[Mapping[str, str]] = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "string_too_short": "a text that is not empty",
    "model_type": "a mapping (lines of key: value)",
    "dict_type": "a mapping (lines of key: value)",
    "list_type": "a list",
    "tuple_type": "a list",
}
_BOUNDS: Final = frozenset({"greater_than_equal", "greater_than", "less_than_equal", "less_than"})
_LIMITS: Final = ("ge", "gt", "le", "lt")

Path = tuple[str | int, ...]


class _Place(NamedTuple):
    """Where an error is.

    Attributes:
        path: Keys and indexes that exist in the value.
        owner: Model that has the path's last key for a field or, for an unknown key, ought to; else None.
        field: The last field on the path; it holds the bounds.
        annotation: Type of the value itself.
    """

    path: Path
    owner: type[BaseModel] | None
    field: FieldInfo | None
    annotation: Any


def explain(error: ValidationError, model: type[BaseModel], value: Any, wrongs: Wrongs) -> None:
    """Add every error to `wrongs`: path, value, what is allowed, and for an unknown key the nearest known one."""
    needed: dict[Path, list[str]] = {}
    entries = error.errors(include_url=False)
    places = [_place_of(entry["loc"], model, value) for entry in entries]
    for entry, place in zip(entries, places, strict=True):
        if entry["type"] in _NEEDED:
            # A value of several allowed types has one error for each of them.
            needed.setdefault(place.path, []).append(_NEEDED[entry["type"]])
    for entry, (path, owner, field, annotation) in zip(entries, places, strict=True):
        kind, given = entry["type"], entry["input"]
        if kind in _NEEDED:
            wanted = needed.pop(path, None)
            if wanted is not None:
                wrongs.add(path, given, f"{' or '.join(dict.fromkeys(wanted))} is needed", _mend(kind, given))
        elif kind == "missing":
            wrongs.add((*path, entry["loc"][-1]), None, "missing, and there is no default")
        elif kind == "extra_forbidden":
            known = tuple(_fields(owner))
            wrongs.add(path, None, f"unknown key; allowed: {', '.join(known)}", _nearest(path[-1], known))
        elif kind == "literal_error":
            choices = tuple(_choices(annotation))
            wrongs.add(path, given, f"allowed: {', '.join(choices)}", _nearest(given, choices))
        elif kind in _BOUNDS:
            wrongs.add(path, given, f"allowed: {_range(field.metadata if field else ())}")
        else:
            wrongs.add(path, given, str(entry["ctx"]["error"]) if kind == "value_error" else entry["msg"])


def _place_of(loc: Sequence[str | int], model: type[BaseModel], value: Any) -> _Place:
    path: Path = ()
    owner: type[BaseModel] | None = model
    annotation: Any = model
    field: FieldInfo | None = None
    for step in loc:
        # Steps that are no key of the value are pydantic's own: the member of a union, "[key]", a missing key.
        if isinstance(value, dict) and step in value:
            owner = _model_in(annotation)
            field = _fields(owner).get(str(step)) if owner else field
            annotation = (field.annotation if field else None) if owner else _last_argument(annotation)
        elif isinstance(value, list) and isinstance(step, int):
            annotation = _last_argument(annotation)
        else:
            continue
        path = (*path, step)
        value = value[step]
    return _Place(path, owner, field, annotation)


def _fields(model: type[BaseModel] | None) -> Mapping[str, FieldInfo]:
    return {} if model is None else {field.alias or name: field for name, field in model.model_fields.items()}


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    return next(
        (member for member in _members(annotation) if isinstance(member, type) and issubclass(member, BaseModel)), None
    )


def _last_argument(annotation: Any) -> Any:
    arguments = next((get_args(member) for member in _members(annotation) if get_args(member)), ())
    return next((argument for argument in reversed(arguments) if argument is not Ellipsis), None)


def _choices(annotation: Any) -> list[str]:
    return [
        str(choice) for member in _members(annotation) if get_origin(member) is Literal for choice in get_args(member)
    ]


def _range(metadata: Sequence[Any]) -> str:
    bounds = {
        name: getattr(entry, name) for entry in metadata for name in ("ge", "gt", "le", "lt") if hasattr(entry, name)
    }
    if "gt" in bounds:
        return f"more than {bounds['gt']}" + (f", up to {bounds['le']}" if "le" in bounds else "")
    if "ge" in bounds:
        return f"{bounds['ge']} to {bounds['le']}" if "le" in bounds else f"{bounds['ge']} and more"
    return f"up to {bounds['le']}" if "le" in bounds else f"less than {bounds['lt']}"


def _nearest(word: object, known: tuple[str, ...]) -> str:
    meant = nearest(str(word), known)
    return f"write {meant}" if meant else ""


def _mend(kind: str, given: Any) -> str:
    if kind == "string_type" and isinstance(given, (bool, int, float)):
        return f'put it in quotation marks: "{shown(given)}"'
    if isinstance(given, str) and (
        (kind == "int_type" and given.isdecimal()) or (kind == "bool_type" and given in ("true", "false"))
    ):
        return f"write {given} without quotation marks"
    if isinstance(given, str) and kind in ("list_type", "tuple_type"):
        return f"write [{shown(given)}]"
    return ""
