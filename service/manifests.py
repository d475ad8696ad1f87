"""Files of YAML and JSON: Kubernetes manifests as kubectl prints them, and configuration files checked against a model.

for document in read(text, "pods.yaml"): ...                 # manifests
model, lines = load_model(Settings, text, "server.yaml")     # a configuration file
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from noisegate.service.faults import ConfigError, Fault, Lines, Wrongs, path_text
from noisegate.service.modelfaults import explain
from noisegate.service.yamltext import Parsed, parse

__all__ = [
    "ConfigError",
    "Document",
    "Fault",
    "Lines",
    "Wrongs",
    "canonical",
    "load",
    "load_model",
    "path_text",
    "read",
]

Model = TypeVar("Model", bound=BaseModel)

_NO_LINES: Final = Lines(1)


class Document(NamedTuple):
    """One object of a manifest. An element of a `List` is a document of its own.

    Attributes:
        source: Name of the file as the user gave it.
        line: Line the object begins in.
        api_version: `apiVersion`; empty where it is absent or no text.
        kind: `kind`; empty likewise, so that files which hold no Kubernetes objects can be passed by.
        namespace: `metadata.namespace`; empty likewise.
        name: `metadata.name`; empty likewise (an object with `generateName` has none).
        value: The whole object. Read-only: aliases make parts of it shared.
        lines: Where its values stand; paths begin at the object.
    """

    source: str
    line: int
    api_version: str
    kind: str
    namespace: str
    name: str
    value: dict[str, Any]
    lines: Lines


def read(text: str | bytes, file: str) -> list[Document]:
    """Read the objects of a manifest: several documents, `List`s and typed lists flattened, empty documents skipped.

    Raises:
        ConfigError: The text cannot be read (see `yamltext.parse`), or a document or list element is no mapping.
    """
    found: list[Document] = []
    faults: list[Fault] = []
    for parsed in parse(text, file):
        if parsed.value is not None:
            found.extend(_objects(parsed, file, "", "", faults))
    if faults:
        raise ConfigError(faults)
    return found


def _objects(parsed: Parsed, file: str, kind: str, api_version: str, faults: list[Fault]) -> Iterator[Document]:
    value = parsed.value
    if not isinstance(value, dict):
        told = "a Kubernetes object is a mapping with apiVersion, kind and metadata"
        faults.append(Fault(file, parsed.line, 0, "", f"this is no mapping; {told}"))
        return
    if "kind" not in value and "apiVersion" not in value and kind:
        # The elements of a typed list say neither where the API server printed them.
        value = {"apiVersion": api_version, "kind": kind, **value}
    own_kind, own_version = _text(value, "kind"), _text(value, "apiVersion")
    items = value.get("items")
    if own_kind.endswith("List") and isinstance(items, list):
        for index, item in enumerate(items):
            lines = parsed.lines.under(("items", index))
            element = Parsed(item, lines, lines.line_of())
            yield from _objects(element, file, own_kind.removesuffix("List"), own_version, faults)
        return
    metadata = value.get("metadata")
    named = metadata if isinstance(metadata, dict) else {}
    place = (_text(named, "namespace"), _text(named, "name"))
    yield Document(file, parsed.line, own_version, own_kind, *place, value, parsed.lines)


def _text(mapping: Mapping[str, Any], key: str) -> str:
    value = mapping.get(key)
    return value if isinstance(value, str) else ""


def load(text: str | bytes, file: str) -> tuple[Any, Lines]:
    """Read a configuration file: its only document's value (None where it is empty) and its lines.

    Raises:
        ConfigError: The text cannot be read (see `yamltext.parse`), or it has several documents.
    """
    documents = [parsed for parsed in parse(text, file) if parsed.value is not None]
    if not documents:
        return None, _NO_LINES
    if len(documents) > 1:
        raise ConfigError(
            [Fault(file, documents[1].line, 0, "", "a second document begins here; this file has one", "remove ---")]
        )
    return documents[0].value, documents[0].lines


def load_model(model: type[Model], text: str | bytes, file: str) -> tuple[Model, Lines]:
    """Read a configuration file into a model; an empty file stands for all defaults.

    Raises:
        ConfigError: The text cannot be read, or values do not fit: all of them, each with line, path, value and what
            is allowed.
    """
    value, lines = load(text, file)
    wrongs = Wrongs(file, lines)
    settings = validated(model, {} if value is None else value, wrongs)
    if settings is None:
        raise wrongs.error()
    return settings, lines


def validated(model: type[Model], value: Any, wrongs: Wrongs, context: Mapping[str, Any] | None = None) -> Model | None:
    """Return a value as a model, or None after adding to `wrongs` all that does not fit.

    Keys are the model's aliases. `context` is handed to its validators.
    """
    try:
        return model.model_validate(value, context=context, by_alias=True, by_name=False)
    except ValidationError as error:
        explain(error, model, value, wrongs)
        return None


def canonical(value: Any) -> str:
    """Return one text for equal JSON values, whatever the order of their keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
