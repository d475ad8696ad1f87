"""Laws of reading files: whatever stands in them is read or refused, never anything else."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from noisegate.service import manifests, rdtclasses
from noisegate.service.faults import ConfigError, Fault
from noisegate.webhook import inventory
from noisegate.webhook.settings import Settings

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
)


def _nested(keys: st.SearchStrategy[str], leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
    )


JSON = _nested(st.text(max_size=20), SCALARS)
WORDS = st.sampled_from(
    [
        "server",
        "port",
        "cert",
        "policy",
        "rdt",
        "classes",
        "catalogue",
        "files",
        "partitions",
        "l3Allocation",
        "all",
        "kind",
        "apiVersion",
        "metadata",
        "name",
        "annotations",
        "spec",
        "config",
        "items",
        "v1",
        "List",
        "50%",
        "0-3",
        "0xf",
        "k8s.cni.cncf.io/v1",
        "NetworkAttachmentDefinition",
        "PersistentVolumeClaim",
        "disk",
        "minimumBytesPerSecond",
        "1Mi",
    ]
)
FAMILIAR = _nested(WORDS, SCALARS | WORDS)
PIECES = st.lists(
    st.sampled_from(
        ["a", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ",", "'", '"', "|", ">", "#", "&x ", "*x", "<<", "? ", "---\n", "!!int ", "%", "\t"]
    ),
    max_size=30,
).map("".join)  # fmt: skip


def _read(text: str | bytes) -> tuple[list[manifests.Document], tuple[Fault, ...]]:
    try:
        return manifests.read(text, "f"), ()
    except ConfigError as error:
        return [], error.faults


@given(JSON, st.booleans(), st.sampled_from([None, 2]))
def test_json_is_read_as_what_it_says(value: Any, ascii_only: bool, indent: int | None) -> None:
    """A JSON object or list comes out equal, however it was written."""
    for wrapped in ([value], {"": value}):
        assert manifests.load(json.dumps(wrapped, ensure_ascii=ascii_only, indent=indent), "f")[0] == wrapped


@given(st.binary(max_size=60) | st.text(max_size=60) | PIECES)
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    """Nothing but a ConfigError comes out of what cannot be read, and it names a line of the file."""
    documents, faults = _read(text)
    assert all(document.line >= 1 for document in documents)
    assert all(fault.line >= 1 for fault in faults)


@given(FAMILIAR)
def test_any_value_is_taken_or_refused(value: Any) -> None:
    """The readers of server.yaml, class files and manifests raise nothing but a ConfigError, whatever they are given."""
    text = json.dumps(value)
    with suppress(ConfigError):
        Settings.load(text, "f")
    with suppress(ConfigError):
        rdtclasses.load(text, "f")
    with suppress(ConfigError):
        inventory.build(manifests.read(text, "f"))


@given(FAMILIAR, st.lists(st.one_of(WORDS, st.integers(0, 3)), max_size=4))
def test_every_path_has_a_line(value: Any, path: list[str | int]) -> None:
    """A path as text and as steps leads somewhere in the file, and to the same line where it exists."""
    text = json.dumps([value], indent=1)
    _, lines = manifests.load(text, "f")
    assert 1 <= lines.line_of(path) <= text.count("\n") + 1
    assert 1 <= lines.line_of(manifests.path_text(path)) <= text.count("\n") + 1
