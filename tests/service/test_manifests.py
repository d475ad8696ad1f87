"""Manifests as kubectl prints them, and configuration files checked against a model."""

from typing import Any

import pytest
from pydantic import Field

from noisegate.isolation.policy import Setting
from noisegate.service.manifests import ConfigError, Wrongs, canonical, load, load_model, read, validated

POD: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "ns"}}


def test_documents_are_objects_with_their_place() -> None:
    """Several documents are read, empty ones skipped, and each has source, line, kind, namespace and name."""
    text = "---\n# nothing\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  namespace: ns\n---\nkind: 3\nmetadata: []\n"
    first, second = read(text, "pods.yaml")
    assert first[:7] == ("pods.yaml", 4, "v1", "Pod", "ns", "a", POD)
    assert first.lines.line_of("metadata.namespace") == 8
    assert second[:7] == ("pods.yaml", 10, "", "", "", "", {"kind": 3, "metadata": []})


def test_lists_are_flattened() -> None:
    """Elements of `List` and of typed lists are documents; those that do not say what they are take the list's word."""
    text = """\
apiVersion: v1
kind: List
items:
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}
- apiVersion: v1
  kind: PodList
  items:
  - metadata: {name: p}
  - {kind: Pod, metadata: {name: q}}
- {apiVersion: v1, kind: ConfigMapList}
"""
    found = read(text, "all.yaml")
    assert [(document.line, document.api_version, document.kind, document.name) for document in found] == [
        (4, "apps/v1", "Deployment", "d"),
        (8, "v1", "Pod", "p"),
        (9, "", "Pod", "q"),
        (10, "v1", "ConfigMapList", ""),
    ]
    assert found[1].value == {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    assert found[1].lines.line_of("metadata.name") == 8


def test_what_is_no_object_is_refused_with_all_its_places() -> None:
    """Documents and elements that are no mappings are told together."""
    with pytest.raises(ConfigError) as error:
        read("a\n---\nkind: List\nitems: [3]\n", "f.yaml")
    told = "this is no mapping; a Kubernetes object is a mapping with apiVersion, kind and metadata"
    assert str(error.value) == f"f.yaml:1: {told}\nf.yaml:4: {told}"


def test_a_configuration_file_has_one_document() -> None:
    """Its value and lines are returned, None where it is empty; a second document is refused."""
    value, lines = load("---\na:\n  b: 1\n---\n", "c.yaml")
    assert (value, lines.line_of("a.b")) == ({"a": {"b": 1}}, 3)
    empty, lines = load("# nothing\n", "c.yaml")
    assert (empty, lines.line_of("a")) == (None, 1)
    with pytest.raises(ConfigError) as error:
        load("a: 1\n---\nb: 1\n", "c.yaml")
    assert str(error.value) == "c.yaml:3: a second document begins here; this file has one (remove ---)"


class _Model(Setting):
    time_out: int = Field(default=1, alias="timeOut")


def test_a_file_becomes_a_model() -> None:
    """Keys are the aliases, an empty file means all defaults, and errors name the file."""
    model, lines = load_model(_Model, "timeOut: 3\n", "c.yaml")
    assert (model, lines.line_of("timeOut")) == (_Model(timeOut=3), 1)
    assert load_model(_Model, "", "c.yaml")[0] == _Model()
    with pytest.raises(ConfigError) as error:
        load_model(_Model, "\ntime_out: 3\n", "c.yaml")
    assert str(error.value) == "c.yaml:2: time_out: unknown key; allowed: timeOut (write timeOut)"


def test_a_value_can_be_checked_among_others() -> None:
    """`validated` adds to what is wrong already and returns None."""
    _, lines = load("", "c.yaml")
    wrongs = Wrongs("c.yaml", lines)
    assert validated(_Model, {"timeOut": 2}, wrongs) == _Model(timeOut=2)
    assert validated(_Model, {"timeOut": "2"}, wrongs) is None
    assert [str(fault) for fault in wrongs.faults] == [
        'c.yaml:1: timeOut: "2": a whole number is needed (write 2 without quotation marks)'
    ]


def test_equal_values_have_one_text() -> None:
    """The order of keys does not matter, that of elements does."""
    assert canonical({"b": [1, 2], "a": None}) == canonical({"a": None, "b": [1, 2]}) == '{"a":null,"b":[1,2]}'
    assert canonical([1, 2]) != canonical([2, 1])
